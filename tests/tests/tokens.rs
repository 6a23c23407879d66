//! A network of tokens in one file: a small vision transformer. It trains, is distilled, probed and compared, and methods
//! that need maps refuse it in words.

#![allow(clippy::unwrap_used)]

use limbeck::nn::{Init, Module};
use limbeck::prelude::*;
use limbeck::probe::Backbone;
use limbeck::record::Similarity;
use limbeck::registry::Role;
use limbeck::similarity::{Alignment, Kernels};
use limbeck_cli::store;
use limbeck_tests::experiment::{compare, set, small};
use limbeck_tests::runs::{execute, plan};
use tempfile::TempDir;

limbeck::plugin! {
    model "tiny_vit": TinyVit,
    summary: "a vision transformer of two blocks, for tests",
    citation: "Dosovitskiy et al. An Image is Worth 16×16 Words. ICLR 2021, arXiv:2010.11929",
}

/// Patches of 8×8 pixels.
const PATCH: i64 = 8;

/// The recipe: taps `stem`, `stage1` and `stage2` are sequences of the class token and the patches, `pooled` is the class
/// token behind the last norm.
#[derive(Clone, Debug, Settings)]
struct TinyVit {
    /// Of a token.
    #[setting(example = 24)]
    width: i64,
}

fn group(name: &str, parameters: &[&str], feature: bool) -> Group {
    Group { name: name.to_owned(), parameters: parameters.iter().map(|name| (*name).to_owned()).collect(), feature }
}

#[typetag::serde(name = "tiny_vit")]
impl ModelConfig for TinyVit {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        let ([channels, height, width], d) = (spec.input, self.width);
        if channels < 1 || height < PATCH || width < PATCH || height % PATCH != 0 || width % PATCH != 0 || d < 1 {
            return Err(Error::plan(format!("tiny_vit: it needs images whose sides are multiples of {PATCH} pixels")));
        }
        let tokens = (height / PATCH) * (width / PATCH) + 1;
        let small = Init::Randn { mean: 0.0, stdev: 0.02 };
        let cls_token = path.var("cls_token", &[1, 1, d], small);
        let pos_embed = path.var("pos_embed", &[1, tokens, d], small);
        let patches = nn::linear(path / "patch_embed", channels * PATCH * PATCH, d);
        let blocks = [0, 1].map(|i| Block::new(&(path / "blocks" / i), d));
        let norm = nn::layer_norm(path / "norm", d);
        let head = nn::linear(path / "head", d, spec.classes);

        let taps = ["stem", "stage1", "stage2"].map(|name| TapInfo::tokens(name, tokens, d));
        let taps = taps.into_iter().chain([TapInfo::vector("pooled", d)]).collect();
        let groups = vec![
            group("stem", &["cls_token", "pos_embed", "patch_embed"], true),
            group("stage1", &["blocks.0"], true),
            group("stage2", &["blocks.1"], true),
            group("head", &["norm", "head"], false),
        ];
        let mut no_decay: Vec<String> = ["cls_token", "pos_embed", "patch_embed.bias", "norm.weight", "norm.bias"]
            .into_iter()
            .chain(["head.bias"])
            .map(str::to_owned)
            .collect();
        for block in ["blocks.0", "blocks.1"] {
            for name in ["norm1.weight", "norm1.bias", "qkv.bias", "proj.bias", "norm2.weight", "norm2.bias"] {
                no_decay.push(format!("{block}.{name}"));
            }
            no_decay.extend([format!("{block}.fc1.bias"), format!("{block}.fc2.bias")]);
        }
        let signature = Signature::new(spec, taps, groups)
            .with_classifier(ClassifierInfo::new(&(path / "head"), "pooled"))
            .with_no_decay(no_decay);
        Ok(Box::new(LiveTinyVit { signature, patches, cls_token, pos_embed, blocks, norm, head }))
    }
}

#[derive(Debug)]
struct LiveTinyVit {
    signature: Signature,
    patches: nn::Linear,
    cls_token: Tensor,
    pos_embed: Tensor,
    blocks: [Block; 2],
    norm: nn::LayerNorm,
    head: nn::Linear,
}

