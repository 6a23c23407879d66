//! What every network must do; the numbers of their forward and backward passes are in the `tests` package.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use limbeck::prelude::*;
use limbeck::registry::{Role, check, plugins_of};
use serde_json::{Value, json};

/// libtorch's generator belongs to the process: whoever seeds it or draws holds this, and every test draws the same values.
static GENERATOR: Mutex<()> = Mutex::new(());

/// One network of each family.
const FAMILIES: [&str; 7] = ["resnet14", "resnet18", "wrn_16_2", "vgg11", "MobileNetV2", "ShuffleV1", "ShuffleV2"];

/// Every network that is built here, with its recipe; the parameterised ones as their pages show them.
fn networks() -> Vec<(&'static str, Box<dyn ModelConfig>)> {
    check().unwrap();
    let mut networks: Vec<(&str, Box<dyn ModelConfig>)> = Vec::new();
    for plugin in plugins_of(Role::Model) {
        networks.push((plugin.name, plugin.default_table().unwrap().try_into().unwrap()));
    }
    networks.retain(|(_, config)| config.file().is_none());
    networks
}

fn config(value: Value) -> Box<dyn ModelConfig> {
    serde_json::from_value(value).unwrap()
}

fn named(kind: &str) -> Box<dyn ModelConfig> {
    config(json!({ "kind": kind }))
}

fn build(config: &dyn ModelConfig, input: [i64; 3], classes: i64) -> (nn::VarStore, Box<dyn Model>) {
    // Tests run beside each other: more threads than cores would only wait for one another.
    tch::set_num_threads(1);
    let vs = nn::VarStore::new(Device::Cpu);
    let _drawing = GENERATOR.lock();
    tch::manual_seed(11);
    let model = config.build(&vs.root(), &ModelSpec { input, classes }).unwrap();
    for mut weight in vs.trainable_variables().into_iter().filter(|t| t.dim() == 4) {
        weight.set_data(&channels_last(&weight.detach()));
    }
    (vs, model)
}

fn refusal(config: &dyn ModelConfig, input: [i64; 3], classes: i64) -> String {
    let vs = nn::VarStore::new(Device::Cpu);
    let _drawing = GENERATOR.lock();
    config.build(&vs.root(), &ModelSpec { input, classes }).unwrap_err().to_string()
}

/// The same values in channels_last memory, with the strides of that order also where there is one channel or pixel.
fn channels_last(t: &Tensor) -> Tensor {
    let (n, c, h, w) = t.size4().unwrap();
    t.permute([0, 2, 3, 1]).reshape([-1]).view([n, h, w, c]).permute([0, 3, 1, 2])
}

fn batch(input: [i64; 3]) -> Tensor {
    let [c, h, w] = input;
    let _drawing = GENERATOR.lock();
    tch::manual_seed(12);
    channels_last(&Tensor::randn([2, c, h, w], (Kind::Float, Device::Cpu)))
}

/// Puts values into every BatchNorm that are not those of a fresh one.
fn stir(vs: &nn::VarStore) {
    let _no_grad = tch::no_grad_guard();
    let _drawing = GENERATOR.lock();
    tch::manual_seed(13);
    for (name, mut t) in limbeck::weights::variables(vs) {
        match name.rsplit('.').next() {
            Some("running_var") => drop(t.uniform_(0.5, 1.5)),
            Some("running_mean" | "bias") => drop(t.uniform_(-0.5, 0.5)),
            Some("weight") if t.dim() == 1 => drop(t.uniform_(0.5, 1.5)),
            _ => {}
        }
    }
}

/// |a − b| / |a|, by the Euclidean norm.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    ((a - b).norm() / a.norm()).double_value(&[])
}

fn running(vs: &nn::VarStore) -> HashMap<String, Tensor> {
    vs.variables().into_iter().filter(|(n, _)| n.contains("running_")).map(|(n, t)| (n, t.copy())).collect()
}

/// The statistics that differ from `before`.
fn moved(vs: &nn::VarStore, before: &HashMap<String, Tensor>) -> HashSet<String> {
    running(vs).into_iter().filter(|(n, t)| *t != before[n]).map(|(n, _)| n).collect()
}

fn multiply_adds(config: &dyn ModelConfig, spec: ModelSpec) -> i64 {
    build(config, spec.input, spec.classes).1.multiply_adds().unwrap()
}

