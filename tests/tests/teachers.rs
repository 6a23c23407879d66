//! Teachers from elsewhere: a TorchScript file that PyTorch wrote, and outputs that were computed beforehand.
//!
//! `fixtures/teacher/make.py` writes the fixtures.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use limbeck::cohort::Teacher;
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::experiment::Precision;
use limbeck::prelude::*;
use limbeck::weights;
use limbeck_cli::plan::Plan;
use limbeck_cli::{report, store};
use limbeck_golden::models::NetworkCase;
use limbeck_tests::experiment::{compare, set, small};
use limbeck_tests::files::fixture;
use limbeck_tests::runs::{self, plan};
use serde_json::{Value, json};
use tch::CModule;
use tempfile::TempDir;

const SPEC: ModelSpec = ModelSpec { input: [3, 32, 32], classes: 20 };

/// `make.py`'s rule.
fn fill(shape: &[i64], lo: f64, hi: f64) -> Tensor {
    let k = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    (((k * 37 + 11).remainder(101) * (hi - lo)) / 101 + lo).view(shape).to_kind(Kind::Float)
}

fn teacher(recipe: Value) -> Result<Teacher> {
    tch::set_num_threads(1);
    let config: Box<dyn ModelConfig> = serde_json::from_value(recipe).unwrap();
    Teacher::new("big", "image", &*config, &SPEC, Precision::Float32, false, Device::Cpu)
}

fn torchscript(file: &Path, outputs: &[&str]) -> Result<Teacher> {
    teacher(json!({ "kind": "torchscript", "path": file, "outputs": outputs }))
}

const OUTPUTS: [&str; 5] = ["stem", "stage1", "stage1:pre", "pooled", "logits"];

#[test]
fn a_torchscript_teacher_says_what_it_said_in_pytorch() {
    let teacher = torchscript(&fixture("teacher/teacher.pt"), &OUTPUTS).unwrap();
    let stage1 = TapInfo::map("stage1", [6, 4, 4]).with_pre_activation();
    let taps = [TapInfo::map("stem", [4, 8, 8]), stage1, TapInfo::vector("pooled", 6)];
    assert_eq!(teacher.signature().taps, taps);
    assert_eq!((teacher.signature().input, teacher.signature().classes), ([3, 32, 32], 20));
    // 4·3·9 + 2·4 + 6·4·9 + 6 + 20·6 + 20.
    assert_eq!(teacher.parameters(), 478);
    let expected: HashMap<String, Vec<f32>> =
        serde_json::from_str(&fs::read_to_string(fixture("teacher/teacher.json")).unwrap()).unwrap();
    let input = fill(&[2, 3, 32, 32], -1.5, 1.5);
    let want = Taps::all(teacher.signature());
    assert_eq!(want.iter().count(), 4);
    let mut first = None;
    // Several times: the first passes must not compute by another plan than the later ones.
    for _ in 0..4 {
        let features = teacher.forward(&input, &want).unwrap();
        let values = want.iter().map(|tap| (tap.to_string(), features.tap(tap).unwrap()));
        for (name, value) in values.chain([("logits".to_owned(), &features.logits)]) {
            assert_eq!(value.kind(), Kind::Float);
            assert!(!value.requires_grad());
            let expected = Tensor::from_slice(&expected[&name]).view(&value.size()[..]);
            let error = (value - &expected).abs().max().double_value(&[]);
            assert!(error < 1e-6 * expected.abs().max().double_value(&[]), "{name}: {error}");
        }
        let logits = first.get_or_insert_with(|| features.logits.copy());
        assert_eq!(&features.logits, logits);
    }
    let some = teacher.forward(&input, &Taps::from_iter([TapRef::output("pooled")])).unwrap();
    assert!(some.tap(&TapRef::output("stem")).is_err(), "only what was wanted");
    let channels_last = input.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let logits = teacher.forward(&channels_last, &Taps::none()).unwrap().logits;
    assert!((logits - some.logits).abs().max().double_value(&[]) < 1e-5, "in the memory order of the data");
}

/// The message about a TorchScript file with these outputs.
fn refusal(file: &Path, outputs: &[&str]) -> String {
    let text = torchscript(file, outputs).unwrap_err().to_string();
    text.replace(&format!("{}", file.display()), "FILE")
}