impl Model for LiveTinyVit {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, _mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let size = input.size();
        let (rows, columns) = (size[2] / PATCH, size[3] / PATCH);
        // [B, C, h, 8, w, 8] → [B, h·w, C·8·8]
        let patches = input.reshape([size[0], size[1], rows, PATCH, columns, PATCH]).permute([0, 2, 4, 1, 3, 5]);
        let patches = patches.reshape([size[0], rows * columns, size[1] * PATCH * PATCH]);
        let cls_token = self.cls_token.expand([size[0], 1, self.cls_token.size()[2]], false);
        let mut x = Tensor::cat(&[cls_token, self.patches.forward(&patches)], 1) + &self.pos_embed;
        record.output("stem", &x);
        for (block, name) in self.blocks.iter().zip(["stage1", "stage2"]) {
            x = block.forward(&x);
            record.output(name, &x);
        }
        let pooled = self.norm.forward(&x.select(1, 0));
        record.output("pooled", &pooled);
        record.finish(self.head.forward(&pooled))
    }
}

/// Attention of one head and a hidden layer twice as wide, each behind a norm and added to its input.
#[derive(Debug)]
struct Block {
    norm1: nn::LayerNorm,
    qkv: nn::Linear,
    proj: nn::Linear,
    norm2: nn::LayerNorm,
    fc1: nn::Linear,
    fc2: nn::Linear,
}

impl Block {
    fn new(path: &nn::Path<'_>, d: i64) -> Self {
        Block {
            norm1: nn::layer_norm(path / "norm1", d),
            qkv: nn::linear(path / "qkv", d, 3 * d),
            proj: nn::linear(path / "proj", d, d),
            norm2: nn::layer_norm(path / "norm2", d),
            fc1: nn::linear(path / "fc1", d, 2 * d),
            fc2: nn::linear(path / "fc2", 2 * d, d),
        }
    }

    /// `[B, N, D]` → `[B, N, D]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let qkv = self.qkv.forward(&self.norm1.forward(x)).chunk(3, -1);
        let scores = qkv[0].matmul(&qkv[1].transpose(1, 2)) / (x.size()[2] as f64).sqrt();
        let attended = scores.softmax(-1, None::<Kind>).matmul(&qkv[2]);
        let x = x + self.proj.forward(&attended);
        let hidden = self.fc1.forward(&self.norm2.forward(&x)).gelu("none");
        &x + self.fc2.forward(&hidden)
    }
}

/// Teacher and student may be either: a network of tokens and one of maps.
fn experiment(teacher: &str, student: &str, methods: &[&str], tables: &str) -> String {
    const TRAIN: &str = r#"
[train]
epochs = 2
learning_rate = 1e-3
no_decay = true
optimizer = { kind = "adamw", weight_decay = 0.05 }
"#;
    let text = small("tokens", &format!("{TRAIN}{tables}{}", compare(methods)));
    let teacher = format!("teacher.big={{ model = {teacher}, train = {{ epochs = 1, learning_rate = 0.01 }} }}");
    set(&text, &["dataset.train=128", &teacher, &format!("student.model={student}")])
}

const WIDE: &str = "{ kind = \"tiny_vit\", width = 32 }";
const NARROW: &str = "{ kind = \"tiny_vit\", width = 24 }";
const MAPS: &str = "{ kind = \"resnet8\" }";

#[test]
fn the_network_conforms() {
    tch::set_num_threads(1);
    limbeck_conformance::check(Role::Model, "tiny_vit", "").assert();
}

#[test]
fn it_trains_learns_from_a_teacher_and_is_compared_tap_by_tap() {
    tch::set_num_threads(1);
    let methods = ["vanilla", "kd", "crd", "rkd", "sp"];
    for (teacher, student) in [(WIDE, NARROW), (MAPS, NARROW), (WIDE, MAPS)] {
        let folder = TempDir::new().unwrap();
        let plan = plan(folder.path(), &experiment(teacher, student, &methods, ""), &[]).unwrap();
        let text = plan.to_string();
        let [of_teacher, of_student] =
            [teacher, student].map(|kind| if kind == MAPS { "stage1 16×32×32" } else { "stage1 17×" });
        assert!(text.contains(of_teacher) && text.contains(of_student), "{text}");
        execute(&plan, &mut ());
        for cell in &plan.cells {
            let summary = store::summary(&cell.folder).unwrap().unwrap();
            let [first, last] = [&summary.history[0], &summary.history[1]].map(|epoch| epoch.train["loss"]);
            let falls = last < first || !["vanilla", "kd"].contains(&cell.method.as_str());
            assert!(falls && last.is_finite(), "{}: {first} → {last}", cell.method);
            let found: Similarity = store::read_json(&cell.folder.join("similarity.json")).unwrap();
            let taps = &found.teachers[0].taps;
            let [of_teacher, of_student] = [teacher, student].map(|kind| if kind == MAPS { 5 } else { 4 });
            assert_eq!(taps.len(), of_teacher * of_student);
            // The unbiased estimate is about 0 for unrelated features, and may lie below.
            for tap in taps {
                assert!(tap.alignment.is_some_and(|alignment| (-0.5..=1.0).contains(&alignment)), "{tap:?}");
            }
        }
    }
}

