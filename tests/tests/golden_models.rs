//! The networks against the reference numbers of `golden/models.json`, computed by the original implementations.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use limbeck::prelude::*;
use limbeck_models as _;
use limbeck_tests::{Digest, assert_close, assert_digest_named, digest, fill, fill_parameter, labels};
use serde::Deserialize;
use tch::{Reduction, no_grad_guard};

#[derive(Deserialize)]
struct File {
    models: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    tag: String,
    classes: i64,
    input: [i64; 4],
    trainable_params: i64,
    /// Names and shapes in PyTorch's order.
    state: Vec<(String, Vec<i64>)>,
    eval_logits: Digest,
    eval_features: Vec<Digest>,
    eval_preact_features: Vec<Digest>,
    train_loss: f64,
    train_logits: Digest,
    train_grad_l2: f64,
    train_grad_probe: BTreeMap<String, f64>,
    after_train_running: BTreeMap<String, f64>,
}

fn cases() -> Vec<Case> {
    let file: File = serde_json::from_str(include_str!("../golden/models.json")).unwrap();
    file.models
}

impl Case {
    /// The network with the reference's parameters.
    fn network(&self, kind: Kind) -> (nn::VarStore, Box<dyn Model>) {
        // Tests run beside each other: more threads than cores would only wait for one another.
        tch::set_num_threads(1);
        let config: Box<dyn ModelConfig> = serde_json::from_value(serde_json::json!({ "kind": self.model })).unwrap();
        let mut vs = nn::VarStore::new(Device::Cpu);
        let [_, channels, height, width] = self.input;
        let spec = ModelSpec { input: [channels, height, width], classes: self.classes };
        let model = config.build(&vs.root(), &spec).unwrap();
        if kind == Kind::Double {
            vs.double();
        }
        let _no_grad = no_grad_guard();
        let variables = vs.variables();
        for (name, variable) in &variables {
            let (module, _) = name.rsplit_once('.').unwrap();
            let batch_norm = variables.contains_key(&format!("{module}.running_mean"));
            let full = format!("{}.{}.{name}", self.tag, self.model);
            variable.shallow_clone().copy_(&fill_parameter(&full, &variable.size(), batch_norm));
        }
        (vs, model)
    }

    /// The input in channels_last memory, as a data set hands it out.
    fn input(&self, kind: Kind) -> Tensor {
        let x = fill(&format!("{}.x", self.tag), &self.input, -1.8, 1.8).to_kind(kind);
        x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }

    /// Asserts logits and every tap of an evaluation pass.
    fn check_evaluation(&self, model: &dyn Model, kind: Kind, tol: f64) {
        let _no_grad = no_grad_guard();
        let signature = model.signature();
        let features = model.forward(&self.input(kind), &Taps::all(signature), Mode::Eval).unwrap();
        let name = &self.model;
        assert_eq!(features.logits.kind(), kind);
        assert_digest_named(&format!("{name} logits"), "logits", &features.logits, &self.eval_logits, 0.0, tol);
        assert_eq!(signature.taps.len(), self.eval_features.len(), "{name}: taps");
        assert_eq!(signature.taps.len(), self.eval_preact_features.len(), "{name}: pre-activations");
        let last = signature.taps.len() - 1;
        for (i, info) in signature.taps.iter().enumerate() {
            let output = TapRef::output(&info.name);
            // The reference's second list repeats the first at both ends: it has no value before the stem's ReLU.
            let pre = if i == 0 || i == last { output.clone() } else { TapRef::pre_activation(&info.name) };
            for (tap, list, expected) in
                [(&output, "feature", &self.eval_features[i]), (&pre, "preact", &self.eval_preact_features[i])]
            {
                let value = features.tap(tap).unwrap();
                assert_digest_named(&format!("{name} {tap}"), &format!("{list}{i}"), value, expected, 0.0, tol);
                assert_eq!(value.size()[1..], *signature.shape(tap).unwrap(), "{name} {tap}: the signature's shape");
            }
        }
    }
}

#[test]
fn every_residual_network_is_there() {
    let names: Vec<String> = cases().into_iter().map(|case| case.model).collect();
    let expected = "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 resnet8x4 resnet32x4";
    assert_eq!(names.join(" "), expected);
}

/// As sets: a `VarStore` does not remember the order in which its variables came.
#[test]
fn state_names_shapes_and_parameter_counts_are_pytorchs() {
    for case in cases() {
        let (vs, _model) = case.network(Kind::Float);
        let state = vs.variables().into_iter().map(|(name, t)| (name, t.size()));
        assert_eq!(state.collect::<BTreeSet<_>>(), case.state.iter().cloned().collect(), "{}", case.model);
        let parameters = vs.trainable_variables().iter().map(|t| t.numel() as i64).sum::<i64>();
        assert_eq!(parameters, case.trainable_params, "{}", case.model);
    }
}

#[test]
fn logits_taps_and_pre_activations_in_float64() {
    for case in cases() {
        let (_vs, model) = case.network(Kind::Double);
        case.check_evaluation(model.as_ref(), Kind::Double, 1e-9);
    }
}

#[test]
fn logits_taps_and_pre_activations_in_float32() {
    for case in cases() {
        let (_vs, model) = case.network(Kind::Float);
        case.check_evaluation(model.as_ref(), Kind::Float, 1e-3);
    }
}

#[test]
fn loss_gradients_and_running_statistics_of_a_training_step_in_float64() {
    const TOL: f64 = 1e-6;
    for case in cases() {
        let name = &case.model;
        let (vs, model) = case.network(Kind::Double);
        // An evaluation pass before it must change nothing.
        model.forward(&case.input(Kind::Double), &Taps::none(), Mode::Eval).unwrap();
        let logits = model.forward(&case.input(Kind::Double), &Taps::none(), Mode::Train).unwrap().logits;
        // Not `cross_entropy_for_logits`, which computes in float32 whatever the logits are.
        let labels = labels(case.input[0], case.classes);
        let loss = logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0);
        loss.backward();
        assert_digest_named(&format!("{name} training logits"), "logits", &logits, &case.train_logits, 0.0, 1e-9);
        let loss = loss.double_value(&[]);
        assert_close(&format!("{name} loss"), loss, case.train_loss, case.train_loss, TOL);

        let _no_grad = no_grad_guard();
        let squares: f64 =
            vs.trainable_variables().iter().map(|t| t.grad().square().sum(Kind::Double).double_value(&[])).sum();
        assert_close(&format!("{name} gradient, l2"), squares.sqrt(), case.train_grad_l2, case.train_grad_l2, TOL);
        let variables = vs.variables();
        for (parameter, probe) in &case.train_grad_probe {
            let found = digest(parameter, &variables[parameter].grad()).probe;
            assert_close(&format!("{name} gradient of {parameter}, probe"), found, *probe, case.train_grad_l2, TOL);
        }
        for (statistic, probe) in &case.after_train_running {
            let found = digest(statistic, &variables[statistic]);
            let scale = found.l2 * (variables[statistic].numel() as f64 / 3.0).sqrt();
            assert_close(&format!("{name} {statistic}, probe"), found.probe, *probe, scale, TOL);
        }
    }
}
