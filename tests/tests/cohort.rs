//! The promises of the cohort: the same bits alone or together, undisturbed or killed and resumed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use limbeck::cohort::{Limit, Stop};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::prelude::*;
use limbeck::record::{EpochRecord, Similarity, Summary};
use limbeck_cli::plan::Plan;
use limbeck_cli::{run, store};
use limbeck_datasets::Shapes;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// A small experiment on the embedded data: 5 steps an epoch, the last of them smaller, all built-in methods.
fn experiment(methods: &str) -> String {
    format!(
        r#"
format = 1
name = "small"
device = "cpu"
threads = 1
validation = 60

[dataset]
kind = "shapes"
train = 340
test = 100

[teacher.big]
model = {{ kind = "resnet14" }}
[teacher.big.train]
epochs = 1
batch = 64
checkpoint_steps = 2

[student]
model = {{ kind = "resnet8" }}

[train]
epochs = 3
batch = 64
learning_rate = 0.05
schedule = {{ kind = "cosine" }}
checkpoint_steps = 2
log_steps = 2

[method.crd]
terms = [{{ weight = 0.8, distiller = {{ kind = "crd", negatives = {{ kind = "other_class", count = 64 }} }} }}]

[method."crd+kd"]
terms = [
  {{ weight = 1.0, distiller = {{ kind = "kd" }} }},
  {{ weight = 0.8, distiller = {{ kind = "crd", critic = {{ kind = "info_nce" }}, negatives = {{ kind = "whole_bank" }} }} }},
]

[compare]
methods = [{methods}]
"#
    )
}

const ALL: &str = r#""vanilla", "kd", "crd", "crd+kd""#;

fn execute(text: &str, out: &Path, observer: &mut dyn Observer) -> run::Finished {
    let experiment = limbeck::config::parse(text, Path::new("small.toml"), &[]).unwrap();
    let plan = Plan::new(experiment, Path::new("small.toml"), out).unwrap();
    run::execute(&plan, &Stop::default(), observer).unwrap()
}

/// Every student of an experiment: (method, weights, summary).
fn students(out: &Path) -> Vec<(String, Vec<u8>, Summary)> {
    let folder = out.join("small");
    let plan: store::PlanFile = store::read_json(&folder.join(store::PLAN)).unwrap();
    let read = |cell: &store::CellEntry| {
        let folder = folder.join(&cell.folder);
        let weights = fs::read(folder.join("student.safetensors")).unwrap();
        (cell.method.clone(), weights, store::summary(&folder).unwrap().unwrap())
    };
    plan.cells.iter().map(read).collect()
}

/// What every student was found to have in common with the teachers: (method, JSON, matrices).
fn findings(out: &Path) -> Vec<(String, Similarity, Vec<u8>)> {
    let folder = out.join("small");
    let plan: store::PlanFile = store::read_json(&folder.join(store::PLAN)).unwrap();
    let read = |cell: &store::CellEntry| {
        let folder = folder.join(&cell.folder);
        let similarity = store::read_json(&folder.join("similarity.json")).unwrap();
        (cell.method.clone(), similarity, fs::read(folder.join("correlations.safetensors")).unwrap())
    };
    plan.cells.iter().map(read).collect()
}

/// What of a history must not depend on the clock.
fn timeless(history: &[EpochRecord]) -> Vec<EpochRecord> {
    history.iter().map(|record| EpochRecord { seconds: 0.0, ..record.clone() }).collect()
}

