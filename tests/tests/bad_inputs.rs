//! What is answered to damaged checkpoints, a full disk, and inputs that do not belong together.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use limbeck::checkpoint::{self, NEWEST, PREVIOUS};
use limbeck::cohort::{Limit, STUDENT};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck_cli::plan::Plan;
use limbeck_cli::store;
use limbeck_tests::command::{program, stderr};
use limbeck_tests::files::{below, copy_all};
use limbeck_tests::runs::{self, execute, stops};
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

fn plan(folder: &Path, values: &[&str]) -> Plan {
    runs::plan(folder, EXPERIMENT, values).unwrap()
}

fn cell(folder: &Path) -> PathBuf {
    plan(folder, &[]).cells[0].folder.clone()
}

/// A cell as the command names it, which is called in the folder above.
fn shown(cell: &Path) -> PathBuf {
    Path::new("runs/bad/cells").join(cell.file_name().unwrap())
}

fn student(folder: &Path) -> Vec<u8> {
    fs::read(cell(folder).join(STUDENT)).unwrap()
}

/// A run that nothing disturbed.
fn undisturbed() -> &'static Path {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        execute(&plan(folder.path(), &[]), &mut ());
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
        assert!(stops(&plan(folder.path(), &[]), Limit::Steps(steps)));
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

/// Why the newest checkpoint is passed over for the one of step 6.
fn passed_over(cell: &Path, what: &str) -> String {
    let (step, reason) = read(cell);
    let reason = reason.unwrap_or_else(|| panic!("{what} was not noticed"));
    assert_eq!(step, 6, "{what}");
    assert!(reason.starts_with(&format!("{}: ", cell.join(NEWEST).display())), "{what}: {reason}");
    reason
}

#[test]
fn every_cut_and_every_flipped_byte_of_a_real_checkpoint_is_noticed() {
    let folder = begun(7);
    let cell = cell(folder.path());
    let (newest, previous) = (cell.join(NEWEST), cell.join(PREVIOUS));
    let whole = fs::read(&newest).unwrap();
    assert_eq!(read(&cell), (7, None));
    let before = fs::read(&previous).unwrap();

    // The one before would be read whole ten thousand times: meanwhile a small one of the same step takes its place.
    let small = TempDir::new().unwrap();
    let tensors = [("w".to_owned(), tch::Tensor::from_slice(&[1.0]))];
    checkpoint::write(small.path(), &serde_json::json!({ "step": 6 }), &tensors).unwrap();
    fs::copy(small.path().join(NEWEST), &previous).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&newest).unwrap();
    let mut cuts = 0;
    for length in (0..whole.len()).step_by(100).rev() {
        file.set_len(length as u64).unwrap();
        let reason = passed_over(&cell, &format!("cut to {length} bytes"));
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
        passed_over(&cell, &format!("byte {place}, flipped"));
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
        execute(&plan(again.path(), &[]), &mut warnings);
        let expected = format!("an older checkpoint is used: {}: cut short: {length} ", cell.join(NEWEST).display());
        assert!(warnings.0.iter().any(|warning| warning.starts_with(&expected)), "{:?}", warnings.0);
        assert!(student(again.path()) == student(undisturbed()), "cut to {length} bytes, the student differs");
    }
}

