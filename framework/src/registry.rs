//! The registry: every plugin that is linked into this binary, by role and name.
//!
//! typetag turns `kind = "…"` into a value; the entry beside it says what that kind is. The name stands in both, and
//! [`check`] proves at the start of every program that they agree and that no name is taken twice. What a plugin's settings
//! are, its type says: see [`Settings`](crate::settings::Settings).

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contracts::task::Task;
use crate::critic::CriticConfig;
use crate::dataset::DatasetConfig;
use crate::distiller::DistillerConfig;
use crate::error::{Error, Result};
use crate::experiment::MethodConfig;
use crate::model::ModelConfig;
use crate::nearest::nearest;
use crate::negatives::NegativeSamplerConfig;
use crate::optim::{OptimizerConfig, ScheduleConfig};
use crate::settings::{self, Setting};

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
    /// A task: what is learned from the targets of a data set, and how it is judged.
    Task,
}

impl Role {
    /// All roles, in the order of listings.
    pub const ALL: [Role; 9] = [
        Role::Method,
        Role::Distiller,
        Role::Critic,
        Role::Negatives,
        Role::Model,
        Role::Dataset,
        Role::Schedule,
        Role::Optimizer,
        Role::Task,
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
            Role::Task => "task",
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
            Role::Task => of_task(settings),
        }
    }
}

fn of_task(settings: toml::Table) -> Result<toml::Table, String> {
    let name = settings.get("kind").and_then(toml::Value::as_str).unwrap_or_default();
    <dyn Task>::check_linked(name)?;
    Ok(settings)
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
    /// What a file may say of it.
    pub content: Content,
    /// Its manual page: what the head of its source file says, in Markdown; may be empty.
    pub page: &'static str,
    /// The crate that it came from.
    pub package: &'static str,
    /// That crate's version.
    pub version: &'static str,
}

/// What a file may say of a plugin.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// The settings of its kind.
    Settings(fn() -> Vec<Setting>),
    /// The method that its name stands for.
    Method(fn() -> MethodConfig),
    /// Nothing: data sets say which task they are for, and have what there is to be set.
    Task(&'static dyn Task),
}

inventory::collect!(Plugin);

impl Plugin {
    /// The default settings as TOML, each with a comment that says what it means. A setting without a default has an example.
    pub fn settings(&self) -> String {
        match self.content {
            Content::Settings(settings) => settings::to_toml(&settings()),
            Content::Method(method) => method().to_toml(),
            Content::Task(_) => String::new(),
        }
    }

    /// The default settings as a table, `kind` first (methods have none).
    ///
    /// # Errors
    /// If they cannot be written as TOML.
    pub fn default_table(&self) -> Result<toml::Table> {
        match self.content {
            Content::Settings(settings) => {
                let mut table = toml::Table::from_iter([("kind".to_owned(), self.name.into())]);
                table.extend(settings().into_iter().filter_map(Setting::entry));
                Ok(table)
            }
            Content::Method(method) => toml::Table::try_from(method()).map_err(|e| self.fault(e)),
            Content::Task(_) => Ok(toml::Table::from_iter([("kind".to_owned(), self.name.into())])),
        }
    }

    fn fault(&self, what: impl fmt::Display) -> Error {
        Error::plan(format!("{} `{}` of crate {} {}: {what}", self.role, self.name, self.package, self.version))
    }

