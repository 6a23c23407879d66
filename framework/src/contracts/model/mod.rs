//! Networks: what they are asked for (taps), what they say of themselves (signature), and how a file configures them.

mod lent;
mod signature;
mod tap;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Kind, Tensor, nn};

pub use lent::Lent;
pub use signature::{ClassifierInfo, Group, ModelSpec, STEM, Signature, Taps};
pub use tap::{BatchNormInfo, Form, TapInfo, TapRef, TapShape};

use crate::dataset::Rows;
use crate::error::{Error, Result};

/// The recipe of a network, as the experiment file has it. Register it with [`plugin!`](crate::plugin).
#[typetag::serde(tag = "kind")]
pub trait ModelConfig: fmt::Debug + Send + Sync {
    /// Builds the network with freshly initialised parameters below `path`, named as PyTorch names them.
    ///
    /// libtorch's generator has been seeded: use the layers of [`nn`](crate::nn) and the same seed gives the same network.
    ///
    /// # Errors
    /// If the network cannot take inputs of that shape or has a setting out of range.
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>>;

    /// The file that the network comes from complete with its weights, or with its outputs: such a network only teaches, in
    /// float32, and has neither weights nor a recipe for them beside it.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// The same recipe with its file elsewhere; nothing if it has no file. A file is given relative to the experiment's.
    fn at(&self, _file: PathBuf) -> Option<Arc<dyn ModelConfig>> {
        None
    }

    /// What listings show the network for: the inputs and classes that it was published with.
    fn example(&self) -> ModelSpec {
        ModelSpec { input: [3, 32, 32], classes: 100 }
    }
}

/// What became of a network's BatchNorms in [`Model::fold_batch_norm`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// How many are now part of a convolution.
    pub folded: usize,
    /// How many still stand, since something lies between them and every convolution.
    pub kept: usize,
}

/// A network: live, its tensors registered on the path that it was built with.
pub trait Model: fmt::Debug + Send {
    /// What the network offers: taps with their shapes, groups of modules, input and classes.
    fn signature(&self) -> &Signature;

    /// Computes the logits and records the taps in `want`, and no others.
    ///
    /// `input` is `[B, C, H, W]`; the logits are `[B, classes]`; a tap is `[B, …]` with the shape of the signature.
    /// Under [`Mode::Train`] BatchNorm uses the batch's statistics and moves its running ones.
    ///
    /// # Errors
    /// If `want` names a tap that the signature does not have. Planning has checked this, so a loop never sees it.
    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features>;

    /// The products of one image's forward pass that are added up, in convolutions and linear layers alone; a kernel that
    /// reaches over the border multiplies the zeros there too. Nothing if the network does not know.
    fn multiply_adds(&self) -> Option<i64> {
        None
    }

    /// The number of its parameters, if they are not those registered on the path that it was built with.
    fn parameters(&self) -> Option<i64> {
        None
    }

    /// What the network said beforehand of every training sample, if that is all that is known of it: a cohort looks its
    /// answers up and never runs it.
    fn outputs(&self) -> Option<&Outputs> {
        None
    }

    /// Folds each BatchNorm into the convolution before it, where there is nothing between them that a tap shows. Called on a
    /// frozen teacher with its weights loaded, without gradients; what comes is [`Mode::Eval`] only, and gives the same
    /// logits and taps up to rounding. New weights are of kind `kind`; the registered ones stay as they are.
    ///
    /// # Errors
    /// If the network does not know how to.
    fn fold_batch_norm(&mut self, _kind: Kind) -> Result<Folded> {
        Err(Error::plan("this network does not fold its BatchNorm: remove `fold_batch_norm`"))
    }
}

/// How a forward pass treats layers that behave differently in training (BatchNorm, dropout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode<'a> {
    /// Running statistics, no dropout.
    Eval,
    /// Batch statistics, dropout.
    Train,
    /// Training for the named groups of the signature, evaluation for the rest: an initial stage.
    TrainGroups(&'a [String]),
}

impl Mode<'_> {
    /// Whether the modules of `group` are in training mode.
    pub fn trains(&self, group: &str) -> bool {
        match self {
            Mode::Eval => false,
            Mode::Train => true,
            Mode::TrainGroups(groups) => groups.iter().any(|name| name == group),
        }
    }
}

/// What a forward pass gives: the logits and the taps that were asked for.
#[derive(Debug)]
pub struct Features {
    /// `[B, classes]`
    pub logits: Tensor,
    taps: HashMap<TapRef, Tensor>,
    lent: Lent,
}

impl Features {
    /// Collects the results of a forward pass.
    pub fn new(logits: Tensor, taps: HashMap<TapRef, Tensor>) -> Self {
        Features { logits, taps, lent: Lent::default() }
    }

    /// The same with what the network lends. Whoever runs the network adds it.
    #[must_use]
    pub fn with(self, lent: Lent) -> Self {
        Features { lent, ..self }
    }

    /// A recorded tap.
    ///
    /// # Errors
    /// If the tap was not asked for.
    pub fn tap(&self, tap: &TapRef) -> Result<&Tensor> {
        self.taps.get(tap).ok_or_else(|| Error::run(format!("tap `{tap}` was not recorded: declare it in `taps`")))
    }

