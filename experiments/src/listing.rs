//! `limbeck plugins`: what is linked into this binary, from the registry; a network's page also from the network.

use std::fmt::Write as _;

use limbeck::error::{Error, Result};
use limbeck::model::{ModelConfig, ModelSpec, Signature, TapInfo};
use limbeck::registry::{self, Plugin, Role};
use limbeck::task::{Better, Task};
use limbeck_report::words::thousands;
use serde::Serialize;

use crate::plan::network::Network;
use crate::words::shape;

/// A line for each plugin, by role.
pub fn list(role: Option<Role>) -> String {
    let plugins = chosen(role);
    let name_width = plugins.iter().map(|plugin| plugin.name.chars().count()).max().unwrap_or(0);
    let summary_width = plugins.iter().map(|plugin| plugin.summary.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for role in Role::ALL {
        let mut of_role = plugins.iter().filter(|plugin| plugin.role == role).peekable();
        if of_role.peek().is_none() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{role}");
        for Plugin { name, summary, package, .. } in of_role {
            let _ = writeln!(text, "  {name:name_width$}  {summary:summary_width$}  {package}");
        }
    }
    text
}

/// The same as a JSON array, for programs.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn list_json(role: Option<Role>) -> Result<String> {
    json(&chosen(role).into_iter().map(fields).collect::<Vec<_>>())
}

/// A value as JSON, for programs.
///
/// # Errors
/// If it cannot be written as JSON.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Error::run(format!("this cannot be written as JSON: {error}")))
}

fn fields(plugin: &Plugin) -> serde_json::Value {
    let Plugin { role, name, summary, citation, content: _, page: _, package, version } = plugin;
    serde_json::json!({
        "role": role, "name": name, "summary": summary, "citation": citation,
        "settings": plugin.settings().trim(), "page": manual(plugin), "package": package, "version": version,
    })
}

/// What a network is shown for, in place of the inputs and classes that it was published with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BuiltFor {
    /// `[C, H, W]` of the input.
    pub input: Option<[i64; 3]>,
    /// The number of classes.
    pub classes: Option<i64>,
}

impl BuiltFor {
    fn spec(&self, config: &dyn ModelConfig) -> ModelSpec {
        let ModelSpec { input, classes } = config.example();
        ModelSpec { input: self.input.unwrap_or(input), classes: self.classes.unwrap_or(classes) }
    }

    /// Networks alone have inputs and classes, and of those that come from a file they are the file's.
    fn check(&self, found: &[&Plugin]) -> Result<()> {
        if *self == BuiltFor::default() {
            return Ok(());
        }
        if let Some(plugin) = found.iter().find(|plugin| plugin.role == Role::Model) {
            let from_file = model(plugin)?.is_some_and(|config| config.file().is_some());
            if from_file {
                let name = plugin.name;
                return Err(Error::plan(format!(
                    "--input and --classes: the network of `{name}` is what its file has"
                )));
            }
            return Ok(());
        }
        let roles: Vec<&str> = found.iter().map(|plugin| plugin.role.name()).collect();
        let name = found.first().map_or("", |plugin| plugin.name);
        Err(Error::plan(format!("--input and --classes are for networks, and `{name}` is a {}", roles.join(" and a "))))
    }
}

/// Everything about the plugins of that name: a name may be taken once in each role.
///
/// # Errors
/// If there is none: the message has the nearest name. If a network cannot be built for what is asked.
pub fn show(name: &str, role: Option<Role>, built_for: &BuiltFor) -> Result<String> {
    let found = find(name, role)?;
    built_for.check(&found)?;
    let mut text = String::new();
    for (i, plugin) in found.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        text += &entry(plugin, built_for)?;
        // A distiller and its method are one file, hence one page.
        let manual = manual(plugin);
        if !manual.is_empty() && found.get(i + 1).is_none_or(|next| next.page != plugin.page) {
            let _ = write!(text, "\n{manual}");
        }
    }
    Ok(text)
}

/// The same as a JSON array, for programs. A network has, beside the fields of the list, its `parameters` and
/// `multiply_adds`, and its `signature` with input, classes and taps.
///
/// # Errors
/// As for [`show`].
pub fn show_json(name: &str, role: Option<Role>, built_for: &BuiltFor) -> Result<String> {
    let found = find(name, role)?;
    built_for.check(&found)?;
    let mut all = Vec::new();
    for plugin in found {
        let mut fields = fields(plugin);
        if let Some(Network { parameters, multiply_adds, signature, .. }) = network(plugin, built_for)? {
            fields["parameters"] = parameters.into();
            fields["multiply_adds"] = multiply_adds.into();
            fields["signature"] = serde_json::to_value(signature).map_err(|e| Error::run(e.to_string()))?;
        }
        if let Some(task) = task(plugin) {
            fields["metrics"] = task.metrics().map(|metric| metric.key).collect();
        }
        all.push(fields);
    }
    json(&all)
}

