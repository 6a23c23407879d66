//! What can be found wrong with an experiment before any data are read.

use std::path::Path;

use super::compare::{AccuracyChoice, CompareConfig};
use super::fault::Fault;
use super::method::TermConfig;
use super::probe::{ProbeConfig, ProbeTrainConfig};
use super::teacher::{NetworkConfig, TeacherConfig};
use super::train::TrainConfig;
use super::{Experiment, FORMAT};
use crate::combination::{Combination, Combining};
use crate::precision::Precision;

impl Experiment {
    /// Checks what can be checked without reading data: numbers, and names that refer to other parts of the file.
    ///
    /// # Errors
    /// With the key at fault and the remedy.
    pub fn check(&self) -> Result<(), Fault> {
        let fault = |key: &str, message: String| Err(Fault::new(key.to_owned(), message));
        if self.format != FORMAT {
            let message =
                format!("format {} is not known to this version of Limbeck, which reads format {FORMAT}", self.format);
            return fault("format", message);
        }
        if self.name.is_empty() || self.name.contains(['/', '\\', '\0']) || self.name.starts_with('.') {
            return fault("name", "the name must be usable as the name of a folder".to_owned());
        }
        if self.name == "teachers" {
            return fault(
                "name",
                "the folder `teachers` is where trained teachers are kept: choose another name".to_owned(),
            );
        }
        if let Some(threads) = self.threads.filter(|threads| !(1..=1024).contains(threads)) {
            return fault("threads", format!("threads must be between 1 and 1024, not {threads}"));
        }
        if !(1..=1024).contains(&self.lanes) {
            return fault("lanes", format!("lanes must be between 1 and 1024, not {}", self.lanes));
        }
        self.train.check("train")?;
        if self.student.model.file().is_some() {
            let kind = self.student.model.typetag_name();
            return fault(
                "student.model",
                format!("a network of kind `{kind}` is frozen and only teaches: choose another"),
            );
        }
        for (name, teacher) in &self.teacher {
            match teacher {
                TeacherConfig::Network(network) => network.check(name)?,
                TeacherConfig::Combined { combine } => self.check_combination(name, combine)?,
            }
        }
        for name in self.method.keys() {
            self.check_method(name)?;
        }
        for (name, probe) in &self.probe {
            let key = format!("probe.{name}");
            if name.is_empty() || name.contains(['/', '\\', '\0']) || name.starts_with('.') {
                return fault(&key, "the name must be usable as that of a folder".to_owned());
            }
            probe.check(&key)?;
        }
        self.check_compare()
    }

    fn check_compare(&self) -> Result<(), Fault> {
        let CompareConfig { methods, seeds, baseline, accuracy } = &self.compare;
        let fault = |key: &str, message: String| Err(Fault::new(format!("compare.{key}"), message));
        if methods.is_empty() {
            return fault("methods", "there is no method to compare: methods = [\"NAME\", …]".to_owned());
        }
        if seeds.is_empty() {
            return fault("seeds", "there is no seed: give at least one".to_owned());
        }
        for (key, twice) in [("methods", repeated(methods)), ("seeds", repeated(seeds))] {
            if let Some((i, value)) = twice {
                return fault(&format!("{key}[{i}]"), format!("{value} is named twice"));
            }
        }
        for (i, name) in methods.iter().enumerate() {
            if let Err(error) = self.method(name) {
                return fault(&format!("methods[{i}]"), error.to_string());
            }
            self.check_method(name)?;
        }
        if let Some(baseline) = baseline.as_ref().filter(|baseline| !methods.contains(baseline)) {
            return fault("baseline", format!("the baseline `{baseline}` is not among compare.methods"));
        }
        if *accuracy == AccuracyChoice::BestOnValidation && self.validation == 0 {
            let message = "\"best_on_validation\" needs `validation`, the number of samples to hold out".to_owned();
            return fault("accuracy", message);
        }
        Ok(())
    }

    /// A combination is of networks, each once.
    fn check_combination(&self, name: &str, combination: &Combination) -> Result<(), Fault> {
        let Combination { kind, teachers, weights } = combination;
        let key = format!("teacher.{name}.combine");
        let fault = |key: String, message: String| Err(Fault::new(key, message));
        if teachers.is_empty() {
            return fault(format!("{key}.teachers"), "there is nothing to combine: name the teachers".to_owned());
        }
        if let Some((i, member)) = repeated(teachers) {
            return fault(format!("{key}.teachers[{i}]"), format!("{member} is named twice: give it a larger weight"));
        }
        for (i, member) in teachers.iter().enumerate() {
            let message = match self.teacher.get(member) {
                Some(TeacherConfig::Network(_)) => continue,
                Some(_) if member == name => "a teacher cannot be a part of itself: name the others".to_owned(),
                Some(TeacherConfig::Combined { combine }) => {
                    let members = combine.teachers.join(", ");
                    format!("`{member}` combines teachers itself, which are {members}: name networks alone")
                }
                None => self.no_teacher(member),
            };
            return fault(format!("{key}.teachers[{i}]"), message);
        }
        let Some(weights) = weights else { return Ok(()) };
        if *kind == Combining::Confidence {
            let message = "the weights are the members' own confidence, sample by sample: remove `weights`".to_owned();
            return fault(format!("{key}.weights"), message);
        }
        if weights.len() != teachers.len() {
            let (given, wanted) = (weights.len(), teachers.len());
            return fault(
                format!("{key}.weights"),
                format!("there must be a weight for each teacher, {wanted}, not {given}"),
            );
        }
        match weights.iter().enumerate().find(|(_, weight)| !(**weight > 0.0 && weight.is_finite())) {
            None => Ok(()),
            Some((i, weight)) => {
                fault(format!("{key}.weights[{i}]"), format!("a weight must be positive, not {weight}"))
            }
        }
    }

