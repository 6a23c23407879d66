//! Sweeps: grids, cohorts across their points, workers, and what is left when something fails or is killed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use limbeck::cohort::{STUDENT, Stop};
use limbeck::config::grid::{Filter, Grid};
use limbeck::config::parse_grid;
use limbeck_cli::plan::cohorts;
use limbeck_cli::plan::data::DataCache;
use limbeck_cli::plan::sweep::{Options, Sweep};
use limbeck_cli::run;
use limbeck_cli::store::{self, PlanFile, SweepFile};
use tempfile::TempDir;

/// Two pairs of networks; the axis of the temperature does not concern `vanilla`. The teachers are one recipe.
const SWEEP: &str = r#"
format = 1
name = "pairs"
device = "cpu"
[dataset]
kind = "shapes"
train = 192
test = 40
[teacher.big]
model = { kind = "resnet8" }
train = { epochs = 1 }
[student]
[train]
epochs = 1
[compare]
methods = ["vanilla", "kd", "at"]
seeds = [0, 1]
[grid]
"method.kd.terms[0].distiller.temperature" = [2.0, 4.0]
exclude = [{ pair = "deep", method = "at" }, { temperature = 2.0, method = "at", seed = 1 }]
[[grid.pair]]
name = "flat"
set = { "student.model.kind" = "resnet8" }
[[grid.pair]]
name = "deep"
set = { student.model = { kind = "resnet14" } }
"#;

const FILE: &str = "pairs.toml";

fn grid(text: &str, overrides: &[&str], only: &[&str]) -> limbeck::error::Result<Grid> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    parse_grid(text, Path::new(FILE), &overrides, &Filter::new(only.iter().copied()).unwrap())
}

fn sweep(out: &Path, overrides: &[&str], only: &[&str], lanes: Option<usize>) -> Sweep {
    let options = Options { lanes, threads: Some(1), points: None };
    let grid = grid(SWEEP, overrides, only).unwrap();
    Sweep::new(grid, Path::new(FILE), &out.join("runs"), &options, &mut DataCache::default()).unwrap()
}

#[test]
fn a_grid_is_every_combination_but_those_excluded() {
    let grid = grid(SWEEP, &[], &[]).unwrap();
    let axes: Vec<(&str, String)> = grid.axes.iter().map(|(name, values)| (&**name, values.join(" "))).collect();
    assert_eq!(axes, [("temperature", "2.0 4.0".to_owned()), ("pair", "flat deep".to_owned())]);
    let labels: Vec<&str> = grid.points.iter().map(|point| point.label.as_str()).collect();
    let expected = ["temperature=2.0, flat", "temperature=2.0, deep", "temperature=4.0, flat", "temperature=4.0, deep"];
    assert_eq!(labels, expected);
    let methods: Vec<String> = grid.points.iter().map(|point| point.experiment.compare.methods.join(" ")).collect();
    assert_eq!(methods, ["vanilla kd at", "vanilla kd", "vanilla kd at", "vanilla kd"]);
    assert!(grid.points[0].has("at", 0) && !grid.points[0].has("at", 1) && grid.points[2].has("at", 1));
    let deep = &grid.points[3].experiment;
    assert_eq!(deep.student.model.typetag_name(), "resnet14");
    let kd = serde_json::to_value(&deep.method["kd"]).unwrap();
    assert_eq!(kd["terms"][0]["distiller"]["temperature"], 4.0);
}

#[test]
fn only_chooses_cells_and_leaves_the_rest_unread() {
    let names = |only: &[&str]| -> Vec<String> {
        let out = TempDir::new().unwrap();
        let sweep = sweep(out.path(), &[], only, None);
        sweep.chosen().iter().map(|run| run.cell.name.clone()).collect()
    };
    assert_eq!(
        names(&["pair=flat", "seed=1", "method=kd", "method=at"]),
        ["temperature=2.0, flat, kd, seed 1", "temperature=4.0, flat, kd, seed 1", "temperature=4.0, flat, at, seed 1"]
    );
    let broken = SWEEP.replace("resnet14", "resnet15");
    // 2 is 2.0.
    for temperature in ["temperature=2.0", "temperature=2"] {
        assert_eq!(grid(&broken, &[], &["pair=flat", temperature]).unwrap().points.len(), 1);
    }
    let long = "method.kd.terms[0].distiller.temperature=4.0";
    assert_eq!(grid(SWEEP, &[], &[long, "pair=deep"]).unwrap().points[0].label, "temperature=4.0, deep");
    for (only, message) in [
        ("pear=flat", "--only pear: there is no axis `pear`: did you mean `pair`?"),
        ("pair=flot", "--only pair: the axis `pair` has no value `flot`: did you mean `flat`?"),
        ("seed=7", "nothing meets all conditions of --only: see `limbeck plan` for the cells that there are"),
    ] {
        assert_eq!(grid(SWEEP, &[], &[only]).unwrap_err().to_string(), message);
    }
    let slip = grid(SWEEP, &[], &["method=kd", "method=kdd"]).unwrap_err().to_string();
    let expected =
        "--only method=kdd: no such cell meets the other conditions: see `limbeck plan` for those that there are";
    assert_eq!(slip, expected);
    let error = Filter::new(["kd"]).unwrap_err().to_string();
    assert_eq!(error, "--only kd: a condition is KEY=VALUE, as in method=kd");
}

