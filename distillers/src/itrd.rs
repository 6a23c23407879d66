//! `itrd`: information theoretic representation distillation.
//!
//! Miles, Lopez-Rodriguez, Mikolajczyk. *Information Theoretic Representation Distillation*. BMVC 2022, arXiv:2112.00459,
//! in the form of its authors' code.
//!
//! The student's pooled features are embedded into the teacher's width by one linear layer. *Correlation*: with both sides
//! standardised over the batch (mean 0, unbiased standard deviation 1), c_d = 1 / B · Σ_b ŝ_bd t̂_bd of each dimension d, and
//!
//! L_corr = log₂ Σ_d |c_d − 1|^(2α).
//!
//! *Mutual information*: with G the Gram matrix of a batch's features, each of norm 1, and those of the student embedded
//! only where the widths differ,
//!
//! L_mi = Σ (Gˢ / tr Gˢ)² − Σ ((Gˢ ∘ Gᵗ) / tr (Gˢ ∘ Gᵗ))², element by element, ∘ likewise.
//!
//! L = λ_corr · L_corr + λ_mi · L_mi. Both may be negative. A dimension that is constant over a batch has no correlation:
//! c = 0.
//!
//! *Taps*: the pooled features. *Cost*: O(B² · D). *State*: one linear layer. *Published weights*: λ_corr = 2, λ_mi = 1,
//! α = 1.01 beside a cross-entropy of 1, as in its authors' example for WRN-40-2 → WRN-16-2: the method `itrd`. What their
//! program takes without options is λ_mi = 0.05 and α = 1.5.

use limbeck::checks::not_empty;
use limbeck::prelude::*;

use crate::tensor::normalize;

limbeck::plugin! {
    distiller "itrd": Itrd,
    summary: "information theoretic: each dimension's correlation, and a bound on the mutual information",
    citation: "Miles, Lopez-Rodriguez, Mikolajczyk. Information Theoretic Representation Distillation. BMVC 2022, arXiv:2112.00459",
    page: include_str!("itrd.rs"),
    method "itrd": MethodConfig::new(1.0).term(1.0, Itrd::default()),
    summary: "cross-entropy, correlation and mutual information with the teacher's features",
}

/// Information theoretic representation distillation.
#[derive(Clone, Debug, Settings)]
pub struct Itrd {
    /// λ_corr: the weight of the correlation.
    #[setting(default = 2.0, range = positive)]
    pub correlation: f64,
    /// λ_mi: the weight of the mutual information.
    #[setting(default = 1.0, range = positive)]
    pub mutual: f64,
    /// α: the order of Rényi's entropy in the correlation.
    #[setting(default = 1.01, range = positive)]
    pub alpha: f64,
}

#[typetag::serde(name = "itrd")]
impl DistillerConfig for Itrd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = not_empty("itrd", site.pooled()?)?;
        taps.single()?;
        Ok(taps)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let (from, to) = (pair.student_shape.elements(), pair.teacher_shape.elements());
        let embed = nn::linear(params / "embed", from, to);
        Ok(Box::new(LiveItrd { config: self.clone(), embed, same_width: from == to }))
    }
}

#[derive(Debug)]
struct LiveItrd {
    config: Itrd,
    embed: nn::Linear,
    same_width: bool,
}

/// `[B, D]` with mean 0 over the batch, divided by the norm: a constant dimension is 0.
fn centred(f: &Tensor) -> Tensor {
    normalize(&(f - f.mean_dim([0_i64].as_slice(), true, None)), 0)
}

/// Σ (G / tr G)² of a Gram matrix.
fn purity(gram: &Tensor) -> Tensor {
    (gram / gram.trace().clamp_min(1e-12)).square().sum(None::<Kind>)
}

/// The Gram matrix `[B, B]` of features `[B, D]`, each of norm 1.
fn gram(f: &Tensor) -> Tensor {
    let unit = normalize(f, 1);
    unit.matmul(&unit.tr())
}

impl Distiller for LiveItrd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let Itrd { correlation, mutual, alpha } = self.config;
        let (student, teacher) = step.pair()?;
        let (student, teacher) = (student.flatten(1, -1), teacher.flatten(1, -1));
        let embedded = student.apply(&self.embed);

        // With the unbiased deviation of both sides, a full correlation is (B − 1) / B.
        let b = step.batch() as f64;
        let c = (centred(&embedded) * centred(&teacher)).sum_dim_intlist(0, false, None) * ((b - 1.0) / b);
        let of_dimensions = (c - 1.0).abs().pow_tensor_scalar(2.0 * alpha).sum(None::<Kind>).log2();

        let of_student = gram(if self.same_width { &student } else { &embedded });
        let joint = &of_student * gram(&teacher);
        let of_batch = purity(&of_student) - purity(&joint);
        Ok(Terms::new().loss("correlation", of_dimensions * correlation).loss("mutual", of_batch * mutual))
    }
}