    /// The logits `[B, classes]` that the network's classifier makes of these features `[B, D]` in place of its own, in its
    /// arithmetic. Gradients reach the features and, of the student, the classifier.
    ///
    /// # Errors
    /// If the network lends no classifier: ask [`Site`](crate::distiller::Site) for it while planning.
    pub fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.lent.classify(features)
    }

    /// The weight `[classes, D]` of the network's classifier and its bias `[classes]`, float32: the student's with gradients,
    /// the teacher's frozen.
    ///
    /// # Errors
    /// As for [`classify`](Self::classify).
    pub fn classifier(&self) -> Result<(Tensor, Option<Tensor>)> {
        self.lent.classifier()
    }

    /// The scale γ and the shift β, both `[C]` and float32, of the BatchNorm that the tap's value before the activation comes
    /// out of: the student's with gradients, the teacher's frozen.
    ///
    /// # Errors
    /// If the network lends none there: ask [`Site`](crate::distiller::Site) for it while planning.
    pub fn batch_norm(&self, tap: &TapRef) -> Result<(Tensor, Tensor)> {
        self.lent.batch_norm(tap)
    }

    /// Applies `f` to the logits and every tap.
    pub fn map(self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Features {
            logits: f(&self.logits),
            taps: self.taps.iter().map(|(tap, value)| (tap.clone(), f(value))).collect(),
            lent: self.lent,
        }
    }
}

/// Logits and taps of every training sample, computed beforehand: of the images as they are, without augmentation.
#[derive(Debug)]
pub struct Outputs {
    logits: Tensor,
    taps: HashMap<TapRef, Tensor>,
}

impl Outputs {
    /// `logits` is `[N, classes]`, a tap `[N, …]`: one row for each row of the data set's training part, in its order. All are
    /// on the CPU, of any floating kind.
    ///
    /// # Errors
    /// If the tensors disagree about the number of rows.
    pub fn new(logits: Tensor, taps: HashMap<TapRef, Tensor>) -> Result<Self> {
        let rows = logits.size()[0];
        match taps.iter().find(|(_, value)| value.size()[0] != rows) {
            None => Ok(Outputs { logits, taps }),
            Some((tap, value)) => {
                let found = value.size()[0];
                Err(Error::plan(format!("there are logits of {rows} samples, and `{tap}` of {found}")))
            }
        }
    }

    /// For how many samples they are.
    pub fn samples(&self) -> usize {
        self.logits.size()[0] as usize
    }

    /// The share of samples whose largest logit is their label's, in percent: a check that both are in the same order.
    ///
    /// `labels` has one for each sample.
    pub fn agreement(&self, labels: &[i64]) -> f64 {
        let right = self.logits.argmax(1, false).eq_tensor(&Tensor::from_slice(labels));
        100.0 * right.to_kind(Kind::Double).mean(Kind::Double).double_value(&[])
    }

    /// Logits and the wanted taps of these rows of the training part, float32, on the rows' device.
    ///
    /// # Errors
    /// If `want` names a tap that there is not.
    pub fn of(&self, rows: &Rows, want: &Taps) -> Result<Features> {
        // The tables stay on the host, where there is room for them: what crosses is a batch.
        let index = Tensor::from_slice(rows.host());
        let device = rows.device().device();
        let take = |table: &Tensor| table.index_select(0, &index).to_kind(Kind::Float).to_device(device);
        let mut record = Recorder::new(want);
        for tap in want.iter() {
            if let Some(table) = self.taps.get(tap) {
                record.record(&tap.name, tap.form, &take(table));
            }
        }
        record.finish(take(&self.logits))
    }
}

/// Helps a `forward` to record taps: it keeps a value only if it is wanted.
#[derive(Debug)]
pub struct Recorder<'a> {
    want: &'a Taps,
    taps: HashMap<TapRef, Tensor>,
}

impl<'a> Recorder<'a> {
    /// Starts a pass that records `want`.
    pub fn new(want: &'a Taps) -> Self {
        Recorder { want, taps: HashMap::new() }
    }

    /// Offers a layer's output.
    pub fn output(&mut self, name: &str, value: &Tensor) {
        self.record(name, Form::Output, value);
    }

    /// Offers a layer's value before its activation.
    pub fn pre_activation(&mut self, name: &str, value: &Tensor) {
        self.record(name, Form::PreActivation, value);
    }

    /// Offers a layer's value of that form.
    pub fn record(&mut self, name: &str, form: Form, value: &Tensor) {
        if self.want.wants(name, form) {
            self.taps.insert(TapRef { name: name.to_owned(), form }, value.shallow_clone());
        }
    }

    /// Ends the pass.
    ///
    /// # Errors
    /// If a wanted tap was never offered.
    pub fn finish(self, logits: Tensor) -> Result<Features> {
        match self.want.iter().find(|tap| !self.taps.contains_key(tap)) {
            Some(missing) => Err(Error::run(format!("this network has no tap `{missing}`"))),
            None => Ok(Features::new(logits, self.taps)),
        }
    }
}
