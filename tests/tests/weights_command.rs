//! `limbeck weights`, `limbeck evaluate` and `weights = "….pth"` in an experiment.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::dataset::{DatasetConfig, Rows, Split};
use limbeck::model::{Mode, Model, ModelConfig, ModelSpec, Taps};
use limbeck::weights::{self, StateDict};
use limbeck_tests::command::{self, stderr, stdout};
use limbeck_tests::experiment::{compare, small};
use limbeck_tests::files::{entries, fixture as file_of};
use limbeck_tests::runs::plan;
use tch::{CModule, Device, Kind, Tensor, nn};

/// Runs the command; what it printed, or its error.
fn limbeck(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = command::run(folder, arguments);
    if output.status.success() { Ok(stdout(&output).trim().to_owned()) } else { Err(stderr(&output).trim().to_owned()) }
}

fn fixture(name: &str) -> String {
    file_of(&format!("weights/{name}")).to_str().unwrap().to_owned()
}

/// A ResNet-8 with its own random weights, which are in the folder as `resnet8.pth`.
fn network(folder: &Path, classes: i64) -> (Box<dyn Model>, nn::VarStore, PathBuf) {
    tch::manual_seed(5);
    let config: Box<dyn ModelConfig> = serde_json::from_str(r#"{"kind": "resnet8"}"#).unwrap();
    let mut store = nn::VarStore::new(Device::Cpu);
    let model = config.build(&store.root(), &ModelSpec { input: [3, 32, 32], classes }).unwrap();
    store.freeze();
    let between = folder.join("between.safetensors");
    weights::save(&between, &weights::variables(&store), None).unwrap();
    let path = folder.join("resnet8.pth");
    StateDict::read(&between, None).unwrap().write_torch(&path).unwrap();
    (model, store, path)
}

#[test]
fn a_checkpoint_is_imported_shown_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    let said = limbeck(
        folder.path(),
        &["weights", "import", &fixture("checkpoint-legacy.pth"), "w.safetensors", "--strip", "module."],
    );
    let source = fixture("checkpoint-legacy.pth");
    let expected = format!("w.safetensors: 22 tensors, 98 elements of {source} (PyTorch before 1.6, under `model`)");
    assert_eq!(said.unwrap(), expected);
    let shown = limbeck(folder.path(), &["weights", "show", "w.safetensors"]).unwrap();
    for line in [
        "conv.weight             float32   [2, 3, 1, 2]",
        "kind.BFloat16           bfloat16  [4]",
        "bn.num_batches_tracked  int64     []",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert_eq!(shown.lines().last(), Some("22 tensors, 98 elements (safetensors)"));
    let json = limbeck(folder.path(), &["weights", "show", &fixture("two.pth"), "--key", "ema", "--json"]).unwrap();
    let expected =
        r#"{"format": "torch_zip", "key": "ema", "tensors": [{"name": "w", "kind": "float32", "shape": [2]}]}"#;
    let [json, expected] = [&json, expected].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    assert_eq!(json, expected);

    limbeck(folder.path(), &["weights", "export", &fixture("legacy.pth"), "w.pth"]).unwrap();
    assert!(fs::read(folder.path().join("w.pth")).unwrap() == fs::read(fixture("export.pth")).unwrap());
    let said = limbeck(folder.path(), &["weights", "import", &fixture("namespace.pth"), "no.safetensors"]).unwrap_err();
    assert!(said.contains("it asks for `argparse.Namespace`, and nothing but tensors"), "{said}");
    let said = limbeck(folder.path(), &["weights", "import", "a.pth", "b.pth", "--rename", "x"]).unwrap_err();
    assert!(said.contains("give FROM=TO, such as linear=fc"), "{said}");
    assert_eq!(
        limbeck(folder.path(), &["weights", "show", "absent.pth"]).unwrap_err().lines().next(),
        Some("error: cannot read absent.pth")
    );
}

/// Imports weights for a network, which is named in the last arguments.
fn import(path: &Path, model: &[&str]) -> Result<String, String> {
    let fixed = ["weights", "import", path.to_str().unwrap(), "out.safetensors", "--model"];
    limbeck(path.parent().unwrap(), &[&fixed[..], model].concat())
}

#[test]
fn an_import_is_checked_against_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let (_, store, path) = network(folder.path(), 10);
    import(&path, &["resnet8", "--classes", "10"]).unwrap();
    let read = StateDict::read(&folder.path().join("out.safetensors"), None).unwrap();
    for (name, variable) in weights::variables(&store) {
        assert_eq!(read.tensors[&name], variable, "{name}");
    }
    let said = import(&path, &["resnet8"]).unwrap_err();
    assert!(said.ends_with("resnet8.pth: these are not the weights of this network: `fc.weight` has shape [10, 64], expected [100, 64]; `fc.bias` has shape [10], expected [100]")
        || said.ends_with("resnet8.pth: these are not the weights of this network: `fc.bias` has shape [10], expected [100]; `fc.weight` has shape [10, 64], expected [100, 64]"), "{said}");
    let said = import(&path, &["resnet14", "--classes", "10"]).unwrap_err();
    assert!(
        said.contains(" missing: `layer1.1.bn1.bias`, ") || said.contains(" missing: `layer1.1.conv1.weight`, "),
        "{said}"
    );
    let said = import(&path, &["resnet7"]).unwrap_err();
    assert!(said.contains("unknown model `resnet7`: did you mean `resnet"), "{said}");
    let said = import(&path, &["resnet8", "--input", "3x32"]).unwrap_err();
    assert!(said.contains("\"3x32\" is no input: give 3x32x32, for example"), "{said}");

    // As DataParallel names them.
    let mut wrapped = StateDict::read(&path, None).unwrap();
    wrapped.tensors = wrapped.tensors.into_iter().map(|(name, tensor)| (format!("module.{name}"), tensor)).collect();
    wrapped.write_torch(&path).unwrap();
    let said = import(&path, &["resnet8", "--classes", "10"]).unwrap_err();
    let hint = "every name begins with `module.`: `limbeck weights import --strip module.` takes it off";
    assert!(said.ends_with(hint), "{said}");
    for prefix in ["module.", "module"] {
        import(&path, &["resnet8", "--classes", "10", "--strip", prefix]).unwrap();
    }
    let help = limbeck(folder.path(), &["weights", "import", "--help"]).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("`module` makes `module.fc.weight` to `fc.weight`"), "{help}");
}

