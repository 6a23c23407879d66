//! What a network says of itself.

use serde::Serialize;
use tch::nn;

use super::tap::{BatchNormInfo, Form, TapInfo, TapRef, TapShape};
use crate::error::{Error, Result};

/// What a network is built for: the view that it sees and the classes that it tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// `[C, H, W]` of the input view.
    pub input: [i64; 3],
    /// The number of classes, hence the width of the logits.
    pub classes: i64,
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

/// The name of a network's first tap, before all stages.
pub const STEM: &str = "stem";

/// A named group of modules, the unit in which an initial stage trains a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its name, for [`Mode::trains`](super::Mode::trains).
    pub name: String,
    /// The parameters that belong to it: every state name that equals one of these or begins with it and a dot.
    pub parameters: Vec<String>,
    /// Whether it computes features (stem and stages), as opposed to the classifier.
    pub feature: bool,
}

impl Group {
    /// Whether the parameter of that state name belongs to it.
    pub fn holds(&self, parameter: &str) -> bool {
        self.parameters.iter().any(|prefix| {
            parameter.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

/// The linear layer that makes logits of features, by the names of its parameters in the state dict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassifierInfo {
    /// The weight, `[classes, D]`.
    pub weight: String,
    /// The bias, `[classes]`, if it has one.
    pub bias: Option<String>,
    /// The tap whose output it takes, a vector `[D]`.
    pub tap: String,
}

impl ClassifierInfo {
    /// The linear layer at `path`, with bias, behind that tap.
    pub fn new(path: &nn::Path<'_>, tap: &str) -> Self {
        ClassifierInfo { weight: path.path("weight"), bias: Some(path.path("bias")), tap: tap.to_owned() }
    }
}

/// What a network says of itself, all that a method may know of it. What it names beside taps and groups, it lends: see
/// [`Lent`](super::Lent).
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
    /// The classifier, if the network lends it: the logits are what it makes of its tap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier: Option<ClassifierInfo>,
    /// The parameters that weight decay spares where the training asks for `no_decay`, by state name: biases, norms,
    /// position and class tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_decay: Vec<String>,
}

impl Signature {
    /// The signature of a network that lends nothing.
    pub fn new(spec: &ModelSpec, taps: Vec<TapInfo>, groups: Vec<Group>) -> Self {
        let ModelSpec { input, classes } = *spec;
        Signature { input, classes, taps, groups, classifier: None, no_decay: Vec::new() }
    }

    /// The same of a network that lends this classifier.
    #[must_use]
    pub fn with_classifier(self, classifier: ClassifierInfo) -> Self {
        Signature { classifier: Some(classifier), ..self }
    }

    /// The same of a network of which weight decay can spare these parameters, by state name.
    #[must_use]
    pub fn with_no_decay(self, no_decay: Vec<String>) -> Self {
        Signature { no_decay, ..self }
    }

    /// The first tap, if it is the stem.
    pub fn stem(&self) -> Option<&TapInfo> {
        self.taps.first().filter(|tap| tap.name == STEM)
    }

    /// The last tap, if it is a vector.
    pub fn pooled(&self) -> Option<&TapInfo> {
        self.taps.last().filter(|tap| tap.shape.is_vector())
    }

    /// The taps before the pooled vector: the stem, if there is one, and the stages. They are maps, or sequences of tokens.
    pub fn layers(&self) -> &[TapInfo] {
        &self.taps[..self.taps.len() - usize::from(self.pooled().is_some())]
    }

    /// The taps between the stem and the pooled vector.
    pub fn stages(&self) -> &[TapInfo] {
        // A stem of one number a sample is the pooled vector, too.
        self.layers().get(usize::from(self.stem().is_some())..).unwrap_or_default()
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
    pub fn shape(&self, tap: &TapRef) -> Result<TapShape> {
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
        Ok(info.shape)
    }

    /// The classifier that the network lends.
    ///
    /// # Errors
    /// If it lends none, with the remedy.
    pub fn lent_classifier(&self) -> Result<&ClassifierInfo> {
        self.classifier.as_ref().ok_or_else(|| {
            Error::plan(
                "the network lends no classifier, as one from a TorchScript file or from precomputed outputs cannot: take a \
                 network that is built here, or a method without it",
            )
        })
    }

    /// The BatchNorm that the tap's value before the activation comes out of.
    ///
    /// # Errors
    /// If the network lends none there, with the remedy.
    pub fn lent_batch_norm(&self, tap: &TapRef) -> Result<&BatchNormInfo> {
        self.shape(tap)?;
        let lent = self.tap(&tap.name)?.batch_norm.as_ref().filter(|_| tap.form == Form::PreActivation);
        lent.ok_or_else(|| {
            let with: Vec<String> = self
                .taps
                .iter()
                .filter(|tap| tap.batch_norm.is_some())
                .map(|tap| TapRef::pre_activation(&tap.name).to_string())
                .collect();
            let remedy = match &with[..] {
                [] => "it lends none at all: take another network, or a method without it".to_owned(),
                with => format!("pair taps behind one with `taps` ({})", with.join(", ")),
            };
            Error::plan(format!("the network lends no BatchNorm before tap `{tap}`; {remedy}"))
        })
    }

    /// The names of the groups that compute features.
    pub fn feature_groups(&self) -> Vec<String> {
        self.groups.iter().filter(|group| group.feature).map(|group| group.name.clone()).collect()
    }

    /// Whether weight decay spares the parameter of that state name where the training asks for `no_decay`.
    pub fn is_spared(&self, parameter: &str) -> bool {
        self.no_decay.iter().any(|name| name == parameter)
    }

    /// The group that a parameter belongs to.
    pub fn group_of(&self, parameter: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.holds(parameter))
    }
}
