//! What happens to one lane and must not happen to the others: initial stages, non-finite losses, panics.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use limbeck::cohort::Stop;
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::model::TapRef;
use limbeck::prelude::*;
use limbeck::record::Outcome;
use limbeck_cli::plan::Plan;
use limbeck_cli::{run, store};
use limbeck_tests::experiment::{compare, set, small};
use limbeck_tests::runs::{self, cell, plan, student, summary};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Breaks as told at a step: a loss that is NaN, shapes that libtorch refuses, a panic of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Breaking {
    at: u64,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    Nan,
    Refusal,
    Panic,
}

#[typetag::serde(name = "breaking")]
impl DistillerConfig for Breaking {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(self.clone()))
    }
}

impl Distiller for Breaking {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut square = step.student.logits.square().mean(Kind::Float);
        if step.step == self.at {
            match self.how {
                How::Nan => square *= f64::NAN,
                // libtorch refuses the product of shapes that do not fit; tch turns that into a panic.
                // Under `no_grad` it would leave gradients off for whoever comes next.
                How::Refusal => _ = tch::no_grad(|| step.student.logits.matmul(&step.student.logits)),
                How::Panic => panic!("no bank for row {}\nand more", step.rows.host()[0]),
            }
        }
        Ok(Terms::of("square", square))
    }
}

/// One epoch of matching projected stage features, student's features only; then matching logits. Both with noise from
/// libtorch's own generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Staged {}

#[typetag::serde(name = "staged")]
impl DistillerConfig for Staged {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.stages(Form::PreActivation)
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let pair = self.taps(site)?.pairs.pop().ok_or_else(|| Error::plan("no stage"))?;
        let (from, to) = (pair.student_shape.channels(), pair.teacher_shape.channels());
        let connector = tch::nn::conv2d(params / "connector", from, to, 1, Default::default());
        tch::nn::conv2d(params / "bystander", from, to, 1, Default::default());
        Ok(Box::new(LiveStaged { connector, groups: site.student.feature_groups(), last: pair.student }))
    }
}

#[derive(Debug)]
struct LiveStaged {
    connector: nn::Conv2D,
    groups: Vec<String>,
    last: TapRef,
}

impl Distiller for LiveStaged {
    fn initial_stage(&self) -> Option<InitialStage> {
        let own = ["connector".to_owned()].into();
        Some(InitialStage {
            epochs: 1,
            learning_rate: Some(0.01),
            student_groups: self.groups.clone(),
            own,
            then_loss: true,
        })
    }

    fn initial_loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        assert_eq!(step.mode, Mode::TrainGroups(&self.groups));
        let pairs = step.pairs()?;
        let (_, teacher) = pairs.last().ok_or_else(|| Error::run("no pair"))?;
        let connected = step.student.tap(&self.last)?.apply(&self.connector);
        Ok(Terms::of("connected", (&connected - *teacher + connected.rand_like() * 0.1).square().mean(Kind::Float)))
    }

    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let difference = &step.student.logits - &step.teacher.logits + step.teacher.logits.rand_like();
        Ok(Terms::of("logits", difference.square().mean(Kind::Float)))
    }
}

fn experiment(methods: &[&str], tables: &str) -> String {
    let train = "[train]\nepochs = 3\ncheckpoint_steps = 2\nlog_steps = 4";
    small("lanes", &format!("{train}\n{tables}{}", compare(methods)))
}

const BREAKING: &str = r#"
[method.nan]
terms = [{ weight = 0.1, distiller = { kind = "breaking", how = "nan", at = 7 } }]
[method.refusal]
terms = [{ weight = 0.1, distiller = { kind = "breaking", how = "refusal", at = 5 } }]
[method.panic]
terms = [{ weight = 0.1, distiller = { kind = "breaking", how = "panic", at = 1 } }]
"#;

const STAGED: &str = r#"
[method.staged]
terms = [{ weight = 0.1, distiller = { kind = "staged" } }]
"#;

#[derive(Default)]
struct Seen(Vec<(String, Event)>);

impl Observer for Seen {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        self.0.push((lane.name.clone(), event.clone()));
    }
}

/// Plans and runs an experiment in a folder of its own, whatever becomes of it.
fn execute(text: &str) -> (TempDir, Plan, run::Finished, Seen) {
    let folder = TempDir::new().unwrap();
    let plan = plan(folder.path(), text, &[]).unwrap();
    let mut seen = Seen::default();
    let finished = run::execute(&plan, &Stop::default(), &mut seen).unwrap();
    (folder, plan, finished, seen)
}

