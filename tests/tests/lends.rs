//! What a network lends to methods: its classifier and the BatchNorm before a tap, the teacher's frozen and the student's
//! live. And what weight decay spares.

#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use limbeck::cohort::STUDENT;
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::experiment::TrainConfig;
use limbeck::prelude::*;
use limbeck::probe::Backbone;
use limbeck::registry::Role;
use limbeck_models::resnet::ResNet8;
use limbeck_tests::experiment::{compare, set, small};
use limbeck_tests::files::fixture;
use limbeck_tests::runs::{execute, plan, students};
use tempfile::TempDir;

limbeck::plugin! { distiller "borrower": Borrower, summary: "", citation: "" }

/// Lets the teacher's classifier judge the student's projected features, and weighs the student's BatchNorm. Alone, it
/// looks at what the student lends and at nothing else.
#[derive(Clone, Debug, Settings)]
struct Borrower {
    /// Whether it looks at what the student lends alone.
    #[setting(example = false)]
    alone: bool,
    /// The tap whose BatchNorm it asks for.
    #[setting(example = TapRef::pre_activation("stage1"))]
    tap: TapRef,
}

#[typetag::serde(name = "borrower")]
impl DistillerConfig for Borrower {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        for classifier in [site.student_classifier()?, site.teacher_classifier()?] {
            assert_eq!(classifier.tap, "pooled");
        }
        site.student_batch_norm(&self.tap)?;
        site.teacher_batch_norm(&self.tap)?;
        site.pooled()
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let pair = taps.single()?;
        let (from, to) = (pair.student_shape.channels(), pair.teacher_shape.channels());
        let head = tch::nn::linear(params / "head", from, to, Default::default());
        Ok(Box::new(LiveBorrower { alone: self.alone, tap: self.tap.clone(), head }))
    }
}

#[derive(Debug)]
struct LiveBorrower {
    alone: bool,
    tap: TapRef,
    head: nn::Linear,
}

impl Distiller for LiveBorrower {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (student, teacher) = step.pair()?;
        let (gamma, beta) = step.student.batch_norm(&self.tap)?;
        let affine = gamma.square().mean(None::<Kind>) + (beta + 1.0).square().mean(None::<Kind>);
        if self.alone {
            let logits = step.student.classify(&student.ones_like())?;
            return Ok(Terms::of("affine", affine).loss("logits", logits.square().mean(None::<Kind>)));
        }
        let (weight, bias) = step.teacher.classifier()?;
        let (frozen_gamma, frozen_beta) = step.teacher.batch_norm(&self.tap)?;
        assert!([&weight, &bias.unwrap(), &frozen_gamma, &frozen_beta].iter().all(|t| !t.requires_grad()));
        assert_eq!(weight.kind(), step.teacher.logits.kind());
        let projected = student.apply(&self.head);
        let hint = (&projected - teacher).square().mean(None::<Kind>);
        let borrowed = (step.teacher.classify(&projected)? - &step.teacher.logits).square().mean(None::<Kind>);
        Ok(Terms::of("borrowed", borrowed)
            .loss("hint", hint)
            .loss("affine", affine)
            .metric("own", (step.student.classify(student)? - &step.student.logits).abs().max())
            .metric("theirs", (step.teacher.classify(teacher)? - &step.teacher.logits).abs().max()))
    }
}

fn experiment(teacher: &str, student: &str, train: &str, term: &str) -> String {
    let method = format!("cross_entropy = 0.0\nterms = [{{ distiller = {{ kind = \"borrower\", {term} }} }}]");
    let text = small("lends", &format!("[train]\n{train}\n[method.borrower]\n{method}\n{}", compare(&["borrower"])));
    let [teacher, student] = [("teacher.big", teacher), ("student", student)]
        .map(|(key, settings)| format!("{key}={{ {} }}", settings.trim().replace('\n', ", ")));
    set(&text, &["dataset.train=64", &teacher, &student])
}

const TEACHER: &str = "model = { kind = \"resnet14\" }\ntrain = { epochs = 1 }";
const NETWORK: &str = "model = { kind = \"resnet8\" }";
const TERM: &str = "alone = false, tap = \"stage1:pre\"";

/// What the loss does not reach in the student's main stage.
#[derive(Default)]
struct Unreached(Vec<String>);

impl Unreached {
    fn has(&self, parameter: &str) -> bool {
        self.0.contains(&format!("student.{parameter}"))
    }
}

impl Observer for Unreached {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Event::StageStarted { unreached, .. } = event
            && lane.name.starts_with("borrower")
        {
            self.0.clone_from(unreached);
        }
    }
}

#[test]
fn a_method_that_borrows_conforms() {
    limbeck_conformance::check(Role::Distiller, "borrower", "").assert();
}

#[test]
fn what_is_lent_is_what_the_network_computes_with_in_every_precision() {
    tch::set_num_threads(1);
    for (of_teacher, of_student) in [
        ("", ""),
        ("fold_batch_norm = true", "precision = \"mixed\""),
        ("precision = \"bfloat16\"", "precision = \"bfloat16\""),
        ("precision = \"mixed\"", ""),
        ("precision = \"bfloat16\"\nfold_batch_norm = true", ""),
    ] {
        let folder = TempDir::new().unwrap();
        let (teacher, student) = (format!("{TEACHER}\n{of_teacher}"), format!("{NETWORK}\n{of_student}"));
        let text = experiment(&teacher, &student, "epochs = 2", TERM);
        let plan = plan(folder.path(), &text, &[]).unwrap();
        execute(&plan, &mut ());
        for record in &students(&plan)[0].summary.history {
            for what in ["own", "theirs"] {
                let apart = record.train[&format!("borrower.{what}")];
                assert_eq!(apart, 0.0, "{what}, {of_teacher:?} and {of_student:?}, epoch {}", record.epoch);
            }
            assert!(record.train["borrower.borrowed"] > 0.0);
        }
    }
}

