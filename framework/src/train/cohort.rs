//! The one training loop: a cohort.
//!
//! A cohort is one data order, one forward pass per distinct teacher, and any number of lanes: a student with its method
//! and optimiser each. A lane computes the same bits alone or beside others, because nothing that it does depends on
//! the others: its randomness is a function of (seed, stage, step), its state is its own, and what is shared (batch and
//! teachers' features) is only read. A single run is a cohort of one.
//!
//! Lanes carry their own position. The cohort always serves the lanes that are furthest behind: so initial stages, lanes
//! resumed from different steps, and lanes that failed need no special care.

use std::fs::{self, File};
use std::time::Instant;

use indexmap::IndexMap;
use tch::{Device, Tensor};

pub use super::catch::catch;
pub use super::combined::CombinedTeacher;
pub use super::config::{CohortConfig, LaneConfig, LoadedTeacher};
pub use super::data::Data;
pub use super::evaluate::{Classifier, Evaluation, accuracy, evaluate};
pub use super::file_names::{CORRELATIONS, SIMILARITY, STUDENT, SUMMARY};
pub use super::stop::{Limit, Stop};
pub use super::teacher::{Inspection, Teacher, inspect};
pub use super::term::{Term, TermSite, build_terms, check_main_stage};

use super::checkpoint;
use super::clock::Clock;
use super::comparison;
use super::lane::Lane;
use super::lane::step::Shared;
use super::observers::Observers;
use super::order::EpochOrder;
use super::stage::Position;
use crate::dataset::{Rows, Split, Views};
use crate::device::synchronize;
use crate::error::{Error, Result};
use crate::event::{Event, LaneInfo, Observer};
use crate::files::{lock, write_atomically};
use crate::memory;
use crate::model::{Features, Signature, TapRef, Taps};
use crate::record::{Outcome, SUMMARY_FORMAT, Summary, TeacherRecord};

/// A lane with its lock and its result.
struct LaneSlot {
    lane: Lane,
    method_name: String,
    outcome: Option<Outcome>,
    /// Held as long as the lane is at work.
    _lock: File,
}

/// Trains every lane to its end, resuming those that were begun. Lanes that are finished are left alone.
///
/// Returns what became of each; nothing for lanes that [`Stop`] ended early, each with a checkpoint at its last step.
///
/// # Errors
/// If the cohort as a whole cannot go on: a folder cannot be written, a batch cannot be read, a teacher fails. What
/// happens to one lane ends that lane and is in its [`Outcome`].
pub fn run(
    config: &CohortConfig<'_>,
    lanes: &[LaneConfig],
    observer: &mut dyn Observer,
) -> Result<Vec<Option<Outcome>>> {
    let mut cohort = Cohort::new(config, lanes, &mut Observers(observer))?;
    cohort.train(&mut Observers(observer))?;
    Ok(cohort.slots.into_iter().map(|slot| slot.outcome).collect())
}

struct Cohort<'a> {
    config: &'a CohortConfig<'a>,
    slots: Vec<LaneSlot>,
    steps_per_epoch: u64,
    order: Option<EpochOrder>,
    /// When the last log entry was, and samples since.
    pace: (Instant, u64),
}

impl<'a> Cohort<'a> {
    fn new(config: &'a CohortConfig<'a>, lanes: &[LaneConfig], observers: &mut Observers<'_>) -> Result<Self> {
        let steps_per_epoch = config.data.steps_per_epoch(config.train.batch);
        let networks =
            config.teachers.iter().map(|loaded| (loaded.teacher.name.clone(), loaded.teacher.signature().clone()));
        let of_all = CombinedTeacher::signature(&config.data.spec(None)?);
        let together = config.combined.iter().map(|loaded| (loaded.teacher.name.clone(), of_all.clone()));
        let teachers: IndexMap<String, Signature> = networks.chain(together).collect();
        let combined = config.combined.iter().map(|loaded| &loaded.teacher);
        let combined = combined.map(|teacher| (teacher.name.clone(), teacher.combination.teachers.clone())).collect();
        let site = TermSite {
            teachers: &teachers,
            combined: &combined,
            labels: &config.data.labels,
            task: config.data.dataset.info().task,
            device: config.device,
            seed: config.seed,
        };
        let (mut slots, mut damaged) = (Vec::new(), Vec::new());
        for (index, lane) in lanes.iter().enumerate() {
            fs::create_dir_all(&lane.folder).map_err(Error::io("create", &lane.folder))?;
            let lock = lock(&lane.folder)?;
            let info = LaneInfo { index, lanes: lanes.len(), name: lane.name.clone(), folder: lane.folder.clone() };
            let spec = config.data.spec(Some(&lane.view))?;
            let mut live = Lane::new(lane, info, &spec, &site, config.train).map_err(|e| e.within(&lane.name))?;
            match live.resume(config.environment, steps_per_epoch, observers) {
                Err(error) if error.is_usage() => return Err(error),
                Err(error) => damaged.push((index, error.to_string())),
                Ok(()) => {}
            }
            if live.is_new() {
                live.dropped().into_iter().for_each(|message| observers.tell(&live.info, Event::Warning { message }));
            }
            slots.push(LaneSlot { lane: live, method_name: lane.method_name.clone(), outcome: None, _lock: lock });
        }
        let mut cohort = Cohort { config, slots, steps_per_epoch, order: None, pace: (Instant::now(), 0) };
        for (index, reason) in damaged {
            cohort.fail(index, reason, observers)?;
        }
        Ok(cohort)
    }

