//! The experiment file: what a researcher writes, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::combination::{Combination, Combining};
use crate::dataset::DatasetConfig;
use crate::device::DeviceSpec;
use crate::distiller::DistillerConfig;
use crate::error::{Error, Result};
use crate::model::{ModelConfig, Signature, TapRef};
use crate::optim::{AverageConfig, MultiStep, OptimizerConfig, ScheduleConfig, Sgd};
pub use crate::precision::Precision;
use crate::record::Measure;
use crate::registry::{self, Role};

/// The version of the file format that this framework reads.
pub const FORMAT: u32 = 1;

/// An experiment: one data set, teachers, a student, and the methods to compare.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The version of this format: [`FORMAT`].
    pub format: u32,
    /// A name for folders and reports.
    pub name: String,
    /// Where to train.
    #[serde(default)]
    pub device: DeviceSpec,
    /// Threads of libtorch on the CPU; absent: as many as cores. Another number changes the last bits of the results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The most students that are trained side by side in one cohort; more of them make several.
    #[serde(default = "default_lanes", skip_serializing_if = "is_default_lanes")]
    pub lanes: usize,
    /// How many training samples are held out for validation.
    #[serde(default)]
    pub validation: usize,
    /// How many of the other training samples are trained on, teachers and students alike; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_samples: Option<usize>,
    /// The data.
    pub dataset: Arc<dyn DatasetConfig>,
    /// The teachers by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub teacher: IndexMap<String, TeacherConfig>,
    /// The student.
    pub student: StudentConfig,
    /// How students are trained.
    #[serde(default)]
    pub train: TrainConfig,
    /// Methods of this experiment; they take precedence over built-in ones of the same name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub method: IndexMap<String, MethodConfig>,
    /// What to compare.
    #[serde(default)]
    pub compare: CompareConfig,
    /// Linear classifiers on the frozen networks, by name: trained after the students.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub probe: IndexMap<String, ProbeConfig>,
}

impl Experiment {
    /// How the training part of its data is divided.
    pub fn division(&self) -> Division {
        Division { validation: self.validation, train_samples: self.train_samples }
    }
}

/// How the training part of a data set is divided: [`Experiment::validation`] and [`Experiment::train_samples`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Division {
    /// How many samples are held out.
    pub validation: usize,
    /// How many of the others are trained on; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_samples: Option<usize>,
}

fn default_lanes() -> usize {
    16
}

fn is_default_lanes(lanes: &usize) -> bool {
    *lanes == default_lanes()
}

/// A teacher: a network, or several of them taken as one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, try_from = "TeacherTable")]
pub enum TeacherConfig {
    /// A network.
    Network(Box<NetworkConfig>),
    /// What other teachers say together: it has logits alone. Terms ask it only by name.
    Combined {
        /// Which, and how.
        combine: Combination,
    },
}

impl TeacherConfig {
    /// The network, if it is one.
    pub fn network(&self) -> Option<&NetworkConfig> {
        match self {
            TeacherConfig::Network(network) => Some(network),
            TeacherConfig::Combined { .. } => None,
        }
    }

    /// The same to be changed.
    pub fn network_mut(&mut self) -> Option<&mut NetworkConfig> {
        match self {
            TeacherConfig::Network(network) => Some(network),
            TeacherConfig::Combined { .. } => None,
        }
    }

    /// What it combines, if it does.
    pub fn combination(&self) -> Option<&Combination> {
        match self {
            TeacherConfig::Network(_) => None,
            TeacherConfig::Combined { combine } => Some(combine),
        }
    }
}

/// A teacher as it is written: every key that either form has, so that each is read in its place and errors name it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeacherTable {
    combine: Option<Combination>,
    view: Option<String>,
    model: Option<Arc<dyn ModelConfig>>,
    weights: Option<PathBuf>,
    precision: Option<Precision>,
    fold_batch_norm: Option<bool>,
    train: Option<TrainConfig>,
    seed: Option<u64>,
}