#[test]
fn what_is_wrong_with_a_torchscript_teacher_is_said() {
    let file = fixture("teacher/teacher.pt");
    assert_eq!(refusal(&file, &["logits"]), "torchscript: FILE: it returns 5 tensors, and `outputs` names 1");
    assert_eq!(refusal(&file, &OUTPUTS[..4]), "torchscript: `outputs` must have `logits` once");
    for (outputs, message) in [
        (["pooled", "stage1", "stage1:pre", "pooled", "logits"], "the output `pooled` is named twice"),
        (["stem", "stage1", "stage1:post", "pooled", "logits"], "a tap is \"name\" or \"name:pre\", not \"name:post\""),
        (["stem", "stage1", "stage2:pre", "pooled", "logits"], "`stage2:pre` needs an output `stage2` beside it"),
        (
            ["stage1:pre", "stage1", "stem", "pooled", "logits"],
            "`stage1:pre` has the shape [4, 8, 8], and `stage1` has [6, 4, 4]",
        ),
        (
            ["stem", "logits", "stage1:pre", "pooled", "stage1"],
            "the logits must have the shape [samples, classes], not [3, 6, 4, 4]",
        ),
    ] {
        assert_eq!(refusal(&file, &outputs), format!("torchscript: {message}"));
    }
    let fixed = refusal(&fixture("teacher/fixed_batch.pt"), &["logits"]);
    assert_eq!(fixed, "torchscript: FILE: `logits` has the shape [2, 20] for 3 images: it must be [batch, …]");
    let folder = TempDir::new().unwrap();
    let other = folder.path().join("teacher.pt");
    assert_eq!(refusal(&other, &["logits"]), "torchscript: cannot read FILE");
    fs::write(&other, "no zip file").unwrap();
    let text = refusal(&other, &["logits"]);
    assert!(text.starts_with("torchscript: FILE: not a TorchScript file: ") && !text.contains('\n'), "{text}");
    let config: Box<dyn ModelConfig> =
        serde_json::from_value(json!({ "kind": "torchscript", "path": file, "outputs": OUTPUTS })).unwrap();
    let gray = ModelSpec { input: [1, 32, 32], classes: 20 };
    let text =
        Teacher::new("big", "image", &*config, &gray, Precision::Float32, false, Device::Cpu).unwrap_err().to_string();
    assert!(text.contains("its forward pass fails: ") && text.contains("channels") && !text.contains('\n'), "{text}");
}

/// Twelve steps of a student beside a teacher of that recipe.
fn experiment(teacher: &str, methods: &[&str]) -> String {
    const TABLES: &str = r#"
[train]
epochs = 3
batch = 40
log_steps = 1
[method.hint]
terms = [{ weight = 1.0, distiller = { kind = "at" } }]
"#;
    let text = small("foreign", &format!("{TABLES}{}", compare(methods)));
    let teacher = format!("teacher.big={{ {} }}", teacher.trim().replace('\n', ", "));
    set(&text, &["validation=40", "dataset.train=200", &teacher])
}

/// The losses that were logged: lane and mean loss of the epoch so far.
#[derive(Default)]
struct Losses(Vec<(String, f64)>);

impl Observer for Losses {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Event::Step { train, .. } = event {
            self.0.push((lane.name.clone(), train["loss"]));
        }
    }
}

fn execute(plan: &Plan) -> Vec<(String, f64)> {
    let mut losses = Losses::default();
    runs::execute(plan, &mut losses);
    losses.0
}

