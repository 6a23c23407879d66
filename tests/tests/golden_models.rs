//! The networks against the reference numbers of `golden/models.json`, computed by the original implementations.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use limbeck::prelude::*;
use limbeck::weights;
use limbeck_cli as _; // The built-in plugins.
use limbeck_golden::models::NetworkCase;
use limbeck_golden::{assert_close, assert_digest_named, digest, labels};
use tch::{Reduction, no_grad_guard};

fn cases() -> Vec<NetworkCase> {
    limbeck_golden::models::cases().unwrap()
}

/// The network with the reference's parameters.
fn network(case: &NetworkCase, kind: Kind) -> (nn::VarStore, Box<dyn Model>) {
    // Tests run beside each other: more threads than cores would only wait for one another.
    tch::set_num_threads(1);
    case.network(kind, Device::Cpu).unwrap()
}

/// Asserts logits and every tap of an evaluation pass.
fn check_evaluation(case: &NetworkCase, kind: Kind, tol: f64) {
    let (_vs, model) = network(case, kind);
    let deviations = case.evaluation(model.as_ref(), kind, Device::Cpu).unwrap();
    // Norm, sum, probe and four elements, of the logits and of every feature with and without its activation.
    assert_eq!(deviations.len(), 7 * (1 + 2 * case.eval_features.len()), "{}", case.model);
    deviations.iter().for_each(|deviation| deviation.assert(tol));
}

#[test]
fn every_network_of_the_benchmark_is_there() {
    let names: Vec<String> = cases().into_iter().map(|case| case.model).collect();
    let expected = "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 resnet8x4 resnet32x4 ResNet50 wrn_16_1 \
                    wrn_16_2 wrn_40_1 wrn_40_2 vgg8 vgg11 vgg13 vgg16 vgg19 MobileNetV2 ShuffleV1 ShuffleV2 resnet18 \
                    resnet34 resnet50";
    assert_eq!(names.join(" "), expected);
}

fn sizes(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Vec<(String, Vec<i64>)> {
    tensors.into_iter().map(|(name, tensor)| (name, tensor.size())).collect()
}

/// In order, in the network and in its file.
#[test]
fn state_names_shapes_and_parameter_counts_are_pytorchs() {
    for case in cases() {
        let vs = nn::VarStore::new(Device::Cpu);
        case.config().unwrap().build(&vs.root(), &case.spec()).unwrap();
        let state = weights::variables(&vs);
        let bytes = weights::to_bytes(&state, None).unwrap();
        assert_eq!(sizes(state), case.state, "{}", case.model);
        let file = weights::from_bytes(&bytes, Path::new("student.safetensors")).unwrap().tensors;
        assert_eq!(sizes(file), case.state, "the file of {}", case.model);
        let parameters = vs.trainable_variables().iter().map(|t| t.numel() as i64).sum::<i64>();
        assert_eq!(parameters, case.trainable_params, "{}", case.model);
    }
}

#[test]
fn logits_taps_and_pre_activations_in_float64() {
    for case in cases() {
        check_evaluation(&case, Kind::Double, 1e-9);
    }
}

#[test]
fn logits_taps_and_pre_activations_in_float32() {
    for case in cases() {
        check_evaluation(&case, Kind::Float, 1e-3);
    }
}

#[test]
fn loss_gradients_and_running_statistics_of_a_training_step_in_float64() {
    const TOL: f64 = 1e-6;
    for case in cases() {
        let name = &case.model;
        let (vs, model) = network(&case, Kind::Double);
        // An evaluation pass before it must change nothing.
        model.forward(&case.input(Kind::Double, Device::Cpu), &Taps::none(), Mode::Eval).unwrap();
        let logits = model.forward(&case.input(Kind::Double, Device::Cpu), &Taps::none(), Mode::Train).unwrap().logits;
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
