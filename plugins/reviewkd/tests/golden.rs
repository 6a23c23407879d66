//! ReviewKD against the reference numbers in `modern.json`: the loss, and gradients with respect to the student's features
//! and to every parameter of the fusions.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use limbeck::prelude::*;
use limbeck_golden::{Digest, assert_close, assert_digest, fill, fill_parameter, labels};
use reviewkd::ReviewKd;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    losses: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    tag: String,
    batch: i64,
    classes: i64,
    student_channels: Vec<i64>,
    teacher_channels: Vec<i64>,
    /// Of the maps, from the first stage to the pooled vector, which is one of 1×1.
    sizes: Vec<i64>,
    cases: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Case {
    loss: f64,
    input_grads: BTreeMap<String, Digest>,
    param_grads: BTreeMap<String, Digest>,
    params: Vec<(String, Vec<i64>)>,
}

/// A network with these stages and pooled vector, behind a stem that nobody looks at.
fn signature(channels: &[i64], setting: &Setting) -> Signature {
    let mut taps = vec![TapInfo::map("stem", [1, 1, 1])];
    let stages = channels.len() - 1;
    for (i, (channels, size)) in channels.iter().zip(&setting.sizes).enumerate().take(stages) {
        taps.push(TapInfo::map(&format!("stage{}", i + 1), [*channels, *size, *size]).with_pre_activation());
    }
    taps.push(TapInfo::vector("pooled", channels[stages]));
    Signature::new(&ModelSpec { input: [3, 32, 32], classes: setting.classes }, taps, Vec::new())
}

/// The name of a variable in the method's own store.
fn own<'n>(tag: &str, name: &'n str) -> &'n str {
    name.strip_prefix(&format!("{tag}.reviewkd.")).unwrap()
}

fn check(setting: &Setting, case: &Case, kind: Kind, tol: f64) {
    let Setting { tag, batch, classes, .. } = setting;
    let (student, teacher) =
        (signature(&setting.student_channels, setting), signature(&setting.teacher_channels, setting));
    let all: Arc<[i64]> = Vec::try_from(labels(*batch, *classes)).unwrap().into();
    let site = Site {
        student: &student,
        teacher: &teacher,
        teacher_name: "teacher",
        labels: &all,
        classes: *classes,
        task: &Classification,
        configured_pairs: None,
        device: Device::Cpu,
    };
    let config = ReviewKd::default();
    let taps = config.taps(&site).unwrap();
    let mut store = nn::VarStore::new(Device::Cpu);
    let mut live = config.build(&site, &store.root()).unwrap();
    if kind == Kind::Double {
        store.double();
    }
    let variables = store.variables();
    assert_eq!(variables.values().filter(|t| t.requires_grad()).count(), case.params.len());
    for (name, shape) in &case.params {
        let variable = &variables[own(tag, name)];
        assert_eq!(&variable.size(), shape, "{name}");
        limbeck::tch::no_grad(|| variable.shallow_clone().copy_(&fill_parameter(name, shape, false)));
    }

    let mut inputs = HashMap::new();
    let mut features = |side: &str, channels: &[i64], taps: Vec<&TapRef>| {
        let values = taps.into_iter().enumerate().map(|(i, tap)| {
            let (name, size) = (format!("{tag}.f{side}{i}"), setting.sizes[i]);
            let value = fill(&name, &[*batch, channels[i], size, size], -0.5, 1.0).clamp_min(0.0).to_kind(kind);
            let value = value.set_requires_grad(side == "s");
            inputs.insert(name, value.shallow_clone());
            (tap.clone(), if tap.name == "pooled" { value.flatten(1, -1) } else { value })
        });
        let values = values.collect();
        Features::new(Tensor::zeros([*batch, *classes], (kind, Device::Cpu)), values)
    };
    let of_student = taps.pairs.iter().map(|pair| &pair.student).collect();
    let of_teacher = taps.pairs.iter().map(|pair| &pair.teacher).collect();
    let step = Step {
        student: &features("s", &setting.student_channels, of_student),
        teacher: &features("t", &setting.teacher_channels, of_teacher),
        taps: &taps,
        labels: &labels(*batch, *classes),
        rows: &Rows::new((0..*batch).collect(), Device::Cpu),
        epoch: 1,
        step: 0,
        seed: Seed::new(0),
        mode: Mode::Train,
    };
    let terms = live.loss(&step).unwrap();
    let names: Vec<&str> = terms.losses().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["pooled", "stage3", "stage2", "stage1"], "from the deepest to the shallowest");
    let loss = terms.losses().iter().map(|(_, loss)| loss.shallow_clone()).reduce(|a, b| a + b).unwrap();
    assert_close(&format!("{kind:?}"), loss.double_value(&[]), case.loss, case.loss, tol);
    loss.backward();
    let largest = case.input_grads.values().chain(case.param_grads.values()).map(|d| d.l2).fold(0.0, f64::max);
    for (name, digest) in &case.input_grads {
        assert_digest(name, &inputs[name].grad(), digest, largest, tol);
    }
    assert_eq!(case.param_grads.len(), case.params.len());
    for (name, digest) in &case.param_grads {
        assert_digest(name, &variables[own(tag, name)].grad(), digest, largest, tol);
    }
}

#[test]
fn losses_and_gradients_are_the_authors() {
    limbeck::tch::set_num_threads(1);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/modern.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let setting = &golden.losses[0];
    let case = setting.cases.iter().find(|case| case["method"] == "reviewkd").unwrap();
    let case: Case = serde_json::from_value(case.clone()).unwrap();
    check(setting, &case, Kind::Double, 1e-6);
    check(setting, &case, Kind::Float, 1e-4);
}