#[test]
fn errors_of_a_grid_name_line_key_and_point() {
    let said = |from: &str, to: &str| {
        assert!(SWEEP.contains(from), "{from}");
        grid(&SWEEP.replacen(from, to, 1), &[], &[]).unwrap_err().to_string()
    };
    assert_eq!(
        said("\"resnet8\" }\n[[grid", "\"resnet9\" }\n[[grid"),
        "unknown model `resnet9`: did you mean `resnet8`? (at temperature=2.0, flat)\n  \
         --> pairs.toml:23:9\n   |\n23 | set = { \"student.model.kind\" = \"resnet9\" }\n   |         ^^^^^^^^^^^^^^^^^^^^\n  \
         key: student.model.kind"
    );
    let first = |from: &str, to: &str| said(from, to).lines().next().unwrap().to_owned();
    let line = |from: &str, to: &str| said(from, to).lines().nth(1).unwrap().trim().to_owned();
    let exclude = "method = \"at\" }, {";
    for (from, to, message, place) in [
        (
            "[2.0, 4.0]",
            "2.0",
            "an axis is a list of values: \"method.kd.terms[0].distiller.temperature\" = [A, B, …]",
            19,
        ),
        ("[2.0, 4.0]", "[]", "the axis has no values", 19),
        ("[2.0, 4.0]", "[2.0, 2.0]", "the axis `temperature` has the value `2.0` twice", 19),
        ("pair = \"deep\"", "pair = \"steep\"", "the axis `pair` has no value `steep`: did you mean `deep`?", 20),
        (exclude, "method = \"fsp\" }, {", "the rule excludes nothing: no such method or seed is compared there", 20),
        (exclude, "methud = \"at\" }, {", "there is no axis `methud`: did you mean `method`?", 20),
        ("name = \"flat\"\n", "", NAMED, 21),
        (
            "seeds = [0, 1]",
            "seeds = [0, 1]\nbaseline = \"at\"",
            "the baseline `at` is excluded (at temperature=2.0, deep)",
            18,
        ),
        ("\"method.kd.terms[0].distiller.temperature\"", "\"student.model.temperature\"", NO_KEYS, 19),
        ("\"student.model.kind\" = \"resnet8\"", "threads = 2", OF_THE_FILE, 23),
    ] {
        assert_eq!(first(from, to), message);
        assert!(line(from, to).starts_with(&format!("--> pairs.toml:{place}:")), "{}", said(from, to));
    }
    let both = grid(SWEEP, &["student.model.kind=resnet20"], &[]).unwrap_err().to_string();
    assert!(
        both.starts_with("`student.model.kind` has a value already, from --set or from another axis: choose values of the grid with --only, or replace the axis with --set"),
        "{both}"
    );
    let one = limbeck::config::parse(SWEEP, Path::new(FILE), &[]).unwrap_err().to_string();
    assert!(one.starts_with("a file with a [grid] is several experiments, and one is wanted here"), "{one}");
}

const OF_THE_FILE: &str = "`threads` is of the whole file: results do not depend on it";
const NAMED: &str = "a named value is a table with `name`, a string, and `set`, a table of keys and values";
const NO_KEYS: &str = "unknown key `temperature`: known here: shortcut (at temperature=2.0, flat)";