/// That every lane of an experiment ends alone as it does beside the others.
fn assert_alone(methods: &[&str], tables: &str, together: &Plan) {
    for method in methods {
        let (_folder, alone, ..) = execute(&experiment(&[method], tables));
        assert!(student(together, method) == student(&alone, method), "{method}");
    }
}

/// What a checkpoint says of where it was written.
#[derive(Deserialize)]
struct At {
    step: u64,
}

#[test]
fn a_broken_lane_ends_alone_and_says_where() {
    let methods = ["nan", "vanilla", "refusal", "panic"];
    let (_folder, broken, finished, _) = execute(&experiment(&methods, BREAKING));
    let [nan, refusal] = ["nan", "refusal"].map(|method| cell(&broken, method).join("checkpoint.safetensors"));
    assert_eq!(
        finished.failed[..2],
        [
            format!(
                "nan, seed 0: `breaking.square` became non-finite at step 7 (main stage, noticed after step 7); its last \
                 good checkpoint is {}",
                nan.display()
            ),
            format!(
                "refusal, seed 0: libtorch: mat1 and mat2 shapes cannot be multiplied (64x20 and 64x20) (main stage, \
                 noticed after step 5); its last good checkpoint is {}",
                refusal.display()
            )
        ]
    );
    let [_, _, panic] = &finished.failed[..] else { panic!("{:?}", finished.failed) };
    let (start, end) =
        ("panic, seed 0: panic: no bank for row ", ") (main stage, noticed after step 1); it has no good checkpoint");
    assert!(panic.starts_with(start) && panic.ends_with(end), "{panic}");
    assert!(panic.contains(&format!(" (at {}:", file!())), "{panic}");
    // The last good checkpoint is from before the bad step.
    let steps = [&nan, &refusal].map(|path| {
        let checkpoint = limbeck::checkpoint::read::<At>(path.parent().unwrap()).unwrap().unwrap();
        checkpoint.state.step
    });
    assert_eq!(steps, [6, 4]);
    let summary = summary(&broken, "nan");
    assert!(matches!(summary.outcome, Outcome::Failed { .. }) && summary.accuracy.is_none());
    assert_alone(&["vanilla"], "", &broken);
}

#[test]
fn an_initial_stage_trains_what_it_says_while_other_lanes_wait_undisturbed() {
    let methods = ["vanilla", "staged"];
    let (_folder, together, finished, seen) = execute(&experiment(&methods, STAGED));
    assert_eq!(finished.failed, Vec::<String>::new());
    assert_alone(&methods, STAGED, &together);
    let mut stages = Vec::new();
    for (lane, event) in &seen.0 {
        if let Event::StageStarted { stage, unreached, .. } = event
            && !lane.starts_with("teacher")
        {
            stages.push((lane.as_str(), stage.as_str(), unreached.clone()));
        }
    }
    assert_eq!(stages[0], ("staged, seed 0", "initial:staged", Vec::new()));
    assert_eq!(stages[1], ("vanilla, seed 0", "main", Vec::new()));
    let rest = ["connector.weight", "connector.bias", "bystander.weight", "bystander.bias"];
    assert_eq!(stages[2], ("staged, seed 0", "main", rest.map(|name| format!("term.staged.{name}")).to_vec()));

    let summary = summary(&together, "staged");
    let history: Vec<(&str, u64, f64)> =
        summary.history.iter().map(|r| (r.stage.as_str(), r.epoch, r.learning_rate)).collect();
    assert_eq!((history[0], history.len()), (("initial:staged", 1, 0.01), 4));
    assert!(history[1].0 == "main" && history[1].2 == 0.05);
    assert!(summary.history[0].test.is_none() && summary.history[3].test.is_some());
    assert!(summary.history[0].train.contains_key("staged.connected"));
}

/// Copies every checkpoint of one lane: stage, step, file.
struct Keep {
    folder: PathBuf,
    kept: Vec<(String, u64, PathBuf)>,
}

impl Observer for Keep {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Event::Checkpoint { stage, step, path, .. } = event
            && lane.name.starts_with("staged")
        {
            let copy = self.folder.join(format!("{}.safetensors", self.kept.len()));
            fs::copy(path, &copy).unwrap();
            self.kept.push((stage.clone(), *step, copy));
        }
    }
}

#[test]
fn resumed_from_any_checkpoint_beside_a_fresh_lane_it_ends_with_the_same_bytes() {
    resumes_exactly(&set(&experiment(&["staged", "vanilla"], STAGED), &["train.epochs=2"]));
}

