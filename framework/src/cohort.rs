//! The one training loop: a cohort.
//!
//! A cohort is one data order, one forward pass per distinct teacher, and any number of lanes: a student with its method
//! and optimiser each. A lane computes the same bits alone or beside others, because nothing that it does depends on
//! the others: its randomness is a function of (seed, stage, step), its state is its own, and what is shared (batch and
//! teachers' features) is only read. A single run is a cohort of one.
//!
//! Lanes carry their own position. The cohort always serves the lanes that are furthest behind: so initial stages, lanes
//! resumed from different steps, and lanes that failed need no special care.

mod catch;
mod combined;
mod evaluate;
mod lane;
mod similarity;
mod stop;
mod teacher;
mod term;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;
use tch::{Device, Tensor};

pub use catch::catch;
pub use combined::CombinedTeacher;
pub(crate) use evaluate::batches;
pub use evaluate::{Classifier, Evaluation, accuracy, evaluate};
pub use stop::{Limit, Stop};
pub use teacher::Teacher;
pub use term::{Term, TermSite, build_terms, check_main_stage};

use crate::checkpoint;
use crate::dataset::{Dataset, Rows, Split, UNLABELLED, Views, divide};
use crate::device::synchronize;
use crate::error::{Error, Result};
use crate::event::{Event, LaneInfo, Observer};
use crate::experiment::{Division, MethodConfig, Precision, TrainConfig};
use crate::model::{Features, ModelConfig, ModelSpec, Signature, TapRef, Taps};
use crate::record::{Ensemble, Environment, Measure, Outcome, SUMMARY_FORMAT, Summary, TeacherRecord};
use crate::seed::Seed;
use crate::weights;
use lane::{Lane, Shared};

/// The student's weights in a run folder, once the run is finished.
pub const STUDENT: &str = "student.safetensors";
/// What the finished student is like beside the teachers: [`Similarity`](crate::record::Similarity).
pub const SIMILARITY: &str = "similarity.json";
/// Correlations of the classes' logits over the test split, `[C, C]`, float32: `student`, and `teacher.NAME` for each teacher.
pub const CORRELATIONS: &str = "correlations.safetensors";
/// What a run says of itself, once it has ended.
pub const SUMMARY: &str = "summary.json";

/// A data set with its division into training and validation.
#[derive(Debug)]
pub struct Data {
    /// The data set.
    pub dataset: Box<dyn Dataset>,
    /// The rows that are trained on; a sample's position is its place in this list.
    pub train_rows: Vec<i64>,
    /// The training rows that are held out.
    pub validation_rows: Vec<i64>,
    /// The labels of the training samples, by position.
    pub labels: Arc<[i64]>,
    /// A digest of the rows that are trained on, where they are not all: BLAKE3 in hexadecimal.
    pub part: Option<String>,
}

impl Data {
    /// Divides the training part, the same share of every class for each part, the same for every seed of an experiment;
    /// samples without label are never held out.
    ///
    /// # Errors
    /// If nothing is left to train on or less than is asked for, or samples lack targets that are sets of classes.
    pub fn new(dataset: Box<dyn Dataset>, division: Division) -> Result<Self> {
        let info = dataset.info();
        let all = &info.train_labels;
        if info.measure == Measure::MeanAveragePrecision && all.contains(&UNLABELLED) {
            return Err(Error::plan(format!(
                "data set {} has training samples without a target, and its targets are sets of classes: leave them out",
                info.name
            )));
        }
        let (train_rows, validation_rows) = divide(all, info.classes(), division)?;
        let labels = train_rows.iter().map(|row| all[*row as usize]).collect();
        let digest = || {
            let bytes: Vec<u8> = train_rows.iter().flat_map(|row| row.to_le_bytes()).collect();
            blake3::hash(&bytes).to_hex().to_string()
        };
        let part = (train_rows.len() < all.len()).then(digest);
        Ok(Data { dataset, train_rows, validation_rows, labels, part })
    }

    /// What a network is built for that sees `view`.
    ///
    /// # Errors
    /// If there is no such view.
    pub fn spec(&self, view: Option<&str>) -> Result<ModelSpec> {
        let info = self.dataset.info();
        Ok(ModelSpec { input: info.view(view)?.shape, classes: info.classes() })
    }

