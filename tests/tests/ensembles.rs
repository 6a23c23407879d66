//! Several teachers: a term for each, and teachers that combine others.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use limbeck::cohort::{Limit, Teacher};
use limbeck::config;
use limbeck::prelude::*;
use limbeck::record::{Similarity, TeacherRecord};
use limbeck_cli::plan::Plan;
use limbeck_cli::plan::cohorts;
use limbeck_cli::plan::runs::runs;
use limbeck_cli::{report, store};
use limbeck_tests::experiment::overrides;
use limbeck_tests::files::fixture;
use limbeck_tests::runs::{cell, execute, plan, stops, student, summary};
use tempfile::TempDir;

/// Two networks of different architecture that see different views, and what they say together. Three steps an epoch.
const ENSEMBLE: &str = r#"
format = 1
name = "together"
device = "cpu"
threads = 1
[dataset]
kind = "shapes"
train = 120
test = 60
[dataset.views.luminance]
steps = [{ kind = "luminance" }, { kind = "normalise", mean = [50], std = [25] }]
[teacher.a]
model = { kind = "resnet14" }
train = { epochs = 1, batch = 40 }
[teacher.b]
view = "luminance"
model = { kind = "wrn_16_1" }
train = { epochs = 1, batch = 40 }
[teacher.all]
combine = { kind = "mean_probabilities", teachers = ["a", "b"] }
[teacher.weighed]
combine = { kind = "mean_logits", teachers = ["b", "a"], weights = [3.0, 1.0] }
[teacher.sure]
combine = { kind = "confidence", teachers = ["a", "b"] }
[teacher.alone]
combine = { kind = "mean_probabilities", teachers = ["a"] }
[student]
model = { kind = "resnet8" }
[train]
epochs = 2
batch = 40
checkpoint_steps = 2
[method.all]
cross_entropy = 0.1
terms = [{ weight = 0.9, teachers = ["all"], distiller = { kind = "kd" } }]
[method.weighed]
cross_entropy = 0.1
terms = [{ weight = 0.9, teachers = ["weighed"], distiller = { kind = "kd" } }]
[method.sure]
cross_entropy = 0.1
terms = [{ weight = 0.9, teachers = ["sure"], distiller = { kind = "kd" } }]
[method.mixed]
terms = [
  { weight = 0.5, teachers = ["all", "b"], distiller = { kind = "kd" } },
  { weight = 0.8, distiller = { kind = "crd", negatives = { kind = "other_class", count = 32 } } },
]
[compare]
methods = ["vanilla", "kd", "all", "weighed", "sure", "mixed"]
"#;

/// The experiment above, run once for all tests that only look.
fn undisturbed() -> Plan {
    static RUN: OnceLock<TempDir> = OnceLock::new();
    let run = RUN.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        execute(&plan(folder.path(), ENSEMBLE, &[]).unwrap(), &mut ());
        folder
    });
    plan(run.path(), ENSEMBLE, &[]).unwrap()
}

/// The identity of a method's student in a variant of the experiment.
fn identity(values: &[&str], method: &str) -> String {
    let plan = plan(Path::new("nowhere"), ENSEMBLE, values).unwrap();
    plan.cells.iter().find(|cell| cell.method == method).unwrap().identity.clone()
}

/// The teachers of a cell's own file.
fn teachers_of(plan: &Plan, method: &str) -> Vec<String> {
    let cell = plan.cells.iter().find(|cell| cell.method == method).unwrap();
    cell.resolved.teacher.keys().cloned().collect()
}

