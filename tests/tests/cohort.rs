//! The promises of the cohort: the same bits alone or together, undisturbed or killed and resumed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use limbeck::cohort::{Limit, Stop};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::prelude::*;
use limbeck::record::Similarity;
use limbeck_cli::plan::Plan;
use limbeck_cli::{run, store};
use limbeck_datasets::Shapes;
use limbeck_tests::command::{self, limbeck, until};
use limbeck_tests::experiment::{compare, set, small};
use limbeck_tests::files::{below, entries};
use limbeck_tests::runs::{execute, plan, stops, students, timeless};
use tempfile::TempDir;

/// A small experiment on the embedded data: 5 steps an epoch, the last of them smaller, all built-in methods.
fn experiment(methods: &[&str]) -> String {
    const TABLES: &str = r#"
[train]
epochs = 3
batch = 64
learning_rate = 0.05
schedule = { kind = "cosine" }
checkpoint_steps = 2
log_steps = 2
[method.crd]
terms = [{ weight = 0.8, distiller = { kind = "crd", negatives = { kind = "other_class", count = 64 } } }]
[method."crd+kd"]
terms = [
  { weight = 1.0, distiller = { kind = "kd" } },
  { weight = 0.8, distiller = { kind = "crd", critic = { kind = "info_nce" }, negatives = { kind = "whole_bank" } } },
]
"#;
    let teacher =
        "teacher.big={ model = { kind = \"resnet14\" }, train = { epochs = 1, batch = 64, checkpoint_steps = 2 } }";
    let text = small("small", &format!("{TABLES}{}", compare(methods)));
    set(&text, &["validation=60", "dataset.train=340", "dataset.test=100", teacher])
}

const ALL: [&str; 4] = ["vanilla", "kd", "crd", "crd+kd"];

/// Plans and runs an experiment in a folder of its own.
fn undisturbed(text: &str) -> (TempDir, Plan) {
    let folder = TempDir::new().unwrap();
    let plan = plan(folder.path(), text, &[]).unwrap();
    execute(&plan, &mut ());
    (folder, plan)
}

/// What every student was found to have in common with the teachers: (method, JSON, matrices).
fn findings(plan: &Plan) -> Vec<(String, Similarity, Vec<u8>)> {
    let mut findings = Vec::new();
    for cell in &plan.cells {
        let similarity = store::read_json(&cell.folder.join("similarity.json")).unwrap();
        let matrices = fs::read(cell.folder.join("correlations.safetensors")).unwrap();
        findings.push((cell.method.clone(), similarity, matrices));
    }
    findings
}

/// That the students of two runs, and what was found of them, are the same.
fn assert_same(one: &Plan, other: &Plan) {
    assert!(findings(one) == findings(other), "the findings differ");
    for (one, other) in students(one).iter().zip(students(other)) {
        assert!(one.weights == other.weights, "{}: the student differs", one.method);
        let (one, other, method) = (&one.summary, &other.summary, &one.method);
        assert_eq!(timeless(&one.history), timeless(&other.history), "{method}");
        assert_eq!(one.accuracy, other.accuracy, "{method}");
    }
}

#[test]
fn a_lane_alone_and_in_a_cohort_of_four_gives_the_same_bytes() {
    let (_folder, together) = undisturbed(&experiment(&ALL));
    let students_together = students(&together);
    assert_eq!(students_together.len(), 4);
    let findings_together = findings(&together);
    for (student, (_, similarity, _)) in students_together.iter().zip(&findings_together) {
        // The accuracy by class is that of the last epoch, taken apart; every pair of five taps was compared.
        let method = &student.method;
        let right: usize = similarity.classes.iter().filter_map(|class| class.right).sum();
        assert_eq!(similarity.classes.iter().map(|class| class.samples).sum::<usize>(), 100);
        let score = student.summary.accuracy.as_ref().unwrap().last.score();
        assert_eq!(right as f64, score, "{method}: of 100 samples");
        let [teacher] = &similarity.teachers[..] else { panic!("{method}: {similarity:?}") };
        assert_eq!((teacher.name.as_str(), teacher.taps.len()), ("big", 25));
        assert!(teacher.taps.iter().all(|tap| tap.alignment.is_some_and(|cka| cka.abs() <= 1.0)), "{teacher:?}");
    }
    let folder = TempDir::new().unwrap();
    for (student, found) in students_together.iter().zip(&findings_together) {
        let (method, summary) = (student.method.as_str(), &student.summary);
        let plan = plan(folder.path(), &experiment(&[method]), &[]).unwrap();
        execute(&plan, &mut ());
        let alone = students(&plan).remove(0);
        assert!(student.weights == alone.weights, "{method}: the student differs");
        assert_eq!(timeless(&summary.history), timeless(&alone.summary.history), "{method}");
        assert_eq!(summary.accuracy, alone.summary.accuracy, "{method}");
        assert_eq!((summary.lanes, alone.summary.lanes), (4, 1));
        // Alone, the student that asks no teacher has none to be compared with.
        if method != "vanilla" {
            assert!(findings(&plan)[0] == *found, "{method}: it was found to be different");
        }
        assert_eq!(summary.samples, [280, 60, 100].into());
    }
    for pair in students_together.windows(2) {
        assert!(pair[0].weights != pair[1].weights, "{} and {} learned the same", pair[0].method, pair[1].method);
    }
}

