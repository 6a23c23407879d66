//! Every method of features and logits against `golden/losses.json`, `modern.json` and `recent.json`: loss, parts, and
//! gradients with respect to the student's features and the method's own parameters.

#![allow(clippy::unwrap_used)]

use limbeck::prelude::*;
use limbeck_cli as _; // The built-in plugins.
use limbeck_golden::methods::{Compared, METHODS, settings};

/// Compares every case of these methods, in float64 and float32; `cases` of them.
fn compare(methods: &[&str], cases: usize) {
    assert!(methods.iter().all(|method| METHODS.contains(method)), "the command's own check has them too: {methods:?}");
    let mut compared = 0;
    for setting in settings().unwrap() {
        for case in setting.of(methods) {
            for (kind, tol) in [(Kind::Double, 1e-6), (Kind::Float, 1e-4)] {
                let Compared { losses, gradients } = setting.compare(case, kind, Device::Cpu).unwrap();
                losses.iter().for_each(|deviation| deviation.assert(tol));
                // Gradients of singular vectors are ill-conditioned: they are compared to 1e-4, in float64 alone.
                let gradient = match (case.method.as_str(), kind) {
                    ("kdsvd", Kind::Float) => continue,
                    ("kdsvd", _) => 1e-4,
                    _ => tol,
                };
                gradients.iter().for_each(|deviation| deviation.assert(gradient));
            }
            compared += 1;
        }
    }
    assert_eq!(compared, cases, "{methods:?}");
}

#[test]
fn methods_of_maps() {
    compare(&["fitnet", "at", "nst", "vid"], 4 * 3);
}

#[test]
fn methods_with_an_initial_stage() {
    compare(&["ab", "ft_paraphraser", "ft", "fsp"], 4 * 3);
}

#[test]
fn singular_vectors() {
    compare(&["kdsvd"], 3);
}

#[test]
fn methods_of_relations() {
    compare(&["sp", "cc", "rkd", "pkt"], 4 * 3);
}

#[test]
fn methods_of_logits() {
    compare(&["dkd", "dist", "lskd"], 3);
}

#[test]
fn recent_methods() {
    compare(&["nkd", "wsld", "ttm", "ickd", "itrd"], 2 * (2 + 1 + 2 + 1 + 2));
}
