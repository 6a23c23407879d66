//! What is answered to damaged checkpoints, a full disk, and inputs that do not belong together.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;

use limbeck::checkpoint::{self, NEWEST, PREVIOUS};
use limbeck::cohort::{Limit, STUDENT, Stop};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck_cli::plan::Plan;
use limbeck_cli::{run, store};
use serde::Deserialize;
use tempfile::TempDir;

/// Ten steps of CRD: banks, embedders and momentum beside the student are in its checkpoints.
const EXPERIMENT: &str = r#"
format = 1
name = "bad"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 340
test = 40
[teacher.big]
model = { kind = "resnet8" }
train = { epochs = 1 }
[student]
model = { kind = "resnet8" }
[train]
epochs = 2
checkpoint_steps = 2
[method.maps]
terms = [{ weight = 1.0, distiller = { kind = "at" } }]
[method.flow]
terms = [{ weight = 1.0, distiller = { kind = "fsp", initial_epochs = 1 } }]
[compare]
methods = ["crd"]
"#;

const FILE: &str = "bad.toml";

fn plan(folder: &Path, overrides: &[&str]) -> Plan {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let experiment = limbeck::config::parse(EXPERIMENT, Path::new(FILE), &overrides).unwrap();
    Plan::new(experiment, Path::new(FILE), &folder.join("runs")).unwrap()
}

fn cell(folder: &Path) -> PathBuf {
    plan(folder, &[]).cells[0].folder.clone()
}

fn student(folder: &Path) -> Vec<u8> {
    fs::read(cell(folder).join(STUDENT)).unwrap()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A run that nothing disturbed.
fn undisturbed() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let finished = run::execute(&plan(folder.path(), &[]), &Stop::default(), &mut ()).unwrap();
        assert_eq!(finished.failed, Vec::<String>::new());
        folder
    });
    run.path()
}

/// A folder with the trained teacher and a student that was stopped after `steps` of its ten steps.
fn begun(steps: u64) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join(FILE), EXPERIMENT).unwrap();
    copy_all(&undisturbed().join("runs/teachers"), &folder.path().join("runs/teachers"));
    if steps > 0 {
        let stop = Stop::new(Some(Limit::Steps(steps)));
        assert!(run::execute(&plan(folder.path(), &[]), &stop, &mut ()).unwrap().stopped);
    }
    folder
}

#[derive(Debug, Deserialize)]
struct At {
    step: u64,
}

