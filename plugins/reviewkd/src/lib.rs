//! `reviewkd`: knowledge review. A student's shallow stages learn from the teacher's with the help of its deeper ones.
//!
//! Chen, Liu, Zhao, Jia. *Distilling Knowledge via Knowledge Review*. CVPR 2021, arXiv:2104.09044, sections 3.2 to 3.4.
//!
//! Stages are gone through from the deepest, n, to the shallowest. Each has a **fusion** (figure 3a): with the student's map
//! sᵢ and the fused map rᵢ₊₁ of the stage below, enlarged to the size of sᵢ by its nearest neighbours,
//!
//! xᵢ = BN(conv₁ₓ₁(sᵢ)),
//! (a, b) = σ(conv₁ₓ₁([xᵢ, rᵢ₊₁])),
//! rᵢ = a · xᵢ + b · rᵢ₊₁,   rₙ = xₙ,
//! fᵢ = BN(conv₃ₓ₃(rᵢ)),
//!
//! where a and b are maps of one channel, rᵢ takes the teacher's size, and fᵢ has the teacher's channels too. It is compared
//! with the teacher's map tᵢ at several sizes (figure 3b): D(f, t) is the mean of the squared differences of both, plus ½, ¼
//! and ⅛ of those of their averages over 4×4, 2×2 and 1×1 cells (only those smaller than the map; each that is taken halves
//! the factor), over the sum of the factors. The loss is Σᵢ D(fᵢ, tᵢ).
//!
//! *Taps*: the stages and the pooled vector, as a map of one pixel; the student's outputs, the teacher's pre-activations.
//! From the shallowest to the deepest where the experiment file names them. *State*: the fusions `abfs.N`, in training mode
//! throughout. *Published weight*: 1 to 8 by pair of networks, rising over the first 20 epochs, which is the term's schedule;
//! beside a cross-entropy of 1: the method `reviewkd`.

use limbeck::checks::not_empty;
use limbeck::prelude::*;
use limbeck::tch::Reduction;

limbeck::plugin! {
    distiller "reviewkd": ReviewKd,
    summary: "knowledge review: every stage of the student, fused with the deeper ones, against the teacher's",
    citation: "Chen, Liu, Zhao, Jia. Distilling Knowledge via Knowledge Review. CVPR 2021, arXiv:2104.09044, sections 3.2 to 3.4",
    page: include_str!("lib.rs"),
    method "reviewkd": MethodConfig::new(1.0).with(TermConfig::new(1.0, ReviewKd::default()).warm_up(20)),
    summary: "cross-entropy and knowledge review",
}

/// Knowledge review.
#[derive(Clone, Debug, Settings)]
pub struct ReviewKd {
    /// Channels of the fused maps, at most; no more than the student's deepest map has.
    #[setting(default = 512, range = 1..)]
    pub width: i64,
}

/// The stages in this form, and the pooled vector.
fn stages_and_pooled(network: &Signature, form: Form) -> Vec<TapRef> {
    let stages = network.stages().iter().map(|tap| TapRef { name: tap.name.clone(), form });
    stages.chain(network.pooled().map(|pooled| TapRef::output(&pooled.name))).collect()
}

#[typetag::serde(name = "reviewkd")]
impl DistillerConfig for ReviewKd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let student = stages_and_pooled(site.student, Form::Output);
        let teacher = stages_and_pooled(site.teacher, Form::PreActivation);
        let pairs = site.pair_taps(&student, &teacher)?;
        for pair in &pairs.pairs {
            let sides =
                [("student", &pair.student, pair.student_shape), ("teacher", &pair.teacher, pair.teacher_shape)];
            for (side, tap, shape) in sides {
                if !shape.is_map() && !shape.is_vector() {
                    return Err(Error::plan(format!(
                        "reviewkd compares maps and vectors, but the {side}'s tap `{tap}` is {}: choose a map or a vector",
                        shape.name()
                    )));
                }
            }
        }
        not_empty("reviewkd", pairs)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let pairs = self.taps(site)?.pairs;
        let deepest = pairs.len() - 1;
        let width = self.width.min(pairs[deepest].student_shape.channels());
        let mut fusions = Vec::with_capacity(pairs.len());
        for (i, pair) in pairs.iter().enumerate() {
            let (path, from, to) = (params / "abfs" / i, pair.student_shape.channels(), pair.teacher_shape.channels());
            fusions.push(Fusion::new(&path, from, width, to, i < deepest));
        }
        Ok(Box::new(Live { fusions }))
    }
}

