//! The ready experiments: each is read and planned, against small files of the layout that its data have; that on ImageNet
//! takes a few steps, too.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::cohort::Limit;
use limbeck::config::grid::Filter;
use limbeck::config::load_grid;
use limbeck::registry::{self, Role};
use limbeck_cli::plan::cohorts;
use limbeck_cli::plan::sweep::{Options, Sweep};
use limbeck_cli::plan::{Plan, data::DataCache};
use limbeck_tests::experiment::overrides;
use limbeck_tests::files::{checkout, entries, png};
use limbeck_tests::runs::stops;
use tempfile::TempDir;

fn configs() -> Vec<PathBuf> {
    entries(&checkout().join("experiments/configs"))
}

fn config(name: &str) -> PathBuf {
    checkout().join("experiments/configs").join(name)
}

/// A ready experiment on small data, as far as it is chosen.
fn sweep(path: &Path, data: &Path, only: &[&str]) -> Sweep {
    let values =
        ["threads=1".to_owned(), "device=\"cpu\"".to_owned(), format!("dataset.path={:?}", data.display().to_string())];
    let grid = load_grid(path, &values, &Filter::new(only.iter().copied()).unwrap()).unwrap();
    Sweep::new(grid, path, Path::new("runs"), &Options::default(), &mut DataCache::default()).unwrap()
}

/// The binary version of CIFAR-100 as its page describes it, with every label and black images.
fn cifar100() -> TempDir {
    const RECORD: usize = 2 + 3 * 32 * 32;
    let folder = TempDir::new().unwrap();
    let inside = folder.path().join("cifar-100-binary");
    fs::create_dir(&inside).unwrap();
    for (name, count) in [("train.bin", 50_000), ("test.bin", 10_000)] {
        let mut bytes = vec![0; count * RECORD];
        for (i, record) in bytes.chunks_exact_mut(RECORD).enumerate() {
            (record[0], record[1]) = ((i % 20) as u8, (i % 100) as u8);
        }
        fs::write(inside.join(name), bytes).unwrap();
    }
    for (name, count) in [("fine_label_names.txt", 100), ("coarse_label_names.txt", 20)] {
        fs::write(inside.join(name), (0..count).map(|i| format!("class_{i}\n")).collect::<String>()).unwrap();
    }
    folder
}

/// A picture of noise.
fn noise(path: PathBuf, [height, width]: [usize; 2], colour: png::ColorType) {
    let channels = if colour == png::ColorType::Rgb { 3 } else { 1 };
    let pixels: Vec<u8> = (0..channels * height * width).map(|i| (i * i % 7) as u8).collect();
    png(&path, [height, width], colour, &pixels);
}

/// A folder of images: two classes.
fn image_folder(folder: &Path) {
    for (part, class, image) in
        [("train", "n01", 0), ("train", "n01", 1), ("train", "n02", 2), ("val", "n01", 3), ("val", "n02", 4)]
    {
        noise(folder.join(format!("{part}/{class}/{image}.png")), [32, 32], png::ColorType::Rgb);
    }
}

/// Photographs, depth and label maps: as many frames as five blocks have.
fn frames(folder: &Path) {
    for frame in 0..250 {
        for (kind, color) in
            [("rgb", png::ColorType::Rgb), ("depth", png::ColorType::Grayscale), ("labels", png::ColorType::Grayscale)]
        {
            noise(folder.join(format!("{kind}/{frame:04}.png")), [6, 8], color);
        }
    }
}

/// Tiny ImageNet's layout, with two classes.
fn tiny_imagenet(folder: &Path) {
    let root = folder.join("tiny-imagenet-200");
    for class in ["n01", "n02"] {
        noise(root.join(format!("train/{class}/images/{class}_0.png")), [64, 64], png::ColorType::Rgb);
    }
    noise(root.join("val/images/val_0.png"), [64, 64], png::ColorType::Rgb);
    fs::write(root.join("wnids.txt"), "n01\nn02\n").unwrap();
    fs::write(root.join("words.txt"), "n01\tgoldfish\nn02\tbullfrog\n").unwrap();
    fs::write(root.join("val/val_annotations.txt"), "val_0.png\tn02\t0\t0\t9\t9\n").unwrap();
}