/// The step of the checkpoint that is read, and why a newer one was not.
fn read(cell: &Path) -> (u64, Option<String>) {
    let loaded = checkpoint::read::<At>(cell).unwrap().unwrap();
    (loaded.state.step, loaded.passed_over)
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn event(&mut self, _lane: &LaneInfo, event: &Event) {
        if let Event::Warning { message } = event {
            self.0.push(message.clone());
        }
    }
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_real_checkpoint_is_noticed() {
    let folder = begun(7);
    let cell = cell(folder.path());
    let (newest, previous) = (cell.join(NEWEST), cell.join(PREVIOUS));
    let whole = fs::read(&newest).unwrap();
    assert_eq!(read(&cell), (7, None));
    let (before, name) = (fs::read(&previous).unwrap(), newest.display().to_string());

    // The one before would be read whole ten thousand times: meanwhile a small one of the same step takes its place.
    let small = TempDir::new().unwrap();
    let tensors = [("w".to_owned(), tch::Tensor::from_slice(&[1.0]))];
    checkpoint::write(small.path(), &serde_json::json!({ "step": 6 }), &tensors).unwrap();
    fs::copy(small.path().join(NEWEST), &previous).unwrap();
    let passed_over = |what: &str| {
        let (step, reason) = read(&cell);
        let reason = reason.unwrap_or_else(|| panic!("{what} was not noticed"));
        assert_eq!(step, 6, "{what}");
        assert!(reason.starts_with(&format!("{name}: ")), "{what}: {reason}");
        reason
    };
    let mut file = fs::OpenOptions::new().write(true).open(&newest).unwrap();
    let mut cuts = 0;
    for length in (0..whole.len()).step_by(100).rev() {
        file.set_len(length as u64).unwrap();
        let reason = passed_over(&format!("cut to {length} bytes"));
        assert!(reason.contains(&format!(": cut short: {length} ")), "{reason}");
        cuts += 1;
    }
    std::io::Write::write_all(&mut file, &whole).unwrap();
    drop(file);
    assert_eq!(read(&cell), (7, None));
    let mut flips = 0;
    for place in (0..whole.len()).step_by(997) {
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (place % 8);
        fs::write(&newest, &flipped).unwrap();
        passed_over(&format!("byte {place}, flipped"));
        flips += 1;
    }
    println!("{} bytes: {cuts} cuts and {flips} flipped bytes were noticed", whole.len());
    assert!(cuts > 5000 && flips > 500, "{cuts} cuts and {flips} flips of {} bytes", whole.len());

    // Resumed from the one before, the run ends as if nothing had been: the header cut through, and the last tensor.
    for length in [whole.len() / 1000, whole.len() - 100] {
        let again = begun(0);
        let cell = self::cell(again.path());
        fs::create_dir_all(&cell).unwrap();
        fs::write(cell.join(NEWEST), &whole[..length]).unwrap();
        fs::write(cell.join(PREVIOUS), &before).unwrap();
        assert_eq!(read(&cell).0, 6);
        let mut warnings = Warnings::default();
        run::execute(&plan(again.path(), &[]), &Stop::default(), &mut warnings).unwrap();
        let expected = format!("an older checkpoint is used: {}: cut short: {length} ", cell.join(NEWEST).display());
        assert!(warnings.0.iter().any(|warning| warning.starts_with(&expected)), "{:?}", warnings.0);
        assert!(student(again.path()) == student(undisturbed()), "cut to {length} bytes, the student differs");
    }
}

/// Holds the arguments of the process that is to be this command, one a line.
const ARGUMENTS: &str = "LIMBECK_TEST_ARGUMENTS";

#[test]
fn the_command_in_a_process_of_its_own() {
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        let arguments = std::iter::once("limbeck").chain(arguments.lines());
        let code = limbeck_cli::cli::main(arguments.map(Into::into));
        std::process::exit((0..=2).find(|n| code == ExitCode::from(*n)).map_or(99, i32::from));
    }
}