/// A model's network; nothing for other plugins and where a file is missing.
fn network(plugin: &Plugin, built_for: &BuiltFor) -> Result<Option<Network>> {
    match model(plugin)? {
        Some(config) if config.file().is_none() => {
            Network::of(&*config, "", &built_for.spec(&*config)).map(Some).map_err(|e| e.within(plugin.name))
        }
        _ => Ok(None),
    }
}

/// A model with its default settings; nothing for other plugins.
fn model(plugin: &Plugin) -> Result<Option<Box<dyn ModelConfig>>> {
    if plugin.role != Role::Model {
        return Ok(None);
    }
    plugin.default_table()?.try_into().map(Some).map_err(|e: toml::de::Error| Error::plan(e.message()))
}

fn find(name: &str, role: Option<Role>) -> Result<Vec<&'static Plugin>> {
    let found: Vec<&Plugin> = chosen(role).into_iter().filter(|plugin| plugin.name == name).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    if let Some(role) = role {
        return Err(Error::plan(registry::unknown(role, name)));
    }
    let hint = match limbeck::nearest::nearest(name, registry::plugins().iter().map(|plugin| plugin.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`limbeck plugins list` shows all; is its crate linked?".to_owned(),
    };
    Err(Error::plan(format!("unknown plugin `{name}`: {hint}")))
}

fn chosen(role: Option<Role>) -> Vec<&'static Plugin> {
    registry::plugins().into_iter().filter(|plugin| role.is_none_or(|role| plugin.role == role)).collect()
}

/// The plugin's manual page as plain text: the head of its source file without what only documentation tools need.
fn manual(plugin: &Plugin) -> String {
    let lines = plugin.page.lines().map(|line| line.trim_start_matches("//!").trim_start_matches(' '));
    lines.map(|line| line.replace("\\[", "[").replace("\\]", "]") + "\n").collect()
}

fn entry(plugin: &Plugin, built_for: &BuiltFor) -> Result<String> {
    let Plugin { role, name, summary, citation, package, version, .. } = plugin;
    let mut text = format!("{role} {name}\n  {summary}\n");
    if !citation.is_empty() {
        let _ = writeln!(text, "  {citation}");
    }
    let _ = writeln!(text, "  crate {package} {version}");
    if let Some(task) = task(plugin) {
        text.push_str(&judged(task));
        return Ok(text);
    }
    text.push_str("\n  in an experiment file, with the default settings:\n\n");
    for line in example(plugin)?.lines() {
        let _ = writeln!(text, "{}", format!("    {line}").trim_end());
    }
    if let Some(network) = network(plugin, built_for)? {
        text.push_str(&figures(&network));
    }
    Ok(text)
}

/// The task itself; nothing for other plugins. Data sets say which task they are for: no experiment file names one.
fn task(plugin: &Plugin) -> Option<&'static dyn Task> {
    if plugin.role == Role::Task { <dyn Task>::find(plugin.name) } else { None }
}

/// What a task learns from and how it is judged.
fn judged(task: &dyn Task) -> String {
    let mut text = format!("\n  targets: {}\n  loss: {}\n", task.targets(), task.split_loss().name);
    for metric in task.metrics() {
        let name = if metric.short == "loss" { metric.name.to_owned() } else { metric.full() };
        let unit = if metric.unit.words.is_empty() { String::new() } else { format!("{}, ", metric.unit.words) };
        let better = match metric.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
        };
        let _ = writeln!(text, "  metric {}: {name}, {unit}{better} is better", metric.key);
    }
    text
}

/// What a network costs and where it can be tapped.
fn figures(network: &Network) -> String {
    let Network { signature: Signature { input, classes, taps, .. }, parameters, multiply_adds, .. } = network;
    let mut text = format!("\n  with these, for {} inputs and {classes} classes:\n\n", shape(input));
    let _ = writeln!(text, "    {} parameters", thousands(*parameters));
    if let Some(count) = multiply_adds {
        let _ = writeln!(text, "    {} multiply-adds", thousands(*count));
    }
    for TapInfo { name, shape, pre_activation, .. } in taps {
        let pre = if *pre_activation { format!(", and {name}:pre") } else { String::new() };
        let _ = writeln!(text, "    tap {name} {shape}{pre}");
    }
    text
}

