//! Linear probes: what a linear classifier makes of the features of a frozen network.
//!
//! The network does not move: it computes in evaluation mode, BatchNorm with its running statistics, without gradients, in
//! float32, and the digest of its tensors is the same afterwards. Its features of the probe's training and test part are
//! taken once, without augmentation, and kept in a file that is known by what they are a function of: weights, network,
//! view, tap, data, kind of device and libtorch. On them a linear classifier is trained.
//!
//! Features are standardised by default: each gets mean 0 and deviation 1 over the training part, since those of a network
//! that never trained are orders of magnitude smaller than those of one that did, and one learning rate has to serve both.
//! What a linear classifier can express is not changed by it. Classifiers begin at zero: the loss is convex, and the seed
//! enters by the order of the batches alone.
//!
//! Source: the transfer experiment of Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020, section 4.1.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indexmap::IndexMap;
use tch::{Device, Kind, Tensor, nn, no_grad_guard};

use super::data::Data;
use super::evaluate::batches;
use super::stop::Stop;
use crate::contracts::task::Metrics;
use crate::dataset::{Batch, Split, Views};
use crate::device;
use crate::error::{Error, Result};
use crate::event::{Event, LaneInfo, Observer};
use crate::experiment::ProbeConfig;
use crate::files::{lock, write_atomically};
use crate::metric::SplitMeter;
use crate::model::{Mode, Model, ModelConfig, ModelSpec, TapRef, Taps};
use crate::optim::{FlatParameters, Progress, Variable};
use crate::precision::Precision;
use crate::record::{Environment, EpochRecord, Outcome, PROBE_FORMAT, ProbeRecord, ProbedNetwork};
use crate::seed::Seed;
use crate::weights::{self, StateDict};

/// What a probe says of itself, in its folder, once it has ended.
pub const PROBE: &str = "probe.json";
/// The weights of a network that never trained, in the folder of its probe.
pub(crate) const UNTRAINED: &str = "untrained.safetensors";
/// The stage that the events of a probe are of.
const STAGE: &str = "probe";
/// Samples whose logits are computed at a time.
const CHUNK: i64 = 1000;

/// A network that does not move.
#[derive(Debug)]
pub struct Backbone {
    model: Box<dyn Model>,
    store: nn::VarStore,
}

impl Backbone {
    /// Builds the network and loads its weights: safetensors or a PyTorch checkpoint. One that comes complete from a file of
    /// its own has nothing to load.
    ///
    /// # Errors
    /// If the network cannot be built, or the weights are not its own.
    pub fn load(config: &dyn ModelConfig, spec: &ModelSpec, path: &Path, device: Device) -> Result<Self> {
        let mut store = nn::VarStore::new(device);
        let model = {
            // What it draws is replaced, or not drawn at all; but others may be drawing.
            let _drawing = Seed::new(0).stream("backbone").seed_libtorch();
            config.build(&store.root(), spec)?
        };
        weights::check_names(&store)?;
        if config.file().is_none() {
            StateDict::read(path, None)?.copy_into(&weights::variables(&store))?;
        }
        store.freeze();
        weights::separate(&weights::variables(&store));
        Ok(Backbone { model, store })
    }

    /// Writes the weights that a student of that seed begins with.
    ///
    /// # Errors
    /// If the network cannot be built or the file cannot be written.
    pub fn write_untrained(config: &dyn ModelConfig, spec: &ModelSpec, seed: u64, path: &Path) -> Result<()> {
        let store = nn::VarStore::new(Device::Cpu);
        {
            let _drawing = Seed::new(seed).stream("student").seed_libtorch();
            config.build(&store.root(), spec)?;
        }
        weights::save(path, &weights::variables(&store), None)
    }

    /// Its variables, running statistics of BatchNorm included. The tensors are its own.
    pub fn variables(&self) -> Vec<(String, Tensor)> {
        weights::variables(&self.store)
    }

    /// The features of a batch at a tap, `[B, F]`: a map is averaged over space, and a sequence over its tokens.
    ///
    /// # Errors
    /// If the tap does not exist.
    pub fn features(&self, input: &Tensor, tap: &TapRef) -> Result<Tensor> {
        let _no_grad = no_grad_guard();
        let _selected = Precision::Float32.select(self.store.device())?;
        let wanted: Taps = [tap.clone()].into_iter().collect();
        let features = self.model.forward(input, &wanted, Mode::Eval)?;
        Ok(self.model.signature().shape(tap)?.pooled(features.tap(tap)?).copy())
    }
}

