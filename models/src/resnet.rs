//! The residual networks for small images (He et al., section 4.2), as the distillation literature uses them.
//!
//! A 3×3 convolution, three stages of basic blocks, global average pooling and one linear layer. The second and the
//! third stage halve the resolution. A network of depth d has (d − 2) / 6 blocks a stage, and its stem and stages are
//! 16, 16, 32 and 64 channels wide; the `x4` networks are 32, 64, 128 and 256 wide, so theirs is twice the stem and
//! four times the stages. A block whose output has another shape than its input has a projection (1×1 convolution and
//! BatchNorm) for a shortcut.
//!
//! | tap | shape for an input of `[C, H, W]` | `:pre`, before the activation |
//! |---|---|---|
//! | `stem` | `[w₀, H, W]` | the first BatchNorm's output |
//! | `stage1` | `[w₁, H, W]` | the sum of residual and shortcut in the stage's last block |
//! | `stage2` | `[w₂, ⌈H/2⌉, ⌈W/2⌉]` | likewise |
//! | `stage3` | `[w₃, ⌈H/4⌉, ⌈W/4⌉]` | likewise |
//! | `pooled` | `[w₃]` | none |
//!
//! The groups are `stem`, `stage1`, `stage2`, `stage3` and `classifier`. Parameters have the names of the widely used
//! PyTorch implementations (`conv1`, `bn1`, `layer1.0.conv1`, …, `layer2.0.downsample.0`, …, `fc`).

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};
use tch::nn::{Init, Module};

use crate::conv_bn::ConvBn;

const CITATION: &str = "He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016, arXiv:1512.03385";

/// Widths of stem and stages in the original networks.
const NARROW: [i64; 4] = [16, 16, 32, 64];
/// Widths of stem and stages in the `x4` networks.
const X4: [i64; 4] = [32, 64, 128, 256];

const STAGES: [&str; 3] = ["stage1", "stage2", "stage3"];
const LAYERS: [&str; 3] = ["layer1", "layer2", "layer3"];

/// Declares the kinds of the family: a recipe without settings each, registered under its name.
macro_rules! kinds {
    ($($config:ident $kind:literal: blocks $blocks:literal, widths $widths:ident, millions $millions:literal;)*) => {$(
        limbeck::plugin! {
            model $kind,
            summary: concat!("residual network for small images, ", $millions, " million parameters"),
            citation: CITATION,
            settings: "",
        }

        #[doc = concat!("The recipe of `", $kind, "`: ", $millions, " million parameters at 100 classes.")]
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $config {}

        #[typetag::serde(name = $kind)]
        impl ModelConfig for $config {
            fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
                let plan = Plan { blocks: $blocks, widths: $widths };
                Ok(Box::new(plan.build(path, spec).map_err(|e| e.within($kind))?))
            }
        }
    )*};
}

kinds! {
    ResNet8 "resnet8": blocks 1, widths NARROW, millions "0.08";
    ResNet14 "resnet14": blocks 2, widths NARROW, millions "0.18";
    ResNet20 "resnet20": blocks 3, widths NARROW, millions "0.28";
    ResNet32 "resnet32": blocks 5, widths NARROW, millions "0.47";
    ResNet44 "resnet44": blocks 7, widths NARROW, millions "0.67";
    ResNet56 "resnet56": blocks 9, widths NARROW, millions "0.86";
    ResNet110 "resnet110": blocks 18, widths NARROW, millions "1.7";
    ResNet8x4 "resnet8x4": blocks 1, widths X4, millions "1.2";
    ResNet32x4 "resnet32x4": blocks 5, widths X4, millions "7.4";
}

/// What tells the networks of the family apart.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Blocks in each stage.
    blocks: usize,
    /// Channels of the stem and of the three stages.
    widths: [i64; 4],
}

impl Plan {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<ResNet> {
        let signature = self.signature(spec)?;
        let [stem, .., last] = self.widths;
        let stages = (0..3).map(|i| {
            let stride = if i == 0 { 1 } else { 2 };
            let [from, to] = [self.widths[i], self.widths[i + 1]];
            stage(&(path / LAYERS[i]), self.blocks, from, to, stride)
        });
        Ok(ResNet {
            signature,
            stem: ConvBn::new(path / "conv1", path / "bn1", spec.input[0], stem, 3, 1),
            stages: stages.collect(),
            fc: linear(path / "fc", last, spec.classes),
        })
    }

