//! What the networks are made of: a draft that is built along, and the layers that it builds.

use limbeck::nn::{Init, Module, ModuleT};
use limbeck::prelude::*;
use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};

/// BatchNorm's ε.
const EPSILON: f64 = 1e-5;

/// How the weights of a layer start. A convolution of `i` channels in each group, kernel `k` and `o` outputs has a
/// fan-in of `i·k²` and a fan-out of `o·k²`; a linear layer is a convolution with `k` = 1.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// All zero.
    Zero,
    /// Normal with variance 2 / fan-out (He et al., arXiv:1502.01852, equation 14).
    He,
    /// Uniform in ±1/√fan-in: what PyTorch's layers start with, weights and biases.
    Torch,
    /// Normal with deviation 0.01.
    Small,
}

impl Start {
    fn init(self, fan_in: i64) -> Init {
        match self {
            Start::Zero => Init::Const(0.0),
            Start::He => {
                let (dist, fan) = (NormalOrUniform::Normal, FanInOut::FanOut);
                Init::Kaiming { dist, fan, non_linearity: NonLinearity::ReLU }
            }
            Start::Torch => nn::fan_in_uniform(fan_in),
            Start::Small => Init::Randn { mean: 0.0, stdev: 0.01 },
        }
    }
}

/// A convolution, padded so that it keeps the resolution up to its stride.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conv {
    pub to: i64,
    pub kernel: i64,
    pub stride: i64,
    pub groups: i64,
    pub start: Start,
    /// None: without bias.
    pub bias: Option<Start>,
}

impl Conv {
    /// Dense, without bias, stride 1, with He's initialisation.
    pub fn new(to: i64, kernel: i64) -> Self {
        Conv { to, kernel, stride: 1, groups: 1, start: Start::He, bias: None }
    }
}

/// A window that moves over a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub kernel: i64,
    pub stride: i64,
    pub padding: i64,
}

impl Window {
    pub fn max(self, x: &Tensor) -> Tensor {
        let Window { kernel, stride, padding } = self;
        x.max_pool2d([kernel, kernel], [stride, stride], [padding, padding], [1, 1], false)
    }

    /// Zeros beyond the border count.
    pub fn average(self, x: &Tensor) -> Tensor {
        let Window { kernel, stride, padding } = self;
        x.avg_pool2d([kernel, kernel], [stride, stride], [padding, padding], false, true, None::<i64>)
    }
}

/// A network in the making: the shape behind the layers so far, what they cost, and what the signature will say.
#[derive(Debug)]
pub(crate) struct Draft {
    spec: ModelSpec,
    /// `[C, H, W]` behind the layers so far.
    pub shape: [i64; 3],
    multiply_adds: i64,
    taps: Vec<TapInfo>,
    groups: Vec<Group>,
    classifier: Option<ClassifierInfo>,
    /// Biases and norms so far.
    no_decay: Vec<String>,
}

impl Draft {
    /// A network that halves its input `halvings` times, the last time down to one pixel at least.
    pub fn new(spec: &ModelSpec, halvings: u32) -> Result<Self> {
        let [channels, height, width] = spec.input;
        let least = 1 << halvings;
        if channels < 1 || height < least || width < least {
            let times = if halvings == 2 { "twice".to_owned() } else { format!("{halvings} times") };
            return Err(Error::plan(format!(
                "the network halves its input {times} and needs at least 1 channel and {least}×{least} pixels; the view \
                 has {channels} channels and {height}×{width} pixels"
            )));
        }
        if spec.classes < 1 {
            return Err(Error::plan(format!("the network needs at least 1 class, not {}", spec.classes)));
        }
        Ok(Draft {
            spec: *spec,
            shape: spec.input,
            multiply_adds: 0,
            taps: Vec::new(),
            groups: Vec::new(),
            classifier: None,
            no_decay: Vec::new(),
        })
    }

    pub fn conv(&mut self, path: nn::Path<'_>, conv: Conv) -> nn::Conv2D {
        let Conv { to, kernel, stride, groups, start, bias } = conv;
        let padding = kernel / 2;
        let [from, ..] = self.shape;
        self.pool(Window { kernel, stride, padding });
        self.shape[0] = to;
        let fan_in = from / groups * kernel * kernel;
        self.multiply_adds += self.shape.iter().product::<i64>() * fan_in;
        if bias.is_some() {
            self.no_decay.push(path.path("bias"));
        }
        let bs_init = bias.unwrap_or(Start::Zero).init(fan_in);
        let ws_init = start.init(fan_in);
        let config =
            nn::ConvConfig { stride, padding, groups, bias: bias.is_some(), ws_init, bs_init, ..Default::default() };
        tch::nn::conv2d(path, from, to, kernel, config)
    }

    /// A BatchNorm that starts as the identity.
    pub fn batch_norm(&mut self, path: nn::Path<'_>) -> nn::BatchNorm {
        self.no_decay.extend([path.path("weight"), path.path("bias")]);
        nn::batch_norm(path, self.shape[0])
    }

    pub fn conv_bn(&mut self, conv: nn::Path<'_>, bn: nn::Path<'_>, settings: Conv) -> ConvBn {
        let conv = self.conv(conv, settings);
        let batch_norm = BatchNormInfo::new(&bn);
        ConvBn { conv, bn: Some(self.batch_norm(bn)), batch_norm }
    }

