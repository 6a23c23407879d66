//! Teachers that are students of their own experiment, to the byte: whoever reads the numbers must know.

use limbeck::experiment::{Experiment, MethodConfig, TrainConfig};
use limbeck::model::ModelConfig;
use limbeck::precision::Precision;

use crate::store;

/// How a teacher is trained: by the labels alone.
pub fn vanilla() -> MethodConfig {
    MethodConfig { cross_entropy: 1.0, terms: Vec::new() }
}

/// A teacher that is a student of its own experiment, to the byte, and what there is to say of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// Its name.
    pub teacher: String,
    /// What there is to say, with the remedy; no sentence by itself.
    pub message: String,
}

/// The teachers that are a student of their experiment: the same network, trained on labels alone by the same recipe from the
/// same seed. `sees_the_same` tells whether a teacher and the student have one view.
pub fn twins(experiment: &Experiment, sees_the_same: impl Fn(&str) -> bool) -> Vec<Twin> {
    let student = &experiment.student;
    if student.precision != Precision::Float32 {
        return Vec::new();
    }
    let Some(method) = experiment.compare.methods.iter().find(|name| is_vanilla(experiment, name)) else {
        return Vec::new();
    };
    let own = recipe(&*student.model, &experiment.train);
    let mut twins = Vec::new();
    for (name, teacher) in &experiment.teacher {
        let Some(teacher) = teacher.network() else { continue };
        let Some(train) = &teacher.train else { continue };
        if teacher.weights.is_none()
            && recipe(&*teacher.model, train) == own
            && experiment.compare.seeds.contains(&teacher.seed)
            && sees_the_same(name)
        {
            twins.push(Twin {
                teacher: name.clone(),
                message: format!(
                    "the teacher `{name}` and the student of `{method}` with seed {} are the same network with the same \
                     weights: one recipe, one seed. Another `seed` under [teacher.{name}] makes it a teacher apart from the \
                     students",
                    teacher.seed
                ),
            });
        }
    }
    twins
}

/// Whether a method trains by the labels alone.
fn is_vanilla(experiment: &Experiment, method: &str) -> bool {
    experiment.method(method).is_ok_and(|method| store::digest(&method).ok() == store::digest(&vanilla()).ok())
}

/// A digest of a network and its training. How often it is evaluated changes nothing of it.
fn recipe(model: &dyn ModelConfig, train: &TrainConfig) -> Option<String> {
    let train = TrainConfig { evaluate_epochs: 1, ..store::decisive(train) };
    store::digest(&(model, train)).ok()
}