#[test]
fn a_lane_alone_and_in_a_cohort_of_four_gives_the_same_bytes() {
    let together = TempDir::new().unwrap();
    execute(&experiment(ALL), together.path(), &mut ());
    let students_together = students(together.path());
    assert_eq!(students_together.len(), 4);
    let findings_together = findings(together.path());
    for ((method, _, summary), (_, similarity, _)) in students_together.iter().zip(&findings_together) {
        // The accuracy by class is that of the last epoch, taken apart; every pair of five taps was compared.
        let right: usize = similarity.classes.iter().filter_map(|class| class.right).sum();
        assert_eq!(similarity.classes.iter().map(|class| class.samples).sum::<usize>(), 100);
        assert_eq!(right as f64, summary.accuracy.as_ref().unwrap().last.score(), "{method}: of 100 samples");
        let [teacher] = &similarity.teachers[..] else { panic!("{method}: {similarity:?}") };
        assert_eq!((teacher.name.as_str(), teacher.taps.len()), ("big", 25));
        assert!(teacher.taps.iter().all(|tap| tap.alignment.is_some_and(|cka| cka.abs() <= 1.0)), "{teacher:?}");
    }
    let alone = TempDir::new().unwrap();
    for (method, weights, summary) in &students_together {
        execute(&experiment(&format!("{method:?}")), alone.path(), &mut ());
        let (_, weights_alone, summary_alone) = students(alone.path()).remove(0);
        assert!(*weights == weights_alone, "{method}: the student differs");
        assert_eq!(timeless(&summary.history), timeless(&summary_alone.history), "{method}");
        assert_eq!(summary.accuracy, summary_alone.accuracy, "{method}");
        assert_eq!((summary.lanes, summary_alone.lanes), (4, 1));
        // Alone, the student that asks no teacher has none to be compared with.
        if method != "vanilla" {
            let together = findings_together.iter().find(|(name, ..)| name == method).unwrap();
            assert!(findings(alone.path())[0] == *together, "{method}: it was found to be different");
        }
        assert_eq!(summary.samples, [280, 60, 100].into());
    }
    for pair in students_together.windows(2) {
        assert!(pair[0].1 != pair[1].1, "{} and {} learned the same", pair[0].0, pair[1].0);
    }
}

#[test]
fn stopped_again_and_again_it_ends_with_the_same_bytes() {
    let undisturbed = TempDir::new().unwrap();
    execute(&experiment(ALL), undisturbed.path(), &mut ());
    let stopped = TempDir::new().unwrap();
    let experiment = limbeck::config::parse(&experiment(ALL), Path::new("small.toml"), &[]).unwrap();
    let mut calls = 0;
    let mut call = |limit| {
        let plan = Plan::new(experiment.clone(), Path::new("small.toml"), stopped.path()).unwrap();
        calls += 1;
        run::execute(&plan, &Stop::new(Some(limit)), &mut ()).unwrap().stopped
    };
    // The teacher takes 5 steps, the students 15: in the middle of an epoch, then at its end, then to the end.
    assert!(call(Limit::Steps(3)), "the teacher is half trained");
    assert!(call(Limit::Steps(5)), "two steps of the teacher, three of the students");
    assert!(call(Limit::Epochs(1)));
    assert!(call(Limit::Steps(7)));
    assert!(!call(Limit::Steps(1000)));
    assert_eq!(calls, 5);
    assert!(findings(undisturbed.path()) == findings(stopped.path()), "the findings differ");
    for (one, other) in students(undisturbed.path()).iter().zip(students(stopped.path())) {
        assert!(one.1 == other.1, "{}: the student differs", one.0);
        assert_eq!(timeless(&one.2.history), timeless(&other.2.history), "{}", one.0);
    }
}

limbeck::plugin! {
    dataset "test_stopper",
    summary: "the embedded data, which ask for a stop",
    citation: "",
    settings: "",
}

/// The embedded data, which ask for a stop when they have given so many batches of the test part.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    let data = "kind = \"shapes\"\ntrain = 340\ntest = 100";
    let text = experiment(ALL)
        .replace(data, "kind = \"test_stopper\"")
        .replace("checkpoint_steps = 2", "checkpoint_steps = 3");
    let text = text.replace("[student]", "[probe.linear]\n[student]");
    let undisturbed = TempDir::new().unwrap();
    execute(&text, undisturbed.path(), &mut ());
    let stopped = TempDir::new().unwrap();
    let experiment = limbeck::config::parse(&text, Path::new("small.toml"), &[]).unwrap();
    // Three batches are an evaluation on the test part: of the teacher, its measurement, of the students after each epoch, and
    // their last look.
    let mut calls = 0;
    loop {
        let stop = Arc::new(Stop::default());
        *STOPPER.lock().unwrap() = Some((Arc::clone(&stop), 1 + calls % 5));
        let plan = Plan::new(experiment.clone(), Path::new("small.toml"), stopped.path()).unwrap();
        let finished = run::execute(&plan, &stop, &mut ()).unwrap();
        assert_eq!((finished.failed, finished.errors.len()), (vec![], 0));
        calls += 1;
        if !finished.stopped {
            break;
        }
        assert!(stop.is_requested() && calls < 60, "{calls} calls");
    }
    *STOPPER.lock().unwrap() = None;
    assert!(calls > 8, "{calls} calls");
    assert!(findings(undisturbed.path()) == findings(stopped.path()), "the findings differ");
    for (one, other) in students(undisturbed.path()).iter().zip(students(stopped.path())) {
        assert!(one.1 == other.1, "{}: the student differs", one.0);
        assert_eq!(timeless(&one.2.history), timeless(&other.2.history), "{}", one.0);
        assert_eq!(one.2.accuracy, other.2.accuracy, "{}", one.0);
    }
    // A stop writes a checkpoint more.
    let [expected, resumed] = [&undisturbed, &stopped].map(|folder| {
        let mut logs = logs(folder.path());
        logs.values_mut().for_each(|log| log.retain(|line| !line.contains(" checkpoint ")));
        logs
    });
    assert_eq!((expected.len(), &expected), (5, &resumed));
}