/// The plugin's default settings as a table of an experiment file.
fn example(plugin: &Plugin) -> Result<String> {
    let (name, settings) = (plugin.name, plugin.settings());
    let settings = settings.trim();
    let table = match plugin.role {
        Role::Method => return Ok(method_example(name, settings)),
        Role::Distiller => "method.NAME.terms.distiller",
        Role::Critic => "method.NAME.terms.distiller.critic",
        Role::Negatives => "method.NAME.terms.distiller.negatives",
        // What comes from a file only teaches.
        Role::Model if model(plugin)?.is_some_and(|config| config.file().is_some()) => "teacher.NAME.model",
        Role::Model => "student.model",
        Role::Dataset => "dataset",
        Role::Schedule => "train.schedule",
        Role::Optimizer => "train.optimizer",
        Role::Task => return Ok(String::new()),
    };
    let item = if plugin.role == Role::Distiller { "[[method.NAME.terms]]\nweight = 1.0\n" } else { "" };
    let text = format!("{item}[{table}]\nkind = {name:?}\n{settings}");
    // The settings' own tables are below this one.
    Ok(nest(text.trim_end(), table, &format!("[{table}]")))
}

/// A method's tables, moved to `[method.NAME]`.
fn method_example(name: &str, settings: &str) -> String {
    let bare = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let table = if bare { format!("method.{name}") } else { format!("method.{name:?}") };
    let own = format!("[{table}]");
    nest(&format!("{own}\n{settings}"), &table, &own)
}