/// Runs the command in a folder: this very program, told to run nothing but the test above. Returns its exit code and
/// what it says of an error. A limit on the size of files, in blocks of 512 bytes, is what a full disk is to a process.
fn command(folder: &Path, limit: Option<u64>, arguments: &[&str]) -> (Option<i32>, String) {
    let limit = limit.map_or(String::new(), |blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
    let output = Command::new("sh")
        .args(["-c", &format!("{limit}exec \"$0\" --exact the_command_in_a_process_of_its_own --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env(ARGUMENTS, arguments.join("\n"))
        .current_dir(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = stderr.split_once("error: ").map_or("", |(_, error)| error.trim_end()).to_owned();
    (output.status.code(), error)
}

fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(leftovers(&path));
        } else if path.extension().is_some_and(|extension| extension == "tmp") {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_the_older_checkpoint() {
    let folder = begun(5);
    let cell = cell(folder.path());
    assert_eq!(read(&cell), (5, None));
    let (before, previous) = (fs::read(cell.join(NEWEST)).unwrap(), fs::read(cell.join(PREVIOUS)).unwrap());
    // All but the last few bytes of a checkpoint, and none of the small files, fit.
    let (code, error) = command(folder.path(), Some(before.len() as u64 / 512 - 1), &["run", FILE]);
    let newest = Path::new("runs/bad/cells").join(cell.file_name().unwrap()).join(NEWEST);
    assert_eq!(error, format!("cannot write {}\n  caused by: File too large (os error 27)", newest.display()));
    assert_eq!(code, Some(1));
    assert!(fs::read(cell.join(NEWEST)).unwrap() == before && fs::read(cell.join(PREVIOUS)).unwrap() == previous);
    assert_eq!(read(&cell), (5, None));
    assert_eq!(leftovers(folder.path()), Vec::<PathBuf>::new());

    assert_eq!(command(folder.path(), None, &["run", FILE]), (Some(0), String::new()));
    assert!(student(folder.path()) == student(undisturbed()), "the student differs");
    assert_eq!(store::progress(&cell), store::Progress::Finished);
}

#[test]
fn a_checkpoint_of_another_configuration_or_surrounding_is_refused() {
    let folder = begun(3);
    let own = cell(folder.path());
    let whole = fs::read(own.join(NEWEST)).unwrap();
    let shown = |cell: &Path| Path::new("runs/bad/cells").join(cell.file_name().unwrap()).display().to_string();

    let (code, error) = command(folder.path(), None, &["run", FILE, "--set", "threads=2"]);
    assert_eq!(
        error,
        format!(
            "{} was begun on cpu with threads = 1 and cannot go on exactly on cpu with threads = 2: use --device cpu \
             --set threads=1, or another folder with --out",
            shown(&own)
        )
    );
    assert_eq!(code, Some(2));

    let changed = "train.learning_rate=0.01";
    let other = plan(folder.path(), &[changed]).cells[0].folder.clone();
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join(NEWEST), &whole).unwrap();
    let (code, error) = command(folder.path(), None, &["run", FILE, "--set", changed]);
    assert_eq!(error, format!("{} belongs to another configuration: choose another folder with --out", shown(&other)));
    assert_eq!(code, Some(2));
    assert!(fs::read(own.join(NEWEST)).unwrap() == whole && fs::read(other.join(NEWEST)).unwrap() == whole);
}

/// The message of `limbeck plan` with these values replaced. Whatever is wrong before a run begins ends with 2.
fn refusal(folder: &Path, overrides: &[&str]) -> String {
    let mut arguments = vec!["plan", FILE];
    overrides.iter().for_each(|text| arguments.extend(["--set", text]));
    let (code, error) = command(folder, None, &arguments);
    assert_eq!(code, Some(2), "{error}");
    error
}

#[test]
fn weights_that_are_missing_or_of_another_network_are_refused() {
    let folder = begun(0);
    let here = folder.path().display();
    fs::copy(cell(undisturbed()).join(STUDENT), folder.path().join("w.safetensors")).unwrap();
    let teacher = |kind: &str, file: &str| {
        let table = format!("teacher.big={{ model = {{ kind = '{kind}' }}, weights = '{file}' }}");
        let said = refusal(folder.path(), &[&table]);
        let place = format!("\n  --> --set {table}\n  key: teacher.big.weights");
        said.strip_suffix(&place).unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let key = "teacher.big: weights: ";
    let error = teacher("resnet8", "none.safetensors");
    assert_eq!(error, format!("{key}cannot read {here}/none.safetensors: No such file or directory (os error 2)"));
    let error = teacher("resnet14", "w.safetensors");
    // The first eight, in the order of the state dict.
    let norm = |n: u8| ["weight", "bias", "running_mean", "running_var"].map(|part| format!("bn{n}.{part}"));
    let names = [&["conv1.weight".to_owned()], &norm(1)[..], &["conv2.weight".to_owned()], &norm(2)[..2]].concat();
    let missing: Vec<String> = names.iter().map(|name| format!("`layer1.1.{name}`")).collect();
    assert_eq!(
        error,
        format!(
            "{key}{here}/w.safetensors: these are not the weights of this network: 30 missing: {} and 22 more",
            missing.join(", ")
        )
    );
    let whole = fs::read(folder.path().join("w.safetensors")).unwrap();
    let n = whole.len();
    for (bytes, expected) in [
        (b"hello, world".to_vec(), "neither a PyTorch checkpoint nor safetensors".to_owned()),
        (whole[..n - 4].to_vec(), format!("cut short: {} of {n} bytes are there", n - 4)),
        (whole[..5].to_vec(), "cut short: 5 bytes are there, fewer than a safetensors file begins with".to_owned()),
        ([&whole[..], b"!"].concat(), format!("too long: it has {} bytes, and should have {n}", n + 1)),
    ] {
        fs::write(folder.path().join("w.safetensors"), bytes).unwrap();
        assert_eq!(teacher("resnet8", "w.safetensors"), format!("{key}{here}/w.safetensors: {expected}"));
    }
}

#[test]
fn a_run_whose_checkpoints_are_all_damaged_names_each_and_calls_none_good() {
    let folder = begun(5);
    let cell = cell(folder.path());
    let [n, m] = [NEWEST, PREVIOUS].map(|name| fs::metadata(cell.join(name)).unwrap().len());
    let file = |name| fs::OpenOptions::new().write(true).open(cell.join(name)).unwrap();
    file(NEWEST).set_len(n - 1).unwrap();
    file(PREVIOUS).set_len(m / 2).unwrap();
    let (code, error) = command(folder.path(), None, &["run", FILE]);
    let shown = Path::new("runs/bad/cells").join(cell.file_name().unwrap());
    let (newest, previous) = (shown.join(NEWEST), shown.join(PREVIOUS));
    let expected = format!(
        "a run failed: crd, seed 0: no checkpoint can be used: {}: cut short: {} of {n} bytes are there; {}: cut short: {} of \
         {m} bytes are there; delete {} to begin anew; it has no good checkpoint",
        newest.display(),
        n - 1,
        previous.display(),
        m / 2,
        shown.display()
    );
    assert_eq!((error.as_str(), code), (expected.as_str(), Some(1)));
    fs::remove_dir_all(&cell).unwrap();
    assert_eq!(command(folder.path(), None, &["run", FILE]), (Some(0), String::new()));
    assert!(student(folder.path()) == student(undisturbed()), "the student differs");
}

#[test]
fn a_damaged_measurement_or_summary_of_a_teacher_is_made_again() {
    let folder = begun(0);
    let files = |name: &str| -> Vec<PathBuf> {
        let teachers = folder.path().join("runs/teachers");
        let below = fs::read_dir(teachers).unwrap().flat_map(|entry| fs::read_dir(entry.unwrap().path()).unwrap());
        below.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().ends_with(name)).collect()
    };
    let json = files(".json");
    assert_eq!(json.len(), 3, "a summary, a likeness and a measurement: {json:?}");
    // Seconds and memory are not the same again.
    let accuracy = |path: &Path| {
        let value: serde_json::Value = store::read_json(path).unwrap();
        if path.ends_with("summary.json") { value["accuracy"].clone() } else { value }
    };
    let before: Vec<_> = json.iter().map(|path| accuracy(path)).collect();
    for damage in ["", "{ \"top1\": 3", "{}"] {
        json.iter().for_each(|path| fs::write(path, damage).unwrap());
        let stop = Stop::new(Some(Limit::Steps(1)));
        assert!(run::execute(&plan(folder.path(), &[]), &stop, &mut ()).unwrap().stopped);
        assert_eq!(json.iter().map(|path| accuracy(path)).collect::<Vec<_>>(), before, "{damage:?}");
    }
    run::execute(&plan(folder.path(), &[]), &Stop::default(), &mut ()).unwrap();
    assert!(student(folder.path()) == student(undisturbed()), "the student differs");
}

#[test]
fn data_that_are_missing_are_refused() {
    let folder = begun(0);
    let error = refusal(folder.path(), &["dataset={ kind = 'cifar100', path = 'nowhere' }"]);
    assert_eq!(
        error,
        format!(
            "dataset: nowhere: does not exist (relative to {}); `limbeck data fetch cifar100` gets it; or download \
             cifar-100-binary.tar.gz from \
             https://www.cs.toronto.edu/~kriz/cifar.html and set `path` of data set cifar100 to it, to the unpacked folder, \
             or to the folder that holds either\n  --> --set dataset={{ kind = 'cifar100', path = 'nowhere' }}\n  key: dataset",
            folder.path().display()
        )
    );
}

#[test]
fn data_of_another_size_are_refused() {
    let folder = begun(0);
    let set = "dataset={ kind = 'cifar100', path = 'data' }";
    let data = folder.path().join("data/cifar-100-binary");
    fs::create_dir_all(&data).unwrap();
    let names = |count: usize| (0..count).map(|class| format!("class {class}\n")).collect::<String>();
    fs::write(data.join("fine_label_names.txt"), names(100)).unwrap();
    fs::write(data.join("coarse_label_names.txt"), names(20)).unwrap();
    fs::write(data.join("test.bin"), "").unwrap();
    let records = fs::File::create(data.join("train.bin")).unwrap();
    let expected = [(153_699_999, "153700000 (50000 records of 3074 bytes)"), (153_700_001, "at most 153700000")];
    for (length, expected) in expected {
        // A hole in the file, not zeros on the disk.
        records.set_len(length).unwrap();
        assert_eq!(
            refusal(folder.path(), &[set]),
            format!(
                "dataset: data/cifar-100-binary/train.bin: {length} bytes, expected {expected}\n  --> --set {set}\n  key: \
                 dataset"
            )
        );
    }
}

/// What is said of a method's first term, without its place in the file.
fn of_term(method: &str, said: &str) -> String {
    let (message, place) = said.split_once("\n  --> ").unwrap();
    let line = EXPERIMENT.lines().position(|line| line == format!("[method.{method}]")).unwrap() + 2;
    assert!(place.starts_with(&format!("{FILE}:{line}:10\n")), "{said}");
    assert!(place.ends_with(&format!("\n  key: method.{method}.terms[0]")), "{said}");
    message.to_owned()
}

#[test]
fn a_method_without_a_loss_in_the_main_stage_is_refused() {
    let folder = begun(0);
    let said = |set: &str| refusal(folder.path(), &["compare.methods=['flow']", "method.flow.cross_entropy=0", set]);
    let first_line = |set: &str| said(set).lines().next().unwrap().to_owned();
    assert_eq!(
        said("lanes=1"),
        "method.flow: fsp has no loss after its initial stage: give cross_entropy or another term
  --> bad.toml:20:9
   |
20 | [method.flow]
   |         ^^^^
  key: method.flow"
    );
    let both =
        "{ distiller = { kind = 'fsp', initial_epochs = 1 } }, { schedule = { to = 1 }, distiller = { kind = 'kd' } }";
    assert_eq!(
        first_line(&format!("method.flow.terms=[{both}]")),
        "method.flow: fsp has no loss after its initial stage, and every other term has ended after epoch 1: give \
         cross_entropy or another term"
    );
    assert_eq!(
        first_line("method.flow.terms[0].schedule={ from = 2 }"),
        "method.flow: terms[0] (fsp, teacher big): it has no loss after its initial stage, so that `schedule` has no \
         effect: remove it"
    );

    let shown = plan(folder.path(), &["compare.methods=['flow', 'ft']", "train.learning_rate=0.02"]).to_string();
    assert!(shown.contains("\n      first: an initial stage of 1 epoch at rate 0.02; no loss after it\n"), "{shown}");
    assert!(shown.contains("\n      first: an initial stage of 30 epochs at rate 0.01\n"), "{shown}");
    assert!(
        shown.contains("\ntraining   2 epochs of 6 steps, batch 64, learning rate 0.02, 1 thread on cpu\n"),
        "{shown}"
    );
}

#[test]
fn devices_that_are_not_there_are_refused_while_planning() {
    if limbeck::device::cuda_devices() > 0 {
        return;
    }
    let folder = begun(0);
    let (code, said) = command(folder.path(), None, &["run", FILE, "--devices", "cpu,cuda:0", "--dry-run"]);
    assert_eq!(code, Some(2));
    assert!(said.starts_with("device \"cuda:0\" is asked for and CUDA is not to be had: "), "{said}");
}

#[test]
fn taps_that_do_not_fit_a_method_are_refused() {
    let folder = begun(0);
    let taps = |method: &str, pairs: &str| {
        let methods = format!("compare.methods=['{method}']");
        let set = [&*methods, &*format!("method.{method}.terms[0].taps={pairs}")];
        of_term(method, &refusal(folder.path(), &set))
    };
    let maps = "method.maps: terms[0] (at, teacher big): ";
    let there = "there is no tap `stage9`; the network has stem, stage1, stage2, stage3, pooled";
    assert_eq!(taps("maps", "[['stage9', 'stage2']]"), format!("{maps}student: {there}"));
    assert_eq!(taps("maps", "[['stage2', 'stage9']]"), format!("{maps}teacher: {there}"));
    let vector = |side| format!("{maps}at compares maps, but the {side}'s tap `pooled` is a vector: choose a stage");
    assert_eq!(taps("maps", "[['pooled', 'stage2']]"), vector("student"));
    assert_eq!(taps("maps", "[['stage2', 'pooled']]"), vector("teacher"));
    let flow = "method.flow: terms[0] (fsp, teacher big): fsp needs ";
    assert_eq!(
        taps("flow", "[['stage1', 'stage1']]"),
        format!(
            "{flow}at least two consecutive pairs of taps: name them with \
             `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, TEACHER'S]]`"
        )
    );
    assert_eq!(
        taps("maps", "[]"),
        format!("{maps}at needs at least one pair of taps: name it with `taps = [[STUDENT'S, TEACHER'S]]`")
    );
    let wide = ["compare.methods=['flow']", "teacher.big.model.kind='resnet8x4'"];
    assert_eq!(
        of_term("flow", &refusal(folder.path(), &wide)),
        format!(
            "{flow}as many channels on both sides, but the student's `stem` has 16 and the teacher's `stem` 32: choose \
             networks of one width, or other taps with `taps`"
        )
    );
}