#[test]
fn the_signature_tells_the_shapes_of_every_network_and_input() {
    for (name, config) in networks() {
        for (input, classes) in [([1, 32, 32], 7), ([2, 39, 36], 2)] {
            let (vs, model) = build(config.as_ref(), input, classes);
            let signature = model.signature();
            let want = Taps::all(signature);
            let features = model.forward(&batch(input), &want, Mode::Train).unwrap();
            assert_eq!((signature.input, signature.classes), (input, classes));
            assert_eq!(features.logits.size(), [2, classes]);
            let taps = signature.taps.len();
            assert_eq!(want.iter().count(), 2 * taps - 1, "{name}: all taps but the last have a pre-activation");
            for tap in want.iter() {
                let value = features.tap(tap).unwrap();
                let shape = signature.shape(tap).unwrap();
                assert_eq!(&value.size()[1..], shape.sizes(), "{name} {tap} of {input:?}");
                assert!(shape.is_vector() || value.stride()[1] == 1, "{name} {tap} is not channels_last");
            }
            let stages: Vec<&str> = signature.stages().iter().map(|tap| tap.name.as_str()).collect();
            let groups: Vec<&str> = signature.groups.iter().map(|group| group.name.as_str()).collect();
            let ends = [signature.stem(), signature.pooled()].map(|tap| tap.map(|tap| tap.name.as_str()));
            assert_eq!(ends, [Some("stem"), Some("pooled")], "{name}");
            assert_eq!(stages, &["stage1", "stage2", "stage3", "stage4"][..taps - 2], "{name}");
            assert_eq!(groups, [&["stem"], &stages[..], &["classifier"]].concat(), "{name}");
            assert_eq!(signature.feature_groups(), groups[..groups.len() - 1], "{name}");
            for variable in vs.variables().keys() {
                assert!(signature.group_of(variable).is_some(), "{name}: {variable} is in no group");
            }
        }
    }
}

#[test]
fn every_network_lends_its_classifier_and_its_batch_norms_and_spares_biases_and_norms() {
    for (name, config) in networks() {
        let (vs, model) = build(config.as_ref(), [3, 32, 32], 7);
        let signature = model.signature();
        let classifier = signature.lent_classifier().unwrap();
        assert_eq!(classifier.tap, "pooled", "{name}");
        assert_eq!(vs.variables()[&classifier.weight].size()[0], 7, "{name}");
        let (_, maps) = signature.taps.split_last().unwrap();
        for tap in maps {
            let lent = signature.lent_batch_norm(&TapRef::pre_activation(&tap.name));
            // A stem without one; and units that pass half of the channels on.
            let none = (name.starts_with("wrn") && tap.name == "stem") || (name == "ShuffleV2" && tap.name != "stem");
            assert_eq!(lent.is_err(), none, "{name} {}", tap.name);
            if let Ok(batch_norm) = lent {
                let channels = vec![tap.shape.channels()];
                assert_eq!(vs.variables()[&batch_norm.weight].size(), channels, "{name} {}", tap.name);
                assert_eq!(vs.variables()[&batch_norm.bias].size(), channels, "{name} {}", tap.name);
            }
        }
        for (parameter, variable) in vs.variables().iter().filter(|(_, variable)| variable.requires_grad()) {
            assert_eq!(signature.is_spared(parameter), variable.dim() == 1, "{name} {parameter}");
        }
    }
}

#[test]
fn parameters_belong_to_the_groups_of_the_originals_feature_modules() {
    for (kind, parameter, expected) in [
        ("resnet14", "bn1.running_var", "stem"),
        ("resnet14", "layer2.0.downsample.1.weight", "stage2"),
        ("resnet14", "fc.bias", "classifier"),
        ("ResNet50", "layer4.0.shortcut.1.weight", "stage4"),
        ("wrn_16_2", "block1.layer.0.bn1.weight", "stage1"),
        ("wrn_16_2", "bn1.weight", "classifier"),
        ("vgg8", "block0.0.weight", "stem"),
        ("MobileNetV2", "blocks.1.1.conv.7.weight", "stage1"),
        ("MobileNetV2", "conv2.0.weight", "classifier"),
        ("ShuffleV2", "conv2.weight", "classifier"),
    ] {
        let (vs, model) = build(named(kind).as_ref(), [3, 32, 32], 10);
        assert!(vs.variables().contains_key(parameter), "{kind} has no {parameter}");
        assert_eq!(model.signature().group_of(parameter).unwrap().name, expected, "{kind} {parameter}");
    }
}