impl TryFrom<TeacherTable> for TeacherConfig {
    type Error = String;

    fn try_from(table: TeacherTable) -> Result<Self, String> {
        let TeacherTable { combine, view, model, weights, precision, fold_batch_norm, train, seed } = table;
        let Some(combine) = combine else {
            return Ok(TeacherConfig::Network(Box::new(NetworkConfig {
                view,
                model: model.ok_or("missing field `model`")?,
                weights,
                precision: precision.unwrap_or_default(),
                fold_batch_norm: fold_batch_norm.unwrap_or_default(),
                train,
                seed: seed.unwrap_or_default(),
            })));
        };
        let of_networks = [
            ("model", model.is_some()),
            ("view", view.is_some()),
            ("weights", weights.is_some()),
            ("precision", precision.is_some()),
            ("fold_batch_norm", fold_batch_norm.is_some()),
            ("train", train.is_some()),
            ("seed", seed.is_some()),
        ];
        match of_networks.into_iter().find(|(_, is)| *is) {
            None => Ok(TeacherConfig::Combined { combine }),
            Some((key, _)) => {
                Err(format!("a teacher that combines others is no network of its own: remove `{key}`, or `combine`"))
            }
        }
    }
}

/// A teacher's network with weights, or with a recipe for them.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkConfig {
    /// What it sees; absent: the data set's first view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The network.
    pub model: Arc<dyn ModelConfig>,
    /// Its weights (safetensors or a PyTorch checkpoint), relative to the experiment file. Absent: it is
    /// trained first, by `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// The arithmetic of its forward pass. Its outputs are float32 in any case.
    pub precision: Precision,
    /// Whether each BatchNorm is folded into the convolution before it: faster, and the features differ in the last digits.
    #[serde(skip_serializing_if = "is_false")]
    pub fold_batch_norm: bool,
    /// How it is trained if it has no weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TrainConfig>,
    /// The seed with which it is trained.
    pub seed: u64,
}

/// The student.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentConfig {
    /// What it sees; absent: the data set's first view.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// The network.
    pub model: Arc<dyn ModelConfig>,
    /// The arithmetic of its forward and backward pass. Its weights, the losses and the optimiser are float32 in any case.
    #[serde(default, skip_serializing_if = "Precision::is_float32")]
    pub precision: Precision,
}

/// How a network is trained. The defaults are the CIFAR-100 protocol of the CRD paper.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: u64,
    /// Samples in a batch; the last batch of an epoch may be smaller.
    pub batch: usize,
    /// The base learning rate.
    pub learning_rate: f64,
    /// Epochs over which the rate rises linearly from 0, step by step, before the schedule takes over (it runs on meanwhile).
    pub warmup_epochs: f64,
    /// What the base learning rate is multiplied by.
    pub schedule: Arc<dyn ScheduleConfig>,
    /// The optimiser.
    pub optimizer: Arc<dyn OptimizerConfig>,
    /// Factors on the learning rate by group, in every stage: `heads` is what a method trains beside the student, `features`
    /// every feature module of the student, and a name of the student's own groups goes before that.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub rates: IndexMap<String, f64>,
    /// The largest L2 norm of the gradient of everything that is trained; a larger one is scaled down to it (Pascanu, Mikolov,
    /// Bengio. On the difficulty of training recurrent neural networks. ICML 2013, algorithm 1). Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Steps whose mean gradient makes one update of the optimiser; the last update of a stage takes what is left.
    #[serde(skip_serializing_if = "is_one")]
    pub accumulate: u64,
    /// An exponential moving average of the student, in the main stage: what is evaluated and exported then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub average: Option<AverageConfig>,
    /// Epochs between evaluations on validation and test; the last epoch is always evaluated.
    pub evaluate_epochs: u64,
    /// Steps between checkpoints; there is always one at the end.
    pub checkpoint_steps: u64,
    /// Steps between log entries, at which losses are read from the device.
    pub log_steps: u64,
    /// Steps between steps that are timed part by part; 0: none. On a GPU a timed step waits for the device.
    pub timing_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            epochs: 240,
            batch: 64,
            learning_rate: 0.05,
            warmup_epochs: 0.0,
            schedule: Arc::new(MultiStep::default()),
            optimizer: Arc::new(Sgd::default()),
            rates: IndexMap::new(),
            clip_norm: None,
            accumulate: 1,
            average: None,
            evaluate_epochs: 1,
            checkpoint_steps: 500,
            log_steps: 50,
            timing_steps: 25,
        }
    }
}