/// BLAKE3 of tensors with their names and shapes, in hexadecimal.
fn digest(tensors: &[(String, Tensor)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in tensors {
        hasher.update(format!("{name} {:?} {:?}", tensor.kind(), tensor.size()).as_bytes());
        hasher.update(&weights::bytes_of(tensor));
    }
    hasher.finalize().to_hex().to_string()
}

/// Where the weights of a probed network come from.
#[derive(Clone, Debug)]
pub enum ProbeWeights {
    /// A file.
    File(PathBuf),
    /// Those that a student of the probe's seed begins with.
    Untrained,
}

/// One linear classifier on one frozen network.
#[derive(Debug)]
pub struct Probe<'a> {
    /// Its name for people, and its folder, which is created.
    pub info: LaneInfo,
    /// The probe's name in the experiment.
    pub name: &'a str,
    /// A digest of everything that determines the result.
    pub identity: &'a str,
    /// What the experiment says of it.
    pub config: &'a ProbeConfig,
    /// The data that classifiers are trained and tested on.
    pub data: &'a Data,
    /// What the network sees of them.
    pub view: &'a str,
    /// Whose features.
    pub network: ProbedNetwork,
    /// The recipe of the network.
    pub model: &'a dyn ModelConfig,
    /// What it was built for: input and classes of its own training.
    pub spec: ModelSpec,
    /// Its weights.
    pub weights: ProbeWeights,
    /// The folder of features, shared by probes.
    pub features: &'a Path,
    /// The seed of the classifier, and of a network that never trained.
    pub seed: u64,
    /// Where.
    pub device: Device,
    /// The surroundings, for the record.
    pub environment: &'a Environment,
    /// Ends it before its time: it begins anew then, but for the features.
    pub stop: &'a Stop,
}

/// Features of both parts with what is right about them.
struct Sheet {
    /// `[N, F]`, training part and test part.
    features: [Tensor; 2],
    /// Labels `[N]`, int64.
    labels: [Tensor; 2],
    /// `[N, …]`, where the task has targets beside the labels.
    targets: [Option<Tensor>; 2],
}

impl Sheet {
    /// The rows of a part, as a batch without views.
    fn batch(&self, part: usize, rows: &Tensor) -> Batch {
        Batch {
            views: IndexMap::new(),
            labels: self.labels[part].index_select(0, rows),
            targets: self.targets[part].as_ref().map(|targets| targets.index_select(0, rows)),
        }
    }
}

/// A linear classifier: `[C, F]` and `[C]`.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn logits(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }
}

