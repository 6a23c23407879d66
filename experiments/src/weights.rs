//! `limbeck weights`: checkpoints of PyTorch in and out.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use limbeck::config;
use limbeck::error::{Error, Result};
use limbeck::model::{Mode, Model, ModelConfig, ModelSpec, Taps};
use limbeck::seed::Seed;
use limbeck::weights::{self, StateDict};
use serde::Deserialize;
use tch::{CModule, Device, Kind, Tensor, nn, no_grad_guard};

use crate::listing;

/// What `limbeck weights` does.
#[derive(Debug, Subcommand)]
pub enum WeightsVerb {
    /// Read a checkpoint and write it as safetensors.
    #[command(after_help = "\
Read are PyTorch's files, those of before 1.6 included, and safetensors. Of a pickle nothing is executed: one that asks
for more than tensors and plain containers is refused, and the message says what it asked for.
With --model, names and shapes are checked against that network.

Examples:
  limbeck weights import ckpt_epoch_240.pth resnet32x4.safetensors --key model --model resnet32x4
  limbeck weights import parallel.pth student.safetensors --strip module
  limbeck weights import other.pth teacher.safetensors --rename linear=fc --rename features=layer1")]
    Import(Transfer),
    /// Write a state dict for `torch.load(weights_only=True)`, or a TorchScript program for deployment.
    #[command(after_help = "\
A TorchScript program holds network and weights, needs nothing but libtorch, and takes batches of any size. It is run on
random inputs before it gets its name, and has to give what the network gives.

Examples:
  limbeck weights export runs/quickstart/cells/kd-seed0-1a2b3c/student.safetensors student.pth
  limbeck weights export student.safetensors student.pt --torchscript --model resnet8 --classes 10")]
    Export {
        /// From where to where.
        #[command(flatten)]
        transfer: Transfer,
        /// Write a TorchScript program of the network that --model names.
        #[arg(long, requires = "model")]
        torchscript: bool,
    },
    /// List the tensors of a file: names, kinds, shapes.
    #[command(after_help = "\
Examples:
  limbeck weights show ckpt_epoch_240.pth
  limbeck weights show student.safetensors --json")]
    Show {
        /// The file, and what to do with its names.
        #[command(flatten)]
        source: Source,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// A file with weights, and what makes its names those of a network.
#[derive(Debug, Args)]
pub struct Source {
    /// The file: safetensors or a PyTorch checkpoint.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    names: Names,
}

/// From a file's names to a network's.
#[derive(Debug, Default, Args)]
pub struct Names {
    /// Where the state dict stands in the file: state_dict, model, …, dotted where it lies deeper. Not needed where it is
    /// the only one.
    #[arg(long)]
    key: Option<String>,
    /// Take a module from the beginning of names: `module` makes `module.fc.weight` to `fc.weight`.
    #[arg(long, value_name = "PREFIX")]
    strip: Vec<String>,
    /// Give a name, or the modules that names begin with, another name. May be given several times; after --strip.
    #[arg(long, value_name = "FROM=TO")]
    rename: Vec<Rename>,
}

impl Names {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.strip.is_empty() && self.rename.is_empty()
    }

    /// Reads a file and applies this.
    ///
    /// # Errors
    /// As for [`StateDict::read`], or if a prefix or name is not in the file.
    pub fn read(&self, path: &Path) -> Result<StateDict> {
        let mut state = StateDict::read(path, self.key.as_deref())?;
        self.strip.iter().try_for_each(|prefix| state.strip(prefix))?;
        self.rename.iter().try_for_each(|Rename { from, to }| state.rename(from, to))?;
        Ok(state)
    }
}

/// FROM=TO
#[derive(Clone, Debug)]
struct Rename {
    from: String,
    to: String,
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((from, to)) if !from.is_empty() && !to.is_empty() => {
                Ok(Rename { from: from.to_owned(), to: to.to_owned() })
            }
            _ => Err("give FROM=TO, such as linear=fc".to_owned()),
        }
    }
}