impl TrainConfig {
    /// Checks every number, the schedule's and the optimiser's too. `key` is the table that this is.
    ///
    /// # Errors
    /// With the key and its range.
    pub fn check(&self, key: &str) -> Result<(), Fault> {
        let fault = |name: &str, message: String| Err(Fault::new(format!("{key}.{name}"), message));
        let counts = [
            ("epochs", self.epochs, 1, 1_000_000),
            ("batch", self.batch as u64, 1, 1 << 20),
            ("accumulate", self.accumulate, 1, 1 << 20),
            ("evaluate_epochs", self.evaluate_epochs, 1, u64::MAX),
            ("checkpoint_steps", self.checkpoint_steps, 1, u64::MAX),
            ("log_steps", self.log_steps, 1, u64::MAX),
        ];
        if let Some((name, value, least, most)) =
            counts.iter().find(|(_, value, least, most)| value < least || value > most)
        {
            let range =
                if *most == u64::MAX { format!("at least {least}") } else { format!("between {least} and {most}") };
            return fault(name, format!("{name} must be {range}, not {value}"));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return fault("learning_rate", format!("learning_rate must be positive, not {}", self.learning_rate));
        }
        if !(self.warmup_epochs >= 0.0 && self.warmup_epochs <= self.epochs as f64) {
            let message =
                format!("warmup_epochs must be between 0 and epochs ({}), not {}", self.epochs, self.warmup_epochs);
            return fault("warmup_epochs", message);
        }
        if let Some((group, factor)) = self.rates.iter().find(|(_, factor)| !(**factor >= 0.0 && factor.is_finite())) {
            return fault(&format!("rates.{group}"), format!("a factor must not be negative, not {factor}"));
        }
        if let Some(norm) = self.clip_norm.filter(|norm| !(*norm > 0.0 && norm.is_finite())) {
            return fault("clip_norm", format!("clip_norm must be positive, not {norm}"));
        }
        if let Some(Err(error)) = self.average.map(|average| average.check()) {
            return fault("average.decay", error.to_string());
        }
        if let Err(error) = self.schedule.check(self.epochs) {
            return fault("schedule", error.to_string());
        }
        match self.optimizer.build(&tch::Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu))) {
            Err(error) => fault("optimizer", error.to_string()),
            Ok(_) => Ok(()),
        }
    }
}

impl TrainConfig {
    /// Checks that every name in `rates` is a group: `heads`, `features`, or one of the student's own.
    ///
    /// # Errors
    /// With the nearest name.
    pub fn check_rates(&self, student: &Signature) -> Result<()> {
        let own = student.groups.iter().map(|group| group.name.as_str());
        let names: Vec<&str> = [HEADS, FEATURES].into_iter().chain(own).collect();
        match self.rates.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let near = registry::nearest(name, names.iter().copied());
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                Err(Error::plan(format!("rates.{name}: there is no such group, but {}{near}", names.join(", "))))
            }
        }
    }

    /// The factor on the learning rate of a parameter of the student, or of what a method trains beside it (`None`).
    pub(crate) fn rate_of(&self, student: &Signature, parameter: Option<&str>) -> f64 {
        let factor = |name: &str| self.rates.get(name).copied();
        let Some(parameter) = parameter else { return factor(HEADS).unwrap_or(1.0) };
        let group = student.group_of(parameter);
        let features = group.filter(|group| group.feature).and_then(|_| factor(FEATURES));
        group.and_then(|group| factor(&group.name)).or(features).unwrap_or(1.0)
    }
}

