//! Numbers, names and errors in words, as every text of the command has them.

use limbeck::error::Error;
use tch::Device;

/// `7 433 860`
pub fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `1 epoch`, `2 epochs`
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_threes() {
        assert_eq!(thousands(7_433_860), "7 433 860");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(-1000), "-1 000");
    }
}