#[test]
fn a_pre_activation_is_what_its_output_was_before_the_relu() {
    let (_vs, model) = build(named("resnet14").as_ref(), [3, 16, 16], 10);
    let features = model.forward(&batch([3, 16, 16]), &Taps::all(model.signature()), Mode::Train).unwrap();
    for name in ["stem", "stage1", "stage2", "stage3"] {
        let pre = features.tap(&TapRef::pre_activation(name)).unwrap();
        assert!(pre.min().double_value(&[]) < 0.0, "{name}:pre was overwritten");
        assert_eq!(&pre.relu(), features.tap(&TapRef::output(name)).unwrap(), "{name}");
    }
}

#[test]
fn taps_change_neither_logits_nor_gradients() {
    for kind in FAMILIES {
        let input = batch([3, 32, 32]);
        let (vs, model) = build(named(kind).as_ref(), [3, 32, 32], 10);
        let parameters = vs.trainable_variables();
        let [all, none] = [Taps::all(model.signature()), Taps::none()].map(|want| {
            let logits = model.forward(&input, &want, Mode::Train).unwrap().logits;
            let gradients = Tensor::run_backward(&[logits.square().mean(Kind::Float)], &parameters, false, false);
            (logits.detach(), gradients)
        });
        assert!(all == none, "{kind}");
    }
}

#[test]
fn folded_batch_norm_changes_no_tap_of_any_network_beyond_rounding() {
    for (name, config) in networks() {
        let (vs, mut model) = build(config.as_ref(), [3, 32, 32], 10);
        stir(&vs);
        let _no_grad = tch::no_grad_guard();
        let (input, want) = (batch([3, 32, 32]), Taps::all(model.signature()));
        let plain = model.forward(&input, &want, Mode::Eval).unwrap();
        let Folded { folded, kept } = model.fold_batch_norm(Kind::Float).unwrap();
        let all = vs.variables().keys().filter(|name| name.ends_with("running_mean")).count();
        // Wide networks: the first one of each block, half of all, and the last one of the network stay.
        assert_eq!((folded, kept), if name.starts_with("wrn") { (all / 2, all / 2 + 1) } else { (all, 0) }, "{name}");
        let folded = model.forward(&input, &want, Mode::Eval).unwrap();
        let error = distance(&plain.logits, &folded.logits);
        assert!(error < 1e-5, "{name}: {error}");
        assert_ne!(plain.logits, folded.logits, "{name}: nothing was folded");
        for tap in want.iter() {
            let error = distance(plain.tap(tap).unwrap(), folded.tap(tap).unwrap());
            assert!(error < 1e-5, "{name} {tap}: {error}");
        }
        assert_eq!(model.fold_batch_norm(Kind::Float).unwrap().folded, 0, "{name}: a second call has nothing left");
        assert_eq!(folded.logits, model.forward(&input, &want, Mode::Eval).unwrap().logits, "{name}");
    }
}

#[test]
fn only_the_wanted_taps_are_recorded_and_an_unknown_one_is_named() {
    for kind in FAMILIES {
        let (_vs, model) = build(named(kind).as_ref(), [3, 32, 32], 10);
        let input = batch([3, 32, 32]);
        let stage2 = Taps::from_iter([TapRef::output("stage2")]);
        let features = model.forward(&input, &stage2, Mode::Eval).unwrap();
        assert!(features.tap(&TapRef::output("stage2")).is_ok());
        for tap in Taps::all(model.signature()).iter().filter(|tap| **tap != TapRef::output("stage2")) {
            let error = features.tap(tap).unwrap_err().to_string();
            assert_eq!(error, format!("tap `{tap}` was not recorded: declare it in `taps`"));
        }
        for (tap, message) in [
            (TapRef::output("stage9"), "this network has no tap `stage9`"),
            (TapRef::pre_activation("pooled"), "this network has no tap `pooled:pre`"),
        ] {
            let error = model.forward(&input, &Taps::from_iter([tap]), Mode::Eval).unwrap_err();
            assert_eq!(error.to_string(), message, "{kind}");
        }
    }
}

