//! `limbeck evaluate`: what given weights are worth on a data set.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};
use limbeck::cohort::Teacher;
use limbeck::config;
use limbeck::dataset::{Dataset, DatasetConfig, Rows, Split, Views};
use limbeck::device::{DeviceSpec, synchronize};
use limbeck::error::{Error, Result};
use limbeck::experiment::Precision;
use limbeck::metric::{CALIBRATION_BINS, CalibrationMeter, SplitMeter};
use limbeck::model::{ModelConfig, ModelSpec, Taps};
use limbeck::task::Metrics;
use limbeck::weights::{Format, StateDict};
use serde::{Deserialize, Serialize};

use crate::weights::{Names, recipe};
use crate::words::device_name;

/// What is evaluated, on what.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// The network: a kind, or a table such as '{ kind = "resnet20" }'.
    #[arg(long, value_name = "KIND")]
    model: String,
    /// Its weights: safetensors or a PyTorch checkpoint. Without, for a network that comes complete from a file.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The data set: a kind, or a table.
    #[arg(long, value_name = "KIND")]
    dataset: String,
    /// A setting of either: dotted key, TOML value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    names: Names,
    /// Which part of the data.
    #[arg(long, default_value = "test")]
    split: Part,
    /// What the network sees; without it, the first view of the data set.
    #[arg(long)]
    view: Option<String>,
    /// The arithmetic: float32, tf32, bfloat16 or mixed.
    #[arg(long, value_name = "PRECISION", default_value = "float32", value_parser = precision)]
    precision: Precision,
    /// The images of a batch.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Where to compute: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
    /// As one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Train,
    Test,
}

fn precision(text: &str) -> Result<Precision, String> {
    let known = "give float32, tf32, bfloat16 or mixed";
    serde_json::from_value(text.into()).map_err(|_| format!("\"{text}\" is no precision: {known}"))
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// The kind of network.
    pub model: String,
    /// Its parameters; BatchNorm's running statistics are none.
    pub parameters: i64,
    /// The file.
    pub weights: PathBuf,
    /// The file's format; absent for a network that came complete from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The data set's name.
    pub dataset: String,
    /// Which part of it.
    pub split: Split,
    /// What the network saw.
    pub view: String,
    /// How many there were.
    pub images: usize,
    /// Under the keys of the task: `top1` and `top5` in percent, `loss` in nats; or `mean_average_precision` in percent and
    /// `binary_cross_entropy` in nats.
    #[serde(flatten)]
    pub accuracy: Metrics,
    /// Expected calibration error in percent, see [`CalibrationMeter`]; absent where samples have not one class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// The bins of equal width that it is taken over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_bins: Option<i64>,
    /// Over the whole pass, data included, after one batch to warm up.
    pub images_per_second: f64,
    /// The images of a batch.
    pub batch: u32,
    /// The arithmetic.
    pub precision: Precision,
    /// Where it was computed.
    pub device: String,
}

/// What TOML says: the two recipes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    model: Box<dyn ModelConfig>,
    dataset: Box<dyn DatasetConfig>,
}

/// Evaluates without augmentation.
///
/// # Errors
/// If a recipe is wrong, data or weights cannot be read or are not named, or the weights are not the network's: the message has the names
/// that are missing or unexpected.
pub fn evaluate(arguments: &EvaluateArgs) -> Result<Evaluation> {
    let text = format!("model = {}\ndataset = {}\n", recipe(&arguments.model), recipe(&arguments.dataset));
    let subject: Subject = config::parse_as(&text, Path::new("--model and --dataset"), &arguments.set)?;
    // The small file before the large ones.
    let (weights, state) = read_weights(arguments, &*subject.model)?;
    let device = arguments.device.resolve()?;
    let data = subject.dataset.build(device)?;
    let info = data.info();
    let view = info.view(arguments.view.as_deref())?;
    let spec = ModelSpec { input: view.shape, classes: info.classes() };
    let mut network =
        Teacher::new("evaluated", &view.name, &*subject.model, &spec, arguments.precision, false, device)?;
    if let Some(state) = &state {
        network.adopt(state)?;
    }
    let split = match arguments.split {
        Part::Train => Split::Train,
        Part::Test => Split::Test,
    };
    let images = info.labels(split).len();
    if images == 0 {
        return Err(Error::plan(format!("{} has no images in that part", info.name)));
    }
    let (accuracy, calibration_error, seconds) = measure(&network, &*data, split, arguments.batch)?;
    Ok(Evaluation {
        model: subject.model.typetag_name().to_owned(),
        parameters: network.parameters(),
        weights,
        format: state.map(|state| state.format),
        dataset: info.name.clone(),
        split,
        view: network.view,
        images,
        accuracy,
        calibration_error,
        calibration_bins: calibration_error.map(|_| CALIBRATION_BINS),
        images_per_second: images as f64 / seconds,
        batch: arguments.batch,
        precision: arguments.precision,
        device: device_name(device),
    })
}

