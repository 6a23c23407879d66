//! The ready experiments: each is read and planned; those on CIFAR-100 against files of its format, without pictures.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::config::grid::Filter;
use limbeck::config::load_grid;
use limbeck::registry::{self, Role};
use limbeck_experiments::cohorts;
use limbeck_experiments::plan::{Plan, Pool};
use limbeck_experiments::sweep::{Options, Sweep};
use tempfile::TempDir;

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("experiments/configs");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
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

/// The values of an axis called `pair` whose networks are linked into this program; none if there is no such axis.
fn pairs(path: &Path) -> Vec<String> {
    let table: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
    let kinds: Vec<&str> = registry::plugins_of(Role::Model).iter().map(|plugin| plugin.name).collect();
    let pairs = table.get("grid").and_then(|grid| grid["pair"].as_array());
    let linked = |pair: &&toml::Value| {
        let set = pair["set"].as_table().unwrap();
        set.iter()
            .filter(|(key, _)| key.ends_with("model.kind"))
            .all(|(_, kind)| kinds.contains(&kind.as_str().unwrap()))
    };
    let name = |pair: &toml::Value| format!("pair={}", pair["name"].as_str().unwrap());
    pairs.into_iter().flatten().filter(linked).map(name).collect()
}

#[test]
fn every_ready_experiment_is_planned() {
    let (data, mut pool) = (cifar100(), Pool::default());
    let path_of_data = format!("dataset.path={:?}", data.path().display().to_string());
    let paths = configs();
    assert!(paths.len() >= 6, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let (is_sweep, pairs) = (text.contains("[grid"), pairs(&path));
        if is_sweep && pairs.is_empty() {
            println!("{}: none of its networks is linked", path.display());
            continue;
        }
        let mut overrides = vec!["threads=1".to_owned(), "device=\"cpu\"".to_owned()];
        overrides.extend(text.contains("\"cifar100\"").then(|| path_of_data.clone()));
        let only = Filter::new(pairs.iter().map(String::as_str)).unwrap();
        let grid = load_grid(&path, &overrides, &only).unwrap();
        let sweep = Sweep::new(grid, &path, Path::new("runs"), &Options::default(), &mut pool).unwrap();
        let name = path.file_stem().unwrap();
        assert_eq!(sweep.folder, Path::new("runs").join(name));
        assert_eq!(sweep.points.len(), pairs.len().max(1));
        let cohorts = cohorts::form(&sweep.open()).unwrap();
        assert!(cohorts.iter().all(|cohort| cohort.passes().0 < cohort.passes().1), "{name:?}");
    }
}

#[test]
fn the_pairs_of_resnets_share_teachers_and_students() {
    let (data, path) = (cifar100(), configs().into_iter().find(|path| path.ends_with("crd-table1.toml")).unwrap());
    let overrides = [
        "threads=1".to_owned(),
        "device=\"cpu\"".to_owned(),
        format!("dataset.path={:?}", data.path().display().to_string()),
    ];
    let only = ["pair=resnet56-resnet20", "pair=resnet110-resnet20", "pair=resnet110-resnet32", "seed=0"];
    let grid = load_grid(&path, &overrides, &Filter::new(only).unwrap()).unwrap();
    let sweep = Sweep::new(grid, &path, Path::new("runs"), &Options::default(), &mut Pool::default()).unwrap();
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
    let path = configs().into_iter().find(|path| path.ends_with("quickstart.toml")).unwrap();
    let experiment = limbeck::config::load(&path, &["threads=1".to_owned()]).unwrap();
    let plan = Plan::new(experiment, &path, Path::new("runs")).unwrap();
    let methods: Vec<&str> = plan.cells.iter().map(|cell| cell.method.as_str()).collect();
    assert_eq!(methods, ["vanilla", "kd", "crd", "crd+kd"]);
    let text = plan.to_string();
    assert!(text.contains("data       Shapes: 4000 to train on, 0 held out, 2000 to test on, 20 classes"), "{text}");
    assert!(text.contains("student pooled 64 — teacher pooled 64"), "{text}");
}