/// The group of everything that methods train beside the student.
const HEADS: &str = "heads";
/// The group of all of the student's feature modules.
const FEATURES: &str = "features";

fn is_one(value: &u64) -> bool {
    *value == 1
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A method: cross-entropy with the labels plus weighted terms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MethodConfig {
    /// The weight of the cross-entropy with the labels; of the binary cross-entropy where targets are sets of classes.
    #[serde(default = "one")]
    pub cross_entropy: f64,
    /// The distillation terms.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermConfig>,
}

fn one() -> f64 {
    1.0
}

impl MethodConfig {
    /// What a name means where no file defines it, if anything.
    ///
    /// # Errors
    /// If a crate's built-in method is none.
    pub fn built_in(name: &str) -> Result<Option<Self>> {
        let plugins = registry::plugins_of(Role::Method);
        let Some(plugin) = plugins.iter().find(|plugin| plugin.name == name) else { return Ok(None) };
        let method: Result<Self, toml::de::Error> = plugin.default_table()?.try_into();
        method.map(Some).map_err(|e| Error::plan(format!("built-in method `{name}`: {}", e.message())))
    }
}

/// One weighted term of a method.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TermConfig {
    /// What its loss is multiplied by.
    #[serde(default = "one")]
    pub weight: f64,
    /// When the weight applies; absent: always, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<TermSchedule>,
    /// The teachers, each with a distiller of its own; absent: every network among them, but no combination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teachers: Option<Vec<String>>,
    /// Pairs of taps, `[student, teacher]` each, in place of the method's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taps: Option<Vec<(TapRef, TapRef)>>,
    /// The method.
    pub distiller: Arc<dyn DistillerConfig>,
}

/// When a term's weight applies, by epochs of the main stage, which count from 1.
///
/// In epoch e the weight is multiplied by 0 outside `from ..= to`, else by
/// min(1, (e − from + 1) / `warmup_epochs`, (to − e + 1) / `cooldown_epochs`).
///
/// Before `from` the term is computed all the same, so that memory banks are full and statistics known when it begins
/// (its heads, like anything that trains without a gradient, lose a little to weight decay). After `to` it is not, and
/// its teacher is not asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TermSchedule {
    /// The first epoch.
    #[serde(skip_serializing_if = "is_one")]
    pub from: u64,
    /// The last epoch; absent: the last one of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Epochs over which the weight rises linearly; in the last of them it is whole. 0 and 1: whole from the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub warmup_epochs: u64,
    /// Epochs over which it falls linearly, up to and with `to`; 0 and 1: whole to the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub cooldown_epochs: u64,
}

impl Default for TermSchedule {
    fn default() -> Self {
        TermSchedule { from: 1, to: None, warmup_epochs: 0, cooldown_epochs: 0 }
    }
}

impl TermSchedule {
    /// What the weight is multiplied by in `epoch` of `epochs`, both from 1; `None` after the last epoch of the term.
    pub fn factor(&self, epoch: u64, epochs: u64) -> Option<f64> {
        let to = self.to.unwrap_or(epochs);
        if epoch > to {
            return None;
        }
        let share = |done: u64, of: u64| (done as f64 / of.max(1) as f64).min(1.0);
        let begun = (epoch + 1).saturating_sub(self.from);
        Some(share(begun, self.warmup_epochs).min(share(to - epoch + 1, self.cooldown_epochs)))
    }

