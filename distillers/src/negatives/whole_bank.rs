//! `whole_bank`: all other samples.
//!
//! `other_instance` with K = n − 1, hence without any randomness: the contrast with everything that the bank remembers.
//! Wu, Xiong, Yu, Lin. *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*. CVPR 2018, equation 2,
//! where it is the exact softmax that sampling approximates.
//!
//! *Cost*: nothing to draw; the critic's passes are over `[B, n]`.

use limbeck::prelude::*;

use super::check_others;

limbeck::plugin! {
    negatives "whole_bank": WholeBank,
    summary: "all other samples",
    citation: "Wu, Xiong, Yu, Lin. Unsupervised Feature Learning via Non-Parametric Instance Discrimination. CVPR 2018",
    page: include_str!("whole_bank.rs"),
}

/// All other samples.
#[derive(Clone, Debug, Settings)]
pub struct WholeBank {}

#[typetag::serde(name = "whole_bank")]
impl NegativeSamplerConfig for WholeBank {
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        check_others("whole_bank", site)?;
        Ok(Box::new(self.clone()))
    }
}

impl NegativeSampler for WholeBank {
    fn draw(&mut self, _draw: &Draw<'_>) -> Result<Negatives> {
        Ok(Negatives::Others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn a_single_sample_has_no_negatives() {
        let error = WholeBank {}.build(&Fixture::new(&[0], 4, 4).site()).unwrap_err();
        assert_eq!(error.to_string(), "whole_bank: there is no other sample in a training set of 1");
    }
}