    /// The rows of a part that have a target, of the training part without what is held out.
    ///
    /// # Errors
    /// If there is none.
    pub fn labelled(&self, split: Split) -> Result<Vec<i64>> {
        let labels = self.dataset.info().labels(split);
        let (all, part): (Vec<i64>, _) = match split {
            Split::Train => (self.train_rows.clone(), "training"),
            Split::Test => ((0..labels.len() as i64).collect(), "test"),
        };
        let rows: Vec<i64> = all.into_iter().filter(|row| labels[*row as usize] != UNLABELLED).collect();
        if rows.is_empty() {
            return Err(Error::plan(format!("the {part} part has no sample with a label: a probe needs them")));
        }
        Ok(rows)
    }

    /// Steps of one epoch; the last batch may be smaller.
    pub fn steps_per_epoch(&self, batch: usize) -> u64 {
        self.train_rows.len().div_ceil(batch) as u64
    }
}

/// Everything that the lanes of a cohort share.
#[derive(Debug)]
pub struct CohortConfig<'a> {
    /// The data.
    pub data: &'a Data,
    /// The teachers with what is known of them, in the order of the experiment.
    pub teachers: &'a [(Teacher, TeacherRecord)],
    /// The teachers that combine others of them.
    pub combined: &'a [(CombinedTeacher, TeacherRecord)],
    /// What all the networks among the teachers are worth together, where there are several.
    pub ensemble: Option<&'a Ensemble>,
    /// How the students are trained.
    pub train: &'a TrainConfig,
    /// The seed of every lane: the same seed gives the same batches.
    pub seed: u64,
    /// Where.
    pub device: Device,
    /// The surroundings, for the summaries.
    pub environment: &'a Environment,
    /// Ends training before its time.
    pub stop: &'a Stop,
}

impl CohortConfig<'_> {
    /// The teachers that a lane asks, and the members of those that combine others.
    fn teachers_of(&self, lane: &Lane) -> Vec<TeacherRecord> {
        let mut used = lane.teachers();
        let combined = self.combined.iter().filter(|(teacher, _)| used.contains(&teacher.name));
        let members: Vec<String> = combined.flat_map(|(teacher, _)| &teacher.combination.teachers).cloned().collect();
        used.extend(members);
        let networks = self.teachers.iter().map(|(_, record)| record);
        let all = networks.chain(self.combined.iter().map(|(_, record)| record));
        all.filter(|record| used.contains(&record.name)).cloned().collect()
    }
}

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// For people: `crd, seed 0`.
    pub name: String,
    /// The run folder; it is created.
    pub folder: PathBuf,
    /// A digest of the resolved configuration: a folder of another identity is refused.
    pub identity: String,
    /// The student's network.
    pub student: Arc<dyn ModelConfig>,
    /// The arithmetic in which it computes.
    pub precision: Precision,
    /// What it sees.
    pub view: String,
    /// The method's name.
    pub method_name: String,
    /// The method.
    pub method: MethodConfig,
}

/// A part of training. Initial stages come before the main one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Initial(u64),
    Main,
}

impl Stage {
    fn seed(self, seed: u64) -> Seed {
        match self {
            Stage::Initial(index) => Seed::new(seed).stream("initial").at(index),
            Stage::Main => Seed::new(seed).stream("main"),
        }
    }
}

/// A point of training: the next step to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    stage: Stage,
    step: u64,
}

/// Passes events on.
struct Watch<'a>(&'a mut dyn Observer);

impl Watch<'_> {
    fn tell(&mut self, lane: &LaneInfo, event: Event) {
        self.0.event(lane, &event);
    }
}

/// Times the parts of every Nth step. On a GPU a timed part waits for the device; others do not.
struct Clock<'a> {
    device: Device,
    timed: bool,
    data: f64,
    /// By teacher: a lane is charged for those that it asks, and for the members of those that combine others.
    teachers: IndexMap<String, f64>,
    combined: &'a [(CombinedTeacher, TeacherRecord)],
}

