//! The report for programs: CSV with numbers in full precision and empty cells where there is no number. The first column is
//! the experiment's name where rows are of one experiment, and the sweep's in `ablations.csv`; `ranks.csv` and `relative.csv`
//! are of all experiments together.

use limbeck::record::{Accuracy, EpochAccuracy, Measure, ProbedNetwork};

use super::Survey;
use super::sections::{ablations, classes, evidence, likeness};
use super::statistics::Spread;
use super::study::{Run, Study};
use super::table::Table;

/// Every file that has rows.
pub fn files(survey: &Survey) -> impl Iterator<Item = (&'static str, Table)> {
    all(survey).into_iter().filter(|(_, table)| !table.rows.is_empty())
}

/// Every file, those without rows too.
pub fn all(survey: &Survey) -> Vec<(&'static str, Table)> {
    vec![
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
        ("probes.csv", probes(survey)),
    ]
}

/// What is in a file.
pub fn describe(measure: Measure, name: &str) -> &'static str {
    match name {
        "comparison.csv" => "a row for each method",
        "teachers.csv" => "where there are several: every teacher that was asked, and all of them together",
        "ablations.csv" => "a row for each method at each value of a setting, the others held",
        "runs.csv" => {
            "every run with its three results, cost and surroundings; a step is the sum of its parts, `*_seconds`"
        }
        "curves.csv" => "every epoch of every run; curves are means over seeds, bands their deviation",
        "differences.csv" => "every method against the baseline: intervals and p-values",
        "ranks.csv" => "mean ranks over the experiments",
        "relative.csv" => "the relative improvement of every method over every other",
        "similarity.csv" => "every run beside every teacher",
        "alignment.csv" => "CKA of every pair of taps, mean over seeds",
        "correlations.csv" => "differences of the correlations of every two classes, mean over seeds",
        "classes.csv" if measure == Measure::MeanAveragePrecision => "average precision by class, mean over seeds",
        "classes.csv" => "accuracy by class, mean over seeds",
        "probes.csv" => "every linear classifier on a frozen network",
        _ => "",
    }
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn mean_and_deviation(spread: Option<Spread>) -> [String; 2] {
    [or_empty(spread.map(|spread| spread.mean)), or_empty(spread.and_then(|spread| spread.deviation))]
}

/// The columns of an accuracy: its numbers under their own names, behind a prefix.
fn columns(measure: Measure, prefix: &str) -> Vec<String> {
    let names: &[&str] = match measure {
        Measure::Top1 => &["top1", "top5", "loss"],
        Measure::MeanAveragePrecision => &["mean_average_precision", "binary_cross_entropy"],
    };
    names.iter().map(|name| format!("{prefix}_{name}")).collect()
}

/// The cells of those columns.
fn accuracy(measure: Measure, value: Option<Accuracy>) -> Vec<String> {
    match value {
        Some(value) => value.named().map(|(_, number)| number.to_string()).collect(),
        None => vec![String::new(); columns(measure, "").len()],
    }
}

