//! The report for people: Markdown that reads well as plain text.

use std::fmt::Write as _;

use limbeck::experiment::{MethodConfig, Precision, TrainConfig};
use limbeck::record::{Accuracy, Environment, Summary, TeacherRecord, Timing};
use serde::Serialize;

use crate::progress::plural;

use super::statistics::Spread;
use super::table::{NONE, Table, bytes, count, duration, signed, signed_spread, spread};
use super::{ENOUGH_SEEDS, Method, Study};

/// Where in a metric's name the bound on the mutual information is found.
const MUTUAL_INFORMATION: &str = "mutual_information";

/// More epochs than this are thinned out in tables; all of them are in `curves.csv`.
const SHOWN_EPOCHS: usize = 12;

/// `report.md`
pub fn report(study: &Study, comparison: &str) -> String {
    let sections = [
        format!("# {}\n", study.experiment.name),
        format!("## What was compared\n\n{}", setting(study)),
        format!("## Comparison\n\n{comparison}"),
        without_result(study),
        cost(study),
        mutual_information(study),
        files(),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<String>>().join("\n")
}

/// The distinct values of something over all runs, in the order of the runs.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut seen, value| {
        if !seen.contains(&value) {
            seen.push(value);
        }
        seen
    })
}

fn setting(study: &Study) -> String {
    let experiment = &study.experiment;
    let mut text = String::new();
    let mut item = |name: &str, value: String| {
        let _ = writeln!(text, "- {name}: {value}");
    };
    for data in distinct(study.summaries().map(data_set)) {
        item("data set", data);
    }
    for teacher in &study.teachers {
        item(&format!("teacher `{}`", teacher.name), describe_teacher(teacher));
    }
    for student in distinct(study.summaries().map(describe_student)) {
        item("student", student);
    }
    for method in &study.methods {
        if let Ok(config) = experiment.method(&method.name) {
            item(&format!("method `{}`", method.name), describe_method(&config));
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
    let environments = distinct(study.summaries().map(|summary| environment(&summary.environment)));
    for one in &environments {
        item("surroundings", one.clone());
    }
    if environments.len() > 1 {
        text.push_str("\nThe runs were made in different surroundings (runs.csv has each run's): their last digits may differ for that reason alone.\n");
    }
    if distinct(study.teachers.iter().map(|teacher| &teacher.name)).len() < study.teachers.len() {
        text.push_str("\nThe runs were taught by different weights of a teacher of the same name: they are not comparable as they stand.\n");
    }
    if study.summaries().next().is_none() {
        text.push_str("\nNo run has ended yet.\n");
    }
    text
}

fn data_set(summary: &Summary) -> String {
    let [train, validation, test] = summary.samples.map(|samples| count(samples as i64));
    let held_out = if summary.samples[1] == 0 { "none".to_owned() } else { validation };
    format!("{}, {train} training samples, {held_out} held out for validation, {test} test samples", summary.dataset)
}

fn describe_teacher(teacher: &TeacherRecord) -> String {
    let measured = match teacher.test {
        Some(Accuracy { top1, top5, .. }) => {
            format!("measured on the test split: {top1:.2} % top-1, {top5:.2} % top-5")
        }
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
    said
}

/// `0.1 cross-entropy + 0.9 kd (temperature = 4.0)`
fn describe_method(config: &MethodConfig) -> String {
    let mut parts = Vec::new();
    if config.cross_entropy != 0.0 {
        parts.push(format!("{} cross-entropy", config.cross_entropy));
    }
    for term in &config.terms {
        let teachers = term.teachers.as_ref().map(|names| format!(" of {}", names.join(", "))).unwrap_or_default();
        let schedule = term.schedule.as_ref().map(|schedule| format!(" {schedule}")).unwrap_or_default();
        parts.push(format!("{} {}{teachers}{schedule}", term.weight, settings(&*term.distiller)));
    }
    parts.join(" + ")
}

fn environment(environment: &Environment) -> String {
    let Environment { limbeck, git, libtorch, device, device_name, threads } = environment;
    let git = git.as_ref().map(|commit| format!(" (commit {commit})")).unwrap_or_default();
    format!(
        "{device} ({device_name}), {}, limbeck {limbeck}{git}, libtorch {libtorch}",
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

/// The comparison table with what must be known to read it.
pub fn comparison(study: &Study) -> String {
    let baseline = &study.baseline;
    let mut text =
        format!("Shown: {}, in percent. The other recorded accuracies are in runs.csv.\n", study.accuracy.describe());
    let _ = writeln!(
        text,
        "Mean ± sample deviation (n − 1) over seeds; a single seed has no deviation. The difference to `{baseline}` is the mean\n\
         of the differences seed by seed ± their sample deviation; `pairs` is the number of seeds that both have.\n"
    );
    let highest = bold_value(study);
    let mut header: Vec<String> = ["method", "seeds", "top-1", "top-5"].map(str::to_owned).into();
    header.extend([format!("to {baseline}"), "pairs".to_owned()]);
    header.extend(study.best_teacher().map(|teacher| format!("to teacher {}", teacher.name)));
    let mut table = Table::new(header);
    for method in &study.methods {
        let best = highest.is_some() && method.top1.map(|top1| format!("{:.2}", top1.mean)) == highest;
        let bold = |cell: String| if best { format!("**{cell}**") } else { cell };
        let mut row =
            vec![bold(method.name.clone()), seeds_cell(method), bold(spread(method.top1)), spread(method.top5)];
        row.extend(if method.name == *baseline {
            ["baseline".to_owned(), NONE.to_owned()]
        } else {
            let pairs = method.difference.map_or_else(|| NONE.to_owned(), |difference| difference.count.to_string());
            [signed_spread(method.difference), pairs]
        });
        if study.best_teacher().is_some() {
            row.push(study.to_teacher(method).map_or_else(|| NONE.to_owned(), signed));
        }
        table.row(row);
    }
    text.push_str(&table.markdown());
    let notes = notes(study, highest.is_some());
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

/// `2`, or `1 of 2` where runs are missing.
fn seeds_cell(method: &Method) -> String {
    match (method.results.len(), method.runs.len()) {
        (done, planned) if done == planned => done.to_string(),
        (done, planned) => format!("{done} of {planned}"),
    }
}

/// The highest mean as it is shown, if there is more than one to choose from.
fn bold_value(study: &Study) -> Option<String> {
    let means: Vec<f64> = study.methods.iter().filter_map(|method| Some(method.top1?.mean)).collect();
    (means.len() > 1).then(|| means.into_iter().fold(f64::MIN, f64::max)).map(|highest| format!("{highest:.2}"))
}

/// What a reader must know before believing the table.
fn notes(study: &Study, has_best: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if has_best {
        notes.push(format!("Bold: the highest mean. {}", lead(study)).trim_end().to_owned());
    }
    let fewest = study.methods.iter().filter(|method| method.top1.is_some()).map(|method| method.results.len()).min();
    if let Some(fewest) = fewest.filter(|fewest| *fewest < ENOUGH_SEEDS && has_best) {
        notes.push(format!(
            "With {} the order of the methods is not established; {ENOUGH_SEEDS} or more are needed to say anything about it.",
            if fewest == 1 { "a single seed".to_owned() } else { plural(fewest as u64, "seed") }
        ));
    }
    let incomplete = study.methods.iter().any(|method| method.results.len() < method.runs.len());
    if incomplete {
        notes.push("Runs without a result are left out of the means; they are listed in report.md. Means over different seeds are not paired: compare by the differences.".to_owned());
    }
    let theirs = study.methods.iter().find(|method| method.name == study.baseline);
    if theirs.is_some_and(|method| method.top1.is_none()) && study.methods.iter().any(|method| method.top1.is_some()) {
        notes.push(format!("The baseline `{}` has no result, so there are no differences to it.", study.baseline));
    }
    if study.teachers.len() > 1
        && let Some(teacher) = study.best_teacher()
    {
        notes.push(format!("The difference to the teacher is to `{}`, the most accurate one.", teacher.name));
    }
    notes
}

/// How far the best method is ahead of the next, and whether that is more than the seeds scatter.
fn lead(study: &Study) -> String {
    let mut ranked: Vec<&Method> = study.methods.iter().filter(|method| method.top1.is_some()).collect();
    ranked.sort_by(|a, b| {
        let mean = |method: &Method| method.top1.map_or(f64::MIN, |top1| top1.mean);
        mean(b).total_cmp(&mean(a))
    });
    let [first, second, ..] = &ranked[..] else { return String::new() };
    let Some(lead) = Spread::of_differences(&first.top1s(), &second.top1s()) else { return String::new() };
    let verdict = match lead.deviation {
        Some(deviation) if lead.mean.abs() <= deviation => ": within the deviation, so their order is not established",
        _ => "",
    };
    format!(
        "The paired difference of `{}` to `{}`, the next, is {} over {}{verdict}.",
        first.name,
        second.name,
        signed_spread(Some(lead)),
        if lead.count == 1 { "one seed".to_owned() } else { format!("{} common seeds", lead.count) },
    )
}

fn without_result(study: &Study) -> String {
    let mut table = Table::new(["method", "seed", "status", "reason"]).left(4);
    let mut any = false;
    for run in study.runs().filter(|run| !run.reason.is_empty()) {
        any = true;
        table.row([run.cell.method.clone(), run.cell.seed.to_string(), run.status.to_owned(), run.reason.clone()]);
    }
    if any { format!("## Runs without a result\n\n{}", table.markdown()) } else { String::new() }
}

fn cost(study: &Study) -> String {
    let mut table = Table::new([
        "method",
        "inference",
        "training",
        "data",
        "teacher",
        "student",
        "loss",
        "optimiser",
        "step",
        "a run",
        "memory",
    ]);
    let (mut any, mut shared) = (false, 1);
    for method in &study.methods {
        let Some(first) = method.finished().next() else { continue };
        any = true;
        shared = shared.max(method.finished().map(|summary| summary.lanes).max().unwrap_or(1));
        let mean = |part: fn(&Timing) -> f64| {
            let timed = method.finished().map(|summary| &summary.timing).filter(|timing| timing.steps > 0);
            Spread::of(timed.map(part)).map_or_else(|| NONE.to_owned(), |seconds| format!("{:.1}", 1e3 * seconds.mean))
        };
        let seconds = Spread::of(method.finished().map(|summary| summary.seconds));
        let memory = method.finished().filter_map(|summary| summary.peak_memory).max();
        table.row([
            method.name.clone(),
            count(first.student_parameters),
            count(first.student_parameters + first.method_parameters),
            mean(|timing| timing.data),
            mean(|timing| timing.teacher),
            mean(|timing| timing.student),
            mean(|timing| timing.loss),
            mean(|timing| timing.optimizer),
            mean(Timing::total),
            seconds.map_or_else(|| NONE.to_owned(), |seconds| duration(seconds.mean)),
            memory.map_or_else(|| NONE.to_owned(), bytes),
        ]);
    }
    if !any {
        return String::new();
    }
    let mut text = String::from(
        "## Cost\n\n\
         Parameters left at inference and trained (the method's own included); milliseconds of a step, part by part, as means\n\
         over the timed steps; time of a run, mean over seeds; peak resident memory of the process.\n",
    );
    if shared > 1 {
        let _ = writeln!(
            text,
            "Up to {shared} runs were trained side by side: they shared data and teacher, whose milliseconds each row shows in\n\
             full, and the memory is that of all of them."
        );
    }
    text.push('\n');
    text.push_str(&table.markdown());
    text
}

/// The bound per epoch of every method that estimates it, as the mean over its seeds.
fn mutual_information(study: &Study) -> String {
    let main =
        |summary: &Summary| summary.history.iter().filter(|epoch| epoch.stage == "main").cloned().collect::<Vec<_>>();
    let histories: Vec<Vec<_>> = study.methods.iter().map(|method| method.finished().map(main).collect()).collect();
    let mut columns: Vec<(usize, &str)> = Vec::new();
    for (at, method) in histories.iter().enumerate() {
        for name in method.iter().flatten().flat_map(|epoch| epoch.train.keys()) {
            if name.contains(MUTUAL_INFORMATION) && !columns.contains(&(at, name)) {
                columns.push((at, name));
            }
        }
    }
    if columns.is_empty() {
        return String::new();
    }
    let last = histories.iter().flatten().flatten().map(|epoch| epoch.epoch).max().unwrap_or(0);
    let title = |(at, name): &(usize, &str)| format!("{}: {name}", study.methods[*at].name);
    let mut table = Table::new(std::iter::once("epoch".to_owned()).chain(columns.iter().map(title)));
    let shown = thinned(last);
    for epoch in &shown {
        let cell = |(at, name): &(usize, &str)| {
            let at_epoch = histories[*at].iter().flatten().filter(|record| record.epoch == *epoch);
            let values = at_epoch.filter_map(|record| record.train.get(*name).copied());
            Spread::of(values).map_or_else(|| NONE.to_owned(), |bound| format!("{:.3}", bound.mean))
        };
        table.row(std::iter::once(epoch.to_string()).chain(columns.iter().map(cell)));
    }
    let selection = if (shown.len() as u64) < last { " A selection of epochs; curves.csv has all." } else { "" };
    format!(
        "## Mutual information of teacher and student\n\n\
         The lower bound that the critic estimates, in nats, on training batches: mean over the epoch and over seeds.\n\
         It is vacuous where it is negative.{selection}\n\n{}",
        table.markdown()
    )
}

/// Epochs 1 to `last`, at most [`SHOWN_EPOCHS`] of them, evenly spread, the first and the last among them.
fn thinned(last: u64) -> Vec<u64> {
    let shown = SHOWN_EPOCHS as u64;
    if last <= shown { (1..=last).collect() } else { (0..shown).map(|i| 1 + i * (last - 1) / (shown - 1)).collect() }
}

fn files() -> String {
    "## Files\n\n\
     - comparison.csv: the comparison, in full precision\n\
     - runs.csv: every run with its three accuracies, cost and surroundings\n\
     - curves.csv: every epoch of every run\n"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_thinned_evenly() {
        assert_eq!(thinned(3), [1, 2, 3]);
        let shown = thinned(240);
        assert_eq!((shown.len(), shown.first(), shown.last()), (12, Some(&1), Some(&240)));
        assert_eq!(thinned(13), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]);
    }
}