impl Clock<'_> {
    /// The seconds of these teachers.
    fn seconds_of(&self, asked: &BTreeSet<&str>) -> f64 {
        let of_combined = self.combined.iter().filter(|(combined, _)| asked.contains(combined.name.as_str()));
        let members = of_combined.flat_map(|(combined, _)| combined.combination.teachers.iter().map(String::as_str));
        let all: BTreeSet<&str> = asked.iter().copied().chain(members).collect();
        all.into_iter().filter_map(|name| self.teachers.get(name)).sum()
    }

    fn since(&self, start: Instant) -> f64 {
        if self.timed {
            synchronize(self.device);
        }
        start.elapsed().as_secs_f64()
    }
}

/// "cpu" or "cuda": what must not change between a run's beginning and its resumption.
pub(crate) fn device_family(device: Device) -> &'static str {
    match device {
        Device::Cpu => "cpu",
        Device::Cuda(_) => "cuda",
        _ => "other",
    }
}

/// A lane with its lock and its result.
struct Berth {
    lane: Lane,
    method_name: String,
    outcome: Option<Outcome>,
    /// Held as long as the lane is at work.
    _lock: File,
}

/// The order of an epoch, on both sides.
struct EpochOrder {
    stage: Stage,
    epoch: u64,
    positions: Vec<i64>,
    positions_on_device: Tensor,
    rows: Vec<i64>,
    rows_on_device: Tensor,
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
    let mut cohort = Cohort::new(config, lanes, &mut Watch(observer))?;
    cohort.train(&mut Watch(observer))?;
    Ok(cohort.berths.into_iter().map(|berth| berth.outcome).collect())
}

struct Cohort<'a> {
    config: &'a CohortConfig<'a>,
    berths: Vec<Berth>,
    steps_per_epoch: u64,
    order: Option<EpochOrder>,
    /// When the last log entry was, and samples since.
    pace: (Instant, u64),
}

impl<'a> Cohort<'a> {
    fn new(config: &'a CohortConfig<'a>, lanes: &[LaneConfig], watch: &mut Watch<'_>) -> Result<Self> {
        let steps_per_epoch = config.data.steps_per_epoch(config.train.batch);
        let networks = config.teachers.iter().map(|(t, _)| (t.name.clone(), t.signature().clone()));
        let of_all = CombinedTeacher::signature(&config.data.spec(None)?);
        let together = config.combined.iter().map(|(combined, _)| (combined.name.clone(), of_all.clone()));
        let teachers: IndexMap<String, Signature> = networks.chain(together).collect();
        let combined = config.combined.iter().map(|(combined, _)| combined);
        let combined = combined.map(|teacher| (teacher.name.clone(), teacher.combination.teachers.clone())).collect();
        let site = TermSite {
            teachers: &teachers,
            combined: &combined,
            labels: &config.data.labels,
            measure: config.data.dataset.info().measure,
            device: config.device,
            seed: config.seed,
        };
        let (mut berths, mut damaged) = (Vec::new(), Vec::new());
        for (index, lane) in lanes.iter().enumerate() {
            fs::create_dir_all(&lane.folder).map_err(Error::io("create", &lane.folder))?;
            let lock = lock(&lane.folder)?;
            let info = LaneInfo { index, lanes: lanes.len(), name: lane.name.clone(), folder: lane.folder.clone() };
            let spec = config.data.spec(Some(&lane.view))?;
            let mut live = Lane::new(lane, info, &spec, &site, config.train).map_err(|e| e.within(&lane.name))?;
            match live.resume(config.environment, steps_per_epoch, watch) {
                Err(error) if error.is_usage() => return Err(error),
                Err(error) => damaged.push((index, error.to_string())),
                Ok(()) => {}
            }
            if live.is_new() {
                live.dropped().into_iter().for_each(|message| watch.tell(&live.info, Event::Warning { message }));
            }
            berths.push(Berth { lane: live, method_name: lane.method_name.clone(), outcome: None, _lock: lock });
        }
        let mut cohort = Cohort { config, berths, steps_per_epoch, order: None, pace: (Instant::now(), 0) };
        for (index, reason) in damaged {
            cohort.fail(index, reason, watch)?;
        }
        Ok(cohort)
    }

    /// The lanes still at work that are furthest behind, with their position.
    fn next(&self) -> Option<(Position, Vec<usize>)> {
        let positions: Vec<Option<Position>> = self
            .berths
            .iter()
            .map(|berth| if berth.outcome.is_none() { berth.lane.position() } else { None })
            .collect();
        let least = positions.iter().flatten().min().copied()?;
        let lanes = (0..positions.len()).filter(|i| positions[*i] == Some(least)).collect();
        Some((least, lanes))
    }

