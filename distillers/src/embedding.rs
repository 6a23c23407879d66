//! Embedding heads: what projects both sides' features into one space.
//!
//! *linear*: Tian, Krishnan, Isola. *Contrastive Representation Distillation*. ICLR 2020: one linear map each. *mlp*: Chen,
//! Kornblith, Norouzi, Hinton. *A Simple Framework for Contrastive Learning of Visual Representations*. ICML 2020, section
//! 4.2: a hidden layer as wide as the features, with ReLU, so that the features themselves need not be invariant.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

/// The form of both heads, each from F features to D dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// Linear(F → D).
    Linear,
    /// Linear(F → F), ReLU, Linear(F → D).
    Mlp,
}

/// One side's head, onto the unit sphere.
///
/// State: `linear.{weight, bias}`; of an MLP `hidden.{weight, bias}` too. All are uniform in ±1/√(inputs).
#[derive(Debug)]
pub struct Head {
    hidden: Option<nn::Linear>,
    linear: nn::Linear,
}

impl Head {
    /// Registers a head from `features` (F) to `width` (D) on `params`.
    pub fn new(kind: HeadKind, params: nn::Path<'_>, features: i64, width: i64) -> Self {
        let hidden = (kind == HeadKind::Mlp).then(|| nn::linear(&params / "hidden", features, features));
        Head { hidden, linear: nn::linear(&params / "linear", features, width) }
    }

    /// `[B, …]` with F elements a sample → `[B, D]` of norm 1.
    pub fn embed(&self, features: &Tensor) -> Tensor {
        let flat = features.flatten(1, -1);
        let hidden = match &self.hidden {
            Some(hidden) => flat.apply(hidden).relu(),
            None => flat,
        };
        unit_rows(&hidden.apply(&self.linear))
    }
}

/// Divides each vector along the last dimension by its Euclidean norm. There is no ε: a vector of zeros becomes NaN.
pub fn unit_rows(vectors: &Tensor) -> Tensor {
    vectors / vectors.square().sum_dim_intlist(-1, true, None).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mlp_has_a_hidden_layer_as_wide_as_the_features() {
        let store = nn::VarStore::new(Device::Cpu);
        let head = Head::new(HeadKind::Mlp, store.root() / "embed", 6, 4);
        let shapes = ["hidden.weight", "hidden.bias", "linear.weight", "linear.bias"]
            .map(|name| store.variables()[&format!("embed.{name}")].size());
        assert_eq!(shapes, [vec![6, 6], vec![6], vec![4, 6], vec![4]]);

        let x = (Tensor::arange(12, (Kind::Float, Device::Cpu)) * 1.3).sin().view([2, 3, 2]);
        let variables = store.variables();
        let hidden = x.view([2, 6]).matmul(&variables["embed.hidden.weight"].tr()) + &variables["embed.hidden.bias"];
        let hidden = hidden.clamp_min(0.0);
        let y = hidden.matmul(&variables["embed.linear.weight"].tr()) + &variables["embed.linear.bias"];
        let expected = &y / y.norm_scalaropt_dim(2.0, [1_i64], true);
        assert!((head.embed(&x) - expected).abs().max().double_value(&[]) < 1e-6);
    }
}