#[test]
fn a_student_learns_from_a_torchscript_file_beside_the_experiment() {
    let folder = TempDir::new().unwrap();
    fs::copy(fixture("teacher/teacher.pt"), folder.path().join("teacher.pt")).unwrap();
    let recipe = r#"model = { kind = "torchscript", path = "teacher.pt", outputs = ["stem", "stage1", "stage1:pre", "pooled", "logits"] }"#;
    let planned = plan(folder.path(), &experiment(recipe, &["kd", "hint"]), &[]).unwrap();
    let text = planned.to_string();
    assert!(
        text.contains("teacher    big: torchscript, 478 parameters, sees image 3×32×32, float32, weights "),
        "{text}"
    );
    assert!(text.contains("\n           taps stem 4×8×8, stage1 6×4×4, pooled 6\n"), "{text}");
    assert_eq!(execute(&planned).len(), 2 * 12);
    let summary: Value = store::read_json(&planned.cells[0].folder.join("summary.json")).unwrap();
    assert_eq!(summary["teachers"][0]["model"], "torchscript");
    assert!(summary["teachers"][0]["test"]["top1"].is_number(), "{summary}");
    // The teacher is its content, not its place.
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    fs::rename(folder.path().join("teacher.pt"), folder.path().join("elsewhere/teacher.pt")).unwrap();
    let moved = recipe.replace("teacher.pt", "elsewhere/teacher.pt");
    let again = plan(folder.path(), &experiment(&moved, &["kd", "hint"]), &[]).unwrap();
    assert_eq!(again.teachers[0].identity, planned.teachers[0].identity);
    let renamed = moved.replace("\"stem\"", "\"first\"");
    let other = plan(folder.path(), &experiment(&renamed, &["kd", "hint"]), &[]).unwrap();
    assert_ne!(other.teachers[0].identity, planned.teachers[0].identity);
}

#[test]
fn settings_that_a_complete_teacher_cannot_have_are_refused() {
    let folder = TempDir::new().unwrap();
    let recipe = "model = { kind = \"torchscript\", path = \"teacher.pt\" }\n";
    for (setting, name) in [
        ("weights = \"w.safetensors\"", "weights"),
        ("train = { epochs = 1 }", "train"),
        ("fold_batch_norm = true", "fold_batch_norm"),
        ("precision = \"bfloat16\"", "precision"),
    ] {
        let text = experiment(&format!("{recipe}{setting}"), &["kd"]);
        let error = plan(folder.path(), &text, &[]).unwrap_err().to_string();
        let expected = format!("the teacher is complete in teacher.pt, as it is: remove `{name}`");
        assert!(error.contains(&expected), "{error}");
    }
    let text = experiment("model = { kind = \"resnet8\" }\ntrain = { epochs = 1 }", &["kd"]);
    let student = "student.model={ kind = \"torchscript\", path = \"t.pt\" }";
    let error = plan(folder.path(), &set(&text, &[student]), &[]).unwrap_err().to_string();
    assert!(error.contains("a network of kind `torchscript` is frozen and only teaches: choose another"), "{error}");
}

/// Logits and a tap for each of `samples` rows; the logits name the right class in three of four.
fn outputs(folder: &Path, samples: i64, labels: &[i64]) -> HashMap<String, Tensor> {
    let logits = fill(&[samples, 20], -1.0, 1.0);
    for (row, label) in labels.iter().enumerate().filter(|(row, _)| row % 4 != 0) {
        let _ = logits.get(row as i64).get(*label).fill_(3.0);
    }
    for row in (0..samples).step_by(4) {
        let _ = logits.get(row).get((labels[row as usize] + 1) % 20).fill_(3.0);
    }
    let pooled = fill(&[samples, 6], 0.0, 1.0).to_kind(Kind::Half);
    let tensors = [("logits".to_owned(), logits), ("pooled".to_owned(), pooled)];
    weights::save(&folder.join("outputs.safetensors"), &tensors, None).unwrap();
    tensors.into_iter().collect()
}

const PRECOMPUTED: &str = r#"model = { kind = "precomputed", path = "outputs.safetensors", taps = ["pooled"] }"#;

/// The labels of the data that [`experiment`] trains on, held-out ones included.
fn labels() -> Vec<i64> {
    let recipe: Box<dyn DatasetConfig> =
        serde_json::from_value(json!({ "kind": "shapes", "train": 200, "test": 40 })).unwrap();
    recipe.build(Device::Cpu).unwrap().info().train_labels.to_vec()
}

