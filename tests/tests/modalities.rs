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
use limbeck::event::Observer;
use limbeck::probe::Backbone;
use limbeck::record::{ProbeRecord, ProbedNetwork, Summary};
use limbeck::{config, weights};
use limbeck_cli::plan::Plan;
use limbeck_cli::plan::runs::PlannedProbeRun;
use limbeck_cli::progress::Progress;
use limbeck_cli::store::Progress as Stage;
use limbeck_cli::{report, run, store};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const HEIGHT: usize = 20;
const WIDTH: usize = 24;

fn png(path: &Path, color: png::ColorType, pixels: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), WIDTH as u32, HEIGHT as u32);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
}

/// Thirty frames of photographs, depth and label maps: most of a map is of class frame modulo 3, and every other frame has a
/// border of class 3.
fn frames() -> TempDir {
    let folder = TempDir::new().unwrap();
    for frame in 0..30 {
        let file = |kind: &str| folder.path().join(format!("{kind}/{frame:02}.png"));
        let depth: Vec<u8> =
            (0..HEIGHT * WIDTH).map(|p| (7 * frame + (3 + frame % 3) * (p % WIDTH) + 2 * (p / WIDTH)) as u8).collect();
        png(&file("depth"), png::ColorType::Grayscale, &depth);
        let rgb: Vec<u8> = depth.iter().flat_map(|d| [*d, 255 - d, (frame % 3 * 80) as u8]).collect();
        png(&file("rgb"), png::ColorType::Rgb, &rgb);
        let class = |p: usize| if p < 3 * WIDTH && frame % 2 == 0 { 3 } else { (frame % 3) as u8 };
        png(&file("labels"), png::ColorType::Grayscale, &(0..HEIGHT * WIDTH).map(class).collect::<Vec<u8>>());
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

fn plan(text: &str, overrides: &[&str], out: &Path) -> limbeck::error::Result<Plan> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Plan::new(config::parse(text, Path::new("file.toml"), &overrides)?, Path::new("file.toml"), out)
}

fn execute(text: &str, overrides: &[&str], out: &Path, observer: &mut dyn Observer) -> run::Finished {
    run::execute(&plan(text, overrides, out).unwrap(), &Stop::default(), observer).unwrap()
}

fn across(data: &TempDir) -> String {
    ACROSS.replace("DATA", data.path().to_str().unwrap())
}

/// Every student's weights and summary, by method and seed.
fn students(folder: &Path) -> Vec<(String, Vec<u8>, Summary)> {
    let plan: store::PlanFile = store::read_json(&folder.join(store::PLAN)).unwrap();
    let read = |cell: &store::CellEntry| {
        let folder = folder.join(&cell.folder);
        let weights = fs::read(folder.join("student.safetensors")).unwrap();
        (format!("{}{}", cell.method, cell.seed), weights, store::summary(&folder).unwrap().unwrap())
    };
    plan.cells.iter().map(read).collect()
}

/// What every probe came to, but for its time.
fn probes(folder: &Path) -> Vec<ProbeRecord> {
    let plan: store::PlanFile = store::read_json(&folder.join(store::PLAN)).unwrap();
    let read = |entry: &store::ProbeEntry| {
        let record = store::probe(&folder.join(&entry.folder)).unwrap().unwrap();
        ProbeRecord { seconds: 0.0, ..record }
    };
    plan.probes.iter().map(read).collect()
}

/// Every file below a folder with that name.
fn files(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry, name)),
            false if entry.ends_with(name) => found.push(entry),
            false => {}
        }
    }
    found.sort();
    found
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