/// From one file to another.
#[derive(Debug, Args)]
pub struct Transfer {
    #[command(flatten)]
    source: Source,
    /// The file to write.
    #[arg(value_name = "DST")]
    destination: PathBuf,
    /// The network that these are weights of: a kind, or a table such as '{ kind = "resnet20" }'.
    #[arg(long, value_name = "KIND")]
    model: Option<String>,
    /// The classes that it tells apart.
    #[arg(long, default_value_t = 100, requires = "model")]
    classes: i64,
    /// Channels, height and width of its input.
    #[arg(long, value_name = "CxHxW", default_value = "3x32x32", value_parser = input, requires = "model")]
    input: [i64; 3],
}

fn input(text: &str) -> Result<[i64; 3], String> {
    let numbers: Option<Vec<i64>> = text.split(['x', ',']).map(|n| n.trim().parse().ok().filter(|n| *n > 0)).collect();
    numbers.and_then(|n| n.try_into().ok()).ok_or_else(|| format!("\"{text}\" is no input: give 3x32x32, for example"))
}

/// A recipe given on the command line as a value of TOML: a kind alone stands for its table.
pub fn recipe(text: &str) -> String {
    if text.trim_start().starts_with('{') { text.to_owned() } else { format!("{{ kind = {text:?} }}") }
}

impl Transfer {
    /// Reads the source, checked and sorted by the network if there is one.
    fn read(&self) -> Result<(StateDict, Option<StandaloneNetwork>)> {
        let mut state = self.source.names.read(&self.source.file)?;
        let network =
            self.model.as_deref().map(|model| StandaloneNetwork::new(model, self.classes, self.input)).transpose()?;
        match &network {
            Some(network) => {
                let variables = weights::variables(&network.store);
                state.copy_into(&variables)?;
                state.sort_like(&variables.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
            }
            None => state.sort_like(&state.tensors.keys().cloned().collect::<Vec<_>>()),
        }
        Ok((state, network))
    }
}

/// A network that stands alone.
struct StandaloneNetwork {
    model: Box<dyn Model>,
    store: nn::VarStore,
    spec: ModelSpec,
}

impl StandaloneNetwork {
    fn new(recipe_text: &str, classes: i64, input: [i64; 3]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Recipe {
            model: Box<dyn ModelConfig>,
        }
        let text = format!("model = {}\n", recipe(recipe_text));
        let Recipe { model } = config::parse_as(&text, Path::new("--model"), &[])?;
        let (store, spec) = (nn::VarStore::new(Device::Cpu), ModelSpec { input, classes });
        let _drawing = Seed::new(0).stream("weights").seed_libtorch();
        Ok(StandaloneNetwork { model: model.build(&store.root(), &spec)?, store, spec })
    }

    /// Logits of an evaluation pass, `[B, classes]`.
    fn logits(&self, input: &Tensor) -> Result<Tensor> {
        Ok(self.model.forward(input, &Taps::none(), Mode::Eval)?.logits)
    }

    /// The same inputs each time: uniform in [-2, 2), `[batch, C, H, W]`.
    fn random_input(&self, batch: i64) -> Tensor {
        let [channels, height, width] = self.spec.input;
        let mut rng = Seed::new(0).stream("export").at(batch as u64).rng();
        let values: Vec<f32> = (0..batch * channels * height * width).map(|_| rng.range(-2.0, 2.0) as f32).collect();
        Tensor::from_slice(&values).view([batch, channels, height, width])
    }

