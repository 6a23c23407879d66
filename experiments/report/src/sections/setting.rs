//! What was compared: data, networks, methods, training, surroundings.

use indexmap::IndexSet;
use limbeck::experiment::{Experiment, MethodConfig, Precision, TrainConfig};
use limbeck::record::{Environment, Summary, TeacherRecord};
use limbeck::task::Task;
use serde::Serialize;

use crate::document::Block;
use crate::study::Study;
use crate::survey::Survey;
use crate::twins::twins;
use crate::words::{plural, thousands};

/// What all studies have in common, then what is each one's own.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let settings: Vec<Vec<String>> = survey.studies.iter().map(|study| setting(survey, study)).collect();
    let mut shared: Vec<String> = settings.first().cloned().unwrap_or_default();
    shared.retain(|item| settings.iter().all(|items| items.contains(item)));
    let mut blocks = Vec::new();
    if !shared.is_empty() {
        blocks.push(Block::List(shared.clone()));
    }
    for (study, items) in survey.studies.iter().zip(settings) {
        let own: Vec<String> = items.into_iter().filter(|item| !shared.contains(item)).collect();
        if !own.is_empty() {
            blocks.push(Block::Heading(study.label.clone()));
            blocks.push(Block::List(own));
        }
        blocks.extend(remarks(study).into_iter().map(Block::Text));
    }
    blocks
}

fn setting(survey: &Survey, study: &Study) -> Vec<String> {
    let experiment = &study.experiment;
    let mut items = Vec::new();
    let data_sets: IndexSet<String> = study.summaries().map(|summary| data_set(experiment, summary)).collect();
    items.extend(data_sets.into_iter().map(|data| format!("data set: {data}")));
    if !survey.task.is_usual() {
        items.push(describe_task(survey.task));
    }
    for teacher in &study.teachers {
        items.push(format!("teacher `{}`: {}", teacher.name, describe_teacher(teacher)));
    }
    let students: IndexSet<String> = study.summaries().map(describe_student).collect();
    items.extend(students.into_iter().map(|student| format!("student: {student}")));
    for method in &study.methods {
        if let Ok(config) = experiment.method(&method.name) {
            items.push(format!("method `{}`: {}", method.name, describe_method(&config, survey.task)));
        }
    }
    let train = &experiment.train;
    let warmup = if train.warmup_epochs > 0.0 {
        format!(" after {} epochs of warm-up", train.warmup_epochs)
    } else {
        String::new()
    };
    items.push(format!("training: {}, batches of {}", plural(train.epochs, "epoch"), train.batch));
    let schedule = settings(&*train.schedule);
    items.push(format!("learning rate: {}, schedule {schedule}{warmup}", train.learning_rate));
    items.push(format!("optimiser: {}", settings(&*train.optimizer)));
    items.extend(refinements(train));
    let seeds: Vec<String> = experiment.compare.seeds.iter().map(u64::to_string).collect();
    items.push(format!("{}: {}", if seeds.len() == 1 { "seed" } else { "seeds" }, seeds.join(", ")));
    items.extend(environments(study).into_iter().map(|environment| format!("surroundings: {environment}")));
    items
}

fn environments(study: &Study) -> IndexSet<String> {
    study.summaries().map(|summary| environment(&summary.environment)).collect()
}

/// What makes the runs of a study less comparable than they look.
fn remarks(study: &Study) -> Vec<String> {
    let mut remarks = Vec::new();
    if environments(study).len() > 1 {
        remarks.push(
            "The runs were made in different surroundings: their last digits may differ for that reason alone."
                .to_owned(),
        );
    }
    let names: IndexSet<&String> = study.teachers.iter().map(|teacher| &teacher.name).collect();
    if names.len() < study.teachers.len() {
        remarks.push(
            "The runs were taught by different weights of a teacher of the same name: they are not comparable as they stand."
                .to_owned(),
        );
    }
    if study.summaries().next().is_none() {
        remarks.push("No run has ended yet.".to_owned());
    }
    for twin in twins(&study.experiment, |teacher| sees_the_same(study, teacher)) {
        remarks.push(format!("Note that {}.", twin.message));
    }
    remarks
}

/// Whether a teacher and the student have one view.
fn sees_the_same(study: &Study, teacher: &str) -> bool {
    for summary in study.summaries() {
        if let Some(found) = summary.teachers.iter().find(|found| found.name == teacher) {
            return found.view == summary.view;
        }
    }
    false
}

