//! `hardest`: the samples that the student's embedding is most easily taken for.
//!
//! Robinson, Chuang, Sra, Jegelka. *Contrastive Learning with Hard Negative Samples*. ICLR 2021: negatives that score high
//! teach most, provided that they are of another class. Here the K rows of the memory bank with the highest scores against
//! the student's embedding are the negatives of both sides' anchors.
//!
//! They are no fair sample: a critic with noise of a known density (`nce`) cannot be used with them, and nothing bounds the
//! mutual information, so that no bound is reported.
//!
//! *Cost*: the scores of the whole bank, which the critic must give by one matrix product, and their K largest.

use limbeck::prelude::*;

use super::check_others;
use crate::classes::Classes;

limbeck::plugin! {
    negatives "hardest": Hardest,
    summary: "the samples that score highest against the student's embedding",
    citation: "Robinson, Chuang, Sra, Jegelka. Contrastive Learning with Hard Negative Samples. ICLR 2021",
    page: include_str!("hardest.rs"),
}

/// The samples with the highest scores.
#[derive(Clone, Debug, Settings)]
pub struct Hardest {
    /// K: negatives for each anchor.
    #[setting(default = 1024, range = 1..)]
    pub count: usize,
    /// Only samples of other classes; false: also of the anchor's own.
    #[setting(default = true)]
    pub other_class: bool,
}

#[typetag::serde(name = "hardest")]
impl NegativeSamplerConfig for Hardest {
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        check_others("hardest", site)?;
        let samples = site.labels.len();
        let (others, whose) = if self.other_class {
            let (class, size) = Classes::new("hardest", site)?.largest();
            (samples - size, format!("samples of class {class} have that many of other classes"))
        } else {
            (samples - 1, "every sample has that many others".to_owned())
        };
        if self.count > others {
            return Err(Error::plan(format!("hardest: count must be at most {others}, not {}: {whose}", self.count)));
        }
        let labels = self.other_class.then(|| Tensor::from_slice(site.labels).to_device(site.device));
        Ok(Box::new(LiveHardest { count: self.count as i64, labels }))
    }
}

#[derive(Debug)]
struct LiveHardest {
    count: i64,
    /// `[n]`, where only other classes count.
    labels: Option<Tensor>,
}

impl NegativeSampler for LiveHardest {
    fn wants_scores(&self) -> bool {
        true
    }

    fn spares_class(&self) -> bool {
        self.labels.is_some()
    }

    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        let scores = draw.scores.ok_or_else(|| Error::run("hardest: the scores of the bank were not given"))?;
        let allowed = match &self.labels {
            Some(labels) => scores.masked_fill(&draw.labels.unsqueeze(1).eq_tensor(labels), f64::NEG_INFINITY),
            None => scores.scatter_value(1, &draw.rows.device().unsqueeze(1), f64::NEG_INFINITY),
        };
        Ok(Negatives::Rows(allowed.topk(self.count, 1, true, false).1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn the_highest_scores_of_other_classes_or_of_anyone_else() {
        let fixture = Fixture::new(&[0, 1, 0, 1, 0], 4, 4);
        let rows = Rows::new(vec![0, 3], Device::Cpu);
        let labels = Tensor::from_slice(&[0_i64, 1]);
        let scores = Tensor::from_slice(&[9.0_f32, 1.0, 8.0, 2.0, 0.0, 3.0, 4.0, 5.0, 9.0, 6.0]).view([2, 5]);
        for (other_class, expected) in [(true, [[1_i64, 3], [2, 4]]), (false, [[2, 3], [2, 4]])] {
            let mut sampler = Hardest { count: 2, other_class }.build(&fixture.site()).unwrap();
            let draw =
                Draw { rows: &rows, labels: &labels, scores: Some(&scores), seed: Seed::new(0), device: Device::Cpu };
            match sampler.draw(&draw).unwrap() {
                Negatives::Rows(rows) => {
                    let mut rows = Vec::<Vec<i64>>::try_from(rows).unwrap();
                    rows.iter_mut().for_each(|rows| rows.sort_unstable());
                    assert_eq!(rows, expected);
                }
                other => panic!("rows expected, not {other:?}"),
            }
        }
    }

    fn refusal(count: usize, other_class: bool) -> String {
        let fixture = Fixture::new(&[0, 1, 0, 1, 0], 4, 4);
        Hardest { count, other_class }.build(&fixture.site()).unwrap_err().to_string()
    }

    #[test]
    fn more_than_there_are_is_refused() {
        assert_eq!(
            refusal(3, true),
            "hardest: count must be at most 2, not 3: samples of class 0 have that many of other classes"
        );
        assert_eq!(refusal(5, false), "hardest: count must be at most 4, not 5: every sample has that many others");
    }
}
