//! Every built-in method, and CRD's whole family, for a few steps on the embedded data: the student moves, the teacher does
//! not, and what is resumed in the middle ends with the same bytes.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::Mutex;

use limbeck::cohort::{self, Limit, Stop};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::prelude::*;
use limbeck::record::{EpochRecord, Outcome};
use limbeck::registry::{Role, plugins_of};
use limbeck::weights;
use limbeck_cli::run;
use limbeck_tests::experiment::{compare, set, small};
use limbeck_tests::runs::{execute, plan, student};
use serde::{Deserialize, Serialize};

/// Remembers the teacher's logits of every sample, and fails if they are others when it meets the sample again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Witness {}

static SEEN: Mutex<Option<HashMap<i64, Tensor>>> = Mutex::new(None);
static MET_AGAIN: Mutex<usize> = Mutex::new(0);

#[typetag::serde(name = "test_witness")]
impl DistillerConfig for Witness {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Ok(Box::new(self.clone()))
    }
}

impl Distiller for Witness {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let mut seen = SEEN.lock().unwrap();
        for (i, row) in step.rows.host().iter().enumerate() {
            let logits = step.teacher.logits.get(i as i64);
            assert!(!logits.requires_grad());
            match seen.get_or_insert_default().get(row) {
                Some(before) => {
                    let change = (&logits - before).abs().max().double_value(&[]);
                    assert!(change < 1e-5, "the teacher's logits of sample {row} moved by {change}");
                    *MET_AGAIN.lock().unwrap() += 1;
                }
                None => drop(seen.get_or_insert_default().insert(*row, logits)),
            }
        }
        Ok(Terms::of("nothing", step.student.logits.sum(Kind::Float) * 0.0))
    }
}

/// Each setting of CRD that the default has not, and combinations of terms.
const TABLES: &str = r#"
[method.ab]
terms = [{ weight = 1.0, distiller = { kind = "ab", initial_epochs = 1 } }]
[method.ft]
terms = [{ weight = 200.0, distiller = { kind = "ft", initial_epochs = 1 } }]
[method.fsp]
terms = [{ weight = 50.0, distiller = { kind = "fsp", initial_epochs = 1 } }]
[method.bilinear]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "bilinear" }, negatives = { kind = "other_class", count = 64 } } }]
[method.bilinear-nce]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "bilinear", loss = "nce" }, negatives = { kind = "whole_bank" } } }]
[method.mlp]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "mlp" }, negatives = { kind = "other_class", count = 16 } } }]
[method.mlp-nce]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "mlp", loss = "nce", hidden = 32 }, negatives = { kind = "in_batch" } } }]
[method.in-batch]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "info_nce" }, negatives = { kind = "in_batch", other_class = false } } }]
[method.in-batch-nce]
terms = [{ weight = 0.8, distiller = { kind = "crd", negatives = { kind = "in_batch" } } }]
[method.hardest]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "info_nce" }, negatives = { kind = "hardest", count = 16 } } }]
[method.hardest-bilinear]
terms = [{ weight = 0.8, distiller = { kind = "crd", critic = { kind = "bilinear" }, negatives = { kind = "hardest", count = 16, other_class = false } } }]
[method.other-instance]
terms = [{ weight = 0.8, distiller = { kind = "crd", negatives = { kind = "other_instance", count = 64 } } }]
[method.relaxed]
terms = [{ weight = 0.8, distiller = { kind = "crd", positives = "relaxed", negatives = { kind = "other_class", count = 64 } } }]
[method.mlp-head]
terms = [{ weight = 0.8, distiller = { kind = "crd", head = "mlp", embedding_width = 32, negatives = { kind = "other_class", count = 64 } } }]
[method.bank-bfloat16]
terms = [{ weight = 0.8, distiller = { kind = "crd", bank_precision = "bfloat16", bank_momentum = 0.9 } }]
[method.bank-float16]
terms = [{ weight = 0.8, distiller = { kind = "crd", bank_precision = "float16" } }]
[method.many]
cross_entropy = 0.5
terms = [
  { weight = 0.9, schedule = { to = 1 }, distiller = { kind = "kd" } },
  { weight = 100.0, schedule = { from = 2 }, distiller = { kind = "fitnet" } },
  { weight = 0.8, schedule = { warmup_epochs = 2 }, distiller = { kind = "crd", negatives = { kind = "other_class", count = 64 } } },
  { weight = 1.0, schedule = { cooldown_epochs = 2 }, distiller = { kind = "rkd" } },
  { weight = 1.0, distiller = { kind = "vid" }, taps = [["stage2", "stage1"]] },
]
[method.later]
terms = [{ weight = 0.9, schedule = { from = 2 }, distiller = { kind = "kd" } }]
[method.witness]
terms = [{ distiller = { kind = "test_witness" } }]
"#;

