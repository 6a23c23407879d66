//! `my_critic`: a logistic regression on the cosine of both embeddings.
//!
//! *Authors*. *Title*. Venue, year, equation: cite what this is. With a cosine c, a trained scale a and offset b, the score is
//! s = a c + b, and the loss of an anchor with its positive and its K negatives
//!
//! L = −ln σ(s⁺) − 1/K Σ ln σ(−s⁻).
//!
//! This is a working critic to begin with. `limbeck plugins show my_critic` prints this page.

use limbeck::prelude::*;

// What a contrastive method calls `critic = { kind = "my_critic" }`.
limbeck::plugin! {
    critic "my_critic": MyCritic,
    summary: "logistic regression on the cosine",
    citation: "",
    page: include_str!("critic.rs"),
}

/// The recipe: what the file says.
#[derive(Clone, Debug, Settings)]
pub struct MyCritic {
    /// a, to begin with.
    #[setting(default = 10.0, range = positive)]
    pub scale: f64,
}

#[typetag::serde(name = "my_critic")]
impl CriticConfig for MyCritic {
    fn build(&self, _site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
        let critic = params / "critic";
        let scale = critic.var("scale", &[], nn::Init::Const(self.scale));
        Ok(Box::new(Live { scale, offset: critic.zeros("offset", &[]) }))
    }
}

/// The critic at work.
#[derive(Debug)]
struct Live {
    scale: Tensor,
    offset: Tensor,
}

impl Critic for Live {
    // The offset is added to the dot product in the loss, so that the score is nothing but that product.
    fn factors(&self) -> bool {
        true
    }

    fn score(&self, _side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
        let anchors = anchors * &self.scale;
        Ok(match candidates.dim() {
            2 => anchors.matmul(&candidates.tr()),
            _ => candidates.bmm(&anchors.unsqueeze(-1)).squeeze_dim(-1),
        })
    }

    fn loss(&mut self, _side: Side, scores: &Scores) -> Result<Terms> {
        let accepted = (&scores.negative + &self.offset).softplus();
        let negatives = match &scores.mask {
            // An anchor may have none where they come from the batch.
            Some(mask) => {
                let count = mask.sum_dim_intlist(1, false, accepted.kind()).clamp_min(1.0);
                accepted.masked_fill(&mask.logical_not(), 0.0).sum_dim_intlist(1, false, None::<Kind>) / count
            }
            None => accepted.mean_dim(1, false, None::<Kind>),
        };
        let positives = (&scores.positive + &self.offset).log_sigmoid();
        Ok(Terms::of("logistic", (negatives - positives).mean(None::<Kind>)))
    }
}
