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
use serde::{Deserialize, Serialize};

use crate::tensor::match_heights;

limbeck::plugin! {
    method "fsp",
    summary: "flow matrices in an initial stage, then cross-entropy",
    citation: "Yim, Joo, Bae, Kim. A Gift from Knowledge Distillation. CVPR 2017",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels
terms = [{ weight = 50.0, distiller = { kind = "fsp", initial_epochs = 30 } }]
"#,
    page: include_str!("fsp.rs"),
}

limbeck::plugin! {
    distiller "fsp",
    summary: "flow matrices: how channels of consecutive maps go together",
    citation: "Yim, Joo, Bae, Kim. A Gift from Knowledge Distillation. CVPR 2017, equations 1 and 2",
    settings: r#"
initial_epochs = 30   # the length of the initial stage, which is all that it has
"#,
    page: include_str!("fsp.rs"),
}

/// Flow matrices.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fsp {
    /// The length of the initial stage, which is all that it has.
    pub initial_epochs: u64,
}

impl Default for Fsp {
    fn default() -> Self {
        Fsp { initial_epochs: 30 }
    }
}

#[typetag::serde(name = "fsp")]
impl DistillerConfig for Fsp {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = consecutive("fsp", only_maps("fsp", site.maps(Form::Output)?)?)?;
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
    use crate::fixture::{NARROW, WIDE, pairs_without_stem, refusal};

    #[test]
    fn what_cannot_work_is_refused() {
        assert_eq!(
            refusal(&Fsp::default(), &NARROW, &WIDE, &[]),
            "fsp needs as many channels on both sides, but the student's `stem` has 16 and the teacher's `stem` 32: choose \
             networks of one width, or other taps with `taps`"
        );
        assert_eq!(
            refusal(&Fsp::default(), &NARROW, &NARROW, &[("stage1", "stage1")]),
            "fsp needs at least two consecutive pairs of taps: name them with \
             `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, TEACHER'S]]`"
        );
        assert_eq!(
            refusal(&Fsp::default(), &NARROW, &WIDE, &[("stage1", "stage1"), ("pooled", "pooled")]),
            "fsp compares maps, but the student's tap `pooled` is a vector: choose a stage"
        );
    }

    #[test]
    fn a_teacher_without_a_stem_is_paired_stage_by_stage() {
        let (pairs, dropped) = pairs_without_stem(&Fsp::default());
        assert_eq!(pairs, ["stage1", "stage2", "stage3"].map(|name| (name.to_owned(), name.to_owned())));
        assert_eq!(dropped, ["student stem"]);
    }
}
