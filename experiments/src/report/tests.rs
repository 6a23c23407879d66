//! Reports of hand-made runs. The texts are pinned: `report/tests/*.md`.

use indexmap::IndexMap;
use limbeck::precision::Precision;
use limbeck::record::{Accuracy, Environment, EpochAccuracy, EpochRecord, Timing};

use super::*;

const EXPERIMENT: &str = r#"
format = 1
name = "shapes-demo"
validation = 200
[dataset]
kind = "shapes"
[teacher.big]
model = { kind = "resnet56" }
weights = "big.safetensors"
[student]
model = { kind = "resnet8" }
[train]
epochs = 2
batch = 32
learning_rate = 0.1
warmup_epochs = 0.5
schedule = { kind = "cosine" }
optimizer = { kind = "sgd", momentum = 0.9, nesterov = true, weight_decay = 0.0005 }
[method.plain]
[method.soft]
cross_entropy = 0.5
[method.contrast]
[compare]
methods = ["plain", "soft", "contrast"]
seeds = [0, 1, 2]
"#;

fn accuracy(top1: f64) -> Accuracy {
    Accuracy { top1, top5: top1 + 20.0, loss: 1.5 }
}

fn summary(method: &str, seed: u64, last: f64) -> Summary {
    let epoch = |epoch: u64, top1: f64| {
        let mut train = IndexMap::from([("loss".to_owned(), 2.0 / epoch as f64), ("cross_entropy".to_owned(), 1.25)]);
        if method == "contrast" {
            train.insert("contrast.big.mutual_information".to_owned(), 3.0 + epoch as f64 + seed as f64);
        }
        EpochRecord {
            stage: "main".to_owned(),
            epoch,
            step: 100 * epoch,
            learning_rate: 0.05,
            train,
            train_top1: 55.5,
            validation: Some(accuracy(top1 - 1.0)),
            test: Some(accuracy(top1)),
            seconds: 30.5,
        }
    };
    let best = EpochAccuracy { epoch: 1, test: accuracy(last + 0.5) };
    Summary {
        format: SUMMARY_FORMAT,
        method: method.to_owned(),
        seed,
        dataset: "Shapes".to_owned(),
        samples: [3800, 200, 2000],
        student: "resnet8".to_owned(),
        precision: Precision::Float32,
        averaged: false,
        view: "image".to_owned(),
        teachers: vec![TeacherRecord {
            name: "big".to_owned(),
            model: "resnet56".to_owned(),
            view: "image".to_owned(),
            weights: "big.safetensors".into(),
            digest: "00ff".to_owned(),
            parameters: 855_770,
            precision: Precision::Float32,
            folded: false,
            test: Some(accuracy(72.0)),
        }],
        outcome: Outcome::Finished,
        accuracy: Some(Accuracies { last: accuracy(last), best_on_validation: Some(best), best_on_test: best }),
        epochs: 2,
        history: vec![epoch(1, last + 0.5), epoch(2, last)],
        student_parameters: 78_042,
        method_parameters: if method == "contrast" { 41_088 } else { 0 },
        timing: Timing { steps: 8, data: 0.001, teacher: 0.02, student: 0.03, loss: 0.0045, optimizer: 0.0005 },
        seconds: 61.0 + seed as f64,
        peak_memory: Some(900 << 20),
        lanes: 3,
        environment: Environment {
            limbeck: "0.1.0".to_owned(),
            git: Some("abc1234".to_owned()),
            libtorch: "2.11.0".to_owned(),
            device: "cpu".to_owned(),
            device_name: "Some CPU".to_owned(),
            threads: 2,
        },
    }
}

