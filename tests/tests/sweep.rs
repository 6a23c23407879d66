//! Sweeps: grids, cohorts across their points, workers, and what is left when something fails or is killed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use limbeck::cohort::{STUDENT, Stop};
use limbeck::config::grid::{Filter, Grid};
use limbeck::config::parse_grid;
use limbeck_cli::plan::cohorts;
use limbeck_cli::plan::data::DataCache;
use limbeck_cli::plan::sweep::{Options, Sweep};
use limbeck_cli::run;
use limbeck_cli::store::{self, PlanFile, SweepFile};
use limbeck_tests::command::{self, limbeck, signal, stderr, stdout, succeeds, until};
use limbeck_tests::experiment::overrides;
use limbeck_tests::files::{entries, named};
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

fn grid(text: &str, values: &[&str], only: &[&str]) -> limbeck::error::Result<Grid> {
    parse_grid(text, Path::new(FILE), &overrides(values), &Filter::new(only.iter().copied()).unwrap())
}

fn sweep(out: &Path, values: &[&str], only: &[&str], lanes: Option<usize>) -> Sweep {
    let options = Options { lanes, threads: Some(1), points: None };
    let grid = grid(SWEEP, values, only).unwrap();
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
    let out = TempDir::new().unwrap();
    let sweep = sweep(out.path(), &[], &["pair=flat", "seed=1", "method=kd", "method=at"], None);
    assert_eq!(
        sweep.chosen().iter().map(|run| run.cell.name.clone()).collect::<Vec<_>>(),
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

/// The message about the sweep with a text in it replaced.
fn refusal(from: &str, to: &str) -> String {
    assert!(SWEEP.contains(from), "{from}");
    grid(&SWEEP.replacen(from, to, 1), &[], &[]).unwrap_err().to_string()
}

#[test]
fn errors_of_a_grid_name_line_key_and_point() {
    assert_eq!(
        refusal("\"resnet8\" }\n[[grid", "\"resnet9\" }\n[[grid"),
        "unknown model `resnet9`: did you mean `resnet8`? (at temperature=2.0, flat)\n  \
         --> pairs.toml:23:9\n   |\n23 | set = { \"student.model.kind\" = \"resnet9\" }\n   |         ^^^^^^^^^^^^^^^^^^^^\n  \
         key: student.model.kind"
    );
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
        let error = refusal(from, to);
        assert_eq!(error.lines().next().unwrap(), message);
        assert!(error.lines().nth(1).unwrap().trim().starts_with(&format!("--> pairs.toml:{place}:")), "{error}");
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

/// The cohorts of what is not finished: their names, and the teachers' forward passes together and one by one.
fn cohorts_of(sweep: &Sweep) -> Vec<(String, (u64, u64))> {
    let cohorts = cohorts::form(&sweep.open()).unwrap();
    cohorts.iter().map(|cohort| (cohort.name(), cohort.passes())).collect()
}

#[test]
fn cells_of_several_points_are_one_and_cohorts_go_across_points() {
    let out = TempDir::new().unwrap();
    let whole = sweep(out.path(), &[], &[], None);
    // vanilla of each pair and seed, once for both temperatures; kd for each; at of the flat pair, once more for seed 0.
    let all: usize = whole.plans().map(|plan| plan.cells.len()).sum();
    assert_eq!((all, whole.chosen().len()), (19, 14));
    // 3 steps; 5 students with a teacher.
    let expected = [0, 1].map(|seed| (format!("seed {seed}, 7 students of 4 points"), (3, 15)));
    assert_eq!(cohorts_of(&whole), expected);
    let narrow = sweep(out.path(), &[], &[], Some(4));
    let sizes: Vec<String> = cohorts_of(&narrow).into_iter().map(|(name, _)| name[..18].to_owned()).collect();
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

/// The names of the cohorts of a sweep along one axis.
fn cohorts_along(axis: &str, out: &Path) -> Vec<String> {
    let grid = format!("grid={{ {axis} }}");
    let sweep = sweep(out, &[&grid, "student.model.kind=resnet8", "compare.seeds=[0]"], &[], None);
    cohorts_of(&sweep).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn other_teachers_training_or_data_make_another_cohort() {
    let out = TempDir::new().unwrap();
    // Both teachers' points have the same vanilla student: it sits with those of the first.
    let teachers = cohorts_along("\"teacher.big.seed\" = [0, 1]", out.path());
    assert_eq!(
        teachers,
        ["seed 0, 3 students of seed=0", "seed 0, 2 students of seed=1"]
            .map(|name| name.replace("seed=", "teacher.big.seed="))
    );
    for axis in
        ["train.epochs = [1, 2]", "dataset.noise = [0.1, 0.2]", "validation = [0, 20]", "train_samples = [100, 150]"]
    {
        let names = cohorts_along(axis, out.path());
        assert_eq!(names.len(), 2, "{names:?}");
    }
}

/// Every student of a sweep by its folder's name.
fn students(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut students = BTreeMap::new();
    for cell in entries(&out.join("runs/pairs/cells")) {
        students.insert(cell.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(cell.join(STUDENT)).unwrap());
    }
    students
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
    assert_eq!(entries(&together.path().join("runs/teachers")).len(), 2, "one teacher, one measurement");

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
    assert_eq!((finished.failed.len(), finished.errors.len(), finished.stopped), (3, 1, false), "{finished:?}");
    let error = finished.errors[0].to_string();
    assert!(error.starts_with("wild, teacher big: `") && error.contains("became non-finite at step "), "{error}");
    for (seed, failed) in finished.failed[..2].iter().enumerate() {
        assert!(
            failed.starts_with(&format!("sound, bad, seed {seed}: `")) && failed.contains("non-finite"),
            "{failed}"
        );
    }
    assert_eq!(finished.failed[2], "seed 0, 2 students of wild: not tried, for its teacher failed");
    let left: Vec<String> =
        sweep(out.path(), &overrides, &[], None).open().iter().map(|run| run.cell.name.clone()).collect();
    let expected = ["sound, bad, seed 0", "sound, bad, seed 1", "wild, kd, seed 0", "wild, bad, seed 0"];
    assert_eq!(left, expected);
}

/// A folder with the sweep.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(FILE), SWEEP).unwrap();
    folder
}

const RUN: [&str; 8] = ["run", FILE, "--set", "threads=1", "--only", "temperature=2.0", "--lanes", "2"];

/// A run in one process that nothing disturbed.
fn undisturbed() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let run = FOLDER.get_or_init(|| {
        let folder = folder();
        succeeds(folder.path(), &RUN);
        folder
    });
    run.path()
}

#[test]
fn workers_give_the_same_bytes() {
    let folder = folder();
    let jobs = [&RUN[..], &["--jobs", "2"]].concat();
    let output = succeeds(folder.path(), &jobs);
    let said = stderr(&output);
    assert!(said.contains("temperature=2.0, deep, kd, seed 1: main epoch 1/1: "), "{said}");
    let printed = stdout(&output);
    assert_eq!(printed.matches("\nreport: ").count(), 1, "{printed}");
    assert_same(folder.path(), undisturbed());

    let output = command::run(folder.path(), &[&jobs[..], &["--stop-after", "5steps"]].concat());
    assert_eq!(output.status.code(), Some(2));
    let said = stderr(&output);
    assert!(said.contains("--stop-after counts steps and epochs in one process only: give a time"), "{said}");
}

fn checkpoints(folder: &Path) -> usize {
    named(&folder.join("runs/pairs/cells"), "checkpoint.safetensors").len()
}

/// The workers of a sweep, by the processes' working folder.
fn workers(folder: &Path) -> Vec<u32> {
    let here = fs::canonicalize(folder).unwrap();
    let mut workers = Vec::new();
    for process in entries(Path::new("/proc")) {
        let Ok(id) = process.file_name().unwrap().to_str().unwrap().parse() else { continue };
        let is_here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == here);
        let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
        if is_here && String::from_utf8_lossy(&arguments).contains("--worker") {
            workers.push(id);
        }
    }
    workers
}

#[test]
fn killed_again_and_again_with_its_workers_a_sweep_ends_with_the_same_bytes() {
    let folder = folder();
    let call = [&RUN[..], &["--set", "train.checkpoint_steps=1", "--jobs", "2"]].concat();
    for (killed, worker) in [(1, false), (3, true), (5, false)] {
        let mut child = limbeck(folder.path(), &call).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until(&mut child, || checkpoints(folder.path()) >= killed);
        let victims = if worker { workers(folder.path()) } else { Vec::new() };
        signal("-KILL", child.id());
        for id in victims {
            // It may have ended meanwhile.
            let _ = Command::new("kill").args(["-KILL", &id.to_string()]).stderr(Stdio::null()).status();
        }
        child.wait().unwrap();
    }
    succeeds(folder.path(), &call);
    assert_same(folder.path(), undisturbed());
    assert_eq!(workers(folder.path()), [0; 0]);
}

#[test]
fn a_worker_that_is_killed_is_named_and_the_rest_goes_on() {
    let folder = folder();
    let call = [&RUN[..], &["--jobs", "2", "--set", "train.epochs=4", "--set", "train.checkpoint_steps=1"]].concat();
    let mut child = limbeck(folder.path(), &call).spawn().unwrap();
    until(&mut child, || checkpoints(folder.path()) > 0 && !workers(folder.path()).is_empty());
    signal("-KILL", workers(folder.path())[0]);
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    let message =
        "its worker ended without an answer (signal: 9 (SIGKILL)); the next call goes on from the last checkpoints";
    assert!(said.contains(message), "{said}");
    // At most the two students of its cohort are missing; it may have been killed at its very end.
    let cells = folder.path().join("runs/pairs/cells");
    assert!((7..=9).contains(&named(&cells, STUDENT).len()), "{said}");
    succeeds(folder.path(), &call);
    assert_eq!(named(&cells, STUDENT).len(), 9);
}

/// How many students have finished an epoch.
fn begun(folder: &Path) -> usize {
    let mut logs = named(&folder.join("runs/pairs/cells"), "events.jsonl");
    logs.retain(|log| fs::read_to_string(log).is_ok_and(|text| text.contains("\"epoch\":")));
    logs.len()
}

#[test]
fn a_stop_reaches_the_workers_and_a_second_call_is_refused_meanwhile() {
    let folder = folder();
    let call = [&RUN[..], &["--jobs", "2", "--set", "train.epochs=40"]].concat();
    let mut child = limbeck(folder.path(), &call).spawn().unwrap();
    until(&mut child, || begun(folder.path()) >= 3);
    let second = command::run(folder.path(), &call);
    assert_ne!(second.status.code(), Some(0));
    assert!(stderr(&second).contains("another process is at work in runs/pairs: wait for it"), "{}", stderr(&second));
    signal("-TERM", child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("stopped before the end, with checkpoints in runs/pairs"), "{}", stderr(&output));
    assert!(checkpoints(folder.path()) >= 3);
    assert_eq!(workers(folder.path()), [0; 0]);
}
