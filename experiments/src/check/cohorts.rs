//! Every built-in method for a few steps, on the device and on the CPU, in one go and stopped half-way; and a student in
//! every precision.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use limbeck::cohort::{self, Limit, Stop};
use limbeck::error::{Error, Result};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::precision::Precision;
use limbeck::registry::{self, Role};
use limbeck::weights;
use limbeck::{checkpoint, config};
use tch::{Device, Kind, Tensor};

use super::bench::{Bench, largest, relative};
use super::finding::{Finding, Verdict};
use crate::plan::Plan;
use crate::run;
use crate::words::device_name;

/// Of a method's loss at the first step, where only the forward passes are compared.
const FIRST_LOSS: f64 = 1e-3;
/// The precisions of `[student]` beside float32, with the same for them: 10 bits of mantissa, and 7.
const PRECISIONS: [(Precision, f64); 3] =
    [(Precision::Tf32, 1e-2), (Precision::Mixed, 3e-2), (Precision::Bfloat16, 3e-2)];
/// The method whose student is trained in them.
const METHOD: &str = "kd";
/// The most that a method's own settings may ask for, to be short: negatives, and epochs of an initial stage.
const MOST: [(&str, i64); 2] = [("count", 64), ("epochs", 1)];
/// Two epochs of five steps.
const STEPS: u64 = 10;
/// In the middle of the second epoch.
const HALF_WAY: u64 = 7;
/// The experiment's name, and so its folder's.
const NAME: &str = "check";

type Tensors = IndexMap<String, Tensor>;

/// The experiment on `device`, every built-in method with settings made short.
fn experiment(bench: &Bench<'_>, device: Device) -> Result<String> {
    let (mut methods, mut names) = (toml::Table::new(), Vec::new());
    for plugin in registry::plugins_of(Role::Method) {
        let mut settings = toml::Value::Table(plugin.default_table()?);
        shorten(&mut settings);
        methods.insert(plugin.name.to_owned(), settings);
        names.push(plugin.name);
    }
    let methods = toml::to_string(&toml::Table::from_iter([("method".to_owned(), toml::Value::Table(methods))]))
        .map_err(|e| Error::run(format!("the methods' settings: {e}")))?;
    let teacher = teacher(bench)?;
    Ok(format!(
        r#"
format = 1
name = "{NAME}"
device = "{}"
threads = {}

[dataset]
kind = "shapes"
train = 160
test = 40

[teacher.big]
model = {{ kind = "resnet14" }}
weights = {teacher:?}

[student]
model = {{ kind = "resnet8" }}

[train]
epochs = 2
batch = 32
learning_rate = 0.05
schedule = {{ kind = "constant" }}
checkpoint_steps = 5
log_steps = 1
timing_steps = 0

[compare]
methods = {names:?}

{methods}"#,
        device_name(device),
        bench.threads,
    ))
}

/// Lowers every setting called like one of [`MOST`], or ending in `_` and that.
fn shorten(value: &mut toml::Value) {
    match value {
        toml::Value::Array(items) => items.iter_mut().for_each(shorten),
        toml::Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                let most = MOST.iter().find(|(name, _)| key == name || key.ends_with(&format!("_{name}")));
                match (value, most) {
                    (toml::Value::Integer(number), Some((_, most))) => *number = (*number).min(*most),
                    (value, _) => shorten(value),
                }
            }
        }
        _ => {}
    }
}

/// The weights of a teacher that knows nothing, the same for every device: its logits matter, not its accuracy.
fn teacher(bench: &Bench<'_>) -> Result<PathBuf> {
    let path = bench.folder.join("teacher.safetensors");
    if !path.exists() {
        let case = limbeck_golden::models::cases()?.into_iter().find(|case| case.model == "resnet14");
        let mut case = case.ok_or_else(|| Error::run("no resnet14 among the reference numbers"))?;
        case.classes = 20;
        weights::save(&path, &weights::variables(&case.network(Kind::Float, Device::Cpu)?.0), None)?;
    }
    Ok(path)
}

/// What a method left behind.
#[derive(Default)]
struct Student {
    /// The mean of each loss and metric at the first step of the main stage.
    first: IndexMap<String, f64>,
    /// The student's part of the checkpoint after the first epoch.
    early: Tensors,
    /// Its weights at the end.
    weights: Tensors,
    bytes: Vec<u8>,
}

