//! What the experiment file may say, and what is answered when it says something else.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use limbeck::config::grid::Filter;
use limbeck::config::{locate, parse, parse_grid};
use limbeck::error::Error;
use limbeck_cli as _;

const GOOD: &str = r#"format = 1
name = "x"

[dataset]
kind = "shapes"

[teacher.big]
model = { kind = "resnet20" }
[teacher.big.train]
epochs = 1

[student]
model = { kind = "resnet8" }

[train]
epochs = 2

[method.mine]
cross_entropy = 0.5
[[method.mine.terms]]
weight = 2.0
[method.mine.terms.distiller]
bank_momentum = 0.4
critic = { temperature = 0.1, kind = "nce" }
negatives = { count = 64, kind = "other_class" }
kind = "crd"

[compare]
methods = ["vanilla", "kd", "mine"]
"#;

fn error(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    parse(text, Path::new("x.toml"), &overrides).unwrap_err().to_string()
}

fn replaced(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    error(&GOOD.replacen(from, to, 1), &[])
}

#[test]
fn a_good_file_survives_being_written_and_read_again() {
    let experiment = parse(GOOD, Path::new("x.toml"), &[]).unwrap();
    let written = toml::to_string(&experiment).unwrap();
    let again = parse(&written, Path::new("x.toml"), &[]).unwrap();
    assert_eq!(written, toml::to_string(&again).unwrap());
    assert_eq!(experiment.method["mine"].terms[0].weight, 2.0);
}

#[test]
fn overrides_reach_every_value() {
    let set = [
        "train.epochs=7",
        "method.mine.terms[0].weight=1.5",
        "method.mine.terms[0].distiller.critic.temperature=0.2",
        "name=y z",
    ];
    let overrides: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
    let experiment = parse(GOOD, Path::new("x.toml"), &overrides).unwrap();
    assert_eq!((experiment.train.epochs, experiment.name.as_str()), (7, "y z"));
    assert_eq!(experiment.method["mine"].terms[0].weight, 1.5);
    assert!(toml::to_string(&experiment).unwrap().contains("temperature = 0.2"));
}

