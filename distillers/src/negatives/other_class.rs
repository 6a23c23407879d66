//! `other_class`: K samples of other classes.
//!
//! Tian, Krishnan, Isola. *Contrastive Representation Distillation*. ICLR 2020, section 4.1: supervised negatives, which
//! never push two samples of one class apart.
//!
//! For each anchor on its own: uniform over the samples whose label is not the anchor's; without replacement if there are
//! K of them, with replacement otherwise.
//!
//! *Cost*: O(B · K) on the host, spread over the cores.

use limbeck::prelude::*;

use super::draw_rows;
use crate::classes::Classes;

limbeck::plugin! {
    negatives "other_class": OtherClass,
    summary: "random samples of other classes",
    citation: "Tian, Krishnan, Isola. Contrastive Representation Distillation. ICLR 2020",
    page: include_str!("other_class.rs"),
}

/// Random samples of other classes.
#[derive(Clone, Debug, Settings)]
pub struct OtherClass {
    /// K: negatives for each anchor.
    #[setting(default = 16_384, range = 1..)]
    pub count: usize,
}

#[typetag::serde(name = "other_class")]
impl NegativeSamplerConfig for OtherClass {
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        let classes = Classes::new("other_class", site)?;
        if let (class, size) = classes.largest()
            && size == site.labels.len()
        {
            return Err(Error::plan(format!(
                "other_class: all {size} training samples are of class {class}, so none has a negative; use negatives = {{ kind = \"other_instance\" }}"
            )));
        }
        Ok(Box::new(LiveOtherClass { count: self.count, classes }))
    }
}

struct LiveOtherClass {
    count: usize,
    classes: Classes,
}

impl std::fmt::Debug for LiveOtherClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "other_class(count = {}, {} samples)", self.count, self.classes.rows().len())
    }
}

impl NegativeSampler for LiveOtherClass {
    fn spares_class(&self) -> bool {
        true
    }

    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        let by_class = self.classes.rows();
        let rows = draw_rows(draw, self.count, |row: usize| {
            let own = self.classes.of(row);
            let others = by_class.len() - own.len();
            // Positions count all rows but those of the anchor's class: step over its interval.
            (others, move |position: usize| {
                let skipped = if position < own.start { 0 } else { own.len() };
                i64::from(by_class[position + skipped])
            })
        });
        Ok(Negatives::Rows(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, drawn};

    fn sampler(labels: &[i64], count: usize) -> Box<dyn NegativeSampler> {
        OtherClass { count }.build(&Fixture::new(labels, 4, 4).site()).unwrap()
    }

    #[test]
    fn no_negative_is_of_the_anchors_class_and_none_comes_twice_while_there_are_enough() {
        // Classes 0, 1 and 2 with 60, 30 and 10 samples: 40, 70 and 90 others.
        let labels: Vec<i64> = (0..100).map(|row| [0, 0, 1, 0, 0, 1, 0, 2, 1, 0][row % 10]).collect();
        for (count, enough) in [(40, [true, true, true]), (70, [false, true, true]), (95, [false, false, false])] {
            let anchors: Vec<i64> = (0..100).collect();
            for (row, negatives) in
                drawn(sampler(&labels, count).as_mut(), &anchors, Seed::new(1)).into_iter().enumerate()
            {
                assert_eq!(negatives.len(), count);
                assert!(negatives.iter().all(|negative| labels[*negative as usize] != labels[row]));
                let mut distinct = negatives.clone();
                distinct.sort_unstable();
                distinct.dedup();
                assert_eq!(distinct.len() == count, enough[labels[row] as usize], "row {row}, K = {count}");
            }
        }
    }

    #[test]
    fn draws_are_a_function_of_seed_and_row() {
        let labels: Vec<i64> = (0..500).map(|row| row % 5).collect();
        let mut sampler = sampler(&labels, 32);
        let first = drawn(sampler.as_mut(), &[3, 8, 13], Seed::new(1));
        let other_order = drawn(sampler.as_mut(), &[13, 99, 3], Seed::new(1));
        assert_eq!((&first[0], &first[2]), (&other_order[2], &other_order[0]));
        assert_ne!(first[0], first[1], "anchors of one class draw on their own");
        assert_ne!(first, drawn(sampler.as_mut(), &[3, 8, 13], Seed::new(2)));
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(first, alone.install(|| drawn(sampler.as_mut(), &[3, 8, 13], Seed::new(1))));
    }

    #[test]
    fn every_sample_of_another_class_is_equally_likely() {
        let labels: Vec<i64> = (0..50).map(|row| row % 2).collect();
        let mut sampler = sampler(&labels, 5);
        let mut counts = [0_u32; 50];
        for round in 0..10_000 {
            let negatives = &drawn(sampler.as_mut(), &[7], Seed::new(round))[0];
            negatives.iter().for_each(|row| counts[*row as usize] += 1);
        }
        let chi2: f64 = counts.iter().step_by(2).map(|c| (f64::from(*c) - 2000.0).powi(2) / 2000.0).sum();
        assert!(chi2 < 51.2, "24 degrees of freedom, 99.9 % quantile 51.2: {chi2}");
    }

    fn refusal(labels: &[i64], count: usize) -> String {
        OtherClass { count }.build(&Fixture::new(labels, 4, 4).site()).unwrap_err().to_string()
    }

    #[test]
    fn impossible_settings_are_refused() {
        assert_eq!(refusal(&[0, 2], 4), "other_class: a label is 2, but there are 2 classes");
        assert_eq!(
            refusal(&[1, 1, 1], 4),
            "other_class: all 3 training samples are of class 1, so none has a negative; use negatives = { kind = \"other_instance\" }"
        );
    }
}