    /// Proves that the type that is registered under the name has these settings, and that their defaults are in range.
    ///
    /// # Errors
    /// If it has others.
    pub fn check(&self) -> Result<()> {
        let written = self.default_table()?;
        let read = self
            .role
            .round_trip(written.clone())
            .map_err(|e| self.fault(format!("its default settings do not parse: {e}")))?;
        if written == read {
            return Ok(());
        }
        Err(self.fault(format!("its default settings change when read: wrote `{written}`, read `{read}`")))
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
///
/// # Errors
/// If one is: both crates are named.
pub fn check_names() -> Result<()> {
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

/// Registers a plugin: its role and name, the type of its settings, and what there is to say of it.
///
/// ```
/// use limbeck::prelude::*;
///
/// limbeck::plugin! {
///     schedule "linear": Linear,
///     summary: "down to nothing in a straight line",
///     citation: "",
/// }
///
/// /// A straight line down.
/// #[derive(Clone, Debug, Settings)]
/// struct Linear {
///     /// The share of the base learning rate to begin with.
///     #[setting(default = 1.0, range = positive)]
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
/// let linear = limbeck::registry::find(limbeck::registry::Role::Schedule, "linear").unwrap();
/// assert_eq!(linear.settings(), "from = 1.0   # The share of the base learning rate to begin with\n");
/// ```
///
/// The role is one of `distiller`, `critic`, `negatives`, `model`, `dataset`, `schedule`, `optimizer`; the name is the one
/// that `#[typetag::serde(name = "…")]` gives to the configuration's `impl`. After the citation may come `page:
/// include_str!("FILE.rs")`, the name of the very file: its documentation is then what `limbeck plugins show` says. Named
/// methods come last, each the terms that its name stands for, and share citation and page:
///
/// ```ignore
///     method "hint": MethodConfig::new(1.0).term(10.0, Hint::default()),
///     summary: "cross-entropy and hints",
/// ```
///
/// A method whose terms are other files' stands alone: `method "NAME": …, summary: …, citation: …`. A `task "NAME" = VALUE`
/// is named by [`Task::name`](crate::task::Task::name), and has no settings.
#[macro_export]
macro_rules! plugin {
    (
        task $name:literal = $task:expr, summary: $summary:expr, citation: $citation:expr
        $(, page: $page:expr)? $(,)?
    ) => {
        $crate::plugin!(@submit Task, $name, $summary, $citation, concat!($($page)?), Task(&$task));
        $crate::inventory::submit! {
            $crate::task::LinkedTask(&$task)
        }
    };
    (
        method $name:literal: $method:expr, summary: $summary:expr, citation: $citation:expr
        $(, page: $page:expr)? $(,)?
    ) => {
        $crate::plugin!(@submit Method, $name, $summary, $citation, concat!($($page)?), Method(|| $method));
    };
    (
        $role:ident $name:literal: $settings:ty, summary: $summary:expr, citation: $citation:expr
        $(, page: $page:expr)? $(, method $method:literal: $terms:expr, summary: $of_method:expr)* $(,)?
    ) => {
        $crate::plugin!(@role $role, $name, $settings, $summary, $citation, concat!($($page)?));
        $crate::plugin!(@methods $citation, concat!($($page)?), $($method, $terms, $of_method),*);
    };
    (@methods $citation:expr, $page:expr, $($name:literal, $terms:expr, $summary:expr),*) => {
        $($crate::plugin!(@submit Method, $name, $summary, $citation, $page, Method(|| $terms));)*
    };
    (@role distiller, $($rest:tt)*) => {
        $crate::plugin!(@kind Distiller, $crate::distiller::DistillerConfig, $($rest)*);
    };
    (@role critic, $($rest:tt)*) => {
        $crate::plugin!(@kind Critic, $crate::critic::CriticConfig, $($rest)*);
    };
    (@role negatives, $($rest:tt)*) => {
        $crate::plugin!(@kind Negatives, $crate::negatives::NegativeSamplerConfig, $($rest)*);
    };
    (@role model, $($rest:tt)*) => {
        $crate::plugin!(@kind Model, $crate::model::ModelConfig, $($rest)*);
    };
    (@role dataset, $($rest:tt)*) => {
        $crate::plugin!(@kind Dataset, $crate::dataset::DatasetConfig, $($rest)*);
    };
    (@role schedule, $($rest:tt)*) => {
        $crate::plugin!(@kind Schedule, $crate::optim::ScheduleConfig, $($rest)*);
    };
    (@role optimizer, $($rest:tt)*) => {
        $crate::plugin!(@kind Optimizer, $crate::optim::OptimizerConfig, $($rest)*);
    };
    (@kind $role:ident, $contract:path, $name:expr, $settings:ty, $summary:expr, $citation:expr, $page:expr) => {
        $crate::plugin!(@submit $role, $name, $summary, $citation, $page, Settings({
            // That the type keeps the contract of its role is seen here, not by whoever names it in a file.
            fn settings<T: $contract + $crate::settings::Settings>() -> Vec<$crate::settings::Setting> {
                T::settings()
            }
            settings::<$settings>
        }));
    };
    (@submit $role:ident, $name:expr, $summary:expr, $citation:expr, $page:expr, $content:ident($value:expr)) => {
        $crate::inventory::submit! {
            $crate::registry::Plugin {
                role: $crate::registry::Role::$role,
                name: $name,
                summary: $summary,
                citation: $citation,
                content: $crate::registry::Content::$content($value),
                page: $crate::registry::module_docs($page),
                package: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
            }
        }
    };
}