    /// The lanes still at work that are furthest behind, with their position.
    fn next(&self) -> Option<(Position, Vec<usize>)> {
        let positions: Vec<Option<Position>> =
            self.slots.iter().map(|slot| if slot.outcome.is_none() { slot.lane.position() } else { None }).collect();
        let least = positions.iter().flatten().min().copied()?;
        let lanes = (0..positions.len()).filter(|i| positions[*i] == Some(least)).collect();
        Some((least, lanes))
    }

    fn train(&mut self, observers: &mut Observers<'_>) -> Result<()> {
        while let Some((position, lanes)) = self.next() {
            if self.config.stop.is_due() {
                return self.interrupt(observers);
            }
            let mut open = lanes.clone();
            open.retain(|index| self.slots[*index].lane.has_open_epoch(self.steps_per_epoch));
            if !open.is_empty() {
                let last = Position { step: position.step - 1, ..position };
                let sound = self.sound(last, &open, observers)?;
                self.close(last, &sound, observers)?;
                continue;
            }
            self.step(position, &lanes, observers)?;
            self.after_step(position, &lanes, observers)?;
            self.config.stop.count((position.step + 1).is_multiple_of(self.steps_per_epoch));
        }
        // A lane that was killed between its last checkpoint and its summary arrives here without a step.
        let late: Vec<usize> = (0..self.slots.len()).filter(|index| self.slots[*index].outcome.is_none()).collect();
        self.finish(&late, observers)
    }

    /// Writes a checkpoint of every lane that is still at work, where it stands.
    fn interrupt(&mut self, observers: &mut Observers<'_>) -> Result<()> {
        for index in 0..self.slots.len() {
            let LaneSlot { lane, outcome: None, .. } = &mut self.slots[index] else { continue };
            let Some(position) = lane.position() else { continue };
            match lane.verdict() {
                Err(error) => self.fail_at(index, position, &error, observers)?,
                Ok(()) if lane.is_new() => {}
                Ok(()) => lane.save(self.config.environment, self.steps_per_epoch, observers)?,
            }
        }
        Ok(())
    }

    /// The samples of a step: (positions in the training set, rows of the data set).
    fn rows(&mut self, position: Position) -> (Rows, Rows) {
        let (stage, epoch) = (position.stage, position.step / self.steps_per_epoch + 1);
        let CohortConfig { device, data, seed, .. } = *self.config;
        if self.order.as_ref().is_some_and(|order| (order.stage, order.epoch) != (stage, epoch)) {
            self.order = None;
        }
        let order = self.order.get_or_insert_with(|| {
            let positions = stage.seed(seed).stream("order").at(epoch).rng().permutation(data.train_rows.len());
            let rows: Vec<i64> = positions.iter().map(|position| data.train_rows[*position as usize]).collect();
            let positions_on_device = Tensor::from_slice(&positions).to_device(device);
            let rows_on_device = Tensor::from_slice(&rows).to_device(device);
            EpochOrder { stage, epoch, positions, positions_on_device, rows, rows_on_device }
        });
        let batch = self.config.train.batch;
        let start = (position.step % self.steps_per_epoch) as usize * batch;
        order.slice(start..(start + batch).min(order.rows.len()))
    }

    /// The rows of the next step of this epoch; none after the last.
    fn next_rows(&self, position: Position) -> &[i64] {
        let rows = self.order.as_ref().map_or(&[][..], |order| &order.rows);
        let batch = self.config.train.batch;
        let start = (position.step % self.steps_per_epoch + 1) as usize * batch;
        rows.get(start..rows.len().min(start + batch)).unwrap_or_default()
    }