#[test]
fn a_torchscript_program_computes_what_the_network_computes() {
    let folder = tempfile::tempdir().unwrap();
    let (model, _, path) = network(folder.path(), 10);
    let export = ["weights", "export", path.to_str().unwrap(), "student.pt", "--torchscript"];
    let said = limbeck(folder.path(), &export).unwrap_err();
    assert!(said.contains("--model <KIND>"), "{said}");
    let said = limbeck(folder.path(), &[&export[..], &["--model", "resnet8", "--classes", "10"]].concat()).unwrap();
    assert_eq!(said, format!("student.pt: 47 tensors, 78714 elements of {} (PyTorch, zip)", path.display()));
    assert_eq!(entries(folder.path()).len(), 3, "no temporary file is left");
    // As a file of weights it is refused by what it is, with what it is good for.
    let said = limbeck(folder.path(), &["weights", "show", "student.pt"]).unwrap_err();
    let expected = "student.pt: it is a TorchScript program: one of the models in `limbeck plugins list --kind model` \
                    runs it as a teacher; for its weights alone, `torch.save(torch.jit.load(SRC).state_dict(), DST)`";
    assert_eq!(said, format!("error: {expected}"));
    let program = CModule::load(folder.path().join("student.pt")).unwrap();
    for batch in [1, 7] {
        let input = Tensor::randn([batch, 3, 32, 32], (Kind::Float, Device::Cpu));
        let expected = model.forward(&input, &Taps::none(), Mode::Eval).unwrap().logits;
        let found = program.forward_ts(&[input]).unwrap();
        assert_eq!(found.size(), [batch, 10]);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
    }
}

/// Evaluates a network on 40 and 70 drawn images, with more arguments.
fn evaluate(folder: &Path, model: &str, more: &[&[&str]]) -> Result<String, String> {
    let fixed = ["evaluate", "--model", model, "--dataset", "shapes", "--device", "cpu"];
    let set = ["--set", "dataset.train=40", "--set", "dataset.test=70"];
    limbeck(folder, &[&fixed[..], &set, &more.concat()[..]].concat())
}