#[test]
fn only_the_groups_that_train_move_their_statistics() {
    for kind in FAMILIES {
        let (vs, model) = build(named(kind).as_ref(), [3, 32, 32], 10);
        let input = batch([3, 32, 32]);
        let start = running(&vs);
        model.forward(&input, &Taps::none(), Mode::Eval).unwrap();
        assert_eq!(moved(&vs, &start), HashSet::new());
        let signature = model.signature();
        for Group { name, .. } in &signature.groups {
            let before = running(&vs);
            model.forward(&input, &Taps::none(), Mode::TrainGroups(std::slice::from_ref(name))).unwrap();
            let own = before.keys().filter(|statistic| signature.group_of(statistic).unwrap().name == *name);
            assert_eq!(moved(&vs, &before), own.cloned().collect(), "{kind} {name}");
        }
        let before = running(&vs);
        model.forward(&input, &Taps::none(), Mode::Train).unwrap();
        assert_eq!(moved(&vs, &before).len(), before.len(), "{kind}");
    }
}

/// How a layer's values must be spread.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Zero,
    /// Normal, with this deviation.
    Normal(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
}

impl Spread {
    /// The sample's moments within five standard errors, and a uniform one within its bound.
    fn assert(self, what: &str, t: &Tensor) {
        let t = t.to_kind(Kind::Double);
        let n = t.numel() as f64;
        let variance = t.square().mean(Kind::Double).double_value(&[]);
        let (mean, most) = (t.mean(Kind::Double).double_value(&[]), t.abs().max().double_value(&[]));
        // Variance, and kurtosis − 1: the variance of x² in units of variance².
        let (expected, spread) = match self {
            Spread::Zero => return assert_eq!(most, 0.0, "{what}"),
            Spread::Normal(deviation) => (deviation * deviation, 2.0),
            Spread::Uniform(bound) => (bound * bound / 3.0, 0.8),
        };
        assert!(mean.abs() <= 5.0 * (expected / n).sqrt(), "{what}: mean {mean}");
        let error = variance / expected - 1.0;
        assert!(error.abs() <= 5.0 * (spread / n).sqrt(), "{what}: variance {variance}, expected {expected}");
        let deviation = expected.sqrt();
        match self {
            Spread::Uniform(bound) => assert!(most <= bound, "{what}: {most} beyond {bound}"),
            // What no uniform sample of that variance has: values beyond √3 deviations. One in twelve is.
            _ if n > 100.0 => assert!(most > 1.8 * deviation, "{what}: at most {most}, deviation {deviation}"),
            _ => {}
        }
    }
}

#[test]
fn parameters_start_as_the_originals_start_them() {
    for (kind, config) in networks() {
        let (vs, _model) = build(config.as_ref(), [3, 32, 32], 100);
        let variables = vs.variables();
        let torch = kind.starts_with("Shuffle");
        let small = kind.starts_with("vgg") || kind == "MobileNetV2";
        for (name, t) in &variables {
            let (module, own) = name.rsplit_once('.').unwrap();
            let weight = &variables[&format!("{module}.weight")].size();
            let (o, i) = (weight[0] as f64, weight[1..].iter().product::<i64>() as f64);
            let k2 = weight.iter().skip(2).product::<i64>() as f64;
            if variables.contains_key(&format!("{module}.running_mean")) {
                let value = f64::from(matches!(own, "weight" | "running_var"));
                assert_eq!(t, &t.full_like(value), "{kind} {name}");
                continue;
            }
            let uniform = Spread::Uniform(1.0 / i.sqrt());
            let expected = match (weight.len(), own) {
                (4, "weight") if torch => uniform,
                (4, "weight") => Spread::Normal((2.0 / (k2 * o)).sqrt()),
                (2, "weight") if small => Spread::Normal(0.01),
                (2, "weight") => uniform,
                (2, "bias") if !small && !kind.starts_with("wrn") => uniform,
                (_, "bias") => Spread::Zero,
                _ => panic!("{kind} {name}"),
            };
            expected.assert(&format!("{kind} {name}"), t);
        }
    }
}

