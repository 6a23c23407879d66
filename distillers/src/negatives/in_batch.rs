//! `in_batch`: the other samples of the batch.
//!
//! Chen, Kornblith, Norouzi, Hinton. *A Simple Framework for Contrastive Learning of Visual Representations*. ICML 2020,
//! section 2.1: no memory bank. An anchor is compared with the other side's embeddings of this very batch, its own
//! partner's among them as the positive. They are as new as can be, and few: B − 1 at most. Both sides get gradients from
//! every pair.
//!
//! `other_class` leaves out those of the anchor's class. An anchor may then have none left; it has only its positive.
//!
//! *Cost*: nothing to draw, and B² scores.

use limbeck::prelude::*;

limbeck::plugin! {
    negatives "in_batch": InBatch,
    summary: "the other samples of the batch, without a memory bank",
    citation: "Chen, Kornblith, Norouzi, Hinton. A Simple Framework for Contrastive Learning of Visual Representations. ICML 2020",
    page: include_str!("in_batch.rs"),
}

/// The other samples of the batch.
#[derive(Clone, Debug, Settings)]
pub struct InBatch {
    /// Only those of other classes.
    #[setting(default = true)]
    pub other_class: bool,
}

#[typetag::serde(name = "in_batch")]
impl NegativeSamplerConfig for InBatch {
    fn build(&self, _site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        Ok(Box::new(self.clone()))
    }
}

impl NegativeSampler for InBatch {
    fn wants_bank(&self) -> bool {
        false
    }

    fn spares_class(&self) -> bool {
        self.other_class
    }

    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        let of = if self.other_class { draw.labels } else { draw.rows.device() };
        Ok(Negatives::Batch(of.unsqueeze(1).ne_tensor(&of.unsqueeze(0)).to_device(draw.device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_else_or_everyone_of_another_class() {
        let (rows, labels) = (Rows::new(vec![4, 9, 2], Device::Cpu), Tensor::from_slice(&[1_i64, 0, 1]));
        let draw = Draw { rows: &rows, labels: &labels, scores: None, seed: Seed::new(0), device: Device::Cpu };
        for (other_class, expected) in [
            (true, [false, true, false, true, false, true, false, true, false]),
            (false, [false, true, true, true, false, true, true, true, false]),
        ] {
            match (InBatch { other_class }).draw(&draw).unwrap() {
                Negatives::Batch(mask) => assert_eq!(Vec::<bool>::try_from(mask.view([-1])).unwrap(), expected),
                other => panic!("the batch expected, not {other:?}"),
            }
        }
    }
}
