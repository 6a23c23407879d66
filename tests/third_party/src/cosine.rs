//! Cosine distillation: the student's pooled features, projected, point where the teacher's point.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

limbeck::plugin! {
    distiller "cosine",
    summary: "one minus the cosine between projected student features and teacher features",
    citation: "",
    settings: r#"
scale = 1.0   # what the loss is multiplied by
"#,
}

limbeck::plugin! {
    method "cosine",
    summary: "cross-entropy and the cosine of pooled features",
    citation: "",
    settings: r#"
cross_entropy = 1.0

[[terms]]
weight = 2.0
distiller = { kind = "cosine", scale = 1.0 }
"#,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Cosine {
    scale: f64,
}

impl Default for Cosine {
    fn default() -> Self {
        Cosine { scale: 1.0 }
    }
}

#[typetag::serde(name = "cosine")]
impl DistillerConfig for Cosine {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.pooled()
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let head = nn::linear(params / "head", pair.student_shape[0], pair.teacher_shape[0], Default::default());
        // How many steps it has seen: state that must survive a resumption.
        let seen = params.zeros_no_train("seen", &[]);
        Ok(Box::new(LiveCosine { scale: self.scale, head, seen }))
    }
}

#[derive(Debug)]
struct LiveCosine {
    scale: f64,
    head: nn::Linear,
    seen: Tensor,
}

impl Distiller for LiveCosine {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let cosine = Tensor::cosine_similarity(&student.apply(&self.head), teacher, 1, 1e-8).mean(Kind::Float);
        Ok(Terms::of("distance", (1.0 - &cosine) * self.scale).metric("cosine", cosine))
    }

    fn after_step(&mut self, _step: &Step<'_>) -> Result<()> {
        let _ = self.seen.g_add_scalar_(1.0);
        Ok(())
    }
}
