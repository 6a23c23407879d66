//! What a lane keeps in its folder: checkpoints, and the student in the end.

use indexmap::IndexMap;

use super::Lane;
use super::meter::Meter;
use super::running::{RunningStage, STAGE_STATE};
use super::saved::Saved;
use crate::device;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::optim::{FlatParameters, Variable};
use crate::record::Environment;
use crate::train::checkpoint;
use crate::train::file_names::STUDENT;
use crate::train::observers::Observers;
use crate::weights;

impl Lane {
    /// Writes a checkpoint; call only after a sound [`verdict`](Self::verdict), and not before the first step.
    pub fn save(
        &mut self,
        environment: &Environment,
        steps_per_epoch: u64,
        observers: &mut Observers<'_>,
    ) -> Result<()> {
        let mut tensors = self.variables();
        let (names, sums) = self.meter.state();
        tensors.push(("meter".to_owned(), sums));
        let mut saved = Saved {
            identity: self.identity.clone(),
            threads: environment.threads,
            device: device::family(self.device).to_owned(),
            libtorch: environment.libtorch.clone(),
            meter: names.to_vec(),
            // Not what a checkpoint said that this lane was resumed from: its stage may be over.
            trained: Vec::new(),
            ..self.progress.clone()
        };
        if let Some(running) = &self.running {
            saved.trained = running.flat.variables().iter().map(|variable| variable.name.clone()).collect();
            tensors.extend(running.state());
        }
        tensors.extend(self.average.iter().map(|average| ("average".to_owned(), average.state())));
        let path = checkpoint::write(&self.info.folder, &saved, &tensors)?;
        self.checkpoint = Some(path.clone());
        if let Some((plan, step)) = self.place(steps_per_epoch) {
            let (stage, open) = (plan.name.clone(), self.has_open_epoch(steps_per_epoch));
            observers.tell(&self.info, Event::Checkpoint { stage, step, open, path });
        }
        Ok(())
    }

    /// Goes on where the newest checkpoint of the folder stands, if there is one.
    pub fn resume(
        &mut self,
        environment: &Environment,
        steps_per_epoch: u64,
        observers: &mut Observers<'_>,
    ) -> Result<()> {
        let Some(loaded) = checkpoint::read::<Saved>(&self.info.folder)? else { return Ok(()) };
        let folder = self.info.folder.display();
        let device = device::family(self.device);
        let saved = loaded.state;
        if saved.identity != self.identity {
            return Err(Error::plan(format!(
                "{folder} belongs to another configuration: choose another folder with --out"
            )));
        }
        let threads = environment.threads;
        if (saved.threads, saved.device.as_str()) != (threads, device) {
            return Err(Error::plan(format!(
                "{folder} was begun on {} with threads = {} and cannot go on exactly on {device} with threads = {threads}: \
                 use --device {} --set threads={}, or another folder with --out",
                saved.device, saved.threads, saved.device, saved.threads
            )));
        }
        if saved.libtorch != environment.libtorch {
            return Err(Error::plan(format!(
                "{folder} was begun with libtorch {} and cannot go on exactly with {}: use that version, or another folder with --out",
                saved.libtorch, environment.libtorch
            )));
        }
        let damaged = |what: String| Error::data(&loaded.path, what);
        let mut tensors = loaded.tensors;
        let meter = tensors.swap_remove("meter").ok_or_else(|| damaged("it has no meter".to_owned()))?;
        if let Some(average) = &self.average {
            let saved = tensors.swap_remove("average").ok_or_else(|| damaged("it has no average".to_owned()))?;
            let expected = [("average".to_owned(), average.state())];
            weights::copy_into(&expected, &IndexMap::from([("average".to_owned(), saved)]), &loaded.path)?;
        }
        let (state, own): (IndexMap<_, _>, IndexMap<_, _>) =
            tensors.into_iter().partition(|(name, _)| name.starts_with(STAGE_STATE));
        weights::copy_into(&self.variables(), &own, &loaded.path)?;
        weights::separate(&self.variables());
        self.meter = Meter::restore(saved.meter.clone(), &meter, self.device)?;
        self.progress = saved;
        if !self.progress.trained.is_empty() {
            let plan = self.stage().ok_or_else(|| damaged("its stage does not exist".to_owned()))?;
            let mut candidates: IndexMap<String, Variable> =
                self.candidates(plan).into_iter().map(|variable| (variable.name.clone(), variable)).collect();
            let trained = self
                .progress
                .trained
                .iter()
                .map(|name| {
                    candidates.swap_remove(name).ok_or_else(|| damaged(format!("`{name}` does not train here")))
                })
                .collect::<Result<Vec<_>>>()?;
            let running = RunningStage::new(FlatParameters::new(trained), &self.train, self.student.signature())?;
            weights::copy_into(&running.state(), &state, &loaded.path)?;
            self.running = Some(running);
        }
        let (plan, step) = self.place(steps_per_epoch).ok_or_else(|| damaged("it has no step".to_owned()))?;
        let (stage, epochs, path) = (plan.name.clone(), plan.epochs, loaded.path);
        self.checkpoint = Some(path.clone());
        let open = self.has_open_epoch(steps_per_epoch);
        observers.tell(&self.info, Event::Resumed { stage, epochs, steps_per_epoch, step, open, path });
        if let Some(why) = loaded.passed_over {
            observers.tell(&self.info, Event::Warning { message: format!("an older checkpoint is used: {why}") });
        }
        Ok(())
    }

    /// Writes the student's weights alone, as they are.
    pub fn export(&self) -> Result<()> {
        weights::save(&self.info.folder.join(STUDENT), &weights::variables(&self.store), None)
    }
}
