//! Networks: what they are asked for (taps), what they say of themselves (signature), and how a file configures them.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use crate::dataset::Rows;
use crate::error::{Error, Result};

/// What a network is built for: the view that it sees and the classes that it tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// `[C, H, W]` of the input view.
    pub input: [i64; 3],
    /// The number of classes, hence the width of the logits.
    pub classes: i64,
}

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

/// The two values of a layer at which a feature can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// The layer's output, after its activation.
    Output,
    /// The value before that activation.
    PreActivation,
}

/// A tap by name: `"stage2"`, or `"stage2:pre"` for the value before the activation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TapRef {
    /// The tap's name in the [`Signature`].
    pub name: String,
    /// Which of its values.
    pub form: Form,
}

impl TapRef {
    /// The tap's output.
    pub fn output(name: impl Into<String>) -> Self {
        TapRef { name: name.into(), form: Form::Output }
    }

    /// The tap's value before its activation.
    pub fn pre_activation(name: impl Into<String>) -> Self {
        TapRef { name: name.into(), form: Form::PreActivation }
    }
}

impl fmt::Display for TapRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Output => f.write_str(&self.name),
            Form::PreActivation => write!(f, "{}:pre", self.name),
        }
    }
}

impl FromStr for TapRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None => Ok(TapRef::output(text)),
            Some((name, "pre")) => Ok(TapRef::pre_activation(name)),
            Some((_, form)) => Err(format!("a tap is \"name\" or \"name:pre\", not \"name:{form}\"")),
        }
    }
}

impl Serialize for TapRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TapRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A set of taps to record in a forward pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taps(Vec<TapRef>);

impl Taps {
    /// No tap: only the logits.
    pub fn none() -> Self {
        Taps::default()
    }

    /// Every tap of a signature, with the pre-activations where they exist.
    pub fn all(signature: &Signature) -> Self {
        let outputs = signature.taps.iter().map(|tap| TapRef::output(&tap.name));
        let pre = signature.taps.iter().filter(|tap| tap.pre_activation).map(|tap| TapRef::pre_activation(&tap.name));
        outputs.chain(pre).collect()
    }

    /// Adds a tap once.
    pub fn insert(&mut self, tap: TapRef) {
        if !self.0.contains(&tap) {
            self.0.push(tap);
        }
    }

    /// Whether this value is asked for.
    pub fn wants(&self, name: &str, form: Form) -> bool {
        self.0.iter().any(|tap| tap.form == form && tap.name == name)
    }

    /// The taps, in the order in which they were first asked for.
    pub fn iter(&self) -> impl Iterator<Item = &TapRef> {
        self.0.iter()
    }
}

impl FromIterator<TapRef> for Taps {
    fn from_iter<I: IntoIterator<Item = TapRef>>(iter: I) -> Self {
        let mut taps = Taps::none();
        for tap in iter {
            taps.insert(tap);
        }
        taps
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
}

impl Features {
    /// Collects the results of a forward pass.
    pub fn new(logits: Tensor, taps: HashMap<TapRef, Tensor>) -> Self {
        Features { logits, taps }
    }

    /// A recorded tap.
    ///
    /// # Errors
    /// If the tap was not asked for.
    pub fn tap(&self, tap: &TapRef) -> Result<&Tensor> {
        self.taps.get(tap).ok_or_else(|| Error::run(format!("tap `{tap}` was not recorded: declare it in `taps`")))
    }

    /// Applies `f` to the logits and every tap.
    pub fn map(self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Features {
            logits: f(&self.logits),
            taps: self.taps.iter().map(|(tap, value)| (tap.clone(), f(value))).collect(),
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

/// One tap of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TapInfo {
    /// Its name: `stem`, `stage1`, …, `pooled`.
    pub name: String,
    /// Its shape without the batch: `[C, H, W]`, or `[D]` for a vector.
    pub shape: Vec<i64>,
    /// Whether `name:pre` exists.
    pub pre_activation: bool,
}

/// The name of a network's first tap, before all stages.
pub const STEM: &str = "stem";

/// A named group of modules, the unit in which an initial stage trains a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name, for [`Mode::trains`].
    pub name: String,
    /// The parameters that belong to it: every state name that equals one of these or begins with it and a dot.
    pub parameters: Vec<String>,
    /// Whether it computes features (stem and stages), as opposed to the classifier.
    pub feature: bool,
}

/// What a network says of itself, all that a method may know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// `[C, H, W]` of its input.
    pub input: [i64; 3],
    /// The width of its logits.
    pub classes: i64,
    /// Its taps from the input to the output: first the stem, which is called that, then the stages, last the pooled vector.
    /// A network from elsewhere may lack the first or the last.
    pub taps: Vec<TapInfo>,
    /// Its modules, in groups, in order.
    pub groups: Vec<Group>,
}

impl Signature {
    /// The first tap, if it is the stem.
    pub fn stem(&self) -> Option<&TapInfo> {
        self.taps.first().filter(|tap| tap.name == STEM)
    }

    /// The last tap, if it is a vector.
    pub fn pooled(&self) -> Option<&TapInfo> {
        self.taps.last().filter(|tap| tap.shape.len() == 1)
    }

    /// The taps before the pooled vector: the stem, if there is one, and the stages.
    pub fn maps(&self) -> &[TapInfo] {
        &self.taps[..self.taps.len() - usize::from(self.pooled().is_some())]
    }

    /// The taps between the stem and the pooled vector.
    pub fn stages(&self) -> &[TapInfo] {
        // A stem of one number a sample is the pooled vector, too.
        self.maps().get(usize::from(self.stem().is_some())..).unwrap_or_default()
    }

    /// The tap of that name.
    ///
    /// # Errors
    /// If there is none; the message lists those that exist.
    pub fn tap(&self, name: &str) -> Result<&TapInfo> {
        self.taps.iter().find(|tap| tap.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.taps.iter().map(|tap| tap.name.as_str()).collect();
            Error::plan(format!("there is no tap `{name}`; the network has {}", names.join(", ")))
        })
    }

    /// The shape of a tap without the batch.
    ///
    /// # Errors
    /// If there is no such tap, or it has no pre-activation and that was asked for.
    pub fn shape(&self, tap: &TapRef) -> Result<&[i64]> {
        let info = self.tap(&tap.name)?;
        if tap.form == Form::PreActivation && !info.pre_activation {
            let with: Vec<&str> =
                self.taps.iter().filter(|tap| tap.pre_activation).map(|tap| tap.name.as_str()).collect();
            let remedy = match &with[..] {
                [] => "no tap of the network has one: take a method that needs none".to_owned(),
                with => format!(
                    "pair taps that have one with `taps` ({}), or take a method that needs none",
                    with.join(", ")
                ),
            };
            return Err(Error::plan(format!("tap `{}` has no pre-activation value; {remedy}", tap.name)));
        }
        Ok(&info.shape)
    }

    /// The names of the groups that compute features.
    pub fn feature_groups(&self) -> Vec<String> {
        self.groups.iter().filter(|group| group.feature).map(|group| group.name.clone()).collect()
    }

    /// The group that a parameter belongs to.
    pub fn group_of(&self, parameter: &str) -> Option<&Group> {
        self.groups.iter().find(|group| {
            group.parameters.iter().any(|prefix| {
                parameter.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        })
    }
}