    fn train(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        while let Some((position, lanes)) = self.next() {
            if self.config.stop.is_due() {
                return self.interrupt(watch);
            }
            let is_open = |index: &usize| self.berths[*index].lane.has_open_epoch(self.steps_per_epoch);
            let open: Vec<usize> = lanes.iter().copied().filter(is_open).collect();
            if !open.is_empty() {
                let last = Position { step: position.step - 1, ..position };
                let sound = self.sound(last, &open, watch)?;
                self.close(last, &sound, watch)?;
                continue;
            }
            self.step(position, &lanes, watch)?;
            self.after_step(position, &lanes, watch)?;
            self.config.stop.count((position.step + 1).is_multiple_of(self.steps_per_epoch));
        }
        // A lane that was killed between its last checkpoint and its summary arrives here without a step.
        let late: Vec<usize> = (0..self.berths.len()).filter(|index| self.berths[*index].outcome.is_none()).collect();
        self.finish(&late, watch)
    }

    /// Writes a checkpoint of every lane that is still at work, where it stands.
    fn interrupt(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        for index in 0..self.berths.len() {
            let Berth { lane, outcome: None, .. } = &mut self.berths[index] else { continue };
            let Some(position) = lane.position() else { continue };
            match lane.verdict() {
                Err(error) => self.fail_at(index, position, &error, watch)?,
                Ok(()) if lane.is_new() => {}
                Ok(()) => lane.save(self.config.environment, self.steps_per_epoch, watch)?,
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
        let slice = |host: &[i64], device: &Tensor| {
            let end = (start + batch).min(host.len());
            Rows::from_parts(host[start..end].to_vec(), device.narrow(0, start as i64, (end - start) as i64))
        };
        (slice(&order.positions, &order.positions_on_device), slice(&order.rows, &order.rows_on_device))
    }

    /// The rows of the next step of this epoch; none after the last.
    fn next_rows(&self, position: Position) -> &[i64] {
        let rows = self.order.as_ref().map_or(&[][..], |order| &order.rows);
        let batch = self.config.train.batch;
        let start = (position.step % self.steps_per_epoch + 1) as usize * batch;
        rows.get(start..rows.len().min(start + batch)).unwrap_or_default()
    }

    fn step(&mut self, position: Position, lanes: &[usize], watch: &mut Watch<'_>) -> Result<()> {
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
            .map(|(teacher, _)| teacher)
            .filter(|teacher| wanted.contains_key(&teacher.name))
            .collect();
        let views: Views = lanes
            .iter()
            .map(|i| self.berths[*i].lane.view.clone())
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
        for (teacher, _) in combined.iter().filter(|(teacher, _)| wanted.contains_key(&teacher.name)) {
            let started = Instant::now();
            features.insert(teacher.name.clone(), teacher.features(&features)?);
            clock.teachers.insert(teacher.name.clone(), clock.since(started));
        }

        let shared =
            Shared { batch: &batch, teachers: &features, rows: &positions, steps_per_epoch: self.steps_per_epoch };
        let share = (clock.data + clock.teachers.values().sum::<f64>()) / lanes.len() as f64;
        for &index in lanes {
            let started = Instant::now();
            let lane = &mut self.berths[index].lane;
            // A panic inside `tch::no_grad` leaves gradients off: every lane turns them on for itself.
            let result = catch(|| tch::with_grad(|| lane.step(&shared, &clock, watch)));
            lane.book(share + started.elapsed().as_secs_f64());
            if let Err(error) = result {
                self.fail_at(index, position, &error, watch)?;
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
        let wait = || {
            synchronize(device);
            Ok(())
        };
        catch(wait).map_err(|lost| {
            Error::run(format!("the device computes no more after this error: {error}; it says: {lost}"))
        })
    }

    /// The teachers that these lanes ask, with the taps that any of them wants, and the members of those that combine others.
    fn wanted(&self, lanes: &[usize]) -> IndexMap<String, Taps> {
        let mut wanted: IndexMap<String, Taps> = IndexMap::new();
        for &index in lanes {
            for (teacher, taps) in self.berths[index].lane.wanted(self.steps_per_epoch) {
                let entry = wanted.entry(teacher.to_owned()).or_default();
                taps.for_each(|tap: &TapRef| entry.insert(tap.clone()));
            }
        }
        for (teacher, _) in self.config.combined {
            if wanted.contains_key(&teacher.name) {
                teacher.combination.teachers.iter().for_each(|member| {
                    wanted.entry(member.clone()).or_default();
                });
            }
        }
        wanted
    }

    /// Log entries, ends of epochs and stages, checkpoints.
    fn after_step(&mut self, position: Position, lanes: &[usize], watch: &mut Watch<'_>) -> Result<()> {
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
        let sound = self.sound(position, lanes, watch)?;
        let share = started.elapsed().as_secs_f64() / lanes.len().max(1) as f64;
        lanes.iter().for_each(|i| self.berths[*i].lane.book(share));
        if logs {
            let rate = self.pace.1 as f64 / self.pace.0.elapsed().as_secs_f64();
            self.pace = (Instant::now(), 0);
            for &index in &sound {
                let lane = &self.berths[index].lane;
                watch.tell(&lane.info, lane.step_event(self.steps_per_epoch, rate)?);
            }
        }
        self.close(position, &sound, watch)
    }

    /// Those of the lanes that are sound after a step; the others end.
    fn sound(&mut self, position: Position, lanes: &[usize], watch: &mut Watch<'_>) -> Result<Vec<usize>> {
        for &index in lanes {
            if self.berths[index].outcome.is_none()
                && let Err(error) = self.berths[index].lane.verdict()
            {
                self.fail_at(index, position, &error, watch)?;
            }
        }
        Ok(lanes.iter().copied().filter(|i| self.berths[*i].outcome.is_none()).collect())
    }

    /// Ends of epochs and stages after a step, checkpoints, and the end of lanes that are through. Stopped during an
    /// evaluation, the lanes keep their epoch open: the next call goes on here.
    fn close(&mut self, position: Position, lanes: &[usize], watch: &mut Watch<'_>) -> Result<()> {
        let done = position.step + 1;
        let epoch_ends = done.is_multiple_of(self.steps_per_epoch);
        let saves = done.is_multiple_of(self.config.train.checkpoint_steps);
        if epoch_ends {
            match self.end_epoch(position, lanes, watch) {
                Err(Error::Stopped) => return Ok(()),
                ended => ended?,
            }
        }
        let mut through = Vec::new();
        for &index in lanes {
            let berth = &mut self.berths[index];
            if berth.outcome.is_some() {
                continue;
            }
            if (epoch_ends && berth.lane.end_stage(self.steps_per_epoch)) || saves {
                berth.lane.save(self.config.environment, self.steps_per_epoch, watch)?;
            }
            if berth.lane.position().is_none() {
                through.push(index);
            }
        }
        self.finish(&through, watch)
    }

    fn end_epoch(&mut self, position: Position, lanes: &[usize], watch: &mut Watch<'_>) -> Result<()> {
        let epoch = position.step / self.steps_per_epoch + 1;
        let evaluated: Vec<usize> = lanes.iter().copied().filter(|i| self.berths[*i].lane.evaluates(epoch)).collect();
        let mut evaluations = vec![Evaluation::default(); self.berths.len()];
        if !evaluated.is_empty() {
            let started = Instant::now();
            evaluated.iter().for_each(|i| self.berths[*i].lane.swap_average());
            let students: Vec<_> = evaluated
                .iter()
                .map(|i| &self.berths[*i].lane)
                .map(|lane| move |batch: &_| Ok(lane.features(batch, &Taps::none())?.logits))
                .collect();
            let networks: Vec<Classifier<'_>> = students.iter().map(|student| student as Classifier<'_>).collect();
            let views: Views = evaluated.iter().map(|i| self.berths[*i].lane.view.clone()).collect();
            let results = evaluate(self.config.data, &views, &networks, self.config.device, self.config.stop);
            evaluated.iter().for_each(|i| self.berths[*i].lane.swap_average());
            let results = results?;
            let share = started.elapsed().as_secs_f64() / evaluated.len() as f64;
            for (&index, result) in evaluated.iter().zip(results) {
                self.berths[index].lane.book(share);
                match result {
                    Ok(evaluation) => evaluations[index] = evaluation,
                    Err(error) => self.fail_at(index, position, &error, watch)?,
                }
            }
            // Evaluation is no part of the pace of training.
            self.pace = (Instant::now(), 0);
        }
        for &index in lanes {
            if self.berths[index].outcome.is_none() {
                let lane = &mut self.berths[index].lane;
                let record = lane.end_epoch(epoch, evaluations[index])?;
                watch.tell(&lane.info, Event::Epoch(record));
            }
        }
        Ok(())
    }

    /// Ends a lane for what happened at a step.
    fn fail_at(&mut self, index: usize, position: Position, error: &Error, watch: &mut Watch<'_>) -> Result<()> {
        let stage = self.berths[index].lane.stage_name();
        self.fail(index, format!("{error} ({stage} stage, noticed after step {})", position.step), watch)
    }

    fn fail(&mut self, index: usize, reason: String, watch: &mut Watch<'_>) -> Result<()> {
        let checkpoint = self.berths[index].lane.checkpoint.clone();
        self.end(index, Outcome::Failed { reason, checkpoint }, watch)
    }

    /// Ends lanes that are through: what they are is measured and written. Stopped meanwhile, they are as they were.
    fn finish(&mut self, lanes: &[usize], watch: &mut Watch<'_>) -> Result<()> {
        if lanes.is_empty() {
            return Ok(());
        }
        // They rest after this: the averages stay where the students were.
        lanes.iter().for_each(|i| self.berths[*i].lane.swap_average());
        let started = Instant::now();
        let students: Vec<&Lane> = lanes.iter().map(|i| &self.berths[*i].lane).collect();
        let findings = match similarity::measure(self.config, &students) {
            Ok(findings) => findings,
            Err(Error::Stopped) => {
                lanes.iter().for_each(|i| self.berths[*i].lane.swap_average());
                return Ok(());
            }
            Err(error) => students.iter().map(|_| Err(Error::run(error.to_string()))).collect(),
        };
        let share = started.elapsed().as_secs_f64() / lanes.len() as f64;
        for (&index, findings) in lanes.iter().zip(findings) {
            let lane = &mut self.berths[index].lane;
            lane.book(share);
            // A student is finished without it, too.
            if let Err(error) = findings.and_then(|findings| findings.save(&lane.info.folder)) {
                let message = format!("what it has in common with the teachers is not known: {error}");
                watch.tell(&lane.info, Event::Warning { message });
            }
            lane.export()?;
            checkpoint::remove_previous(&lane.info.folder)?;
            self.end(index, Outcome::Finished, watch)?;
        }
        Ok(())
    }

    /// Says how the lane ended, writes that down, and lets it rest. Killed in between, it says so again when it is resumed.
    fn end(&mut self, index: usize, outcome: Outcome, watch: &mut Watch<'_>) -> Result<()> {
        let config = self.config;
        let berth = &mut self.berths[index];
        let (lane, data) = (&berth.lane, config.data);
        let info = data.dataset.info();
        let summary = Summary {
            format: SUMMARY_FORMAT,
            method: berth.method_name.clone(),
            seed: config.seed,
            dataset: info.name.clone(),
            samples: [data.train_rows.len(), data.validation_rows.len(), info.test_labels.len()],
            student: lane.model_kind.clone(),
            precision: lane.precision,
            averaged: config.train.average.is_some(),
            view: lane.view.clone(),
            teachers: config.teachers_of(lane),
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
            peak_memory: if config.device == Device::Cpu { peak_memory() } else { None },
            lanes: self.berths.len(),
            environment: config.environment.clone(),
        };
        let berth = &mut self.berths[index];
        let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::run(format!("summary: {e}")))?;
        watch.tell(&berth.lane.info, Event::Ended(outcome.clone()));
        weights::write_atomically(&berth.lane.info.folder.join(SUMMARY), text.as_bytes())?;
        berth.outcome = Some(outcome);
        Ok(())
    }
}

/// One process at a time works in a folder, for as long as it holds what this returns.
///
/// # Errors
/// If another process is at work there, or the folder is not writable.
pub fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::plan(format!(
            "another process is at work in {}: wait for it, or choose another folder with --out",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

/// The process's peak resident memory in bytes since it started, where the system says.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