    /// Traces the network and writes the program, once it has been shown to compute the same.
    fn write_torchscript(&mut self, path: &Path) -> Result<()> {
        let _no_grad = no_grad_guard();
        // The program has the weights as constants, and a constant has no gradient.
        self.store.freeze();
        let mut failed = None;
        let input = self.random_input(2);
        let program = CModule::create_by_tracing("Network", "forward", &[input], &mut |inputs: &[Tensor]| {
            let logits = self.logits(&inputs[0]);
            match logits {
                Ok(logits) => vec![logits],
                Err(error) => {
                    failed = Some(error);
                    Vec::new()
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let staging = tempfile::tempdir_in(folder).map_err(Error::io("write", path))?;
        // libtorch puts the file's name into the file.
        let staged = staging.path().join("network.pt");
        program?.save(&staged)?;
        self.compare(&CModule::load(&staged)?)?;
        limbeck::files::write_atomically(path, &fs::read(&staged).map_err(Error::io("read", &staged))?)
    }

    /// Other batch sizes than the traced one, each twice: libtorch optimises a program when it runs for the second time.
    fn compare(&self, program: &CModule) -> Result<()> {
        for batch in [1, 2, 5, 1, 2, 5] {
            let input = self.random_input(batch);
            let (expected, found) = (self.logits(&input)?, program.forward_ts(&[&input])?);
            let largest = expected.abs().max().double_value(&[]);
            let same = expected.size() == found.size();
            let difference = if same { (&expected - &found).abs().max().double_value(&[]) } else { f64::INFINITY };
            // What is not a number does not agree either.
            let agrees = difference <= 1e-5 * largest.max(1.0);
            if !agrees {
                return Err(Error::run(format!(
                    "the TorchScript program does not compute what the network computes: at a batch of {batch} its \
                     logits differ by {difference:e}, the largest being {largest:e}; nothing was written"
                )));
            }
        }
        Ok(())
    }
}

/// Does what the verb says, and says what was done.
///
/// # Errors
/// If a file cannot be read or written, is refused, or does not fit the network.
pub fn execute(verb: &WeightsVerb) -> Result<String> {
    match verb {
        WeightsVerb::Import(transfer) => {
            let (state, _) = transfer.read()?;
            state.write_safetensors(&transfer.destination)?;
            Ok(written(&state, transfer))
        }
        WeightsVerb::Export { transfer, torchscript } => {
            let (state, network) = transfer.read()?;
            match network.filter(|_| *torchscript) {
                Some(mut network) => network.write_torchscript(&transfer.destination)?,
                None => state.write_torch(&transfer.destination)?,
            }
            Ok(written(&state, transfer))
        }
        WeightsVerb::Show { source, json: false } => Ok(show(&source.names.read(&source.file)?)),
        WeightsVerb::Show { source, json: true } => listing::json(&outline(&source.names.read(&source.file)?)),
    }
}

fn written(state: &StateDict, transfer: &Transfer) -> String {
    let (source, destination) = (transfer.source.file.display(), transfer.destination.display());
    format!("{destination}: {} of {source} ({})", content(state), origin(state))
}

/// How much there is.
fn content(state: &StateDict) -> String {
    let elements: usize = state.tensors.values().map(Tensor::numel).sum();
    format!("{} tensors, {elements} elements", state.tensors.len())
}

/// The format of the file, and where in it the state dict was.
fn origin(state: &StateDict) -> String {
    let under = state.key.as_ref().map(|key| format!(", under `{key}`")).unwrap_or_default();
    format!("{}{under}", state.format)
}

/// The kind's name in PyTorch.
fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Float => "float32".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Half => "float16".to_owned(),
        Kind::Int => "int32".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn show(state: &StateDict) -> String {
    let width = state.tensors.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, tensor) in &state.tensors {
        let _ = writeln!(text, "{name:width$}  {:8}  {:?}", kind_name(tensor.kind()), tensor.size());
    }
    let _ = writeln!(text, "{} ({})", content(state), origin(state));
    text
}

fn outline(state: &StateDict) -> serde_json::Value {
    let mut tensors = Vec::new();
    for (name, tensor) in &state.tensors {
        let (kind, shape) = (kind_name(tensor.kind()), tensor.size());
        tensors.push(serde_json::json!({ "name": name, "kind": kind, "shape": shape }));
    }
    serde_json::json!({ "format": state.format, "key": state.key, "tensors": tensors })
}
