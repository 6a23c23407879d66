//! `my_distiller`: the student's pooled features, projected, point where the teacher's point.
//!
//! *Authors*. *Title*. Venue, year, equation: cite what this is. With a trained head h, student features s and teacher
//! features t,
//!
//! L = mean (1 − cos(h(s), t)).
//!
//! This is a working method to begin with. `limbeck plugins show my_distiller` prints this page.

use limbeck::prelude::*;

// What `terms` of an experiment file call `kind = "my_distiller"`.
limbeck::plugin! {
    distiller "my_distiller": MyDistiller,
    summary: "one minus the cosine of projected student features and teacher features",
    citation: "",
    page: include_str!("distiller.rs"),
    // What `compare.methods` calls "my_distiller": the loss with its published weight, beside the cross-entropy.
    method "my_distiller": MethodConfig::new(1.0).term(2.0, MyDistiller::default()),
    summary: "cross-entropy and the cosine of pooled features",
}

/// The recipe: what the file says.
#[derive(Clone, Debug, Settings)]
pub struct MyDistiller {
    /// A cosine above one minus this is near enough.
    #[setting(default = 0.0, range = 0.0..=2.0)]
    pub margin: f64,
}

#[typetag::serde(name = "my_distiller")]
impl DistillerConfig for MyDistiller {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.pooled()
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let (from, to) = (pair.student_shape.elements(), pair.teacher_shape.elements());
        let head = nn::linear(params / "head", from, to);
        Ok(Box::new(Live { margin: self.margin, head }))
    }
}

/// The method at work.
#[derive(Debug)]
struct Live {
    margin: f64,
    head: nn::Linear,
}

impl Distiller for Live {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let projected = student.flatten(1, -1).apply(&self.head);
        let cosine = Tensor::cosine_similarity(&projected, &teacher.flatten(1, -1), 1, 1e-8);
        let distance = (1.0 - self.margin - &cosine).relu().mean(None::<Kind>);
        Ok(Terms::of("distance", distance).metric("cosine", cosine.mean(None::<Kind>)))
    }
}
