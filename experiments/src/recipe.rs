//! The part of a recipe that decides what comes out, and teachers that are trained by the recipe of their own students.

use limbeck::experiment::{Experiment, MethodConfig, NetworkConfig, TrainConfig};
use limbeck::model::ModelConfig;
use limbeck::precision::Precision;

use crate::store;

/// The part of a training configuration that changes results: not how often something is logged, timed or saved.
pub fn decisive(train: &TrainConfig) -> TrainConfig {
    let default = TrainConfig::default();
    TrainConfig {
        checkpoint_steps: default.checkpoint_steps,
        log_steps: default.log_steps,
        timing_steps: default.timing_steps,
        ..train.clone()
    }
}

/// How a teacher is trained: by the labels alone.
pub fn vanilla() -> MethodConfig {
    MethodConfig { cross_entropy: 1.0, terms: Vec::new() }
}

/// A teacher that is a student of its own experiment, to the byte, and what there is to say of that.
#[derive(Clone, Debug)]
pub struct Twin {
    /// The teacher's name.
    pub teacher: String,
    /// What a reader has to know of it.
    pub message: String,
}

/// The teachers that are a student of their experiment: the same network, trained on labels alone by the same recipe from the
/// same seed. `sees_the_same` tells whether a teacher and the student have one view.
pub fn twins(experiment: &Experiment, sees_the_same: impl Fn(&str) -> bool) -> Vec<Twin> {
    let student = &experiment.student;
    if student.precision != Precision::Float32 {
        return Vec::new();
    }
    let alone = store::digest(&vanilla()).ok();
    let mut methods = experiment.compare.methods.iter();
    let method = methods.find(|name| experiment.method(name).is_ok_and(|method| store::digest(&method).ok() == alone));
    let Some(method) = method else { return Vec::new() };
    let own = digest(&*student.model, &experiment.train);
    let mut twins = Vec::new();
    for (name, teacher) in &experiment.teacher {
        let Some(NetworkConfig { model, weights: None, train: Some(train), seed, .. }) = teacher.network() else {
            continue;
        };
        if digest(&**model, train) == own && experiment.compare.seeds.contains(seed) && sees_the_same(name) {
            twins.push(Twin {
                teacher: name.clone(),
                message: format!(
                    "the teacher `{name}` and the student of `{method}` with seed {seed} are the same network with the same \
                     weights: one recipe, one seed. Another `seed` under [teacher.{name}] makes it a teacher apart from the \
                     students"
                ),
            });
        }
    }
    twins
}

/// A digest of a network and of how it is trained, but for how often it is evaluated, which changes nothing of it.
fn digest(model: &dyn ModelConfig, train: &TrainConfig) -> Option<String> {
    let train = TrainConfig { evaluate_epochs: 1, ..decisive(train) };
    store::digest(&(model, train)).ok()
}
