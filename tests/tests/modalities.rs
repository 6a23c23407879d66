//! Across modalities, with targets that are sets of classes, and what linear probes find in the students.

#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use limbeck::cohort::{Limit, Stop};
use limbeck::dataset::{Rows, Split};
use limbeck::probe::Backbone;
use limbeck::record::{ProbeRecord, ProbedNetwork};
use limbeck::weights;
use limbeck_cli::plan::Plan;
use limbeck_cli::plan::runs::PlannedProbeRun;
use limbeck_cli::progress::Progress;
use limbeck_cli::store::Progress as Stage;
use limbeck_cli::{report, run, store};
use limbeck_tests::command;
use limbeck_tests::files::{entries, named, png};
use limbeck_tests::runs::{execute, plan, stops, students};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const HEIGHT: usize = 20;
const WIDTH: usize = 24;

/// Thirty frames of photographs, depth and label maps: most of a map is of class frame modulo 3, and every other frame has a
/// border of class 3.
fn frames() -> TempDir {
    let folder = TempDir::new().unwrap();
    for frame in 0..30 {
        let (mut depth, mut labels) = (Vec::new(), Vec::new());
        for p in 0..HEIGHT * WIDTH {
            depth.push((7 * frame + (3 + frame % 3) * (p % WIDTH) + 2 * (p / WIDTH)) as u8);
            labels.push(if p < 3 * WIDTH && frame % 2 == 0 { 3 } else { (frame % 3) as u8 });
        }
        let rgb: Vec<u8> = depth.iter().flat_map(|d| [*d, 255 - d, (frame % 3 * 80) as u8]).collect();
        for (kind, colour, pixels) in [
            ("depth", png::ColorType::Grayscale, &depth),
            ("rgb", png::ColorType::Rgb, &rgb),
            ("labels", png::ColorType::Grayscale, &labels),
        ] {
            png(&folder.path().join(format!("{kind}/{frame:02}.png")), [HEIGHT, WIDTH], colour, pixels);
        }
    }
    folder
}

/// A student of depth learns from a teacher of colours; targets are sets of classes.
const ACROSS: &str = r#"
format = 1
name = "across"
device = "cpu"
threads = 1
validation = 4
[dataset]
kind = "paired_folders"
path = "DATA"
size = [16, 16]
classes = 5
target = "presence"
block = 1
[teacher.rgb]
view = "rgb"
model = { kind = "resnet8" }
train = { epochs = 1, batch = 8 }
[student]
view = "depth"
model = { kind = "resnet8" }
[train]
epochs = 3
batch = 8
checkpoint_steps = 2
log_steps = 1
[method.crd]
cross_entropy = 0.0
terms = [{ weight = 0.8, distiller = { kind = "crd", negatives = { kind = "other_class", count = 8 } } }]
[compare]
methods = ["vanilla", "crd"]
[probe.itself]
train = { epochs = 4, batch = 8 }
"#;

/// A probe on other images, of students of three seeds.
const TRANSFER: &str = r#"
format = 1
name = "transfer"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 128
test = 40
[dataset.views.one]
steps = [{ kind = "normalise", mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }]
[dataset.views.two]
steps = [{ kind = "normalise", mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }]
[teacher.big]
view = "one"
model = { kind = "resnet14" }
train = { epochs = 1 }
[student]
view = "one"
model = { kind = "resnet8" }
[train]
epochs = 1
[method.crd]
cross_entropy = 0.0
terms = [{ weight = 0.8, distiller = { kind = "crd", negatives = { kind = "other_instance", count = 32 } } }]
[compare]
methods = ["vanilla", "crd"]
seeds = [0, 1]
[probe.other]
view = "image"
dataset = { kind = "shapes", train = 100, test = 60, seed = 5 }
train = { epochs = 3 }
"#;

fn across(data: &TempDir) -> String {
    ACROSS.replace("DATA", data.path().to_str().unwrap())
}

