//! The ready experiments: each is read and, where its data are at hand, planned.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use limbeck_experiments::plan::Plan;

fn configs() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("experiments/configs");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_ready_experiment_is_read() {
    let paths = configs();
    assert!(paths.len() >= 2, "{paths:?}");
    for path in paths {
        let experiment = limbeck::config::load(&path, &[]).unwrap();
        assert_eq!(Some(experiment.name.as_str()), path.file_stem().and_then(|stem| stem.to_str()));
    }
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
