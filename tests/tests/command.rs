//! The command as a process: signals, limits, listings, colour.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output};
use std::sync::OnceLock;
use std::time::Duration;

use limbeck::cohort::STUDENT;
use limbeck_tests::command::{limbeck, run, signal, stderr, stdout, succeeds};
use limbeck_tests::files::entries;
use tempfile::TempDir;

const EXPERIMENT: &str = r#"
format = 1
name = "small"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 640
test = 40
[student]
model = { kind = "resnet8" }
[train]
epochs = 6
checkpoint_steps = 1000
[compare]
methods = ["vanilla"]
"#;

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("small.toml"), EXPERIMENT).unwrap();
    folder
}

fn cell(folder: &Path) -> PathBuf {
    entries(&folder.join("runs/small/cells")).remove(0)
}

fn student(folder: &Path) -> Vec<u8> {
    fs::read(cell(folder).join(STUDENT)).unwrap()
}

/// Starts a run and waits for its first epoch.
fn under_way(folder: &Path) -> Child {
    let mut child = limbeck(folder, &["run", "small.toml"]).spawn().unwrap();
    loop {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before its first epoch");
        for cell in entries(&folder.join("runs/small/cells")) {
            if fs::read_to_string(cell.join("events.jsonl")).is_ok_and(|log| log.contains("\"epoch\":")) {
                return child;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a run that is under way a signal, so often, and waits for its end.
fn interrupted(folder: &Path, name: &str, times: usize) -> Output {
    let child = under_way(folder);
    for _ in 0..times {
        signal(name, child.id());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// The student of a run that nothing disturbed.
fn undisturbed() -> &'static [u8] {
    static STUDENT: OnceLock<Vec<u8>> = OnceLock::new();
    STUDENT.get_or_init(|| {
        let folder = folder();
        succeeds(folder.path(), &["run", "small.toml"]);
        student(folder.path())
    })
}

/// What a run with these seeds says.
fn run_with(folder: &Path, seeds: &str) -> String {
    let arguments = ["run", "small.toml", "--set", "train.epochs=1", "--set", "dataset.train=64", "--set", seeds];
    stderr(&succeeds(folder, &arguments))
}

#[test]
fn students_of_another_configuration_are_not_forgotten_silently() {
    let folder = folder();
    let warning = "runs/small was of another configuration: 1 finished student of it will not be in the report; their folders \
                   remain";
    assert!(!run_with(folder.path(), "compare.seeds=[0]").contains("another configuration"));
    assert!(!run_with(folder.path(), "compare.seeds=[0, 1]").contains("another configuration"));
    let said = run_with(folder.path(), "compare.seeds=[1]");
    assert!(said.contains(warning), "{said}");
    assert_eq!(entries(&folder.path().join("runs/small/cells")).len(), 2);
}

#[test]
fn a_signal_finishes_the_step_and_the_command_that_is_named_goes_on_to_the_same_bytes() {
    for signal in ["-INT", "-TERM"] {
        let stopped = folder();
        let output = interrupted(stopped.path(), signal, 1);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{signal}: {said}");
        let first = "stopping: the step is finished and checkpoints are written; once more stops at once";
        assert!(said.contains(first), "{signal}: {said}");
        let (_, line) = said
            .split_once("stopped before the end, with checkpoints in runs/small; this goes on from there:\n  limbeck ")
            .unwrap();
        assert!(cell(stopped.path()).join("checkpoint.safetensors").exists());
        assert!(!cell(stopped.path()).join("student.safetensors").exists());
        let arguments: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(arguments, ["run", "small.toml"]);
        succeeds(stopped.path(), &arguments);
        assert!(undisturbed() == student(stopped.path()), "{signal}: the student differs");
    }
}

#[test]
fn a_second_process_on_one_folder_is_refused_and_the_first_goes_on_undisturbed() {
    let folder = folder();
    let first = under_way(folder.path());
    let second = run(folder.path(), &["run", "small.toml"]);
    let said = stderr(&second);
    let expected =
        "error: another process is at work in runs/small: wait for it, or choose another folder with --out\n";
    assert_eq!((said.as_str(), second.status.code()), (expected, Some(2)));
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(undisturbed() == student(folder.path()), "the student differs");
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    // The step may end between the two signals, and then it was an orderly stop.
    let codes: Vec<Option<i32>> = (0..5).map(|_| interrupted(folder().path(), "-INT", 2).status.code()).collect();
    assert!(codes.iter().all(|code| [Some(130), Some(3)].contains(code)), "{codes:?}");
    assert!(codes.contains(&Some(130)), "{codes:?}");
}

#[test]
fn a_limit_stops_with_checkpoints_and_code_3() {
    let folder = folder();
    for expected in [3, 3, 0] {
        let output = run(folder.path(), &["run", "small.toml", "--stop-after", "25 steps"]);
        assert_eq!(output.status.code(), Some(expected), "{}", stderr(&output));
    }
    let output = run(folder.path(), &["run", "small.toml", "--stop-after", "soon"]);
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("\"soon\" is no limit: give 500steps, 3epochs, or a time such as 90s or 1h30m"), "{said}");
}

#[test]
fn a_dry_run_shows_the_plan_and_writes_nothing() {
    let folder = folder();
    let dry = run(folder.path(), &["run", "small.toml", "--dry-run"]);
    let plan = run(folder.path(), &["plan", "small.toml"]);
    assert!(dry.status.success() && stdout(&dry).contains("cells (1)"), "{}", stdout(&dry));
    assert_eq!(stdout(&dry), stdout(&plan));
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn what_came_of_a_run_is_json_when_asked() {
    let folder = folder();
    let dry = json(folder.path(), &["run", "small.toml", "--dry-run", "--json"]);
    assert_eq!(dry["cells"][0]["progress"], "to do");
    let stopped = json(folder.path(), &["run", "small.toml", "--stop-after", "5steps", "--json"]);
    assert_eq!((&stopped["experiment"], &stopped["report"]), (&"small".into(), &serde_json::Value::Null));
    assert_eq!((&stopped["cells"][0]["status"], &stopped["cells"][0]["accuracy"]), (&"missing".into(), &().into()));
    assert_eq!(stopped["cells"][0]["reason"], "it has not ended; run the experiment again and it goes on");
    let finished = json(folder.path(), &["run", "small.toml", "--json"]);
    let cell_folder = cell(folder.path()).strip_prefix(folder.path()).unwrap().display().to_string();
    let cell = &finished["cells"][0];
    assert_eq!((&cell["method"], &cell["seed"], &cell["status"]), (&"vanilla".into(), &0.into(), &"finished".into()));
    assert_eq!((cell["folder"].as_str(), &cell["reason"]), (Some(cell_folder.as_str()), &().into()));
    let summary = fs::read_to_string(folder.path().join(&cell_folder).join("summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(cell["accuracy"], summary["accuracy"]["last"]);
    assert_eq!((&finished["accuracy"], &finished["baseline"]), (&"last".into(), &"vanilla".into()));
    assert_eq!(finished["report"], "runs/small/report/report.html");
    assert_eq!(json(folder.path(), &["report", "runs/small", "--json"]), finished);
    let best = json(folder.path(), &["report", "runs/small", "--json", "--accuracy", "best_on_test"]);
    assert_eq!(best["cells"][0]["accuracy"], summary["accuracy"]["best_on_test"]["test"]);
}

#[test]
fn event_files_are_kept_while_a_run_goes_on() {
    let folder = folder();
    let tensorboard = ["run", "small.toml", "--tensorboard"];
    let stopped = run(folder.path(), &[&tensorboard[..], &["--stop-after", "1epochs"]].concat());
    assert_eq!(stopped.status.code(), Some(3));
    let events = cell(folder.path()).join("events.out.tfevents.0.limbeck");
    let begun = fs::read(&events).unwrap();
    succeeds(folder.path(), &tensorboard);
    let all = fs::read(&events).unwrap();
    assert!(all.len() > begun.len() && all.starts_with(&begun), "{} bytes, then {}", begun.len(), all.len());
    succeeds(folder.path(), &["report", "runs/small", "--tensorboard"]);
    let name = cell(folder.path()).file_name().unwrap().to_owned();
    let reported = folder.path().join("runs/small/report/tensorboard").join(name).join("events.out.tfevents.0.limbeck");
    assert!(fs::read(reported).unwrap() == all);
}

/// The one JSON value that the command prints.
fn json(folder: &Path, arguments: &[&str]) -> serde_json::Value {
    let output = run(folder, arguments);
    let out = stdout(&output);
    let start = out.find(['{', '[']).unwrap_or_else(|| panic!("{out}{}", stderr(&output)));
    serde_json::from_str(&out[start..]).unwrap_or_else(|error| panic!("{error}: {out}"))
}

#[test]
fn listings_are_json_when_asked() {
    let folder = folder();
    let plan = json(folder.path(), &["plan", "small.toml", "--json"]);
    assert_eq!((&plan["experiment"], &plan["steps_per_epoch"]), (&"small".into(), &10.into()));
    assert_eq!(plan["student"]["parameters"], 78_692);
    assert_eq!(plan["student"]["multiply_adds"], 12_502_272);
    let network = &json(folder.path(), &["plugins", "show", "resnet8x4", "--json"])[0];
    assert_eq!((&network["parameters"], &network["multiply_adds"]), (&1_233_540.into(), &177_071_104.into()));
    assert_eq!(network["signature"]["taps"][3]["shape"], serde_json::json!([256, 8, 8]));
    let page = run(folder.path(), &["plugins", "show", "resnet8x4"]);
    let figures = "
  with these, for 3×32×32 inputs and 100 classes:

    1 233 540 parameters
    177 071 104 multiply-adds
    tap stem 32×32×32, and stem:pre
    tap stage1 64×32×32, and stage1:pre
    tap stage2 128×16×16, and stage2:pre
    tap stage3 256×8×8, and stage3:pre
    tap pooled 256
";
    assert!(stdout(&page).contains(figures), "{}", stdout(&page));
    let script = json(folder.path(), &["plugins", "show", "torchscript", "--json"]);
    assert_eq!(script[0].get("parameters"), None, "there is no file to look into");
    assert_eq!(plan["cells"][0]["progress"], "to do");
    assert_eq!(json(folder.path(), &["plugins", "show", "sgd", "--json"])[0]["role"], "optimizer");
    assert!(json(folder.path(), &["plugins", "list", "--json"]).as_array().unwrap().len() > 40);
    assert_eq!(json(folder.path(), &["doctor", "--json"])["found"]["cpu"][0], "computes");
}

#[test]
fn colour_is_for_terminals_and_for_those_who_insist() {
    let folder = folder();
    let plain = stderr(&run(folder.path(), &["plan", "absent.toml"]));
    assert_eq!(plain.lines().next().unwrap(), "error: cannot read absent.toml");
    let coloured = stderr(&run(folder.path(), &["plan", "absent.toml", "--color", "always"]));
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31merror:\u{1b}[0m cannot read absent.toml"), "{coloured:?}");
    let plain = stderr(&run(folder.path(), &["plan", "absent.toml", "--color", "never"]));
    assert!(!plain.contains('\u{1b}'));
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let folder = folder();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&run(folder.path(), &["completions", shell]));
        assert!(script.contains("stop-after") && script.contains("plugins"), "{shell}");
    }
    assert!(stdout(&run(folder.path(), &["man"])).contains(".TH limbeck 1"));
    succeeds(folder.path(), &["man", "--out", "pages"]);
    for page in ["limbeck.1", "limbeck-run.1", "limbeck-plugins-show.1", "limbeck-check.1"] {
        assert!(folder.path().join("pages").join(page).exists(), "{page}");
    }
}