#[test]
fn outputs_computed_beforehand_are_looked_up_by_row() {
    let folder = TempDir::new().unwrap();
    let tensors = outputs(folder.path(), 200, &labels());
    let path = folder.path().join("outputs.safetensors");
    let teacher = teacher(json!({ "kind": "precomputed", "path": path, "taps": ["pooled"] })).unwrap();
    let rows = Rows::new(vec![7, 199, 0, 7], Device::Cpu);
    let images = Tensor::zeros([4, 3, 32, 32], (Kind::Float, Device::Cpu));
    let features = teacher.teach(&images, &rows, &Taps::all(teacher.signature())).unwrap();
    let pooled = features.tap(&TapRef::output("pooled")).unwrap();
    assert_eq!((pooled.kind(), features.logits.size()), (Kind::Float, vec![4, 20]));
    for (i, row) in [7, 199, 0, 7].into_iter().enumerate() {
        assert_eq!(features.logits.get(i as i64), tensors["logits"].get(row));
        assert_eq!(pooled.get(i as i64), tensors["pooled"].get(row).to_kind(Kind::Float));
    }
    let missing = Taps::from_iter([TapRef::output("stem")]);
    assert_eq!(teacher.teach(&images, &rows, &missing).unwrap_err().to_string(), "this network has no tap `stem`");
    assert_eq!(
        teacher.forward(&images, &Taps::none()).unwrap_err().to_string(),
        "outputs computed beforehand are known of training samples alone, not of any image"
    );
}

#[test]
fn a_student_learns_from_outputs_and_the_plan_says_what_they_are() {
    let folder = TempDir::new().unwrap();
    let tensors = outputs(folder.path(), 200, &labels());
    let planned = plan(folder.path(), &experiment(PRECOMPUTED, &["kd"]), &[]).unwrap();
    let note = "its outputs are of images without augmentation: it and the student see different crops; they name the right \
                class of 75.00 % of the training samples";
    assert!(planned.to_string().contains(&format!("\n           {note}\n")), "{planned}");
    assert_eq!(serde_json::to_value(planned.outline()).unwrap()["teachers"][0]["notes"], json!([note]));
    let losses = execute(&planned);
    assert_eq!(losses.len(), 12);
    let cell = &planned.cells[0].folder;
    let summary: Value = store::read_json(&cell.join("summary.json")).unwrap();
    assert_eq!(summary["teachers"][0].get("test"), None, "there is nothing to measure it on");
    let text = fs::read_to_string(
        report::write(std::slice::from_ref(&planned.folder), &report::Options::default()).unwrap().path,
    )
    .unwrap();
    assert!(text.contains("known by its outputs on the training samples alone, without augmentation"), "{text}");

    // Other samples' outputs are another teacher.
    let logits = tensors["logits"].flip([0]);
    let tensors = [("logits".to_owned(), logits), ("pooled".to_owned(), tensors["pooled"].shallow_clone())];
    weights::save(&folder.path().join("outputs.safetensors"), &tensors, None).unwrap();
    let flipped = plan(folder.path(), &experiment(PRECOMPUTED, &["kd"]), &[]).unwrap();
    assert_ne!(flipped.teachers[0].identity, planned.teachers[0].identity);
    assert_ne!(execute(&flipped), losses);
}

/// What the plan says of a probe of a student and of this teacher.
fn notes(folder: &Path, teacher: &str) -> Vec<String> {
    let text = set(&experiment(teacher, &["kd"]), &["probe.itself={}"]);
    plan(folder, &text, &[]).unwrap().probes[0].notes.clone()
}

#[test]
fn a_probe_leaves_out_teachers_without_features_of_any_image() {
    let folder = TempDir::new().unwrap();
    outputs(folder.path(), 200, &labels());
    assert_eq!(
        notes(folder.path(), PRECOMPUTED),
        ["teacher big is known by its outputs on the training samples alone and is left out"]
    );
    let images = Tensor::zeros([2, 3, 32, 32], (Kind::Float, Device::Cpu));
    let program = CModule::create_by_tracing("Network", "forward", &[images], &mut |inputs: &[Tensor]| {
        vec![inputs[0].flatten(1, -1).narrow(1, 0, 20)]
    })
    .unwrap();
    program.save(folder.path().join("logits.pt")).unwrap();
    let logits = r#"model = { kind = "torchscript", path = "logits.pt", outputs = ["logits"] }"#;
    assert_eq!(notes(folder.path(), logits), ["teacher big shows no tap and is left out"]);
}