/// Puts `table` before the names of all tables but `own` and `[[method…`.
fn nest(text: &str, table: &str, own: &str) -> String {
    let lines = text.lines().map(|line| {
        if line == own || line.starts_with("[[method.") {
            line.to_owned()
        } else if let Some(rest) = line.strip_prefix("[[") {
            format!("[[{table}.{rest}")
        } else if let Some(rest) = line.strip_prefix('[') {
            format!("[{table}.{rest}")
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<String>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plugin_is_listed_once_below_its_role() {
        let text = list(None);
        assert_eq!(text.lines().filter(|line| line.starts_with("  ")).count(), registry::plugins().len());
        let schedules = list(Some(Role::Schedule));
        assert!(schedules.starts_with("schedule\n  "), "{schedules}");
        assert!(schedules.contains("  cosine "), "{schedules}");
        assert!(!schedules.contains("optimizer"), "{schedules}");
    }

    #[test]
    fn json_has_every_field() {
        let text = list_json(Some(Role::Optimizer)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sgd = value.as_array().unwrap().iter().find(|plugin| plugin["name"] == "sgd").unwrap();
        assert_eq!((&sgd["role"], &sgd["package"]), (&"optimizer".into(), &"limbeck".into()));
        assert!(sgd["settings"].as_str().unwrap().contains("momentum = "), "{sgd}");
    }

    #[test]
    fn a_page_is_the_head_of_the_source_file_and_is_shown_once() {
        let text = show("kd", None, &BuiltFor::default()).unwrap();
        assert!(text.starts_with("method kd\n") && text.contains("\ndistiller kd\n"), "{text}");
        assert_eq!(text.matches("`kd`: soft targets").count(), 1, "{text}");
        for words in ["Hinton", "*Taps*: ", "*Cost*: ", "temperature = 4.0   # T: "] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(!text.contains("//!") && !text.contains("\\["), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&show_json("nce", None, &BuiltFor::default()).unwrap()).unwrap();
        assert!(json[0]["page"].as_str().unwrap().starts_with("`nce`: binary noise-contrastive estimation"), "{json}");
    }

    #[test]
    fn what_methods_are_made_of_has_a_page_with_its_cost() {
        let roles = [Role::Method, Role::Distiller, Role::Critic, Role::Negatives];
        for plugin in registry::plugins().into_iter().filter(|plugin| plugin.package == "limbeck-distillers") {
            assert!(roles.contains(&plugin.role), "{plugin:?}");
            let page = manual(plugin);
            let needed = match plugin.role {
                Role::Distiller => vec!["*Taps*: ", "*Cost*", "*State*", "ublished"],
                Role::Method => vec![],
                _ => vec!["*Cost*: "],
            };
            for words in needed {
                assert!(page.contains(words), "{} {}: no {words}\n{page}", plugin.role, plugin.name);
            }
            assert!(page.starts_with('`') && page.len() > 150, "{} {}: {page}", plugin.role, plugin.name);
        }
    }

    #[test]
    fn every_example_is_toml_in_its_place() {
        for plugin in registry::plugins().into_iter().filter(|plugin| plugin.role != Role::Task) {
            let text = example(plugin).unwrap();
            let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{text}\n{error}"));
            let top = match plugin.role {
                Role::Model if ["torchscript", "precomputed"].contains(&plugin.name) => "teacher",
                Role::Model => "student",
                Role::Dataset => "dataset",
                Role::Schedule | Role::Optimizer => "train",
                _ => "method",
            };
            assert_eq!(table.keys().collect::<Vec<_>>(), [top], "{text}");
        }
    }

    #[test]
    fn a_task_is_shown_with_what_is_measured() {
        let text = show("presence", None, &BuiltFor::default()).unwrap();
        let judged = "\n  targets: sets of classes\n  loss: binary cross-entropy\n  metric mean_average_precision: mean average \
                      precision (mAP), percent, higher is better\n  metric binary_cross_entropy: binary cross-entropy, nats, \
                      lower is better\n";
        assert!(text.contains(judged), "{text}");
        assert!(!text.contains("in an experiment file"), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&show_json("classification", None, &BuiltFor::default()).unwrap()).unwrap();
        assert_eq!(json[0]["metrics"], serde_json::json!(["top1", "top5", "loss"]));
    }

    #[test]
    fn tables_of_a_method_move_below_it() {
        let settings = "cross_entropy = 1.0\n\n[[terms]]\nweight = 0.8\n[terms.distiller]\nkind = \"crd\"";
        assert_eq!(
            method_example("crd+kd", settings),
            "[method.\"crd+kd\"]\ncross_entropy = 1.0\n\n[[method.\"crd+kd\".terms]]\nweight = 0.8\n\
             [method.\"crd+kd\".terms.distiller]\nkind = \"crd\""
        );
    }

    #[test]
    fn a_page_has_summary_crate_and_settings() {
        let text = show("sgd", None, &BuiltFor::default()).unwrap();
        assert!(text.starts_with("optimizer sgd\n  "), "{text}");
        assert!(text.contains(&format!("\n  crate limbeck {}\n", env!("CARGO_PKG_VERSION"))), "{text}");
        assert!(text.contains("\n    [train.optimizer]\n    kind = \"sgd\"\n    momentum = 0.9"), "{text}");
    }

    /// The number of parameters of a network in its JSON.
    fn parameters(json: &str) -> Option<i64> {
        serde_json::from_str::<serde_json::Value>(json).unwrap()[0]["parameters"].as_i64()
    }

    #[test]
    fn a_network_is_shown_for_the_inputs_and_classes_that_are_asked() {
        let asked = BuiltFor { input: Some([1, 60, 80]), classes: Some(40) };
        let text = show("resnet8", None, &asked).unwrap();
        assert!(text.contains("\n  with these, for 1×60×80 inputs and 40 classes:\n"), "{text}");
        // 16 · 9 for two channels less in the stem, 65 for each of the 60 classes less.
        let usual = show_json("resnet8", None, &BuiltFor::default()).unwrap();
        let less = 16 * 9 * 2 + 65 * 60;
        let now = parameters(&show_json("resnet8", None, &asked).unwrap()).unwrap();
        assert_eq!(now, parameters(&usual).unwrap() - less);
        let error = show("kd", None, &asked).unwrap_err();
        let message = "--input and --classes are for networks, and `kd` is a method and a distiller";
        assert_eq!(error.to_string(), message);
        assert!(error.is_usage());
        let message = "--input and --classes: the network of `torchscript` is what its file has";
        assert_eq!(show("torchscript", None, &asked).unwrap_err().to_string(), message);
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let usual = BuiltFor::default();
        assert_eq!(show("sdg", None, &usual).unwrap_err().to_string(), "unknown plugin `sdg`: did you mean `sgd`?");
        let error = show("sdg", Some(Role::Optimizer), &usual).unwrap_err();
        assert_eq!(error.to_string(), "unknown optimizer `sdg`: did you mean `sgd`?");
        assert!(error.is_usage());
        assert_eq!(
            show("entirely-else", None, &usual).unwrap_err().to_string(),
            "unknown plugin `entirely-else`: `limbeck plugins list` shows all; is its crate linked?"
        );
    }
}