    fn signature(&self, spec: &ModelSpec) -> Result<Signature> {
        let [channels, height, width] = spec.input;
        if channels < 1 || height < 4 || width < 4 {
            return Err(Error::plan(format!(
                "the network halves its input twice and needs at least 1 channel and 4×4 pixels; the view has {channels} \
                 channels and {height}×{width} pixels"
            )));
        }
        if spec.classes < 1 {
            return Err(Error::plan(format!("the network needs at least 1 class, not {}", spec.classes)));
        }
        let map = |name: &str, channels: i64, stride: i64| TapInfo {
            name: name.to_owned(),
            shape: vec![channels, (height + stride - 1) / stride, (width + stride - 1) / stride],
            pre_activation: true,
        };
        let [stem, w1, w2, w3] = self.widths;
        let group = |name: &str, parameters: &[&str], feature: bool| Group {
            name: name.to_owned(),
            parameters: parameters.iter().map(|&p| p.to_owned()).collect(),
            feature,
        };
        let stages = STAGES.iter().zip(LAYERS).map(|(stage, layer)| group(stage, &[layer], true));
        Ok(Signature {
            input: spec.input,
            classes: spec.classes,
            taps: vec![
                map("stem", stem, 1),
                map(STAGES[0], w1, 1),
                map(STAGES[1], w2, 2),
                map(STAGES[2], w3, 4),
                TapInfo { name: "pooled".to_owned(), shape: vec![w3], pre_activation: false },
            ],
            groups: std::iter::once(group("stem", &["conv1", "bn1"], true))
                .chain(stages)
                .chain(std::iter::once(group("classifier", &["fc"], false)))
                .collect(),
        })
    }
}

/// A network of the family.
#[derive(Debug)]
struct ResNet {
    signature: Signature,
    stem: ConvBn,
    stages: Vec<Vec<BasicBlock>>,
    fc: nn::Linear,
}

impl Model for ResNet {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let activate = |record: &mut Recorder<'_>, name: &str, sum: Tensor| {
            record.pre_activation(name, &sum);
            let x = relu(sum, want.wants(name, Form::PreActivation));
            record.output(name, &x);
            x
        };

        let sum = self.stem.forward(input, mode.trains("stem"));
        let mut x = activate(&mut record, "stem", sum);
        for (name, blocks) in STAGES.into_iter().zip(&self.stages) {
            let Some((last, first)) = blocks.split_last() else { continue };
            let train = mode.trains(name);
            for block in first {
                x = relu(block.forward(&x, train), false);
            }
            x = activate(&mut record, name, last.forward(&x, train));
        }
        let pooled = x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
        record.output("pooled", &pooled);
        record.finish(self.fc.forward(&pooled))
    }

    fn fold_batch_norm(&mut self, kind: Kind) -> Result<()> {
        self.stem.fold(kind);
        self.stages.iter_mut().flatten().for_each(|block| block.fold(kind));
        Ok(())
    }
}

/// Two 3×3 convolutions beside a shortcut; the ReLU behind their sum is the caller's.
#[derive(Debug)]
struct BasicBlock {
    first: ConvBn,
    second: ConvBn,
    downsample: Option<ConvBn>,
}

impl BasicBlock {
    fn new(path: &nn::Path<'_>, from: i64, to: i64, stride: i64) -> Self {
        let project = stride != 1 || from != to;
        let projection = path / "downsample";
        BasicBlock {
            first: ConvBn::new(path / "conv1", path / "bn1", from, to, 3, stride),
            second: ConvBn::new(path / "conv2", path / "bn2", to, to, 3, 1),
            downsample: project.then(|| ConvBn::new(&projection / 0, &projection / 1, from, to, 1, stride)),
        }
    }

