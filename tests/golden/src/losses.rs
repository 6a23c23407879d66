//! The reference numbers of cross-entropy, soft targets and CRD, through the plugins as the framework builds them:
//! `tests/golden/losses.json`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use limbeck::metric;
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Deviation, Digest, deviations, fill, fill_parameter, labels};

/// The number file.
const FILE: &str = include_str!("../losses.json");

/// The number file's content.
#[derive(Clone, Debug, Deserialize)]
pub struct Golden {
    /// Losses of a single step.
    pub losses: Vec<LossSetting>,
    /// Sequences of steps over memory banks.
    pub crd: Vec<CrdSequence>,
}

/// Sizes, and the losses that were computed for them.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number file")]
pub struct LossSetting {
    pub tag: String,
    pub batch: i64,
    pub classes: i64,
    pub cases: Vec<LossCase>,
}

/// One loss.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number file")]
pub struct LossCase {
    pub method: String,
    pub config: Settings,
    pub loss: f64,
    pub input_grads: BTreeMap<String, Digest>,
}

/// The settings of a case are the settings of the plugin.
type Settings = serde_json::Map<String, serde_json::Value>;

/// The file.
///
/// # Errors
/// If it is damaged.
pub fn golden() -> Result<Golden> {
    serde_json::from_str(FILE).map_err(|e| Error::run(format!("golden/losses.json: {e}")))
}

fn signature(classes: i64, width: i64) -> Signature {
    let spec = ModelSpec { input: [3, 32, 32], classes };
    Signature::new(&spec, vec![TapInfo::vector("pooled", width)], Vec::new())
}

fn distiller(kind: &str, settings: &Settings) -> Result<Box<dyn DistillerConfig>> {
    let mut table = settings.clone();
    table.insert("kind".into(), kind.into());
    serde_json::from_value(table.into()).map_err(|e| Error::run(format!("{kind}: {e}")))
}

pub(super) fn site<'a>(
    student: &'a Signature,
    teacher: &'a Signature,
    labels: &'a Arc<[i64]>,
    device: Device,
) -> Site<'a> {
    let classes = student.classes;
    let (teacher_name, task, configured_pairs): (_, &dyn Task, _) = ("teacher", &Classification, None);
    Site { student, teacher, teacher_name, labels, classes, task, configured_pairs, device }
}

pub(super) fn total(terms: &Terms) -> Result<Tensor> {
    let losses: Vec<Tensor> = terms.losses().iter().map(|(_, loss)| loss.shallow_clone()).collect();
    let first = losses.first().ok_or_else(|| Error::run("the method has no loss"))?.shallow_clone();
    Ok(losses.iter().skip(1).fold(first, |sum, loss| sum + loss))
}

pub(super) fn scalar(what: String, value: &Tensor, reference: f64) -> Deviation {
    Deviation { what, value: value.double_value(&[]), reference, scale: reference.abs() }
}

impl LossSetting {
    /// The cases of this setting that are losses of the logits alone: cross-entropy and `kd`, with their gradients.
    ///
    /// # Errors
    /// If a method refuses its settings or its step.
    pub fn logits(&self, kind: Kind, device: Device) -> Result<BTreeMap<String, Vec<Deviation>>> {
        let LossSetting { tag, batch, classes, cases } = self;
        let labels = labels(*batch, *classes).to_device(device);
        let mut compared = BTreeMap::new();
        for case in cases {
            let student = Features::new(self.logits_of("s", kind, device).set_requires_grad(true), HashMap::new());
            let teacher = Features::new(self.logits_of("t", kind, device), HashMap::new());
            let loss = match case.method.as_str() {
                "cross_entropy" => metric::cross_entropy(&student.logits, &labels),
                "kd" => soft_targets(case, &student, &teacher, &labels, device)?,
                _ => continue,
            };
            let mut all = vec![scalar(format!("{tag}.{} in {kind:?}", case.method), &loss, case.loss)];
            loss.backward();
            for (name, expected) in &case.input_grads {
                all.extend(deviations(name, name, &student.logits.grad(), expected, 0.0)?);
            }
            compared.insert(case.method.clone(), all);
        }
        Ok(compared)
    }

