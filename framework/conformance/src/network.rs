//! The network that checks are made with.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};
use tch::nn::{Module, ModuleT};

use crate::data::SPEC;

/// A network of three stages, `width` channels in the first and twice as many in each that follows. Not listed: it is of no
/// use but here.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallNetwork {
    pub width: i64,
}

#[typetag::serde(name = "limbeck_conformance_probe")]
impl ModelConfig for SmallNetwork {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        let [channels, height, width] = spec.input;
        let layers = ["stem", "stage1", "stage2", "stage3"];
        let scale = [1, 1, 2, 4];
        let mut from = channels;
        let (mut taps, mut live) = (Vec::new(), Vec::new());
        for (name, scale) in layers.into_iter().zip(scale) {
            let to = self.width * scale;
            let stride = if name == "stage2" || name == "stage3" { 2 } else { 1 };
            let config = nn::ConvConfig { stride, padding: 1, bias: false, ..Default::default() };
            let conv = tch::nn::conv2d(&(path / name) / "conv", from, to, 3, config);
            let norm = tch::nn::batch_norm2d(&(path / name) / "bn", to, Default::default());
            live.push((name, conv, norm));
            let shape = [to, height / scale, width / scale];
            taps.push(TapInfo::map(name, shape).behind(BatchNormInfo::new(&(path / name / "bn"))));
            from = to;
        }
        taps.push(TapInfo::vector("pooled", from));
        let groups = layers.map(|name| group(name, true)).into_iter().chain([group("fc", false)]).collect();
        let classifier = ClassifierInfo::new(&(path / "fc"), "pooled");
        let signature = Signature::new(spec, taps, groups).with_classifier(classifier);
        let fc = tch::nn::linear(path / "fc", from, spec.classes, Default::default());
        Ok(Box::new(LiveSmallNetwork { signature, layers: live, fc }))
    }
}

fn group(name: &str, feature: bool) -> Group {
    Group { name: name.to_owned(), parameters: vec![name.to_owned()], feature }
}

#[derive(Debug)]
struct LiveSmallNetwork {
    signature: Signature,
    layers: Vec<(&'static str, nn::Conv2D, nn::BatchNorm)>,
    fc: nn::Linear,
}

impl Model for LiveSmallNetwork {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let mut x = input.shallow_clone();
        for (name, conv, norm) in &self.layers {
            let sum = norm.forward_t(&conv.forward(&x), mode.trains(name));
            record.pre_activation(name, &sum);
            x = sum.relu();
            record.output(name, &x);
        }
        let pooled = x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
        record.output("pooled", &pooled);
        record.finish(self.fc.forward(&pooled))
    }
}

/// The signature of a [`SmallNetwork`].
pub fn signature(width: i64) -> Result<Signature> {
    Ok(SmallNetwork { width }.build(&nn::VarStore::new(Device::Cpu).root(), &SPEC)?.signature().clone())
}

/// What a parameter's tap of that name and form would hold.
pub fn tap_shape(signature: &Signature, tap: &TapRef, batch: i64) -> Result<Vec<i64>> {
    Ok(signature.shape(tap)?.of_batch(batch))
}