#[test]
fn stopped_again_and_again_it_ends_with_the_same_bytes() {
    let text = experiment(&ALL);
    let (_folder, undisturbed) = undisturbed(&text);
    let folder = TempDir::new().unwrap();
    // The teacher takes 5 steps, the students 15: the teacher is half trained, then two steps of it and three of the
    // students; in the middle of an epoch, then at its end, then to the end.
    let limits = [Limit::Steps(3), Limit::Steps(5), Limit::Epochs(1), Limit::Steps(7), Limit::Steps(1000)];
    let mut stopped = Vec::new();
    for limit in limits {
        stopped.push(stops(&plan(folder.path(), &text, &[]).unwrap(), limit));
    }
    assert_eq!(stopped, [true, true, true, true, false]);
    assert_same(&undisturbed, &plan(folder.path(), &text, &[]).unwrap());
}

limbeck::plugin! {
    dataset "test_stopper": Stopper,
    summary: "the embedded data, which ask for a stop",
    citation: "",
}

/// The embedded data, which ask for a stop when they have given so many batches of the test part.
#[derive(Clone, Debug, Settings)]
struct Stopper {}

/// Who is to be stopped, and after how many batches.
static STOPPER: Mutex<Option<(Arc<Stop>, usize)>> = Mutex::new(None);

#[derive(Debug)]
struct Stopping(Box<dyn Dataset>);

#[typetag::serde(name = "test_stopper")]
impl DatasetConfig for Stopper {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(Stopping(Shapes { train: 340, test: 600, ..Shapes::default() }.build(device)?)))
    }
}

impl Dataset for Stopping {
    fn info(&self) -> &DatasetInfo {
        self.0.info()
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, draw: Option<Seed>) -> Result<Batch> {
        if let (Split::Test, Some((stop, left))) = (split, STOPPER.lock().unwrap().as_mut()) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                stop.request();
            }
        }
        self.0.batch(split, rows, views, draw)
    }
}

#[test]
fn stopped_in_evaluations_it_ends_with_the_same_bytes_and_the_same_log() {
    let values = ["dataset={ kind = \"test_stopper\" }", "probe.linear={}", "train.checkpoint_steps=3"];
    let text = set(&experiment(&ALL), &[&values[..], &["teacher.big.train.checkpoint_steps=3"]].concat());
    let (undisturbed_folder, undisturbed) = undisturbed(&text);
    let folder = TempDir::new().unwrap();
    // Three batches are an evaluation on the test part: of the teacher, its measurement, of the students after each epoch, and
    // their last look.
    let mut calls = 0;
    loop {
        let stop = Arc::new(Stop::default());
        *STOPPER.lock().unwrap() = Some((Arc::clone(&stop), 1 + calls % 5));
        let finished = run::execute(&plan(folder.path(), &text, &[]).unwrap(), &stop, &mut ()).unwrap();
        assert_eq!((finished.failed, finished.errors.len()), (vec![], 0));
        calls += 1;
        if !finished.stopped {
            break;
        }
        assert!(stop.is_requested() && calls < 60, "{calls} calls");
    }
    *STOPPER.lock().unwrap() = None;
    assert!(calls > 8, "{calls} calls");
    assert_same(&undisturbed, &plan(folder.path(), &text, &[]).unwrap());
    // A stop writes a checkpoint more.
    let [expected, resumed] = [&undisturbed_folder, &folder].map(|folder| {
        let mut logs = logs(folder.path());
        logs.values_mut().for_each(|log| log.retain(|line| !line.contains(" checkpoint ")));
        logs
    });
    assert_eq!((expected.len(), &expected), (5, &resumed));
}

/// The command in a process of its own.
fn command(folder: &Path) -> Command {
    let mut command = limbeck(folder, &["run", "small.toml"]);
    command.stdout(Stdio::null());
    command
}

