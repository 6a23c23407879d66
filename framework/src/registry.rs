//! The registry: every plugin that is linked into this binary, by role and name.
//!
//! typetag turns `kind = "…"` into a value; the entry beside it says what that kind is. The name stands in both, and
//! [`check`] proves at the start of every program that they agree, that no name is taken twice, and that the default
//! settings are complete and survive a round trip.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::critic::CriticConfig;
use crate::dataset::DatasetConfig;
use crate::distiller::DistillerConfig;
use crate::error::{Error, Result};
use crate::experiment::MethodConfig;
use crate::model::ModelConfig;
use crate::nearest::nearest;
use crate::negatives::NegativeSamplerConfig;
use crate::optim::{OptimizerConfig, ScheduleConfig};

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A named method: terms with their published weights, ready for `compare.methods`.
    Method,
    /// A distillation loss.
    Distiller,
    /// A critic of a contrastive method.
    Critic,
    /// A sampler of negatives.
    Negatives,
    /// A network.
    Model,
    /// A data set.
    Dataset,
    /// A learning-rate schedule.
    Schedule,
    /// An optimiser.
    Optimizer,
}

impl Role {
    /// All roles, in the order of listings.
    pub const ALL: [Role; 8] = [
        Role::Method,
        Role::Distiller,
        Role::Critic,
        Role::Negatives,
        Role::Model,
        Role::Dataset,
        Role::Schedule,
        Role::Optimizer,
    ];

    /// The role's name in listings and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Role::Method => "method",
            Role::Distiller => "distiller",
            Role::Critic => "critic",
            Role::Negatives => "negatives",
            Role::Model => "model",
            Role::Dataset => "dataset",
            Role::Schedule => "schedule",
            Role::Optimizer => "optimizer",
        }
    }

    /// Reads `settings` as a plugin of this role and writes it back.
    fn round_trip(self, settings: toml::Table) -> Result<toml::Table, String> {
        fn through<T: DeserializeOwned + Serialize>(settings: toml::Table) -> Result<toml::Table, String> {
            let value: T = settings.try_into().map_err(|e: toml::de::Error| e.message().to_owned())?;
            toml::Table::try_from(value).map_err(|e| e.to_string())
        }
        match self {
            Role::Method => through::<MethodConfig>(settings),
            Role::Distiller => through::<Box<dyn DistillerConfig>>(settings),
            Role::Critic => through::<Box<dyn CriticConfig>>(settings),
            Role::Negatives => through::<Box<dyn NegativeSamplerConfig>>(settings),
            Role::Model => through::<Box<dyn ModelConfig>>(settings),
            Role::Dataset => through::<Box<dyn DatasetConfig>>(settings),
            Role::Schedule => through::<Box<dyn ScheduleConfig>>(settings),
            Role::Optimizer => through::<Box<dyn OptimizerConfig>>(settings),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the registry knows of a plugin. Made by [`plugin!`](crate::plugin).
#[derive(Debug)]
pub struct Plugin {
    /// What it is for.
    pub role: Role,
    /// The value of `kind`, or the method's name.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Authors, title, venue, year, identifier; empty if there is nothing to cite.
    pub citation: &'static str,
    /// Every setting with its default as TOML, each with a comment that says what it means.
    pub settings: &'static str,
    /// Its manual page: what the head of its source file says, in Markdown; may be empty.
    pub page: &'static str,
    /// The crate that it came from.
    pub package: &'static str,
    /// That crate's version.
    pub version: &'static str,
}

inventory::collect!(Plugin);

impl Plugin {
    /// The default settings as a table, `kind` first (methods have none).
    ///
    /// # Errors
    /// If the plugin's author wrote settings that are not TOML.
    pub fn default_table(&self) -> Result<toml::Table> {
        let kind = if self.role == Role::Method { String::new() } else { format!("kind = {:?}\n", self.name) };
        format!("{kind}{}", self.settings).parse().map_err(|e: toml::de::Error| self.fault(e.message()))
    }

    fn fault(&self, what: impl fmt::Display) -> Error {
        Error::plan(format!("{} `{}` of crate {} {}: {what}", self.role, self.name, self.package, self.version))
    }

    /// Proves that name, type and default settings belong together.
    pub(crate) fn check(&self) -> Result<()> {
        let written = self.default_table()?;
        let read = self
            .role
            .round_trip(written.clone())
            .map_err(|e| self.fault(format!("its default settings do not parse: {e}")))?;
        if written == read {
            return Ok(());
        }
        let missing: Vec<&str> = read.keys().filter(|key| !written.contains_key(*key)).map(String::as_str).collect();
        Err(self.fault(if missing.is_empty() {
            format!("its default settings change when read: wrote `{written}`, read `{read}`")
        } else {
            format!("its default settings do not document {}", missing.join(", "))
        }))
    }
}

/// The lines `//! …` that a source file begins with: a file's documentation is the page of its plugins, so that both are
/// the same text.
pub const fn module_docs(source: &'static str) -> &'static str {
    let bytes = source.as_bytes();
    let mut end = 0;
    while end + 2 < bytes.len() && bytes[end] == b'/' && bytes[end + 1] == b'/' && bytes[end + 2] == b'!' {
        while end < bytes.len() && bytes[end] != b'\n' {
            end += 1;
        }
        if end < bytes.len() {
            end += 1;
        }
    }
    source.split_at(end).0
}

/// All plugins, by role and name.
pub fn plugins() -> Vec<&'static Plugin> {
    let mut all: Vec<&Plugin> = inventory::iter::<Plugin>.into_iter().collect();
    all.sort_by_key(|plugin| (plugin.role, plugin.name));
    all
}

/// The plugins of one role.
pub fn plugins_of(role: Role) -> Vec<&'static Plugin> {
    plugins().into_iter().filter(|plugin| plugin.role == role).collect()
}

/// The plugin of that role and name.
///
/// # Errors
/// If there is none: the message has the nearest name.
pub fn find(role: Role, name: &str) -> Result<&'static Plugin> {
    plugins_of(role).into_iter().find(|plugin| plugin.name == name).ok_or_else(|| Error::plan(unknown(role, name)))
}

