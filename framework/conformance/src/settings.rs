//! The settings of the plugin that is checked.

use std::fmt;

use limbeck::error::{Error, Result};
use limbeck::registry::{self, Plugin, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::trial::{Trial, ensure};

/// The plugin, and its settings: the defaults, with `settings` over them.
pub fn subject(role: Role, name: &str, settings: &str) -> Result<(&'static Plugin, toml::Table)> {
    registry::check_names()?;
    let plugin = registry::find(role, name)?;
    let own: toml::Table = settings.parse().map_err(|e: toml::de::Error| Error::plan(e.message()))?;
    let mut table = plugin.default_table()?;
    table.extend(own);
    Ok((plugin, table))
}

/// Reads a recipe.
pub fn read<T: DeserializeOwned>(table: &toml::Table) -> Result<T> {
    table.clone().try_into().map_err(|e: toml::de::Error| Error::plan(e.message()))
}

pub fn settings_hold<T: DeserializeOwned + Serialize + fmt::Debug>(
    trial: &mut Trial,
    plugin: &Plugin,
    table: &toml::Table,
) {
    trial.check("the default settings are complete and survive a round trip", || {
        plugin.check()?;
        let value: T = read(table)?;
        let written = toml::Table::try_from(&value).map_err(|e| Error::run(e.to_string()))?;
        let again: T = read(&written)?;
        ensure(format!("{value:?}") == format!("{again:?}"), || {
            format!("{value:?} became {again:?}: serialise every field by the name that is read")
        })
    });
    trial.check("an unknown key is refused", || {
        let key = "no_such_setting";
        let mut table = table.clone();
        table.insert(key.to_owned(), 1.into());
        ensure(read::<T>(&table).is_err(), || {
            format!("`{key} = 1` was accepted, and so would be a misspelt setting: add #[serde(deny_unknown_fields)]")
        })
    });
}
