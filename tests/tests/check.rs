//! `limbeck check`: every part on the CPU, and what it says where there is no GPU.

#![allow(clippy::unwrap_used)]

use std::process::ExitCode;

use limbeck::device::{DeviceSpec, cuda_devices};
use limbeck::registry::{Role, plugins_of};
use limbeck_cli::check::{self, Finding, Verdict};
use limbeck_tests::command::{run, stderr};

/// The findings of a part whose text has these words.
fn of<'r>(report: &'r check::Report, part: &str, words: &str) -> Vec<&'r Finding> {
    report.findings.iter().filter(|finding| finding.part == part && finding.text.contains(words)).collect()
}

fn difference(report: &check::Report, part: &str, words: &str) -> f64 {
    of(report, part, words)[0].numbers["difference"]
}

#[test]
fn the_cpu_passes_with_a_line_for_every_part() {
    tch::set_num_threads(1);
    let mut told = Vec::new();
    let report = check::run(DeviceSpec::Cpu, &mut |finding| told.push(finding.to_string())).unwrap();
    let text = told.join("\n");
    assert!(report.passed(), "{text}");
    assert_eq!(told, report.findings.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (part, words, count, verdict) in [
        ("networks", "25 networks in float64, logits and taps against the reference numbers", 1, Verdict::Ok),
        ("networks", "25 networks in float32, logits and taps against the CPU", 1, Verdict::Ok),
        ("losses", "kd and cross-entropy in float64", 1, Verdict::Ok),
        ("losses", "every other method in float64, losses and gradients", 1, Verdict::Ok),
        ("losses", "kdsvd in float64, gradients", 1, Verdict::Ok),
        ("losses", "crd in float64, losses, gradients and banks", 1, Verdict::Ok),
        ("cohort", "weights finite and moved", plugins_of(Role::Method).len(), Verdict::Ok),
        ("resume", "students stopped after 7 steps and resumed: the same bytes", 1, Verdict::Ok),
        ("precision", "in float32", 3, Verdict::Ok),
        ("precision", "teacher resnet32x4 in mixed", 1, Verdict::Ok),
        ("precision", "teacher resnet32x4 in bfloat16", 1, Verdict::Ok),
        ("precision", "student in mixed: losses of the first step", 1, Verdict::Ok),
        ("precision", "student in bfloat16: losses of the first step", 1, Verdict::Ok),
        ("speed", "ms a step over", 1, Verdict::Measured),
        ("speed", "ms by part", 1, Verdict::Measured),
        ("speed", "do not apply to the CPU", 1, Verdict::NotApplicable),
    ] {
        let found = of(&report, part, words);
        assert_eq!(found.len(), count, "{part}, {words}:\n{text}");
        assert!(found.iter().all(|finding| finding.verdict == verdict), "{text}");
    }
    // The CPU against itself: the same bits. Numbers of another origin and of sixteen bits: near, and not the same.
    assert_eq!(difference(&report, "networks", "float32"), 0.0);
    assert!((1e-17..1e-9).contains(&difference(&report, "networks", "float64")));
    assert!(of(&report, "cohort", "").iter().all(|finding| finding.numbers["final_difference"] == 0.0));
    for words in ["teacher resnet32x4 in bfloat16", "student in bfloat16", "student in mixed"] {
        assert!((1e-5..3e-2).contains(&difference(&report, "precision", words)), "{words}: {text}");
    }
    let step = of(&report, "speed", "ms a step over")[0].numbers["step_ms"];
    let parts: f64 = of(&report, "speed", "ms by part")[0].numbers.values().sum();
    assert!(step > 0.1 && parts > 0.1, "{step} ms a step, {parts} ms in parts");
}

#[test]
fn without_a_gpu_it_says_so_and_ends_with_1() {
    if cuda_devices() > 0 {
        eprintln!("SKIPPED: this host has a GPU, so that the words for a host without one are not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["check"]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let expected = "error: there is no GPU to check: device \"cuda:0\" is asked for and CUDA is not to be had: ";
    assert!(error.contains(expected), "{error}");
    assert!(error.contains("no NVIDIA driver") || error.contains("it finds no GPU"), "{error}");
}

#[test]
fn an_unknown_device_is_wrong_use() {
    let code = limbeck_cli::cli::main(["limbeck", "check", "--device", "gpu"].map(Into::into));
    assert_eq!(code, ExitCode::from(2));
}
