//! The report for programs: CSV with numbers in full precision and empty cells where there is no number. The first column of
//! every file is the experiment's name.

use limbeck::record::{Accuracy, EpochAccuracy};

use super::Survey;
use super::sections::{ablations, classes, evidence, likeness};
use super::statistics::Spread;
use super::study::{Run, Study};
use super::table::Table;

/// Every file that has rows.
pub fn files(survey: &Survey) -> impl Iterator<Item = (&'static str, Table)> {
    let files = [
        ("comparison.csv", comparison(survey)),
        ("teachers.csv", teachers(survey)),
        ("ablations.csv", by_setting(survey)),
        ("runs.csv", runs(survey)),
        ("curves.csv", curves(survey)),
        ("differences.csv", differences(survey)),
        ("ranks.csv", ranks(survey)),
        ("relative.csv", relative(survey)),
        ("similarity.csv", similarity(survey)),
        ("alignment.csv", alignment(survey)),
        ("correlations.csv", correlations(survey)),
        ("classes.csv", by_class(survey)),
    ];
    files.into_iter().filter(|(_, table)| !table.rows.is_empty())
}

/// What is in a file.
pub fn describe(name: &str) -> &'static str {
    match name {
        "comparison.csv" => "a row for each method",
        "teachers.csv" => "where there are several: every teacher, and all of them together",
        "ablations.csv" => "a row for each method at each value of a setting, the others held",
        "runs.csv" => "every run with its three accuracies, cost and surroundings",
        "curves.csv" => "every epoch of every run",
        "differences.csv" => "every method against the baseline: intervals and p-values",
        "ranks.csv" => "mean ranks over the experiments",
        "relative.csv" => "the relative improvement of every method over every other",
        "similarity.csv" => "every run beside every teacher",
        "alignment.csv" => "CKA of every pair of taps, mean over seeds",
        "correlations.csv" => "differences of the correlations of every two classes, mean over seeds",
        "classes.csv" => "accuracy by class, mean over seeds",
        _ => "",
    }
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn mean_and_deviation(spread: Option<Spread>) -> [String; 2] {
    [or_empty(spread.map(|spread| spread.mean)), or_empty(spread.and_then(|spread| spread.deviation))]
}

fn accuracy(value: Option<Accuracy>) -> [String; 3] {
    [or_empty(value.map(|a| a.top1)), or_empty(value.map(|a| a.top5)), or_empty(value.map(|a| a.loss))]
}

/// One row for each method.
fn comparison(survey: &Survey) -> Table {
    let choice = serde_json::to_value(survey.accuracy).ok().and_then(|name| name.as_str().map(str::to_owned));
    let choice = choice.unwrap_or_default();
    let mut table = Table::new([
        "experiment",
        "method",
        "accuracy",
        "seeds",
        "seeds_planned",
        "top1_mean",
        "top1_deviation",
        "top5_mean",
        "top5_deviation",
        "baseline",
        "difference_mean",
        "difference_deviation",
        "difference_seeds",
        "teacher",
        "teacher_difference",
        "published",
    ]);
    for study in &survey.studies {
        for method in &study.methods {
            let scratch = study.scratch().is_some_and(|scratch| scratch.name == method.name);
            let published = survey.published.of(study).and_then(|(_, pair)| pair.accuracy(&method.name, scratch));
            let mut row = vec![study.experiment.name.clone(), method.name.clone(), choice.clone()];
            row.extend([method.results.len().to_string(), method.runs.len().to_string()]);
            row.extend(mean_and_deviation(method.top1));
            row.extend(mean_and_deviation(method.top5));
            row.push(survey.baseline.clone());
            row.extend(mean_and_deviation(method.difference));
            row.push(or_empty(method.difference.map(|difference| difference.count)));
            row.push(study.best_teacher().map(|teacher| teacher.name.clone()).unwrap_or_default());
            row.extend([or_empty(study.to_teacher(method)), or_empty(published)]);
            table.row(row);
        }
    }
    table
}

