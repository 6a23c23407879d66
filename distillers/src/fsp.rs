//! `fsp`: the flow of the solution procedure.
//!
//! Yim, Joo, Bae, Kim. *A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer Learning*.
//! CVPR 2017, equations 1 and 2.
//!
//! The flow matrix of two consecutive maps is the mean over space of the outer products of their channels,
//! G = 1 / (H·W) · Σ_hw f_i ⊗ f_{i+1}; of two heights, the larger is adaptively average-pooled first. In an initial stage,
//!
//! L = Σ_i mean (Gᵢˢ − Gᵢᵗ)²
//!
//! trains the student's feature modules; then the labels alone train all of it.
//!
//! *Taps*: the stem and the stages, with as many channels on both sides. *Cost*: O(B · Cᵢ · Cᵢ₊₁ · H · W), in the initial
//! stage alone. *State*: none. *Published*: 30 epochs at the experiment's learning rate; its weight of 50 in the benchmark of
//! the CRD paper multiplies nothing, since the main stage has no loss of this method: the method `fsp`.

use std::collections::BTreeSet;

use limbeck::checks::{consecutive, only_maps, same_channels};
use limbeck::prelude::*;

use crate::tensor::match_heights;

limbeck::plugin! {
    distiller "fsp": Fsp,
    summary: "flow matrices: how channels of consecutive maps go together",
    citation: "Yim, Joo, Bae, Kim. A Gift from Knowledge Distillation. CVPR 2017, equations 1 and 2",
    page: include_str!("fsp.rs"),
    method "fsp": MethodConfig::new(1.0).term(50.0, Fsp::default()),
    summary: "flow matrices in an initial stage, then cross-entropy",
}

/// Flow matrices.
#[derive(Clone, Debug, Settings)]
pub struct Fsp {
    /// The length of the initial stage, which is all that it has.
    #[setting(default = 30)]
    pub initial_epochs: u64,
}

#[typetag::serde(name = "fsp")]
impl DistillerConfig for Fsp {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = consecutive("fsp", only_maps("fsp", site.layers(Form::Output)?)?)?;
        same_channels("fsp", taps)
    }

    fn build(&self, site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveFsp { epochs: self.initial_epochs, groups: site.student.feature_groups() }))
    }
}

#[derive(Debug)]
struct LiveFsp {
    epochs: u64,
    groups: Vec<String>,
}

/// `[B, C, H, W]`, `[B, D, …]` → `[B, C, D]`
fn flow(lower: &Tensor, upper: &Tensor) -> Tensor {
    let (lower, upper) = match_heights(lower, upper);
    let [lower, upper] = [lower, upper].map(|map| map.flatten(2, -1));
    lower.bmm(&upper.transpose(1, 2)) / lower.size()[2] as f64
}

impl Distiller for LiveFsp {
    fn initial_stage(&self) -> Option<InitialStage> {
        Some(InitialStage {
            epochs: self.epochs,
            learning_rate: None,
            student_groups: self.groups.clone(),
            own: BTreeSet::new(),
            then_loss: false,
        })
    }

    fn initial_loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut terms = Terms::new();
        for (i, pairs) in step.pairs()?.windows(2).enumerate() {
            let (student, teacher) = (flow(pairs[0].0, pairs[1].0), flow(pairs[0].1, pairs[1].1));
            terms = terms.loss(&format!("flow{}", i + 1), (student - teacher).square().mean(None::<Kind>));
        }
        Ok(terms)
    }

    fn loss(&mut self, _step: &Step<'_>) -> Result<Terms> {
        Err(Error::run("fsp has no loss in the main stage"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::pairs_without_stem;

    #[test]
    fn a_teacher_without_a_stem_is_paired_stage_by_stage() {
        let (pairs, dropped) = pairs_without_stem(&Fsp::default());
        assert_eq!(pairs, ["stage1", "stage2", "stage3"].map(|name| (name.to_owned(), name.to_owned())));
        assert_eq!(dropped, ["student stem"]);
    }
}
