//! Networks and losses against reference numbers, and the precisions of a teacher.

use std::path::Path;

use limbeck::cohort::{self, Teacher};
use limbeck::error::{Error, Result};
use limbeck::experiment::Precision;
use limbeck::model::{Features, Mode, Taps};
use limbeck::weights;
use limbeck_golden::models::NetworkCase;
use limbeck_golden::{Deviation, losses, methods, models};
use tch::{Device, Kind, Tensor};

use super::bench::{Bench, largest, relative};
use super::finding::{Finding, Verdict};

/// Of logits and taps in float64, relative to their norm: that of the tests.
const NETWORKS: f64 = 1e-9;
/// Of losses and gradients in float64, relative to their size: that of the tests.
const LOSSES: f64 = 1e-6;
/// Of gradients of singular vectors, which are ill-conditioned.
const VECTORS: f64 = 1e-4;
/// Of float32 on the device and on the CPU. TF32 in the convolutions, 10 bits of mantissa, would not pass.
const FLOAT32: f64 = 1e-4;

/// The precisions of `[teacher.NAME]`, with the largest difference from float32 on the CPU, relative to the largest logit.
const PRECISIONS: [(Precision, f64); 4] =
    [(Precision::Float32, 1e-4), (Precision::Tf32, 1e-2), (Precision::Mixed, 3e-2), (Precision::Bfloat16, 3e-2)];
/// The network whose precisions are compared.
const TEACHER: &str = "resnet32x4";

fn worst(deviations: &[Deviation]) -> f64 {
    largest(deviations.iter().map(Deviation::relative))
}

/// Logits and taps of every network: float64 against the reference numbers, float32 against the CPU.
pub(super) fn networks(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let cases = models::cases()?;
    let (mut double, mut float) = (Vec::new(), Vec::new());
    for case in &cases {
        let (_store, model) = case.network(Kind::Double, bench.device)?;
        double.extend(case.evaluation(&*model, Kind::Double, bench.device)?);
        let ((here, taps), (cpu, _)) = (features(case, bench.device)?, features(case, Device::Cpu)?);
        float.push(relative(&here.logits, &cpu.logits));
        for tap in taps.iter() {
            float.push(relative(here.tap(tap)?, cpu.tap(tap)?));
        }
    }
    let n = cases.len();
    let text = format!("{n} networks in float64, logits and taps against the reference numbers: at most");
    let against_cpu = format!("{n} networks in float32, logits and taps against the CPU: at most");
    Ok(vec![
        Finding::within("networks", &text, worst(&double), NETWORKS),
        Finding::within("networks", &against_cpu, largest(float), FLOAT32),
    ])
}

/// Logits and all taps in float32.
fn features(case: &NetworkCase, device: Device) -> Result<(Features, Taps)> {
    let (_store, model) = case.network(Kind::Float, device)?;
    let taps = Taps::all(model.signature());
    let features = tch::no_grad(|| model.forward(&case.input(Kind::Float, device), &taps, Mode::Eval))?;
    Ok((features, taps))
}

/// A step of every method, and the sequence of CRD steps, in float64 against the reference numbers.
pub(super) fn losses(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let golden = losses::golden()?;
    let mut single = Vec::new();
    for setting in &golden.losses {
        single.extend(setting.logits(Kind::Double, bench.device)?.into_values().flatten());
    }
    let (mut steps, mut vectors, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for setting in methods::settings()? {
        for case in setting.of(&methods::METHODS) {
            let compared = match cohort::catch(|| setting.compare(case, Kind::Double, bench.device)) {
                Ok(compared) => compared,
                Err(error) => {
                    let text = format!("{} in float64: {error}", case.method);
                    failed.push(Finding::new("losses", Verdict::Failed, text));
                    continue;
                }
            };
            steps.extend(compared.losses);
            if case.method == "kdsvd" { &mut vectors } else { &mut steps }.extend(compared.gradients);
        }
    }
    let mut sequences = Vec::new();
    for sequence in &golden.crd {
        sequences.extend(sequence.compare(Kind::Double, bench.device)?);
    }
    let one = "kd and cross-entropy in float64, losses and gradients against the reference numbers: at most";
    let each = "every other method in float64, losses and gradients against the reference numbers: at most";
    let ill = "kdsvd in float64, gradients against the reference numbers: at most";
    let many = "crd in float64, losses, gradients and banks against the reference numbers: at most";
    failed.extend([
        Finding::within("losses", one, worst(&single), LOSSES),
        Finding::within("losses", each, worst(&steps), LOSSES),
        Finding::within("losses", ill, worst(&vectors), VECTORS),
        Finding::within("losses", many, worst(&sequences), LOSSES),
    ]);
    Ok(failed)
}

/// A teacher's logits in every precision against float32 on the CPU.
pub(super) fn precisions(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let cases = models::cases()?;
    let case = cases.iter().find(|case| case.model == TEACHER).ok_or_else(|| Error::run(format!("no {TEACHER}")))?;
    let path = bench.folder.join("precision.safetensors");
    weights::save(&path, &weights::variables(&case.network(Kind::Float, Device::Cpu)?.0), None)?;
    let reference = logits(case, &path, Precision::Float32, Device::Cpu)?;
    let size = reference.abs().max().double_value(&[]);
    let mut findings = Vec::new();
    for (precision, tolerance) in PRECISIONS {
        if precision == Precision::Tf32 && bench.device == Device::Cpu {
            continue;
        }
        findings.push(match cohort::catch(|| logits(case, &path, precision, bench.device)) {
            Ok(logits) => {
                let distance = (logits - &reference).abs() / size;
                let (mean, most) = (distance.mean(Kind::Double).double_value(&[]), distance.max().double_value(&[]));
                let text = format!(
                    "teacher {TEACHER} in {}, of the CPU's largest logit in float32: mean {mean:.1e}, at most",
                    precision.name()
                );
                Finding::within("precision", &text, most, tolerance).number("mean_difference", mean)
            }
            // One precision that this device refuses says nothing of the others.
            Err(error) => Finding::new("precision", Verdict::Failed, error.to_string()),
        });
    }
    Ok(findings)
}

/// The logits of a teacher with these weights, on the CPU.
fn logits(case: &NetworkCase, weights: &Path, precision: Precision, device: Device) -> Result<Tensor> {
    let mut teacher = Teacher::new("big", "image", &*case.config()?, &case.spec(), precision, false, device)?;
    teacher.load(weights)?;
    Ok(teacher.forward(&case.input(Kind::Float, device), &Taps::none())?.logits.to_device(Device::Cpu))
}
