//! The reference numbers of one step of each method: `tests/golden/losses.json`, and of later methods `modern.json` and
//! `recent.json`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use limbeck::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::losses::{scalar, site, total, variable};
use super::{Deviation, Digest, deviations, fill, fill_parameter, labels};

/// The number files.
const FILES: [(&str, &str); 3] = [
    ("losses.json", include_str!("../losses.json")),
    ("modern.json", include_str!("../modern.json")),
    ("recent.json", include_str!("../recent.json")),
];

/// The cases that are compared here, by their names in the files; those of [`losses`](super::losses) and of plugins are not.
pub const METHODS: [&str; 21] = [
    "fitnet",
    "at",
    "nst",
    "vid",
    "ab",
    "ft_paraphraser",
    "ft",
    "fsp",
    "kdsvd",
    "sp",
    "cc",
    "rkd",
    "pkt",
    "dkd",
    "dist",
    "lskd",
    "nkd",
    "wsld",
    "ttm",
    "ickd",
    "itrd",
];

#[derive(Deserialize)]
struct MethodFile {
    losses: Vec<MethodSetting>,
}

/// Sizes, and the cases that were computed for them.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number files")]
pub struct MethodSetting {
    pub tag: String,
    pub batch: i64,
    pub classes: i64,
    #[serde(default)]
    pub student_shapes: Vec<Vec<i64>>,
    #[serde(default)]
    pub teacher_shapes: Vec<Vec<i64>>,
    pub cases: Vec<MethodCase>,
}

/// One step of a method.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number files")]
pub struct MethodCase {
    pub method: String,
    pub config: serde_json::Map<String, Value>,
    #[serde(default)]
    pub parts: Vec<f64>,
    pub loss: f64,
    pub input_grads: BTreeMap<String, Digest>,
    pub param_grads: BTreeMap<String, Digest>,
    #[serde(default)]
    pub params: Vec<(String, Vec<i64>)>,
}

/// What was computed of a case, beside the reference.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The loss and its parts.
    pub losses: Vec<Deviation>,
    /// The gradients of the student's features and of the method's own parameters.
    pub gradients: Vec<Deviation>,
}