    fn logits_of(&self, side: &str, kind: Kind, device: Device) -> Tensor {
        let name = format!("{}.logits_{side}", self.tag);
        fill(&name, &[self.batch, self.classes], -4.0, 4.0).to_kind(kind).to_device(device)
    }
}

fn soft_targets(
    case: &LossCase,
    student: &Features,
    teacher: &Features,
    labels: &Tensor,
    device: Device,
) -> Result<Tensor> {
    let (batch, classes) = student.logits.size2()?;
    let networks = signature(classes, 64);
    let all: Arc<[i64]> = Vec::try_from(labels)?.into();
    let site = site(&networks, &networks, &all, device);
    let config = distiller("kd", &case.config)?;
    let mut kd = config.build(&site, &nn::VarStore::new(device).root())?;
    let step = Step {
        student,
        teacher,
        taps: &config.taps(&site)?,
        labels,
        rows: &Rows::new((0..batch).collect(), device),
        epoch: 1,
        step: 0,
        seed: Seed::new(0),
        mode: Mode::Train,
    };
    total(&kd.loss(&step)?)
}

/// Three steps of CRD with prescribed negatives.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number file")]
pub struct CrdSequence {
    pub tag: String,
    pub batch: i64,
    pub s_dim: i64,
    pub t_dim: i64,
    pub feat_dim: i64,
    pub n_data: i64,
    pub nce_k: i64,
    pub nce_t: f64,
    pub nce_m: f64,
    pub params: Vec<(String, Vec<i64>)>,
    pub steps: Vec<CrdStep>,
    pub memory_v1: Digest,
    pub memory_v2: Digest,
}

/// One of them.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the number file")]
pub struct CrdStep {
    pub step: i64,
    pub loss: f64,
    pub z_v1: f64,
    pub z_v2: f64,
    pub grad_s: Digest,
    pub param_grads: BTreeMap<String, Digest>,
}

/// The negatives of the sequence: (5·i + 11·k + 3·step + 1) mod n in column k of anchor i. It is of no other use, so
/// the registry does not list it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Prescribed {
    count: i64,
    samples: i64,
    step: i64,
}

#[typetag::serde(name = "golden_prescribed")]
impl NegativeSamplerConfig for Prescribed {
    fn build(&self, _site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        Ok(Box::new(self.clone()))
    }
}

impl NegativeSampler for Prescribed {
    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        let [anchors, negatives] =
            [draw.rows.len() as i64, self.count].map(|n| Tensor::arange(n, (Kind::Int64, draw.device)));
        let rows = anchors.unsqueeze(1) * 5 + negatives * 11 + (3 * self.step + 1);
        let rows = rows.remainder(self.samples);
        self.step += 1;
        Ok(Negatives::Rows(rows))
    }
}

impl CrdSequence {
    /// Losses, normalisers and gradients of every step, and the banks after the last.
    ///
    /// # Errors
    /// If the method refuses its settings or a step.
    pub fn compare(&self, kind: Kind, device: Device) -> Result<Vec<Deviation>> {
        let (student, teacher) = (signature(10, self.s_dim), signature(10, self.t_dim));
        let all: Arc<[i64]> = vec![0; self.n_data as usize].into();
        let site = site(&student, &teacher, &all, device);
        let config = self.config()?;
        let taps = config.taps(&site)?;
        let mut store = nn::VarStore::new(device);
        let mut crd = config.build(&site, &store.root())?;
        if kind == Kind::Double {
            store.double();
        }
        let variables = self.fill(&store)?;
        let mut found = Vec::new();
        for golden in &self.steps {
            found.extend(self.step(golden, &mut *crd, &taps, &variables, (kind, device))?);
        }
        for (bank, digest) in [("memory_v1", &self.memory_v1), ("memory_v2", &self.memory_v2)] {
            let name = format!("{}.{bank}", self.tag);
            found.extend(deviations(&name, &name, variable(&variables, bank)?, digest, 0.0)?);
        }
        Ok(found)
    }