/// The method at work.
#[derive(Debug)]
struct Live {
    /// From the shallowest stage to the deepest.
    fusions: Vec<Fusion>,
}

impl Distiller for Live {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut terms = Terms::new();
        let mut deeper: Option<Tensor> = None;
        for ((fusion, pair), (student, teacher)) in self.fusions.iter().zip(&step.taps.pairs).zip(step.pairs()?).rev() {
            let (student, teacher) = (as_map(student, pair.student_shape), as_map(teacher, pair.teacher_shape));
            let (output, fused) = fusion.forward(&student, deeper.as_ref(), &teacher.size()[2..]);
            terms = terms.loss(&pair.student.to_string(), distance(&output, &teacher));
            deeper = Some(fused);
        }
        Ok(terms)
    }
}

/// `[B, D]` → `[B, D, 1, 1]`; maps stay as they are.
fn as_map(tap: &Tensor, shape: TapShape) -> Tensor {
    if shape.is_vector() { tap.unsqueeze(-1).unsqueeze(-1) } else { tap.shallow_clone() }
}

/// D: both `[B, C, H, W]` → a scalar
fn distance(f: &Tensor, t: &Tensor) -> Tensor {
    let mut sum = f.mse_loss(t, Reduction::Mean);
    let (mut factor, mut factors) = (1.0, 1.0);
    for cells in [4, 2, 1].into_iter().filter(|cells| *cells < f.size()[2]) {
        let [f, t] = [f, t].map(|map| map.adaptive_avg_pool2d([cells, cells]));
        factor /= 2.0;
        factors += factor;
        sum += f.mse_loss(&t, Reduction::Mean) * factor;
    }
    sum / factors
}

/// One stage's fusion with the deeper ones.
#[derive(Debug)]
struct Fusion {
    own: (nn::Conv2D, nn::BatchNorm),
    /// Absent at the deepest stage.
    attention: Option<nn::Conv2D>,
    output: (nn::Conv2D, nn::BatchNorm),
}

impl Fusion {
    fn new(path: &nn::Path<'_>, student: i64, width: i64, teacher: i64, has_deeper: bool) -> Self {
        Fusion {
            own: conv_bn(&(path / "conv1"), student, width, 1),
            attention: has_deeper.then(|| nn::conv(&(path / "att_conv") / 0, 2 * width, 2, 1, Default::default())),
            output: conv_bn(&(path / "conv2"), width, teacher, 3),
        }
    }

    /// f and r of a stage with the student's map `[B, C, H, W]` and r of the deeper one; both have `size`.
    fn forward(&self, student: &Tensor, deeper: Option<&Tensor>, size: &[i64]) -> (Tensor, Tensor) {
        let own = student.apply(&self.own.0).apply_t(&self.own.1, true);
        let fused = match (&self.attention, deeper) {
            (Some(attention), Some(deeper)) => {
                let deeper = enlarge(deeper, &own.size()[2..]);
                let weights = Tensor::cat(&[&own, &deeper], 1).apply(attention).sigmoid();
                own * weights.narrow(1, 0, 1) + deeper * weights.narrow(1, 1, 1)
            }
            _ => own,
        };
        let fused = enlarge(&fused, size);
        (fused.apply(&self.output.0).apply_t(&self.output.1, true), fused)
    }
}

/// To another height and width, by nearest neighbours.
fn enlarge(map: &Tensor, size: &[i64]) -> Tensor {
    if &map.size()[2..] == size { map.shallow_clone() } else { map.upsample_nearest2d(size, None, None) }
}

/// A convolution without bias that keeps the size, and a BatchNorm; initialised as the authors do, uniform with variance
/// 1 / fan-in.
fn conv_bn(path: &nn::Path<'_>, from: i64, to: i64, kernel: i64) -> (nn::Conv2D, nn::BatchNorm) {
    let bound = (3.0 / (from * kernel * kernel) as f64).sqrt();
    let ws_init = nn::Init::Uniform { lo: -bound, up: bound };
    let config = nn::ConvConfig { padding: kernel / 2, bias: false, ws_init, ..Default::default() };
    // `nn::conv` would start as PyTorch does.
    let conv = limbeck::tch::nn::conv2d(path / 0, from, to, kernel, config);
    (conv, nn::batch_norm(path / 1, to))
}