/// The settings of all files.
///
/// # Errors
/// If one is damaged.
pub fn settings() -> Result<Vec<MethodSetting>> {
    let read = |(name, text): (&str, &str)| {
        let file: MethodFile = serde_json::from_str(text).map_err(|e| Error::run(format!("golden/{name}: {e}")))?;
        Ok(file.losses)
    };
    Ok(FILES.into_iter().map(read).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// A network whose taps have these shapes: the stem first, the pooled vector last.
fn signature(shapes: &[Vec<i64>], classes: i64) -> Result<Signature> {
    let tap = |(i, shape): (usize, &Vec<i64>)| {
        let name = match i {
            0 => "stem".to_owned(),
            i if i + 1 == shapes.len() => "pooled".to_owned(),
            i => format!("stage{i}"),
        };
        let shape = TapShape::of(shape).ok_or_else(|| Error::run(format!("{name}: no tap is {shape:?}")))?;
        Ok(TapInfo { pre_activation: shape.is_map(), ..TapInfo::new(&name, shape) })
    };
    let taps = shapes.iter().enumerate().map(tap).collect::<Result<Vec<_>>>()?;
    Ok(Signature::new(&ModelSpec { input: [3, 32, 32], classes }, taps, Vec::new()))
}

impl MethodCase {
    /// The method with the case's settings under our names.
    fn distiller(&self) -> Result<Box<dyn DistillerConfig>> {
        let set = |key: &str| self.config.get(key).cloned().unwrap_or_default();
        let settings = match self.method.as_str() {
            "fitnet" => json!({ "kind": "fitnet", "hint_layer": set("hint_layer") }),
            "at" => json!({ "kind": "at", "p": set("p") }),
            "cc" => json!({ "kind": "cc", "embedding_width": set("feat_dim") }),
            "vid" => json!({ "kind": "vid", "initial_variance": set("init_pred_var"), "epsilon": set("eps") }),
            "rkd" => json!({ "kind": "rkd", "distance": set("w_d"), "angle": set("w_a") }),
            // The case is without the factor that rises over the first epochs.
            "dkd" => {
                json!({ "kind": "dkd", "alpha": set("alpha"), "beta": set("beta"), "temperature": set("temperature") })
            }
            "dist" => json!({ "kind": "dist", "beta": set("beta"), "gamma": set("gamma"), "tau": set("tau") }),
            "lskd" => json!({ "kind": "lskd", "temperature": set("temperature") }),
            "ab" => json!({ "kind": "ab", "margin": set("margin") }),
            "ft_paraphraser" => json!({ "kind": "ft" }),
            // Their cases were computed for us, and have our names.
            kind @ ("nkd" | "wsld" | "ttm" | "itrd") => {
                let mut settings = self.config.clone();
                settings.insert("kind".to_owned(), json!(kind));
                Value::Object(settings)
            }
            kind if self.config.is_empty() => json!({ "kind": kind }),
            kind => return Err(Error::run(format!("{kind} has settings that are not passed on"))),
        };
        serde_json::from_value(settings).map_err(|e| Error::run(format!("{}: {e}", self.method)))
    }

    /// Whether it is of the initial stage.
    fn is_initial(&self) -> bool {
        ["ab", "fsp", "ft_paraphraser"].contains(&self.method.as_str())
    }

    /// Whether its student has the teacher's widths.
    fn is_wide(&self) -> bool {
        ["fsp", "kdsvd"].contains(&self.method.as_str())
    }

    /// Whether the reference has the parts that our terms are: several of its own may be one of ours, and the other way round.
    fn has_our_parts(&self) -> bool {
        !["rkd", "dkd", "dist", "lskd"].contains(&self.method.as_str())
    }

    /// Gives the method's own parameters the reference's values. `prefix` is what their names begin with in the file.
    fn fill(&self, prefix: &str, variables: &HashMap<String, Tensor>) -> Result<()> {
        let _no_grad = limbeck::tch::no_grad_guard();
        let trained =
            variables.iter().filter(|(name, variable)| variable.requires_grad() && !name.ends_with("log_scale"));
        for (name, variable) in trained {
            let values = fill_parameter(&format!("{prefix}{name}"), &variable.size(), name.contains("bn"));
            variable.shallow_clone().copy_(&values);
        }
        for (name, shape) in &self.params {
            let found = variable(variables, own(prefix, name))?.size();
            if found != *shape {
                return Err(Error::run(format!("{name}: the shape is {found:?}, not {shape:?}")));
            }
        }
        Ok(())
    }

    /// The loss and, where they are the same, its parts.
    fn losses(&self, what: &str, terms: &Terms, loss: &Tensor) -> Result<Vec<Deviation>> {
        let mut losses = vec![scalar(what.to_owned(), loss, self.loss)];
        if self.has_our_parts() {
            let (found, expected) = (terms.losses().len(), self.parts.len());
            if found != expected {
                return Err(Error::run(format!("{what}: {found} parts, not {expected}")));
            }
            let parts = terms.losses().iter().zip(&self.parts);
            losses.extend(parts.map(|((name, part), expected)| scalar(format!("{what}, {name}"), part, *expected)));
        }
        Ok(losses)
    }

    /// The gradients of inputs and parameters, by the names that both have in the file.
    fn gradients(
        &self,
        prefix: &str,
        inputs: &HashMap<String, Tensor>,
        variables: &HashMap<String, Tensor>,
    ) -> Result<Vec<Deviation>> {
        let largest = self.input_grads.values().chain(self.param_grads.values()).map(|d| d.l2).fold(0.0, f64::max);
        let mut all = Vec::new();
        for (name, digest) in &self.input_grads {
            all.extend(deviations(name, name, &variable(inputs, name)?.grad(), digest, largest)?);
        }
        for (name, digest) in &self.param_grads {
            all.extend(deviations(name, name, &variable(variables, own(prefix, name))?.grad(), digest, largest)?);
        }
        let reached = variables.values().filter(|t| t.requires_grad() && t.grad().defined()).count();
        match self.param_grads.len() {
            expected if expected == reached => Ok(all),
            expected => Err(Error::run(format!("{prefix} {reached} of its own parameters train, not {expected}"))),
        }
    }
}

/// The name of a variable in the method's own store.
fn own<'n>(prefix: &str, name: &'n str) -> &'n str {
    name.strip_prefix(prefix).unwrap_or(name)
}