/// Runs the command in a folder: its exit code, and what it says of an error. A limit on the size of files, in blocks of
/// 512 bytes, is what a full disk is to a process.
fn command(folder: &Path, limit: Option<u64>, arguments: &[&str]) -> (Option<i32>, String) {
    let limit = limit.map_or(String::new(), |blocks| format!("trap '' XFSZ; ulimit -f {blocks}; "));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit}exec \"$0\" \"$@\"")]).arg(program()).args(arguments);
    let output = command.current_dir(folder).output().unwrap();
    let error = stderr(&output).split_once("error: ").map_or("", |(_, error)| error.trim_end()).to_owned();
    (output.status.code(), error)
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_the_older_checkpoint() {
    let folder = begun(5);
    let cell = cell(folder.path());
    assert_eq!(read(&cell), (5, None));
    let (before, previous) = (fs::read(cell.join(NEWEST)).unwrap(), fs::read(cell.join(PREVIOUS)).unwrap());
    // All but the last few bytes of a checkpoint, and none of the small files, fit.
    let (code, error) = command(folder.path(), Some(before.len() as u64 / 512 - 1), &["run", FILE]);
    let newest = shown(&cell).join(NEWEST);
    assert_eq!(error, format!("cannot write {}\n  caused by: File too large (os error 27)", newest.display()));
    assert_eq!(code, Some(1));
    assert!(fs::read(cell.join(NEWEST)).unwrap() == before && fs::read(cell.join(PREVIOUS)).unwrap() == previous);
    assert_eq!(read(&cell), (5, None));
    let mut left = below(folder.path());
    left.retain(|path| path.extension().is_some_and(|extension| extension == "tmp"));
    assert_eq!(left, Vec::<PathBuf>::new());

    assert_eq!(command(folder.path(), None, &["run", FILE]), (Some(0), String::new()));
    assert!(student(folder.path()) == student(undisturbed()), "the student differs");
    assert_eq!(store::progress(&cell), store::Progress::Finished);
}

#[test]
fn a_checkpoint_of_another_configuration_or_surrounding_is_refused() {
    let folder = begun(3);
    let own = cell(folder.path());
    let whole = fs::read(own.join(NEWEST)).unwrap();

    let (code, error) = command(folder.path(), None, &["run", FILE, "--set", "threads=2"]);
    assert_eq!(
        error,
        format!(
            "{} was begun on cpu with threads = 1 and cannot go on exactly on cpu with threads = 2: use --device cpu \
             --set threads=1, or another folder with --out",
            shown(&own).display()
        )
    );
    assert_eq!(code, Some(2));

    let changed = "train.learning_rate=0.01";
    let other = plan(folder.path(), &[changed]).cells[0].folder.clone();
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join(NEWEST), &whole).unwrap();
    let (code, error) = command(folder.path(), None, &["run", FILE, "--set", changed]);
    assert_eq!(
        error,
        format!("{} belongs to another configuration: choose another folder with --out", shown(&other).display())
    );
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

/// The message about a teacher of this kind with the weights of this file, without the place.
fn teacher_refusal(folder: &Path, kind: &str, file: &str) -> String {
    let table = format!("teacher.big={{ model = {{ kind = '{kind}' }}, weights = '{file}' }}");
    let said = refusal(folder, &[&table]);
    let place = format!("\n  --> --set {table}\n  key: teacher.big.weights");
    said.strip_suffix(&place).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn weights_that_are_missing_or_of_another_network_are_refused() {
    let folder = begun(0);
    let here = folder.path().display();
    fs::copy(cell(undisturbed()).join(STUDENT), folder.path().join("w.safetensors")).unwrap();
    let key = "teacher.big: weights: ";
    let error = teacher_refusal(folder.path(), "resnet8", "none.safetensors");
    assert_eq!(error, format!("{key}cannot read {here}/none.safetensors: No such file or directory (os error 2)"));
    let error = teacher_refusal(folder.path(), "resnet14", "w.safetensors");
    // The first eight, in the order of the state dict.
    let missing = [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "conv2.weight",
        "bn2.weight",
        "bn2.bias",
    ];
    let missing = missing.map(|name| format!("`layer1.1.{name}`"));
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
        assert_eq!(
            teacher_refusal(folder.path(), "resnet8", "w.safetensors"),
            format!("{key}{here}/w.safetensors: {expected}")
        );
    }
}