#[test]
fn what_the_student_lends_trains() {
    let folder = TempDir::new().unwrap();
    let term = "alone = true, tap = \"stage1:pre\"";
    let text = experiment(TEACHER, NETWORK, "epochs = 1", term);
    let mut unreached = Unreached::default();
    execute(&plan(folder.path(), &text, &[]).unwrap(), &mut unreached);
    let reached = ["fc.weight", "fc.bias", "layer1.0.bn2.weight", "layer1.0.bn2.bias"];
    for name in reached {
        assert!(!unreached.has(name), "{name}: {:?}", unreached.0);
    }
    for name in ["conv1.weight", "bn1.weight", "layer1.0.bn1.bias", "layer3.0.bn2.weight"] {
        assert!(unreached.has(name), "{name}: {:?}", unreached.0);
    }
}

#[test]
fn a_network_that_lends_nothing_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let outputs = folder.path().join("outputs.safetensors");
    let tensors = [("logits", 20), ("pooled", 6)]
        .map(|(name, columns)| (name.to_owned(), Tensor::zeros([64, columns], (Kind::Float, Device::Cpu))));
    limbeck::weights::save(&outputs, &tensors, None).unwrap();
    let script = fixture("teacher/teacher.pt");
    let names = "[\"stem\", \"stage1\", \"stage1:pre\", \"pooled\", \"logits\"]";
    for teacher in [
        format!("model = {{ kind = \"precomputed\", path = {outputs:?}, taps = [\"pooled\"] }}"),
        format!("model = {{ kind = \"torchscript\", path = {script:?}, outputs = {names} }}"),
    ] {
        let text = experiment(&teacher, NETWORK, "epochs = 1", TERM);
        let message = plan(folder.path(), &text, &[]).unwrap_err().to_string();
        let expected = "teacher big: the network lends no classifier, as one from a TorchScript file or from precomputed \
                        outputs cannot: take a network that is built here, or a method without it";
        assert!(message.ends_with(expected), "{message}");
    }
    // A unit whose last BatchNorm has half of the channels.
    let text = experiment(TEACHER, "model = { kind = \"ShuffleV2\" }", "epochs = 1", TERM);
    let message = plan(folder.path(), &text, &[]).unwrap_err().to_string();
    let expected = "student: the network lends no BatchNorm before tap `stage1:pre`; pair taps behind one with `taps` \
                    (stem:pre)";
    assert!(message.ends_with(expected), "{message}");
    let text = experiment(TEACHER, NETWORK, "epochs = 1", "alone = false, tap = \"pooled\"");
    let message = plan(folder.path(), &text, &[]).unwrap_err().to_string();
    assert!(message.contains("the network lends no BatchNorm before tap `pooled`"), "{message}");
}

/// The student of one update without distillation, by SGD of rate 0.1 without momentum.
fn after_one_update(weight_decay: f64, no_decay: bool) -> IndexMap<String, Tensor> {
    let folder = TempDir::new().unwrap();
    let optimizer = format!("{{ kind = \"sgd\", momentum = 0.0, weight_decay = {weight_decay} }}");
    let train = format!("epochs = 1\nlearning_rate = 0.1\noptimizer = {optimizer}\nno_decay = {no_decay}");
    let text = experiment(TEACHER, NETWORK, &train, TERM);
    let plan = plan(folder.path(), &text, &["compare.methods=[\"vanilla\"]"]).unwrap();
    execute(&plan, &mut ());
    limbeck::weights::read(&plan.cells[0].folder.join(STUDENT)).unwrap().tensors
}

/// The student before any update.
fn untrained() -> IndexMap<String, Tensor> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("untrained.safetensors");
    let spec = ModelSpec { input: [3, 32, 32], classes: 20 };
    Backbone::write_untrained(&ResNet8::default(), &spec, 0, &path).unwrap();
    limbeck::weights::read(&path).unwrap().tensors
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    (a - b).abs().max().double_value(&[]) < 1e-6
}

#[test]
fn weight_decay_spares_biases_and_norms_where_it_is_told_to() {
    tch::set_num_threads(1);
    let (without, spared, all) =
        (after_one_update(0.0, false), after_one_update(0.5, true), after_one_update(0.5, false));
    for (name, start) in untrained() {
        if name.contains("running") {
            continue;
        }
        // Decay takes η·λ·θ of every parameter, θ being what it was before the update.
        let decayed = &without[&name] - start * (0.1 * 0.5);
        assert!(equal(&all[&name], &decayed), "{name}");
        let spares =
            ["fc.bias", "bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias", "downsample.1.weight", "downsample.1.bias"];
        let expected = if spares.iter().any(|end| name.ends_with(end)) { &without[&name] } else { &decayed };
        assert!(equal(&spared[&name], expected), "{name}");
    }
    assert!(!equal(&all["bn1.weight"], &spared["bn1.weight"]) && equal(&all["fc.weight"], &spared["fc.weight"]));
}

#[test]
fn no_decay_is_refused_of_a_network_that_names_nothing_and_is_written_where_it_is_set() {
    let train = TrainConfig { no_decay: true, ..TrainConfig::default() };
    let bare = Signature::new(&ModelSpec { input: [3, 32, 32], classes: 2 }, Vec::new(), Vec::new());
    assert_eq!(
        train.check_groups(&bare).unwrap_err().to_string(),
        "no_decay: the network names no parameters that weight decay should spare: remove `no_decay`"
    );
    assert!(toml::to_string(&train).unwrap().contains("no_decay = true"));
    assert!(!toml::to_string(&TrainConfig::default()).unwrap().contains("no_decay"));
}