/// The file with the weights, and what is to be loaded from it: nothing, if the network comes complete with it.
fn read_weights(arguments: &EvaluateArgs, model: &dyn ModelConfig) -> Result<(PathBuf, Option<StateDict>)> {
    let kind = model.typetag_name();
    match (&arguments.weights, model.file()) {
        (Some(weights), None) => Ok((weights.clone(), Some(arguments.names.read(weights)?))),
        (None, None) => Err(Error::plan(format!("{kind} has no weights yet: give `--weights FILE`"))),
        (None, Some(file))
            if arguments.names.is_empty() && matches!(arguments.precision, Precision::Float32 | Precision::Tf32) =>
        {
            Ok((file.to_owned(), None))
        }
        (_, Some(file)) => Err(Error::plan(format!(
            "the network is complete in {}, as it is: leave out `--weights`, `--key`, `--strip`, `--rename` and a \
             `--precision` other than float32 or tf32",
            file.display()
        ))),
    }
}

/// Accuracy, calibration error in percent, and the seconds of the whole pass.
fn measure(network: &Teacher, data: &dyn Dataset, split: Split, batch: u32) -> Result<(Metrics, Option<f64>, f64)> {
    let info = data.info();
    let rows: Vec<i64> = (0..info.labels(split).len() as i64).collect();
    // A batch to warm up. What its few samples are worth need not be defined.
    pass(network, data, split, &rows[..rows.len().min(batch as usize)], batch)?;
    let start = Instant::now();
    let (accuracy, calibration) = pass(network, data, split, &rows, batch)?;
    let seconds = start.elapsed().as_secs_f64();
    let calibration = calibration.map(|calibration| calibration.read()).transpose()?;
    Ok((accuracy.read()?, calibration, seconds))
}

/// Evaluates these rows, and waits for the device.
fn pass(
    network: &Teacher,
    data: &dyn Dataset,
    split: Split,
    rows: &[i64],
    batch: u32,
) -> Result<(SplitMeter, Option<CalibrationMeter>)> {
    let device = network.device();
    let views: Views = [network.view.as_str()].into_iter().collect();
    let task = data.info().task;
    let mut accuracy = SplitMeter::new(task, device);
    let mut calibration = task.one_class().then(|| CalibrationMeter::new(device));
    for chunk in rows.chunks(batch as usize) {
        let batch = data.batch(split, &Rows::new(chunk.to_vec(), device), &views, None)?;
        let logits = network.forward(batch.view(&network.view)?, &Taps::none())?.logits;
        accuracy.add(&logits, batch.truth())?;
        if let Some(calibration) = &mut calibration {
            calibration.add(&logits, &batch.labels);
        }
    }
    synchronize(device);
    Ok((accuracy, calibration))
}

impl fmt::Display for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.split {
            Split::Train => "training part",
            Split::Test => "test part",
        };
        writeln!(
            f,
            "{} ({} parameters) on {}, {part}: {} images",
            self.model, self.parameters, self.dataset, self.images
        )?;
        for (metric, value) in self.accuracy.named() {
            let (unit, decimals) = (metric.unit.symbol, metric.unit.decimals);
            let note = if metric.note.is_empty() { String::new() } else { format!(" ({})", metric.note) };
            writeln!(f, "{:17}  {value:8.decimals$} {unit}{note}", metric.short)?;
        }
        if let (Some(error), Some(bins)) = (self.calibration_error, self.calibration_bins) {
            writeln!(f, "calibration error  {error:8.2} % (expected, {bins} bins of equal width)")?;
        }
        writeln!(
            f,
            "images per second  {:8.0}   ({}, {}, batches of {}, data included)",
            self.images_per_second,
            self.device,
            self.precision.name(),
            self.batch
        )
    }
}