#[test]
fn named_networks_are_parameterised_ones() {
    for (kind, recipe) in [
        ("resnet32", json!({ "kind": "resnet", "depth": 32 })),
        ("resnet8x4", json!({ "kind": "resnet", "depth": 8, "width": 4 })),
        ("wrn_16_2", json!({ "kind": "wrn", "depth": 16, "width": 2 })),
    ] {
        let (a, b) = (build(named(kind).as_ref(), [3, 8, 8], 10), build(config(recipe).as_ref(), [3, 8, 8], 10));
        assert!(a.0.variables() == b.0.variables(), "{kind}");
        assert_eq!(a.1.signature(), b.1.signature(), "{kind}");
    }
    // The stem of the published double-width networks is as wide as that of the fourfold ones.
    let (vs, model) = build(config(json!({ "kind": "resnet", "depth": 26, "width": 2 })).as_ref(), [3, 8, 8], 10);
    assert_eq!(vs.variables()["conv1.weight"].size(), [32, 3, 3, 3]);
    assert_eq!(vs.variables()["layer3.3.conv2.weight"].size(), [128, 128, 3, 3]);
    assert_eq!(model.signature().tap("stage1").unwrap().shape.sizes(), [32, 8, 8]);
}

#[test]
fn an_identity_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides() {
    let recipe = json!({ "kind": "resnet8", "shortcut": "identity_pad" });
    let (vs, model) = build(config(recipe).as_ref(), [3, 9, 8], 10);
    assert!(!vs.variables().keys().any(|name| name.contains("downsample")));
    let _no_grad = tch::no_grad_guard();
    // With nothing from the convolutions, a block's sum is its shortcut.
    for name in ["layer1.0.bn2.weight", "layer2.0.bn2.weight", "layer3.0.bn2.weight"] {
        let _ = vs.variables()[name].shallow_clone().zero_();
    }
    let features = model.forward(&batch([3, 9, 8]), &Taps::all(model.signature()), Mode::Eval).unwrap();
    let [stem, stage1, stage3] = ["stem", "stage1", "stage3"].map(|name| features.tap(&TapRef::output(name)).unwrap());
    assert_eq!(stage1, stem);
    let expected = Tensor::zeros([2, 64, 3, 2], (Kind::Float, Device::Cpu));
    // 16 channels, 8 before and behind at 32, then 16 before and behind at 64.
    let every = stem.slice(2, None, None, 4).slice(3, None, None, 4);
    expected.narrow(1, 24, 16).copy_(&every);
    assert_eq!(stage3, &expected);
    let odd = config(json!({ "kind": "resnet8x4", "shortcut": "identity_pad" }));
    assert_eq!(build(odd.as_ref(), [3, 8, 8], 10).1.signature().tap("stage1").unwrap().shape.sizes(), [64, 8, 8]);
}

#[test]
fn vgg_halves_inputs_of_64_pixels_once_more() {
    for (side, expected) in [(32, [512, 4, 4]), (64, [512, 4, 4]), (96, [512, 12, 12])] {
        let (_vs, model) = build(named("vgg8").as_ref(), [3, side, side], 10);
        assert_eq!(model.signature().tap("stage4").unwrap().shape.sizes(), expected);
    }
    let narrow = refusal(named("vgg8").as_ref(), [3, 64, 15], 10);
    assert!(narrow.starts_with("vgg8: the network halves its input 4 times and needs"), "{narrow}");
    let (_vs, model) = build(named("vgg8").as_ref(), [3, 64, 64], 10);
    let features = model.forward(&batch([3, 64, 64]), &Taps::all(model.signature()), Mode::Eval).unwrap();
    assert_eq!(features.tap(&TapRef::output("stage4")).unwrap().size(), [2, 512, 4, 4]);
}

#[test]
fn multiply_adds_are_the_published_ones() {
    // torchvision's documentation of its weights has these, in units of 10⁹, for 224×224 pixels and 1000 classes.
    for (kind, published) in [("resnet18", 1.814), ("resnet34", 3.664), ("resnet50", 4.089)] {
        let config = named(kind);
        let billions = multiply_adds(config.as_ref(), config.example()) as f64 / 1e9;
        assert_eq!((billions * 1000.0).round() / 1000.0, published, "{kind}");
    }
    // Li, Kadav, Durdanovic, Samet, Graf. Pruning Filters for Efficient ConvNets. ICLR 2017, table 1: CIFAR-10, option A.
    for (kind, published) in [("resnet56", 1.25e8), ("resnet110", 2.53e8)] {
        let config = config(json!({ "kind": kind, "shortcut": "identity_pad" }));
        let count = multiply_adds(config.as_ref(), ModelSpec { input: [3, 32, 32], classes: 10 }) as f64;
        assert_eq!((count / 1e6).round() * 1e6, published, "{kind}");
    }
}

