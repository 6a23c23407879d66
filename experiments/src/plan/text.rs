//! The plan for people: `limbeck plan`.

use std::fmt;

use limbeck::distiller::TapPair;
use limbeck::model::Signature;
use limbeck::task::Task;
use limbeck_report::words::{plural, thousands};

use super::Plan;
use super::combination::PlannedCombination;
use super::teacher::{TeacherWeights, arithmetic};
use crate::words::device_name;

/// The taps of a network with their shapes, in a line.
fn taps(signature: &Signature) -> String {
    let taps: Vec<String> = signature.taps.iter().map(|tap| format!("{} {}", tap.name, tap.shape)).collect();
    format!("taps {}", taps.join(", "))
}

impl Plan {
    /// What distinguishes it from other points of a grid, in a few lines.
    pub(crate) fn brief(&self) -> String {
        let methods: Vec<&str> = self.methods.iter().map(|method| method.name.as_str()).collect();
        format!("point {}\n{}methods    {}\n", self.label, Setting(self), methods.join(", "))
    }
}

/// What a plan says of a task that is not the usual one.
fn unusual(task: &dyn Task) -> String {
    let (loss, score, usual) = (task.split_loss().name, task.score().full(), <&dyn Task>::default().score().short);
    format!("targets are {}: trained by {loss}, measured by {score}, not by {usual}", task.targets())
}

/// Data, networks and training of a plan.
struct Setting<'a>(&'a Plan);

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let (info, train) = (plan.data.dataset.info(), &plan.experiment.train);
        writeln!(
            f,
            "data       {}: {}{} to train on, {} held out, {} to test on, {} classes",
            info.name,
            plan.data.train_rows.len(),
            plan.experiment.train_samples.map(|_| format!(" of {}", info.train_labels.len())).unwrap_or_default(),
            plan.data.validation_rows.len(),
            info.test_labels.len(),
            info.classes()
        )?;
        if !info.task.is_usual() {
            writeln!(f, "           {}", unusual(info.task))?;
        }
        info.notes.iter().try_for_each(|note| writeln!(f, "           note: {note}"))?;
        for teacher in &plan.teachers {
            write!(f, "teacher    {}: {}, {}, ", teacher.name, teacher.network, arithmetic(&teacher.config))?;
            match &teacher.weights {
                TeacherWeights::File(path) => writeln!(f, "weights {}", path.display())?,
                TeacherWeights::Trained { folder, progress, .. } => {
                    let epochs = teacher.config.train.as_ref().map_or(0, |train| train.epochs);
                    let epochs = plural(epochs, "epoch");
                    writeln!(f, "trained first, {epochs}, in {} ({progress})", folder.display())?;
                }
            }
            writeln!(f, "           {}", taps(&teacher.network.signature))?;
            for note in &teacher.notes {
                writeln!(f, "           {note}")?;
            }
        }
        for PlannedCombination { name, combination, .. } in &plan.combined {
            writeln!(f, "teacher    {name}: {combination}; logits alone, and only for terms that name it")?;
        }
        for twin in plan.twins() {
            writeln!(f, "           note: {}", twin.message)?;
        }
        writeln!(f, "student    {}, {}", plan.student, plan.experiment.student.precision.name())?;
        writeln!(f, "           {}", taps(&plan.student.signature))?;
        writeln!(
            f,
            "training   {} of {}, batch {}, learning rate {}, {} on {}",
            plural(train.epochs, "epoch"),
            plural(plan.data.steps_per_epoch(train.batch), "step"),
            train.batch,
            train.learning_rate,
            plural(plan.threads as u64, "thread"),
            device_name(plan.device)
        )
    }
}

/// What `limbeck plan` says of an experiment before it lists the cells.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "experiment {}, in {}", self.experiment.name, self.folder.display())?;
        write!(f, "{}", Setting(self))?;
        for method in &self.methods {
            let loss = self.data.dataset.info().task.split_loss().name;
            writeln!(f, "\nmethod {}: {} × {loss}", method.name, method.config.cross_entropy)?;
            for term in &method.terms {
                write!(f, "  + {} × {} of teacher {}", term.weight, term.label, term.teacher)?;
                if let Some(schedule) = &term.schedule {
                    write!(f, ", {schedule}")?;
                }
                match term.parameters {
                    0 => writeln!(f)?,
                    n => writeln!(f, ", {} parameters of its own", thousands(n))?,
                }
                if let Some(epochs) = term.initial_epochs {
                    let rate = term.initial_learning_rate.unwrap_or(self.experiment.train.learning_rate);
                    let then = if term.last_epoch == Some(0) { "; no loss after it" } else { "" };
                    let epochs = plural(epochs, "epoch");
                    writeln!(f, "      first: an initial stage of {epochs} at rate {rate}{then}")?;
                }
                if term.taps.pairs.is_empty() {
                    writeln!(f, "      logits {0} — logits {0}", self.student.signature.classes)?;
                }
                for pair in &term.taps.pairs {
                    let TapPair { student, teacher, student_shape, teacher_shape } = pair;
                    writeln!(f, "      student {student} {student_shape} — teacher {teacher} {teacher_shape}")?;
                }
                if !term.taps.dropped.is_empty() {
                    writeln!(f, "      warning: without a partner, hence unused: {}", term.taps.dropped.join(", "))?;
                }
            }
        }
        self.probes.iter().try_for_each(|probe| write!(f, "{probe}"))
    }
}
