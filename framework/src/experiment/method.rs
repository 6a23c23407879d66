//! Methods and their terms: `[method.NAME]`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::schedule::TermSchedule;
use crate::distiller::DistillerConfig;
use crate::model::TapRef;
use crate::settings::{WIDTH, inline};

/// A method: cross-entropy with the labels plus weighted terms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodConfig {
    /// The weight of the loss by the targets: of the cross-entropy with the labels, or whatever the task's loss is.
    #[serde(default = "one")]
    pub cross_entropy: f64,
    /// The distillation terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermConfig>,
}

fn one() -> f64 {
    1.0
}

impl MethodConfig {
    /// The cross-entropy with the labels alone, with this weight.
    pub fn new(cross_entropy: f64) -> Self {
        MethodConfig { cross_entropy, terms: Vec::new() }
    }

    /// The same and a distiller with this weight.
    pub fn term(self, weight: f64, distiller: impl DistillerConfig + 'static) -> Self {
        self.with(TermConfig::new(weight, distiller))
    }

    /// The same and a term.
    pub fn with(mut self, term: TermConfig) -> Self {
        self.terms.push(term);
        self
    }

    /// The method as listings show it.
    pub(crate) fn to_toml(&self) -> String {
        let weight = self.cross_entropy;
        let mut text = format!("cross_entropy = {weight:?}   # the weight of the cross-entropy with the labels\n");
        if let [term] = &self.terms[..] {
            let line = format!("terms = [{}]\n", inline(&term.to_value()));
            if line.chars().count() <= WIDTH {
                return text + &line;
            }
        }
        for term in &self.terms {
            text += &format!("\n[[terms]]\n{}", term.to_lines());
        }
        text
    }
}

/// One weighted term of a method.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermConfig {
    /// What its loss is multiplied by.
    #[serde(default = "one")]
    pub weight: f64,
    /// When the weight applies; absent: always, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<TermSchedule>,
    /// The teachers, each with a distiller of its own; absent: every network among them, but no combination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teachers: Option<Vec<String>>,
    /// Pairs of taps, `[student, teacher]` each, in place of the method's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taps: Option<Vec<(TapRef, TapRef)>>,
    /// The method.
    pub distiller: Arc<dyn DistillerConfig>,
}

impl TermConfig {
    /// A distiller with this weight, throughout and for every teacher.
    pub fn new(weight: f64, distiller: impl DistillerConfig + 'static) -> Self {
        TermConfig { weight, schedule: None, teachers: None, taps: None, distiller: Arc::new(distiller) }
    }

    /// The same with a weight that rises linearly over the first epochs.
    pub fn warm_up(self, warmup_epochs: u64) -> Self {
        TermConfig { schedule: Some(TermSchedule { warmup_epochs, ..Default::default() }), ..self }
    }

    fn to_value(&self) -> Value {
        Value::try_from(self).unwrap_or_else(|e| e.to_string().into())
    }

    /// One key a line; a distiller of many settings is a table below them.
    fn to_lines(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.to_value().as_table().into_iter().flatten() {
            let line = format!("{key} = {}", inline(value));
            match (value, &self.schedule) {
                (Value::Table(table), _) if line.chars().count() > WIDTH => {
                    text += &format!("[terms.{key}]\n");
                    for (key, value) in table {
                        text += &format!("{key} = {}\n", inline(value));
                    }
                }
                (_, Some(schedule)) if key == "schedule" => text += &format!("{line}   # {schedule}\n"),
                _ => text += &(line + "\n"),
            }
        }
        text
    }
}