#[test]
fn sets_of_classes_are_never_called_top_1() {
    let (data, out) = (frames(), TempDir::new().unwrap());
    let (text, lines) = (across(&data), Lines::default());
    let planned = plan(&text, &[], out.path()).unwrap().to_string();
    assert!(planned.contains("measured by mean average precision (mAP), not by top-1"), "{planned}");
    assert!(planned.contains("method vanilla: 1 × binary cross-entropy"), "{planned}");
    assert!(planned.contains("targets are the classes with at least 1 % of the pixels"), "{planned}");
    let finished = execute(&text, &[], out.path(), &mut Progress::lines_to(lines.clone()));
    assert_eq!(finished.failed, Vec::<String>::new());
    let said = String::from_utf8(lines.0.take()).unwrap();
    let line = said.lines().find(|line| line.starts_with("vanilla, seed 0: main epoch 3/3")).unwrap();
    assert!(line.contains(", validation mAP ") && line.contains(", test mAP "), "{line}");
    assert!(!line.contains("train ") && !line.contains("top-5"), "{line}");

    let students = students(&finished.folder);
    for (name, _, summary) in &students {
        assert_eq!(summary.samples, [20, 4, 6].into(), "{name}");
        let last = summary.accuracy.as_ref().unwrap().last;
        assert_eq!((last.task().name(), last.beside().count()), ("presence", 0));
        assert!(last.score() > 0.0 && last.score() <= 100.0, "{name}: {last:?}");
        let record = summary.history.last().unwrap();
        assert_eq!(record.train_top1, None);
        // No labels, no loss by them.
        assert_eq!(record.train.contains_key("binary_cross_entropy"), name == "vanilla0", "{:?}", record.train);
        assert!(!record.train.contains_key("cross_entropy"));
    }
    for name in ["summary.json", "events.jsonl", "probe.json", "similarity.json"] {
        let found = files(out.path(), name);
        assert!(found.len() >= 2, "{name}");
        for path in found {
            let text = fs::read_to_string(&path).unwrap();
            for word in ["top1", "top5", "agreement", "calibration", "divergence"] {
                assert!(!text.contains(word), "{} speaks of {word}", path.display());
            }
        }
    }
    let similarity: limbeck::record::Similarity = store::read_json(&files(out.path(), "similarity.json")[0]).unwrap();
    let samples: Vec<usize> = similarity.classes.iter().map(|class| class.samples).collect();
    // Frames 4, 9, 14, 19, 24 and 29 are tested on: two of each class, a border on the even ones, and class 4 nowhere.
    assert_eq!(samples, [2, 2, 2, 3, 0]);
    assert!(similarity.classes[3].score().is_some() && similarity.classes[4].score().is_none());

    let report = report::write(std::slice::from_ref(&finished.folder), &report::Options::default()).unwrap();
    let read = |name: &str| fs::read_to_string(report.folder.join(name)).unwrap();
    let markdown = read("report.md");
    assert!(markdown.contains("| method  | seeds |") && markdown.contains(" mAP |"), "{markdown}");
    assert!(markdown.contains("method `vanilla`: 1 binary cross-entropy"), "{markdown}");
    for said in [markdown.as_str(), &read("report.html"), &read("report.tex"), &read("summary.md")] {
        let rest = said.replace("not top-1", "").replace("not\ntop-1", "");
        assert!(!rest.to_lowercase().contains("top-1") && !rest.contains("top-5"), "{said}");
    }
    for entry in fs::read_dir(&report.folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|extension| extension == "csv") && !entry.ends_with("probes.csv") {
            let text = fs::read_to_string(&entry).unwrap();
            assert!(!text.contains("top1") && !text.contains("top5"), "{}", entry.display());
        }
    }
    let header = read("comparison.csv").lines().next().unwrap().to_owned();
    assert!(header.contains(",mean_average_precision_mean,mean_average_precision_deviation,baseline,"), "{header}");
    // Two methods, and four classes that a test sample has.
    assert_eq!(read("classes.csv").lines().skip(1).count(), 2 * 4);
    for name in ["report.md", "summary.md"] {
        let text = read(name);
        let called: Vec<&str> = text.lines().filter(|line| line.to_lowercase().contains("accurac")).collect();
        assert_eq!(called, Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_batch_without_any_class_is_no_reason_not_to_evaluate() {
    let (data, out) = (frames(), TempDir::new().unwrap());
    let planned = plan(&across(&data), &["dataset.present=0.9"], out.path()).unwrap();
    // Frame 4 is the first to be tested on, and its border leaves no class nine tenths of it.
    let batch = |row| {
        let (rows, views) = (Rows::new(vec![row], Device::Cpu), ["depth"].into_iter().collect());
        let batch = planned.data.dataset.batch(Split::Test, &rows, &views, None).unwrap();
        batch.targets.unwrap().sum(None::<Kind>).double_value(&[])
    };
    assert_eq!([batch(0), batch(1)], [0.0, 1.0]);
    let weights = out.path().join("weights.safetensors");
    let spec = planned.data.spec(Some("depth")).unwrap();
    Backbone::write_untrained(&*planned.experiment.student.model, &spec, 0, &weights).unwrap();
    let dataset = format!(
        "{{ kind = \"paired_folders\", path = {:?}, size = [16, 16], classes = 5, target = \"presence\", block = 1, present \
         = 0.9 }}",
        data.path()
    );
    let file = weights.to_str().unwrap();
    let arguments = ["limbeck", "evaluate", "--model", "resnet8", "--weights", file, "--dataset", &dataset, "--view"];
    let more = ["depth", "--batch", "1", "--device", "cpu"];
    let code = limbeck_cli::cli::main(arguments.into_iter().chain(more).map(Into::into));
    assert_eq!(code, std::process::ExitCode::SUCCESS);
}

#[test]
fn sets_of_classes_stopped_and_resumed_end_with_the_same_bytes() {
    let (data, whole, stopped) = (frames(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let text = across(&data);
    execute(&text, &[], whole.path(), &mut ());
    let mut calls = 0;
    loop {
        let plan = plan(&text, &[], stopped.path()).unwrap();
        let finished = run::execute(&plan, &Stop::new(Some(Limit::Steps(2))), &mut ()).unwrap();
        calls += 1;
        assert!(calls < 40, "it never ends");
        if !finished.stopped {
            break;
        }
    }
    assert!(calls >= 6, "stopped {calls} times");
    let [one, other] = [&whole, &stopped].map(|out| out.path().join("across"));
    for ((name, weights, summary), (_, again, found)) in students(&one).into_iter().zip(students(&other)) {
        assert!(weights == again, "{name}: the student differs");
        assert_eq!(summary.accuracy, found.accuracy, "{name}");
    }
    assert_eq!(probes(&one), probes(&other));
}

#[test]
fn methods_of_one_class_are_refused_for_sets_of_classes() {
    let (data, out) = (frames(), TempDir::new().unwrap());
    for kind in ["kd", "dkd", "dist", "lskd", "nkd", "wsld", "ttm"] {
        let methods = format!("compare.methods=[\"vanilla\", {kind:?}]");
        let error = plan(&across(&data), &[&methods], out.path()).unwrap_err().to_string();
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
    let (data, out) = (frames(), TempDir::new().unwrap());
    let combined = |kind: &str| format!("teacher.two.combine={{ kind = {kind:?}, teachers = [\"rgb\"] }}");
    for kind in ["mean_probabilities", "confidence"] {
        let error = plan(&across(&data), &[&combined(kind)], out.path()).unwrap_err().to_string();
        let expected = format!(
            "teacher.two: {kind} takes one distribution over all classes, and the targets of these data are sets of classes: \
             combine by mean_logits"
        );
        assert_eq!(error, expected);
    }
    plan(&across(&data), &[&combined("mean_logits")], out.path()).unwrap();
}

#[test]
fn a_pair_with_views_alike_is_the_pair_with_one_view() {
    let [one, two] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let few = ["compare.seeds=[0]", "compare.methods=[\"kd\", \"crd\", \"at\"]", "probe={}"];
    execute(TRANSFER, &few, one.path(), &mut ());
    execute(TRANSFER, &[&few[..], &["student.view=\"two\""]].concat(), two.path(), &mut ());
    let [one, two] = [one, two].map(|out| students(&out.path().join("transfer")));
    for ((name, weights, summary), (_, other, found)) in one.into_iter().zip(two) {
        assert_eq!((summary.view.as_str(), found.view.as_str()), ("one", "two"));
        assert!(weights == other, "{name}: what the views are called changed the student");
        assert_eq!(summary.accuracy, found.accuracy, "{name}");
    }
}

#[test]
fn probes_follow_the_students_and_are_done_once() {
    let [out, again] = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let planned = plan(TRANSFER, &[], out.path()).unwrap();
    let text = planned.to_string();
    assert!(
        text.contains("probe other: linear classifiers on frozen networks, on Shapes: 100 to train on, 60 to test on"),
        "{text}"
    );
    assert!(text.contains("  2 × random backbone, 64 features of view image"), "{text}");
    let finished = execute(TRANSFER, &[], out.path(), &mut ());
    assert_eq!((finished.failed.len(), finished.stopped), (0, false));
    let found = probes(&finished.folder);
    let names: Vec<(ProbedNetwork, u64)> = found.iter().map(|record| (record.network.clone(), record.seed)).collect();
    let student = |method: &str| ProbedNetwork::Student { method: method.to_owned() };
    let teacher = ProbedNetwork::Teacher { name: "big".to_owned() };
    let expected = [student("vanilla"), student("crd"), teacher, ProbedNetwork::Untrained];
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
    let features = |out: &Path| files_of(&out.join("transfer/probes/features"));
    assert_eq!(features(out.path()).len(), 7);
    // Again from nothing: the same numbers, and the same features.
    execute(TRANSFER, &[], again.path(), &mut ());
    assert_eq!(probes(&again.path().join("transfer")), found);
    let read = |out: &Path| features(out).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    assert!(read(out.path()) == read(again.path()), "features differ");
    // Once more: nothing is left to be done. What is gone is done again, from the features that are there; damaged ones are
    // taken anew.
    let logs = |out: &Path| {
        files(out, "probe.json").iter().map(|path| fs::metadata(path).unwrap().modified().unwrap()).collect::<Vec<_>>()
    };
    let before = logs(out.path());
    execute(TRANSFER, &[], out.path(), &mut ());
    assert_eq!(logs(out.path()), before);
    let first = files(out.path(), "probe.json").remove(0);
    fs::remove_file(&first).unwrap();
    let over = Stop::new(Some(Limit::Time(Duration::ZERO)));
    assert!(run::execute(&plan(TRANSFER, &[], out.path()).unwrap(), &over, &mut ()).unwrap().stopped);
    assert!(!first.exists(), "it was not stopped");
    // One that was read off other weights is done again.
    execute(TRANSFER, &[], out.path(), &mut ());
    let mut other: ProbeRecord = store::read_json(&first).unwrap();
    other.digest = "beef".to_owned();
    store::write_json(&first, &other).unwrap();
    execute(TRANSFER, &[], out.path(), &mut ());
    assert_eq!(probes(&finished.folder), found);
    let damaged = features(out.path()).remove(0);
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, &whole[..whole.len() - 3]).unwrap();
    for path in files(out.path(), "probe.json") {
        fs::remove_file(path).unwrap();
    }
    execute(TRANSFER, &[], out.path(), &mut ());
    assert_eq!(probes(&finished.folder), found);
    assert!(fs::read(&damaged).unwrap() == whole, "the damaged features were not taken anew");

    let report = report::write(std::slice::from_ref(&finished.folder), &report::Options::default()).unwrap();
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
    let out = TempDir::new().unwrap();
    let few = ["compare.seeds=[0]", "compare.methods=[\"vanilla\"]", "probe.other.train.learning_rate=1e38"];
    let finished = execute(TRANSFER, &few, out.path(), &mut ());
    let reason = "the loss became non-finite in epoch 1: choose a smaller probe.other.train.learning_rate";
    let failed = ["vanilla", "random backbone"].map(|name| format!("probe other, {name}, seed 0: {reason}"));
    assert_eq!((finished.failed, finished.stopped), (failed.to_vec(), false));
    let probes = PlannedProbeRun::all(&plan(TRANSFER, &few, out.path()).unwrap())
        .map(|run| limbeck_cli::log::failure(&run.subject.folder))
        .collect::<Vec<_>>();
    assert_eq!(probes, [Some(reason.to_owned()), Some(reason.to_owned())]);
    let report = report::write(std::slice::from_ref(&finished.folder), &report::Options::default()).unwrap();
    let markdown = fs::read_to_string(report.folder.join("report.md")).unwrap();
    let section = markdown[markdown.find("## Linear probes").unwrap()..].replace("\n  ", " ");
    assert!(section.contains("\nNo classifier has a result.\n"), "{section}");
    assert!(section.contains(&format!("- vanilla, seed 0, failed: {reason}")), "{section}");
}

/// The files of tensors in a folder.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    found.sort();
    found
}

#[test]
fn a_probed_network_does_not_move() {
    let out = TempDir::new().unwrap();
    let finished = execute(TRANSFER, &["compare.methods=[\"vanilla\"]", "compare.seeds=[3]"], out.path(), &mut ());
    let planned = plan(TRANSFER, &["compare.methods=[\"vanilla\"]", "compare.seeds=[3]"], out.path()).unwrap();
    let student = files(&finished.folder, "student.safetensors").remove(0);
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
    let began = files(&finished.folder, "untrained.safetensors").remove(0);
    let began = weights::read(&began).unwrap().tensors;
    assert!(began.keys().eq(expected.keys()) && !began["fc.weight"].equal(&expected["fc.weight"]));
    assert!(began.values().all(|tensor| tensor.isfinite().all().int64_value(&[]) == 1));
}

#[test]
fn what_a_probe_lacks_is_said_while_planning() {
    let out = TempDir::new().unwrap();
    let refusal = |set: &str| plan(TRANSFER, &[set], out.path()).unwrap_err().to_string();
    let error = refusal("probe.other.tap=\"polled\"");
    assert!(error.starts_with("probe.other: ") && error.contains("polled") && error.contains("pooled"), "{error}");
    let error = refusal("probe.other.view=\"depth\"");
    assert_eq!(error, "probe.other: data set Shapes has no view `depth`; it has image");
    let ab = "probe.other.dataset.views={ ab = { steps = [{ kind = \"ab\" }] } }";
    let error = plan(TRANSFER, &[ab, "probe.other.view=\"ab\""], out.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        "probe.other: view `ab` is 2×32×32, and resnet8 takes 3×32×32: set the size of the probe's data, or another `view`"
    );
    let error = refusal("probe.other.train.epochs=0");
    assert!(error.starts_with("epochs must be between 1 and 1000000, not 0"), "{error}");
    let error = refusal("probe.other.seeds=[]");
    assert!(error.starts_with("there is no seed: leave it out to use compare.seeds"), "{error}");
    let error = refusal("probe.other.epochs=3");
    assert!(error.starts_with("unknown key `epochs`"), "{error}");
    // Without a view of its name, the probe's data say which they have.
    let error = refusal("probe={ other = { dataset = { kind = \"shapes\", train = 40, test = 40 } } }");
    assert!(error.contains("has no view `one`") && error.contains("set `view`"), "{error}");
}

#[test]
fn a_probe_is_chosen_with_its_student() {
    let out = TempDir::new().unwrap();
    let planned = plan(TRANSFER, &["probe.other.seeds=[0, 1, 2, 3]"], out.path()).unwrap();
    let runs: Vec<PlannedProbeRun<'_>> = PlannedProbeRun::all(&planned).collect();
    assert_eq!(runs.len(), 4 + 4 + 4);
    assert!(runs.iter().all(|run| run.progress() == Stage::New));
    let students: Vec<&str> =
        runs.iter().filter(|run| run.subject.cell.is_some()).map(|run| run.subject.name.as_str()).collect();
    assert_eq!(students[..2], ["probe other, vanilla, seed 0", "probe other, vanilla, seed 1"]);
    let folders: std::collections::HashSet<_> = runs.iter().map(|run| &run.subject.folder).collect();
    assert_eq!(folders.len(), runs.len());
}