    fn config(&self) -> Result<Box<dyn DistillerConfig>> {
        let settings = serde_json::json!({
            "critic": { "kind": "nce", "temperature": self.nce_t },
            "negatives": { "kind": "golden_prescribed", "count": self.nce_k, "samples": self.n_data, "step": 0 },
            "embedding_width": self.feat_dim,
            "bank_momentum": self.nce_m,
        });
        distiller("crd", settings.as_object().unwrap_or(&Settings::new()))
    }

    /// The name of a variable in the method's own store.
    fn own<'n>(&self, name: &'n str) -> &'n str {
        name.strip_prefix(&format!("{}.", self.tag)).unwrap_or(name)
    }

    /// Gives banks and heads the reference's values.
    fn fill(&self, store: &nn::VarStore) -> Result<HashMap<String, Tensor>> {
        let _no_grad = limbeck::tch::no_grad_guard();
        let variables = store.variables();
        let bound = 1.0 / (self.feat_dim as f64 / 3.0).sqrt();
        for bank in ["memory_v1", "memory_v2"] {
            let values = fill(&format!("{}.{bank}", self.tag), &[self.n_data, self.feat_dim], -bound, bound);
            variable(&variables, bank)?.shallow_clone().copy_(&values);
        }
        for (name, shape) in &self.params {
            variable(&variables, self.own(name))?.shallow_clone().copy_(&fill_parameter(name, shape, false));
        }
        Ok(variables)
    }

    fn step(
        &self,
        golden: &CrdStep,
        crd: &mut dyn Distiller,
        taps: &TapPairs,
        variables: &HashMap<String, Tensor>,
        (kind, device): (Kind, Device),
    ) -> Result<Vec<Deviation>> {
        let [student, teacher] = [("s", self.s_dim), ("t", self.t_dim)].map(|(side, width)| {
            let name = format!("{}.step{}.{side}", self.tag, golden.step);
            fill(&name, &[self.batch, width], -1.0, 1.0).to_kind(kind).to_device(device)
        });
        let input = student.set_requires_grad(true);
        let rows = (0..self.batch).map(|i| (7 * i + 13 * golden.step + 2) % self.n_data).collect();
        let step = Step {
            student: &pooled_alone(&input),
            teacher: &pooled_alone(&teacher),
            taps,
            labels: &labels(self.batch, 10).to_device(device),
            rows: &Rows::new(rows, device),
            epoch: 1,
            step: golden.step as u64,
            seed: Seed::new(0),
            mode: Mode::Train,
        };
        let loss = total(&crd.loss(&step)?)?;
        loss.backward();
        crd.after_step(&step)?;

        let what = format!("{kind:?}, step {}", golden.step);
        let mut all = vec![scalar(format!("{what}, loss"), &loss, golden.loss)];
        for (name, z) in [("z_v1", golden.z_v1), ("z_v2", golden.z_v2)] {
            all.push(scalar(format!("{what}, {name}"), variable(variables, name)?, z));
        }
        let name = format!("{}.step{}.s", self.tag, golden.step);
        all.extend(deviations(&name, &name, &input.grad(), &golden.grad_s, 0.0)?);
        for (name, digest) in &golden.param_grads {
            let mut gradient = variable(variables, self.own(name))?.grad();
            all.extend(deviations(name, name, &gradient, digest, 0.0)?);
            let _ = gradient.zero_();
        }
        Ok(all)
    }
}

/// Features with a pooled vector `[B, D]`, beside logits that nobody looks at.
fn pooled_alone(vector: &Tensor) -> Features {
    let logits = Tensor::zeros([vector.size()[0], 10], (vector.kind(), vector.device()));
    Features::new(logits, HashMap::from([(TapRef::output("pooled"), vector.shallow_clone())]))
}

pub(super) fn variable<'v>(variables: &'v HashMap<String, Tensor>, name: &str) -> Result<&'v Tensor> {
    variables.get(name).ok_or_else(|| Error::run(format!("the method has no variable `{name}`")))
}