#[test]
fn multiply_adds_are_what_pytorch_counts() {
    // PyTorch 2.11's FlopCounterMode, halved, over these networks' own forward passes, traced: one image, 100 classes.
    for (kind, counted) in [
        ("resnet8", 12_507_392),
        ("resnet20", 40_818_944),
        ("resnet8x4", 177_071_104),
        ("resnet32x4", 1_083_040_768),
        ("ResNet50", 1_298_014_208),
        ("resnet18", 37_062_656),
        ("resnet50", 83_615_744),
        ("wrn_16_1", 26_663_168),
        ("wrn_40_2", 327_610_880),
        ("vgg8", 96_192_512),
        ("vgg13", 284_936_192),
        ("MobileNetV2", 6_523_648),
        ("ShuffleV1", 38_691_456),
        ("ShuffleV2", 44_504_448),
    ] {
        let config = named(kind);
        assert_eq!(multiply_adds(config.as_ref(), ModelSpec { input: [3, 32, 32], classes: 100 }), counted, "{kind}");
    }
}

#[test]
fn impossible_sizes_and_settings_are_refused_with_the_numbers() {
    let resnet20 = named("resnet20");
    let small =
        "resnet20: the network halves its input twice and needs at least 1 channel and 4×4 pixels; the view has ";
    assert_eq!(refusal(resnet20.as_ref(), [3, 32, 3], 10), format!("{small}3 channels and 32×3 pixels"));
    assert_eq!(refusal(resnet20.as_ref(), [0, 32, 32], 10), format!("{small}0 channels and 32×32 pixels"));
    let message = refusal(resnet20.as_ref(), [3, 32, 32], 0);
    assert_eq!(message, "resnet20: the network needs at least 1 class, not 0");
    for (kind, halvings, least) in [
        ("wrn_16_1", "twice", 4),
        ("vgg8", "3 times", 8),
        ("ResNet50", "3 times", 8),
        ("ShuffleV1", "3 times", 8),
        ("ShuffleV2", "3 times", 8),
        ("MobileNetV2", "4 times", 16),
        ("resnet18", "5 times", 32),
    ] {
        let size = least - 1;
        let expected = format!(
            "{kind}: the network halves its input {halvings} and needs at least 1 channel and {least}×{least} pixels; the \
             view has 3 channels and {size}×{size} pixels"
        );
        assert_eq!(refusal(named(kind).as_ref(), [3, size, size], 10), expected);
        let (_vs, model) = build(named(kind).as_ref(), [3, least, least], 10);
        let features = model.forward(&batch([3, least, least]), &Taps::none(), Mode::Eval).unwrap();
        assert_eq!(features.logits.size(), [2, 10], "{kind}");
    }
    for (recipe, expected) in [
        (json!({ "kind": "resnet", "depth": 21 }), "resnet: depth must be 6n + 2 (8, 14, 20, … up to 1202), not 21"),
        (json!({ "kind": "resnet", "depth": 2 }), "resnet: depth must be 6n + 2 (8, 14, 20, … up to 1202), not 2"),
        (
            json!({ "kind": "wrn", "depth": 20, "width": 1 }),
            "wrn: depth must be 6n + 4 (10, 16, 22, … up to 1204), not 20",
        ),
    ] {
        assert_eq!(refusal(config(recipe).as_ref(), [3, 32, 32], 10), expected);
    }
    for recipe in
        [json!({ "kind": "wrn", "depth": 16, "width": 0 }), json!({ "kind": "resnet", "depth": 8, "width": 65 })]
    {
        let error = serde_json::from_value::<Box<dyn ModelConfig>>(recipe.clone()).unwrap_err().to_string();
        assert_eq!(error, format!("width must be in 1..=64, not {}", recipe["width"]));
    }
}