/// The binary version of STL-10, black.
fn stl10(folder: &Path) {
    let inside = folder.join("stl10_binary");
    fs::create_dir(&inside).unwrap();
    for (name, count) in [("train", 5_000), ("test", 8_000)] {
        fs::File::create(inside.join(format!("{name}_X.bin"))).unwrap().set_len(count * 3 * 96 * 96).unwrap();
        fs::write(inside.join(format!("{name}_y.bin")), vec![1; count as usize]).unwrap();
    }
    fs::write(inside.join("class_names.txt"), (0..10).map(|i| format!("class_{i}\n")).collect::<String>()).unwrap();
}

/// Where the data of an experiment are, in place of what its file says: one folder has them all.
fn data_of(text: &str, folder: &Path) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let probes = table.get("probe").and_then(toml::Value::as_table).into_iter().flatten();
    let mut datasets = vec![("dataset".to_owned(), &table["dataset"])];
    datasets.extend(probes.filter_map(|(name, probe)| Some((format!("probe.{name}.dataset"), probe.get("dataset")?))));
    let mut values = Vec::new();
    for (key, dataset) in datasets {
        let path = dataset.get("path").and_then(toml::Value::as_str);
        if let Some(inside) = path.and_then(|path| path.strip_prefix("data")) {
            values.push(format!("{key}.path={:?}", format!("{}{inside}", folder.display())));
        }
    }
    values
}

/// A folder in the layout of ImageNet: two classes of a few pictures, larger and smaller than what networks see.
fn imagenet() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (part, count) in [("train", 4), ("val", 1)] {
        for (class, name) in ["n01440764", "n01443537"].into_iter().enumerate() {
            let inside = folder.path().join(part).join(name);
            fs::create_dir_all(&inside).unwrap();
            for i in 0..count {
                let (width, height) = (200 + 60 * i as u16, 260);
                let pixels: Vec<u8> = (0..3 * usize::from(width) * usize::from(height))
                    .map(|at| (at / 7 * (class + 1) + i) as u8)
                    .collect();
                let encoder = jpeg_encoder::Encoder::new_file(inside.join(format!("{i}.JPEG")), 90).unwrap();
                encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb).unwrap();
            }
        }
    }
    folder
}

/// The values of an axis called `pair` whose networks are linked into this program; nothing if there is no such axis.
fn pairs(path: &Path) -> Option<Vec<String>> {
    let table: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    let kinds: Vec<&str> = registry::plugins_of(Role::Model).iter().map(|plugin| plugin.name).collect();
    let pairs = table.get("grid")?.get("pair")?.as_array()?;
    let mut linked = Vec::new();
    for pair in pairs {
        let set = pair["set"].as_table().unwrap();
        let mut networks = set.iter().filter(|(key, _)| key.ends_with("model.kind"));
        if networks.all(|(_, kind)| kinds.contains(&kind.as_str().unwrap())) {
            linked.push(format!("pair={}", pair["name"].as_str().unwrap()));
        }
    }
    Some(linked)
}

#[test]
fn every_ready_experiment_is_planned() {
    let (data, mut pool) = (cifar100(), DataCache::default());
    image_folder(&data.path().join("tiny-imagenet-32"));
    let images = imagenet();
    std::os::unix::fs::symlink(images.path(), data.path().join("imagenet")).unwrap();
    frames(&data.path().join("nyu-depth-v2-small"));
    tiny_imagenet(data.path());
    stl10(data.path());
    let paths = configs();
    assert!(paths.len() >= 20, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let pairs = pairs(&path);
        if pairs.as_ref().is_some_and(Vec::is_empty) {
            println!("{}: none of its networks is linked", path.display());
            continue;
        }
        let mut overrides = vec!["threads=1".to_owned(), "device=\"cpu\"".to_owned()];
        overrides.extend(data_of(&text, data.path()));
        let only = Filter::new(pairs.iter().flatten().map(String::as_str)).unwrap();
        let grid = load_grid(&path, &overrides, &only).unwrap();
        let all = grid.listing.len();
        let sweep = Sweep::new(grid, &path, Path::new("runs"), &Options::default(), &mut pool).unwrap();
        let name = path.file_stem().unwrap();
        assert_eq!(sweep.folder, Path::new("runs").join(name));
        assert_eq!(sweep.points.len(), pairs.map_or(all, |pairs| pairs.len()), "{name:?}");
        assert_eq!(sweep.points.len() > 1, text.contains("[grid]") || text.contains("[[grid"), "{name:?}");
        let cohorts = cohorts::form(&sweep.open()).unwrap();
        assert!(cohorts.iter().all(|cohort| cohort.passes().0 < cohort.passes().1), "{name:?}");
        assert_eq!(sweep.open_probes().is_empty(), !text.contains("[probe."), "{name:?}");
    }
}