impl Probe<'_> {
    /// Takes the features, trains the classifier and writes what came of it into the folder, atomically. Nothing if it was
    /// stopped.
    ///
    /// # Errors
    /// If the folder is in use or cannot be written, the data or the weights cannot be read, or the loss does not stay finite.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Option<ProbeRecord>> {
        let folder = &self.info.folder;
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let _alone = lock(folder)?;
        // What is there was read off other weights: should this end early, it must not stay.
        remove(&folder.join(PROBE))?;
        let began = Instant::now();
        let (path, digest) = self.weights()?;
        let Some(sheet) = self.sheet(&path, &digest)? else { return Ok(None) };
        let Some((loss, test)) = self.train(&sheet, observer)? else { return Ok(None) };
        let info = self.data.dataset.info();
        let record = ProbeRecord {
            format: PROBE_FORMAT,
            identity: self.identity.to_owned(),
            probe: self.name.to_owned(),
            network: self.network.clone(),
            seed: self.seed,
            model: self.model.typetag_name().to_owned(),
            digest,
            view: self.view.to_owned(),
            tap: self.config.tap.clone(),
            features: sheet.features[0].size()[1],
            dataset: info.name.clone(),
            classes: info.classes(),
            samples: sheet.features.each_ref().map(|features| features.size()[0] as usize).into(),
            standardized: self.config.standardize,
            epochs: self.config.train.epochs,
            train_loss: loss,
            test,
            seconds: began.elapsed().as_secs_f64(),
            environment: self.environment.clone(),
        };
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::run(format!("{PROBE}: {e}")))?;
        observer.event(&self.info, &Event::Ended(Outcome::Finished));
        write_atomically(&folder.join(PROBE), format!("{text}\n").as_bytes())?;
        Ok(Some(record))
    }

    /// The file with the weights, and its digest.
    fn weights(&self) -> Result<(PathBuf, String)> {
        let path = match &self.weights {
            ProbeWeights::File(path) => path.clone(),
            ProbeWeights::Untrained => {
                let path = self.info.folder.join(UNTRAINED);
                Backbone::write_untrained(self.model, &self.spec, self.seed, &path)?;
                path
            }
        };
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        Ok((path, blake3::hash(&bytes).to_hex().to_string()))
    }

    /// The features, from their file or computed and written there. Nothing if it was stopped.
    fn sheet(&self, path: &Path, digest: &str) -> Result<Option<Sheet>> {
        let key = self.key(digest)?;
        fs::create_dir_all(self.features).map_err(Error::io("create", self.features))?;
        let cache = self.features.join(format!("{}-{}.safetensors", self.model.typetag_name(), &key[..20]));
        // While one process computes them, others wait for the result.
        let turn = cache.with_extension("lock");
        let turn_file = File::create(&turn).map_err(Error::io("create", &turn))?;
        turn_file.lock().map_err(Error::io("lock", &turn))?;
        let kept = read(&cache, &key).unwrap_or_else(|error| {
            tracing::warn!(%error, "features are damaged and computed again");
            None
        });
        let tensors = match kept {
            Some(kept) => kept,
            None => match self.extract(path)? {
                None => return Ok(None),
                Some(tensors) => {
                    weights::save(&cache, &tensors, Some(&note(&key, &tensors)))?;
                    tensors.into_iter().collect()
                }
            },
        };
        self.lay_out(tensors, &cache).map(Some)
    }

    /// What features are a function of, as a digest: their last digits are the device's and libtorch's.
    fn key(&self, weights: &str) -> Result<String> {
        let arithmetic = (device::family(self.device), &self.environment.libtorch);
        let rows = blake3::hash(format!("{:?}", self.data.train_rows).as_bytes()).to_hex().to_string();
        let data = &self.data.dataset.info().identity;
        let spec = (self.spec.input, self.spec.classes);
        let text =
            serde_json::to_vec(&(weights, self.model, spec, self.view, &self.config.tap, data, rows, arithmetic));
        Ok(blake3::hash(&text.map_err(|e| Error::run(format!("the key of features: {e}")))?).to_hex().to_string())
    }

    /// Runs the frozen network over both parts: `train` and `test`, `[N, F]`, and `train_targets` and `test_targets`, `[N, …]`,
    /// where the task has targets beside the labels.
    fn extract(&self, path: &Path) -> Result<Option<Vec<(String, Tensor)>>> {
        let network = Backbone::load(self.model, &self.spec, path, self.device)?;
        let before = digest(&network.variables());
        let views: Views = [self.view].into_iter().collect();
        let mut tensors = Vec::new();
        for (name, split) in [("train", Split::Train), ("test", Split::Test)] {
            let rows = self.data.labelled(split)?;
            let (mut features, mut targets) = (Vec::new(), Vec::new());
            for batch in batches(self.data, split, &rows, &views, self.device, self.stop) {
                let batch = match batch {
                    Err(Error::Stopped) => return Ok(None),
                    batch => batch?,
                };
                features.push(network.features(batch.view(self.view)?, &self.config.tap)?);
                targets.extend(batch.targets);
            }
            tensors.push((name.to_owned(), Tensor::cat(&features, 0)));
            if !targets.is_empty() {
                tensors.push((format!("{name}_targets"), Tensor::cat(&targets, 0)));
            }
        }
        if digest(&network.variables()) != before {
            return Err(Error::run(
                "the frozen network has moved: its forward pass changes tensors in evaluation mode",
            ));
        }
        Ok(Some(tensors))
    }

    /// Puts features on the device, standardised if that is wanted.
    fn lay_out(&self, mut tensors: IndexMap<String, Tensor>, cache: &Path) -> Result<Sheet> {
        let mut take = |name: &str| match tensors.swap_remove(name) {
            Some(tensor) => Ok(tensor.to_device(self.device)),
            None => Err(Error::data(cache, format!("it has no `{name}`"))),
        };
        let [train, test] = [take("train")?, take("test")?];
        let targets = ["train_targets", "test_targets"].map(|name| take(name).ok());
        let labels = [self.labels(Split::Train)?, self.labels(Split::Test)?];
        let features = if self.config.standardize { standardize([train, test]) } else { [train, test] };
        Ok(Sheet { features, labels, targets })
    }

    /// The labels of the samples of a part, `[N]`, int64, on the device.
    fn labels(&self, split: Split) -> Result<Tensor> {
        let all = self.data.dataset.info().labels(split);
        let labels: Vec<i64> = self.data.labelled(split)?.iter().map(|row| all[*row as usize]).collect();
        Ok(Tensor::from_slice(&labels).to_device(self.device))
    }

    /// Trains the classifier: the last epoch's mean loss, and what it is worth on the test part. Nothing if it was stopped.
    fn train(&self, sheet: &Sheet, observer: &mut dyn Observer) -> Result<Option<(f64, Metrics)>> {
        let (train, features) = (&self.config.train, &sheet.features[0]);
        let (samples, width) = (features.size()[0] as usize, features.size()[1]);
        let (classes, task) = (self.data.dataset.info().classes(), self.data.dataset.info().task);
        let options = (Kind::Float, self.device);
        let linear = Linear {
            weight: Tensor::zeros([classes, width], options).set_requires_grad(true),
            bias: Tensor::zeros([classes], options).set_requires_grad(true),
        };
        let variables = [("weight", &linear.weight), ("bias", &linear.bias)]
            .map(|(name, tensor)| Variable { name: name.to_owned(), tensor: tensor.shallow_clone() });
        let mut flat = FlatParameters::new(variables.into());
        let mut optimizer = train.optimizer.build(flat.buffer())?;
        let steps_per_epoch = samples.div_ceil(train.batch) as u64;
        let epochs = train.epochs;
        observer.event(
            &self.info,
            &Event::StageStarted { stage: STAGE.to_owned(), epochs, steps_per_epoch, unreached: Vec::new() },
        );
        let (began, mut loss, mut rate) = (Instant::now(), f64::NAN, 0.0);
        for epoch in 1..=epochs {
            let order = Seed::new(self.seed).stream("probe").at(epoch).rng().permutation(samples);
            let mut sum = Tensor::zeros([], (Kind::Double, self.device));
            for (rows, step) in order.chunks(train.batch).zip((epoch - 1) * steps_per_epoch..) {
                if self.stop.is_due() {
                    return Ok(None);
                }
                let rows = Tensor::from_slice(rows).to_device(self.device);
                let logits = linear.logits(&features.index_select(0, &rows));
                let value = task.loss(&logits, sheet.batch(0, &rows).truth())?;
                let mut gradient = flat.gradient(&value, false).map_err(|names| {
                    let names = names.join(", ");
                    Error::run(format!("the loss does not reach {names}"))
                })?;
                let _no_grad = no_grad_guard();
                rate = train.learning_rate * train.schedule.factor(&Progress { epoch, epochs, step, steps_per_epoch });
                let rate = Tensor::full([] as [i64; 0], rate, (Kind::Float, self.device));
                optimizer.step(flat.buffer_mut(), &mut gradient, &rate);
                sum += value.detach().to_kind(Kind::Double) * rows.size()[0] as f64;
            }
            loss = sum.double_value(&[]) / samples as f64;
            if !loss.is_finite() {
                return Err(Error::run(format!(
                    "the loss became non-finite in epoch {epoch}: choose a smaller probe.{}.train.learning_rate",
                    self.name
                )));
            }
            if epoch < epochs {
                observer
                    .event(&self.info, &self.step_event(epoch, epoch * steps_per_epoch, loss, rate, samples, began));
            }
        }
        let test = self.test(&linear, sheet)?;
        observer.event(
            &self.info,
            &Event::Epoch(EpochRecord {
                stage: STAGE.to_owned(),
                epoch: epochs,
                step: epochs * steps_per_epoch,
                learning_rate: rate,
                train: self.losses(loss),
                train_top1: None,
                validation: None,
                test: Some(test),
                seconds: began.elapsed().as_secs_f64(),
            }),
        );
        Ok(Some((loss, test)))
    }

    fn losses(&self, loss: f64) -> IndexMap<String, f64> {
        let key = self.data.dataset.info().task.loss_key();
        IndexMap::from([("loss".to_owned(), loss), (key.to_owned(), loss)])
    }

    fn step_event(&self, epoch: u64, step: u64, loss: f64, rate: f64, samples: usize, began: Instant) -> Event {
        let seconds = began.elapsed().as_secs_f64();
        Event::Step {
            stage: STAGE.to_owned(),
            epoch,
            step,
            train: self.losses(loss),
            train_top1: None,
            learning_rate: rate,
            samples_per_second: (samples as u64 * epoch) as f64 / seconds,
        }
    }

    fn test(&self, linear: &Linear, sheet: &Sheet) -> Result<Metrics> {
        let _no_grad = no_grad_guard();
        let mut meter = SplitMeter::new(self.data.dataset.info().task, self.device);
        let samples = sheet.features[1].size()[0];
        for start in (0..samples).step_by(CHUNK as usize) {
            let rows = Tensor::arange_start(start, (start + CHUNK).min(samples), (Kind::Int64, self.device));
            let logits = linear.logits(&sheet.features[1].index_select(0, &rows));
            meter.add(&logits, sheet.batch(1, &rows).truth())?;
        }
        meter.read()
    }
}

