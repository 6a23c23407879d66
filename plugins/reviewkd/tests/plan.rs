//! What an experiment with ReviewKD says that it will do, before it does it.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use limbeck::config;
use limbeck_cli::plan::Plan;
use reviewkd as _;

const EXPERIMENT: &str = r#"
format = 1
name = "plan"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 40
test = 40
[teacher.big]
model = { kind = "resnet14" }
train = {}
[student]
model = { kind = "resnet8" }
[compare]
methods = ["reviewkd"]
"#;

#[test]
fn stages_and_pooled_vectors_are_paired_and_the_weight_rises() {
    let folder = Path::new("nowhere");
    let plan = Plan::new(config::parse(EXPERIMENT, folder, &[]).unwrap(), folder, folder).unwrap();
    let term = &plan.methods[0].terms[0];
    let pairs = term.taps.pairs.iter();
    let pairs: Vec<(String, String)> = pairs.map(|pair| (pair.student.to_string(), pair.teacher.to_string())).collect();
    let expected = [("stage1", "stage1:pre"), ("stage2", "stage2:pre"), ("stage3", "stage3:pre"), ("pooled", "pooled")];
    assert_eq!(pairs, expected.map(|(student, teacher)| (student.to_owned(), teacher.to_owned())));
    assert_eq!((term.weight, term.schedule.as_ref().unwrap().warmup_epochs), (1.0, 20));
}

#[test]
fn the_experiment_of_the_repository_is_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("cifar100.toml");
    let experiment = config::load(&file, &[]).unwrap();
    for method in experiment.compare.methods.iter() {
        experiment.method(method).unwrap();
    }
}

#[test]
fn a_width_of_nothing_is_refused() {
    let text = EXPERIMENT
        .replace("[compare]", "[method.thin]\nterms = [{ distiller = { kind = \"reviewkd\", width = 0 } }]\n[compare]");
    let folder = Path::new("nowhere");
    let message = config::parse(&text, folder, &[]).unwrap_err().to_string();
    assert!(message.starts_with("width must be at least 1, not 0\n"), "{message}");
    assert!(message.ends_with("key: method.thin.terms[0].distiller.width"), "{message}");
}