    fn step(&mut self, position: Position, lanes: &[usize], observers: &mut Observers<'_>) -> Result<()> {
        let config = self.config;
        let (positions, rows) = self.rows(position);
        let timing = config.train.timing_steps;
        // The first steps warm up allocators and kernels: they are not timed.
        let timed = timing > 0 && position.step % timing == timing - 1;
        let combined = config.combined;
        let mut clock = Clock { device: config.device, timed, data: 0.0, teachers: IndexMap::new(), combined };

        let wanted = self.wanted(lanes);
        let teachers: Vec<&Teacher> = config
            .teachers
            .iter()
            .map(|loaded| &loaded.teacher)
            .filter(|teacher| wanted.contains_key(&teacher.name))
            .collect();
        let views: Views = lanes
            .iter()
            .map(|i| self.slots[*i].lane.view.clone())
            .chain(teachers.iter().map(|teacher| teacher.view.clone()))
            .collect();

        if timed {
            // What earlier steps still compute is no part of this one.
            synchronize(config.device);
        }
        let started = Instant::now();
        let epoch = position.step / self.steps_per_epoch + 1;
        let draw = position.stage.seed(config.seed).stream("augment").at(epoch);
        // Announced before this batch is asked for: whoever reads them has work while the last of this one is waited for.
        config.data.dataset.prefetch(Split::Train, self.next_rows(position), &views, Some(draw));
        let batch = config.data.dataset.batch(Split::Train, &rows, &views, Some(draw))?;
        clock.data = clock.since(started);

        let mut features: IndexMap<String, Features> = IndexMap::new();
        for teacher in teachers {
            let started = Instant::now();
            let output = teacher.teach(batch.view(&teacher.view)?, &rows, &wanted[&teacher.name])?;
            features.insert(teacher.name.clone(), output);
            clock.teachers.insert(teacher.name.clone(), clock.since(started));
        }
        for LoadedTeacher { teacher, .. } in combined.iter().filter(|loaded| wanted.contains_key(&loaded.teacher.name))
        {
            let started = Instant::now();
            features.insert(teacher.name.clone(), teacher.features(&features)?);
            clock.teachers.insert(teacher.name.clone(), clock.since(started));
        }

        let shared =
            Shared { batch: &batch, teachers: &features, rows: &positions, steps_per_epoch: self.steps_per_epoch };
        let share = (clock.data + clock.teachers.values().sum::<f64>()) / lanes.len() as f64;
        for &index in lanes {
            let started = Instant::now();
            let lane = &mut self.slots[index].lane;
            // A panic inside `tch::no_grad` leaves gradients off: every lane turns them on for itself.
            let result = catch(|| tch::with_grad(|| lane.step(&shared, &clock, observers)));
            lane.charge(share + started.elapsed().as_secs_f64());
            if let Err(error) = result {
                self.fail_at(index, position, &error, observers)?;
                self.check_device(&error)?;
            }
        }
        self.pace.1 += rows.len() as u64;
        Ok(())
    }

    /// After a lane's error: whether the device still computes. An index out of its range on a GPU ends all work of this
    /// process there, whoever's it is.
    fn check_device(&self, error: &Error) -> Result<()> {
        let device = self.config.device;
        let waited = catch(|| {
            synchronize(device);
            Ok(())
        });
        match waited {
            Ok(()) => Ok(()),
            Err(lost) => {
                Err(Error::run(format!("the device computes no more after this error: {error}; it says: {lost}")))
            }
        }
    }

    /// The teachers that these lanes ask, with the taps that any of them wants, and the members of those that combine others.
    fn wanted(&self, lanes: &[usize]) -> IndexMap<String, Taps> {
        let mut wanted: IndexMap<String, Taps> = IndexMap::new();
        for &index in lanes {
            for (teacher, taps) in self.slots[index].lane.wanted(self.steps_per_epoch) {
                let entry = wanted.entry(teacher.to_owned()).or_default();
                taps.for_each(|tap: &TapRef| entry.insert(tap.clone()));
            }
        }
        for LoadedTeacher { teacher, .. } in self.config.combined {
            if wanted.contains_key(&teacher.name) {
                teacher.combination.teachers.iter().for_each(|member| {
                    wanted.entry(member.clone()).or_default();
                });
            }
        }
        wanted
    }

