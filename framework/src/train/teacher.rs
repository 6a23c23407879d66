//! Teachers: frozen networks that every lane of a cohort asks, once a step.

use std::path::Path;

use tch::{Device, Kind, Tensor, nn, no_grad_guard};

use crate::dataset::Rows;
use crate::error::Result;
use crate::model::{Features, Lent, Mode, Model, ModelConfig, ModelSpec, Signature, Taps};
use crate::precision::Precision;
use crate::seed::Seed;
use crate::weights::{self, StateDict};

/// A teacher at work: in evaluation mode, without gradients.
#[derive(Debug)]
pub struct Teacher {
    /// Its name in the experiment.
    pub name: String,
    /// What it sees.
    pub view: String,
    model: Box<dyn Model>,
    store: nn::VarStore,
    precision: Precision,
    fold_batch_norm: bool,
    /// Whether the network brought its weights along.
    complete: bool,
    /// What methods may use of it.
    lent: Lent,
}

impl Teacher {
    /// Builds the network; its weights are still random, unless it comes complete from a file.
    ///
    /// # Errors
    /// If the network cannot be built for that input, or the device does not have that precision.
    pub fn new(
        name: &str,
        view: &str,
        config: &dyn ModelConfig,
        spec: &ModelSpec,
        precision: Precision,
        fold_batch_norm: bool,
        device: Device,
    ) -> Result<Self> {
        precision.check(device)?;
        let mut store = nn::VarStore::new(device);
        let _drawing = Seed::new(0).stream("teacher").seed_libtorch();
        let model = config.build(&store.root(), spec)?;
        weights::check_names(&store)?;
        let (name, view, complete) = (name.to_owned(), view.to_owned(), config.file().is_some());
        store.freeze();
        let lent = Lent::of(model.signature(), &weights::variables(&store), precision)?;
        Ok(Teacher { name, view, model, store, precision, fold_batch_norm, complete, lent })
    }

    /// Loads the weights from a file: safetensors or a PyTorch checkpoint, see [`StateDict::read`]. Of a network that came
    /// complete nothing is left to load.
    ///
    /// # Errors
    /// If the file is not this network's, or the network cannot fold.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        if self.complete {
            return Ok(());
        }
        self.adopt(&StateDict::read(path, None)?)
    }

    /// Takes the weights over, folds BatchNorm if that is asked for, and casts them to the teacher's precision.
    ///
    /// # Errors
    /// If they are not this network's, or the network cannot fold.
    pub fn adopt(&mut self, state: &StateDict) -> Result<()> {
        state.copy_into(&weights::variables(&self.store))?;
        if self.fold_batch_norm {
            let _no_grad = no_grad_guard();
            self.model.fold_batch_norm(self.precision.weights())?;
        }
        self.store.set_kind(self.precision.weights());
        weights::separate(&weights::variables(&self.store));
        Ok(())
    }

    /// The network.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.store.device()
    }

    /// What the network offers.
    pub fn signature(&self) -> &Signature {
        self.model.signature()
    }

    /// The number of its parameters; BatchNorm's running statistics are none.
    pub fn parameters(&self) -> i64 {
        self.model.parameters().unwrap_or_else(|| parameters(&self.store))
    }

    /// Logits and taps of training samples, float32, without gradients: those that the network gave beforehand to `rows` of
    /// the training part, if it is known for that, and otherwise those of `input`, which shows the same samples.
    ///
    /// # Errors
    /// If a tap does not exist.
    pub fn teach(&self, input: &Tensor, rows: &Rows, want: &Taps) -> Result<Features> {
        match self.model.outputs() {
            Some(outputs) => outputs.of(rows, want),
            None => self.forward(input, want),
        }
    }

    /// Logits `[B, C]` and taps of a batch `[B, …]` of the teacher's view, float32, without gradients, with what the network
    /// lends.
    ///
    /// # Errors
    /// If a tap does not exist.
    pub fn forward(&self, input: &Tensor, want: &Taps) -> Result<Features> {
        let _no_grad = no_grad_guard();
        let device = self.store.device();
        let _selected = self.precision.select(device)?;
        let autocast = if self.precision == Precision::Mixed { self.precision.autocast(device)? } else { None };
        let features = self.model.forward(&input.to_kind(self.precision.weights()), want, Mode::Eval)?;
        drop(autocast);
        let features = match self.precision {
            Precision::Float32 | Precision::Tf32 => features,
            Precision::Bfloat16 | Precision::Mixed => features.map(|value| value.to_kind(Kind::Float)),
        };
        Ok(features.with(self.lent.shallow_clone()))
    }
}

/// What a network offers and costs.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What it offers.
    pub signature: Signature,
    /// The number of its parameters; BatchNorm's running statistics are none.
    pub parameters: i64,
    /// What one image's forward pass multiplies and adds, if the network knows.
    pub multiply_adds: Option<i64>,
}

/// Builds a network for that input, on the CPU and with random weights, and asks it.
///
/// # Errors
/// If the network cannot be built for that input.
pub fn inspect(config: &dyn ModelConfig, spec: &ModelSpec) -> Result<Inspection> {
    let built = Teacher::new(config.typetag_name(), "", config, spec, Precision::Float32, false, Device::Cpu)?;
    Ok(Inspection {
        signature: built.signature().clone(),
        parameters: built.parameters(),
        multiply_adds: built.model().multiply_adds(),
    })
}

/// The number of parameters of a store: what is trainable, or was before it was frozen.
pub(crate) fn parameters(store: &nn::VarStore) -> i64 {
    store.trainable_variables().iter().map(|tensor| tensor.numel() as i64).sum()
}