/// Below this share of its mean a feature's deviation is that of rounding: float32 has 24 bits.
const CONSTANT: f64 = 1e-6;

/// Every feature with mean 0 and deviation 1 over the training part, the first; one that does not vary there says nothing, and
/// is 0 in both parts.
fn standardize([train, test]: [Tensor; 2]) -> [Tensor; 2] {
    let _no_grad = no_grad_guard();
    let wide = train.to_kind(Kind::Double);
    let mean = wide.mean_dim([0_i64].as_slice(), true, Kind::Double);
    let deviation = (&wide - &mean).square().mean_dim([0_i64].as_slice(), true, Kind::Double).sqrt();
    // Not 0 itself: the mean of equal numbers is not exactly that number.
    let constant = deviation.le_tensor(&(mean.abs() * CONSTANT));
    [train, test].map(|part| {
        let scaled = (part.to_kind(Kind::Double) - &mean) / &deviation;
        scaled.masked_fill(&constant, 0.0).to_kind(Kind::Float)
    })
}

/// Removes a file that may be there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// What stands beside features in their file: what they are a function of, and their digest.
fn note(key: &str, tensors: &[(String, Tensor)]) -> String {
    format!("{key} {}", digest(tensors))
}

/// The features in a file; nothing if it is not there.
fn read(path: &Path, key: &str) -> Result<Option<IndexMap<String, Tensor>>> {
    if !path.exists() {
        return Ok(None);
    }
    let file = weights::read(path)?;
    let tensors: Vec<(String, Tensor)> = file.tensors.into_iter().collect();
    if file.note.as_deref() != Some(&note(key, &tensors)) {
        return Err(Error::data(path, "its content is not what was written there"));
    }
    Ok(Some(tensors.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_standardised_by_the_training_part() {
        let train = Tensor::from_slice2(&[[1.0_f32, 5.0], [3.0, 5.0]]);
        let test = Tensor::from_slice2(&[[4.0_f32, 6.0]]);
        let [train, test] = standardize([train, test]);
        assert_eq!(Vec::<Vec<f64>>::try_from(train).unwrap(), [[-1.0, 0.0], [1.0, 0.0]]);
        assert_eq!(Vec::<Vec<f64>>::try_from(test).unwrap(), [[2.0, 0.0]]);
    }

    #[test]
    fn a_feature_that_does_not_vary_is_0_whatever_its_mean_is_rounded_to() {
        fn constant(rows: i64, value: f64) -> Tensor {
            Tensor::full([rows, 1], value, (Kind::Float, Device::Cpu))
        }

        for value in [0.1, -0.3, 1e-20, 0.0, 1e20] {
            let [train, test] = standardize([constant(1000, value), constant(3, 0.7)]);
            assert_eq!(train.abs().max().double_value(&[]), 0.0, "{value}");
            assert_eq!(test.abs().max().double_value(&[]), 0.0, "{value}");
        }
        // One that varies little, as those of networks that never trained do, is another matter.
        let train = Tensor::from_slice2(&[[1e-4_f32], [1.0002e-4]]);
        let [train, _] = standardize([train, constant(3, 0.7)]);
        approx::assert_relative_eq!(train.double_value(&[1, 0]), 1.0, max_relative = 1e-6);
    }

    #[test]
    fn a_file_of_features_is_read_only_if_it_is_whole_and_what_is_wanted() {
        fn refused(path: &Path, key: &str) -> String {
            read(path, key).unwrap_err().to_string()
        }

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("features.safetensors");
        let tensors = vec![("train".to_owned(), Tensor::from_slice(&[1.0_f32, 2.0]).view([2, 1]))];
        assert!(read(&path, "key").unwrap().is_none());
        weights::save(&path, &tensors, Some(&note("key", &tensors))).unwrap();
        assert_eq!(read(&path, "key").unwrap().unwrap()["train"], tensors[0].1);
        assert!(refused(&path, "other").ends_with("its content is not what was written there"));
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(refused(&path, "key").ends_with("its content is not what was written there"));
    }
}