    /// Log entries, ends of epochs and stages, checkpoints.
    fn after_step(&mut self, position: Position, lanes: &[usize], observers: &mut Observers<'_>) -> Result<()> {
        let done = position.step + 1;
        let train = self.config.train;
        let epoch_ends = done.is_multiple_of(self.steps_per_epoch);
        let logs = done.is_multiple_of(train.log_steps);
        let saves = done.is_multiple_of(train.checkpoint_steps);
        if !(epoch_ends || logs || saves) {
            return Ok(());
        }
        // Reading the device waits for all that was enqueued.
        let started = Instant::now();
        let sound = self.sound(position, lanes, observers)?;
        let share = started.elapsed().as_secs_f64() / lanes.len().max(1) as f64;
        lanes.iter().for_each(|i| self.slots[*i].lane.charge(share));
        if logs {
            let rate = self.pace.1 as f64 / self.pace.0.elapsed().as_secs_f64();
            self.pace = (Instant::now(), 0);
            for &index in &sound {
                let lane = &self.slots[index].lane;
                observers.tell(&lane.info, lane.step_event(self.steps_per_epoch, rate)?);
            }
        }
        self.close(position, &sound, observers)
    }

    /// Those of the lanes that are sound after a step; the others end.
    fn sound(&mut self, position: Position, lanes: &[usize], observers: &mut Observers<'_>) -> Result<Vec<usize>> {
        for &index in lanes {
            if self.slots[index].outcome.is_none()
                && let Err(error) = self.slots[index].lane.verdict()
            {
                self.fail_at(index, position, &error, observers)?;
            }
        }
        Ok(lanes.iter().copied().filter(|i| self.slots[*i].outcome.is_none()).collect())
    }

    /// Ends of epochs and stages after a step, checkpoints, and the end of lanes that are through. Stopped during an
    /// evaluation, the lanes keep their epoch open: the next call goes on here.
    fn close(&mut self, position: Position, lanes: &[usize], observers: &mut Observers<'_>) -> Result<()> {
        let done = position.step + 1;
        let epoch_ends = done.is_multiple_of(self.steps_per_epoch);
        let saves = done.is_multiple_of(self.config.train.checkpoint_steps);
        if epoch_ends {
            match self.end_epoch(position, lanes, observers) {
                Err(Error::Stopped) => return Ok(()),
                ended => ended?,
            }
        }
        let mut through = Vec::new();
        for &index in lanes {
            let slot = &mut self.slots[index];
            if slot.outcome.is_some() {
                continue;
            }
            if (epoch_ends && slot.lane.end_stage(self.steps_per_epoch)) || saves {
                slot.lane.save(self.config.environment, self.steps_per_epoch, observers)?;
            }
            if slot.lane.position().is_none() {
                through.push(index);
            }
        }
        self.finish(&through, observers)
    }

