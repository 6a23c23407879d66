//! `my_model`: a stem and two stages of one convolution each.
//!
//! *Authors*. *Title*. Venue, year, table: cite what this is. Taps: `stem`, `stage1`, `stage2` with their pre-activations,
//! and `pooled`. Parameters are named as PyTorch's `state_dict` of the original names them, so that its weights load.
//!
//! This is a working network to begin with. `limbeck plugins show my_model` prints this page.

use limbeck::prelude::*;

// What an experiment file calls `model = { kind = "my_model" }`.
limbeck::plugin! {
    model "my_model": MyModel,
    summary: "three convolutions",
    citation: "",
    page: include_str!("model.rs"),
}

/// The recipe: what the file says.
#[derive(Clone, Debug, Settings)]
pub struct MyModel {
    /// Channels of the stem and the first stage; the second has twice as many.
    #[setting(default = 8, range = 1..)]
    pub width: i64,
}

#[typetag::serde(name = "my_model")]
impl ModelConfig for MyModel {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        let [channels, height, width] = spec.input;
        if channels < 1 || height < 2 || width < 2 || spec.classes < 1 {
            return Err(Error::plan(format!(
                "my_model: it needs at least 1 class, and 1 channel of 2×2 pixels; the view has {channels} channels of \
                 {height}×{width} pixels and {} classes",
                spec.classes
            )));
        }
        let wide = 2 * self.width;
        let map = |name: &str, channels: i64, stride: i64| {
            let shape = [channels, (height + stride - 1) / stride, (width + stride - 1) / stride];
            TapInfo::map(name, shape).behind(BatchNormInfo::new(&(path / name / "bn")))
        };
        Ok(Box::new(Live {
            layers: [
                Layer::new(path, "stem", channels, self.width, 1),
                Layer::new(path, "stage1", self.width, self.width, 1),
                Layer::new(path, "stage2", self.width, wide, 2),
            ],
            fc: nn::linear(path / "fc", wide, spec.classes),
            signature: Signature::new(
                spec,
                vec![
                    map("stem", self.width, 1),
                    map("stage1", self.width, 1),
                    map("stage2", wide, 2),
                    TapInfo::vector("pooled", wide),
                ],
                vec![group("stem", true), group("stage1", true), group("stage2", true), group("fc", false)],
            )
            .with_classifier(ClassifierInfo::new(&(path / "fc"), "pooled")),
        }))
    }
}

/// The group of all parameters below `name`.
fn group(name: &str, feature: bool) -> Group {
    Group { name: name.to_owned(), parameters: vec![name.to_owned()], feature }
}

/// The network at work.
#[derive(Debug)]
struct Live {
    layers: [Layer; 3],
    fc: nn::Linear,
    signature: Signature,
}

#[derive(Debug)]
struct Layer {
    /// Of its tap, and of its group.
    name: &'static str,
    conv: nn::Conv2D,
    norm: nn::BatchNorm,
}

impl Layer {
    fn new(path: &nn::Path<'_>, name: &'static str, from: i64, to: i64, stride: i64) -> Self {
        let config = nn::ConvConfig { stride, padding: 1, bias: false, ..Default::default() };
        Layer {
            name,
            conv: nn::conv(&(path / name) / "conv", from, to, 3, config),
            norm: nn::batch_norm(&(path / name) / "bn", to),
        }
    }
}

impl Model for Live {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let mut x = input.shallow_clone();
        for Layer { name, conv, norm } in &self.layers {
            let sum = x.apply(conv).apply_t(norm, mode.trains(name));
            record.pre_activation(name, &sum);
            x = sum.relu();
            record.output(name, &x);
        }
        let pooled = x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
        record.output("pooled", &pooled);
        record.finish(pooled.apply(&self.fc))
    }
}
