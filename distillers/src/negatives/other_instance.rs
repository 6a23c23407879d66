//! `other_instance`: K other samples, of any class.
//!
//! Tian, Krishnan, Isola. *Contrastive Representation Distillation*. ICLR 2020, section 4.1: i ≠ j, for data without
//! labels, or as the unsupervised counterpart of `other_class`.
//!
//! For each anchor on its own: uniform over all samples but the anchor; without replacement if K < n, with replacement
//! otherwise.
//!
//! *Cost*: O(B · K) on the host, spread over the cores.

use limbeck::prelude::*;

use super::{check_others, draw_rows};

limbeck::plugin! {
    negatives "other_instance": OtherInstance,
    summary: "random other samples, of any class",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020",
    page: include_str!("other_instance.rs"),
}

/// Random other samples.
#[derive(Clone, Debug, Settings)]
pub struct OtherInstance {
    /// K: negatives for each anchor.
    #[setting(default = 16_384, range = 1..)]
    pub count: usize,
}

#[typetag::serde(name = "other_instance")]
impl NegativeSamplerConfig for OtherInstance {
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        check_others("other_instance", site)?;
        Ok(Box::new(LiveOtherInstance { count: self.count, samples: site.labels.len() }))
    }
}

struct LiveOtherInstance {
    count: usize,
    samples: usize,
}

impl std::fmt::Debug for LiveOtherInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "other_instance(count = {}, {} samples)", self.count, self.samples)
    }
}

impl NegativeSampler for LiveOtherInstance {
    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        let others = self.samples - 1;
        let rows = draw_rows(draw, self.count, |row: usize| {
            (others, move |position: usize| (position + usize::from(position >= row)) as i64)
        });
        Ok(Negatives::Rows(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, drawn};

    #[test]
    fn every_other_sample_can_come_and_the_anchor_cannot() {
        let fixture = Fixture::new(&[0; 10], 4, 4);
        let mut sampler = OtherInstance { count: 9 }.build(&fixture.site()).unwrap();
        for (row, mut negatives) in
            drawn(sampler.as_mut(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], Seed::new(0)).into_iter().enumerate()
        {
            negatives.sort_unstable();
            assert_eq!(negatives, (0..10).filter(|other| *other != row as i64).collect::<Vec<i64>>());
        }
        let mut sampler = OtherInstance { count: 200 }.build(&fixture.site()).unwrap();
        let many = &drawn(sampler.as_mut(), &[4], Seed::new(0))[0];
        assert!(many.iter().all(|row| *row != 4 && (0..10).contains(row)));
    }

    #[test]
    fn a_single_sample_has_no_negatives() {
        let error = OtherInstance { count: 9 }.build(&Fixture::new(&[0], 4, 4).site()).unwrap_err();
        assert_eq!(error.to_string(), "other_instance: there is no other sample in a training set of 1");
    }
}