    fn end_epoch(&mut self, position: Position, lanes: &[usize], observers: &mut Observers<'_>) -> Result<()> {
        let epoch = position.step / self.steps_per_epoch + 1;
        let evaluated: Vec<usize> = lanes.iter().copied().filter(|i| self.slots[*i].lane.evaluates(epoch)).collect();
        let mut evaluations = vec![Evaluation::default(); self.slots.len()];
        if !evaluated.is_empty() {
            let started = Instant::now();
            evaluated.iter().for_each(|i| self.slots[*i].lane.swap_average());
            let students: Vec<_> = evaluated
                .iter()
                .map(|i| &self.slots[*i].lane)
                .map(|lane| move |batch: &_| Ok(lane.features(batch, &Taps::none())?.logits))
                .collect();
            let networks: Vec<Classifier<'_>> = students.iter().map(|student| student as Classifier<'_>).collect();
            let views: Views = evaluated.iter().map(|i| self.slots[*i].lane.view.clone()).collect();
            let results = evaluate(self.config.data, &views, &networks, self.config.device, self.config.stop);
            evaluated.iter().for_each(|i| self.slots[*i].lane.swap_average());
            let results = results?;
            let share = started.elapsed().as_secs_f64() / evaluated.len() as f64;
            for (&index, result) in evaluated.iter().zip(results) {
                self.slots[index].lane.charge(share);
                match result {
                    Ok(evaluation) => evaluations[index] = evaluation,
                    Err(error) => self.fail_at(index, position, &error, observers)?,
                }
            }
            // Evaluation is no part of the pace of training.
            self.pace = (Instant::now(), 0);
        }
        for &index in lanes {
            if self.slots[index].outcome.is_none() {
                let lane = &mut self.slots[index].lane;
                let record = lane.end_epoch(epoch, evaluations[index])?;
                observers.tell(&lane.info, Event::Epoch(record));
            }
        }
        Ok(())
    }

    /// Ends a lane for what happened at a step.
    fn fail_at(
        &mut self,
        index: usize,
        position: Position,
        error: &Error,
        observers: &mut Observers<'_>,
    ) -> Result<()> {
        let stage = self.slots[index].lane.stage_name();
        self.fail(index, format!("{error} ({stage} stage, noticed after step {})", position.step), observers)
    }

    fn fail(&mut self, index: usize, reason: String, observers: &mut Observers<'_>) -> Result<()> {
        let checkpoint = self.slots[index].lane.checkpoint.clone();
        self.end(index, Outcome::Failed { reason, checkpoint }, observers)
    }

    /// Ends lanes that are through: what they are is measured and written. Stopped meanwhile, they are as they were.
    fn finish(&mut self, lanes: &[usize], observers: &mut Observers<'_>) -> Result<()> {
        if lanes.is_empty() {
            return Ok(());
        }
        // They rest after this: the averages stay where the students were.
        lanes.iter().for_each(|i| self.slots[*i].lane.swap_average());
        let started = Instant::now();
        let students: Vec<&Lane> = lanes.iter().map(|i| &self.slots[*i].lane).collect();
        let findings = match comparison::measure(self.config, &students) {
            Ok(findings) => findings,
            Err(Error::Stopped) => {
                lanes.iter().for_each(|i| self.slots[*i].lane.swap_average());
                return Ok(());
            }
            Err(error) => students.iter().map(|_| Err(Error::run(error.to_string()))).collect(),
        };
        let share = started.elapsed().as_secs_f64() / lanes.len() as f64;
        for (&index, findings) in lanes.iter().zip(findings) {
            let lane = &mut self.slots[index].lane;
            lane.charge(share);
            // A student is finished without it, too.
            if let Err(error) = findings.and_then(|findings| findings.save(&lane.info.folder)) {
                let message = format!("what it has in common with the teachers is not known: {error}");
                observers.tell(&lane.info, Event::Warning { message });
            }
            lane.export()?;
            checkpoint::remove_previous(&lane.info.folder)?;
            self.end(index, Outcome::Finished, observers)?;
        }
        Ok(())
    }

    /// Says how the lane ended, writes that down, and lets it rest. Killed in between, it says so again when it is resumed.
    fn end(&mut self, index: usize, outcome: Outcome, observers: &mut Observers<'_>) -> Result<()> {
        let config = self.config;
        let slot = &mut self.slots[index];
        let (lane, data) = (&slot.lane, config.data);
        let info = data.dataset.info();
        let summary = Summary {
            format: SUMMARY_FORMAT,
            method: slot.method_name.clone(),
            seed: config.seed,
            dataset: info.name.clone(),
            samples: data.sample_counts(),
            student: lane.model_kind.clone(),
            precision: lane.precision,
            averaged: config.train.average.is_some(),
            view: lane.view.clone(),
            teachers: teachers_of(config, lane),
            ensemble: config.ensemble.cloned(),
            accuracy: if outcome == Outcome::Finished { lane.accuracies() } else { None },
            outcome: outcome.clone(),
            epochs: config.train.epochs,
            history: lane.history().to_vec(),
            student_parameters: lane.student_parameters(),
            student_multiply_adds: lane.student_multiply_adds(),
            method_parameters: lane.method_parameters(),
            timing: lane.timing(),
            seconds: lane.seconds(),
            peak_memory: if config.device == Device::Cpu { memory::peak() } else { None },
            lanes: self.slots.len(),
            environment: config.environment.clone(),
        };
        let slot = &mut self.slots[index];
        let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::run(format!("summary: {e}")))?;
        observers.tell(&slot.lane.info, Event::Ended(outcome.clone()));
        write_atomically(&slot.lane.info.folder.join(SUMMARY), text.as_bytes())?;
        slot.outcome = Some(outcome);
        Ok(())
    }
}

/// The teachers that a lane asks, and the members of those that combine others.
fn teachers_of(config: &CohortConfig<'_>, lane: &Lane) -> Vec<TeacherRecord> {
    let mut used = lane.teachers();
    let combined = config.combined.iter().filter(|loaded| used.contains(&loaded.teacher.name));
    let members: Vec<String> = combined.flat_map(|loaded| &loaded.teacher.combination.teachers).cloned().collect();
    used.extend(members);
    let networks = config.teachers.iter().map(|loaded| &loaded.record);
    let all = networks.chain(config.combined.iter().map(|loaded| &loaded.record));
    all.filter(|record| used.contains(&record.name)).cloned().collect()
}
