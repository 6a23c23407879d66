//! `vid`: variational information distillation.
//!
//! Ahn, Hu, Damianou, Lawrence, Dai. *Variational Information Distillation for Knowledge Transfer*. CVPR 2019,
//! arXiv:1904.05835, equations 4 to 6.
//!
//! A regressor of three 1×1 convolutions (ReLU between them, no bias, the teacher's channels wide) predicts the teacher's
//! map μ(s), and each channel has a variance σ² = ln(1 + exp(α)) + ε, trained through α. The negative log-likelihood of the
//! teacher's map, a bound on its mutual information with the student's, is
//!
//! L = Σ_stages mean ½ ((μ(s) − t)² / σ² + ln σ²).
//!
//! Of two maps of different height, the larger is adaptively average-pooled first.
//!
//! *Taps*: the stages, in pairs by position. *Cost*: three 1×1 convolutions a stage. *State*: regressors and α.
//! *Published weight*: 1, beside a cross-entropy of 1: the method `vid`.

use limbeck::checks::{not_empty, only_maps};
use limbeck::nn::Module;
use limbeck::prelude::*;

use crate::tensor::match_heights;

limbeck::plugin! {
    distiller "vid": Vid,
    summary: "variational information: the likelihood of the teacher's maps given the student's",
    citation: "Ahn, Hu, Damianou, Lawrence, Dai. Variational Information Distillation for Knowledge Transfer. CVPR 2019, arXiv:1904.05835, equations 4 to 6",
    page: include_str!("vid.rs"),
    method "vid": MethodConfig::new(1.0).term(1.0, Vid::default()),
    summary: "cross-entropy and variational information distillation",
}

/// Variational information distillation.
#[derive(Clone, Debug, Settings)]
pub struct Vid {
    /// σ² of every channel at the start.
    #[setting(default = 5.0)]
    pub initial_variance: f64,
    /// ε: the least variance.
    #[setting(default = 1e-5, range = positive)]
    pub epsilon: f64,
}

#[typetag::serde(name = "vid")]
impl DistillerConfig for Vid {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        not_empty("vid", only_maps("vid", site.stages(Form::Output)?)?)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        if !(self.initial_variance > self.epsilon && self.initial_variance.is_finite()) {
            return Err(Error::plan(format!(
                "vid: initial_variance must be above epsilon ({}), not {}",
                self.epsilon, self.initial_variance
            )));
        }
        let taps = self.taps(site)?;
        let mut regressors = Vec::with_capacity(taps.pairs.len());
        for (i, pair) in taps.pairs.iter().enumerate() {
            let (from, to) = (pair.student_shape.channels(), pair.teacher_shape.channels());
            regressors.push(Regressor::new(&(params / i), from, to, self));
        }
        Ok(Box::new(LiveVid { regressors }))
    }
}

#[derive(Debug)]
struct LiveVid {
    regressors: Vec<Regressor>,
}

/// The variational distribution of one stage: mean from the student's map, variance by channel.
#[derive(Debug)]
struct Regressor {
    layers: [nn::Conv2D; 3],
    /// α, `[C]`
    log_scale: Tensor,
    epsilon: f64,
}

impl Regressor {
    fn new(path: &nn::Path<'_>, from: i64, to: i64, config: &Vid) -> Self {
        let module = path / "regressor";
        let unbiased = nn::ConvConfig { bias: false, ..Default::default() };
        let Vid { initial_variance, epsilon } = *config;
        let alpha = (initial_variance - epsilon).exp_m1().ln();
        Regressor {
            layers: [(0_usize, from), (2, to), (4, to)]
                .map(|(name, from)| nn::conv(&module / name, from, to, 1, unbiased)),
            log_scale: path.var("log_scale", &[to], nn::Init::Const(alpha)),
            epsilon,
        }
    }

    /// −ln q(t | s), up to a constant, as a mean over all elements.
    fn negative_log_likelihood(&self, student: &Tensor, teacher: &Tensor) -> Tensor {
        let [first, second, third] = &self.layers;
        let mean = third.forward(&second.forward(&first.forward(student).relu()).relu());
        let variance = (self.log_scale.softplus() + self.epsilon).view([1, -1, 1, 1]);
        (((mean - teacher).square() / &variance + variance.log()) * 0.5).mean(None::<Kind>)
    }
}

impl Distiller for LiveVid {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut terms = Terms::new();
        for (i, ((student, teacher), regressor)) in step.pairs()?.into_iter().zip(&self.regressors).enumerate() {
            let (s, t) = match_heights(student, teacher);
            terms = terms.loss(&format!("pair{}", i + 1), regressor.negative_log_likelihood(&s, &t));
        }
        Ok(terms)
    }
}