impl MethodSetting {
    /// The cases of these methods.
    pub fn of(&self, methods: &[&str]) -> impl Iterator<Item = &MethodCase> {
        self.cases.iter().filter(|case| methods.contains(&case.method.as_str()))
    }

    /// Computes a case on a device.
    ///
    /// # Errors
    /// If the method refuses its settings or its step, or has other parts or parameters than the reference.
    pub fn compare(&self, case: &MethodCase, kind: Kind, device: Device) -> Result<Compared> {
        let student_shapes = if case.is_wide() { &self.teacher_shapes } else { &self.student_shapes };
        let (student, teacher) =
            (signature(student_shapes, self.classes)?, signature(&self.teacher_shapes, self.classes)?);
        let labels = labels(self.batch, self.classes);
        let all: Arc<[i64]> = Vec::try_from(&labels)?.into();
        let site = site(&student, &teacher, &all, device);
        let config = case.distiller()?;
        let mut store = nn::VarStore::new(device);
        let mut live = config.build(&site, &store.root())?;
        if kind == Kind::Double {
            store.double();
        }
        let (prefix, variables) = (format!("{}.{}.", self.tag, config.typetag_name()), store.variables());
        case.fill(&prefix, &variables)?;

        let (of_student, inputs) = self.features(&student, if case.is_wide() { "qs" } else { "fs" }, kind, device);
        let (of_teacher, _) = self.features(&teacher, "ft", kind, device);
        let step = Step {
            student: &of_student,
            teacher: &of_teacher,
            taps: &config.taps(&site)?,
            labels: &labels.to_device(device),
            rows: &Rows::new((0..self.batch).collect(), device),
            epoch: 1,
            step: 0,
            seed: Seed::new(0),
            mode: Mode::Train,
        };
        let terms = if case.is_initial() { live.initial_loss(&step)? } else { live.loss(&step)? };
        let loss = total(&terms)?;
        let losses = case.losses(&format!("{}.{} in {kind:?}", self.tag, case.method), &terms, &loss)?;
        loss.backward();
        Ok(Compared { losses, gradients: case.gradients(&prefix, &inputs, &variables)? })
    }

    /// Features of a side, and the same by their names in the file; the student's, whose names end in `s`, take gradients.
    fn features(
        &self,
        signature: &Signature,
        outputs: &str,
        kind: Kind,
        device: Device,
    ) -> (Features, HashMap<String, Tensor>) {
        let side = &outputs[1..];
        let mut inputs = HashMap::new();
        let mut input = |name: String, values: Tensor| {
            let input = values.to_kind(kind).to_device(device).set_requires_grad(side == "s");
            inputs.insert(format!("{}.{name}", self.tag), input.shallow_clone());
            input
        };
        let mut taps = HashMap::new();
        let values = |name: &str, shape: &[i64], lo, hi| fill(&format!("{}.{name}", self.tag), shape, lo, hi);
        for (i, tap) in signature.taps.iter().enumerate() {
            // Outputs are not negative, as behind a ReLU.
            let name = format!("{outputs}{i}");
            let value = values(&name, &tap.shape.of_batch(self.batch), -0.5, 1.0).clamp_min(0.0);
            taps.insert(TapRef::output(&tap.name), input(name, value));
            let name = format!("p{side}{i}");
            let value = values(&name, &tap.shape.of_batch(self.batch), -1.5, 1.5);
            taps.insert(TapRef::pre_activation(&tap.name), input(name, value));
        }
        let name = format!("logits_{side}");
        let logits = values(&name, &[self.batch, self.classes], -4.0, 4.0);
        (Features::new(input(name, logits), taps), inputs)
    }
}
