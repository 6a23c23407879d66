//! The report for programs: CSV with numbers in full precision and empty cells where there is no number.

use limbeck::record::{Accuracy, EpochAccuracy};

use super::statistics::Spread;
use super::table::Table;
use super::{Run, Study};

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
pub fn comparison(study: &Study) -> String {
    let choice = serde_json::to_value(study.accuracy).ok().and_then(|name| name.as_str().map(str::to_owned));
    let choice = choice.unwrap_or_default();
    let mut table = Table::new([
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
    ]);
    for method in &study.methods {
        let mut row = vec![method.name.clone(), choice.clone()];
        row.extend([method.results.len().to_string(), method.runs.len().to_string()]);
        row.extend(mean_and_deviation(method.top1));
        row.extend(mean_and_deviation(method.top5));
        row.push(study.baseline.clone());
        row.extend(mean_and_deviation(method.difference));
        row.push(or_empty(method.difference.map(|difference| difference.count)));
        row.push(study.best_teacher().map(|teacher| teacher.name.clone()).unwrap_or_default());
        row.push(or_empty(study.to_teacher(method)));
        table.row(row);
    }
    table.csv()
}

/// One row for each run, those without a result too.
pub fn runs(study: &Study) -> String {
    let mut table = Table::new([
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
    for run in study.runs() {
        table.row(run_row(run));
    }
    table.csv()
}

fn run_row(run: &Run) -> Vec<String> {
    let best = |best: Option<EpochAccuracy>| {
        std::iter::once(or_empty(best.map(|b| b.epoch))).chain(accuracy(best.map(|b| b.test))).collect::<Vec<String>>()
    };
    let (accuracies, summary) = (run.accuracies.as_ref(), run.summary.as_ref());
    let mut row = vec![run.cell.method.clone(), run.cell.seed.to_string(), run.status.to_owned(), run.reason.clone()];
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
pub fn curves(study: &Study) -> String {
    let mut metrics: Vec<&str> = Vec::new();
    for name in study.summaries().flat_map(|s| &s.history).flat_map(|epoch| epoch.train.keys()) {
        if !metrics.contains(&name.as_str()) {
            metrics.push(name);
        }
    }
    let fixed = [
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
    for summary in study.summaries() {
        for epoch in &summary.history {
            let mut row = vec![summary.method.clone(), summary.seed.to_string(), epoch.stage.clone()];
            row.extend([epoch.epoch.to_string(), epoch.step.to_string(), epoch.learning_rate.to_string()]);
            row.extend([epoch.seconds.to_string(), epoch.train_top1.to_string()]);
            row.extend(accuracy(epoch.validation));
            row.extend(accuracy(epoch.test));
            row.extend(metrics.iter().map(|name| or_empty(epoch.train.get(*name))));
            table.row(row);
        }
    }
    table.csv()
}
