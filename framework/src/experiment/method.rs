//! Methods and their terms: `[method.NAME]`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::schedule::TermSchedule;
use crate::distiller::DistillerConfig;
use crate::model::TapRef;

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
