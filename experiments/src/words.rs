//! Shapes, names and errors in words, as every text of the command has them.

use limbeck::error::Error;
use tch::Device;

/// `64×8×8`
pub fn shape(shape: &[i64]) -> String {
    shape.iter().map(i64::to_string).collect::<Vec<_>>().join("×")
}

/// Prefixes `what` with the label of a grid's point, if there is one.
pub fn join_label(label: &str, what: &str) -> String {
    if label.is_empty() { what.to_owned() } else { format!("{label}, {what}") }
}

/// The device's name: `cpu`, `cuda:0`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// An error with what caused it.
pub fn full_message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!("\n  caused by: {cause}");
        source = cause.source();
    }
    text
}