/// Names the folder to the process that is to be killed.
const FOLDER: &str = "LIMBECK_TEST_FOLDER";

/// The command in a process of its own: this very program, told to run nothing but the next test.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_command_of_a_process_that_is_killed", "--nocapture"]);
    command.env(FOLDER, folder).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn the_command_of_a_process_that_is_killed() {
    if std::env::var_os(FOLDER).is_some() {
        let code = limbeck_cli::cli::main(["limbeck", "run", "small.toml"].map(Into::into));
        assert_eq!(code, std::process::ExitCode::SUCCESS);
    }
}

/// How many checkpoints the logs in a folder speak of: how far a run has come, seen from outside.
fn checkpoints(folder: &Path) -> usize {
    let log = |path: PathBuf| fs::read_to_string(path.join("events.jsonl")).unwrap_or_default();
    let cells = fs::read_dir(folder.join("runs/small/cells")).into_iter().flatten().flatten();
    let teachers = fs::read_dir(folder.join("runs/teachers")).into_iter().flatten().flatten();
    cells.chain(teachers).map(|entry| log(entry.path()).matches("\"checkpoint\"").count()).sum()
}

#[test]
fn killed_at_five_moments_and_resumed_it_ends_with_the_same_bytes() {
    let undisturbed = TempDir::new().unwrap();
    execute(&experiment(ALL), &undisturbed.path().join("runs"), &mut ());

    let killed = TempDir::new().unwrap();
    fs::write(killed.path().join("small.toml"), experiment(ALL)).unwrap();
    // Random moments, spread over the whole run: so many checkpoints seen, and then some milliseconds that fall anywhere.
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let mut rng = limbeck::seed::Seed::new(u64::from(seed)).rng();
    let mut kills = 0;
    for window in 0..5 {
        let (seen, delay) = (window * 5 + 1 + rng.below(4) as usize, rng.below(60));
        println!("seed {seed}: after {seen} checkpoints and {delay} ms");
        let start = SystemTime::now();
        let mut child = command(killed.path()).spawn().unwrap();
        while checkpoints(killed.path()) < seen && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(delay));
        kills += u64::from(kill(&mut child, killed.path(), start, window % 2 == 1));
        child.wait().unwrap();
    }
    assert_eq!(kills, 5, "the run ended before it could be killed");
    let output = command(killed.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let (expected, resumed) = (students(&undisturbed.path().join("runs")), students(&killed.path().join("runs")));
    for ((method, weights, summary), (_, weights_resumed, summary_resumed)) in expected.iter().zip(&resumed) {
        assert!(weights == weights_resumed, "{method}: the student differs");
        assert_eq!(timeless(&summary.history), timeless(&summary_resumed.history), "{method}");
    }
    let (expected, resumed) = (findings(&undisturbed.path().join("runs")), findings(&killed.path().join("runs")));
    assert!(expected == resumed, "the findings differ");
    let logs = logs(&killed.path().join("runs"));
    assert_eq!((logs.len(), &logs), (5, &self::logs(&undisturbed.path().join("runs"))));
    // A second call has nothing to do.
    let before = checkpoints(killed.path());
    assert!(command(killed.path()).output().unwrap().status.success());
    assert_eq!(checkpoints(killed.path()), before);
}

/// How many kills the campaign takes.
const KILLS: &str = "LIMBECK_KILLS";