#[test]
fn with_everything_that_moves_it_resumes_exactly_too() {
    // Updates at steps 2, 5 and 7 of the eight: checkpoints fall between them.
    let values = [
        "train.epochs=2",
        "train.learning_rate=0.01",
        "train.optimizer={ kind = \"adamw\" }",
        "train.accumulate=3",
        "train.clip_norm=0.5",
        "train.average={ decay = 0.9 }",
        "train.no_decay=true",
        "train.rates={ heads = 2.0, features = 0.5, stage3 = 1.5 }",
        "student.precision=\"mixed\"",
        "teacher.big.fold_batch_norm=true",
        "teacher.big.precision=\"bfloat16\"",
    ];
    resumes_exactly(&set(&experiment(&["staged", "vanilla"], STAGED), &values));
}

fn resumes_exactly(text: &str) {
    let folder = TempDir::new().unwrap();
    let mut keep = Keep { folder: folder.path().to_owned(), kept: Vec::new() };
    let whole = plan(folder.path(), text, &[]).unwrap();
    runs::execute(&whole, &mut keep);
    let places: Vec<(&str, u64)> = keep.kept.iter().map(|(stage, step, _)| (stage.as_str(), *step)).collect();
    let (first, main) = ("initial:staged", "main");
    assert_eq!(places, [(first, 2), (first, 4), (main, 2), (main, 4), (main, 6), (main, 8)]);

    // In the initial stage the features and the connector move, the classifier and bystanders do not.
    let [before, after] = [0, 1].map(|at: usize| limbeck::weights::read(&keep.kept[at].2).unwrap().tensors);
    for name in ["student.conv1.weight", "student.bn1.running_mean", "term.staged.connector.weight"] {
        assert!(!before[name].equal(&after[name]), "{name} stood still");
    }
    for name in ["student.fc.weight", "student.fc.bias", "term.staged.bystander.weight"] {
        assert!(before[name].equal(&after[name]), "{name} moved");
    }

    for (stage, step, checkpoint) in &keep.kept {
        let folder = TempDir::new().unwrap();
        let again = plan(folder.path(), text, &[]).unwrap();
        fs::create_dir_all(cell(&again, "staged")).unwrap();
        fs::copy(checkpoint, cell(&again, "staged").join("checkpoint.safetensors")).unwrap();
        runs::execute(&again, &mut ());
        for method in ["staged", "vanilla"] {
            assert!(student(&again, method) == student(&whole, method), "{method}, from {stage} step {step}");
        }
    }
}

#[test]
fn teachers_that_others_ask_change_nothing() {
    let second = r#"
[teacher.small]
model = { kind = "resnet8" }
train = { epochs = 1 }
seed = 5
[method.one]
terms = [{ weight = 0.5, teachers = ["big"], distiller = { kind = "kd" } }]
[method.two]
terms = [{ weight = 0.5, distiller = { kind = "kd" } }, { weight = 0.1, teachers = ["small"], distiller = { kind = "staged" } }]
"#;
    let methods = ["one", "two"];
    let (_folder, together, finished, seen) = execute(&experiment(&methods, second));
    assert_eq!(finished.failed, Vec::<String>::new());
    for (method, losses, teachers) in [
        ("one", &["loss", "cross_entropy", "kd.kl"][..], &["big"][..]),
        ("two", &["loss", "cross_entropy", "kd.big.kl", "kd.small.kl", "staged.small.logits"], &["big", "small"]),
    ] {
        let summary = summary(&together, method);
        assert!(summary.history.last().unwrap().train.keys().eq(losses), "{method}: {:?}", summary.history);
        let names: Vec<&str> = summary.teachers.iter().map(|teacher| teacher.name.as_str()).collect();
        assert_eq!(names, teachers);
    }
    assert!(seen.0.iter().any(|(lane, event)| lane == "two, seed 0"
        && matches!(event, Event::StageStarted { stage, .. } if stage == "initial:staged.small")));
    assert_alone(&methods, second, &together);
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let plan = plan(folder.path(), &experiment(&["vanilla"], ""), &[]).unwrap();
    fs::create_dir_all(&plan.folder).unwrap();
    let _first = limbeck::files::lock(&plan.folder).unwrap();
    let error = run::execute(&plan, &Stop::default(), &mut ()).unwrap_err().to_string();
    let folder = plan.folder.display();
    let expected = format!("another process is at work in {folder}: wait for it, or choose another folder with --out");
    assert_eq!(error, expected);
    assert!(!plan.folder.join(store::EXPERIMENT).exists());
}