#[test]
fn an_ablation_asks_its_teacher_once_for_all_values() {
    let data = cifar100();
    let sweep = sweep(&config("ablation-sampler.toml"), data.path(), &["seed=0"]);
    // Two losses and five kinds of negatives, but for one; vanilla and kd have nothing of either.
    assert_eq!((sweep.points.len(), sweep.chosen().len()), (10, 11));
    let cohorts = cohorts::form(&sweep.open()).unwrap();
    assert_eq!(cohorts.iter().map(|cohort| cohort.passes()).collect::<Vec<_>>(), [(782 * 240, 782 * 240 * 10)]);
}

#[test]
fn ensembles_share_their_networks() {
    let data = cifar100();
    let sweep = sweep(&config("ensemble.toml"), data.path(), &["seed=0"]);
    // vanilla once; kd and crd of one teacher; six methods each of two and three.
    assert_eq!(sweep.chosen().len(), 1 + 2 + 6 + 6);
    let passes: Vec<(u64, u64)> = cohorts::form(&sweep.open()).unwrap().iter().map(|cohort| cohort.passes()).collect();
    let epochs = 782 * 240;
    assert_eq!(passes, [(epochs, 2 * epochs), (2 * epochs, 12 * epochs), (3 * epochs, 18 * epochs)]);
}

