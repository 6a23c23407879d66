//! What a network lends to methods: the parameters that they compute with beside its features.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::signature::Signature;
use super::tap::{Form, TapRef};
use crate::error::{Error, Result};
use crate::precision::Precision;

/// The parameters that a network lends: the very tensors that it computes with, so that what a method makes of the
/// student's trains them. Its [`Signature`] names them.
#[derive(Debug, Default)]
pub struct Lent {
    precision: Precision,
    /// Weight and bias.
    classifier: Option<(Tensor, Option<Tensor>)>,
    /// γ and β of the BatchNorm before a tap's activation, by the tap's name.
    batch_norms: Vec<(String, Tensor, Tensor)>,
}

/// The parameter of this name.
fn find(named: &HashMap<&str, &Tensor>, name: &str) -> Result<Tensor> {
    let found = named.get(name).map(|tensor| tensor.shallow_clone());
    found.ok_or_else(|| {
        Error::plan(format!("the network lends `{name}`, and has no parameter of that name: see its signature"))
    })
}

impl Lent {
    /// What the signature names among these variables of a network, which computes in `precision`.
    ///
    /// # Errors
    /// If a name is no variable's.
    pub fn of(signature: &Signature, variables: &[(String, Tensor)], precision: Precision) -> Result<Self> {
        let named: HashMap<&str, &Tensor> = variables.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let mut lent = Lent { precision, ..Lent::default() };
        if let Some(classifier) = &signature.classifier {
            let bias = classifier.bias.as_ref().map(|bias| find(&named, bias)).transpose()?;
            lent.classifier = Some((find(&named, &classifier.weight)?, bias));
        }
        for tap in &signature.taps {
            if let Some(batch_norm) = &tap.batch_norm {
                let (weight, bias) = (find(&named, &batch_norm.weight)?, find(&named, &batch_norm.bias)?);
                lent.batch_norms.push((tap.name.clone(), weight, bias));
            }
        }
        Ok(lent)
    }

    /// The same tensors once more.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        let classifier = self.classifier.as_ref();
        let batch_norms = self.batch_norms.iter();
        Lent {
            precision: self.precision,
            classifier: classifier
                .map(|(weight, bias)| (weight.shallow_clone(), bias.as_ref().map(Tensor::shallow_clone))),
            batch_norms: batch_norms
                .map(|(tap, gamma, beta)| (tap.clone(), gamma.shallow_clone(), beta.shallow_clone()))
                .collect(),
        }
    }

    /// The logits `[B, classes]` that the classifier makes of features `[B, D]`, in the network's arithmetic.
    ///
    /// # Errors
    /// If the network lends none.
    pub fn classify(&self, features: &Tensor) -> Result<Tensor> {
        let (weight, bias) = self.classifier.as_ref().ok_or_else(no_classifier)?;
        let device = weight.device();
        let _selected = self.precision.select(device)?;
        let autocast = self.precision.autocast(device)?;
        let logits = features.to_kind(weight.kind()).linear(weight, bias.as_ref());
        drop(autocast);
        Ok(at_least_float32(&logits))
    }

    /// Weight `[classes, D]` and bias `[classes]` of the classifier.
    ///
    /// # Errors
    /// If the network lends none.
    pub fn classifier(&self) -> Result<(Tensor, Option<Tensor>)> {
        let (weight, bias) = self.classifier.as_ref().ok_or_else(no_classifier)?;
        Ok((at_least_float32(weight), bias.as_ref().map(at_least_float32)))
    }

    /// γ and β, `[C]` each, of the BatchNorm before the tap's activation.
    ///
    /// # Errors
    /// If the network lends none there.
    pub fn batch_norm(&self, tap: &TapRef) -> Result<(Tensor, Tensor)> {
        let found = self.batch_norms.iter().find(|(name, ..)| tap.form == Form::PreActivation && *name == tap.name);
        let (_, gamma, beta) = found.ok_or_else(|| {
            Error::run(format!("the network lends no BatchNorm before tap `{tap}`: ask the site for it while planning"))
        })?;
        Ok((at_least_float32(gamma), at_least_float32(beta)))
    }
}

fn no_classifier() -> Error {
    Error::run("the network lends no classifier: ask the site for it while planning")
}

/// A tensor in bfloat16 as float32, and any other as it is.
fn at_least_float32(tensor: &Tensor) -> Tensor {
    if tensor.kind() == Kind::BFloat16 { tensor.to_kind(Kind::Float) } else { tensor.shallow_clone() }
}