#[test]
fn a_plan_says_who_is_asked() {
    let plan = plan(Path::new("nowhere"), ENSEMBLE, &[]).unwrap();
    let text = plan.to_string();
    for line in [
        "teacher    weighed: mean_logits of b (3), a (1); logits alone, and only for terms that name it\n",
        // No teacher is named: the networks are asked, each by a distiller of its own.
        "method kd: 0.1 × cross-entropy\n  + 0.9 × kd.a of teacher a\n      logits 20 — logits 20\n  + 0.9 × kd.b of teacher b\n",
        "method all: 0.1 × cross-entropy\n  + 0.9 × kd of teacher all\n      logits 20 — logits 20\n",
        "  + 0.5 × kd.b of teacher b\n",
        "  + 0.5 × kd.all of teacher all\n",
        "  + 0.8 × crd.b of teacher b, ",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let mixed = plan.methods.iter().find(|planned| planned.name == "mixed").unwrap();
    let labels: Vec<&str> = mixed.terms.iter().map(|term| term.label.as_str()).collect();
    assert_eq!(labels, ["kd.b", "kd.all", "crd.a", "crd.b"]);

    // A cell has what it needs and no more, and says the same by itself.
    assert_eq!(teachers_of(&plan, "vanilla"), [""; 0]);
    assert_eq!(teachers_of(&plan, "kd"), ["a", "b"]);
    assert_eq!(teachers_of(&plan, "weighed"), ["a", "b", "weighed"]);
    assert_eq!(teachers_of(&plan, "mixed"), ["a", "b", "all"]);
    for cell in &plan.cells {
        let text = toml::to_string(&cell.resolved).unwrap();
        let again = self::plan(Path::new("nowhere"), &text, &[]).unwrap();
        assert_eq!(again.cells[0].identity, cell.identity, "{text}");
    }
    // Each network runs once a step, whoever asks it: 3 steps, 2 epochs, 2 networks. One by one: kd, all, weighed, sure and
    // mixed ask both.
    let runs = runs([&plan], |_, _| true);
    assert_eq!(cohorts::form(&runs).unwrap()[0].passes(), (12, 60));
}

#[test]
fn an_ensemble_is_its_members_and_how_they_are_combined() {
    let [all, weighed] = ["all", "weighed"].map(|method| identity(&[], method));
    for value in [
        "teacher.all.combine.kind=confidence",
        "teacher.all.combine.weights=[1, 2]",
        "teacher.all.combine.teachers=['a']",
        "teacher.a.seed=1",
    ] {
        assert_ne!(identity(&[value], "all"), all, "{value}");
    }
    for value in ["teacher.b.train.epochs=2", "teacher.b.precision=bfloat16"] {
        assert_ne!(identity(&[value], "weighed"), weighed, "{value}");
    }
    // Weights count in any unit, and what nobody asks changes nothing.
    assert_eq!(identity(&["teacher.all.combine.weights=[2, 2]"], "all"), all);
    assert_eq!(identity(&["teacher.weighed.combine.weights=[0.75, 0.25]"], "weighed"), weighed);
    assert_eq!(identity(&["teacher.sure.combine.teachers=['b']"], "all"), all);
}

#[test]
fn an_ensemble_of_one_teaches_what_its_member_does_and_so_does_a_teacher_by_its_name() {
    let folder = TempDir::new().unwrap();
    let mut text = ENSEMBLE.split("[teacher.b]").next().unwrap().to_owned();
    for kind in ["mean_probabilities", "mean_logits", "confidence"] {
        text += &format!(
            "[teacher.{kind}]\ncombine = {{ kind = \"{kind}\", teachers = [\"a\"] }}\n[method.{kind}]\ncross_entropy = 0.1\n\
             terms = [{{ weight = 0.9, teachers = [\"{kind}\"], distiller = {{ kind = \"kd\" }} }}]\n"
        );
    }
    for (name, teachers) in [("crd", ""), ("crd_named", "teachers = [\"a\"],")] {
        text += &format!(
            "[method.{name}]\nterms = [{{ weight = 0.8, {teachers} distiller = {{ kind = \"crd\", negatives = {{ kind = \
             \"other_class\", count = 32 }} }} }}]\n"
        );
    }
    text += "[student]\nmodel = { kind = \"resnet8\" }\n[train]\nepochs = 2\nbatch = 40\n[compare]\n\
             methods = [\"kd\", \"mean_probabilities\", \"mean_logits\", \"confidence\", \"crd\", \"crd_named\"]\n";
    let plan = plan(folder.path(), &text, &[]).unwrap();
    execute(&plan, &mut ());
    let plain = student(&plan, "kd");
    for kind in ["mean_probabilities", "mean_logits", "confidence"] {
        assert!(student(&plan, kind) == plain, "{kind}: the student differs");
        let teachers = summary(&plan, kind).teachers;
        assert_eq!(teachers.iter().map(|teacher| teacher.name.as_str()).collect::<Vec<_>>(), ["a", kind]);
        assert_eq!(teachers[0].test, teachers[1].test);
    }
    assert!(student(&plan, "crd") == student(&plan, "crd_named"));
    assert!(student(&plan, "crd") != plain);
}

#[test]
fn a_lane_alone_and_beside_others_is_the_same_and_so_is_one_that_was_stopped() {
    let whole = undisturbed();
    for method in ["all", "weighed", "sure", "mixed"] {
        let alone = TempDir::new().unwrap();
        let only = format!("compare.methods=[{method:?}]");
        // Stopped after every other step, the networks' training included.
        let plan = loop {
            let plan = plan(alone.path(), ENSEMBLE, &[&only]).unwrap();
            if !stops(&plan, Limit::Steps(2)) {
                break plan;
            }
        };
        assert!(student(&whole, method) == student(&plan, method), "{method}: the student differs");
        let (one, other) = (summary(&whole, method), summary(&plan, method));
        assert_eq!(one.accuracy, other.accuracy);
        assert_eq!((one.teachers, one.ensemble), (with_weights_of(&whole, other.teachers), other.ensemble), "{method}");
    }
    assert!(student(&whole, "all") != student(&whole, "weighed") && student(&whole, "all") != student(&whole, "sure"));
}

/// Teachers' records with the places of their weights in another run's folder.
fn with_weights_of(plan: &Plan, mut teachers: Vec<TeacherRecord>) -> Vec<TeacherRecord> {
    for teacher in &mut teachers {
        if let Some(planned) = plan.teachers.iter().find(|planned| planned.name == teacher.name) {
            teacher.weights = planned.weights.path();
        }
    }
    teachers
}

/// The networks' logits on the test split, by hand.
fn logits(plan: &Plan) -> [Tensor; 2] {
    [0, 1].map(|at| {
        let planned = &plan.teachers[at];
        let view = &planned.network.view;
        let spec = plan.data.spec(Some(view)).unwrap();
        let mut teacher =
            Teacher::new("", view, &*planned.config.model, &spec, Default::default(), false, Device::Cpu).unwrap();
        teacher.load(&planned.weights.path()).unwrap();
        let rows = Rows::new((0..60).collect(), Device::Cpu);
        let views: Views = [view.as_str()].into_iter().collect();
        let batch = plan.data.dataset.batch(Split::Test, &rows, &views, None).unwrap();
        teacher.forward(batch.view(view).unwrap(), &Taps::none()).unwrap().logits
    })
}

#[test]
fn an_ensemble_is_measured_like_any_teacher() {
    let plan = undisturbed();
    let [a, b] = logits(&plan);
    let labels = Tensor::from_slice(&plan.data.dataset.info().test_labels);
    let (p, q) = (a.softmax(1, Kind::Double), b.softmax(1, Kind::Double));
    let expected = [("all", (&p + &q) / 2.0), ("weighed", (&a + &b * 3.0) / 4.0)];
    for (method, logits) in expected {
        let record = summary(&plan, method).teachers.pop().unwrap();
        assert_eq!((record.name.as_str(), record.members.len()), (method, 2));
        let right = logits.argmax(1, false).eq_tensor(&labels).sum(Kind::Int64).int64_value(&[]);
        approx::assert_relative_eq!(record.test.unwrap().score(), 100.0 * right as f64 / 60.0, max_relative = 1e-9);
    }
    let all = summary(&plan, "all");
    assert_eq!(all.teachers[2].model, "mean_probabilities of a, b");
    assert_eq!(all.teachers[2].view, "image, luminance");
    assert_eq!(all.teachers[2].parameters, all.teachers[0].parameters + all.teachers[1].parameters);
    // Whoever it is beside, the networks together are worth what their mean is.
    for method in ["vanilla", "kd", "all"] {
        let ensemble = summary(&plan, method).ensemble.unwrap();
        assert_eq!(
            (ensemble.teachers, Some(ensemble.test)),
            (vec!["a".to_owned(), "b".to_owned()], all.teachers[2].test)
        );
    }
    // Every student is compared with all of them in the end; features there are of the networks alone.
    let similarity: Similarity = store::read_json(&cell(&plan, "vanilla").join("similarity.json")).unwrap();
    let taps: Vec<(&str, usize)> = similarity.teachers.iter().map(|t| (t.name.as_str(), t.taps.len())).collect();
    assert_eq!(taps, [("a", 25), ("b", 25), ("all", 0), ("weighed", 0), ("sure", 0)]);
    assert_eq!(similarity.teachers[2].digest, all.teachers[2].digest);
    let found = limbeck::weights::read(&cell(&plan, "vanilla").join("correlations.safetensors")).unwrap();
    let expected = limbeck::similarity::class_correlation(&((&p + &q) / 2.0).log());
    let difference = (found.tensors["teacher.all"].shallow_clone() - expected).abs().max();
    assert!(difference.double_value(&[]) < 1e-5);

    let report = report::write(std::slice::from_ref(&plan.folder), &Default::default()).unwrap();
    let text = fs::read_to_string(report.folder.join("report.md")).unwrap();
    for part in ["ensemble of a, b", "mean_logits of b (3), a (1)"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

/// The teachers of a method's student by name, each with whether it was measured on the test part.
fn measured(plan: &Plan, method: &str) -> Vec<(String, bool)> {
    let teachers = summary(plan, method).teachers;
    teachers.into_iter().map(|teacher| (teacher.name, teacher.test.is_some())).collect()
}

#[test]
fn teachers_from_elsewhere_are_members_like_others() {
    let folder = TempDir::new().unwrap();
    fs::copy(fixture("teacher/teacher.pt"), folder.path().join("teacher.pt")).unwrap();
    let outputs = [("logits".to_owned(), Tensor::arange(120 * 20, (Kind::Float, Device::Cpu)).sin().view([120, 20]))];
    limbeck::weights::save(&folder.path().join("outputs.safetensors"), &outputs, None).unwrap();
    let elsewhere = "[teacher.a]\nmodel = { kind = \"torchscript\", path = \"teacher.pt\", outputs = [\"stem\", \"stage1\", \
                     \"stage1:pre\", \"pooled\", \"logits\"] }\n[teacher.b]\nmodel = { kind = \"precomputed\", path = \
                     \"outputs.safetensors\" }\n[teacher.c]\nprecision = \"bfloat16\"\nmodel = { kind = \"resnet14\" }\n\
                     train = { epochs = 1, batch = 40 }\n[teacher.two]\ncombine = { kind = \"confidence\", teachers = [\"c\", \"a\"] }\n";
    let (start, rest) = ENSEMBLE.split_once("[teacher.a]").unwrap();
    let text = format!("{start}{elsewhere}[teacher.all]{}", rest.split_once("[teacher.all]").unwrap().1);
    let text = text.replace("teachers = [\"sure\"]", "teachers = [\"two\"]");
    let plan = plan(folder.path(), &text, &["compare.methods=['all', 'sure']"]).unwrap();
    execute(&plan, &mut ());
    // Of the one with outputs of the training samples alone nothing is known on the test split, so of them together neither.
    let known = [("a", true), ("b", false), ("all", false)].map(|(name, known)| (name.to_owned(), known));
    assert_eq!(measured(&plan, "all"), known);
    assert!(summary(&plan, "all").ensemble.is_none());
    let known = [("a", true), ("c", true), ("two", true)].map(|(name, known)| (name.to_owned(), known));
    assert_eq!(measured(&plan, "sure"), known);
    let similarity: Similarity = store::read_json(&cell(&plan, "all").join("similarity.json")).unwrap();
    let names: Vec<&str> = similarity.teachers.iter().map(|teacher| teacher.name.as_str()).collect();
    assert_eq!(names, ["a", "c", "two"]);
    assert!(report::write(std::slice::from_ref(&plan.folder), &Default::default()).is_ok());
}

#[test]
fn what_makes_no_sense_is_refused_with_the_key() {
    for (values, message, place) in [
        (
            &["teacher.all.combine.teachers=['a', 'c']"][..],
            "there is no teacher `c`; the experiment has a, b, all, weighed, sure, alone",
            "teacher.all.combine.teachers[1]",
        ),
        (
            &["teacher.all.combine.teachers=['all']"],
            "a teacher cannot be a part of itself: name the others",
            "teacher.all.combine.teachers[0]",
        ),
        (
            &["teacher.all.combine.teachers=['a', 'sure']"],
            "`sure` combines teachers itself, which are a, b: name networks alone",
            "teacher.all.combine.teachers[1]",
        ),
        (
            &["teacher.all.combine.teachers=['sure']", "teacher.sure.combine.teachers=['all']"],
            "`sure` combines teachers itself, which are all: name networks alone",
            "teacher.all.combine.teachers[0]",
        ),
        (
            &["teacher.all.combine.teachers=['b', 'b']"],
            "\"b\" is named twice: give it a larger weight",
            "teacher.all.combine.teachers[1]",
        ),
        (
            &["teacher.all.combine.teachers=[]"],
            "there is nothing to combine: name the teachers",
            "teacher.all.combine.teachers",
        ),
        (
            &["teacher.all.combine.weights=[1]"],
            "there must be a weight for each teacher, 2, not 1",
            "teacher.all.combine.weights",
        ),
        (&["teacher.all.combine.weights=[1, 0]"], "a weight must be positive, not 0", "teacher.all.combine.weights[1]"),
        (
            &["teacher.all.combine.weights=[1, 2]", "teacher.all.combine.kind=confidence"],
            "the weights are the members' own confidence, sample by sample: remove `weights`",
            "teacher.all.combine.weights",
        ),
        (
            &["teacher.all.combine.kind=mean_logit"],
            "unknown value `mean_logit`: did you mean `mean_logits`?",
            "teacher.all.combine.kind",
        ),
        (
            &["teacher.all.combine.weight=[1, 2]"],
            "unknown key `weight`: did you mean `weights`?",
            "teacher.all.combine.weight",
        ),
        (
            &["teacher.all.view=luminance"],
            "a teacher that combines others is no network of its own: remove `view`, or `combine`",
            "teacher.all",
        ),
        (&["teacher.b={ view = 'luminance' }"], "the key `model` is missing here", "teacher.b"),
        (
            &["method.all.terms[0].teachers=['each']"],
            "there is no teacher `each`; the experiment has a, b, all, weighed, sure, alone",
            "method.all.terms[0].teachers[0]",
        ),
        (
            &["method.all.terms[0].teachers=['a', 'a']"],
            "\"a\" is named twice: give the term a larger weight",
            "method.all.terms[0].teachers[1]",
        ),
    ] {
        let error = config::parse(ENSEMBLE, Path::new("together.toml"), &overrides(values)).unwrap_err().to_string();
        assert_eq!(error.lines().next(), Some(message), "{values:?}");
        assert_eq!(error.lines().last().unwrap().trim(), format!("key: {place}"), "{values:?}");
    }
}

#[test]
fn methods_of_features_are_refused_with_reason_and_remedy() {
    let folder = Path::new("nowhere");
    for kind in
        ["at", "crd", "fsp", "fitnet", "sp", "cc", "vid", "rkd", "pkt", "ab", "ft", "nst", "kdsvd", "ickd", "itrd"]
    {
        let error =
            plan(folder, ENSEMBLE, &[&format!("method.all.terms[0].distiller={{ kind = '{kind}' }}")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "method.all: terms[0] ({kind}, teacher all): teacher `all` combines a, b: it has logits and no taps, and this \
                 term compares taps; ask the members one by one, teachers = [\"a\", \"b\"]"
            )
        );
    }
    for kind in ["kd", "dkd", "dist", "lskd", "nkd", "wsld", "ttm"] {
        plan(folder, ENSEMBLE, &[&format!("method.all.terms[0].distiller={{ kind = '{kind}' }}")]).unwrap();
    }
    // Another reason stays what it is.
    let taps = plan(folder, ENSEMBLE, &["method.all.terms[0].taps=[['pooled', 'pooled']]"]).unwrap_err();
    assert!(taps.to_string().ends_with("this method uses the logits alone: remove `taps`"), "{taps}");
}
