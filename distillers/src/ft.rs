//! `ft`: factor transfer.
//!
//! Kim, Park, Kwak. *Paraphrasing Complex Network: Network Compression via Factor Transfer*. NeurIPS 2018,
//! arXiv:1802.04977, equations 1 to 4.
//!
//! In an initial stage a paraphraser, a convolutional autoencoder, learns the teacher's map by mean (decoder(encoder(t)) − t)²;
//! the student rests. Then its encoder is frozen and gives the teacher's factor, and a translator of three convolutions with
//! BatchNorm gives the student's. With Q(f) = mean_c f_c², flattened and divided by its L2 norm,
//!
//! L = mean |Q(translator(s)) − Q(encoder(t))|.
//!
//! All convolutions are 3×3, and a LeakyReLU of slope 0.1 follows each. Of two factors of different height, the larger is
//! adaptively average-pooled.
//!
//! *Taps*: the last stage of both. *Cost*: three convolutions of the student's map and three of the teacher's. *State*:
//! paraphraser and translator. *Published*: weight 200 beside a cross-entropy of 1, rate 0.5, 30 epochs at 0.01: the method `ft`.

use std::collections::BTreeSet;

use limbeck::checks::{not_empty, only_maps};
use limbeck::nn::{Module, ModuleT};
use limbeck::prelude::*;
use tch::no_grad_guard;

use crate::tensor::{match_heights, normalize};

limbeck::plugin! {
    distiller "ft": Ft,
    summary: "factor transfer: the teacher's map paraphrased by an autoencoder",
    citation: "Kim, Park, Kwak. Paraphrasing Complex Network: Network Compression via Factor Transfer. NeurIPS 2018, arXiv:1802.04977, equations 1 to 4",
    page: include_str!("ft.rs"),
    method "ft": MethodConfig::new(1.0).term(200.0, Ft::default()),
    summary: "cross-entropy and factor transfer, after an initial stage for the teacher's factors",
}

/// The slope of LeakyReLU for negative arguments.
const SLOPE: f64 = 0.1;

/// Factor transfer.
#[derive(Clone, Debug, Settings)]
pub struct Ft {
    /// The factors' channels as a share of the teacher's.
    #[setting(default = 0.5, range = positive)]
    pub rate: f64,
    /// The length of the initial stage, in which the paraphraser learns.
    #[setting(default = 30)]
    pub initial_epochs: u64,
    /// Its learning rate.
    #[setting(default = 0.01, range = positive)]
    pub initial_learning_rate: f64,
}

#[typetag::serde(name = "ft")]
impl DistillerConfig for Ft {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = not_empty("ft", only_maps("ft", site.last_stage()?)?)?;
        taps.single()?;
        Ok(taps)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let (from, teacher) = (pair.student_shape.channels(), pair.teacher_shape.channels());
        let factors = (teacher as f64 * self.rate) as i64;
        if factors < 1 {
            return Err(Error::plan(format!("ft: a rate of {} leaves none of {teacher} channels", self.rate)));
        }
        let (paraphraser, translator) = (params / "paraphraser", &(params / "translator") / "encoder");
        let padded = nn::ConvConfig { padding: 1, ..Default::default() };
        let transposed = nn::ConvTransposeConfig { padding: 1, ..Default::default() };
        let (encoder, decoder) = (&paraphraser / "encoder", &paraphraser / "decoder");
        Ok(Box::new(LiveFt {
            config: self.clone(),
            encoder: [(0_usize, teacher, teacher), (3, teacher, factors), (6, factors, factors)]
                .map(|(i, from, to)| nn::conv(&encoder / i, from, to, 3, padded)),
            decoder: [(0_usize, factors, factors), (3, factors, teacher), (6, teacher, teacher)]
                .map(|(i, from, to)| nn::conv_transpose(&decoder / i, from, to, 3, transposed)),
            translator: [(0_usize, from, from), (3, from, factors), (6, factors, factors)].map(|(i, from, to)| {
                (nn::conv(&translator / i, from, to, 3, padded), nn::batch_norm(&translator / (i + 1), to))
            }),
        }))
    }
}

#[derive(Debug)]
struct LiveFt {
    config: Ft,
    encoder: [nn::Conv2D; 3],
    decoder: [nn::ConvTranspose2D; 3],
    translator: [(nn::Conv2D, nn::BatchNorm); 3],
}

fn leaky_relu(x: &Tensor) -> Tensor {
    // max(x, slope·x), whose gradient at 0 is the mean of both sides, would not be PyTorch's: this is.
    x.clamp_min(0.0) + x.clamp_max(0.0) * SLOPE
}

impl LiveFt {
    fn encode(&self, teacher: &Tensor) -> Tensor {
        self.encoder.iter().fold(teacher.shallow_clone(), |x, layer| leaky_relu(&layer.forward(&x)))
    }

    fn decode(&self, factor: &Tensor) -> Tensor {
        self.decoder.iter().fold(factor.shallow_clone(), |x, layer| leaky_relu(&layer.forward(&x)))
    }

    fn translate(&self, student: &Tensor) -> Tensor {
        let mut x = student.shallow_clone();
        for (conv, bn) in &self.translator {
            x = leaky_relu(&bn.forward_t(&conv.forward(&x), true));
        }
        x
    }
}

/// Q: `[B, C, H, W]` → `[B, H·W]`
fn energy(factor: &Tensor) -> Tensor {
    normalize(&factor.square().mean_dim([1_i64].as_slice(), false, None::<Kind>).flatten(1, -1), 1)
}

impl Distiller for LiveFt {
    fn initial_stage(&self) -> Option<InitialStage> {
        Some(InitialStage {
            epochs: self.config.initial_epochs,
            learning_rate: Some(self.config.initial_learning_rate),
            student_groups: Vec::new(),
            own: BTreeSet::from(["paraphraser".to_owned()]),
            then_loss: true,
        })
    }

    fn initial_loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (_, teacher) = step.pair()?;
        let restored = self.decode(&self.encode(teacher));
        Ok(Terms::of("paraphrase", (restored - teacher).square().mean(None::<Kind>)))
    }

    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let factor = {
            let _frozen = no_grad_guard();
            self.encode(teacher)
        };
        let (s, t) = match_heights(&self.translate(student), &factor);
        Ok(Terms::of("factor", (energy(&s) - energy(&t)).abs().mean(None::<Kind>)))
    }
}