#[test]
fn a_teacher_that_says_the_labels_teaches_what_they_teach() {
    let folder = TempDir::new().unwrap();
    let logits = Tensor::from_slice(&labels()).one_hot(20).to_kind(Kind::Float) * 1000;
    let path = folder.path().join("outputs.safetensors");
    weights::save(&path, &[("logits".to_owned(), logits)], None).unwrap();
    // At temperature 1 the divergence from a certain teacher is the cross-entropy: of these rows, in this order, or of others.
    let method = "method.told={ cross_entropy = 0.0, terms = [{ weight = 1.0, distiller = { kind = \"kd\", temperature = 1.0 } }] }";
    let text = set(&experiment(&PRECOMPUTED.replace("[\"pooled\"]", "[]"), &["vanilla", "told"]), &[method]);
    let planned = plan(folder.path(), &text, &[]).unwrap();
    let losses = execute(&planned);
    let [vanilla, told] = ["vanilla, seed 0", "told, seed 0"].map(|lane| {
        let own = losses.iter().filter(|(name, _)| name == lane);
        own.map(|(_, loss)| *loss).collect::<Vec<_>>()
    });
    assert_eq!((vanilla.len(), told.len()), (12, 12));
    for (a, b) in vanilla.iter().zip(&told) {
        approx::assert_relative_eq!(a, b, max_relative = 1e-4);
    }
}