/// Students by the name of their lane.
#[derive(Default)]
struct Students(IndexMap<String, Student>);

impl Observer for Students {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        let student = self.0.entry(lane.name.clone()).or_default();
        match event {
            Event::Step { stage, step: 1, train, .. } if stage == "main" => student.first = train.clone(),
            Event::Checkpoint { stage, path, .. } if stage == "main" && student.early.is_empty() => {
                // An unreadable checkpoint leaves nothing to compare, which is found below.
                student.early = weights::read(path).map(|file| file.tensors).unwrap_or_default();
            }
            _ => {}
        }
    }
}

/// Trains in `out`, up to a limit. Returns the students, and whether the limit was reached.
fn train(bench: &Bench<'_>, device: Device, out: &Path, limit: Option<Limit>) -> Result<(Students, bool)> {
    train_with(&[], bench, device, out, limit)
}

/// The same with values replaced.
fn train_with(
    overrides: &[String],
    bench: &Bench<'_>,
    device: Device,
    out: &Path,
    limit: Option<Limit>,
) -> Result<(Students, bool)> {
    let file = out.join("check.toml");
    let experiment = config::parse(&experiment(bench, device)?, &file, overrides)?;
    let plan = Plan::new(experiment, &file, out)?;
    let mut students = Students::default();
    let finished = run::execute(&plan, &Stop::new(limit), &mut students)?;
    if let Some(failed) = finished.failed.first() {
        return Err(Error::run(format!("on {}: {failed}", device_name(device))));
    }
    if !finished.stopped {
        for cell in &plan.cells {
            let student = students.0.entry(format!("{}, seed {}", cell.method, cell.seed)).or_default();
            let path = cell.folder.join(cohort::STUDENT);
            student.weights = weights::read(&path)?.tensors;
            student.bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        }
    }
    Ok((students, finished.stopped))
}

/// The largest relative difference of a tensor.
fn difference(a: &Tensors, b: &Tensors) -> Result<f64> {
    let mut most = 0.0;
    for (name, tensor) in a {
        let other = b.get(name).ok_or_else(|| Error::run(format!("no tensor `{name}` to compare with")))?;
        most = largest([most, relative(tensor, other)]);
    }
    Ok(most)
}

/// Ten steps of every built-in method.
pub(super) fn against_the_cpu(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let (cpu, _) = train(bench, Device::Cpu, &bench.folder.join("cpu"), None)?;
    let (here, _) = train(bench, bench.device, &bench.folder.join("device"), None)?;
    let mut findings = Vec::new();
    for (name, student) in &here.0 {
        let reference = cpu.0.get(name).ok_or_else(|| Error::run(format!("{name} was not trained on the CPU")))?;
        findings.push(compare("cohort", name, student, reference, FIRST_LOSS)?);
    }
    Ok(findings)
}

/// A student that computes in each precision against one in float32 on the CPU. Its weights stay float32.
pub(super) fn precisions(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    let reference = student_in(Precision::Float32, bench, Device::Cpu, "student")?;
    let mut findings = Vec::new();
    for (precision, tolerance) in PRECISIONS {
        if precision == Precision::Tf32 && bench.device == Device::Cpu {
            continue;
        }
        let finding = cohort::catch(|| {
            let name = format!("student in {}", precision.name());
            let own = student_in(precision, bench, bench.device, &format!("student-{}", precision.name()))?;
            if own.weights.values().any(|tensor| tensor.kind() != Kind::Float) {
                let text = format!("{name}: its weights are no longer float32");
                return Ok(Finding::new("precision", Verdict::Failed, text));
            }
            compare("precision", &name, &own, &reference, tolerance)
        });
        // One precision that this device refuses says nothing of the others.
        findings.push(finding.unwrap_or_else(|error| Finding::new("precision", Verdict::Failed, error.to_string())));
    }
    Ok(findings)
}

/// A student that computes in a precision.
fn student_in(precision: Precision, bench: &Bench<'_>, device: Device, folder: &str) -> Result<Student> {
    let overrides = [format!("compare.methods=['{METHOD}']"), format!("student.precision='{}'", precision.name())];
    let (students, _) = train_with(&overrides, bench, device, &bench.folder.join(folder), None)?;
    students.0.into_values().next().ok_or_else(|| Error::run("no student was trained"))
}