fn data_set(experiment: &Experiment, summary: &Summary) -> String {
    let [train, validation, test] = <[usize; 3]>::from(summary.samples).map(|samples| thousands(samples as i64));
    let held_out = if summary.samples.validation == 0 { "none".to_owned() } else { validation };
    let part = experiment.train_samples.map_or("", |_| " (a part of them, each class by its share)");
    format!(
        "{}, {train} training samples{part}, {held_out} held out for validation, {test} test samples",
        summary.dataset
    )
}

/// What the targets are, and how networks are trained and measured by them.
fn describe_task(task: &dyn Task) -> String {
    let score = task.score();
    let (targets, loss, measure) = (task.targets(), task.split_loss().name, score.full());
    let definition = if score.definition.is_empty() { String::new() } else { format!(": {}", score.definition) };
    format!("targets: {targets}, trained by {loss}, measured by {measure}{definition}")
}

fn describe_teacher(teacher: &TeacherRecord) -> String {
    let measured = match teacher.test {
        Some(test) => format!("measured on the test split: {}", test.in_words()),
        None if !teacher.members.is_empty() => "not measured, since not all of them can be".to_owned(),
        None => "known by its outputs on the training samples alone, without augmentation".to_owned(),
    };
    format!(
        "{} (view {}), {} parameters{}{}, {measured}",
        teacher.model,
        teacher.view,
        thousands(teacher.parameters),
        in_precision(teacher.precision),
        if teacher.folded { ", BatchNorm folded" } else { "" },
    )
}

fn describe_student(summary: &Summary) -> String {
    format!(
        "{} (view {}), {} parameters{}{}",
        summary.student,
        summary.view,
        thousands(summary.student_parameters),
        in_precision(summary.precision),
        if summary.averaged { "; what is evaluated is the moving average of its weights" } else { "" }
    )
}

/// Said only where it is not the default.
fn in_precision(precision: Precision) -> String {
    if precision.is_float32() { String::new() } else { format!(", in {}", precision.name()) }
}

/// What of the training is set beyond the usual.
fn refinements(train: &TrainConfig) -> Vec<String> {
    let mut items = Vec::new();
    if train.accumulate > 1 {
        items.push(format!("updates: one from the mean gradient of {} batches", train.accumulate));
    }
    if let Some(norm) = train.clip_norm {
        items.push(format!("gradient: scaled down to a norm of at most {norm}"));
    }
    if let Some(average) = train.average {
        items.push(format!("moving average: decay {}", average.decay));
    }
    if !train.rates.is_empty() {
        let factors: Vec<String> = train.rates.iter().map(|(group, factor)| format!("{group} × {factor}")).collect();
        items.push(format!("learning rates by group: {}", factors.join(", ")));
    }
    if train.no_decay {
        items.push("weight decay: not of biases, norms and other parameters that the network names".to_owned());
    }
    items
}

/// `0.1 cross-entropy + 0.9 kd (temperature = 4.0)`
fn describe_method(config: &MethodConfig, task: &dyn Task) -> String {
    let mut parts = Vec::new();
    if config.cross_entropy != 0.0 {
        parts.push(format!("{} {}", config.cross_entropy, task.split_loss().name));
    }
    for term in &config.terms {
        let mut part = format!("{} {}", term.weight, settings(&*term.distiller));
        if let Some(names) = &term.teachers {
            part += &format!(" of {}", names.join(", "));
        }
        if let Some(schedule) = &term.schedule {
            part += &format!(" {schedule}");
        }
        if let Some(taps) = &term.taps {
            let pairs: Vec<String> = taps.iter().map(|(student, teacher)| format!("{student} — {teacher}")).collect();
            part += &format!(" at student — teacher {}", pairs.join(", "));
        }
        parts.push(part);
    }
    parts.join(" + ")
}

fn environment(environment: &Environment) -> String {
    let Environment { limbeck, git, libtorch, device, device_name, threads } = environment;
    let git = git.as_ref().map(|commit| format!(", started in sources at commit {commit}")).unwrap_or_default();
    format!(
        "{device} ({device_name}), {}, limbeck {limbeck}, libtorch {libtorch}{git}",
        plural(*threads as u64, "thread")
    )
}

/// A plugin's configuration in a line: `sgd (momentum = 0.9, nesterov = false)`.
fn settings<T: Serialize + ?Sized>(plugin: &T) -> String {
    let Ok(toml::Value::Table(mut table)) = toml::Value::try_from(plugin) else { return "?".to_owned() };
    let kind = table.remove("kind").and_then(|kind| kind.as_str().map(str::to_owned)).unwrap_or_default();
    if table.is_empty() {
        return kind;
    }
    let pairs: Vec<String> = table.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{kind} ({})", pairs.join(", "))
}
