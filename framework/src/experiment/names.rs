//! Which method a name means: one of the experiment, or a built-in one.

use super::Experiment;
use super::method::MethodConfig;
use crate::error::{Error, Result};
use crate::nearest::nearest;
use crate::registry::{self, Role};

impl MethodConfig {
    /// What a name means where no file defines it, if anything.
    ///
    /// # Errors
    /// If a crate's built-in method is none.
    pub fn built_in(name: &str) -> Result<Option<Self>> {
        let plugins = registry::plugins_of(Role::Method);
        let Some(plugin) = plugins.iter().find(|plugin| plugin.name == name) else { return Ok(None) };
        let method: Result<Self, toml::de::Error> = plugin.default_table()?.try_into();
        method.map(Some).map_err(|e| Error::plan(format!("built-in method `{name}`: {}", e.message())))
    }
}

impl Experiment {
    /// The method of that name: the experiment's own, else a built-in one.
    ///
    /// # Errors
    /// If there is none: the message has the nearest name.
    pub fn method(&self, name: &str) -> Result<MethodConfig> {
        if let Some(method) = self.method.get(name) {
            return Ok(method.clone());
        }
        if let Some(method) = MethodConfig::built_in(name)? {
            return Ok(method);
        }
        let built_in = registry::plugins_of(Role::Method);
        let names: Vec<&str> =
            self.method.keys().map(String::as_str).chain(built_in.iter().map(|plugin| plugin.name)).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("define [method.{name}], or use one of {}; is its crate linked?", names.join(", ")),
        };
        Err(Error::plan(format!("unknown method `{name}`: {hint}")))
    }
}