#[test]
fn alignment_takes_every_token_and_does_not_ask_how_they_lie() {
    let tokens =
        ((Tensor::arange(12 * 5 * 3, (Kind::Double, Device::Cpu)) * 12.9898).sin() * 3.7).sin().view([12, 5, 3]);
    let transposed = tokens.transpose(1, 2).unsqueeze(-1);
    let pooled = tokens.mean_dim([1_i64].as_slice(), false, None::<Kind>);
    let mut sums = Alignment::new(Device::Cpu);
    sums.add(&Kernels::of(&[&tokens]), &Kernels::of(&[&tokens.flatten(1, -1), &transposed, &pooled]));
    let [flat, transposed, pooled] = sums.read().unwrap()[0][..] else { panic!("three taps") };
    assert!((flat.unwrap() - 1.0).abs() < 1e-6 && (transposed.unwrap() - 1.0).abs() < 1e-6);
    assert!(pooled.unwrap() < 0.999);
}

#[test]
fn a_probe_averages_over_the_tokens() {
    tch::set_num_threads(1);
    let (folder, spec) = (TempDir::new().unwrap(), ModelSpec { input: [3, 32, 32], classes: 20 });
    let path = folder.path().join("weights.safetensors");
    let model = TinyVit { width: 24 };
    Backbone::write_untrained(&model, &spec, 0, &path).unwrap();
    let backbone = Backbone::load(&model, &spec, &path, Device::Cpu).unwrap();
    let input = Tensor::rand([4, 3, 32, 32], (Kind::Float, Device::Cpu));
    let found = backbone.features(&input, &TapRef::output("stage1")).unwrap();
    assert_eq!(found.size(), [4, 24]);

    let mut store = nn::VarStore::new(Device::Cpu);
    let live = model.build(&store.root(), &spec).unwrap();
    store.load(&path).unwrap();
    let want = Taps::from_iter([TapRef::output("stage1")]);
    let features = tch::no_grad(|| live.forward(&input, &want, Mode::Eval)).unwrap();
    let tokens = features.tap(&TapRef::output("stage1")).unwrap();
    let mut sum = tokens.select(1, 0);
    for token in 1..17 {
        sum += tokens.select(1, token);
    }
    assert!((sum / 17.0 - found).abs().max().double_value(&[]) < 1e-6);

    // And in an experiment.
    let probe = "[probe.shapes]\ndataset = { kind = \"shapes\", train = 64, test = 40 }\ntap = \"stage1\"\n\
                 train = { epochs = 2 }\n";
    let out = TempDir::new().unwrap();
    let plan = plan(out.path(), &experiment(WIDE, NARROW, &["vanilla"], probe), &[]).unwrap();
    assert!(plan.to_string().contains("24 features"), "{plan}");
    execute(&plan, &mut ());
}

/// The message about a student of a teacher by a method.
fn refused(teacher: &str, student: &str, method: &str) -> String {
    let out = TempDir::new().unwrap();
    plan(out.path(), &experiment(teacher, student, &[method], ""), &[]).unwrap_err().to_string()
}

#[test]
fn methods_that_need_maps_refuse_tokens_in_words() {
    for method in ["at", "fitnet", "nst", "vid", "fsp", "kdsvd", "ickd", "ft"] {
        let message = refused(WIDE, NARROW, method);
        let expected = format!("{method} compares maps, but the student's tap `");
        assert!(message.contains(&expected), "{message}");
        assert!(message.ends_with("is a sequence of tokens: choose a map, or take another method"), "{message}");
    }
    let message = refused(WIDE, MAPS, "at");
    let expected = "at compares maps, but the teacher's tap `stage1` is a sequence of tokens: choose a map, or take another method";
    assert!(message.ends_with(expected), "{message}");
    // No tap of this network has a value before an activation, which is what AB compares.
    assert!(refused(WIDE, NARROW, "ab").contains("has no pre-activation value"));
}