/// The message for a name that no plugin has.
pub fn unknown(role: Role, name: &str) -> String {
    let names: Vec<&str> = plugins_of(role).iter().map(|plugin| plugin.name).collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => format!("no {role} is linked into this binary; is its crate linked?"),
        None => format!("known: {}; is its crate linked?", names.join(", ")),
    };
    format!("unknown {role} `{name}`: {hint}")
}

/// Checks the whole registry. Every program calls this first.
///
/// # Errors
/// If a name is taken twice in one role (both crates are named), or an entry contradicts its type.
pub fn check() -> Result<()> {
    check_names()?;
    plugins().into_iter().try_for_each(Plugin::check)
}

/// Checks that no name is taken twice in one role.
pub(crate) fn check_names() -> Result<()> {
    for pair in plugins().windows(2) {
        if let [a, b] = pair
            && (a.role, a.name) == (b.role, b.name)
        {
            return Err(Error::plan(format!(
                "two plugins claim the {} `{}`: one of crate {} {}, one of crate {} {}; unlink or rename one",
                a.role, a.name, a.package, a.version, b.package, b.version
            )));
        }
    }
    Ok(())
}

/// Registers a plugin.
///
/// ```
/// use limbeck::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// limbeck::plugin! {
///     schedule "linear",
///     summary: "down to nothing in a straight line",
///     citation: "",
///     settings: r#"
/// from = 1.0   # the share of the base learning rate to begin with
/// "#,
/// }
///
/// #[derive(Clone, Debug, Serialize, Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Linear {
///     from: f64,
/// }
///
/// #[typetag::serde(name = "linear")]
/// impl ScheduleConfig for Linear {
///     fn factor(&self, progress: &Progress) -> f64 {
///         self.from * (1.0 - progress.fraction())
///     }
/// }
///
/// limbeck::registry::check().unwrap();
/// assert_eq!(limbeck::registry::find(limbeck::registry::Role::Schedule, "linear").unwrap().summary, "down to nothing in a straight line");
/// ```
///
/// The role is one of `method`, `distiller`, `critic`, `negatives`, `model`, `dataset`, `schedule`, `optimizer`; the name
/// is the one that `#[typetag::serde(name = "…")]` gives to the configuration's `impl`. `settings` lists every setting
/// with its default and a comment; a setting without a default is shown with an example value. After it may come
/// `page: include_str!("FILE.rs")`, the name of the very file: its documentation is then what `limbeck plugins show` says.
#[macro_export]
macro_rules! plugin {
    (
        $role:ident $name:literal, summary: $summary:expr, citation: $citation:expr, settings: $settings:expr
        $(, page: $page:expr)? $(,)?
    ) => {
        $crate::inventory::submit! {
            $crate::registry::Plugin {
                role: $crate::plugin!(@role $role),
                name: $name,
                summary: $summary,
                citation: $citation,
                settings: $settings,
                page: $crate::registry::module_docs(concat!($($page)?)),
                package: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
            }
        }
    };
    (@role method) => {
        $crate::registry::Role::Method
    };
    (@role distiller) => {
        $crate::registry::Role::Distiller
    };
    (@role critic) => {
        $crate::registry::Role::Critic
    };
    (@role negatives) => {
        $crate::registry::Role::Negatives
    };
    (@role model) => {
        $crate::registry::Role::Model
    };
    (@role dataset) => {
        $crate::registry::Role::Dataset
    };
    (@role schedule) => {
        $crate::registry::Role::Schedule
    };
    (@role optimizer) => {
        $crate::registry::Role::Optimizer
    };
}