#[test]
fn a_run_whose_checkpoints_are_all_damaged_names_each_and_calls_none_good() {
    let folder = begun(5);
    let cell = cell(folder.path());
    let [n, m] = [NEWEST, PREVIOUS].map(|name| fs::metadata(cell.join(name)).unwrap().len());
    for (name, length) in [(NEWEST, n - 1), (PREVIOUS, m / 2)] {
        fs::OpenOptions::new().write(true).open(cell.join(name)).unwrap().set_len(length).unwrap();
    }
    let (code, error) = command(folder.path(), None, &["run", FILE]);
    let shown = shown(&cell);
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

/// What a record says of accuracy: seconds and memory are not the same again.
fn accuracy(path: &Path) -> serde_json::Value {
    let value: serde_json::Value = store::read_json(path).unwrap();
    if path.ends_with("summary.json") { value["accuracy"].clone() } else { value }
}

#[test]
fn a_damaged_measurement_or_summary_of_a_teacher_is_made_again() {
    let folder = begun(0);
    let mut json = below(&folder.path().join("runs/teachers"));
    json.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert_eq!(json.len(), 3, "a summary, a likeness and a measurement: {json:?}");
    let before: Vec<_> = json.iter().map(|path| accuracy(path)).collect();
    for damage in ["", "{ \"top1\": 3", "{}"] {
        json.iter().for_each(|path| fs::write(path, damage).unwrap());
        assert!(stops(&plan(folder.path(), &[]), Limit::Steps(1)));
        assert_eq!(json.iter().map(|path| accuracy(path)).collect::<Vec<_>>(), before, "{damage:?}");
    }
    execute(&plan(folder.path(), &[]), &mut ());
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
    for (name, count) in [("fine_label_names.txt", 100), ("coarse_label_names.txt", 20)] {
        fs::write(data.join(name), (0..count).map(|class| format!("class {class}\n")).collect::<String>()).unwrap();
    }
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

/// The message about FSP without cross-entropy, with one more value replaced.
fn flow_refusal(folder: &Path, set: &str) -> String {
    refusal(folder, &["compare.methods=['flow']", "method.flow.cross_entropy=0", set])
}

#[test]
fn a_method_without_a_loss_in_the_main_stage_is_refused() {
    let folder = begun(0);
    assert_eq!(
        flow_refusal(folder.path(), "lanes=1"),
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
        flow_refusal(folder.path(), &format!("method.flow.terms=[{both}]")).lines().next().unwrap(),
        "method.flow: fsp has no loss after its initial stage, and every other term has ended after epoch 1: give \
         cross_entropy or another term"
    );
    assert_eq!(
        flow_refusal(folder.path(), "method.flow.terms[0].schedule={ from = 2 }").lines().next().unwrap(),
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

/// The message about a method with these pairs of taps, without the place.
fn taps_refusal(folder: &Path, method: &str, pairs: &str) -> String {
    let methods = format!("compare.methods=['{method}']");
    let taps = format!("method.{method}.terms[0].taps={pairs}");
    of_term(method, &refusal(folder, &[&methods, &taps]))
}

#[test]
fn taps_that_do_not_fit_a_method_are_refused() {
    let folder = begun(0);
    let maps = "method.maps: terms[0] (at, teacher big): ";
    let there = "there is no tap `stage9`; the network has stem, stage1, stage2, stage3, pooled";
    assert_eq!(taps_refusal(folder.path(), "maps", "[['stage9', 'stage2']]"), format!("{maps}student: {there}"));
    assert_eq!(taps_refusal(folder.path(), "maps", "[['stage2', 'stage9']]"), format!("{maps}teacher: {there}"));
    for (pairs, side) in [("[['pooled', 'stage2']]", "student"), ("[['stage2', 'pooled']]", "teacher")] {
        let vector = format!("{maps}at compares maps, but the {side}'s tap `pooled` is a vector: choose a stage");
        assert_eq!(taps_refusal(folder.path(), "maps", pairs), vector);
    }
    let flow = "method.flow: terms[0] (fsp, teacher big): fsp needs ";
    assert_eq!(
        taps_refusal(folder.path(), "flow", "[['stage1', 'stage1']]"),
        format!(
            "{flow}at least two consecutive pairs of taps: name them with \
             `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, TEACHER'S]]`"
        )
    );
    assert_eq!(
        taps_refusal(folder.path(), "maps", "[]"),
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
