//! Losses, gradients and states of distillation methods against `golden/losses.json`, through the plugins as the
//! framework builds them.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use limbeck::prelude::*;
use limbeck_distillers as _;
use limbeck_tests::{Digest, assert_close, assert_digest, fill, fill_parameter, labels};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Golden {
    losses: Vec<Setting>,
    crd: Vec<CrdSequence>,
}

#[derive(Deserialize)]
struct Setting {
    tag: String,
    batch: i64,
    classes: i64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    method: String,
    config: Settings,
    loss: f64,
    input_grads: BTreeMap<String, Digest>,
}

/// The settings of a case are the settings of the plugin.
type Settings = serde_json::Map<String, serde_json::Value>;

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/losses.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

const PRECISIONS: [(Kind, f64); 2] = [(Kind::Double, 1e-6), (Kind::Float, 1e-4)];

fn signature(classes: i64, width: i64) -> Signature {
    let pooled = TapInfo { name: "pooled".into(), shape: vec![width], pre_activation: false };
    Signature { input: [3, 32, 32], classes, taps: vec![pooled], groups: vec![] }
}

fn distiller(kind: &str, settings: &Settings) -> Box<dyn DistillerConfig> {
    let mut table = settings.clone();
    table.insert("kind".into(), kind.into());
    serde_json::from_value(table.into()).unwrap()
}

#[test]
fn soft_targets_and_cross_entropy() {
    for (kind, tol) in PRECISIONS {
        let mut compared = 0;
        for setting in golden().losses {
            let Setting { tag, batch, classes, cases } = setting;
            let logits = |side| fill(&format!("{tag}.logits_{side}"), &[batch, classes], -4.0, 4.0).to_kind(kind);
            for case in cases {
                let student = Features::new(logits("s").set_requires_grad(true), HashMap::new());
                let loss = match case.method.as_str() {
                    "cross_entropy" => student.logits.cross_entropy_for_logits(&labels(batch, classes)),
                    "kd" => soft_targets(&case, &student, &Features::new(logits("t"), HashMap::new())),
                    _ => continue,
                };
                let what = format!("{tag}.{} in {kind:?}", case.method);
                assert_close(&what, loss.double_value(&[]), case.loss, case.loss, tol);
                loss.backward();
                let name = format!("{tag}.logits_s");
                assert_digest(&name, &student.logits.grad(), &case.input_grads[&name], 0.0, tol);
                compared += 1;
            }
        }
        assert_eq!(compared, 6, "two losses in three settings");
    }
}

fn soft_targets(case: &Case, student: &Features, teacher: &Features) -> Tensor {
    let size = student.logits.size();
    let networks = signature(size[1], 64);
    let all: Arc<[i64]> = Vec::try_from(labels(size[0], size[1])).unwrap().into();
    let site = site(&networks, &networks, &all, size[1]);
    let config = distiller("kd", &case.config);
    let mut kd = config.build(&site, &nn::VarStore::new(Device::Cpu).root()).unwrap();
    let step = Step {
        student,
        teacher,
        taps: &config.taps(&site).unwrap(),
        labels: &labels(size[0], size[1]),
        rows: &Rows::new((0..size[0]).collect(), Device::Cpu),
        epoch: 1,
        step: 0,
        seed: Seed::new(0),
        mode: Mode::Train,
    };
    total(&kd.loss(&step).unwrap())
}

fn site<'a>(student: &'a Signature, teacher: &'a Signature, labels: &'a Arc<[i64]>, classes: i64) -> Site<'a> {
    Site { student, teacher, teacher_name: "teacher", labels, classes, configured_pairs: None, device: Device::Cpu }
}

fn total(terms: &Terms) -> Tensor {
    let mut losses = terms.losses().iter().map(|(_, loss)| loss.shallow_clone());
    let first = losses.next().unwrap();
    losses.fold(first, |sum, loss| sum + loss)
}

#[derive(Deserialize)]
struct CrdSequence {
    tag: String,
    batch: i64,
    s_dim: i64,
    t_dim: i64,
    feat_dim: i64,
    n_data: i64,
    nce_k: i64,
    nce_t: f64,
    nce_m: f64,
    params: Vec<(String, Vec<i64>)>,
    steps: Vec<CrdStep>,
    memory_v1: Digest,
    memory_v2: Digest,
}

#[derive(Deserialize)]
struct CrdStep {
    step: i64,
    loss: f64,
    z_v1: f64,
    z_v2: f64,
    grad_s: Digest,
    param_grads: BTreeMap<String, Digest>,
}