#[test]
fn an_evaluation_is_what_its_definitions_say() {
    let folder = tempfile::tempdir().unwrap();
    let settings = r#"{"kind": "shapes", "train": 40, "test": 70}"#;
    let dataset: Box<dyn DatasetConfig> = serde_json::from_str(settings).unwrap();
    let data = dataset.build(Device::Cpu).unwrap();
    let (model, _, path) = network(folder.path(), 20);
    let view = data.info().view(None).unwrap().name.clone();
    let rows = Rows::new((0..70).collect(), Device::Cpu);
    let batch = data.batch(Split::Test, &rows, &[&*view].into_iter().collect(), None).unwrap();
    let logits = model.forward(batch.view(&view).unwrap(), &Taps::none(), Mode::Eval).unwrap().logits;
    let logits: Vec<Vec<f64>> = logits.to_kind(Kind::Double).try_into().unwrap();
    let labels: Vec<i64> = batch.labels.try_into().unwrap();

    let (mut first, mut five, mut loss, mut bins) = (0.0, 0.0, 0.0, [[0.0; 2]; 15]);
    for (row, label) in logits.iter().zip(labels) {
        let own = row[label as usize];
        let above = row.iter().filter(|other| **other > own).count();
        let total: f64 = row.iter().map(|x| x.exp()).sum();
        let confidence = row.iter().fold(0.0_f64, |most, x| most.max(x.exp() / total));
        let right = f64::from(above == 0);
        first += right;
        five += f64::from(above < 5);
        loss += total.ln() - own;
        let bin = &mut bins[(confidence * 15.0).ceil() as usize - 1];
        *bin = [bin[0] + right, bin[1] + confidence];
    }
    let calibration: f64 = bins.iter().map(|[right, confidence]| (right - confidence).abs()).sum();

    let weights = ["--weights", path.to_str().unwrap()];
    let json: serde_json::Value = serde_json::from_str(
        &evaluate(folder.path(), "resnet8", &[&weights[..], &["--json", "--batch", "32"]]).unwrap(),
    )
    .unwrap();
    for (key, expected) in [
        ("top1", 100.0 * first / 70.0),
        ("top5", 100.0 * five / 70.0),
        ("loss", loss / 70.0),
        ("calibration_error", 100.0 * calibration / 70.0),
    ] {
        approx::assert_relative_eq!(json[key].as_f64().unwrap(), expected, max_relative = 1e-5);
    }
    assert!(json["images_per_second"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&json["images"], &json["calibration_bins"], &json["format"]),
        (&70.into(), &15.into(), &"torch_zip".into())
    );
    assert_eq!(
        (&json["split"], &json["precision"], &json["device"]),
        (&"test".into(), &"float32".into(), &"cpu".into())
    );
    let text = evaluate(folder.path(), "resnet8", &[&weights[..], &["--split", "train"]]).unwrap();
    assert!(text.starts_with("resnet8 (78692 parameters) on Shapes, training part: 40 images\ntop-1  "), "{text}");
    assert!(text.contains("% (expected, 15 bins of equal width)"), "{text}");

    // The same network as a TorchScript program, which has its weights.
    let export = ["weights", "export", path.to_str().unwrap(), "student.pt", "--torchscript", "--model", "resnet8"];
    limbeck(folder.path(), &[&export[..], &["--classes", "20"]].concat()).unwrap();
    let complete = "{ kind = 'torchscript', path = 'student.pt' }";
    let program: serde_json::Value =
        serde_json::from_str(&evaluate(folder.path(), complete, &[&["--json"]]).unwrap()).unwrap();
    assert_eq!((&program["top1"], &program["weights"]), (&json["top1"], &"student.pt".into()));
    assert!(program.get("format").is_none(), "{program}");
    for more in [["--weights", "resnet8.pth"], ["--strip", "module"], ["--precision", "mixed"]] {
        let said = evaluate(folder.path(), complete, &[&["--json"], &more]).unwrap_err();
        assert!(
            said.starts_with("error: the network is complete in student.pt, as it is: leave out `--weights`"),
            "{said}"
        );
    }
    let said = limbeck(folder.path(), &["evaluate", "--model", "resnet8", "--dataset", "shapes"]).unwrap_err();
    assert_eq!(said, "error: resnet8 has no weights yet: give `--weights FILE`");

    let said = evaluate(folder.path(), "resnet8", &[&weights[..], &["--set", "dataset.tset=3"]]).unwrap_err();
    assert!(said.contains("unknown key `tset`: did you mean `test`?\n  --> --set dataset.tset=3"), "{said}");
    let said = evaluate(folder.path(), "resnet8", &[&weights[..], &["--set", "model.kind=resnet14"]]).unwrap_err();
    assert!(said.contains("resnet8.pth: these are not the weights of this network: "), "{said}");
    let said = evaluate(folder.path(), "resnet8", &[&weights[..], &["--precision", "float16"]]).unwrap_err();
    assert!(said.contains("\"float16\" is no precision: give float32, tf32, bfloat16 or mixed"), "{said}");
}

#[test]
fn a_teacher_may_be_a_pytorch_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    network(folder.path(), 20);
    let teacher = "teacher.big={ model = { kind = 'resnet8' }, weights = 'resnet8.pth' }";
    let plan = plan(folder.path(), &small("foreign", &compare(&["kd"])), &[teacher]).unwrap();
    assert!(plan.to_string().contains("resnet8.pth"), "{plan}");
}