/// One row for each teacher of an experiment with several, and one for all of its networks together.
fn teachers(survey: &Survey) -> Table {
    let mut table = Table::new(["experiment", "teacher", "model", "members", "top1", "top5", "loss"]);
    for study in survey.studies.iter().filter(|study| study.teachers.len() > 1) {
        let mut row = |name: String, model: &str, members: &[String], test: Option<Accuracy>| {
            let cells = [study.experiment.name.clone(), name, model.to_owned(), members.join(" ")];
            table.row(cells.into_iter().chain(accuracy(test)));
        };
        study.teachers.iter().for_each(|t| row(t.name.clone(), &t.model, &t.members, t.test));
        if let Some(ensemble) = study.ensemble() {
            row("ensemble".to_owned(), "mean_probabilities", &ensemble.teachers, Some(ensemble.test));
        }
    }
    table
}

/// One row for each method at each point of every panel.
fn by_setting(survey: &Survey) -> Table {
    let header = ["sweep", "axis", "value", "held", "method", "seeds", "top1_mean", "top1_deviation"];
    let mut table = Table::new(header);
    for axis in ablations::axes(survey) {
        for panel in &axis.panels {
            for (value, study) in &panel.points {
                for method in study.methods.iter().filter(|method| method.top1.is_some()) {
                    let mut row = vec![axis.sweep.to_owned(), axis.name.to_owned(), (*value).to_owned(), panel.held()];
                    row.extend([method.name.clone(), method.results.len().to_string()]);
                    row.extend(mean_and_deviation(method.top1));
                    table.row(row);
                }
            }
        }
    }
    table
}

/// One row for each method and experiment that can be compared with the baseline.
fn differences(survey: &Survey) -> Table {
    let mut table = Table::new([
        "experiment",
        "method",
        "baseline",
        "seeds",
        "difference_mean",
        "difference_deviation",
        "interval_half_width",
        "p_t_test",
        "p_sign_flips",
        "p_corrected",
        "claim",
    ]);
    for contrast in evidence::contrasts(survey) {
        let difference = contrast.difference;
        let mut row = vec![contrast.study.experiment.name.clone(), contrast.method.to_owned(), survey.baseline.clone()];
        row.push(difference.count.to_string());
        row.extend(mean_and_deviation(Some(difference)));
        row.extend([difference.half_width(), contrast.t_test, contrast.sign_flip, contrast.corrected].map(or_empty));
        row.push(contrast.verdict().to_owned());
        table.row(row);
    }
    table
}

/// One row for each method that has a result everywhere.
fn ranks(survey: &Survey) -> Table {
    let mut table = Table::new(["method", "mean_rank", "pairs", "friedman", "p_friedman", "critical_difference"]);
    if let Some((methods, ranking)) = evidence::ranking(survey) {
        for (name, rank) in methods.iter().zip(&ranking.mean_ranks) {
            let friedman = ranking.friedman;
            let mut row = vec![(*name).to_owned(), rank.to_string(), ranking.pairs.to_string()];
            row.extend([or_empty(friedman.map(|f| f.0)), or_empty(friedman.map(|f| f.1))]);
            row.push(ranking.critical_difference.to_string());
            table.row(row);
        }
    }
    table
}

/// One row for each method over each other.
fn relative(survey: &Survey) -> Table {
    let header = ["method", "over", "pairs", "mean_percent", "median_percent", "mean_gap", "near_zero_denominators"];
    let mut table = Table::new(header);
    let taught: Vec<&String> = survey.methods.iter().filter(|method| !evidence::is_alone(survey, method)).collect();
    for method in &taught {
        for other in taught.iter().filter(|other| *other != method) {
            let found = evidence::relative_improvement(&evidence::triples(survey, method, other));
            if !found.each.is_empty() {
                let mut row = vec![(*method).clone(), (*other).clone(), found.each.len().to_string()];
                row.extend([found.mean, found.median, found.gap].map(|value| value.to_string()));
                row.push(found.unstable.to_string());
                table.row(row);
            }
        }
    }
    table
}