/// An experiment's folder with the given runs; cells are planned for all of `seeds`.
fn folder(experiment: &str, methods: &[&str], seeds: &[u64], summaries: &[Summary]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(store::EXPERIMENT), experiment).unwrap();
    let mut cells = Vec::new();
    for method in methods {
        for seed in seeds {
            cells.push(CellEntry {
                method: (*method).to_owned(),
                seed: *seed,
                folder: format!("cells/{method}-seed{seed}").into(),
            });
        }
    }
    store::write_json(&dir.path().join(store::PLAN), &PlanFile { format: 1, cells }).unwrap();
    for summary in summaries {
        let cell = dir.path().join(format!("cells/{}-seed{}", summary.method, summary.seed));
        fs::create_dir_all(&cell).unwrap();
        store::write_json(&cell.join(cohort::SUMMARY), summary).unwrap();
    }
    dir
}

const METHODS: [&str; 3] = ["plain", "soft", "contrast"];

fn complete() -> tempfile::TempDir {
    let top1 = [("plain", [60.0, 61.0, 62.0]), ("soft", [61.5, 61.5, 63.0]), ("contrast", [62.0, 62.0, 62.0])];
    let summaries: Vec<Summary> = top1
        .into_iter()
        .flat_map(|(method, values)| (0..).zip(values).map(move |(seed, value)| summary(method, seed, value)))
        .collect();
    folder(EXPERIMENT, &METHODS, &[0, 1, 2], &summaries)
}

fn written(dir: &Path, options: &Options) -> String {
    fs::read_to_string(write(dir, options).unwrap().path).unwrap()
}

/// Compares with a pinned text; `LIMBECK_PIN=1` writes it anew, to be read before it is committed.
fn pinned(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/tests").join(name);
    if std::env::var_os("LIMBECK_PIN").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "{name}");
}

#[test]
fn a_complete_comparison() {
    let dir = complete();
    pinned("complete.md", &written(dir.path(), &Options::default()));
    // Differences by hand: soft − plain = 1.5, 0.5, 1.0; contrast − plain = 2, 1, 0.
    let table = fs::read_to_string(dir.path().join("report/comparison.csv")).unwrap();
    assert_eq!(
        table.lines().collect::<Vec<_>>()[1..],
        [
            "plain,last,3,3,61,1,81,1,plain,,,,big,-11".to_owned(),
            format!("soft,last,3,3,62,{0},82,{0},plain,1,0.5,3,big,-10", 0.75f64.sqrt()),
            "contrast,last,3,3,62,0,82,0,plain,1,1,3,big,-10".to_owned(),
        ]
    );
}

#[test]
fn a_report_made_twice_is_the_same() {
    let dir = complete();
    let read = || {
        written(dir.path(), &Options::default());
        ["report.md", "comparison.csv", "runs.csv", "curves.csv"]
            .map(|name| fs::read(dir.path().join("report").join(name)).unwrap())
    };
    assert_eq!(read(), read());
}

#[test]
fn missing_failed_and_damaged_runs_are_listed() {
    let mut broken = summary("soft", 1, 0.0);
    broken.outcome = Outcome::Failed { reason: "loss is nan at step 120, term soft | kd".to_owned(), checkpoint: None };
    broken.accuracy = None;
    let mut later = summary("soft", 2, 60.0);
    later.format = 9;
    let summaries = [summary("plain", 0, 60.0), summary("plain", 1, 61.0), summary("soft", 0, 62.5), broken, later];
    let dir = folder(EXPERIMENT, &METHODS[..2], &[0, 1, 2], &summaries);
    pinned("incomplete.md", &written(dir.path(), &Options::default()));
    let runs = fs::read_to_string(dir.path().join("report/runs.csv")).unwrap();
    assert_eq!(runs.lines().count(), 1 + 9);
    assert!(runs.contains("soft,1,failed,\"loss is nan at step 120, term soft | kd\",cells/soft-seed1,,,,"), "{runs}");
    let columns = runs.lines().next().unwrap().split(',').count();
    assert!(runs.lines().filter(|line| !line.contains('"')).all(|line| line.split(',').count() == columns), "{runs}");
    // A failed run's epochs are in the curves.
    let curves = fs::read_to_string(dir.path().join("report/curves.csv")).unwrap();
    assert_eq!(curves.lines().filter(|line| line.starts_with("soft,1,main,")).count(), 2);
}