/// A student on the device against the float32 one on the CPU.
fn compare(part: &'static str, name: &str, student: &Student, cpu: &Student, tolerance: f64) -> Result<Finding> {
    if student.first.is_empty() || !student.first.keys().eq(cpu.first.keys()) {
        return Ok(Finding::new(part, Verdict::Failed, format!("{name}: its losses are not those of the CPU by name")));
    }
    let first = largest(student.first.iter().map(|(loss, value)| {
        let scale = cpu.first[loss].abs().max(1e-6);
        (value - cpu.first[loss]).abs() / scale
    }));
    let finite = student.weights.values().all(|tensor| tensor.isfinite().all().int64_value(&[]) == 1);
    let mut moved = false;
    for (name, tensor) in &student.weights {
        let early = student.early.get(&format!("student.{name}"));
        moved |= early.is_some_and(|early| relative(tensor, early) > 0.0);
    }
    let end = difference(&student.weights, &cpu.weights)?;
    let text = format!("{name}: losses of the first step against the CPU: at most");
    let mut finding = Finding::within(part, &text, first, tolerance).number("final_difference", end);
    let state = match (finite, moved) {
        (true, true) => "weights finite and moved",
        (true, false) => "weights have not moved",
        (false, _) => "weights not finite",
    };
    if !(finite && moved) {
        finding.verdict = Verdict::Failed;
    }
    finding.text += &format!("; {state}; after {STEPS} steps a tensor of the weights differs by at most {end:.1e}");
    Ok(finding)
}

/// The same cohort, stopped half-way and resumed, against the one in one go.
///
/// On the CPU every byte has to be the same. On CUDA that was not promised: what comes out is said.
pub(super) fn stopped_and_resumed(bench: &Bench<'_>) -> Result<Vec<Finding>> {
    // Nothing is left to train there: it only reads what `against_the_cpu` left.
    let (whole, _) = train(bench, bench.device, &bench.folder.join("device"), None)?;
    let out = bench.folder.join("resumed");
    let (_, stopped) = train(bench, bench.device, &out, Some(Limit::Steps(HALF_WAY)))?;
    let checkpoints = fs::read_dir(out.join(NAME).join("cells")).map_err(Error::io("read", &out))?;
    let begun = checkpoints.flatten().filter(|entry| entry.path().join(checkpoint::NEWEST).exists()).count();
    if !stopped || begun == 0 {
        return Ok(vec![Finding::new("resume", Verdict::Failed, "the cohort did not stop half-way with a checkpoint")]);
    }
    let (resumed, _) = train(bench, bench.device, &out, None)?;
    let (mut most, mut same) = (0.0, 0);
    for (name, student) in &whole.0 {
        let other = resumed.0.get(name).ok_or_else(|| Error::run(format!("{name} was not resumed")))?;
        most = largest([most, difference(&other.weights, &student.weights)?]);
        same += usize::from(student.bytes == other.bytes);
    }
    let n = whole.0.len();
    let verdict = match (bench.device, same == n) {
        (_, true) => Verdict::Ok,
        (Device::Cpu, false) => Verdict::Failed,
        _ => Verdict::Measured,
    };
    let bytes = if same == n { "the same bytes".to_owned() } else { format!("{same} of {n} with the same bytes") };
    let text = format!(
        "{n} students stopped after {HALF_WAY} steps and resumed: {bytes}; a tensor of the weights differs by at most {most:.1e}"
    );
    Ok(vec![Finding::new("resume", verdict, text).number("difference", most).number("same_bytes", same as f64)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_made_short_wherever_they_are() {
        let text = "terms = [{ distiller = { kind = 'a', init_epochs = 30, negatives = { count = 16384 } } }]\ncount = 3\ndiscount = 99";
        let mut settings = toml::Value::Table(text.parse().unwrap());
        shorten(&mut settings);
        let distiller = &settings["terms"][0]["distiller"];
        assert_eq!(distiller["init_epochs"].as_integer(), Some(1));
        assert_eq!(distiller["negatives"]["count"].as_integer(), Some(64));
        assert_eq!((settings["count"].as_integer(), settings["discount"].as_integer()), (Some(3), Some(99)));
    }
}
