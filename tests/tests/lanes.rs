//! What happens to one lane and must not happen to the others: initial stages, non-finite losses, panics.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::cohort::Stop;
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::model::TapRef;
use limbeck::prelude::*;
use limbeck::record::Outcome;
use limbeck_cli::plan::Plan;
use limbeck_cli::{run, store};
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

fn experiment(methods: &str, tables: &str) -> String {
    format!(
        r#"
format = 1
name = "lanes"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 256
test = 40
[teacher.big]
model = {{ kind = "resnet8" }}
train = {{ epochs = 1 }}
[student]
model = {{ kind = "resnet8" }}
[train]
epochs = 3
checkpoint_steps = 2
log_steps = 4
{tables}
[compare]
methods = [{methods}]
"#
    )
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

fn execute(text: &str, out: &Path) -> (run::Finished, Seen) {
    let experiment = limbeck::config::parse(text, Path::new("lanes.toml"), &[]).unwrap();
    let plan = Plan::new(experiment, Path::new("lanes.toml"), out).unwrap();
    let mut seen = Seen::default();
    (run::execute(&plan, &Stop::default(), &mut seen).unwrap(), seen)
}

fn cell(out: &Path, method: &str) -> PathBuf {
    let folder = out.join("lanes");
    let plan: store::PlanFile = store::read_json(&folder.join(store::PLAN)).unwrap();
    folder.join(&plan.cells.iter().find(|cell| cell.method == method).unwrap().folder)
}

#[test]
fn a_broken_lane_ends_alone_and_says_where() {
    let broken = TempDir::new().unwrap();
    let (finished, _) = execute(&experiment(r#""nan", "vanilla", "refusal", "panic""#, BREAKING), broken.path());
    let whole = TempDir::new().unwrap();
    execute(&experiment(r#""vanilla""#, ""), whole.path());

    let checkpoint = |method| cell(broken.path(), method).join("checkpoint.safetensors");
    let (nan, refusal) = (checkpoint("nan"), checkpoint("refusal"));
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
    #[derive(Deserialize)]
    struct At {
        step: u64,
    }
    let at = |path: &Path| limbeck::checkpoint::read::<At>(path.parent().unwrap()).unwrap().unwrap().state.step;
    assert_eq!((at(&nan), at(&refusal)), (6, 4));
    let summary = store::summary(nan.parent().unwrap()).unwrap().unwrap();
    assert!(matches!(summary.outcome, Outcome::Failed { .. }) && summary.accuracy.is_none());

    let student = |out: &Path| fs::read(cell(out, "vanilla").join("student.safetensors")).unwrap();
    assert!(student(broken.path()) == student(whole.path()), "the sound lane was disturbed");
}

#[test]
fn an_initial_stage_trains_what_it_says_while_other_lanes_wait_undisturbed() {
    let together = TempDir::new().unwrap();
    let (finished, seen) = execute(&experiment(r#""vanilla", "staged""#, STAGED), together.path());
    assert_eq!(finished.failed, Vec::<String>::new());
    for method in ["vanilla", "staged"] {
        let alone = TempDir::new().unwrap();
        execute(&experiment(&format!("{method:?}"), STAGED), alone.path());
        let student = |out: &Path| fs::read(cell(out, method).join("student.safetensors")).unwrap();
        assert!(student(together.path()) == student(alone.path()), "{method}");
    }
    let stages: Vec<(&str, &str, Vec<String>)> = seen
        .0
        .iter()
        .filter_map(|(lane, event)| match event {
            Event::StageStarted { stage, unreached, .. } if !lane.starts_with("teacher") => {
                Some((lane.as_str(), stage.as_str(), unreached.clone()))
            }
            _ => None,
        })
        .collect();
    let own = |names: &[&str]| names.iter().map(|name| format!("term.staged.{name}")).collect::<Vec<_>>();
    assert_eq!(stages[0], ("staged, seed 0", "initial:staged", Vec::new()));
    assert_eq!(stages[1], ("vanilla, seed 0", "main", Vec::new()));
    let rest = own(&["connector.weight", "connector.bias", "bystander.weight", "bystander.bias"]);
    assert_eq!(stages[2], ("staged, seed 0", "main", rest));

    let summary = store::summary(&cell(together.path(), "staged")).unwrap().unwrap();
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
    resumes_exactly(&experiment(r#""staged", "vanilla""#, STAGED).replace("epochs = 3", "epochs = 2"));
}

#[test]
fn with_everything_that_moves_it_resumes_exactly_too() {
    // Updates at steps 2, 5 and 7 of the eight: checkpoints fall between them.
    let train = "epochs = 2\nlearning_rate = 0.01\noptimizer = { kind = \"adamw\" }\naccumulate = 3\nclip_norm = 0.5\n\
                 average = { decay = 0.9 }\nno_decay = true\nrates = { heads = 2.0, features = 0.5, stage3 = 1.5 }";
    let text = experiment(r#""staged", "vanilla""#, STAGED)
        .replace("epochs = 3", train)
        .replace("[train]", "precision = \"mixed\"\n[train]")
        .replace("train = { epochs = 1 }", "train = { epochs = 1 }\nfold_batch_norm = true\nprecision = \"bfloat16\"");
    resumes_exactly(&text);
}

fn resumes_exactly(text: &str) {
    let out = TempDir::new().unwrap();
    let mut keep = Keep { folder: out.path().to_owned(), kept: Vec::new() };
    let plan = |out: &Path| {
        let experiment = limbeck::config::parse(text, Path::new("lanes.toml"), &[]).unwrap();
        Plan::new(experiment, Path::new("lanes.toml"), out).unwrap()
    };
    run::execute(&plan(out.path()), &Stop::default(), &mut keep).unwrap();
    let places: Vec<(&str, u64)> = keep.kept.iter().map(|(stage, step, _)| (stage.as_str(), *step)).collect();
    let (first, main) = ("initial:staged", "main");
    assert_eq!(places, [(first, 2), (first, 4), (main, 2), (main, 4), (main, 6), (main, 8)]);

    // In the initial stage the features and the connector move, the classifier and bystanders do not.
    let at = |i: usize| limbeck::weights::read(&keep.kept[i].2).unwrap().tensors;
    let (before, after) = (at(0), at(1));
    let moved = |name: &str| !before[name].equal(&after[name]);
    for name in ["student.conv1.weight", "student.bn1.running_mean", "term.staged.connector.weight"] {
        assert!(moved(name), "{name} stood still");
    }
    for name in ["student.fc.weight", "student.fc.bias", "term.staged.bystander.weight"] {
        assert!(!moved(name), "{name} moved");
    }

    let student = |out: &Path, method: &str| fs::read(cell(out, method).join("student.safetensors")).unwrap();
    let name = cell(out.path(), "staged").file_name().unwrap().to_owned();
    for (stage, step, checkpoint) in &keep.kept {
        let again = TempDir::new().unwrap();
        let folder = again.path().join("lanes/cells").join(&name);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(checkpoint, folder.join("checkpoint.safetensors")).unwrap();
        run::execute(&plan(again.path()), &Stop::default(), &mut ()).unwrap();
        for method in ["staged", "vanilla"] {
            assert!(student(again.path(), method) == student(out.path(), method), "{method}, from {stage} step {step}");
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
    let together = TempDir::new().unwrap();
    let (finished, seen) = execute(&experiment(r#""one", "two""#, second), together.path());
    assert_eq!(finished.failed, Vec::<String>::new());
    let names = |method: &str| {
        let summary = store::summary(&cell(together.path(), method)).unwrap().unwrap();
        let teachers: Vec<String> = summary.teachers.iter().map(|teacher| teacher.name.clone()).collect();
        (summary.history.last().unwrap().train.keys().cloned().collect::<Vec<_>>(), teachers)
    };
    let text = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(names("one"), (text(&["loss", "cross_entropy", "kd.kl"]), text(&["big"])));
    let losses = text(&["loss", "cross_entropy", "kd.big.kl", "kd.small.kl", "staged.small.logits"]);
    assert_eq!(names("two"), (losses, text(&["big", "small"])));
    assert!(seen.0.iter().any(|(lane, event)| lane == "two, seed 0"
        && matches!(event, Event::StageStarted { stage, .. } if stage == "initial:staged.small")));
    for method in ["one", "two"] {
        let alone = TempDir::new().unwrap();
        execute(&experiment(&format!("{method:?}"), second), alone.path());
        let student = |out: &Path| fs::read(cell(out, method).join("student.safetensors")).unwrap();
        assert!(student(together.path()) == student(alone.path()), "{method}");
    }
}

#[test]
fn a_second_process_on_the_same_folder_is_refused_and_writes_nothing() {
    let out = TempDir::new().unwrap();
    let experiment = limbeck::config::parse(&experiment(r#""vanilla""#, ""), Path::new("lanes.toml"), &[]).unwrap();
    let plan = Plan::new(experiment, Path::new("lanes.toml"), out.path()).unwrap();
    fs::create_dir(&plan.folder).unwrap();
    let _first = limbeck::files::lock(&plan.folder).unwrap();
    let error = run::execute(&plan, &Stop::default(), &mut ()).unwrap_err().to_string();
    let folder = plan.folder.display();
    let expected = format!("another process is at work in {folder}: wait for it, or choose another folder with --out");
    assert_eq!(error, expected);
    assert!(!plan.folder.join(store::EXPERIMENT).exists());
}