/// How many checkpoints the logs in a folder speak of: how far a run has come, seen from outside.
fn checkpoints(folder: &Path) -> usize {
    let mut count = 0;
    for parent in ["runs/small/cells", "runs/teachers"] {
        for cell in entries(&folder.join(parent)) {
            let log = fs::read_to_string(cell.join("events.jsonl")).unwrap_or_default();
            count += log.matches("\"checkpoint\"").count();
        }
    }
    count
}

#[test]
fn killed_at_five_moments_and_resumed_it_ends_with_the_same_bytes() {
    let text = experiment(&ALL);
    let (undisturbed_folder, undisturbed) = undisturbed(&text);
    let killed = TempDir::new().unwrap();
    fs::write(killed.path().join("small.toml"), &text).unwrap();
    // Random moments, spread over the whole run: so many checkpoints seen, and then some milliseconds that fall anywhere.
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let mut rng = limbeck::seed::Seed::new(u64::from(seed)).rng();
    let mut kills = 0;
    for window in 0..5 {
        let (seen, delay) = (window * 5 + 1 + rng.below(4) as usize, rng.below(60));
        println!("seed {seed}: after {seen} checkpoints and {delay} ms");
        let start = SystemTime::now();
        let mut child = command(killed.path()).spawn().unwrap();
        until(&mut child, || checkpoints(killed.path()) >= seen);
        std::thread::sleep(Duration::from_millis(delay));
        kills += u64::from(kill(&mut child, killed.path(), start, window % 2 == 1));
        child.wait().unwrap();
    }
    assert_eq!(kills, 5, "the run ended before it could be killed");
    command::succeeds(killed.path(), &["run", "small.toml"]);
    assert_same(&undisturbed, &plan(killed.path(), &text, &[]).unwrap());
    let logs = logs(killed.path());
    assert_eq!((logs.len(), &logs), (5, &self::logs(undisturbed_folder.path())));
    // A second call has nothing to do.
    let before = checkpoints(killed.path());
    command::succeeds(killed.path(), &["run", "small.toml"]);
    assert_eq!(checkpoints(killed.path()), before);
}

/// How many kills the campaign takes.
const KILLS: &str = "LIMBECK_KILLS";

