//! Losses, gradients and states of distillation methods against `golden/losses.json`, through the plugins as the
//! framework builds them.

#![allow(clippy::unwrap_used)]

use limbeck::prelude::*;
use limbeck_cli as _; // The built-in plugins.
use limbeck_golden::losses::golden;

const PRECISIONS: [(Kind, f64); 2] = [(Kind::Double, 1e-6), (Kind::Float, 1e-4)];

#[test]
fn soft_targets_and_cross_entropy() {
    for (kind, tol) in PRECISIONS {
        let mut compared = 0;
        for setting in golden().unwrap().losses {
            for (_, deviations) in setting.logits(kind, Device::Cpu).unwrap() {
                assert_eq!(deviations.len(), 4, "the loss; norm, sum and probe of the gradient");
                deviations.iter().for_each(|deviation| deviation.assert(tol));
                compared += 1;
            }
        }
        assert_eq!(compared, 6, "two losses in three settings");
    }
}

#[test]
fn contrastive_representation_distillation() {
    let sequences = golden().unwrap().crd;
    assert_eq!(sequences.len(), 1);
    for (kind, tol) in PRECISIONS {
        for sequence in &sequences {
            assert_eq!(sequence.steps.len(), 3);
            assert!(sequence.steps.iter().all(|step| step.param_grads.len() == 4));
            let deviations = sequence.compare(kind, Device::Cpu).unwrap();
            // A step has its loss, two normalisers, and five gradients of three numbers each; a bank four elements besides.
            assert_eq!(deviations.len(), 3 * (3 + 5 * 3) + 2 * (3 + 4));
            deviations.iter().for_each(|deviation| deviation.assert(tol));
        }
    }
}
