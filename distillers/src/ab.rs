//! `ab`: activation boundaries.
//!
//! Heo, Lee, Yun, Choi. *Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons*. AAAI 2019,
//! arXiv:1811.03233, equations 4 to 6.
//!
//! What counts is which neurons are active. With pre-activations t of the teacher, s of the student behind a connector
//! (convolution and BatchNorm; the identity where the shapes agree) and a margin m, an element costs
//!
//! (s + m)² where t ≤ 0 and s > −m, (s − m)² where t > 0 and s ≤ m, else 0.
//!
//! L = Σ_i 2^(i − n + 1) · Σ elements / B · 3 / 1000 over the stages i = 0 … n − 1, so that the last weighs 1. It trains the
//! student's feature modules and the connectors in an initial stage; then the labels alone train the student.
//!
//! *Taps*: the stages before their activation, in pairs by position. *Cost*: one convolution a stage, in the initial stage
//! alone. *State*: the connectors. *Published*: weight 1, m = 1, 30 epochs at the experiment's learning rate: the method `ab`.

use std::collections::BTreeSet;

use limbeck::checks::{not_empty, only_maps};
use limbeck::prelude::*;

use crate::conv_reg::ConvReg;

limbeck::plugin! {
    distiller "ab": Ab,
    summary: "activation boundaries: which neurons are active",
    citation: "Heo, Lee, Yun, Choi. Knowledge Transfer via Distillation of Activation Boundaries. AAAI 2019, arXiv:1811.03233, equations 4 to 6",
    page: include_str!("ab.rs"),
    method "ab": MethodConfig::new(1.0).term(1.0, Ab::default()),
    summary: "activation boundaries in an initial stage, then cross-entropy",
}

/// Activation boundaries.
#[derive(Clone, Debug, Settings)]
pub struct Ab {
    /// m: how far beyond the boundary the student shall be.
    #[setting(default = 1.0, range = positive)]
    pub margin: f64,
    /// The length of the initial stage, which is all that it has.
    #[setting(default = 30)]
    pub initial_epochs: u64,
}

#[typetag::serde(name = "ab")]
impl DistillerConfig for Ab {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = not_empty("ab", only_maps("ab", site.stages(Form::PreActivation)?)?)?;
        let both = taps.pairs.iter().flat_map(|pair| [&pair.student, &pair.teacher]);
        if let Some(tap) = both.into_iter().find(|tap| tap.form == Form::Output) {
            return Err(Error::plan(format!(
                "ab compares values before the activation, not `{tap}`: write `{tap}:pre`"
            )));
        }
        for pair in taps.pairs.iter().filter(|pair| pair.student_shape != pair.teacher_shape) {
            ConvReg::check("ab", pair.student_shape, pair.teacher_shape)?;
        }
        Ok(taps)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let (path, taps) = (params / "connectors", self.taps(site)?);
        let mut connectors = Vec::with_capacity(taps.pairs.len());
        for (i, pair) in taps.pairs.iter().enumerate() {
            connectors.push(if pair.student_shape == pair.teacher_shape {
                None
            } else {
                Some(ConvReg::new("ab", &(&path / i), pair.student_shape, pair.teacher_shape)?)
            });
        }
        Ok(Box::new(LiveAb { config: self.clone(), groups: site.student.feature_groups(), connectors }))
    }
}

#[derive(Debug)]
struct LiveAb {
    config: Ab,
    groups: Vec<String>,
    /// The identity where there is none.
    connectors: Vec<Option<ConvReg>>,
}

impl LiveAb {
    /// The cost of all elements, summed.
    fn boundary(&self, s: &Tensor, t: &Tensor) -> Tensor {
        let m = self.config.margin;
        let too_active = s.gt(-m).logical_and(&t.le(0.0)).to_kind(s.kind());
        let too_quiet = s.le(m).logical_and(&t.gt(0.0)).to_kind(s.kind());
        ((s + m).square() * too_active + (s - m).square() * too_quiet).sum(None::<Kind>)
    }
}

impl Distiller for LiveAb {
    fn initial_stage(&self) -> Option<InitialStage> {
        let connects = self.connectors.iter().any(Option::is_some);
        Some(InitialStage {
            epochs: self.config.initial_epochs,
            learning_rate: None,
            student_groups: self.groups.clone(),
            own: if connects { BTreeSet::from(["connectors".to_owned()]) } else { BTreeSet::new() },
            then_loss: false,
        })
    }

    fn initial_loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (n, mut terms) = (self.connectors.len() as i32, Terms::new());
        for (i, ((student, teacher), connector)) in step.pairs()?.into_iter().zip(&self.connectors).enumerate() {
            let s = connector.as_ref().map_or_else(|| student.shallow_clone(), |connector| connector.forward(student));
            let weight = 2_f64.powi(i as i32 - n + 1) * 3.0 / 1000.0 / step.batch() as f64;
            terms = terms.loss(&format!("pair{}", i + 1), self.boundary(&s, teacher) * weight);
        }
        Ok(terms)
    }

    fn loss(&mut self, _step: &Step<'_>) -> Result<Terms> {
        Err(Error::run("ab has no loss in the main stage"))
    }
}