/// The name of a file below that was staged after `start`, and is written in part or not yet moved into its place.
fn half_written(folder: &Path, start: SystemTime) -> Option<String> {
    for path in below(folder) {
        let is_staged = path.extension().is_some_and(|extension| extension == "tmp");
        if is_staged && fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(|time| time >= start) {
            return Some(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    None
}

/// Kills a process, at once or as soon as it writes a file; returns whether it was still at work.
fn kill(child: &mut Child, folder: &Path, start: SystemTime, while_it_writes: bool) -> bool {
    while while_it_writes && child.try_wait().unwrap().is_none() && half_written(folder, start).is_none() {
        std::thread::sleep(Duration::from_micros(100));
    }
    let at_work = child.try_wait().unwrap().is_none();
    if at_work {
        child.kill().unwrap();
    }
    at_work
}

/// A folder with the experiment's file.
fn begin(text: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("small.toml"), text).unwrap();
    folder
}

/// Kills at moments that are spread evenly over the time of a process, every second time when it writes a file next,
/// resumes, and begins anew what is finished. `make campaign` runs it.
#[test]
#[ignore = "takes minutes: `make campaign`"]
fn killed_at_random_moments_it_always_ends_with_the_same_bytes() {
    let kills: u64 = std::env::var(KILLS).map_or(200, |text| text.parse().unwrap());
    // Ten steps, of the teacher and then the student; every one writes a checkpoint.
    let values = ["epochs=1", "checkpoint_steps=1"].map(|value| format!("train.{value}"));
    let teacher = ["teacher.big.model.kind=\"resnet8\"", "teacher.big.train.checkpoint_steps=1"];
    let text = set(&experiment(&["crd"]), &[&values[0], &values[1], teacher[0], teacher[1]]);
    let start = Instant::now();
    let folder = begin(&text);
    command::succeeds(folder.path(), &["run", "small.toml"]);
    let span = start.elapsed().as_millis() as u64;
    let expected = students(&plan(folder.path(), &text, &[]).unwrap()).remove(0).weights;
    let expected_logs = logs(folder.path());

    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let mut rng = limbeck::seed::Seed::new(u64::from(seed)).rng();
    println!("seed {seed}: {kills} kills, each within {span} ms of a start");
    let (mut done, mut finished, mut hits, mut folder) = (0, 0, Vec::new(), begin(&text));
    loop {
        let start = SystemTime::now();
        let mut child = command(folder.path()).spawn().unwrap();
        if done < kills {
            let end = Instant::now() + Duration::from_millis(rng.below(span));
            while Instant::now() < end && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            kill(&mut child, folder.path(), start, done % 2 == 1);
        }
        let output = child.wait_with_output().unwrap();
        if output.status.code().is_none() {
            done += 1;
            hits.extend(half_written(folder.path(), start));
        } else {
            assert!(output.status.success(), "{}", command::stderr(&output));
            let student = students(&plan(folder.path(), &text, &[]).unwrap()).remove(0);
            assert!(student.weights == expected, "after {done} kills the student differs");
            assert_eq!(logs(folder.path()), expected_logs, "after {done} kills");
            finished += 1;
            if done == kills {
                break;
            }
            folder = begin(&text);
        }
    }
    let checkpoints = hits.iter().filter(|name| name.starts_with("checkpoint")).count();
    println!(
        "{done} kills, {} of them left a half-written .tmp file, {checkpoints} times a checkpoint's; {finished} runs ended, all \
         with the same bytes and logs",
        hits.len()
    );
}

/// What the logs of teachers and students say, by folder: every step, epoch and checkpoint, and the end. A run that was
/// killed and resumed says the same, and where it went on.
fn logs(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut logs = BTreeMap::new();
    for parent in ["runs/small/cells", "runs/teachers"] {
        for folder in entries(&folder.join(parent)) {
            let Ok(text) = fs::read_to_string(folder.join("events.jsonl")) else { continue };
            let events = text.lines().filter_map(|line| in_words(serde_json::from_str(line).unwrap()));
            logs.insert(folder.file_name().unwrap().to_str().unwrap().to_owned(), events.collect());
        }
    }
    logs
}

fn in_words(event: Event) -> Option<String> {
    match event {
        Event::Resumed { .. } => None,
        Event::StageStarted { stage, .. } => Some(format!("{stage} starts")),
        Event::Step { stage, step, .. } => Some(format!("{stage} step {step}")),
        Event::Epoch(record) => Some(format!("{} epoch {} at {}", record.stage, record.epoch, record.step)),
        Event::Checkpoint { stage, step, .. } => Some(format!("{stage} checkpoint {step}")),
        Event::Warning { message } => Some(message),
        Event::Ended(outcome) => Some(format!("{outcome:?}")),
    }
}

/// Counts how often a teacher was trained.
#[derive(Default)]
struct Names(Vec<String>);

impl Observer for Names {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Event::Ended(_) = event {
            self.0.push(lane.name.clone());
        }
    }
}

#[test]
fn a_teacher_is_trained_once_and_a_changed_setting_trains_only_what_it_concerns() {
    let folder = TempDir::new().unwrap();
    let hotter = "method.kd={ terms = [{ weight = 0.9, distiller = { kind = \"kd\", temperature = 2.0 } }] }";
    for (values, trained) in [
        (&[][..], &["teacher big", "vanilla, seed 0", "kd, seed 0"][..]),
        (&[], &[]),
        (&["train.log_steps=3"], &[]),
        (&[hotter], &["kd, seed 0"]),
    ] {
        let mut names = Names::default();
        execute(&plan(folder.path(), &experiment(&["vanilla", "kd"]), values).unwrap(), &mut names);
        assert_eq!(names.0, trained, "{values:?}");
    }
}

#[test]
fn warm_up_validation_and_a_teacher_in_sixteen_bits() {
    let values =
        ["train.schedule={ kind = \"constant\" }", "train.warmup_epochs=2", "teacher.big.precision=\"bfloat16\""];
    let (folder, plan) = undisturbed(&set(&experiment(&["kd"]), &values));
    let summary = students(&plan).remove(0).summary;
    // Ten steps of warm-up in epochs of five, then the base rate.
    let rates: Vec<f64> = summary.history.iter().map(|record| record.learning_rate).collect();
    assert_eq!(rates, [0.025, 0.05, 0.05]);
    let accuracy = summary.accuracy.unwrap();
    let mut best = &summary.history[0];
    for record in &summary.history {
        if record.validation.unwrap().score() > best.validation.unwrap().score() {
            best = record;
        }
    }
    let chosen = accuracy.best_on_validation.unwrap();
    assert_eq!((chosen.epoch, Some(chosen.test)), (best.epoch, best.test));
    assert_eq!(Some(accuracy.last), summary.history[2].test);
    // The teacher is measured as it teaches: near its float32 self, and not the same.
    let teachers = entries(&folder.path().join("runs/teachers"));
    let trained = teachers.iter().find_map(|folder| store::summary(folder).ok().flatten()).unwrap();
    let (half, full) = (summary.teachers[0].test.unwrap().loss(), trained.accuracy.unwrap().last.loss());
    assert!(half != full && (half - full).abs() < 0.05 * full, "{half} in bfloat16, {full} in float32");
}
