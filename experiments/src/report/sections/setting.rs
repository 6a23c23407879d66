//! What was compared: data, networks, methods, training, surroundings.

use limbeck::experiment::{Experiment, MethodConfig, Precision, TrainConfig};
use limbeck::model::TapRef;
use limbeck::record::{Accuracy, Environment, Measure, Summary, TeacherRecord};
use serde::Serialize;

use crate::plan;
use crate::progress::plural;
use crate::report::Survey;
use crate::report::document::Block;
use crate::report::numbers::count;
use crate::report::study::Study;

use super::distinct;

/// What all studies have in common, then what is each one's own.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let settings: Vec<Vec<String>> = survey.studies.iter().map(|study| setting(survey, study)).collect();
    let common = |item: &&String| settings.iter().all(|items| items.contains(item));
    let shared: Vec<String> = settings.first().into_iter().flatten().filter(common).cloned().collect();
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
    let mut item = |name: &str, value: String| items.push(format!("{name}: {value}"));
    for data in distinct(study.summaries().map(|summary| data_set(experiment, summary))) {
        item("data set", data);
    }
    if survey.measure == Measure::MeanAveragePrecision {
        let loss = survey.measure.loss_in_words();
        item(
            "targets",
            format!(
                "sets of classes, trained by {loss}, measured by mean average precision (mAP): over the \
             classes that occur in the test split, not interpolated, samples of equal score ranked together"
            ),
        );
    }
    for teacher in &study.teachers {
        item(&format!("teacher `{}`", teacher.name), describe_teacher(teacher));
    }
    for student in distinct(study.summaries().map(describe_student)) {
        item("student", student);
    }
    for method in &study.methods {
        if let Ok(config) = experiment.method(&method.name) {
            item(&format!("method `{}`", method.name), describe_method(&config, survey.measure));
        }
    }
    let train = &experiment.train;
    let warmup = if train.warmup_epochs > 0.0 {
        format!(" after {} epochs of warm-up", train.warmup_epochs)
    } else {
        String::new()
    };
    item("training", format!("{}, batches of {}", plural(train.epochs, "epoch"), train.batch));
    item("learning rate", format!("{}, schedule {}{warmup}", train.learning_rate, settings(&*train.schedule)));
    item("optimiser", settings(&*train.optimizer));
    for (name, value) in refinements(train) {
        item(name, value);
    }
    let seeds: Vec<String> = experiment.compare.seeds.iter().map(u64::to_string).collect();
    item(if seeds.len() == 1 { "seed" } else { "seeds" }, seeds.join(", "));
    for one in environments(study) {
        item("surroundings", one);
    }
    items
}

fn environments(study: &Study) -> Vec<String> {
    distinct(study.summaries().map(|summary| environment(&summary.environment)))
}

/// What makes the runs of a study less comparable than they look.
fn remarks(study: &Study) -> Vec<String> {
    let mut remarks = Vec::new();
    let mut remark = |text: &str| remarks.push(text.to_owned());
    if environments(study).len() > 1 {
        remark("The runs were made in different surroundings: their last digits may differ for that reason alone.");
    }
    if distinct(study.teachers.iter().map(|teacher| &teacher.name)).len() < study.teachers.len() {
        remark(
            "The runs were taught by different weights of a teacher of the same name: they are not comparable as they stand.",
        );
    }
    if study.summaries().next().is_none() {
        remark("No run has ended yet.");
    }
    let sees_the_same = |name: &str| {
        let of_teacher = |summary: &Summary| {
            let teacher = summary.teachers.iter().find(|teacher| teacher.name == name)?;
            Some(teacher.view == summary.view)
        };
        study.summaries().find_map(of_teacher).unwrap_or(false)
    };
    let twins = plan::twins(&study.experiment, sees_the_same);
    remarks.extend(twins.into_iter().map(|twin| format!("Note that {}.", twin.message)));
    remarks
}

fn data_set(experiment: &Experiment, summary: &Summary) -> String {
    let [train, validation, test] = summary.samples.map(|samples| count(samples as i64));
    let held_out = if summary.samples[1] == 0 { "none".to_owned() } else { validation };
    let part = experiment.train_samples.map_or("", |_| " (a part of them, each class by its share)");
    format!(
        "{}, {train} training samples{part}, {held_out} held out for validation, {test} test samples",
        summary.dataset
    )
}

fn describe_teacher(teacher: &TeacherRecord) -> String {
    let measured = match teacher.test {
        Some(Accuracy::SingleLabel { top1, top5, .. }) => {
            format!("measured on the test split: {top1:.2} % top-1, {top5:.2} % top-5")
        }
        Some(Accuracy::MultiLabel { mean_average_precision, .. }) => {
            format!("measured on the test split: {mean_average_precision:.2} % mAP")
        }
        None if !teacher.members.is_empty() => "not measured, since not all of them can be".to_owned(),
        None => "known by its outputs on the training samples alone, without augmentation".to_owned(),
    };
    format!(
        "{} (view {}), {} parameters{}{}, {measured}",
        teacher.model,
        teacher.view,
        count(teacher.parameters),
        in_precision(teacher.precision),
        if teacher.folded { ", BatchNorm folded" } else { "" },
    )
}

fn describe_student(summary: &Summary) -> String {
    format!(
        "{} (view {}), {} parameters{}{}",
        summary.student,
        summary.view,
        count(summary.student_parameters),
        in_precision(summary.precision),
        if summary.averaged { "; what is evaluated is the moving average of its weights" } else { "" }
    )
}

/// Said only where it is not the default.
fn in_precision(precision: Precision) -> String {
    if precision.is_float32() { String::new() } else { format!(", in {}", precision.name()) }
}

/// What of the training is set beyond the usual.
fn refinements(train: &TrainConfig) -> Vec<(&'static str, String)> {
    let mut said = Vec::new();
    if train.accumulate > 1 {
        said.push(("updates", format!("one from the mean gradient of {} batches", train.accumulate)));
    }
    if let Some(norm) = train.clip_norm {
        said.push(("gradient", format!("scaled down to a norm of at most {norm}")));
    }
    if let Some(average) = train.average {
        said.push(("moving average", format!("decay {}", average.decay)));
    }
    if !train.rates.is_empty() {
        let factors: Vec<String> = train.rates.iter().map(|(group, factor)| format!("{group} × {factor}")).collect();
        said.push(("learning rates by group", factors.join(", ")));
    }
    if train.no_decay {
        said.push(("weight decay", "not of biases, norms and other parameters that the network names".to_owned()));
    }
    said
}

/// `0.1 cross-entropy + 0.9 kd (temperature = 4.0)`
fn describe_method(config: &MethodConfig, measure: Measure) -> String {
    let mut parts = Vec::new();
    if config.cross_entropy != 0.0 {
        parts.push(format!("{} {}", config.cross_entropy, measure.loss_in_words()));
    }
    for term in &config.terms {
        let teachers = term.teachers.as_ref().map(|names| format!(" of {}", names.join(", "))).unwrap_or_default();
        let schedule = term.schedule.as_ref().map(|schedule| format!(" {schedule}")).unwrap_or_default();
        let pair = |(student, teacher): &(TapRef, TapRef)| format!("{student} — {teacher}");
        let taps = term.taps.iter().map(|pairs| pairs.iter().map(pair).collect::<Vec<_>>().join(", "));
        let taps: String = taps.map(|pairs| format!(" at student — teacher {pairs}")).collect();
        parts.push(format!("{} {}{teachers}{schedule}{taps}", term.weight, settings(&*term.distiller)));
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