/// One row for each run and teacher.
fn similarity(survey: &Survey) -> Table {
    let mut table = Table::new([
        "experiment",
        "method",
        "seed",
        "teacher",
        "agreement",
        "divergence",
        "calibration_error",
        "teacher_calibration_error",
        "correlation_difference",
    ]);
    for pairing in likeness::pairings(survey) {
        for (run, found) in &pairing.found {
            let mut row = of_run(pairing.study, run);
            row.push(pairing.teacher.name.clone());
            row.extend([found.agreement, found.divergence].map(|value| value.to_string()));
            row.push(or_empty(run.similarity.as_ref().map(|similarity| similarity.calibration_error)));
            row.extend([found.calibration_error, found.correlation_difference].map(|value| value.to_string()));
            table.row(row);
        }
    }
    table
}

/// One row for each method, teacher and pair of taps.
fn alignment(survey: &Survey) -> Table {
    let mut table = Table::new(["experiment", "method", "teacher", "student_tap", "teacher_tap", "cka"]);
    for pairing in likeness::pairings(survey) {
        for (tap, mean) in pairing.taps() {
            let mut row = vec![pairing.study.experiment.name.clone(), pairing.method.name.clone()];
            row.extend([pairing.teacher.name.clone(), tap.student.clone(), tap.teacher.clone(), or_empty(mean)]);
            table.row(row);
        }
    }
    table
}

/// One row for each method, teacher and two different classes.
fn correlations(survey: &Survey) -> Table {
    let mut table = Table::new(["experiment", "method", "teacher", "class", "other_class", "difference"]);
    for pairing in likeness::pairings(survey) {
        let (names, matrix) = (likeness::class_names(&pairing), pairing.correlations().unwrap_or_default());
        for (at, (name, row)) in names.iter().zip(&matrix).enumerate() {
            for (other, value) in names.iter().zip(row).skip(at + 1) {
                let mut cells = vec![pairing.study.experiment.name.clone(), pairing.method.name.clone()];
                cells.extend([pairing.teacher.name.clone(), name.clone(), other.clone(), value.to_string()]);
                table.row(cells);
            }
        }
    }
    table
}

/// One row for each method and class.
fn by_class(survey: &Survey) -> Table {
    let mut table = Table::new(["experiment", "method", "class", "top1"]);
    for (study, method, classes) in classes::all(survey) {
        for (class, top1) in classes {
            table.row([study.experiment.name.clone(), method.name.clone(), class, top1.to_string()]);
        }
    }
    table
}

/// The first cells of a run's row.
fn of_run(study: &Study, run: &Run) -> Vec<String> {
    vec![study.experiment.name.clone(), run.cell.method.clone(), run.cell.seed.to_string()]
}

/// One row for each run, those without a result too.
fn runs(survey: &Survey) -> Table {
    let mut table = Table::new([
        "experiment",
        "method",
        "seed",
        "status",
        "reason",
        "folder",
        "last_top1",
        "last_top5",
        "last_loss",
        "best_on_validation_epoch",
        "best_on_validation_top1",
        "best_on_validation_top5",
        "best_on_validation_loss",
        "best_on_test_epoch",
        "best_on_test_top1",
        "best_on_test_top5",
        "best_on_test_loss",
        "epochs",
        "student_parameters",
        "method_parameters",
        "seconds",
        "timed_steps",
        "data_seconds",
        "teacher_seconds",
        "student_seconds",
        "loss_seconds",
        "optimizer_seconds",
        "peak_memory_bytes",
        "lanes",
        "device",
        "device_name",
        "threads",
        "limbeck",
        "libtorch",
        "git",
    ]);
    for study in &survey.studies {
        study.runs().for_each(|run| table.row(run_row(study, run)));
    }
    table
}