#[test]
fn imagenet_takes_a_few_steps() {
    let path = config("imagenet-resnet34-resnet18.toml");
    let (images, out) = (imagenet(), TempDir::new().unwrap());
    let mut overrides = vec![format!("dataset.path={:?}", images.path().display().to_string())];
    overrides.extend(["threads=1", "device=\"cpu\"", "teacher.big.train.batch=4", "train.batch=4"].map(str::to_owned));
    let experiment = limbeck::config::load(&path, &overrides).unwrap();
    // The whole protocol is planned; its teacher takes two steps, one epoch here, and stops with a checkpoint.
    let plan = Plan::new(experiment.clone(), &path, out.path()).unwrap();
    assert!(stops(&plan, Limit::Steps(2)));
    let text = plan.to_string();
    for part in [
        "big: resnet34, 21 ",
        "student    resnet18, 11 ",
        "training   100 epochs of 2 steps, batch 4, learning rate 0.1",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(plan.teachers[0].weights.path().parent().unwrap().join("checkpoint.safetensors").exists());
    // Weights in a file take the place of its training; then the students step.
    let state = out.path().join("resnet34.safetensors");
    let checkpoint = limbeck::weights::read(&plan.teachers[0].weights.path().with_file_name("checkpoint.safetensors"));
    let tensors = checkpoint.unwrap().tensors.into_iter();
    let student: Vec<_> =
        tensors.filter_map(|(name, tensor)| Some((name.strip_prefix("student.")?.to_owned(), tensor))).collect();
    limbeck::weights::save(&state, &student, None).unwrap();
    let mut given = experiment.clone();
    let big = given.teacher["big"].network_mut().unwrap();
    (big.weights, big.train) = (Some(state), None);
    let plan = Plan::new(given, &path, out.path()).unwrap();
    assert!(stops(&plan, Limit::Steps(2)));
    for cell in &plan.cells {
        let log = fs::read_to_string(cell.folder.join("events.jsonl")).unwrap();
        assert!(log.contains("\"epoch\":1"), "{}: {log}", cell.name);
    }
}

fn quickstart(values: &[&str]) -> limbeck::error::Result<Plan> {
    let path = config("quickstart.toml");
    Plan::new(limbeck::config::load(&path, &overrides(values))?, &path, Path::new("runs"))
}

#[test]
fn a_part_of_the_training_samples_and_a_teacher_that_is_a_student_are_said() {
    let itself = ["threads=1", "student.model.kind=resnet20", "train_samples=1000", "validation=400"];
    let whole = quickstart(&itself[..2]).unwrap();
    let part = quickstart(&itself).unwrap();
    let text = part.to_string();
    assert!(text.contains("data       Shapes: 1000 of 4000 to train on, 400 held out, 2000 to test on"), "{text}");
    assert_eq!(part.data.labels.len(), 1000);
    let cells = whole.cells.iter().zip(&part.cells);
    assert!(cells.into_iter().all(|(one, other)| one.identity != other.identity));
    assert_ne!(whole.teachers[0].identity, part.teachers[0].identity);
    let note = "the teacher `big` and the student of `vanilla` with seed 0 are the same network with the same weights: one \
                recipe, one seed. Another `seed` under [teacher.big] makes it a teacher apart from the students";
    let same = "train={epochs=8, batch=64, learning_rate=0.1, schedule={kind=\"cosine\"}, evaluate_epochs=2}";
    let alike = [itself[0], itself[1], same];
    let text = quickstart(&[&alike[..], &["compare.seeds=[0, 1]"]].concat()).unwrap().to_string();
    assert!(text.contains(note), "{text}");
    for apart in ["teacher.big.seed=7", "compare.seeds=[1]", "student.model.kind=resnet8", "train.learning_rate=0.07"] {
        let text = quickstart(&[&alike[..], &[apart]].concat()).unwrap().to_string();
        assert!(!text.contains("are the same network"), "{apart}");
    }
    let error = quickstart(&["train_samples=5000"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "train_samples: it must be at least 1 and at most 4000, the training samples that are not held out, not 5000"
    );
}

#[test]
fn the_pairs_of_resnets_share_teachers_and_students() {
    let data = cifar100();
    let only = ["pair=resnet56-resnet20", "pair=resnet110-resnet20", "pair=resnet110-resnet32", "seed=0"];
    let sweep = sweep(&config("crd-table1.toml"), data.path(), &only);
    // 3 pairs × 15 methods, but two pairs have one vanilla resnet20: it sits with the first of them. Those of the two pairs of
    // resnet110 are one cohort of 29, split.
    assert_eq!(sweep.chosen().len(), 44);
    let cohorts = cohorts::form(&sweep.open()).unwrap();
    let names: Vec<String> = cohorts.iter().map(|cohort| cohort.name()).collect();
    let expected = ["15 students of resnet56-resnet20", "15 students of 2 points", "14 students of resnet110-resnet32"];
    assert_eq!(names, expected.map(|name| format!("seed 0, {name}")));
    // 782 steps an epoch. 12 methods ask for 240 epochs; AB, FSP and FT (one of the 12) for 30 in initial stages.
    assert_eq!(cohorts[0].passes(), (782 * (240 + 30), 782 * (12 * 240 + 3 * 30)));
}

#[test]
fn the_quickstart_is_planned() {
    let path = config("quickstart.toml");
    let experiment = limbeck::config::load(&path, &["threads=1".to_owned()]).unwrap();
    let plan = Plan::new(experiment, &path, Path::new("runs")).unwrap();
    let methods: Vec<&str> = plan.cells.iter().map(|cell| cell.method.as_str()).collect();
    assert_eq!(methods, ["vanilla", "kd", "crd", "crd+kd"]);
    let text = plan.to_string();
    assert!(text.contains("data       Shapes: 4000 to train on, 0 held out, 2000 to test on, 20 classes"), "{text}");
    assert!(text.contains("student pooled 64 — teacher pooled 64"), "{text}");
}
