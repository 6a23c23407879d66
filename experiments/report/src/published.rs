//! Published accuracies, to stand beside measured ones: `experiments/published`.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use limbeck::error::{Error, Result};
use limbeck::experiment::{AccuracyChoice, Experiment, MethodConfig, TrainConfig};
use limbeck::model::ModelConfig;
use limbeck::optim::Progress;
use limbeck::precision::Precision;
use serde::{Deserialize, Serialize};

use crate::store;
use crate::study::Study;

/// The tables that come with the command.
const FILES: [(&str, &str); 1] = [("published/cifar100.toml", include_str!("../published/cifar100.toml"))];

/// Every table.
#[derive(Debug)]
pub struct Published(Vec<Source>);

/// The pairs of one data set, as published in one place.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// As data sets name themselves.
    pub dataset: String,
    /// Where the numbers are from.
    pub source: String,
    /// How they came about.
    pub protocol: String,
    /// What both networks saw.
    view: String,
    /// How both were trained.
    train: TrainConfig,
    pair: Vec<Pair>,
}

/// A teacher and a student.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The number of the table in the source.
    pub table: u64,
    teacher: Arc<dyn ModelConfig>,
    student: Arc<dyn ModelConfig>,
    /// The student's, where it is another than that of `Source::train`.
    learning_rate: Option<f64>,
    teacher_accuracy: f64,
    student_accuracy: f64,
    method: IndexMap<String, f64>,
}

impl Published {
    /// Reads what is within the command.
    ///
    /// # Errors
    /// If a table is not what it should be; a test reads them all.
    pub fn load() -> Result<Self> {
        let mut sources = Vec::new();
        for (path, text) in FILES {
            sources.push(toml::from_str(text).map_err(|error| Error::data(path, error.to_string()))?);
        }
        Ok(Published(sources))
    }

    /// The published row of a study's data set, views and networks, if there is one teacher and the row exists.
    pub fn of(&self, study: &Study) -> Option<(&Source, &Pair)> {
        let summary = study.summaries().find(|summary| !summary.teachers.is_empty())?;
        let [teacher] = &summary.teachers[..] else { return None };
        let views = [&summary.view, &teacher.view];
        let mut sources = self.0.iter().filter(|source| source.dataset == summary.dataset);
        let source = sources.find(|source| views.iter().all(|view| **view == source.view))?;
        let Experiment { teacher: teachers, student, .. } = &study.experiment;
        let network = &teachers.get(&teacher.name)?.network()?.model;
        let mut pairs = source.pair.iter();
        let pair = pairs.find(|pair| is_same(&pair.teacher, network) && is_same(&pair.student, &student.model))?;
        Some((source, pair))
    }

    /// The published accuracy of a method of a study: of that name, and set as what was published.
    pub fn accuracy(&self, study: &Study, method: &str) -> Option<f64> {
        let (_, pair) = self.of(study)?;
        pair.named(study, method).filter(|_| is_published(study, method))
    }

    /// The methods of a study that have a published namesake, but other settings.
    pub fn others<'a>(&self, study: &'a Study) -> Vec<&'a str> {
        let Some((_, pair)) = self.of(study) else { return Vec::new() };
        let names = study.methods.iter().map(|method| method.name.as_str());
        names.filter(|name| pair.named(study, name).is_some() && !is_published(study, name)).collect()
    }
}

impl Source {
    /// How a study differs from how the numbers came about, in words; empty where nothing is known to differ.
    pub fn deviations(&self, pair: &Pair, study: &Study, accuracy: AccuracyChoice) -> Vec<String> {
        let Experiment { train, student, teacher, validation, train_samples, .. } = &study.experiment;
        let learning_rate = pair.learning_rate.unwrap_or(self.train.learning_rate);
        let mut found = differences(train, &TrainConfig { learning_rate, ..self.train.clone() });
        if student.precision != Precision::Float32 {
            found.push(format!("the student in {}", student.precision.name()));
        }
        if accuracy != AccuracyChoice::Last {
            found.push("the accuracy of another epoch than the last".to_owned());
        }
        if *validation > 0 {
            found.push(format!("{validation} training samples held out"));
        }
        if let Some(samples) = train_samples {
            found.push(format!("{samples} training samples, not all"));
        }
        for network in teacher.values().filter_map(|teacher| teacher.network()) {
            if let Some(train) = &network.train
                && network.weights.is_none()
            {
                let differences = differences(train, &self.train);
                found.extend(differences.into_iter().map(|difference| format!("teacher: {difference}")));
            }
        }
        found
    }
}