    fn no_teacher(&self, name: &str) -> String {
        let names: Vec<&str> = self.teacher.keys().map(String::as_str).collect();
        format!("there is no teacher `{name}`; the experiment has {}", names.join(", "))
    }

    fn check_method(&self, name: &str) -> Result<(), Fault> {
        let table = format!("method.{name}");
        let fault = |key: &str, message: String| Err(Fault::new(format!("{table}.{key}"), message));
        let method = self.method(name).map_err(|e| Fault::new(table.clone(), e.to_string()))?;
        if !(method.cross_entropy >= 0.0 && method.cross_entropy.is_finite()) {
            return fault("cross_entropy", format!("cross_entropy must not be negative, not {}", method.cross_entropy));
        }
        if method.cross_entropy == 0.0 && method.terms.is_empty() {
            let message = format!("method `{name}` has nothing to minimise: no cross_entropy and no terms");
            return Err(Fault::new(table, message));
        }
        let end = |term: &TermConfig| term.schedule.as_ref().and_then(|schedule| schedule.to);
        let ends: Option<Vec<u64>> = method.terms.iter().map(end).collect();
        if let Some(last) = ends.and_then(|ends| ends.into_iter().max()).filter(|last| *last < self.train.epochs)
            && method.cross_entropy == 0.0
        {
            let message = format!("method `{name}` has nothing to minimise after epoch {last}: every term has ended");
            return Err(Fault::new(table, message));
        }
        for (i, term) in method.terms.iter().enumerate() {
            let key = |name: &str| format!("terms[{i}]{name}");
            if !term.weight.is_finite() {
                return fault(&key(".weight"), format!("the weight must be finite, not {}", term.weight));
            }
            if let Some(schedule) = &term.schedule {
                schedule.check(&format!("{table}.{}", key(".schedule")), self.train.epochs)?;
            }
            if self.teacher.is_empty() {
                let message =
                    format!("method `{name}` needs a teacher, and the experiment has none: add a table [teacher.NAME]");
                return fault(&key(""), message);
            }
            for (j, teacher) in term.teachers.iter().flatten().enumerate() {
                if !self.teacher.contains_key(teacher) {
                    return fault(&key(&format!(".teachers[{j}]")), self.no_teacher(teacher));
                }
            }
            if let Some((j, twice)) = term.teachers.as_deref().and_then(repeated) {
                let message = format!("{twice} is named twice: give the term a larger weight");
                return fault(&key(&format!(".teachers[{j}]")), message);
            }
            if term.teachers.as_ref().is_some_and(Vec::is_empty) {
                return fault(&key(".teachers"), "the list is empty: leave it out to use every teacher".to_owned());
            }
        }
        Ok(())
    }
}

impl NetworkConfig {
    fn check(&self, name: &str) -> Result<(), Fault> {
        let key = format!("teacher.{name}");
        if let Some(file) = self.model.file() {
            return self.check_complete(&key, file);
        }
        match (&self.weights, &self.train) {
            (None, None) => {
                let message = format!(
                    "teacher `{name}` has neither weights nor a recipe: give `weights = \"….safetensors\"`, or a table [{key}.train]"
                );
                Err(Fault::new(key, message))
            }
            (Some(_), Some(_)) => {
                let message = format!("teacher `{name}` has both weights and [{key}.train]: remove one");
                Err(Fault::new(format!("{key}.weights"), message))
            }
            (None, Some(train)) => train.check(&format!("{key}.train")),
            (Some(_), None) => Ok(()),
        }
    }

    /// A network that comes complete from a file has nothing to load or to train, and its arithmetic is its own.
    fn check_complete(&self, key: &str, file: &Path) -> Result<(), Fault> {
        let asked = [
            ("weights", self.weights.is_some()),
            ("train", self.train.is_some()),
            ("fold_batch_norm", self.fold_batch_norm),
            ("precision", !matches!(self.precision, Precision::Float32 | Precision::Tf32)),
        ];
        match asked.into_iter().find(|(_, is)| *is) {
            None => Ok(()),
            Some((setting, _)) => {
                let message = format!("the teacher is complete in {}, as it is: remove `{setting}`", file.display());
                Err(Fault::new(format!("{key}.{setting}"), message))
            }
        }
    }
}

impl ProbeConfig {
    /// Checks the numbers. `key` is the table that this is.
    fn check(&self, key: &str) -> Result<(), Fault> {
        // A classifier is trained as a student is, with fewer settings.
        let ProbeTrainConfig { epochs, batch, learning_rate, schedule, optimizer } = self.train.clone();
        TrainConfig { epochs, batch, learning_rate, schedule, optimizer, ..TrainConfig::default() }
            .check(&format!("{key}.train"))?;
        let Some(seeds) = &self.seeds else { return Ok(()) };
        let message = match repeated(seeds) {
            _ if seeds.is_empty() => "there is no seed: leave it out to use compare.seeds".to_owned(),
            Some((_, seed)) => format!("{seed} is named twice"),
            None => return Ok(()),
        };
        Err(Fault::new(format!("{key}.seeds"), message))
    }
}

/// The first item that stands in a list twice, with its second place.
fn repeated<T: PartialEq + std::fmt::Debug>(items: &[T]) -> Option<(usize, String)> {
    let twice = items.iter().enumerate().find(|(i, item)| items[..*i].contains(item));
    twice.map(|(i, item)| (i, format!("{item:?}")))
}