/// Two epochs of five steps, on images that are the same whenever they are seen.
fn experiment(methods: &[&str]) -> String {
    let text = small("methods", &format!("{TABLES}{}", compare(methods)));
    let data = "dataset={ kind = \"shapes\", train = 160, test = 40, crop_pad = 0, flip = false }";
    let train = "train={ epochs = 2, batch = 32, schedule = { kind = \"constant\" }, learning_rate = 0.02, checkpoint_steps = 5 }";
    set(&text, &[data, train, "teacher.big.model.kind=\"resnet14\""])
}

/// The main stage's epochs and the warnings, by lane.
#[derive(Default)]
struct Said {
    epochs: HashMap<String, Vec<EpochRecord>>,
    first_checkpoint: HashMap<String, Vec<(String, Tensor)>>,
    bad: Vec<String>,
}

impl Said {
    /// The main stage's epochs of a method's student with seed 0.
    fn of(&self, method: &str) -> &[EpochRecord] {
        &self.epochs[&format!("{method}, seed 0")]
    }
}

impl Observer for Said {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        match event {
            Event::Epoch(record) if record.stage == "main" => {
                self.epochs.entry(lane.name.clone()).or_default().push(record.clone());
            }
            Event::Checkpoint { path, .. } => {
                let first = self.first_checkpoint.entry(lane.name.clone());
                first.or_insert_with(|| weights::read(path).unwrap().tensors.into_iter().collect());
            }
            Event::Warning { message } => self.bad.push(format!("{}: {message}", lane.name)),
            Event::Ended(Outcome::Failed { reason, .. }) => self.bad.push(format!("{}: {reason}", lane.name)),
            _ => {}
        }
    }
}

#[test]
fn every_method_trains_its_student_and_resumes_to_the_same_bytes() {
    tch::set_num_threads(1);
    let own: toml::Table = TABLES.parse().unwrap();
    let built_in: Vec<&str> = plugins_of(Role::Method).iter().map(|plugin| plugin.name).collect();
    let custom = own["method"].as_table().unwrap().keys().map(String::as_str);
    let mut methods = built_in.clone();
    methods.extend(custom.filter(|name| !built_in.contains(name)));
    assert_eq!(methods.len(), built_in.len() + 16, "{methods:?}");
    let text = experiment(&methods);

    let folder = tempfile::tempdir().unwrap();
    let [undisturbed, parts] = ["whole", "parts"].map(|name| plan(&folder.path().join(name), &text, &[]).unwrap());
    let mut said = Said::default();
    execute(&undisturbed, &mut said);
    assert!(said.bad.is_empty(), "{:?}", said.bad);
    assert!(*MET_AGAIN.lock().unwrap() >= 160, "every sample was seen in both epochs");

    // Stopped within an epoch, in the main stage of some and the initial stage of others.
    let mut rounds = 0;
    while run::execute(&parts, &Stop::new(Some(Limit::Steps(3))), &mut Said::default()).unwrap().stopped {
        rounds += 1;
    }
    assert!(rounds >= 3, "{rounds}");

    let vanilla = student(&undisturbed, "vanilla");
    for cell in &undisturbed.cells {
        let own = student(&undisturbed, &cell.method);
        assert_eq!(own, student(&parts, &cell.method), "{} after resuming", cell.method);
        // The witness only looks.
        let is_vanilla = ["vanilla", "witness"].contains(&cell.method.as_str());
        assert_eq!(own == vanilla, is_vanilla, "{}: whether its loss reaches the student", cell.method);
        let end = weights::read(&cell.folder.join(cohort::STUDENT)).unwrap().tensors;
        let first = &said.first_checkpoint[&format!("{}, seed 0", cell.method)];
        for layer in ["conv1.weight", "layer3.0.conv2.weight"] {
            let (_, early) = first.iter().find(|(name, _)| *name == format!("student.{layer}")).unwrap();
            let moved = ((&end[layer] - early).norm() / early.norm()).double_value(&[]);
            assert!(moved > 1e-6 && moved.is_finite(), "{}: {layer} moved by {moved}", cell.method);
        }
    }

    for (method, bound) in [("crd", true), ("mlp-nce", true), ("in-batch", true), ("hardest", false)] {
        let told = said.of(method)[0].train.keys().any(|name| limbeck::critic::is_bound(name));
        assert_eq!(told, bound, "{method}");
    }

    // Before its first epoch a term changes nothing; after its last it is not computed.
    let (vanilla, later, many) = (said.of("vanilla"), said.of("later"), said.of("many"));
    assert_eq!(later[0].train["cross_entropy"], vanilla[0].train["cross_entropy"]);
    assert_eq!(later[0].test, vanilla[0].test);
    assert_ne!(later[1].train["cross_entropy"], vanilla[1].train["cross_entropy"]);
    let [first, second] = [0, 1].map(|epoch: usize| many[epoch].train.keys().collect::<Vec<_>>());
    assert!(first.iter().any(|name| name.starts_with("kd.")), "{first:?}");
    assert!(!second.iter().any(|name| name.starts_with("kd.")), "{second:?}");
    assert!(first.iter().any(|name| name.starts_with("fitnet.")), "{first:?}");
}