/// What of one training is not as in another and changes results, in words.
fn differences(ours: &TrainConfig, theirs: &TrainConfig) -> Vec<String> {
    let (mine, published) = (settings(ours), settings(theirs));
    let keys: BTreeSet<&String> = mine.keys().chain(published.keys()).collect();
    let mut words = Vec::new();
    for key in keys {
        let (mine, published) = (mine.get(key), published.get(key));
        let is_same = match key.as_str() {
            "evaluate_epochs" => true,
            "schedule" => same_rates(ours, theirs),
            _ => mine == published,
        };
        if is_same {
            continue;
        }
        let name = key.replace('_', " ");
        words.push(match (mine, published) {
            (Some(toml::Value::Table(_)), Some(_)) => format!("another {name}"),
            (Some(mine), Some(published)) => format!("{name} {mine}, not {published}"),
            (Some(_), None) => format!("with {name}"),
            (None, _) => format!("without {name}"),
        });
    }
    words
}

/// The settings of a training that change results.
fn settings(train: &TrainConfig) -> toml::Table {
    match toml::Value::try_from(store::decisive(train)) {
        Ok(toml::Value::Table(settings)) => settings,
        _ => toml::Table::new(),
    }
}

/// Whether two schedules give the same factors, however they are written, over the epochs of the first.
fn same_rates(ours: &TrainConfig, theirs: &TrainConfig) -> bool {
    let steps_per_epoch = 4;
    (0..ours.epochs * steps_per_epoch).all(|step| {
        let epoch = step / steps_per_epoch + 1;
        let progress = Progress { epoch, epochs: ours.epochs, step, steps_per_epoch };
        ours.schedule.factor(&progress) == theirs.schedule.factor(&progress)
    })
}

/// Whether two recipes are one.
fn is_same<T: Serialize + ?Sized>(one: &T, other: &T) -> bool {
    serde_json::to_value(one).ok() == serde_json::to_value(other).ok()
}

/// Whether a method of a study is the built-in one of its name, as all published ones are; the student alone is.
fn is_published(study: &Study, method: &str) -> bool {
    let Ok(ours) = study.experiment.method(method) else { return false };
    let alone = ours.terms.is_empty() && ours.cross_entropy == 1.0;
    alone || MethodConfig::built_in(method).is_ok_and(|built_in| built_in.is_some_and(|theirs| is_same(&ours, &theirs)))
}

impl Pair {
    /// The teacher's accuracy.
    pub fn teacher(&self) -> f64 {
        self.teacher_accuracy
    }

    /// The accuracy of a method's namesake; the method without teacher is the student alone.
    fn named(&self, study: &Study, method: &str) -> Option<f64> {
        let is_alone = study.scratch().is_some_and(|scratch| scratch.name == method);
        if is_alone { Some(self.student_accuracy) } else { self.method.get(method).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::evidence::relative_improvement;

    #[test]
    fn the_tables_are_complete() {
        let Published(sources) = Published::load().unwrap();
        let pairs = &sources[0].pair;
        assert_eq!(pairs.len(), 13);
        assert_eq!(pairs.iter().map(|pair| pair.method.len()).sum::<usize>(), 13 * 13 - 7);
        assert_eq!(pairs.iter().filter(|pair| pair.learning_rate == Some(0.01)).count(), 5);
    }

    #[test]
    fn the_relative_improvement_of_the_paper() {
        let Published(sources) = Published::load().unwrap();
        let triples: Vec<[f64; 3]> =
            sources[0].pair.iter().map(|pair| [pair.method["crd"], pair.method["kd"], pair.student_accuracy]).collect();
        let over_kd = relative_improvement(&triples);
        // 57 %, as the paper says; without the pair ResNet-32x4 → ResNet-8x4, whose denominator is 0.83 points, it is far less.
        assert_eq!(format!("{:.0}", over_kd.mean), "57");
        assert_eq!(over_kd.unstable, 1);
        let largest = over_kd.each.iter().copied().fold(f64::MIN, f64::max);
        assert_eq!(format!("{largest:.0}"), "263");
    }
}