#[test]
fn unknown_keys_at_every_depth() {
    assert_eq!(
        replaced("name = \"x\"\n", "name = \"x\"\nepochs = 3\n"),
        "unknown key `epochs`: known here: format, name, device, threads, lanes, validation, train_samples, dataset, teacher, student, train, method, compare, probe
  --> x.toml:3:1
  |
3 | epochs = 3
  | ^^^^^^
  key: epochs"
    );
    assert_eq!(
        replaced("epochs = 2", "epoch = 2"),
        "unknown key `epoch`: did you mean `epochs`?
  --> x.toml:16:1
   |
16 | epoch = 2
   | ^^^^^
  key: train.epoch"
    );
    assert_eq!(
        replaced("bank_momentum = 0.4", "bank_momentun = 0.4"),
        "unknown key `bank_momentun`: did you mean `bank_momentum`?
  --> x.toml:23:1
   |
23 | bank_momentun = 0.4
   | ^^^^^^^^^^^^^
  key: method.mine.terms[0].distiller.bank_momentun"
    );
    assert_eq!(
        replaced("temperature = 0.1", "temperatur = 0.1"),
        "unknown key `temperatur`: did you mean `temperature`?
  --> x.toml:24:12
   |
24 | critic = { temperatur = 0.1, kind = \"nce\" }
   |            ^^^^^^^^^^
  key: method.mine.terms[0].distiller.critic.temperatur"
    );
}

#[test]
fn unknown_kinds_and_names() {
    assert_eq!(
        replaced("\"resnet20\"", "\"resnet21\""),
        "unknown model `resnet21`: did you mean `resnet20`?
  --> x.toml:8:11
  |
8 | model = { kind = \"resnet21\" }
  |           ^^^^
  key: teacher.big.model.kind"
    );
    assert_eq!(
        replaced("kind = \"nce\"", "kind = \"wasserstein\""),
        "unknown critic `wasserstein`: known: bilinear, info_nce, mlp, nce; is its crate linked?
  --> x.toml:24:31
   |
24 | critic = { temperature = 0.1, kind = \"wasserstein\" }
   |                               ^^^^
  key: method.mine.terms[0].distiller.critic.kind"
    );
    assert_eq!(
        replaced("\"kd\", \"mine\"", "\"kd\", \"mime\""),
        "unknown method `mime`: did you mean `mine`?
  --> x.toml:29:29
   |
29 | methods = [\"vanilla\", \"kd\", \"mime\"]
   |                             ^^^^^^
  key: compare.methods[2]"
    );
}

#[test]
fn wrong_types_and_missing_keys() {
    assert_eq!(
        replaced("epochs = 2", "epochs = \"two\""),
        "expected a whole number, 0 or more, found string \"two\"
  --> x.toml:16:1
   |
16 | epochs = \"two\"
   | ^^^^^^
  key: train.epochs"
    );
    assert_eq!(
        replaced("temperature = 0.1", "temperature = true"),
        "expected a number, found boolean `true`
  --> x.toml:24:12
   |
24 | critic = { temperature = true, kind = \"nce\" }
   |            ^^^^^^^^^^^
  key: method.mine.terms[0].distiller.critic.temperature"
    );
    assert_eq!(
        replaced("model = { kind = \"resnet8\" }", ""),
        "the key `model` is missing here
  --> x.toml:12:2
   |
12 | [student]
   |  ^^^^^^^
  key: student"
    );
    assert_eq!(
        replaced("format = 1", ""),
        "the key `format` is missing here
  --> x.toml:1:1
  |
1 | 
  | ^"
    );
    assert_eq!(
        replaced("epochs = 2", "epochs = = 2"),
        "this is not TOML: extra `=`, expected nothing
  --> x.toml:16:10
   |
16 | epochs = = 2
   |          ^"
    );
}

/// The first line of what is said of a line put into the good file, and the key that it names.
fn said(from: &str, to: &str) -> (String, String) {
    let message = replaced(from, to);
    let (first, last) = (message.lines().next().unwrap(), message.lines().last().unwrap());
    (first.to_owned(), last.trim_start().to_owned())
}

#[test]
fn unknown_keys_kinds_and_wrong_types_in_every_table() {
    for (from, to, message, key) in [
        ("[dataset]\n", "[dataset]\ntrian = 9\n", "unknown key `trian`: did you mean `train`?", "dataset.trian"),
        (
            "[teacher.big]\n",
            "[teacher.big]\nweigths = 'w'\n",
            "unknown key `weigths`: did you mean `weights`?",
            "teacher.big.weigths",
        ),
        (
            "{ kind = \"resnet20\" }",
            "{ kind = \"resnet20\", width = 2 }",
            "unknown key `width`: known here: shortcut",
            "teacher.big.model.width",
        ),
        ("epochs = 1", "epoch = 1", "unknown key `epoch`: did you mean `epochs`?", "teacher.big.train.epoch"),
        (
            "[student]\n",
            "[student]\nprecison = 'mixed'\n",
            "unknown key `precison`: did you mean `precision`?",
            "student.precison",
        ),
        (
            "epochs = 2",
            "schedule = { kind = 'multi_step', gama = 0.1 }",
            "unknown key `gama`: known here: milestones, factor",
            "train.schedule.gama",
        ),
        (
            "epochs = 2",
            "optimizer = { kind = 'sgd', momentun = 0.9 }",
            "unknown key `momentun`: did you mean `momentum`?",
            "train.optimizer.momentun",
        ),
        (
            "epochs = 2",
            "average = { decai = 0.9 }",
            "unknown key `decai`: did you mean `decay`?",
            "train.average.decai",
        ),
        (
            "cross_entropy = 0.5",
            "cross_entropi = 0.5",
            "unknown key `cross_entropi`: did you mean `cross_entropy`?",
            "method.mine.cross_entropi",
        ),
        ("weight = 2.0", "wieght = 2.0", "unknown key `wieght`: did you mean `weight`?", "method.mine.terms[0].wieght"),
        (
            "count = 64",
            "cuont = 64",
            "unknown key `cuont`: did you mean `count`?",
            "method.mine.terms[0].distiller.negatives.cuont",
        ),
        ("methods =", "metods =", "unknown key `metods`: did you mean `methods`?", "compare.metods"),
        ("kind = \"shapes\"", "kind = \"shape\"", "unknown dataset `shape`: did you mean `shapes`?", "dataset.kind"),
        (
            "kind = \"resnet8\"",
            "kind = \"resnet8x5\"",
            "unknown model `resnet8x5`: did you mean `resnet8x4`?",
            "student.model.kind",
        ),
        (
            "epochs = 2",
            "schedule = { kind = 'cosin' }",
            "unknown schedule `cosin`: did you mean `cosine`?",
            "train.schedule.kind",
        ),
        (
            "epochs = 2",
            "optimizer = { kind = 'adam' }",
            "unknown optimizer `adam`: did you mean `adamw`?",
            "train.optimizer.kind",
        ),
        (
            "kind = \"crd\"",
            "kind = \"crb\"",
            "unknown distiller `crb`: did you mean `crd`?",
            "method.mine.terms[0].distiller.kind",
        ),
        (
            "kind = \"other_class\"",
            "kind = \"other_clas\"",
            "unknown negatives `other_clas`: did you mean `other_class`?",
            "method.mine.terms[0].distiller.negatives.kind",
        ),
        (
            "[dataset]\n",
            "[dataset]\ntrain = 'all'\n",
            "expected a whole number, 0 or more, found string \"all\"",
            "dataset.train",
        ),
        (
            "[teacher.big]\n",
            "[teacher.big]\nweights = 3\n",
            "expected a string, found integer `3`",
            "teacher.big.weights",
        ),
        ("epochs = 2", "optimizer = 'sgd'", "expected a table with a `kind`, found string \"sgd\"", "train.optimizer"),
        ("epochs = 2", "schedule = { kind = 3 }", "expected a name, found integer `3`", "train.schedule.kind"),
        ("weight = 2.0", "weight = 'two'", "expected a number, found string \"two\"", "method.mine.terms[0].weight"),
        (
            "count = 64",
            "count = -1",
            "expected a whole number, 0 or more, found integer `-1`",
            "method.mine.terms[0].distiller.negatives.count",
        ),
        ("methods = [", "seeds = 0\nmethods = [", "expected a list, found integer `0`", "compare.seeds"),
        (
            "methods = [\"vanilla\", \"kd\", \"mine\"]",
            "methods = 'kd'",
            "expected a list, found string \"kd\"",
            "compare.methods",
        ),
        // A step may have the name of a distiller.
        (
            "[teacher.big]\n",
            "[dataset.views.grey]\nsteps = [{ kind = 'luminanc' }]\n[teacher.big]\n",
            "unknown value `luminanc`: did you mean `luminance`?",
            "dataset.views.grey.steps[0].kind",
        ),
        (
            "[teacher.big]\n",
            "[dataset.views.grey]\nsteps = [{ kind = 'wavelet' }]\n[teacher.big]\n",
            "unknown value `wavelet`: known here: normalise, resize, lab, luminance, ab, jitter",
            "dataset.views.grey.steps[0].kind",
        ),
        (
            "[teacher.big]\n",
            "[teacher.both]\ncombine = { kind = 'mean_logit', teachers = ['big'] }\n[teacher.big]\n",
            "unknown value `mean_logit`: did you mean `mean_logits`?",
            "teacher.both.combine.kind",
        ),
        (
            "[teacher.big]\n",
            "[teacher.both]\ncombine = { kind = 'confidence', teacher = ['big'] }\n[teacher.big]\n",
            "unknown key `teacher`: did you mean `teachers`?",
            "teacher.both.combine.teacher",
        ),
        (
            "[compare]\n",
            "[probe.far]\nstandardise = true\n[compare]\n",
            "unknown key `standardise`: did you mean `standardize`?",
            "probe.far.standardise",
        ),
        (
            "[compare]\n",
            "[probe.far]\ndataset = { kind = 'cifar11' }\n[compare]\n",
            "unknown dataset `cifar11`: did you mean `cifar10`?",
            "probe.far.dataset.kind",
        ),
        (
            "[compare]\n",
            "[probe.far.train]\nschedule = { kind = 'cosin' }\n[compare]\n",
            "unknown schedule `cosin`: did you mean `cosine`?",
            "probe.far.train.schedule.kind",
        ),
        (
            "weight = 2.0",
            "taps = [['stage1']]",
            "expected a pair [student's tap, teacher's tap], found a list of 1",
            "method.mine.terms[0].taps[0]",
        ),
        (
            "weight = 2.0",
            "taps = [['stage1', 'stage1', 'stage2']]",
            "expected a pair [student's tap, teacher's tap], found a list of 3",
            "method.mine.terms[0].taps[0]",
        ),
        (
            "weight = 2.0",
            "taps = ['stage1', 'stage1']",
            "expected a pair [student's tap, teacher's tap], found string \"stage1\"",
            "method.mine.terms[0].taps[0]",
        ),
    ] {
        assert_eq!(said(from, to), (message.to_owned(), format!("key: {key}")), "{to}");
    }
}

#[test]
fn a_grid_is_told_what_is_wrong_with_its_values() {
    for (grid, column, message, key) in [
        ("'train.epohs' = [1, 2]", 18, "unknown key `epohs`: did you mean `epochs`? (at epohs=1)", "train.epohs"),
        (
            "'train.epochs' = [1, 'two']",
            22,
            "expected a whole number, 0 or more, found string \"two\" (at epochs=two)",
            "train.epochs",
        ),
        (
            "'train.schedule.kind' = ['cosine', 'cosin']",
            36,
            "unknown schedule `cosin`: did you mean `cosine`? (at kind=cosin)",
            "train.schedule.kind",
        ),
        (
            "exclude = [{ batsh = 1 }]",
            14,
            "there is no axis `batsh`: known here: method, seed",
            "grid.exclude[0].batsh",
        ),
    ] {
        let text = format!("{GOOD}[grid]\n{grid}\n");
        let error = parse_grid(&text, Path::new("x.toml"), &[], &Filter::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{message}\n  --> x.toml:31:{column}\n")), "{error}");
        assert!(error.ends_with(&format!("\n  key: {key}")), "{error}");
    }
}

#[test]
fn schedules_of_terms_fit_the_training() {
    for (schedule, message) in [
        ("from = 0", "from must be between 1 and epochs (2), not 0"),
        ("from = 3", "from must be between 1 and epochs (2), not 3"),
        ("from = 2, to = 1", "to must be between from (2) and epochs (2), not 1"),
        ("cooldown_epochs = 3", "cooldown_epochs must be at most epochs (2), not 3"),
        ("form = 1", "unknown key `form`: did you mean `from`?"),
    ] {
        let set = format!("method.mine.terms[0].schedule={{ {schedule} }}");
        let error = error(GOOD, &[&set]);
        assert!(error.starts_with(&format!("{message}\n  --> --set {set}")), "{error}");
    }
    assert_eq!(
        error(GOOD, &["method.mine.terms[0].schedule={ to = 1 }", "method.mine.cross_entropy=0.0"])
            .lines()
            .next()
            .unwrap(),
        "method `mine` has nothing to minimise after epoch 1: every term has ended"
    );
}

#[test]
fn overrides_are_named_as_the_origin() {
    assert_eq!(
        error(GOOD, &["train.epoch=3"]),
        "unknown key `epoch`: did you mean `epochs`?\n  --> --set train.epoch=3\n  key: train.epoch"
    );
    assert_eq!(
        error(GOOD, &["train.epochs=many"]),
        "expected a whole number, 0 or more, found string \"many\"\n  --> --set train.epochs=many\n  key: train.epochs"
    );
    assert_eq!(
        error(GOOD, &["method.mine.terms[0].distiller.critic={ kind = \"ncee\" }"]),
        "unknown critic `ncee`: did you mean `nce`?\n  --> --set method.mine.terms[0].distiller.critic={ kind = \"ncee\" }\n  key: method.mine.terms[0].distiller.critic.kind"
    );
    assert_eq!(
        error(GOOD, &["method.mine.terms[3].weight=1"]),
        "there is no item [3]: the list has 1 (in `method.mine.terms[3].weight`)\n  --> --set method.mine.terms[3].weight=1"
    );
    assert_eq!(error(GOOD, &["epochs"]), "an override is KEY=VALUE\n  --> --set epochs");
}

#[test]
fn an_experiment_that_makes_no_sense() {
    assert_eq!(
        replaced("format = 1", "format = 2"),
        "format 2 is not known to this version of Limbeck, which reads format 1
  --> x.toml:1:1
  |
1 | format = 2
  | ^^^^^^
  key: format"
    );
    assert_eq!(
        replaced("[teacher.big.train]\nepochs = 1\n", ""),
        "teacher `big` has neither weights nor a recipe: give `weights = \"….safetensors\"`, or a table [teacher.big.train]
  --> x.toml:7:10
  |
7 | [teacher.big]
  |          ^^^
  key: teacher.big"
    );
    assert_eq!(
        replaced("epochs = 2", "epochs = 0"),
        "epochs must be between 1 and 1000000, not 0
  --> x.toml:16:1
   |
16 | epochs = 0
   | ^^^^^^
  key: train.epochs"
    );
    assert_eq!(
        replaced("epochs = 2", "optimizer = { kind = \"sgd\", momentum = 1.5 }"),
        "momentum must be in 0..1, not 1.5
  --> x.toml:16:29
   |
16 | optimizer = { kind = \"sgd\", momentum = 1.5 }
   |                             ^^^^^^^^
  key: train.optimizer.momentum"
    );
    assert_eq!(
        replaced("weight = 2.0", "weight = 2.0\nteachers = [\"bug\"]"),
        "there is no teacher `bug`; the experiment has big
  --> x.toml:22:13
   |
22 | teachers = [\"bug\"]
   |             ^^^^^
  key: method.mine.terms[0].teachers[0]"
    );
    assert_eq!(
        replaced("methods = [\"vanilla\", \"kd\", \"mine\"]", "methods = [\"kd\", \"kd\"]"),
        "\"kd\" is named twice
  --> x.toml:29:18
   |
29 | methods = [\"kd\", \"kd\"]
   |                  ^^^^
  key: compare.methods[1]"
    );
    assert_eq!(
        replaced("methods =", "accuracy = \"best_on_validation\"\nmethods ="),
        "\"best_on_validation\" needs `validation`, the number of samples to hold out
  --> x.toml:29:1
   |
29 | accuracy = \"best_on_validation\"
   | ^^^^^^^^
  key: compare.accuracy"
    );
    assert_eq!(
        replaced("methods =", "baseline = \"crd\"\nmethods ="),
        "the baseline `crd` is not among compare.methods
  --> x.toml:29:1
   |
29 | baseline = \"crd\"
   | ^^^^^^^^
  key: compare.baseline"
    );
}

#[test]
fn overrides_reach_into_built_in_methods() {
    let overrides = ["method.kd.cross_entropy=0.2", "method.crd+kd.terms[1].distiller.negatives.count=99"];
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    let text = GOOD.replace("\"mine\"]", "\"crd+kd\"]");
    let experiment = parse(&text, Path::new("x.toml"), &overrides).unwrap();
    let kd = experiment.method("kd").unwrap();
    assert_eq!((kd.cross_entropy, kd.terms.len(), kd.terms[0].weight), (0.2, 1, 0.9));
    assert!(toml::to_string(&experiment.method("crd+kd").unwrap()).unwrap().contains("count = 99"));
}

#[test]
fn the_registry_is_sound_and_every_plugin_documents_its_settings() {
    limbeck::registry::check().unwrap();
    for plugin in limbeck::registry::plugins() {
        assert!(!plugin.summary.is_empty(), "{}", plugin.name);
        if plugin.role == limbeck::registry::Role::Method {
            continue;
        }
        for line in plugin.settings().lines() {
            if !line.trim().is_empty() && !line.trim_start().starts_with(['#', '[']) {
                assert!(line.contains('#'), "{} `{}`: a setting without a comment: {line}", plugin.role, plugin.name);
            }
        }
    }
    let error = limbeck::registry::find(limbeck::registry::Role::Distiller, "fitnets").unwrap_err();
    assert_eq!(error.to_string(), "unknown distiller `fitnets`: did you mean `fitnet`?");
}

/// The message of an error that was found while planning the experiment in `file`.
fn placed(error: Error, file: &Path, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    locate(error, file, &overrides).to_string().replace(&file.display().to_string(), "x.toml")
}

fn absent() -> Error {
    Error::io("read", "w.bin")(std::io::ErrorKind::NotFound.into())
}

#[test]
fn what_was_found_while_planning_gets_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    std::fs::write(&file, GOOD).unwrap();
    assert_eq!(
        placed(absent().at("model").at(["teacher", "big"]), &file, &[]),
        "teacher.big: model: cannot read w.bin: entity not found
  --> x.toml:8:1
  |
8 | model = { kind = \"resnet20\" }
  | ^^^^^
  key: teacher.big.model"
    );
    assert_eq!(
        placed(Error::data("w.bin", "too long").at("dataset"), &file, &[]).lines().take(2).collect::<Vec<_>>(),
        ["dataset: w.bin: too long", "  --> x.toml:4:2"]
    );
    // What only an override has, or lies within one.
    assert_eq!(
        placed(Error::plan("too many (at seed=1)").at("validation"), &file, &["validation=9"]),
        "validation: too many (at seed=1)\n  --> --set validation=9\n  key: validation"
    );
    let set = "teacher.big={ model = { kind = 'resnet8' }, weights = 'none.safetensors' }";
    assert_eq!(
        placed(absent().at("weights").at(["teacher", "big"]), &file, &[set]),
        format!(
            "teacher.big: weights: cannot read w.bin: entity not found\n  --> --set {set}\n  key: teacher.big.weights"
        )
    );
    // A key that the file does not have, and a message that only looks like one.
    assert_eq!(placed(Error::plan("too many").at("validation"), &file, &[]), "validation: too many");
    for said in ["w.bin: too long", "dataset: too long"] {
        assert_eq!(placed(Error::plan(said), &file, &[]), said);
    }
}