    /// Checks the epochs against the length of training; `key` is the table that this is.
    fn check(&self, key: &str, epochs: u64) -> Result<(), Fault> {
        let fault = |name: &str, message: String| Err(Fault::new(format!("{key}.{name}"), message));
        if !(1..=epochs).contains(&self.from) {
            return fault("from", format!("from must be between 1 and epochs ({epochs}), not {}", self.from));
        }
        match self.to {
            Some(to) if !(self.from..=epochs).contains(&to) => {
                fault("to", format!("to must be between from ({}) and epochs ({epochs}), not {to}", self.from))
            }
            None if self.cooldown_epochs > epochs => fault(
                "cooldown_epochs",
                format!("cooldown_epochs must be at most epochs ({epochs}), not {}", self.cooldown_epochs),
            ),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for TermSchedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if self.from > 1 {
            parts.push(format!("from epoch {}", self.from));
        }
        if let Some(to) = self.to {
            parts.push(format!("to epoch {to}"));
        }
        for (epochs, what) in [(self.warmup_epochs, "rising"), (self.cooldown_epochs, "falling")] {
            if epochs > 1 {
                parts.push(format!("{what} over {epochs} epochs"));
            }
        }
        if parts.is_empty() { f.write_str("always") } else { f.write_str(&parts.join(", ")) }
    }
}

/// A linear probe: a linear classifier on the features of each finished student, each teacher that a method asks, and the
/// student's network as it was before training. See [`probe`](crate::probe).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// The data that classifiers are trained and tested on; absent: the experiment's own: the samples that it trains on, and all that it tests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Arc<dyn DatasetConfig>>,
    /// The view of these data that every network sees; absent: each sees the one that it was trained on, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Where features are taken; a map is averaged over space.
    pub tap: TapRef,
    /// Whether each feature is given mean 0 and deviation 1 over the training part.
    pub standardize: bool,
    /// The seeds of the classifiers on teachers and of the networks that never train; absent: `compare.seeds`. Classifiers on
    /// students have the students' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Vec<u64>>,
    /// How classifiers are trained.
    pub train: ProbeTrainConfig,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        ProbeConfig {
            dataset: None,
            view: None,
            tap: TapRef::output("pooled"),
            standardize: true,
            seeds: None,
            train: ProbeTrainConfig::default(),
        }
    }
}

/// How linear classifiers are trained. SGD with momentum, the batch and the shape of the schedule are those with which the
/// CRD paper trains everything. Length, rate and decay are ours: on features that are standardised and do not change, 30
/// epochs at 0.1 suffice, and without decay the classifier is what fits the training part, as linear evaluation usually has
/// it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeTrainConfig {
    /// Passes over the training part.
    pub epochs: u64,
    /// Samples in a batch; the last one may be smaller.
    pub batch: usize,
    /// The base learning rate.
    pub learning_rate: f64,
    /// What it is multiplied by.
    pub schedule: Arc<dyn ScheduleConfig>,
    /// The optimiser.
    pub optimizer: Arc<dyn OptimizerConfig>,
}