    /// The sum of residual and shortcut: a new tensor, which the caller may change in place.
    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let hidden = relu(self.first.forward(x, train), false);
        let mut sum = self.second.forward(&hidden, train);
        sum += match &self.downsample {
            Some(projection) => projection.forward(x, train),
            None => x.shallow_clone(),
        };
        sum
    }

    fn fold(&mut self, kind: Kind) {
        [Some(&mut self.first), Some(&mut self.second), self.downsample.as_mut()]
            .into_iter()
            .flatten()
            .for_each(|layer| layer.fold(kind));
    }
}

fn stage(path: &nn::Path<'_>, blocks: usize, from: i64, to: i64, stride: i64) -> Vec<BasicBlock> {
    (0..blocks)
        .map(|i| {
            let (from, stride) = if i == 0 { (from, stride) } else { (to, 1) };
            BasicBlock::new(&(path / i), from, to, stride)
        })
        .collect()
}

/// ReLU, in place unless `keep` says that the argument is still needed. Legal for autograd: neither BatchNorm nor
/// addition needs its output to compute its gradient, and ReLU needs only its own.
fn relu(mut x: Tensor, keep: bool) -> Tensor {
    if keep { x.relu() } else { x.relu_() }
}

/// A linear layer, uniform in ±1/√from as PyTorch's; tch's own default is √6 times as wide.
fn linear(path: nn::Path<'_>, from: i64, to: i64) -> nn::Linear {
    let bound = 1.0 / (from as f64).sqrt();
    let ws_init = Init::Uniform { lo: -bound, up: bound };
    nn::linear(path, from, to, nn::LinearConfig { ws_init, bs_init: Some(ws_init), bias: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use limbeck::registry::{Role, check, plugins_of};
    use std::collections::{HashMap, HashSet};

    fn build(config: &dyn ModelConfig, input: [i64; 3], classes: i64) -> (nn::VarStore, Box<dyn Model>) {
        // Tests run beside each other: more threads than cores would only wait for one another.
        tch::set_num_threads(1);
        tch::manual_seed(11);
        let vs = nn::VarStore::new(Device::Cpu);
        let model = config.build(&vs.root(), &ModelSpec { input, classes }).unwrap();
        for mut weight in vs.trainable_variables().into_iter().filter(|t| t.dim() == 4) {
            weight.set_data(&channels_last(&weight.detach()));
        }
        (vs, model)
    }

    /// The same values in channels_last memory, with the strides of that order also where there is one channel or pixel.
    fn channels_last(t: &Tensor) -> Tensor {
        let (n, c, h, w) = t.size4().unwrap();
        t.permute([0, 2, 3, 1]).reshape([-1]).view([n, h, w, c]).permute([0, 3, 1, 2])
    }

    fn batch(input: [i64; 3]) -> Tensor {
        let [c, h, w] = input;
        channels_last(&Tensor::randn([2, c, h, w], (Kind::Float, Device::Cpu)))
    }

    fn running(vs: &nn::VarStore) -> HashMap<String, Tensor> {
        vs.variables().into_iter().filter(|(n, _)| n.contains("running_")).map(|(n, t)| (n, t.copy())).collect()
    }

    /// The statistics that differ from `before`.
    fn moved(vs: &nn::VarStore, before: &HashMap<String, Tensor>) -> HashSet<String> {
        running(vs).into_iter().filter(|(n, t)| *t != before[n]).map(|(n, _)| n).collect()
    }

    #[test]
    fn the_signature_tells_the_shapes_of_every_network_and_input() {
        check().unwrap();
        let mut kinds = Vec::new();
        for plugin in plugins_of(Role::Model).into_iter().filter(|plugin| plugin.name.starts_with("resnet")) {
            let config: Box<dyn ModelConfig> = plugin.default_table().unwrap().try_into().unwrap();
            for (input, classes) in [([3, 32, 32], 100), ([1, 32, 32], 7), ([2, 40, 40], 2), ([3, 9, 30], 10)] {
                let (vs, model) = build(config.as_ref(), input, classes);
                let signature = model.signature();
                let want = Taps::all(signature);
                let features = model.forward(&batch(input), &want, Mode::Train).unwrap();
                assert_eq!((signature.input, signature.classes), (input, classes));
                assert_eq!(features.logits.size(), [2, classes]);
                assert_eq!(want.iter().count(), 9, "five taps, four of them with a pre-activation");
                for tap in want.iter() {
                    let value = features.tap(tap).unwrap();
                    let shape = signature.shape(tap).unwrap();
                    assert_eq!(&value.size()[1..], shape, "{} {tap} of {input:?}", plugin.name);
                    assert!(shape.len() == 1 || value.stride()[1] == 1, "{} {tap} is not channels_last", plugin.name);
                }
                for name in vs.variables().keys() {
                    assert!(signature.group_of(name).is_some(), "{name} is in no group");
                }
            }
            kinds.push(plugin.name);
        }
        kinds.sort_by_key(|kind| (kind.len(), *kind));
        let all = "resnet8 resnet14 resnet20 resnet32 resnet44 resnet56 resnet110 resnet8x4 resnet32x4";
        assert_eq!(kinds.into_iter().collect::<HashSet<_>>(), all.split(' ').collect());
    }

    #[test]
    fn the_groups_are_stem_stages_and_classifier() {
        let (_vs, model) = build(&ResNet8 {}, [3, 32, 32], 10);
        let signature = model.signature();
        assert_eq!(signature.feature_groups(), ["stem", "stage1", "stage2", "stage3"]);
        let group = |parameter| signature.group_of(parameter).unwrap().name.as_str();
        assert_eq!(group("bn1.running_var"), "stem");
        assert_eq!(group("layer2.0.downsample.1.weight"), "stage2");
        assert_eq!(group("fc.bias"), "classifier");
        assert!(!signature.groups.iter().any(|group| group.name == "classifier" && group.feature));
        let stages: Vec<&str> = signature.stages().iter().map(|tap| tap.name.as_str()).collect();
        assert_eq!(stages, STAGES);
    }

    #[test]
    fn a_pre_activation_is_what_its_output_was_before_the_relu() {
        let (_vs, model) = build(&ResNet14 {}, [3, 16, 16], 10);
        let features = model.forward(&batch([3, 16, 16]), &Taps::all(model.signature()), Mode::Train).unwrap();
        for name in ["stem", "stage1", "stage2", "stage3"] {
            let pre = features.tap(&TapRef::pre_activation(name)).unwrap();
            assert!(pre.min().double_value(&[]) < 0.0, "{name}:pre was overwritten");
            assert_eq!(&pre.relu(), features.tap(&TapRef::output(name)).unwrap(), "{name}");
        }
    }

    #[test]
    fn taps_change_neither_logits_nor_gradients() {
        let input = batch([3, 16, 16]);
        let (vs, model) = build(&ResNet14 {}, [3, 16, 16], 10);
        let parameters = vs.trainable_variables();
        let run = |want: Taps| {
            let logits = model.forward(&input, &want, Mode::Train).unwrap().logits;
            let gradients = Tensor::run_backward(&[logits.square().mean(Kind::Float)], &parameters, false, false);
            (logits.detach(), gradients)
        };
        assert_eq!(run(Taps::all(model.signature())), run(Taps::none()));
    }

    #[test]
    fn folded_batch_norm_changes_no_tap_beyond_rounding() {
        let (vs, mut model) = build(&ResNet14 {}, [3, 16, 16], 10);
        let _no_grad = tch::no_grad_guard();
        for (name, mut t) in vs.variables() {
            match name.rsplit('.').next() {
                Some("running_var") => drop(t.uniform_(0.5, 1.5)),
                Some("running_mean" | "bias") => drop(t.uniform_(-0.5, 0.5)),
                Some("weight") if t.dim() == 1 => drop(t.uniform_(0.5, 1.5)),
                _ => {}
            }
        }
        let (input, want) = (batch([3, 16, 16]), Taps::all(model.signature()));
        let plain = model.forward(&input, &want, Mode::Eval).unwrap();
        model.fold_batch_norm(Kind::Float).unwrap();
        let folded = model.forward(&input, &want, Mode::Eval).unwrap();
        let distance = |a: &Tensor, b: &Tensor| ((a - b).norm() / a.norm()).double_value(&[]);
        assert!(distance(&plain.logits, &folded.logits) < 1e-5);
        for tap in want.iter() {
            let error = distance(plain.tap(tap).unwrap(), folded.tap(tap).unwrap());
            assert!(error < 1e-5, "{tap}: {error}");
        }
        model.fold_batch_norm(Kind::Float).unwrap();
        let again = model.forward(&input, &want, Mode::Eval).unwrap();
        assert_eq!(folded.logits, again.logits, "a second call has nothing left to fold");
    }

    #[test]
    fn only_the_wanted_taps_are_recorded() {
        let (_vs, model) = build(&ResNet8 {}, [3, 16, 16], 10);
        let want = Taps::from_iter([TapRef::output("stage2")]);
        let features = model.forward(&batch([3, 16, 16]), &want, Mode::Eval).unwrap();
        assert!(features.tap(&TapRef::output("stage2")).is_ok());
        for tap in Taps::all(model.signature()).iter().filter(|tap| **tap != TapRef::output("stage2")) {
            let error = features.tap(tap).unwrap_err().to_string();
            assert_eq!(error, format!("tap `{tap}` was not recorded: declare it in `taps`"));
        }
    }

    #[test]
    fn an_unknown_tap_is_named() {
        let (_vs, model) = build(&ResNet8 {}, [3, 16, 16], 10);
        for (tap, message) in [
            (TapRef::output("stage4"), "this network has no tap `stage4`"),
            (TapRef::pre_activation("pooled"), "this network has no tap `pooled:pre`"),
        ] {
            let want = Taps::from_iter([tap]);
            let error = model.forward(&batch([3, 16, 16]), &want, Mode::Eval).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn only_the_groups_that_train_move_their_statistics() {
        let (vs, model) = build(&ResNet8x4 {}, [3, 16, 16], 10);
        let input = batch([3, 16, 16]);
        let start = running(&vs);
        let forward = |mode: Mode<'_>| model.forward(&input, &Taps::none(), mode).unwrap();
        forward(Mode::Eval);
        assert_eq!(moved(&vs, &start), HashSet::new());
        for group in ["stem", "stage1", "stage2", "stage3"] {
            let before = running(&vs);
            forward(Mode::TrainGroups(&[group.to_owned()]));
            let signature = model.signature();
            let own = before.keys().filter(|name| signature.group_of(name).unwrap().name == group);
            assert_eq!(moved(&vs, &before), own.cloned().collect(), "{group}");
        }
        let before = running(&vs);
        forward(Mode::TrainGroups(&["classifier".to_owned()]));
        assert_eq!(moved(&vs, &before), HashSet::new());
        forward(Mode::Train);
        assert_eq!(moved(&vs, &before).len(), before.len());
    }

    #[test]
    fn parameters_start_as_the_original_starts_them() {
        let (vs, _model) = build(&ResNet8x4 {}, [3, 32, 32], 100);
        let variables = vs.variables();
        for name in variables.keys().filter_map(|name| name.strip_suffix(".running_mean")) {
            for (part, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)] {
                let t = &variables[&format!("{name}.{part}")];
                assert_eq!(t, &t.full_like(value), "{name}.{part}");
            }
        }
        let conv = &variables["layer3.0.conv2.weight"];
        let expected = (2.0_f64 / (256.0 * 9.0)).sqrt();
        assert!((conv.std(true).double_value(&[]) / expected - 1.0).abs() < 0.01);
        for name in ["fc.weight", "fc.bias"] {
            let largest = variables[name].abs().max().double_value(&[]);
            assert!((0.9 / 16.0..=1.0 / 16.0).contains(&largest), "{name}: {largest}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_numbers() {
        let build = |input, classes| {
            let vs = nn::VarStore::new(Device::Cpu);
            ResNet20 {}.build(&vs.root(), &ModelSpec { input, classes }).unwrap_err().to_string()
        };
        let small =
            "resnet20: the network halves its input twice and needs at least 1 channel and 4×4 pixels; the view has ";
        assert_eq!(build([3, 32, 3], 10), format!("{small}3 channels and 32×3 pixels"));
        assert_eq!(build([0, 32, 32], 10), format!("{small}0 channels and 32×32 pixels"));
        assert_eq!(build([3, 32, 32], 0), "resnet20: the network needs at least 1 class, not 0");
    }
}