#[test]
fn cells_of_several_points_are_one_and_cohorts_go_across_points() {
    let out = TempDir::new().unwrap();
    let whole = sweep(out.path(), &[], &[], None);
    // vanilla of each pair and seed, once for both temperatures; kd for each; at of the flat pair, once more for seed 0.
    let all: usize = whole.plans().map(|plan| plan.cells.len()).sum();
    assert_eq!((all, whole.chosen().len()), (19, 14));
    let cohorts = |lanes| {
        let sweep = sweep(out.path(), &[], &[], lanes);
        let cohorts = cohorts::form(&sweep.open()).unwrap();
        cohorts.iter().map(|cohort| (cohort.name(), cohort.passes())).collect::<Vec<_>>()
    };
    // 3 steps; 5 students with a teacher.
    let name = |seed: u64| format!("seed {seed}, 7 students of 4 points");
    assert_eq!(cohorts(None), [(name(0), (3, 15)), (name(1), (3, 15))]);
    let sizes: Vec<String> = cohorts(Some(4)).into_iter().map(|(name, _)| name[..18].to_owned()).collect();
    assert_eq!(sizes, ["seed 0, 4 students", "seed 0, 3 students", "seed 1, 4 students", "seed 1, 3 students"]);
    let text = whole.text().unwrap();
    for part in [
        "sweep pairs, in ",
        "axis       pair: flat; deep\n",
        "point temperature=2.0, deep\n",
        "terms, taps and shapes are in the plan of one point: --only AXIS=VALUE\n\ncells (14):\n  to do    temperature=2.0, flat, vanilla, seed 0: ",
        "cohorts (2), of what is not finished:\n  seed 0, 7 students of 4 points: 3 teacher passes, 15 one by one\n",
        "teachers' forward passes that cohorts save: 24\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn other_teachers_training_or_data_make_another_cohort() {
    let out = TempDir::new().unwrap();
    let count = |axis: &str| {
        let grid = format!("grid={{ {axis} }}");
        let sweep = sweep(out.path(), &[&grid, "student.model.kind=resnet8", "compare.seeds=[0]"], &[], None);
        let cohorts = cohorts::form(&sweep.open()).unwrap();
        cohorts.iter().map(|cohort| cohort.name()).collect::<Vec<_>>()
    };
    // Both teachers' points have the same vanilla student: it sits with those of the first.
    let teachers = count("\"teacher.big.seed\" = [0, 1]");
    assert_eq!(
        teachers,
        ["seed 0, 3 students of seed=0", "seed 0, 2 students of seed=1"]
            .map(|name| name.replace("seed=", "teacher.big.seed="))
    );
    for axis in
        ["train.epochs = [1, 2]", "dataset.noise = [0.1, 0.2]", "validation = [0, 20]", "train_samples = [100, 150]"]
    {
        let names = count(axis);
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

/// Every student of a sweep by its folder's name.
fn students(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let cells = fs::read_dir(out.join("runs/pairs/cells")).unwrap().map(|entry| entry.unwrap().path());
    cells
        .map(|cell| (cell.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(cell.join(STUDENT)).unwrap()))
        .collect()
}

fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (students(one), students(other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    one.iter().for_each(|(name, student)| assert!(*student == other[name], "{name} differs"));
}

#[test]
fn a_sweep_in_cohorts_has_the_bytes_of_one_student_at_a_time() {
    let [together, alone] = [None, Some(1)].map(|lanes| {
        let out = TempDir::new().unwrap();
        let sweep = sweep(out.path(), &[], &["pair=flat", "pair=deep", "seed=0"], lanes);
        let finished = run::execute_sweep(&sweep, None, &Stop::default(), &mut ()).unwrap();
        assert!(finished.failed.is_empty() && finished.errors.is_empty() && !finished.stopped, "{finished:?}");
        out
    });
    assert_eq!(students(together.path()).len(), 7);
    assert_same(together.path(), alone.path());
    assert_eq!(fs::read_dir(together.path().join("runs/teachers")).unwrap().count(), 2, "one teacher, one measurement");

    // Finished cells are skipped, and a cell's own file is one experiment that says the same.
    let again = sweep(together.path(), &[], &["seed=0"], None);
    assert!(again.open().is_empty() && again.chosen().len() == 7);
    let cell = &again.chosen()[6].cell.folder;
    let own = limbeck::config::load(&cell.join(store::CELL), &[]).unwrap();
    let own = limbeck_cli::plan::Plan::new(own, &cell.join(store::CELL), together.path()).unwrap();
    assert_eq!(own.cells[0].identity, again.chosen()[6].cell.identity);

    // What reports read.
    let folder = together.path().join("runs/pairs");
    let file: SweepFile = store::read_json(&folder.join(store::SWEEP)).unwrap();
    assert_eq!((file.format, file.name.as_str(), file.points.len()), (1, "pairs", 4));
    assert_eq!(file.points[1].folder, Path::new("points/temperature=2.0,deep"));
    assert_eq!(file.points[1].at["pair"], "deep");
    let point = folder.join(&file.points[1].folder);
    let plan: PlanFile = store::read_json(&point.join(store::PLAN)).unwrap();
    assert!(point.join(&plan.cells[0].folder).join(STUDENT).exists());
    assert!(limbeck_cli::report::write(std::slice::from_ref(&point), &Default::default()).is_ok());
}

#[test]
fn what_fails_does_not_stop_the_rest() {
    let out = TempDir::new().unwrap();
    // A teacher that diverges, and a method that does.
    let grid = "grid={ exclude = [{ rate = 'wild', seed = 1 }], rate = [{ name = 'sound', set = { 'train.epochs' = 1 } }, \
                { name = 'wild', set = { 'teacher.big.train.learning_rate' = 1e30 } }] }";
    let bad = "method.bad={ terms = [{ weight = 1e38, distiller = { kind = 'kd' } }, { weight = 1e38, distiller = { kind = 'kd' } }] }";
    let overrides = [grid, bad, "student.model.kind=resnet8", "compare.methods=['vanilla', 'kd', 'bad']"];
    let whole = sweep(out.path(), &overrides, &[], None);
    let finished = run::execute_sweep(&whole, None, &Stop::default(), &mut ()).unwrap();
    let said = |text: &str, start: &str, end: &str| assert!(text.starts_with(start) && text.contains(end), "{text}");
    assert_eq!((finished.failed.len(), finished.errors.len(), finished.stopped), (3, 1, false), "{finished:?}");
    said(&finished.errors[0].to_string(), "wild, teacher big: `", "became non-finite at step ");
    said(&finished.failed[0], "sound, bad, seed 0: `", "non-finite");
    said(&finished.failed[1], "sound, bad, seed 1: `", "non-finite");
    assert_eq!(finished.failed[2], "seed 0, 2 students of wild: not tried, for its teacher failed");
    let left: Vec<String> =
        sweep(out.path(), &overrides, &[], None).open().iter().map(|run| run.cell.name.clone()).collect();
    let expected = ["sound, bad, seed 0", "sound, bad, seed 1", "wild, kd, seed 0", "wild, bad, seed 0"];
    assert_eq!(left, expected);
}

/// Says to this program, started anew, to be the command with these arguments, one a line.
const ARGUMENTS: &str = "LIMBECK_TEST_ARGUMENTS";

#[test]
fn the_command_itself() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    // Workers are started by the name that the command was called by: the script below.
    let program = std::env::current_dir().unwrap().join("limbeck");
    let arguments = std::iter::once(program.into()).chain(arguments.lines().map(Into::into));
    let code = format!("{:?}", limbeck_cli::cli::main(arguments));
    std::process::exit(code.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap());
}

/// A folder with the sweep and the command.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(FILE), SWEEP).unwrap();
    let script = folder.path().join("limbeck");
    let program = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\n{ARGUMENTS}=$(printf '%s\\n' \"$@\") exec '{}' --exact the_command_itself --nocapture --quiet\n",
        program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(folder.join("limbeck"));
    command.args(arguments).current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const RUN: [&str; 8] = ["run", FILE, "--set", "threads=1", "--only", "temperature=2.0", "--lanes", "2"];

/// A run in one process that nothing disturbed.
fn undisturbed() -> &'static Path {
    static RUN_: std::sync::OnceLock<TempDir> = std::sync::OnceLock::new();
    let run = RUN_.get_or_init(|| {
        let folder = folder();
        let output = command(folder.path(), &RUN).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        folder
    });
    run.path()
}

#[test]
fn workers_give_the_same_bytes() {
    let folder = folder();
    let output = command(folder.path(), &[&RUN[..], &["--jobs", "2"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("temperature=2.0, deep, kd, seed 1: main epoch 1/1: "), "{said}");
    let reports = String::from_utf8_lossy(&output.stdout).matches("\nreport: ").count();
    assert_eq!(reports, 1, "{}", String::from_utf8_lossy(&output.stdout));
    assert_same(folder.path(), undisturbed());

    let output =
        command(folder.path(), &[&RUN[..], &["--jobs", "2", "--stop-after", "5steps"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("--stop-after counts steps and epochs in one process only: give a time"),
        "{output:?}"
    );
}

/// Waits until a call has come so far, or to its end.
fn until(child: &mut Child, is_there: impl Fn() -> bool) {
    while !is_there() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn checkpoints(folder: &Path) -> usize {
    let cells = fs::read_dir(folder.join("runs/pairs/cells")).into_iter().flatten().flatten();
    cells.filter(|cell| cell.path().join("checkpoint.safetensors").exists()).count()
}

/// The workers of a sweep, by the processes' working folder.
fn workers(folder: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let here = |process: &PathBuf| {
        fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == fs::canonicalize(folder).unwrap())
    };
    let works = |process: &PathBuf| {
        fs::read(process.join("environ")).is_ok_and(|text| String::from_utf8_lossy(&text).contains("--worker"))
    };
    processes.filter(here).filter(works).collect()
}

fn kill(signal: &str, process: &str) {
    assert!(Command::new("kill").args([signal, process]).status().unwrap().success());
}

#[test]
fn killed_again_and_again_with_its_workers_a_sweep_ends_with_the_same_bytes() {
    let folder = folder();
    let call = [&RUN[..], &["--set", "train.checkpoint_steps=1", "--jobs", "2"]].concat();
    for (killed, worker) in [(1, false), (3, true), (5, false)] {
        let mut child = command(folder.path(), &call).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(&mut child, || checkpoints(folder.path()) >= killed);
        let victims = if worker { workers(folder.path()) } else { Vec::new() };
        kill("-KILL", &child.id().to_string());
        for process in victims {
            let id = process.file_name().unwrap().to_str().unwrap();
            let _ = Command::new("kill").args(["-KILL", id]).stderr(Stdio::null()).status();
        }
        child.wait().unwrap();
    }
    let output = command(folder.path(), &call).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_same(folder.path(), undisturbed());
    assert_eq!(workers(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_worker_that_is_killed_is_named_and_the_rest_goes_on() {
    let folder = folder();
    let call = [&RUN[..], &["--jobs", "2", "--set", "train.epochs=4", "--set", "train.checkpoint_steps=1"]].concat();
    let mut child = command(folder.path(), &call).spawn().unwrap();
    until(&mut child, || checkpoints(folder.path()) > 0 && !workers(folder.path()).is_empty());
    let victim = workers(folder.path()).remove(0);
    kill("-KILL", victim.file_name().unwrap().to_str().unwrap());
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    let message =
        "its worker ended without an answer (signal: 9 (SIGKILL)); the next call goes on from the last checkpoints";
    assert!(said.contains(message), "{said}");
    // At most the two students of its cohort are missing; it may have been killed at its very end.
    assert!((7..=9).contains(&students_so_far(folder.path())), "{said}");
    assert_eq!(command(folder.path(), &call).output().unwrap().status.code(), Some(0));
    assert_eq!(students_so_far(folder.path()), 9);
}

fn students_so_far(folder: &Path) -> usize {
    let cells = fs::read_dir(folder.join("runs/pairs/cells")).unwrap().flatten();
    cells.filter(|cell| cell.path().join(STUDENT).exists()).count()
}

#[test]
fn a_stop_reaches_the_workers_and_a_second_call_is_refused_meanwhile() {
    let folder = folder();
    let call = [&RUN[..], &["--jobs", "2", "--set", "train.epochs=40"]].concat();
    let mut child = command(folder.path(), &call).spawn().unwrap();
    let begun = || {
        let cells = fs::read_dir(folder.path().join("runs/pairs/cells")).into_iter().flatten().flatten();
        cells
            .filter(|cell| {
                fs::read_to_string(cell.path().join("events.jsonl")).is_ok_and(|text| text.contains("\"epoch\":"))
            })
            .count()
    };
    until(&mut child, || begun() >= 3);
    let second = command(folder.path(), &call).output().unwrap();
    assert_ne!(second.status.code(), Some(0));
    assert!(stderr(&second).contains("another process is at work in runs/pairs: wait for it"), "{}", stderr(&second));
    kill("-TERM", &child.id().to_string());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("stopped before the end, with checkpoints in runs/pairs"), "{}", stderr(&output));
    assert!(checkpoints(folder.path()) >= 3);
    assert_eq!(workers(folder.path()), Vec::<PathBuf>::new());
}
