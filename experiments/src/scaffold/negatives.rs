//! `my_negatives`: the samples that follow the anchor in the training set, from a random one on.
//!
//! *Authors*. *Title*. Venue, year, section: cite what this is. It costs one random number for each anchor.
//!
//! This is a working sampler to begin with. `limbeck plugins show my_negatives` prints this page.

use limbeck::prelude::*;

// What a contrastive method calls `negatives = { kind = "my_negatives" }`.
limbeck::plugin! {
    negatives "my_negatives": MyNegatives,
    summary: "neighbours in the training set, from a random one on",
    citation: "",
    page: include_str!("negatives.rs"),
}

/// The recipe: what the file says.
#[derive(Clone, Debug, Settings)]
pub struct MyNegatives {
    /// K: negatives for each anchor.
    #[setting(default = 16)]
    pub count: i64,
}

#[typetag::serde(name = "my_negatives")]
impl NegativeSamplerConfig for MyNegatives {
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        let others = site.samples() - 1;
        if !(1..=others).contains(&self.count) {
            return Err(Error::plan(format!("my_negatives: count must be in 1..={others}, not {}", self.count)));
        }
        Ok(Box::new(Live { count: self.count, others }))
    }
}

/// The sampler at work: it keeps nothing between draws.
#[derive(Debug)]
struct Live {
    count: i64,
    /// The number of samples besides the anchor.
    others: i64,
}

impl NegativeSampler for Live {
    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        // By the anchor's own row, and not by its place in the batch.
        let anchors = draw.rows.device();
        let first = draw.seed.draw_rows(anchors).remainder(self.others).unsqueeze(1);
        let steps = Tensor::arange(self.count, (Kind::Int64, anchors.device()));
        let rows = anchors.unsqueeze(1) + (first + steps).remainder(self.others) + 1;
        Ok(Negatives::Rows(rows.remainder(self.others + 1).to_device(draw.device)))
    }
}
