//! `limbeck doctor`: is there all that an experiment needs?

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use limbeck::device::DeviceReport;
use limbeck::registry::{self, Plugin, Role};
use limbeck::tch::{Device, Kind, Tensor};
use serde::Serialize;

use crate::waiting;
use crate::words::device_name;

/// What was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diagnosis {
    /// In words, by what was looked at: `libtorch`, `cpu`, `data`, …
    pub found: IndexMap<String, Vec<String>>,
    /// What stands in the way of training; empty if nothing does.
    pub problems: Vec<String>,
}

impl Diagnosis {
    fn add(&mut self, name: impl Into<String>, what: impl Into<String>) {
        self.found.entry(name.into()).or_default().push(what.into());
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, found) in &self.found {
            for (i, what) in found.iter().enumerate() {
                writeln!(f, "{:8}  {what}", if i == 0 { name } else { "" })?;
            }
        }
        Ok(())
    }
}

/// Looks at versions, libtorch, devices, plugins and data.
pub fn examine() -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    diagnosis.add("limbeck", env!("CARGO_PKG_VERSION"));
    let devices = DeviceReport::gather();
    for (name, what) in devices.entries() {
        diagnosis.add(name, what);
    }
    let gpus = (0..devices.gpus).map(Device::Cuda);
    for device in std::iter::once(Device::Cpu).chain(gpus) {
        let name = device_name(device);
        match compute(device) {
            Ok(()) => diagnosis.add(name, "computes"),
            Err(reason) => {
                diagnosis.problems.push(format!("{name} does not compute: {reason}"));
                diagnosis.add(name, format!("does not compute: {reason}"));
            }
        }
    }
    diagnosis.add("threads", waiting::in_words());
    let plugins = registry::plugins();
    let crates: BTreeSet<&str> = plugins.iter().map(|plugin| plugin.package).collect();
    let crates = Vec::from_iter(crates).join(", ");
    diagnosis.add("plugins", format!("{} of {crates}", plugins.len()));
    for plugin in registry::plugins_of(Role::Dataset) {
        diagnosis.add("data", format!("{}: {}", plugin.name, data(plugin, Path::new("."))));
    }
    diagnosis
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
        let text = diagnosis.to_string();
        assert_eq!(diagnosis.problems, [""; 0]);
        for expected in ["limbeck   ", "libtorch  2.11.0", "\ncpu       computes\n", "\nplugins   "] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(diagnosis.found["cpu"], ["computes"]);
        assert!(diagnosis.found["libtorch"][0].starts_with("2.11.0"));
        assert!(diagnosis.found["data"].len() >= 2, "every data set has a line: {:?}", diagnosis.found);
    }

    /// A data set with these settings.
    fn plugin(settings: fn() -> Vec<Setting>) -> Plugin {
        Plugin {
            role: Role::Dataset,
            name: "images",
            summary: "",
            citation: "",
            content: Content::Settings(settings),
            page: "",
            package: "",
            version: "",
        }
    }

    #[test]
    fn data_are_looked_for_where_the_defaults_say() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(data(&plugin(|| vec![Setting::new("seed", &0, &[])]), folder.path()), "needs no file");
        let plugin = plugin(|| vec![Setting::new("path", &"images.tar", &[])]);
        assert_eq!(data(&plugin, folder.path()), "`images.tar` is not there; give its place as `path` in [dataset]");
        std::fs::write(folder.path().join("images.tar"), "").unwrap();
        assert_eq!(data(&plugin, folder.path()), "`images.tar` is there");
    }
}
