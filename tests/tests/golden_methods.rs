//! Every method of features and logits against `golden/losses.json` and `golden/modern.json`: loss, parts, and gradients
//! with respect to the student's features and the method's own parameters.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use limbeck::prelude::*;
use limbeck_distillers as _;
use limbeck_tests::{Digest, assert_close, assert_digest, fill, fill_parameter, labels};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Golden {
    losses: Vec<Setting>,
}

#[derive(Deserialize)]
struct Setting {
    tag: String,
    batch: i64,
    classes: i64,
    #[serde(default)]
    student_shapes: Vec<Vec<i64>>,
    #[serde(default)]
    teacher_shapes: Vec<Vec<i64>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    method: String,
    config: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    parts: Vec<f64>,
    loss: f64,
    input_grads: BTreeMap<String, Digest>,
    param_grads: BTreeMap<String, Digest>,
    #[serde(default)]
    params: Vec<(String, Vec<i64>)>,
}

fn golden(file: &str) -> Golden {
    let path = format!("{}/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A network whose taps have these shapes: the stem first, the pooled vector last.
fn signature(shapes: &[Vec<i64>], classes: i64) -> Signature {
    let tap = |(i, shape): (usize, &Vec<i64>)| {
        let name = match i {
            0 => "stem".to_owned(),
            i if i + 1 == shapes.len() => "pooled".to_owned(),
            i => format!("stage{i}"),
        };
        TapInfo { name, shape: shape.clone(), pre_activation: shape.len() == 3 }
    };
    Signature { input: [3, 32, 32], classes, taps: shapes.iter().enumerate().map(tap).collect(), groups: vec![] }
}

/// The settings of a case under our names.
fn settings(case: &Case) -> serde_json::Value {
    let number = |key: &str| case.config[key].as_f64().unwrap();
    match case.method.as_str() {
        "fitnet" => json!({ "kind": "fitnet", "hint_layer": case.config["hint_layer"] }),
        "at" => json!({ "kind": "at", "p": number("p") }),
        "cc" => json!({ "kind": "cc", "embedding_width": case.config["feat_dim"] }),
        "vid" => json!({ "kind": "vid", "initial_variance": number("init_pred_var"), "epsilon": number("eps") }),
        "rkd" => json!({ "kind": "rkd", "distance": number("w_d"), "angle": number("w_a") }),
        // The case is without the factor that rises over the first epochs.
        "dkd" => json!({ "kind": "dkd", "alpha": number("alpha"), "beta": number("beta"),
                         "temperature": number("temperature") }),
        "dist" => json!({ "kind": "dist", "beta": number("beta"), "gamma": number("gamma"), "tau": number("tau") }),
        "lskd" => json!({ "kind": "lskd", "temperature": number("temperature") }),
        "ab" => json!({ "kind": "ab", "margin": number("margin") }),
        "ft_paraphraser" => json!({ "kind": "ft" }),
        kind => {
            assert!(case.config.is_empty(), "{kind} has settings that are not passed on");
            json!({ "kind": kind })
        }
    }
}

/// What of a case the terms of ours are: several of the reference's parts may be one of ours, and the other way round.
fn same_parts(method: &str) -> bool {
    !["rkd", "dkd", "dist", "lskd"].contains(&method)
}

fn check(setting: &Setting, case: &Case, kind: Kind, tol: f64) {
    let Setting { tag, batch, classes, .. } = setting;
    let what = format!("{tag}.{} in {kind:?}", case.method);
    // These need a student of the teacher's widths.
    let wide = ["fsp", "kdsvd"].contains(&case.method.as_str());
    let student_shapes = if wide { &setting.teacher_shapes } else { &setting.student_shapes };
    let (student, teacher) = (signature(student_shapes, *classes), signature(&setting.teacher_shapes, *classes));
    let all: Arc<[i64]> = Vec::try_from(labels(*batch, *classes)).unwrap().into();
    let site = Site {
        student: &student,
        teacher: &teacher,
        teacher_name: "teacher",
        labels: &all,
        classes: *classes,
        measure: Measure::Top1,
        configured_pairs: None,
        device: Device::Cpu,
    };
    let config: Box<dyn DistillerConfig> = serde_json::from_value(settings(case)).unwrap();
    let taps = config.taps(&site).unwrap();
    let mut store = nn::VarStore::new(Device::Cpu);
    let mut live = config.build(&site, &store.root()).unwrap();
    if kind == Kind::Double {
        store.double();
    }
    let variables = store.variables();
    let prefix = format!("{tag}.{}.", config.typetag_name());
    let own = |name: &str| name.strip_prefix(&prefix).unwrap().to_owned();
    let trained: HashMap<String, Tensor> =
        variables.iter().filter(|(_, t)| t.requires_grad()).map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    tch::no_grad(|| {
        for (name, variable) in trained.iter().filter(|(name, _)| !name.ends_with("log_scale")) {
            let full = format!("{prefix}{name}");
            variable.shallow_clone().copy_(&fill_parameter(&full, &variable.size(), name.contains("bn")));
        }
    });
    for (name, shape) in &case.params {
        assert_eq!(&variables[&own(name)].size(), shape, "{name}");
    }

    // Features are not negative, as behind a ReLU.
    let mut inputs: HashMap<String, Tensor> = HashMap::new();
    let mut features = |signature: &Signature, side: &str| {
        let taps = signature.taps.iter().enumerate().map(|(i, tap)| {
            let name = format!("{tag}.{}{side}{i}", if wide && side == "s" { "q" } else { "f" });
            let shape = [&[*batch], tap.shape.as_slice()].concat();
            let value = fill(&name, &shape, -0.5, 1.0).clamp_min(0.0).to_kind(kind).set_requires_grad(side == "s");
            inputs.insert(name, value.shallow_clone());
            let name = format!("{tag}.p{side}{i}");
            let signed = fill(&name, &shape, -1.5, 1.5).to_kind(kind).set_requires_grad(side == "s");
            inputs.insert(name, signed.shallow_clone());
            [(TapRef::output(&tap.name), value), (TapRef::pre_activation(&tap.name), signed)]
        });
        let taps = taps.flatten().collect();
        let name = format!("{tag}.logits_{side}");
        let logits = fill(&name, &[*batch, *classes], -4.0, 4.0).to_kind(kind).set_requires_grad(side == "s");
        inputs.insert(name, logits.shallow_clone());
        Features::new(logits, taps)
    };
    let (s, t) = (features(&student, "s"), features(&teacher, "t"));
    let step = Step {
        student: &s,
        teacher: &t,
        taps: &taps,
        labels: &labels(*batch, *classes),
        rows: &Rows::new((0..*batch).collect(), Device::Cpu),
        epoch: 1,
        step: 0,
        seed: Seed::new(0),
        mode: Mode::Train,
    };
    let initial = ["ab", "fsp", "ft_paraphraser"].contains(&case.method.as_str());
    let terms = if initial { live.initial_loss(&step) } else { live.loss(&step) }.unwrap();
    if same_parts(&case.method) {
        assert_eq!(terms.losses().len(), case.parts.len(), "{what}: parts");
        for ((name, part), expected) in terms.losses().iter().zip(&case.parts) {
            assert_close(&format!("{what}, {name}"), part.double_value(&[]), *expected, *expected, tol);
        }
    }
    let loss = terms.losses().iter().map(|(_, loss)| loss.shallow_clone()).reduce(|a, b| a + b).unwrap();
    assert_close(&what, loss.double_value(&[]), case.loss, case.loss, tol);
    loss.backward();
    let largest = case.input_grads.values().chain(case.param_grads.values()).map(|d| d.l2).fold(0.0, f64::max);
    for (name, digest) in &case.input_grads {
        assert_digest(name, &inputs[name].grad(), digest, largest, tol);
    }
    for (name, digest) in &case.param_grads {
        assert_digest(name, &variables[&own(name)].grad(), digest, largest, tol);
    }
    let reached = trained.values().filter(|variable| variable.grad().defined()).count();
    assert_eq!(case.param_grads.len(), reached, "{what}: the number of its own parameters that train");
}

/// Compares every case of these methods, in float64 and float32.
fn compare(file: &str, methods: &[&str]) {
    for (kind, tol) in [(Kind::Double, 1e-6), (Kind::Float, 1e-4)] {
        let golden = golden(file);
        let mut compared = Vec::new();
        for setting in &golden.losses {
            for case in setting.cases.iter().filter(|case| methods.contains(&case.method.as_str())) {
                check(setting, case, kind, tol);
                compared.push(case.method.as_str());
            }
        }
        assert_eq!(compared.len(), methods.len() * golden.losses.len(), "{compared:?}");
    }
}

#[test]
fn methods_of_maps() {
    compare("losses.json", &["fitnet", "at", "nst", "vid"]);
}

#[test]
fn methods_with_an_initial_stage() {
    compare("losses.json", &["ab", "ft_paraphraser", "ft", "fsp"]);
}

/// Gradients of singular vectors are ill-conditioned: they are compared to 1e-4, in float64 alone.
#[test]
fn singular_vectors() {
    for setting in &golden("losses.json").losses {
        let case = setting.cases.iter().find(|case| case.method == "kdsvd").unwrap();
        check(setting, case, Kind::Double, 1e-4);
    }
}

#[test]
fn methods_of_relations() {
    compare("losses.json", &["sp", "cc", "rkd", "pkt"]);
}

#[test]
fn methods_of_logits() {
    compare("modern.json", &["dkd", "dist", "lskd"]);
}