/// The name of a file below that was staged after `start`, and is written in part or not yet moved into its place.
fn half_written(folder: &Path, start: SystemTime) -> Option<String> {
    let staged_since = |path: &Path| {
        let after = fs::metadata(path).and_then(|m| m.modified()).is_ok_and(|time| time >= start);
        path.extension().is_some_and(|extension| extension == "tmp") && after
    };
    fs::read_dir(folder).into_iter().flatten().flatten().find_map(|entry| match entry.path() {
        path if path.is_dir() => half_written(&path, start),
        path => staged_since(&path).then(|| entry.file_name().into_string().unwrap()),
    })
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

/// Kills at moments that are spread evenly over the time of a process, every second time when it writes a file next,
/// resumes, and begins anew what is finished. `make campaign` runs it.
#[test]
#[ignore = "takes minutes: `make campaign`"]
fn killed_at_random_moments_it_always_ends_with_the_same_bytes() {
    let kills: u64 = std::env::var(KILLS).map_or(200, |text| text.parse().unwrap());
    // Ten steps, of the teacher and then the student; every one writes a checkpoint.
    let text = experiment("\"crd\"")
        .replace("checkpoint_steps = 2", "checkpoint_steps = 1")
        .replace("epochs = 3", "epochs = 1")
        .replace("resnet14", "resnet8");
    let begin = || {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("small.toml"), &text).unwrap();
        folder
    };
    let start = Instant::now();
    let folder = begin();
    assert!(command(folder.path()).output().unwrap().status.success());
    let span = start.elapsed().as_millis() as u64;
    let expected = students(&folder.path().join("runs")).remove(0).1;
    let expected_logs = logs(&folder.path().join("runs"));

    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    let mut rng = limbeck::seed::Seed::new(u64::from(seed)).rng();
    println!("seed {seed}: {kills} kills, each within {span} ms of a start");
    let (mut done, mut finished, mut hits, mut folder) = (0, 0, Vec::new(), begin());
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
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert!(students(&folder.path().join("runs"))[0].1 == expected, "after {done} kills the student differs");
            assert_eq!(logs(&folder.path().join("runs")), expected_logs, "after {done} kills");
            finished += 1;
            if done == kills {
                break;
            }
            folder = begin();
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
fn logs(out: &Path) -> BTreeMap<String, Vec<String>> {
    let say = |event: Event| match event {
        Event::Resumed { .. } => None,
        Event::StageStarted { stage, .. } => Some(format!("{stage} starts")),
        Event::Step { stage, step, .. } => Some(format!("{stage} step {step}")),
        Event::Epoch(record) => Some(format!("{} epoch {} at {}", record.stage, record.epoch, record.step)),
        Event::Checkpoint { stage, step, .. } => Some(format!("{stage} checkpoint {step}")),
        Event::Warning { message } => Some(message),
        Event::Ended(outcome) => Some(format!("{outcome:?}")),
    };
    let folders =
        ["small/cells", "teachers"].into_iter().flat_map(|name| fs::read_dir(out.join(name)).unwrap().flatten());
    let log = |folder: fs::DirEntry| {
        let text = fs::read_to_string(folder.path().join("events.jsonl")).ok()?;
        let events = text.lines().filter_map(|line| say(serde_json::from_str(line).unwrap()));
        Some((folder.file_name().into_string().unwrap(), events.collect()))
    };
    folders.filter_map(log).collect()
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
    let out = TempDir::new().unwrap();
    let run = |text: &str| {
        let mut names = Names::default();
        execute(text, out.path(), &mut names);
        names.0
    };
    let text = experiment(r#""vanilla", "kd""#);
    assert_eq!(run(&text), ["teacher big", "vanilla, seed 0", "kd, seed 0"]);
    assert_eq!(run(&text), Vec::<String>::new());
    assert_eq!(run(&text.replace("log_steps = 2", "log_steps = 3")), Vec::<String>::new());
    let hotter = format!(
        "{text}\n[method.kd]\nterms = [{{ weight = 0.9, distiller = {{ kind = \"kd\", temperature = 2.0 }} }}]\n"
    );
    assert_eq!(run(&hotter), ["kd, seed 0"]);
}

#[test]
fn warm_up_validation_and_a_teacher_in_sixteen_bits() {
    let out = TempDir::new().unwrap();
    let text = experiment(r#""kd""#)
        .replace("schedule = { kind = \"cosine\" }", "schedule = { kind = \"constant\" }\nwarmup_epochs = 2")
        .replace("model = { kind = \"resnet14\" }", "model = { kind = \"resnet14\" }\nprecision = \"bfloat16\"");
    execute(&text, out.path(), &mut ());
    let (_, _, summary) = students(out.path()).remove(0);
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
    let folder = fs::read_dir(out.path().join("teachers")).unwrap().flatten().map(|entry| entry.path());
    let trained = folder.filter_map(|folder| store::summary(&folder).ok().flatten()).next().unwrap();
    let (half, full) = (summary.teachers[0].test.unwrap().loss(), trained.accuracy.unwrap().last.loss());
    assert!(half != full && (half - full).abs() < 0.05 * full, "{half} in bfloat16, {full} in float32");
}