    /// Moves a window over the map, which changes its height and width.
    pub fn pool(&mut self, window: Window) -> Window {
        let Window { kernel, stride, padding } = window;
        for side in &mut self.shape[1..] {
            *side = (*side + 2 * padding - kernel) / stride + 1;
        }
        window
    }

    /// Builds what lies beside the layers since the map had the shape `from`.
    pub fn beside<T>(&mut self, from: [i64; 3], build: impl FnOnce(&mut Draft) -> T) -> T {
        let shape = std::mem::replace(&mut self.shape, from);
        let built = build(self);
        self.shape = shape;
        built
    }

    /// The map is a tap, with a value before its activation, which comes out of this BatchNorm if out of any.
    pub fn tap(&mut self, name: &str, batch_norm: Option<&BatchNormInfo>) {
        let tap = TapInfo::map(name, self.shape).with_pre_activation();
        self.taps.push(TapInfo { batch_norm: batch_norm.cloned(), ..tap });
    }

    /// The value before the last tap's activation comes out of this BatchNorm, which follows it.
    pub fn then_batch_norm(&mut self, path: &nn::Path<'_>) {
        if let Some(tap) = self.taps.last_mut() {
            tap.batch_norm = Some(BatchNormInfo::new(path));
        }
    }

    /// The parameters below these prefixes are a group.
    pub fn group(&mut self, name: &str, prefixes: &[&str]) {
        let parameters = prefixes.iter().map(|&p| p.to_owned()).collect();
        self.groups.push(Group { name: name.to_owned(), parameters, feature: name != CLASSIFIER });
    }

    /// What comes behind the features: the mean of the map, which is the tap `pooled`, and a linear layer. The
    /// group `classifier` has the parameters below these prefixes.
    pub fn classifier(&mut self, path: nn::Path<'_>, weight: Start, bias: Start, prefixes: &[&str]) -> nn::Linear {
        let [from, ..] = self.shape;
        self.taps.push(TapInfo::vector("pooled", from));
        self.classifier = Some(ClassifierInfo::new(&path, "pooled"));
        self.no_decay.push(path.path("bias"));
        self.group(CLASSIFIER, prefixes);
        self.multiply_adds += from * self.spec.classes;
        let config = nn::LinearConfig { ws_init: weight.init(from), bs_init: Some(bias.init(from)), bias: true };
        tch::nn::linear(path, from, self.spec.classes, config)
    }

    /// The signature, and the multiply-adds of one image.
    pub fn finish(self) -> (Signature, i64) {
        let Draft { spec, taps, groups, classifier, no_decay, multiply_adds, .. } = self;
        let signature = Signature { classifier, no_decay, ..Signature::new(&spec, taps, groups) };
        (signature, multiply_adds)
    }
}

/// The group that is no feature module.
pub(crate) const CLASSIFIER: &str = "classifier";

/// A convolution and a BatchNorm; once folded, a convolution with bias.
#[derive(Debug)]
pub(crate) struct ConvBn {
    conv: nn::Conv2D,
    bn: Option<nn::BatchNorm>,
    batch_norm: BatchNormInfo,
}

impl ConvBn {
    /// The names of its BatchNorm's parameters.
    pub fn batch_norm(&self) -> &BatchNormInfo {
        &self.batch_norm
    }

    /// A new tensor, which the caller may change in place. `train` chooses the batch's statistics.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let x = self.conv.forward(x);
        match &self.bn {
            Some(bn) => bn.forward_t(&x, train),
            None => x,
        }
    }

    /// With factor = γ / √(σ² + ε) for each channel: weight ← weight · factor, bias ← β + (bias − μ) · factor.
    pub fn fold(&mut self, kind: Kind) -> Folded {
        let Some(nn::BatchNorm { running_mean, running_var, ws: Some(gamma), bs: Some(beta), .. }) = self.bn.take()
        else {
            return Folded::default();
        };
        let factor = double(&gamma) / (double(&running_var) + EPSILON).sqrt();
        let before = self.conv.bs.as_ref().map_or_else(|| running_mean.zeros_like(), Tensor::detach);
        let bias = double(&beta) + (double(&before) - double(&running_mean)) * &factor;
        self.conv.ws = (double(&self.conv.ws) * factor.view([-1, 1, 1, 1])).to_kind(kind);
        self.conv.bs = Some(bias.to_kind(kind));
        Folded { folded: 1, kept: 0 }
    }
}

/// In float64, without a gradient.
fn double(t: &Tensor) -> Tensor {
    t.detach().to_kind(Kind::Double)
}

/// ReLU, in place unless `keep` says that the argument is still needed. Legal for autograd: neither BatchNorm nor
/// addition nor concatenation needs its output to compute its gradient, and ReLU needs only its own.
pub(crate) fn relu(mut x: Tensor, keep: bool) -> Tensor {
    if keep { x.relu() } else { x.relu_() }
}

/// The mean over height and width: `[B, C, H, W]` → `[B, C]`.
pub(crate) fn pooled(x: &Tensor) -> Tensor {
    x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>)
}

/// Channel `g · (C / groups) + c` becomes channel `c · groups + g` (Zhang et al., arXiv:1707.01083, section 3.1), in
/// channels_last memory.
pub(crate) fn shuffle(x: &Tensor, groups: i64) -> Tensor {
    let channels = x.size()[1];
    let last = x.permute([0, 2, 3, 1]).unflatten(3, [groups, channels / groups]);
    last.transpose(3, 4).flatten(3, 4).permute([0, 3, 1, 2])
}
