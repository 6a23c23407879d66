//! `limbeck doctor`: is there all that an experiment needs?

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use indexmap::IndexMap;
use limbeck::device::DeviceReport;
use limbeck::registry::{self, Plugin, Role};
use limbeck::tch::{Device, Kind, Tensor};
use serde::Serialize;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// A line for each thing that was looked at.
    #[serde(skip)]
    pub text: String,
    /// The same by name: `libtorch`, `cpu`, `data`, …
    pub found: IndexMap<String, Vec<String>>,
    /// What stands in the way of training; empty if nothing does.
    pub problems: Vec<String>,
}

/// Looks at versions, libtorch, devices, plugins and data.
pub fn examine() -> Diagnosis {
    let devices = DeviceReport::gather();
    let mut text = format!("limbeck   {}\n{devices}\n", env!("CARGO_PKG_VERSION"));
    let mut problems = Vec::new();
    let gpus = (0..devices.gpus).map(Device::Cuda);
    for device in std::iter::once(Device::Cpu).chain(gpus) {
        let name = match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        };
        match compute(device) {
            Ok(()) => _ = writeln!(text, "{name:8}  computes"),
            Err(reason) => {
                _ = writeln!(text, "{name:8}  does not compute: {reason}");
                problems.push(format!("{name} does not compute: {reason}"));
            }
        }
    }
    let plugins = registry::plugins();
    let crates: BTreeSet<&str> = plugins.iter().map(|plugin| plugin.package).collect();
    let crates: Vec<&str> = crates.into_iter().collect();
    _ = writeln!(text, "plugins   {} of {}", plugins.len(), crates.join(", "));
    for (i, plugin) in registry::plugins_of(Role::Dataset).into_iter().enumerate() {
        let label = if i == 0 { "data" } else { "" };
        _ = writeln!(text, "{label:8}  {}: {}", plugin.name, data(plugin, Path::new(".")));
    }
    Diagnosis { found: by_name(&text), text, problems }
}

/// The lines of the text by their first word; a line without one belongs to the line before.
fn by_name(text: &str) -> IndexMap<String, Vec<String>> {
    let mut found: IndexMap<String, Vec<String>> = IndexMap::new();
    for line in text.lines() {
        let (name, value) = line.split_at_checked(10).unwrap_or((line, ""));
        let name = match (name.trim(), found.last()) {
            ("", Some((last, _))) => last.clone(),
            (name, _) => name.to_owned(),
        };
        found.entry(name).or_default().push(value.trim().to_owned());
    }
    found
}

/// Multiplies two matrices whose product is known.
fn compute(device: Device) -> Result<(), String> {
    let options = (Kind::Float, device);
    let product =
        Tensor::f_ones([16, 16], options).and_then(|ones| ones.f_matmul(&ones)).and_then(|c| c.f_sum(Kind::Double));
    match product.and_then(f64::try_from) {
        Ok(4096.0) => Ok(()),
        Ok(other) => Err(format!("the sum of a product of ones is {other} in place of 4096")),
        Err(error) => Err(error.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

/// Whether a data set's default `path` is there, seen from `here`. An experiment may name another.
fn data(plugin: &Plugin, here: &Path) -> String {
    let settings = plugin.default_table().unwrap_or_default();
    match settings.get("path").and_then(toml::Value::as_str) {
        None => "needs no file".to_owned(),
        Some(path) if here.join(path).exists() => format!("`{path}` is there"),
        Some(path) => format!("`{path}` is not there; give its place as `path` in [dataset]"),
    }
}

#[cfg(test)]
mod tests {
    use limbeck::registry::Content;
    use limbeck::settings::Setting;

    use super::*;

    #[test]
    fn this_host_can_train() {
        let diagnosis = examine();
        assert_eq!(diagnosis.problems, [""; 0]);
        for expected in ["limbeck   ", "libtorch  2.11.0", "\ncpu       computes\n", "\nplugins   "] {
            assert!(diagnosis.text.contains(expected), "{}", diagnosis.text);
        }
        assert_eq!(diagnosis.found["cpu"], ["computes"]);
        assert!(diagnosis.found["libtorch"][0].starts_with("2.11.0"));
        assert!(diagnosis.found["data"].len() >= 2, "every data set has a line: {:?}", diagnosis.found);
    }

    #[test]
    fn data_are_looked_for_where_the_defaults_say() {
        let folder = tempfile::tempdir().unwrap();
        let plugin = |settings: fn() -> Vec<Setting>| Plugin {
            role: Role::Dataset,
            name: "images",
            summary: "",
            citation: "",
            content: Content::Settings(settings),
            page: "",
            package: "",
            version: "",
        };
        assert_eq!(data(&plugin(|| vec![Setting::new("seed", &0, &[])]), folder.path()), "needs no file");
        let plugin = plugin(|| vec![Setting::new("path", &"images.tar", &[])]);
        assert_eq!(data(&plugin, folder.path()), "`images.tar` is not there; give its place as `path` in [dataset]");
        std::fs::write(folder.path().join("images.tar"), "").unwrap();
        assert_eq!(data(&plugin, folder.path()), "`images.tar` is there");
    }
}
