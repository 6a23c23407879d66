//! `dist`: distillation from a stronger teacher.
//!
//! Huang, You, Wang, Qian, Xu. *Knowledge Distillation from A Stronger Teacher*. NeurIPS 2022, arXiv:2205.10536,
//! equations 6 to 10.
//!
//! With p = softmax(z / τ) `[B, classes]` and ρ Pearson's correlation,
//!
//! L = τ² · (β · (1 − mean_rows ρ(pˢ, pᵗ)) + γ · (1 − mean_columns ρ(pˢ, pᵗ))):
//!
//! the relations among the classes of a sample, and those among the samples of a class. Only the correlation counts, not
//! the exact value, so a much stronger teacher does no harm.
//!
//! *Taps*: none, the logits alone. *Cost*: O(B · classes). *State*: none. *Published weights*: β = γ = 1, τ = 4 on CIFAR,
//! beside a cross-entropy of 1: the method `dist`.

use limbeck::checks::same_classes;
use limbeck::prelude::*;

limbeck::plugin! {
    distiller "dist": Dist,
    summary: "correlation with the teacher's probabilities, over classes and over samples",
    citation: "Huang, You, Wang, Qian, Xu. Knowledge Distillation from A Stronger Teacher. NeurIPS 2022, arXiv:2205.10536, equations 6 to 10",
    page: include_str!("dist.rs"),
    method "dist": MethodConfig::new(1.0).term(1.0, Dist::default()),
    summary: "cross-entropy and correlation with the teacher's probabilities",
}

/// Correlation with the teacher's probabilities.
#[derive(Clone, Debug, Settings)]
pub struct Dist {
    /// β: the weight of the relations among the classes of a sample.
    #[setting(default = 1.0)]
    pub beta: f64,
    /// γ: the weight of the relations among the samples of a class.
    #[setting(default = 1.0)]
    pub gamma: f64,
    /// τ: both logits are divided by it, and the loss is multiplied by τ².
    #[setting(default = 4.0, range = positive)]
    pub tau: f64,
}

#[typetag::serde(name = "dist")]
impl DistillerConfig for Dist {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        same_classes("dist", site)?;
        site.one_class("dist compares one distribution over all classes")?;
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(LiveDist { config: self.clone() }))
    }
}

#[derive(Debug)]
struct LiveDist {
    config: Dist,
}

/// The rows less their means.
fn centred(x: &Tensor) -> Tensor {
    x - x.mean_dim([1_i64].as_slice(), true, None::<Kind>)
}

/// The L2 norm of each row.
fn row_norms(x: &Tensor) -> Tensor {
    x.norm_scalaropt_dim(2.0, [1_i64], false)
}

/// 1 − the mean over the rows of `[N, M]` of Pearson's correlation, with 10⁻⁸ added to its denominator.
fn distance(x: &Tensor, y: &Tensor) -> Tensor {
    let (x, y) = (centred(x), centred(y));
    let correlation = (&x * &y).sum_dim_intlist(1, false, None::<Kind>) / (row_norms(&x) * row_norms(&y) + 1e-8);
    correlation.mean(None::<Kind>).neg() + 1.0
}

impl Distiller for LiveDist {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let Dist { beta, gamma, tau } = self.config;
        let [s, t] = [step.student, step.teacher].map(|side| (&side.logits / tau).softmax(1, None));
        Ok(Terms::new()
            .loss("classes", distance(&s, &t) * (beta * tau * tau))
            .loss("samples", distance(&s.tr(), &t.tr()) * (gamma * tau * tau)))
    }
}