#[test]
fn one_seed_has_no_deviation_and_establishes_nothing() {
    let experiment = EXPERIMENT.replace("seeds = [0, 1, 2]", "seeds = [0]");
    let summaries =
        [("plain", 60.0), ("soft", 61.25), ("contrast", 61.25)].map(|(method, top1)| summary(method, 0, top1));
    let dir = folder(&experiment, &METHODS, &[0], &summaries);
    pinned("one-seed.md", &written(dir.path(), &Options::default()));
}

#[test]
fn nothing_has_run_yet() {
    let dir = folder(EXPERIMENT, &METHODS, &[0, 1, 2], &[]);
    let text = written(dir.path(), &Options::default());
    assert!(text.contains("\nNo run has ended yet.\n"), "{text}");
    assert!(!text.contains("Bold"), "{text}");
    assert_eq!(text.matches("| missing | it has not ended; run the experiment again and it goes on |").count(), 9);
}

#[test]
fn curves_have_every_metric_of_every_run() {
    let dir = complete();
    written(dir.path(), &Options::default());
    let curves = fs::read_to_string(dir.path().join("report/curves.csv")).unwrap();
    let lines: Vec<&str> = curves.lines().collect();
    assert_eq!(lines.len(), 1 + 9 * 2);
    assert_eq!(
        lines[0],
        "method,seed,stage,epoch,step,learning_rate,seconds,train_top1,validation_top1,validation_top5,validation_loss,\
         test_top1,test_top5,test_loss,train.loss,train.cross_entropy,train.contrast.big.mutual_information"
    );
    assert_eq!(lines[1], "plain,0,main,1,100,0.05,30.5,55.5,59.5,79.5,1.5,60.5,80.5,1.5,2,1.25,");
    assert_eq!(lines[18], "contrast,2,main,2,200,0.05,30.5,55.5,61,81,1.5,62,82,1.5,1,1.25,7");
}

#[test]
fn options_override_the_experiment() {
    let dir = complete();
    let options = Options { baseline: Some("soft".to_owned()), accuracy: Some(AccuracyChoice::BestOnTest) };
    let text = written(dir.path(), &options);
    assert!(
        text.contains("Shown: best test accuracy of any epoch (chosen on the test set, hence optimistic), in percent."),
        "{text}"
    );
    assert!(text.contains(" |      to soft | pairs | to teacher big |"), "{text}");
    assert!(
        text.contains("| plain        |     3 |     61.50 ± 1.00 | 81.50 ± 1.00 | -1.00 ± 0.50 |     3 |"),
        "{text}"
    );

    let wrong = |baseline: &str| {
        let options = Options { baseline: Some(baseline.to_owned()), accuracy: None };
        write(dir.path(), &options).unwrap_err()
    };
    assert!(wrong("sofd").is_usage());
    assert_eq!(
        wrong("sofd").to_string(),
        "the baseline `sofd` is not among the methods of this experiment: did you mean `soft`?"
    );
    assert_eq!(
        wrong("something").to_string(),
        "the baseline `something` is not among the methods of this experiment: it compares plain, soft, contrast"
    );
}

#[test]
fn best_on_validation_needs_a_validation_split() {
    let dir = folder(&EXPERIMENT.replace("validation = 200", ""), &METHODS, &[0, 1, 2], &[]);
    let options = Options { accuracy: Some(AccuracyChoice::BestOnValidation), ..Options::default() };
    assert_eq!(
        write(dir.path(), &options).unwrap_err().to_string(),
        "the accuracy best_on_validation needs samples that were held out, and this experiment has `validation = 0`"
    );
}

#[test]
fn a_folder_without_an_experiment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = write(dir.path(), &Options::default()).unwrap_err();
    assert!(error.is_usage());
    assert!(error.to_string().ends_with("give the folder that `limbeck run` wrote, runs/NAME"), "{error}");
    assert!(!dir.path().join("report").exists());
}
