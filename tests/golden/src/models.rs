//! The networks' reference numbers, computed by the original implementations: `tests/golden/models.json`.

use std::collections::BTreeMap;

use limbeck::error::{Error, Result};
use limbeck::model::{Mode, Model, ModelConfig, ModelSpec, TapRef, Taps};
use serde::Deserialize;
use tch::{Device, Kind, Tensor, nn, no_grad_guard};

use super::{Deviation, Digest, deviations, fill, fill_parameter};

/// The number file.
const FILE: &str = include_str!("../models.json");

#[derive(Deserialize)]
struct NetworkFile {
    models: Vec<NetworkCase>,
}

/// One network with its numbers.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number file")]
pub struct NetworkCase {
    pub model: String,
    pub tag: String,
    pub classes: i64,
    pub input: [i64; 4],
    pub trainable_params: i64,
    /// Names and shapes in PyTorch's order.
    pub state: Vec<(String, Vec<i64>)>,
    pub eval_logits: Digest,
    /// Of every tap; empty where the original has none.
    #[serde(default)]
    pub eval_features: Vec<Digest>,
    #[serde(default)]
    pub eval_preact_features: Vec<Digest>,
    pub train_loss: f64,
    pub train_logits: Digest,
    pub train_grad_l2: f64,
    pub train_grad_probe: BTreeMap<String, f64>,
    pub after_train_running: BTreeMap<String, f64>,
}

/// Every network of the file.
///
/// # Errors
/// If the file is damaged.
pub fn cases() -> Result<Vec<NetworkCase>> {
    let file: NetworkFile = serde_json::from_str(FILE).map_err(|e| Error::run(format!("golden/models.json: {e}")))?;
    Ok(file.models)
}

impl NetworkCase {
    /// The network's recipe.
    ///
    /// # Errors
    /// If no crate that is linked has it.
    pub fn config(&self) -> Result<Box<dyn ModelConfig>> {
        serde_json::from_value(serde_json::json!({ "kind": self.model })).map_err(|e| Error::run(e.to_string()))
    }

    /// What it is built for.
    pub fn spec(&self) -> ModelSpec {
        let [_, channels, height, width] = self.input;
        ModelSpec { input: [channels, height, width], classes: self.classes }
    }

    /// The network with the reference's parameters, float32 or float64.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn network(&self, kind: Kind, device: Device) -> Result<(nn::VarStore, Box<dyn Model>)> {
        let mut vs = nn::VarStore::new(device);
        let model = self.config()?.build(&vs.root(), &self.spec())?;
        if kind == Kind::Double {
            vs.double();
        }
        let _no_grad = no_grad_guard();
        let variables = vs.variables();
        for (name, variable) in &variables {
            let module = name.rsplit_once('.').map_or("", |(module, _)| module);
            let batch_norm = variables.contains_key(&format!("{module}.running_mean"));
            let full = format!("{}.{}.{name}", self.tag, self.model);
            variable.shallow_clone().copy_(&fill_parameter(&full, &variable.size(), batch_norm));
        }
        Ok((vs, model))
    }

    /// The input in channels_last memory, as a data set hands it out.
    pub fn input(&self, kind: Kind, device: Device) -> Tensor {
        let x = fill(&format!("{}.x", self.tag), &self.input, -1.8, 1.8).to_kind(kind).to_device(device);
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }

    /// Logits of an evaluation pass, and every tap that the reference has, beside the reference's.
    ///
    /// # Errors
    /// If a kind or a shape is another, or a tap is missing.
    pub fn evaluation(&self, model: &dyn Model, kind: Kind, device: Device) -> Result<Vec<Deviation>> {
        let _no_grad = no_grad_guard();
        let signature = model.signature();
        let features = model.forward(&self.input(kind, device), &Taps::all(signature), Mode::Eval)?;
        let name = &self.model;
        let taps = signature.taps.len();
        let listed = [self.eval_features.len(), self.eval_preact_features.len()];
        if features.logits.kind() != kind || (listed != [taps, taps] && listed != [0, 0]) {
            let found = features.logits.kind();
            return Err(Error::run(format!("{name}: {found:?} logits and {taps} taps, not {kind:?} and {listed:?}")));
        }
        let mut all = deviations(&format!("{name} logits"), "logits", &features.logits, &self.eval_logits, 0.0)?;
        let lists = self.eval_features.iter().zip(&self.eval_preact_features);
        for (i, (info, (feature, preact))) in signature.taps.iter().zip(lists).enumerate() {
            let output = TapRef::output(&info.name);
            // The reference's second list repeats the first at both ends: it has no value before the stem's ReLU.
            let ends = i == 0 || i + 1 == taps;
            let pre = if ends { output.clone() } else { TapRef::pre_activation(&info.name) };
            for (tap, list, expected) in [(&output, "feature", feature), (&pre, "preact", preact)] {
                let (what, value) = (format!("{name} {tap}"), features.tap(tap)?);
                if value.size()[1..] != signature.shape(tap)?.sizes() {
                    return Err(Error::run(format!("{what}: {:?} is not the signature's shape", value.size())));
                }
                all.extend(deviations(&what, &format!("{list}{i}"), value, expected, 0.0)?);
            }
        }
        Ok(all)
    }
}