/// What every probe came to, but for its time.
fn probes(plan: &Plan) -> Vec<ProbeRecord> {
    let file: store::PlanFile = store::read_json(&plan.folder.join(store::PLAN)).unwrap();
    let mut records = Vec::new();
    for entry in &file.probes {
        let record = store::probe(&plan.folder.join(&entry.folder)).unwrap().unwrap();
        records.push(ProbeRecord { seconds: 0.0, ..record });
    }
    records
}

#[derive(Clone, Default)]
struct Lines(Rc<RefCell<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn text_of(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn sets_of_classes_are_never_called_top_1() {
    let (data, folder) = (frames(), TempDir::new().unwrap());
    let plan = plan(folder.path(), &across(&data), &[]).unwrap();
    let planned = plan.to_string();
    assert!(planned.contains("measured by mean average precision (mAP), not by top-1"), "{planned}");
    assert!(planned.contains("method vanilla: 1 × binary cross-entropy"), "{planned}");
    assert!(planned.contains("targets are the classes with at least 1 % of the pixels"), "{planned}");
    let lines = Lines::default();
    execute(&plan, &mut Progress::lines_to(lines.clone()));
    let said = String::from_utf8(lines.0.take()).unwrap();
    let line = said.lines().find(|line| line.starts_with("vanilla, seed 0: main epoch 3/3")).unwrap();
    assert!(line.contains(", validation mAP ") && line.contains(", test mAP "), "{line}");
    assert!(!line.contains("train ") && !line.contains("top-5"), "{line}");

    for student in students(&plan) {
        let (name, summary) = (&student.method, &student.summary);
        assert_eq!(summary.samples, [20, 4, 6].into(), "{name}");
        let last = summary.accuracy.as_ref().unwrap().last;
        assert_eq!((last.task().name(), last.beside().count()), ("presence", 0));
        assert!(last.score() > 0.0 && last.score() <= 100.0, "{name}: {last:?}");
        let record = summary.history.last().unwrap();
        assert_eq!(record.train_top1, None);
        // No labels, no loss by them.
        assert_eq!(record.train.contains_key("binary_cross_entropy"), name == "vanilla", "{:?}", record.train);
        assert!(!record.train.contains_key("cross_entropy"));
    }
    for name in ["summary.json", "events.jsonl", "probe.json", "similarity.json"] {
        let found = named(folder.path(), name);
        assert!(found.len() >= 2, "{name}");
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            for word in ["top1", "top5", "agreement", "calibration", "divergence"] {
                assert!(!text.contains(word), "{} speaks of {word}", path.display());
            }
        }
    }
    let similarity: limbeck::record::Similarity =
        store::read_json(&named(folder.path(), "similarity.json")[0]).unwrap();
    let samples: Vec<usize> = similarity.classes.iter().map(|class| class.samples).collect();
    // Frames 4, 9, 14, 19, 24 and 29 are tested on: two of each class, a border on the even ones, and class 4 nowhere.
    assert_eq!(samples, [2, 2, 2, 3, 0]);
    assert!(similarity.classes[3].score().is_some() && similarity.classes[4].score().is_none());

    let report = report::write(std::slice::from_ref(&plan.folder), &report::Options::default()).unwrap();
    let markdown = text_of(&report.folder, "report.md");
    assert!(markdown.contains("| method  | seeds |") && markdown.contains(" mAP |"), "{markdown}");
    assert!(markdown.contains("method `vanilla`: 1 binary cross-entropy"), "{markdown}");
    for said in [
        markdown.as_str(),
        &text_of(&report.folder, "report.html"),
        &text_of(&report.folder, "report.tex"),
        &text_of(&report.folder, "summary.md"),
    ] {
        let rest = said.replace("not top-1", "").replace("not\ntop-1", "");
        assert!(!rest.to_lowercase().contains("top-1") && !rest.contains("top-5"), "{said}");
    }
    for entry in entries(&report.folder) {
        if entry.extension().is_some_and(|extension| extension == "csv") && !entry.ends_with("probes.csv") {
            let text = fs::read_to_string(&entry).unwrap();
            assert!(!text.contains("top1") && !text.contains("top5"), "{}", entry.display());
        }
    }
    let header = text_of(&report.folder, "comparison.csv").lines().next().unwrap().to_owned();
    assert!(header.contains(",mean_average_precision_mean,mean_average_precision_deviation,baseline,"), "{header}");
    // Two methods, and four classes that a test sample has.
    assert_eq!(text_of(&report.folder, "classes.csv").lines().skip(1).count(), 2 * 4);
    for name in ["report.md", "summary.md"] {
        let text = text_of(&report.folder, name);
        let called: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains("accurac")).collect();
        assert_eq!(called, Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_batch_without_any_class_is_no_reason_not_to_evaluate() {
    let (data, folder) = (frames(), TempDir::new().unwrap());
    let planned = plan(folder.path(), &across(&data), &["dataset.present=0.9"]).unwrap();
    // Frame 4 is the first to be tested on, and its border leaves no class nine tenths of it.
    for (row, expected) in [(0, 0.0), (1, 1.0)] {
        let (rows, views) = (Rows::new(vec![row], Device::Cpu), ["depth"].into_iter().collect());
        let batch = planned.data.dataset.batch(Split::Test, &rows, &views, None).unwrap();
        assert_eq!(batch.targets.unwrap().sum(None::<Kind>).double_value(&[]), expected);
    }
    let weights = folder.path().join("weights.safetensors");
    let spec = planned.data.spec(Some("depth")).unwrap();
    Backbone::write_untrained(&*planned.experiment.student.model, &spec, 0, &weights).unwrap();
    let dataset = format!(
        "{{ kind = \"paired_folders\", path = {:?}, size = [16, 16], classes = 5, target = \"presence\", block = 1, present \
         = 0.9 }}",
        data.path()
    );
    let file = weights.to_str().unwrap();
    let arguments = ["evaluate", "--model", "resnet8", "--weights", file, "--dataset", &dataset, "--view", "depth"];
    command::succeeds(folder.path(), &[&arguments[..], &["--batch", "1", "--device", "cpu"]].concat());
}

#[test]
fn sets_of_classes_stopped_and_resumed_end_with_the_same_bytes() {
    let (data, folders) = (frames(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let text = across(&data);
    let [whole, parts] = folders.each_ref().map(|folder| plan(folder.path(), &text, &[]).unwrap());
    execute(&whole, &mut ());
    let mut calls = 1;
    while stops(&parts, Limit::Steps(2)) {
        calls += 1;
        assert!(calls < 40, "it never ends");
    }
    assert!(calls >= 6, "stopped {calls} times");
    for (one, other) in students(&whole).iter().zip(students(&parts)) {
        assert!(one.weights == other.weights, "{}: the student differs", one.method);
        assert_eq!(one.summary.accuracy, other.summary.accuracy, "{}", one.method);
    }
    assert_eq!(probes(&whole), probes(&parts));
}

#[test]
fn methods_of_one_class_are_refused_for_sets_of_classes() {
    let data = frames();
    for kind in ["kd", "dkd", "dist", "lskd", "nkd", "wsld", "ttm"] {
        let methods = format!("compare.methods=[\"vanilla\", {kind:?}]");
        let error = plan(data.path(), &across(&data), &[&methods]).unwrap_err().to_string();
        let why = format!(
            "{kind} compares one distribution over all classes, and the targets of these data are sets of classes: take a method \
             that compares features, or data with one class a sample"
        );
        assert!(error.starts_with(&format!("method.{kind}: terms[0] ({kind}, teacher rgb): ")), "{error}");
        assert!(error.ends_with(&why), "{error}");
    }
}

#[test]
fn sets_of_classes_are_combined_by_their_logits_alone() {
    let data = frames();
    for kind in ["mean_probabilities", "confidence"] {
        let combined = format!("teacher.two.combine={{ kind = {kind:?}, teachers = [\"rgb\"] }}");
        let error = plan(data.path(), &across(&data), &[&combined]).unwrap_err().to_string();
        let expected = format!(
            "teacher.two: {kind} takes one distribution over all classes, and the targets of these data are sets of classes: \
             combine by mean_logits"
        );
        assert_eq!(error, expected);
    }
    let combined = "teacher.two.combine={ kind = \"mean_logits\", teachers = [\"rgb\"] }";
    plan(data.path(), &across(&data), &[combined]).unwrap();
}

#[test]
fn a_pair_with_views_alike_is_the_pair_with_one_view() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let few = ["compare.seeds=[0]", "compare.methods=[\"kd\", \"crd\", \"at\"]", "probe={}"];
    let one = plan(folders[0].path(), TRANSFER, &few).unwrap();
    let two = plan(folders[1].path(), TRANSFER, &[&few[..], &["student.view=\"two\""]].concat()).unwrap();
    execute(&one, &mut ());
    execute(&two, &mut ());
    for (one, two) in students(&one).into_iter().zip(students(&two)) {
        assert_eq!((one.summary.view.as_str(), two.summary.view.as_str()), ("one", "two"));
        assert!(one.weights == two.weights, "{}: what the views are called changed the student", one.method);
        assert_eq!(one.summary.accuracy, two.summary.accuracy, "{}", one.method);
    }
}

#[test]
fn probes_follow_the_students_and_are_done_once() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let [planned, again] = folders.each_ref().map(|folder| plan(folder.path(), TRANSFER, &[]).unwrap());
    let text = planned.to_string();
    assert!(
        text.contains("probe other: linear classifiers on frozen networks, on Shapes: 100 to train on, 60 to test on"),
        "{text}"
    );
    assert!(text.contains("  2 × random backbone, 64 features of view image"), "{text}");
    execute(&planned, &mut ());
    let found = probes(&planned);
    let names: Vec<(ProbedNetwork, u64)> = found.iter().map(|record| (record.network.clone(), record.seed)).collect();
    let [vanilla, crd] = ["vanilla", "crd"].map(|method| ProbedNetwork::Student { method: method.to_owned() });
    let teacher = ProbedNetwork::Teacher { name: "big".to_owned() };
    let expected = [vanilla, crd, teacher, ProbedNetwork::Untrained];
    assert_eq!(
        names,
        expected.into_iter().flat_map(|network| [(network.clone(), 0), (network, 1)]).collect::<Vec<_>>()
    );
    for record in &found {
        assert_eq!((record.samples, record.classes, record.features), ([100, 60].into(), 20, 64));
        assert_eq!((record.view.as_str(), record.tap.to_string().as_str()), ("image", "pooled"));
        assert!(record.train_loss < 20.0_f64.ln(), "worse than nothing: {record:?}");
    }
    // One file of features for each network: seven, for a teacher is one of two seeds.
    let features = tensors(&planned);
    assert_eq!(features.len(), 7);
    // Again from nothing: the same numbers, and the same features.
    execute(&again, &mut ());
    assert_eq!(probes(&again), found);
    for (one, other) in features.iter().zip(tensors(&again)) {
        assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "features differ");
    }
    // Once more: nothing is left to be done. What is gone is done again, from the features that are there; damaged ones are
    // taken anew.
    let records = named(&planned.folder, "probe.json");
    let before = written(&records);
    execute(&planned, &mut ());
    assert_eq!(written(&records), before);
    let first = &records[0];
    fs::remove_file(first).unwrap();
    assert!(stops(&planned, Limit::Time(Duration::ZERO)));
    assert!(!first.exists(), "it was not stopped");
    // One that was read off other weights is done again.
    execute(&planned, &mut ());
    let mut other: ProbeRecord = store::read_json(first).unwrap();
    other.digest = "beef".to_owned();
    store::write_json(first, &other).unwrap();
    execute(&planned, &mut ());
    assert_eq!(probes(&planned), found);
    let damaged = &features[0];
    let whole = fs::read(damaged).unwrap();
    fs::write(damaged, &whole[..whole.len() - 3]).unwrap();
    for path in &records {
        fs::remove_file(path).unwrap();
    }
    execute(&planned, &mut ());
    assert_eq!(probes(&planned), found);
    assert!(fs::read(damaged).unwrap() == whole, "the damaged features were not taken anew");

    let report = report::write(std::slice::from_ref(&planned.folder), &report::Options::default()).unwrap();
    let markdown = fs::read_to_string(report.folder.join("report.md")).unwrap();
    let section = &markdown[markdown.find("## Linear probes").unwrap()..];
    for row in ["| vanilla ", "| crd ", "| teacher big ", "| random backbone "] {
        assert!(section.contains(row), "{section}");
    }
    assert!(section.contains("The best distilled student, `crd`, minus the random backbone: "), "{section}");
    let rows = fs::read_to_string(report.folder.join("probes.csv")).unwrap();
    assert_eq!(rows.lines().count(), 9);
    let first = rows.lines().nth(1).unwrap();
    assert!(
        first.starts_with("transfer,other,student,vanilla,0,resnet8,image,pooled,64,Shapes,20,100,60,3,top1,"),
        "{first}"
    );
    assert!(rows.contains(&format!(",{},", found[0].test.score())), "not in full precision");
}

#[test]
fn a_probe_that_fails_says_why_in_its_log_and_in_the_report() {
    let folder = TempDir::new().unwrap();
    let few = ["compare.seeds=[0]", "compare.methods=[\"vanilla\"]", "probe.other.train.learning_rate=1e38"];
    let plan = plan(folder.path(), TRANSFER, &few).unwrap();
    let finished = run::execute(&plan, &Stop::default(), &mut ()).unwrap();
    let reason = "the loss became non-finite in epoch 1: choose a smaller probe.other.train.learning_rate";
    let failed = ["vanilla", "random backbone"].map(|name| format!("probe other, {name}, seed 0: {reason}"));
    assert_eq!((finished.failed, finished.stopped), (failed.to_vec(), false));
    let probes =
        PlannedProbeRun::all(&plan).map(|run| limbeck_cli::log::failure(&run.subject.folder)).collect::<Vec<_>>();
    assert_eq!(probes, [Some(reason.to_owned()), Some(reason.to_owned())]);
    let report = report::write(std::slice::from_ref(&plan.folder), &report::Options::default()).unwrap();
    let markdown = fs::read_to_string(report.folder.join("report.md")).unwrap();
    let section = markdown[markdown.find("## Linear probes").unwrap()..].replace("\n  ", " ");
    assert!(section.contains("\nNo classifier has a result.\n"), "{section}");
    assert!(section.contains(&format!("- vanilla, seed 0, failed: {reason}")), "{section}");
}

/// The features that probes keep.
fn tensors(plan: &Plan) -> Vec<PathBuf> {
    let mut files = entries(&plan.folder.join("probes/features"));
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files
}

/// When files were written.
fn written(files: &[PathBuf]) -> Vec<std::time::SystemTime> {
    files.iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect()
}

#[test]
fn a_probed_network_does_not_move() {
    let folder = TempDir::new().unwrap();
    let planned = plan(folder.path(), TRANSFER, &["compare.methods=[\"vanilla\"]", "compare.seeds=[3]"]).unwrap();
    execute(&planned, &mut ());
    let student = named(&planned.folder, "student.safetensors").remove(0);
    let (model, spec) = (&*planned.experiment.student.model, planned.data.spec(Some("one")).unwrap());
    let network = Backbone::load(model, &spec, &student, Device::Cpu).unwrap();
    let images = Tensor::randn([6, 3, 32, 32], (Kind::Float, Device::Cpu)) * 30.0;
    let tap = planned.experiment.probe["other"].tap.clone();
    let together = network.features(&images, &tap).unwrap();
    for row in 0..6 {
        let alone = network.features(&images.narrow(0, row, 1), &tap).unwrap();
        assert!(alone.allclose(&together.narrow(0, row, 1), 1e-5, 1e-6, false), "a batch's statistics were used");
    }
    // Byte for byte what is in the file, BatchNorm's running statistics included.
    let expected = weights::read(&student).unwrap().tensors;
    let now = network.variables();
    assert_eq!(now.len(), expected.len());
    for (name, tensor) in now {
        assert!(tensor.contiguous().equal(&expected[&name]), "{name} has moved");
        assert!(!tensor.requires_grad(), "{name} can be trained");
    }
    assert!(expected.keys().any(|name| name.ends_with("running_mean")));
    // What never trained is what the student of that seed began with: other than what it ended with.
    let began = named(&planned.folder, "untrained.safetensors").remove(0);
    let began = weights::read(&began).unwrap().tensors;
    assert!(began.keys().eq(expected.keys()) && !began["fc.weight"].equal(&expected["fc.weight"]));
    assert!(began.values().all(|tensor| tensor.isfinite().all().int64_value(&[]) == 1));
}

/// The message about an experiment with a probe, with these values replaced.
fn refusal(values: &[&str]) -> String {
    plan(Path::new("nowhere"), TRANSFER, values).unwrap_err().to_string()
}

#[test]
fn what_a_probe_lacks_is_said_while_planning() {
    let error = refusal(&["probe.other.tap=\"polled\""]);
    assert!(error.starts_with("probe.other: ") && error.contains("polled") && error.contains("pooled"), "{error}");
    let error = refusal(&["probe.other.view=\"depth\""]);
    assert_eq!(error, "probe.other: data set Shapes has no view `depth`; it has image");
    let ab = "probe.other.dataset.views={ ab = { steps = [{ kind = \"ab\" }] } }";
    let error = refusal(&[ab, "probe.other.view=\"ab\""]);
    assert_eq!(
        error,
        "probe.other: view `ab` is 2×32×32, and resnet8 takes 3×32×32: set the size of the probe's data, or another `view`"
    );
    let error = refusal(&["probe.other.train.epochs=0"]);
    assert!(error.starts_with("epochs must be between 1 and 1000000, not 0"), "{error}");
    let error = refusal(&["probe.other.seeds=[]"]);
    assert!(error.starts_with("there is no seed: leave it out to use compare.seeds"), "{error}");
    let error = refusal(&["probe.other.epochs=3"]);
    assert!(error.starts_with("unknown key `epochs`"), "{error}");
    // Without a view of its name, the probe's data say which they have.
    let error = refusal(&["probe={ other = { dataset = { kind = \"shapes\", train = 40, test = 40 } } }"]);
    assert!(error.contains("has no view `one`") && error.contains("set `view`"), "{error}");
}

#[test]
fn a_probe_is_chosen_with_its_student() {
    let folder = TempDir::new().unwrap();
    let planned = plan(folder.path(), TRANSFER, &["probe.other.seeds=[0, 1, 2, 3]"]).unwrap();
    let runs: Vec<PlannedProbeRun<'_>> = PlannedProbeRun::all(&planned).collect();
    assert_eq!(runs.len(), 4 + 4 + 4);
    assert!(runs.iter().all(|run| run.progress() == Stage::New));
    let students: Vec<&str> =
        runs.iter().filter(|run| run.subject.cell.is_some()).map(|run| run.subject.name.as_str()).collect();
    assert_eq!(students[..2], ["probe other, vanilla, seed 0", "probe other, vanilla, seed 1"]);
    let folders: std::collections::HashSet<_> = runs.iter().map(|run| &run.subject.folder).collect();
    assert_eq!(folders.len(), runs.len());
}
