//! What the settings of training do to the numbers: averages, clipping, accumulation, rates by group, precision.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use indexmap::IndexMap;
use limbeck::cohort::STUDENT;
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::tch::{Kind, Tensor};
use limbeck_cli::store;
use limbeck_tests::experiment::{compare, small};
use limbeck_tests::runs::{execute, plan};
use tempfile::TempDir;

/// Four steps of one student, with plain SGD: what moves in a step is learning rate × gradient.
fn experiment(student: &str, train: &str, method: &str) -> String {
    const TRAIN: &str = r#"
[train]
epochs = 1
schedule = { kind = "constant" }
optimizer = { kind = "sgd", momentum = 0.0, weight_decay = 0.0 }
checkpoint_steps = 1
"#;
    const CRD: &str = r#"
[method.crd]
terms = [{ weight = 0.8, distiller = { kind = "crd", negatives = { kind = "other_class", count = 32 } } }]
"#;
    let rate = if train.contains("learning_rate") { "" } else { "learning_rate = 0.5\n" };
    small("training", &format!("{student}{TRAIN}{rate}{train}{CRD}{}", compare(&[method])))
}

/// The state after each step.
#[derive(Default)]
struct States(Vec<IndexMap<String, Tensor>>);

impl Observer for States {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Event::Checkpoint { path, .. } = event
            && !lane.name.starts_with("teacher")
        {
            self.0.push(limbeck::weights::read(path).unwrap().tensors);
        }
    }
}

/// The states after the four steps, and the student that is exported.
fn train(text: &str) -> (Vec<IndexMap<String, Tensor>>, IndexMap<String, Tensor>) {
    let folder = TempDir::new().unwrap();
    let plan = plan(folder.path(), text, &[]).unwrap();
    let mut states = States::default();
    execute(&plan, &mut states);
    let cell = &plan.cells[0].folder;
    assert!(cell.join(store::CELL).exists());
    (states.0, limbeck::weights::read(&cell.join(STUDENT)).unwrap().tensors)
}

/// The L2 norm of what changed between two states, over the parameters of a name that begins so.
fn moved(before: &IndexMap<String, Tensor>, after: &IndexMap<String, Tensor>, prefix: &str) -> f64 {
    let mut sum = 0.0;
    for (name, value) in before {
        let is_parameter = name.starts_with(prefix) && !name.contains("running_") && !name.contains("memory");
        if is_parameter && value.kind() == Kind::Float {
            sum += (value - &after[name]).square().sum(Kind::Double).double_value(&[]);
        }
    }
    sum.sqrt()
}

#[test]
fn a_clipped_gradient_has_the_norm_that_was_asked_for() {
    let (states, _) = train(&experiment("", "clip_norm = 0.01", "vanilla"));
    for pair in states.windows(2) {
        approx::assert_relative_eq!(moved(&pair[0], &pair[1], "student."), 0.5 * 0.01, max_relative = 1e-3);
    }
    let (free, _) = train(&experiment("", "", "vanilla"));
    let (wide, _) = train(&experiment("", "clip_norm = 1e6", "vanilla"));
    assert_eq!(moved(&free[3], &wide[3], "student."), 0.0, "a limit that is not reached changes nothing");
}

#[test]
fn accumulated_steps_make_one_update_of_their_mean() {
    let (states, _) = train(&experiment("", "accumulate = 3", "vanilla"));
    let steps: Vec<bool> = states.windows(2).map(|pair| moved(&pair[0], &pair[1], "student.") > 0.0).collect();
    // After steps 1, 2, 3 and 4: the third updates, and the last takes what is left.
    assert_eq!(steps, [false, true, true]);
    assert!(states[0]["stage.accumulated"].norm().double_value(&[]) > 0.0);
    assert_eq!(states[2]["stage.accumulated"].norm().double_value(&[]), 0.0);
    // Up to the first update the weights stand still, so the mean is that of the gradients at one point.
    let sum = states[1]["stage.accumulated"].norm().double_value(&[]);
    let update = moved(&states[1], &states[2], "student.") / 0.5;
    assert!(update < sum && update > 0.1 * sum, "the mean of three is shorter than the sum of two: {update}, {sum}");
}

#[test]
fn groups_have_rates_of_their_own() {
    let (one, _) = train(&experiment("", "", "crd"));
    let (none, _) = train(&experiment("", "rates = { features = 0.0, heads = 0.0 }", "crd"));
    let (stage, _) = train(&experiment("", "rates = { features = 0.0, stage2 = 1.0, heads = 2.0 }", "crd"));
    for prefix in ["student.conv1", "student.layer1", "student.layer2", "student.fc", "term.crd"] {
        assert!(moved(&one[0], &one[1], prefix) > 0.0, "{prefix}");
        let expected = prefix == "student.fc";
        assert_eq!(moved(&none[0], &none[1], prefix) > 0.0, expected, "{prefix}, features and heads at 0");
        let expected = ["student.layer2", "student.fc", "term.crd"].contains(&prefix);
        assert_eq!(moved(&stage[0], &stage[1], prefix) > 0.0, expected, "{prefix}, stage2 before features");
    }
    let text = experiment("", "rates = { stage9 = 0.0 }", "vanilla");
    let error = plan(Path::new("nowhere"), &text, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "train: rates.stage9: there is no such group, but heads, features, stem, stage1, stage2, stage3, classifier; \
         did you mean `stage1`?"
    );
}

#[test]
fn the_average_is_what_is_exported() {
    let (states, exported) = train(&experiment("", "average = { decay = 0.3 }", "vanilla"));
    assert_eq!(states.len(), 4);
    for (name, value) in &exported {
        let key = format!("student.{name}");
        let mut average = states[0][&key].copy();
        for (step, state) in states.iter().enumerate().skip(1) {
            let kept = ((1.0 + step as f64) / (10.0 + step as f64)).min(0.3);
            average = average * kept + &state[&key] * (1.0 - kept);
        }
        let distance = (value - &average).abs().max().double_value(&[]);
        assert!(distance < 1e-5, "{name}: {distance}");
        assert!(*value != states[3][&key] || name.ends_with("running_mean"), "{name} is not the last weights");
    }
}

#[test]
fn a_mixed_student_is_near_the_float32_one_and_keeps_float32_weights() {
    let (exact, _) = train(&experiment("", "learning_rate = 0.05", "crd"));
    for precision in ["mixed", "bfloat16"] {
        let student = format!("precision = {precision:?}");
        let text = experiment(&student, "learning_rate = 0.05", "crd");
        let (mixed, exported) = train(&text);
        assert!(exported.values().all(|value| value.kind() == Kind::Float));
        let own = moved(&exact[0], &exact[3], "student.");
        let between = moved(&exact[3], &mixed[3], "student.");
        assert!(between > 0.0 && between < 0.5 * own, "{precision}: {between} apart, {own} moved");
    }
    let text = experiment("precision = \"tf32\"", "", "vanilla");
    let error = plan(Path::new("nowhere"), &text, &[]).unwrap_err();
    assert_eq!(error.to_string(), "student: precision \"tf32\" is a GPU's: use \"float32\", or \"mixed\" for speed");
}