/// One network of each family.
const FAMILIES: [&str; 8] =
    ["resnet8x4", "ResNet50", "resnet18", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"];

/// Every tap and the logits of a teacher with these weights, by name.
fn outputs_of(case: &NetworkCase, weights: &Path, precision: Precision, fold: bool) -> Vec<(String, Tensor)> {
    let config = case.config().unwrap();
    let mut teacher = Teacher::new("big", "image", &*config, &case.spec(), precision, fold, Device::Cpu).unwrap();
    teacher.load(weights).unwrap();
    let want = Taps::all(teacher.signature());
    let features = teacher.forward(&case.input(Kind::Float, Device::Cpu), &want).unwrap();
    let taps = want.iter().map(|tap| (tap.to_string(), features.tap(tap).unwrap().shallow_clone()));
    taps.chain([("logits".to_owned(), features.logits.shallow_clone())]).collect()
}

#[test]
fn every_family_teaches_in_sixteen_bits() {
    tch::set_num_threads(1);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("teacher.safetensors");
    let cases = limbeck_golden::models::cases().unwrap();
    for case in cases.iter().filter(|case| FAMILIES.contains(&case.model.as_str())) {
        weights::save(&path, &weights::variables(&case.network(Kind::Float, Device::Cpu).unwrap().0), None).unwrap();
        let reference = outputs_of(case, &path, Precision::Float32, false);
        for (precision, fold) in [(Precision::Mixed, false), (Precision::Bfloat16, false), (Precision::Bfloat16, true)]
        {
            for ((name, value), (_, expected)) in outputs_of(case, &path, precision, fold).iter().zip(&reference) {
                assert_eq!(value.kind(), Kind::Float);
                let error = ((value - expected).norm() / expected.norm()).double_value(&[]);
                // Bfloat16 has eight bits of mantissa: 4e-3 an operation, and tens of them.
                assert!(error < 5e-2, "{} {name} in {precision:?}, folded {fold}: {error}", case.model);
            }
        }
    }
}

#[test]
fn every_family_learns_in_mixed_precision_from_a_folded_teacher() {
    let folder = TempDir::new().unwrap();
    // The networks of four stages are made of the same parts as the first.
    for kind in ["resnet14", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"] {
        let teacher = format!(
            "model = {{ kind = \"{kind}\" }}\nprecision = \"bfloat16\"\nfold_batch_norm = true\n\
             train = {{ epochs = 1, batch = 20, log_steps = 1 }}"
        );
        let student = format!("student={{ model = {{ kind = \"{kind}\" }}, precision = \"mixed\" }}");
        let name = format!("name=\"{kind}-mixed\"");
        let values = [
            &student,
            &name,
            "dataset.train=40",
            "dataset.test=20",
            "validation=0",
            "train.epochs=1",
            "train.batch=20",
        ];
        let planned = plan(folder.path(), &set(&experiment(&teacher, &["hint"]), &values), &[]).unwrap();
        let note = &planned.teachers[0].notes[0];
        match kind {
            "wrn_16_2" => assert_eq!(note, "6 of its BatchNorms are folded into convolutions; 7 follow none and stay"),
            "vgg8" => assert_eq!(note, "its 5 BatchNorms are folded into convolutions"),
            _ => assert!(note.ends_with(" BatchNorms are folded into convolutions"), "{note}"),
        }
        let losses = execute(&planned);
        assert_eq!(losses.len(), 4, "{kind}: two steps of the teacher, two of the student");
        assert!(losses.iter().all(|(_, loss)| loss.is_finite()), "{kind}: {losses:?}");
    }
}

/// The message about an experiment with this teacher.
fn teacher_refusal(folder: &Path, recipe: &str) -> String {
    let error = plan(folder, &experiment(recipe, &["kd"]), &[]).unwrap_err().to_string();
    error.replace(&folder.display().to_string(), "FOLDER")
}

fn save_outputs(folder: &Path, tensors: &[(&str, Tensor)]) {
    let tensors: Vec<(String, Tensor)> = tensors.iter().map(|(n, t)| ((*n).to_owned(), t.shallow_clone())).collect();
    weights::save(&folder.join("outputs.safetensors"), &tensors, None).unwrap();
}

#[test]
fn outputs_that_do_not_fit_are_refused() {
    let folder = TempDir::new().unwrap();
    assert_eq!(
        teacher_refusal(folder.path(), PRECOMPUTED),
        "teacher.big: precomputed: cannot read FOLDER/outputs.safetensors"
    );
    outputs(folder.path(), 160, &labels()[..160]);
    assert_eq!(
        teacher_refusal(folder.path(), PRECOMPUTED),
        "teacher.big: there are outputs of 160 samples, and the training part has 200: compute them for every row, in order"
    );
    outputs(folder.path(), 200, &labels());
    assert_eq!(
        teacher_refusal(folder.path(), &PRECOMPUTED.replace("\"pooled\"", "\"stem\"")),
        "teacher.big: precomputed: FOLDER/outputs.safetensors: there is no `stem`; it has logits, pooled"
    );
    save_outputs(folder.path(), &[("logits", fill(&[200, 10], 0.0, 1.0)), ("pooled", fill(&[200, 4], 0.0, 1.0))]);
    assert_eq!(
        teacher_refusal(folder.path(), PRECOMPUTED),
        "teacher.big: the network tells 10 classes apart, the data have 20"
    );
    save_outputs(folder.path(), &[("logits", fill(&[200, 20], 0.0, 1.0)), ("pooled", fill(&[199, 4], 0.0, 1.0))]);
    assert_eq!(
        teacher_refusal(folder.path(), PRECOMPUTED),
        "teacher.big: precomputed: there are logits of 200 samples, and `pooled` of 199"
    );
    save_outputs(
        folder.path(),
        &[("logits", fill(&[200, 20], 0.0, 1.0).to_kind(Kind::Int64)), ("pooled", fill(&[200, 4], 0.0, 1.0))],
    );
    assert_eq!(
        teacher_refusal(folder.path(), PRECOMPUTED),
        "teacher.big: precomputed: FOLDER/outputs.safetensors: `logits` is Int64, not floating"
    );
    let pooled = fill(&[200, 4], 0.0, 1.0);
    for (row, value) in [(199, f64::INFINITY), (17, f64::NAN)] {
        let _ = pooled.get(row).get(2).fill_(value);
        save_outputs(folder.path(), &[("logits", fill(&[200, 20], 0.0, 1.0)), ("pooled", pooled.shallow_clone())]);
        assert_eq!(
            teacher_refusal(folder.path(), PRECOMPUTED),
            format!(
                "teacher.big: precomputed: FOLDER/outputs.safetensors: `pooled` is not finite in row {row}, counted from 0: \
                 compute it again"
            )
        );
    }
    save_outputs(folder.path(), &[("logits", fill(&[200], 0.0, 1.0))]);
    assert_eq!(
        teacher_refusal(folder.path(), PRECOMPUTED),
        "teacher.big: precomputed: FOLDER/outputs.safetensors: `logits` has the shape [200]: it must be [samples, …]"
    );
}