/// The negatives of the sequence: (5·i + 11·k + 3·step + 1) mod n in column k of anchor i.
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
        let arange = |n| Tensor::arange(n, (Kind::Int64, Device::Cpu));
        let anchors = arange(draw.rows.len() as i64).unsqueeze(1) * 5;
        let rows = (anchors + arange(self.count) * 11 + (3 * self.step + 1)).remainder(self.samples);
        self.step += 1;
        Ok(Negatives::new(Candidates::Rows(rows)))
    }
}

#[test]
fn contrastive_representation_distillation() {
    let sequences = golden().crd;
    assert_eq!(sequences.len(), 1);
    for (kind, tol) in PRECISIONS {
        for sequence in &sequences {
            crd_sequence(sequence, kind, tol);
        }
    }
}

fn crd_sequence(case: &CrdSequence, kind: Kind, tol: f64) {
    let (student, teacher) = (signature(10, case.s_dim), signature(10, case.t_dim));
    let all: Arc<[i64]> = vec![0; case.n_data as usize].into();
    let site = site(&student, &teacher, &all, 10);
    let settings = serde_json::json!({
        "critic": { "kind": "nce", "temperature": case.nce_t },
        "negatives": { "kind": "golden_prescribed", "count": case.nce_k, "samples": case.n_data, "step": 0 },
        "embedding_width": case.feat_dim,
        "bank_momentum": case.nce_m,
    });
    let config = distiller("crd", settings.as_object().unwrap());
    let taps = config.taps(&site).unwrap();
    let mut store = nn::VarStore::new(Device::Cpu);
    let mut crd = config.build(&site, &store.root()).unwrap();
    if kind == Kind::Double {
        store.double();
    }
    let own = |name: &str| name.strip_prefix(&format!("{}.", case.tag)).unwrap().to_owned();
    let variables = store.variables();
    tch::no_grad(|| {
        let bound = 1.0 / (case.feat_dim as f64 / 3.0).sqrt();
        for bank in ["memory_v1", "memory_v2"] {
            let values = fill(&format!("{}.{bank}", case.tag), &[case.n_data, case.feat_dim], -bound, bound);
            variables[bank].shallow_clone().copy_(&values);
        }
        for (name, shape) in &case.params {
            variables[&own(name)].shallow_clone().copy_(&fill_parameter(name, shape, false));
        }
    });
    assert_eq!(case.steps.len(), 3);
    for golden in &case.steps {
        let at = |side, width| {
            fill(&format!("{}.step{}.{side}", case.tag, golden.step), &[case.batch, width], -1.0, 1.0).to_kind(kind)
        };
        let input = at("s", case.s_dim).set_requires_grad(true);
        let features = |tap: &Tensor| {
            let logits = Tensor::zeros([case.batch, 10], (kind, Device::Cpu));
            Features::new(logits, HashMap::from([(TapRef::output("pooled"), tap.shallow_clone())]))
        };
        let rows = (0..case.batch).map(|i| (7 * i + 13 * golden.step + 2) % case.n_data).collect();
        let (student, teacher) = (features(&input), features(&at("t", case.t_dim)));
        let step = Step {
            student: &student,
            teacher: &teacher,
            taps: &taps,
            labels: &labels(case.batch, 10),
            rows: &Rows::new(rows, Device::Cpu),
            epoch: 1,
            step: golden.step as u64,
            seed: Seed::new(0),
            mode: Mode::Train,
        };
        let loss = total(&crd.loss(&step).unwrap());
        loss.backward();
        crd.after_step(&step).unwrap();

        let what = |part: &str| format!("{kind:?}, step {}, {part}", golden.step);
        assert_close(&what("loss"), loss.double_value(&[]), golden.loss, golden.loss, tol);
        for (name, z) in [("z_v1", golden.z_v1), ("z_v2", golden.z_v2)] {
            assert_close(&what(name), variables[name].double_value(&[]), z, z, tol);
        }
        assert_digest(&format!("{}.step{}.s", case.tag, golden.step), &input.grad(), &golden.grad_s, 0.0, tol);
        assert_eq!(golden.param_grads.len(), 4);
        for (name, digest) in &golden.param_grads {
            let parameter = &variables[&own(name)];
            assert_digest(name, &parameter.grad(), digest, 0.0, tol);
            let _ = parameter.grad().zero_();
        }
    }
    for (bank, digest) in [("memory_v1", &case.memory_v1), ("memory_v2", &case.memory_v2)] {
        assert_digest(&format!("{}.{bank}", case.tag), &variables[bank], digest, 0.0, tol);
    }
}
