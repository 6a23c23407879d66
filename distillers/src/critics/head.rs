//! The embedding heads that critics of a dot product share, and that dot product.

use limbeck::prelude::*;

use crate::layers::linear;

/// Divides each vector along the last dimension by its Euclidean norm. There is no ε: a vector of zeros becomes NaN.
pub fn unit_rows(vectors: &Tensor) -> Tensor {
    vectors / vectors.square().sum_dim_intlist(-1, true, None).sqrt()
}

/// One trained head per side, Linear(F → D), onto the unit sphere; score = cosine / τ.
///
/// State: `embed_s.linear.{weight, bias}`, `embed_t.linear.{weight, bias}`, both uniform in ±1/√F.
#[derive(Debug)]
pub struct CosineHeads {
    student: nn::Linear,
    teacher: nn::Linear,
    temperature: f64,
}

impl CosineHeads {
    /// Registers both heads on `params`. `critic` is the name for messages.
    ///
    /// # Errors
    /// If the temperature is not positive.
    pub fn new(critic: &str, temperature: f64, site: &CriticSite, params: &nn::Path<'_>) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::plan(format!("{critic}: temperature must be positive, not {temperature}")));
        }
        let head = |side: Side, name: &str| linear(params / name / "linear", site.width(side), site.embedding_width);
        Ok(CosineHeads {
            student: head(Side::Student, "embed_s"),
            teacher: head(Side::Teacher, "embed_t"),
            temperature,
        })
    }

    /// `[B, …]` with F elements a sample → `[B, D]` of norm 1.
    pub fn embed(&self, side: Side, features: &Tensor) -> Tensor {
        let head = match side {
            Side::Student => &self.student,
            Side::Teacher => &self.teacher,
        };
        unit_rows(&features.flatten(1, -1).apply(head))
    }

    /// Dot products over τ: `[B, D]` × `[N, D]` → `[B, N]`, or × `[B, K, D]` → `[B, K]`.
    pub fn score(&self, anchors: &Tensor, candidates: &Tensor) -> Tensor {
        let anchors = anchors / self.temperature;
        match candidates.dim() {
            2 => anchors.matmul(&candidates.tr()),
            _ => candidates.bmm(&anchors.unsqueeze(-1)).squeeze_dim(-1),
        }
    }
}

/// How many negatives each anchor has, `[B, 1]`, in the kind of the scores.
pub fn negatives_per_anchor(scores: &Scores) -> Tensor {
    let (anchors, columns) = (scores.negative.size()[0], scores.negative.size()[1]);
    match &scores.mask {
        Some(mask) => mask.sum_dim_intlist(1, true, scores.negative.kind()),
        None => Tensor::full([anchors, 1], columns as f64, (scores.negative.kind(), scores.negative.device())),
    }
}