/// One row for each method.
fn comparison(survey: &Survey) -> Table {
    let choice = serde_json::to_value(survey.accuracy).ok().and_then(|name| name.as_str().map(str::to_owned));
    let choice = choice.unwrap_or_default();
    let is_single = survey.measure == Measure::Top1;
    let key = survey.measure.key();
    let mut header: Vec<String> =
        ["experiment", "method", "accuracy", "seeds", "seeds_planned"].map(str::to_owned).into();
    header.extend([format!("{key}_mean"), format!("{key}_deviation")]);
    header.extend(["top5_mean", "top5_deviation"].map(str::to_owned).into_iter().filter(|_| is_single));
    header.extend(["baseline", "difference_mean", "difference_deviation", "difference_seeds"].map(str::to_owned));
    header.extend(["teacher", "teacher_difference", "published"].map(str::to_owned));
    let mut table = Table::new(header);
    for study in &survey.studies {
        for method in &study.methods {
            let published = survey.published.accuracy(study, &method.name);
            let mut row = vec![study.experiment.name.clone(), method.name.clone(), choice.clone()];
            row.extend([method.results.len().to_string(), method.runs.len().to_string()]);
            row.extend(mean_and_deviation(method.score));
            row.extend(mean_and_deviation(method.top5).into_iter().filter(|_| is_single));
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
    let mut table = Table::new(
        ["experiment", "teacher", "model", "members"]
            .map(str::to_owned)
            .into_iter()
            .chain(columns(survey.measure, "test")),
    );
    for study in survey.studies.iter().filter(|study| study.teachers.len() > 1) {
        let mut row = |name: String, model: &str, members: &[String], test: Option<Accuracy>| {
            let cells = [study.experiment.name.clone(), name, model.to_owned(), members.join(" ")];
            table.row(cells.into_iter().chain(accuracy(survey.measure, test)));
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
    let key = survey.measure.key();
    let spread = [format!("{key}_mean"), format!("{key}_deviation")];
    let header = ["sweep", "axis", "value", "held", "method", "seeds"].map(str::to_owned);
    let mut table = Table::new(header.into_iter().chain(spread));
    for axis in ablations::axes(survey) {
        for panel in &axis.panels {
            for (value, study) in &panel.points {
                for method in study.methods.iter().filter(|method| method.score.is_some()) {
                    let mut row = vec![axis.sweep.to_owned(), axis.name.to_owned(), (*value).to_owned(), panel.held()];
                    row.extend([method.name.clone(), method.results.len().to_string()]);
                    row.extend(mean_and_deviation(method.score));
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
    let header =
        ["method", "over", "pairs", "ratios", "mean_percent", "median_percent", "mean_gap", "near_zero_denominators"];
    let mut table = Table::new(header);
    let taught: Vec<&String> = survey.methods.iter().filter(|method| !evidence::is_alone(survey, method)).collect();
    for method in &taught {
        for other in taught.iter().filter(|other| *other != method) {
            let found = evidence::relative_improvement(&evidence::triples(survey, method, other));
            if !found.each.is_empty() {
                let counts = [found.pairs, found.each.len()].map(|count| count.to_string());
                let mut row: Vec<String> = [(*method).clone(), (*other).clone()].into_iter().chain(counts).collect();
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
            let own = run.similarity.as_ref().and_then(|similarity| similarity.calibration_error);
            row.extend([found.agreement, found.divergence, own, found.calibration_error].map(or_empty));
            row.push(found.correlation_difference.to_string());
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
    let column = match survey.measure {
        Measure::Top1 => "top1",
        Measure::MeanAveragePrecision => "average_precision",
    };
    let mut table = Table::new(["experiment", "method", "class", column]);
    for (study, method, classes) in classes::all(survey) {
        for (class, share) in classes {
            table.row([study.experiment.name.clone(), method.name.clone(), class, share.to_string()]);
        }
    }
    table
}

/// One row for each classifier on a frozen network, those without a result too.
fn probes(survey: &Survey) -> Table {
    let mut table = Table::new([
        "experiment",
        "probe",
        "network",
        "name",
        "seed",
        "model",
        "view",
        "tap",
        "features",
        "dataset",
        "classes",
        "train_samples",
        "test_samples",
        "epochs",
        "measure",
        "score",
        "top5",
        "test_loss",
        "train_loss",
        "score_of_random_backbone",
        "seconds",
    ]);
    for (study, run) in survey.studies.iter().flat_map(|study| study.probes.iter().map(move |run| (study, run))) {
        let (kind, name) = match &run.entry.network {
            ProbedNetwork::Student { method } => ("student", method.as_str()),
            ProbedNetwork::Teacher { name } => ("teacher", name.as_str()),
            ProbedNetwork::Untrained => ("untrained", ""),
        };
        let record = run.record.as_ref();
        let test = record.map(|record| record.test);
        let mut row = [&study.experiment.name, &run.entry.probe, kind, name].map(str::to_owned).to_vec();
        row.push(run.entry.seed.to_string());
        row.extend([or_empty(record.map(|r| &r.model)), or_empty(record.map(|r| &r.view))]);
        row.extend([or_empty(record.map(|r| &r.tap)), or_empty(record.map(|r| r.features))]);
        row.extend([or_empty(record.map(|r| &r.dataset)), or_empty(record.map(|r| r.classes))]);
        row.extend([or_empty(record.map(|r| r.samples[0])), or_empty(record.map(|r| r.samples[1]))]);
        row.extend([or_empty(record.map(|r| r.epochs)), or_empty(test.map(|test| test.measure().key()))]);
        row.extend([or_empty(test.map(|test| test.score())), or_empty(test.and_then(|test| test.top5()))]);
        row.extend([or_empty(test.map(|test| test.loss())), or_empty(record.map(|r| r.train_loss))]);
        row.push(or_empty(
            study.untrained(&run.entry.probe).iter().find(|(s, _)| *s == run.entry.seed).map(|(_, v)| v),
        ));
        row.push(or_empty(record.map(|r| r.seconds)));
        table.row(row);
    }
    table
}

/// The first cells of a run's row.
fn of_run(study: &Study, run: &Run) -> Vec<String> {
    vec![study.experiment.name.clone(), run.cell.method.clone(), run.cell.seed.to_string()]
}

/// One row for each run, those without a result too.
fn runs(survey: &Survey) -> Table {
    let mut header: Vec<String> =
        ["experiment", "method", "seed", "status", "reason", "folder"].map(str::to_owned).into();
    header.extend(columns(survey.measure, "last"));
    for best in ["best_on_validation", "best_on_test"] {
        header.push(format!("{best}_epoch"));
        header.extend(columns(survey.measure, best));
    }
    let others = [
        "epochs",
        "student_parameters",
        "student_multiply_adds",
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
    ];
    header.extend(others.map(str::to_owned));
    let mut table = Table::new(header);
    for study in &survey.studies {
        study.runs().for_each(|run| table.row(run_row(survey.measure, study, run)));
    }
    table
}

fn run_row(measure: Measure, study: &Study, run: &Run) -> Vec<String> {
    let best = |best: Option<EpochAccuracy>| {
        let numbers = accuracy(measure, best.map(|b| b.test));
        std::iter::once(or_empty(best.map(|b| b.epoch))).chain(numbers).collect::<Vec<String>>()
    };
    let (accuracies, summary) = (run.accuracies.as_ref(), run.summary.as_ref());
    let mut row = of_run(study, run);
    row.extend([run.status.to_owned(), run.reason.clone()]);
    row.push(run.cell.folder.display().to_string());
    row.extend(accuracy(measure, accuracies.map(|a| a.last)));
    row.extend(best(accuracies.and_then(|a| a.best_on_validation)));
    row.extend(best(accuracies.map(|a| a.best_on_test)));
    row.push(or_empty(summary.map(|s| s.epochs)));
    row.push(or_empty(summary.map(|s| s.student_parameters)));
    row.push(or_empty(summary.and_then(|s| s.student_multiply_adds)));
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
    let measure = survey.measure;
    let of_run = ["experiment", "method", "seed", "stage", "epoch", "step", "learning_rate", "seconds"];
    let mut header: Vec<String> = of_run.map(str::to_owned).into();
    header.extend((measure == Measure::Top1).then(|| "train_top1".to_owned()));
    header.extend(["validation", "test"].iter().flat_map(|part| columns(measure, part)));
    header.extend(metrics.iter().map(|name| format!("train.{name}")));
    let mut table = Table::new(header);
    for (study, summary) in summaries() {
        for epoch in &summary.history {
            let mut row = vec![study.experiment.name.clone(), summary.method.clone(), summary.seed.to_string()];
            row.extend([
                epoch.stage.clone(),
                epoch.epoch.to_string(),
                epoch.step.to_string(),
                epoch.learning_rate.to_string(),
            ]);
            row.push(epoch.seconds.to_string());
            row.extend((measure == Measure::Top1).then(|| or_empty(epoch.train_top1)));
            row.extend(accuracy(measure, epoch.validation));
            row.extend(accuracy(measure, epoch.test));
            row.extend(metrics.iter().map(|name| or_empty(epoch.train.get(*name))));
            table.row(row);
        }
    }
    table
}