fn run_row(study: &Study, run: &Run) -> Vec<String> {
    let best = |best: Option<EpochAccuracy>| {
        std::iter::once(or_empty(best.map(|b| b.epoch))).chain(accuracy(best.map(|b| b.test))).collect::<Vec<String>>()
    };
    let (accuracies, summary) = (run.accuracies.as_ref(), run.summary.as_ref());
    let mut row = of_run(study, run);
    row.extend([run.status.to_owned(), run.reason.clone()]);
    row.push(run.cell.folder.display().to_string());
    row.extend(accuracy(accuracies.map(|a| a.last)));
    row.extend(best(accuracies.and_then(|a| a.best_on_validation)));
    row.extend(best(accuracies.map(|a| a.best_on_test)));
    row.push(or_empty(summary.map(|s| s.epochs)));
    row.push(or_empty(summary.map(|s| s.student_parameters)));
    row.push(or_empty(summary.map(|s| s.method_parameters)));
    row.push(or_empty(summary.map(|s| s.seconds)));
    let timing = summary.map(|s| s.timing);
    row.push(or_empty(timing.map(|t| t.steps)));
    // Without a timed step the means mean nothing.
    let timing = timing.filter(|timing| timing.steps > 0);
    row.extend([
        or_empty(timing.map(|t| t.data)),
        or_empty(timing.map(|t| t.teacher)),
        or_empty(timing.map(|t| t.student)),
        or_empty(timing.map(|t| t.loss)),
        or_empty(timing.map(|t| t.optimizer)),
    ]);
    row.push(or_empty(summary.and_then(|s| s.peak_memory)));
    row.push(or_empty(summary.map(|s| s.lanes)));
    let environment = summary.map(|s| &s.environment);
    row.extend([
        or_empty(environment.map(|e| &e.device)),
        or_empty(environment.map(|e| &e.device_name)),
        or_empty(environment.map(|e| e.threads)),
        or_empty(environment.map(|e| &e.limbeck)),
        or_empty(environment.map(|e| &e.libtorch)),
        or_empty(environment.and_then(|e| e.git.as_ref())),
    ]);
    row
}

/// One row for each run and epoch; a column for every training metric that any run has.
fn curves(survey: &Survey) -> Table {
    let summaries = || survey.studies.iter().flat_map(|study| study.summaries().map(move |summary| (study, summary)));
    let mut metrics: Vec<&str> = Vec::new();
    for name in summaries().map(|(_, summary)| summary).flat_map(|s| &s.history).flat_map(|epoch| epoch.train.keys()) {
        if !metrics.contains(&name.as_str()) {
            metrics.push(name);
        }
    }
    let fixed = [
        "experiment",
        "method",
        "seed",
        "stage",
        "epoch",
        "step",
        "learning_rate",
        "seconds",
        "train_top1",
        "validation_top1",
        "validation_top5",
        "validation_loss",
        "test_top1",
        "test_top5",
        "test_loss",
    ];
    let named = metrics.iter().map(|name| format!("train.{name}"));
    let mut table = Table::new(fixed.into_iter().map(str::to_owned).chain(named));
    for (study, summary) in summaries() {
        for epoch in &summary.history {
            let mut row = vec![study.experiment.name.clone(), summary.method.clone(), summary.seed.to_string()];
            row.extend([
                epoch.stage.clone(),
                epoch.epoch.to_string(),
                epoch.step.to_string(),
                epoch.learning_rate.to_string(),
            ]);
            row.extend([epoch.seconds.to_string(), epoch.train_top1.to_string()]);
            row.extend(accuracy(epoch.validation));
            row.extend(accuracy(epoch.test));
            row.extend(metrics.iter().map(|name| or_empty(epoch.train.get(*name))));
            table.row(row);
        }
    }
    table
}
