//! Published accuracies, to stand beside measured ones: `experiments/published`.

use indexmap::IndexMap;
use limbeck::error::{Error, Result};
use serde::Deserialize;

use super::study::Study;

/// The tables that come with the command.
const FILES: [(&str, &str); 1] = [("published/cifar100.toml", include_str!("../../published/cifar100.toml"))];

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
    epochs: u64,
    batch: usize,
    pair: Vec<Pair>,
}

/// A teacher and a student.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The number of the table in the source.
    pub table: u64,
    teacher: String,
    student: String,
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
        let read = |(path, text): (&str, &str)| toml::from_str(text).map_err(|e| Error::data(path, e.to_string()));
        FILES.into_iter().map(read).collect::<Result<_>>().map(Published)
    }

    /// The published row of a study's data set and networks, if there is one teacher and the row exists.
    pub fn of(&self, study: &Study) -> Option<(&Source, &Pair)> {
        let summary = study.summaries().find(|summary| !summary.teachers.is_empty())?;
        let [teacher] = &summary.teachers[..] else { return None };
        let source = self.0.iter().find(|source| source.dataset == summary.dataset)?;
        let same = |ours: &str, theirs: &str| plain(ours) == plain(theirs);
        let pair = source.pair.iter();
        let mut found =
            pair.filter(|pair| same(&teacher.model, &pair.teacher) && same(&summary.student, &pair.student));
        Some((source, found.next()?))
    }
}

impl Source {
    /// How a study differs from how the numbers came about, in words; empty where nothing is known to differ.
    pub fn deviations(&self, study: &Study) -> Vec<String> {
        let train = &study.experiment.train;
        let mut found = Vec::new();
        if train.epochs != self.epochs {
            found.push(format!("{} epochs, not {}", train.epochs, self.epochs));
        }
        if train.batch != self.batch {
            found.push(format!("batches of {}, not {}", train.batch, self.batch));
        }
        if study.experiment.validation > 0 {
            found.push(format!("{} training samples held out", study.experiment.validation));
        }
        found
    }
}

impl Pair {
    /// The teacher's accuracy.
    pub fn teacher(&self) -> f64 {
        self.teacher_accuracy
    }

    /// A method's accuracy; the method without teacher is the student alone.
    pub fn accuracy(&self, method: &str, scratch: bool) -> Option<f64> {
        if scratch { Some(self.student_accuracy) } else { self.method.get(method).copied() }
    }
}

/// Names of networks without what their spellings differ in: `WRN-40-2`, `wrn_40_2`.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sections::evidence::relative_improvement;

    #[test]
    fn the_tables_are_complete() {
        let Published(sources) = Published::load().unwrap();
        let pairs = &sources[0].pair;
        assert_eq!(pairs.len(), 13);
        assert_eq!(pairs.iter().map(|pair| pair.method.len()).sum::<usize>(), 13 * 13 - 7);
        assert_eq!(plain("MobileNetV2"), plain("mobilenet_v2"));
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