impl Default for ProbeTrainConfig {
    fn default() -> Self {
        ProbeTrainConfig {
            epochs: 30,
            batch: 64,
            learning_rate: 0.1,
            schedule: Arc::new(MultiStep::default()),
            optimizer: Arc::new(Sgd { weight_decay: 0.0, ..Sgd::default() }),
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

/// What an experiment compares.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompareConfig {
    /// Names of `[method.…]` tables or of built-in methods.
    pub methods: Vec<String>,
    /// One student for each method and seed.
    pub seeds: Vec<u64>,
    /// The method that others are compared with; absent: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<String>,
    /// Which accuracy the report shows.
    pub accuracy: AccuracyChoice,
}

impl Default for CompareConfig {
    fn default() -> Self {
        CompareConfig { methods: Vec::new(), seeds: vec![0], baseline: None, accuracy: AccuracyChoice::Last }
    }
}

/// Which of the recorded accuracies a report shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccuracyChoice {
    /// Test accuracy after the last epoch.
    #[default]
    Last,
    /// Test accuracy of the epoch with the best validation accuracy.
    BestOnValidation,
    /// The best test accuracy of any epoch: chosen on the test set, hence too good.
    BestOnTest,
}

impl AccuracyChoice {
    /// What a reader must know about it.
    pub fn describe(self, measure: Measure) -> &'static str {
        match (measure, self) {
            (Measure::Top1, AccuracyChoice::Last) => "test accuracy after the last epoch",
            (Measure::Top1, AccuracyChoice::BestOnValidation) => {
                "test accuracy at the epoch with the best validation accuracy"
            }
            (Measure::Top1, AccuracyChoice::BestOnTest) => {
                "best test accuracy of any epoch (chosen on the test set, hence optimistic)"
            }
            (Measure::MeanAveragePrecision, AccuracyChoice::Last) => {
                "mean average precision (mAP, not top-1: targets are sets of classes) on the test split after the last epoch"
            }
            (Measure::MeanAveragePrecision, AccuracyChoice::BestOnValidation) => {
                "mean average precision (mAP, not top-1: targets are sets of classes) on the test split at the epoch with the \
                 best on the samples held out"
            }
            (Measure::MeanAveragePrecision, AccuracyChoice::BestOnTest) => {
                "best mean average precision (mAP, not top-1: targets are sets of classes) on the test split of any epoch \
                 (chosen on the test set, hence optimistic)"
            }
        }
    }
}

impl Experiment {
    /// The method of that name: the experiment's own, else a built-in one.
    ///
    /// # Errors
    /// If there is none: the message has the nearest name.
    pub fn method(&self, name: &str) -> Result<MethodConfig> {
        if let Some(method) = self.method.get(name) {
            return Ok(method.clone());
        }
        if let Some(method) = MethodConfig::built_in(name)? {
            return Ok(method);
        }
        let built_in = registry::plugins_of(Role::Method);
        let names: Vec<&str> =
            self.method.keys().map(String::as_str).chain(built_in.iter().map(|plugin| plugin.name)).collect();
        let hint = match registry::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("define [method.{name}], or use one of {}; is its crate linked?", names.join(", ")),
        };
        Err(Error::plan(format!("unknown method `{name}`: {hint}")))
    }

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

/// A value that makes no sense, with its key: the reader of the file knows the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, as in `method.mine.terms[0].weight`.
    pub key: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl Fault {
    fn new(key: String, message: String) -> Self {
        Fault { key, message }
    }
}

/// The first item that stands in a list twice, with its second place.
fn repeated<T: PartialEq + std::fmt::Debug>(items: &[T]) -> Option<(usize, String)> {
    let twice = items.iter().enumerate().find(|(i, item)| items[..*i].contains(item));
    twice.map(|(i, item)| (i, format!("{item:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: &TermSchedule, epochs: u64) -> Vec<Option<f64>> {
        (1..=epochs).map(|epoch| schedule.factor(epoch, epochs)).collect()
    }

    #[test]
    fn a_schedule_rises_from_its_first_epoch_and_falls_to_its_last() {
        let always = TermSchedule::default();
        assert_eq!(factors(&always, 3), [Some(1.0); 3]);
        assert_eq!(always.to_string(), "always");

        let warm = TermSchedule { warmup_epochs: 4, ..always.clone() };
        assert_eq!(factors(&warm, 5), [Some(0.25), Some(0.5), Some(0.75), Some(1.0), Some(1.0)]);

        let window = TermSchedule { from: 2, to: Some(6), warmup_epochs: 2, cooldown_epochs: 4 };
        let expected = [Some(0.0), Some(0.5), Some(1.0), Some(0.75), Some(0.5), Some(0.25), None, None];
        assert_eq!(factors(&window, 8), expected);
        assert_eq!(window.to_string(), "from epoch 2, to epoch 6, rising over 2 epochs, falling over 4 epochs");

        let down = TermSchedule { cooldown_epochs: 2, ..always };
        assert_eq!(factors(&down, 3), [Some(1.0), Some(1.0), Some(0.5)]);
    }
}
