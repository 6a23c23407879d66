//! The conformance checks: every built-in plugin passes them, and each fault of a plugin is caught and named.
//!
//! A broken plugin is one type with a setting that says what is wrong with it; with `fault = "none"` nothing is.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use indexmap::IndexMap;
use limbeck::prelude::*;
use limbeck::registry::{Role, plugins_of};
use limbeck::settings::Setting;
use limbeck::task::{Better, ClassScore, Example, MetricInfo, Unit};
use limbeck_cli as _;
use limbeck_conformance::Outcome;
use limbeck_tests::files::png;
use serde::{Deserialize, Serialize};

/// Settings that fit the checks' forty samples; an initial stage need not last.
fn settings(role: Role, name: &str) -> &'static str {
    match (role, name) {
        (Role::Distiller, "ab" | "ft" | "fsp") => "initial_epochs = 1",
        (Role::Negatives, "hardest") => "count = 4",
        (Role::Dataset, "shapes") => "train = 60\ntest = 40",
        _ => "",
    }
}

fn conform(role: Role) {
    tch::set_num_threads(1);
    let built_in = plugins_of(role).into_iter().filter(|plugin| plugin.package != env!("CARGO_PKG_NAME"));
    // What comes complete from a file has no training to be checked: tests/teachers.rs has what it promises.
    for plugin in built_in.filter(|plugin| !["precomputed", "torchscript"].contains(&plugin.name)) {
        limbeck_conformance::check(role, plugin.name, settings(role, plugin.name)).assert();
    }
}

#[test]
fn every_distiller() {
    conform(Role::Distiller);
}

#[test]
fn every_critic() {
    conform(Role::Critic);
}

#[test]
fn every_sampler_of_negatives() {
    conform(Role::Negatives);
}

#[test]
fn every_network() {
    conform(Role::Model);
}

#[test]
fn every_data_set() {
    tch::set_num_threads(1);
    for plugin in plugins_of(Role::Dataset).into_iter().filter(|plugin| plugin.package != env!("CARGO_PKG_NAME")) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files(folder.path());
        let more = match plugin.name {
            "cifar10" => files.cifar10(),
            "cifar100" => files.cifar100(),
            "stl10" => files.stl10(),
            "tiny_imagenet" => files.tiny_imagenet(),
            "image_folder" => files.image_folder(),
            "paired_folders" => files.paired_folders(),
            _ => "",
        };
        let settings = match settings(Role::Dataset, plugin.name) {
            "" => format!("path = {:?}\n{more}", folder.path()),
            settings => settings.to_owned(),
        };
        limbeck_conformance::check(Role::Dataset, plugin.name, &settings).assert();
    }
}

/// The files of a data set: as many as there are where the number is fixed (holes in files take no room), else a few.
/// Each function returns the settings that the files want beside `path`.
struct Files<'a>(&'a Path);

impl Files<'_> {
    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn zeros(&self, name: &str, bytes: u64) {
        File::create(self.0.join(name)).unwrap().set_len(bytes).unwrap();
    }

    fn names(&self, name: &str, classes: usize) {
        self.write(name, (0..classes).map(|class| format!("class_{class}\n")).collect::<String>());
    }

    fn png(&self, kind: &str, number: usize, colour: png::ColorType, pixels: &[u8]) {
        png(&self.0.join(format!("{kind}/{number:02}.png")), [12, 16], colour, pixels);
    }

    fn jpeg(&self, name: &str, side: u16, salt: usize) {
        self.write(name, []);
        let bytes: Vec<u8> = (0..3 * usize::from(side).pow(2)).map(|i| (i / 7 + 40 * salt) as u8).collect();
        let encoder = jpeg_encoder::Encoder::new_file(self.0.join(name), 90).unwrap();
        encoder.encode(&bytes, side, side, jpeg_encoder::ColorType::Rgb).unwrap();
    }

    fn cifar10(&self) -> &'static str {
        for file in 1..=5 {
            self.zeros(&format!("data_batch_{file}.bin"), 10_000 * 3073);
        }
        self.zeros("test_batch.bin", 10_000 * 3073);
        self.names("batches.meta.txt", 10);
        ""
    }

    fn cifar100(&self) -> &'static str {
        self.zeros("train.bin", 50_000 * 3074);
        self.zeros("test.bin", 10_000 * 3074);
        self.names("fine_label_names.txt", 100);
        self.names("coarse_label_names.txt", 20);
        ""
    }

    fn stl10(&self) -> &'static str {
        const IMAGE: u64 = 3 * 96 * 96;
        self.zeros("train_X.bin", 5_000 * IMAGE);
        self.write("train_y.bin", [1; 5_000]);
        self.zeros("test_X.bin", 8_000 * IMAGE);
        self.write("test_y.bin", [10; 8_000]);
        self.names("class_names.txt", 10);
        ""
    }

    fn tiny_imagenet(&self) -> &'static str {
        self.write("wnids.txt", "n01\nn02\n");
        self.write("words.txt", "n01\tgoldfish\nn02\tbullfrog\n");
        for i in 0..8 {
            let class = 1 + i % 2;
            self.jpeg(&format!("train/n0{class}/images/n0{class}_{i}.JPEG"), 64, i);
            self.jpeg(&format!("val/images/val_{i}.JPEG"), 64, i + 1);
        }
        let lines = (0..8).map(|i| format!("val_{i}.JPEG\tn0{}\t0\t0\t9\t9\n", 1 + i % 2));
        self.write("val/val_annotations.txt", lines.collect::<String>());
        ""
    }

    fn image_folder(&self) -> &'static str {
        for i in 0..12 {
            self.jpeg(&format!("train/{}/{i}.jpg", ["cat", "dog"][i % 2]), 24 + 4 * i as u16, i);
            self.jpeg(&format!("val/{}/{i}.jpg", ["cat", "dog"][i % 2]), 40, i);
        }
        "size = [16, 16]"
    }

    fn paired_folders(&self) -> &'static str {
        for i in 0..12_usize {
            let grey: Vec<u8> = (0..12 * 16).map(|p| (p + 9 * i) as u8).collect();
            self.png("depth", i, png::ColorType::Grayscale, &grey);
            self.png("rgb", i, png::ColorType::Rgb, &[&grey[..], &grey, &grey].concat());
            self.png("labels", i, png::ColorType::Grayscale, &[(i % 3) as u8; 12 * 16]);
        }
        "size = [12, 16]\nclasses = 3\nblock = 1"
    }
}

#[test]
fn every_task() {
    conform(Role::Task);
}

#[test]
fn every_method_schedule_and_optimiser() {
    conform(Role::Method);
    conform(Role::Schedule);
    conform(Role::Optimizer);
}

/// Checks `broken` with each fault: the checks that find it, and what they say of it.
fn caught(role: Role, faults: &[(&str, &[&str], &str)]) {
    tch::set_num_threads(1);
    for (fault, checks, message) in faults {
        let report = limbeck_conformance::check(role, "broken", &format!("fault = {fault:?}"));
        let found: Vec<(&str, &str)> = report.faults().collect();
        let names: Vec<&str> = found.iter().map(|(check, _)| *check).collect();
        assert_eq!(&names, checks, "{fault}: {report}");
        assert!(checks.is_empty() || found.iter().any(|(_, said)| said.contains(message)), "{fault}: {report}");
    }
}

limbeck::plugin! { distiller "broken": BrokenDistiller, summary: "", citation: "" }

#[derive(Clone, Debug, Settings)]
struct BrokenDistiller {
    /// What is wrong with it.
    #[setting(default = "none")]
    fault: String,
}

#[typetag::serde(name = "broken")]
impl DistillerConfig for BrokenDistiller {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        match self.fault.as_str() {
            "refuses everyone" => Err(Error::plan("nobody fits")),
            "declares a tap too many" => site.stages(Form::Output),
            "does not declare its tap" => site.logits_only(),
            _ => site.pooled(),
        }
    }

    fn build(&self, site: &Site<'_>, params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let start = if self.fault == "begins by chance" { chance() } else { 0.1 };
        if self.fault == "trains what it does not use" {
            let _ = params.ones("bystander", &[3]);
        }
        let shape = [site.student, site.teacher].map(|side| side.taps.last().map_or(1, |tap| tap.shape.channels()));
        let head = params.var("head", &shape, nn::Init::Const(start));
        Ok(Box::new(LiveBrokenDistiller { fault: self.fault.clone(), head, steps: 0.0, kept: Vec::new(), id: count() }))
    }
}

/// Another number each time.
fn count() -> i64 {
    static CALLS: AtomicI64 = AtomicI64::new(0);
    CALLS.fetch_add(1, Ordering::Relaxed)
}

/// A number that no seed determines.
fn chance() -> f64 {
    1.0 / (count() + 2) as f64
}

#[derive(Debug)]
struct LiveBrokenDistiller {
    fault: String,
    head: Tensor,
    steps: f64,
    kept: Vec<Tensor>,
    id: i64,
}

/// Whose step was the last, of those that are alive.
static SHARED: Mutex<Option<i64>> = Mutex::new(None);

impl Drop for LiveBrokenDistiller {
    fn drop(&mut self) {
        *SHARED.lock().unwrap() = None;
    }
}

impl Distiller for LiveBrokenDistiller {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let pooled = TapRef::output("pooled");
        if self.fault == "declares a tap too many" {
            let (student, teacher) = step.pairs()?[0];
            let [student, teacher] = [student, teacher].map(|map| map.mean(None::<Kind>));
            return Ok(Terms::of("first", (student - teacher).square() + self.head.square().mean(None::<Kind>)));
        }
        let (student, teacher) = (step.student.tap(&pooled)?, step.teacher.tap(&pooled)?);
        let distance = (student.matmul(&self.head) - teacher).square();
        let loss = distance.mean(None::<Kind>);
        self.steps += 1.0;
        let loss = match self.fault.as_str() {
            "detaches the student" => (student.detach().matmul(&self.head) - teacher).square().mean(None::<Kind>),
            "changes the teacher" => {
                let _ = teacher.shallow_clone().g_mul_scalar_(2.0);
                loss
            }
            "divides by zero" => loss / student.abs().sum(None::<Kind>),
            "has no gradient at zero" => loss + student.square().sum(None::<Kind>).sqrt(),
            "compares neighbours" => loss + student.diff(1, 0, None::<Tensor>, None::<Tensor>).abs().mean(None::<Kind>),
            "cancels" => (loss + 1e6) - 1e6,
            "counts in a field" => loss * (1.0 + self.steps),
            "is a static" => loss * chance(),
            "shares a static" => match SHARED.lock().unwrap().replace(self.id) {
                Some(other) if other != self.id => loss * 2.0,
                _ => loss,
            },
            "remembers every step" => {
                self.kept.push(loss.shallow_clone());
                loss
            }
            "changes what it borrows" => {
                let (weight, _) = step.teacher.classifier()?;
                let _ = weight.shallow_clone().g_mul_scalar_(2.0);
                loss
            }
            "is no scalar" => distance,
            "panics" => student.matmul(student),
            // Checks look at few steps from the first on; a student is trained for an epoch.
            "fails later" if step.step > 2 => return Err(Error::run("not after step 2")),
            _ => loss,
        };
        Ok(Terms::of("distance", loss))
    }
}

const ORDER: &str = "the order of the batch does not matter";
const FINITE: &str = "losses and gradients are finite for constant, huge, tiny and identical features";
const RESUMED: &str = "a student that was resumed ends as one that was not";
const BESIDE: &str = "a student ends the same alone and beside others";
const TWICE: &str = "one seed gives the same twice";
const REACH: &str = "gradients reach the student and every parameter of its own";
const USED: &str = "every declared tap is used";
const SINGLE: &str = "float32 agrees with float64";
const DECLARED: &str = "a loss comes of the declared taps";

#[test]
fn a_broken_distiller_is_caught_by_name() {
    caught(
        Role::Distiller,
        &[
            ("none", &[], ""),
            ("refuses everyone", &["it fits a student and a teacher of other widths, or of the same"], "nobody fits"),
            ("does not declare its tap", &[DECLARED], "tap `pooled` was not recorded: declare it in `taps`"),
            ("panics", &[DECLARED], "libtorch: "),
            ("is no scalar", &[DECLARED], "has shape [8, 64], a loss is a scalar"),
            ("begins by chance", &[TWICE], "`head` begins with other values each time"),
            ("detaches the student", &[REACH, USED], "no gradient reaches the student's logits or taps"),
            ("trains what it does not use", &[REACH], "no loss reaches bystander, which would not train"),
            (
                "changes the teacher",
                &["teacher, student and labels are left as they are"],
                "tap `pooled` of the teacher were changed",
            ),
            (
                "changes what it borrows",
                &["teacher, student and labels are left as they are"],
                "the lent `fc.weight` of the teacher were changed",
            ),
            (
                "declares a tap too many",
                &[USED],
                "the student's tap `stage2` is declared in `taps`, but no loss depends on it",
            ),
            ("divides by zero", &[FINITE], "where features are zero everywhere, the loss is"),
            ("has no gradient at zero", &[FINITE], "zero everywhere, the gradient of tap `pooled` is not finite"),
            ("compares neighbours", &[ORDER], "if that is meant, say so with `order_matters`"),
            ("cancels", &[SINGLE], "apart where 1e-4 is allowed"),
            ("counts in a field", &[RESUMED], "it keeps state that is not in the checkpoint"),
            ("is a static", &[TWICE], "use no clock and no static"),
            ("shares a static", &[BESIDE], "something that others share"),
            ("remembers every step", &["memory does not grow"], "memory kept growing over"),
            ("fails later", &["memory does not grow", "it trains"], "not after step 2"),
        ],
    );
}

limbeck::plugin! { distiller "lax": Lax, summary: "", citation: "" }

/// Takes every key, and does not write its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lax {
    #[serde(skip_serializing)]
    written: f64,
}

impl Settings for Lax {
    fn settings() -> Vec<Setting> {
        vec![Setting::new("written", &1.0, &["Lost."])]
    }

    fn check_ranges(&self) -> Result<()> {
        Ok(())
    }
}

#[typetag::serde(name = "lax")]
impl DistillerConfig for Lax {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        site.logits_only()
    }

    fn build(&self, _site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        Err(Error::plan(format!("{} is too much", self.written)))
    }
}

#[test]
fn settings_that_are_lost_or_not_checked_are_caught() {
    let report = limbeck_conformance::check(Role::Distiller, "lax", "");
    let faults: Vec<(&str, &str)> = report.faults().collect();
    let [(trip, lost), (unknown, accepted), (fits, refused)] = faults[..] else { panic!("{report}") };
    assert_eq!(trip, "the default settings are complete and survive a round trip");
    assert!(lost.contains("its default settings change when read"), "{lost}");
    assert_eq!(unknown, "an unknown key is refused");
    assert!(accepted.contains("add #[serde(deny_unknown_fields)]"), "{accepted}");
    assert_eq!(
        (fits, refused.contains("1 is too much")),
        ("it fits a student and a teacher of other widths, or of the same", true)
    );

    let report = limbeck_conformance::check(Role::Critic, "borken", "");
    assert_eq!(
        report.to_string(),
        "critic `borken`:\n  FAULT    the plugin is registered: unknown critic `borken`: did you mean `broken`?\n"
    );
    let report = limbeck_conformance::check(Role::Critic, "broken", "fault = none");
    assert!(matches!(&report.findings[..], [finding] if matches!(finding.outcome, Outcome::Fault(_))), "{report}");
}

limbeck::plugin! { critic "broken": BrokenCritic, summary: "", citation: "" }

#[derive(Clone, Debug, Settings)]
struct BrokenCritic {
    /// What is wrong with it.
    #[setting(default = "none")]
    fault: String,
}

#[typetag::serde(name = "broken")]
impl CriticConfig for BrokenCritic {
    fn build(&self, site: &CriticSite, params: &nn::Path<'_>) -> Result<Box<dyn Critic>> {
        let start = if self.fault == "begins by chance" { chance() } else { 1.0 };
        let scale = params.var("scale", &[site.embedding_width], nn::Init::Const(start));
        Ok(Box::new(LiveBrokenCritic { fault: self.fault.clone(), scale, calls: 0.0, kept: Vec::new() }))
    }
}

#[derive(Debug)]
struct LiveBrokenCritic {
    fault: String,
    scale: Tensor,
    calls: f64,
    kept: Vec<Tensor>,
}

impl Critic for LiveBrokenCritic {
    fn factors(&self) -> bool {
        true
    }

    fn score(&self, _side: Side, anchors: &Tensor, candidates: &Tensor) -> Result<Tensor> {
        let anchors = match self.fault.as_str() {
            "detaches" => anchors.detach() * &self.scale,
            _ => anchors * &self.scale,
        };
        let scores = match (candidates.dim(), self.fault.as_str()) {
            (2, "transposes") => candidates.matmul(&anchors.tr()),
            (2, _) => anchors.matmul(&candidates.tr()),
            (_, "scores pairs otherwise") => candidates.bmm(&anchors.unsqueeze(-1)).squeeze_dim(-1) * 2.0,
            _ => candidates.bmm(&anchors.unsqueeze(-1)).squeeze_dim(-1),
        };
        Ok(if self.fault == "is not linear" { scores.tanh() } else { scores })
    }

    fn loss(&mut self, _side: Side, scores: &Scores) -> Result<Terms> {
        let mut negative = scores.negative.softplus();
        if let (Some(mask), false) = (&scores.mask, self.fault == "ignores the mask") {
            negative = negative.masked_fill(&mask.logical_not(), 0.0);
        }
        self.calls += 1.0;
        if self.fault == "remembers every call" {
            self.kept.push(negative.shallow_clone());
        }
        let loss = (negative.sum(None::<Kind>) - scores.positive.log_sigmoid().sum(None::<Kind>)) / 10.0;
        let loss = match self.fault.as_str() {
            "overflows" => loss + scores.positive.square().square().exp().sum(None::<Kind>),
            "prefers the first" => loss + scores.positive.get(0).square(),
            "counts in a field" => loss * self.calls,
            "cancels" => (loss + 1e6) - 1e6,
            _ => loss,
        };
        let terms = Terms::of("loss", loss);
        let tells = scores.fair || self.fault == "bounds what nothing bounds";
        let terms = if tells { terms.metric("mutual_information", scores.positive.mean(None::<Kind>)) } else { terms };
        Ok(if self.fault == "gives two losses" { terms.loss("more", scores.positive.sum(None::<Kind>)) } else { terms })
    }
}

#[test]
fn a_broken_critic_is_caught_by_name() {
    const LOSS: &str = "there is one finite loss, for extreme scores too";
    caught(
        Role::Critic,
        &[
            ("none", &[], ""),
            (
                "transposes",
                &["scores have a row for each anchor and a column for each candidate"],
                "[6, 8] × [30, 8] gave [30, 6] instead of [6, 30]",
            ),
            ("begins by chance", &["one seed gives the same twice"], "`scale` begins with other values each time"),
            ("scores pairs otherwise", &["a pair has one score, in a bank and among pairs"], "by pairs are 1.0e0 from"),
            ("is not linear", &["a score that `factors` is linear in the candidate"], "let `factors` be false"),
            (
                "detaches",
                &["gradients reach both embeddings and every parameter"],
                "no gradient reaches the anchors of the student's side",
            ),
            ("overflows", &[LOSS, SINGLE], "where positives score 40 and negatives -40, the loss is inf"),
            ("ignores the mask", &["masked scores do not count"], "with other scores behind the mask the loss"),
            (
                "bounds what nothing bounds",
                &["a bound on the mutual information is given for fair negatives only"],
                "nothing bounds it then",
            ),
            (
                "prefers the first",
                &["the order of anchors and of negatives does not matter"],
                "in another order the loss",
            ),
            ("cancels", &[SINGLE], "in float32 the loss"),
            (
                "counts in a field",
                &["everything that it remembers is registered on `params`"],
                "after its variables were restored the loss",
            ),
            ("remembers every call", &["memory does not grow"], "memory kept growing over"),
        ],
    );
    let report = limbeck_conformance::check(Role::Critic, "broken", "fault = \"gives two losses\"");
    assert!(
        report.faults().any(|(check, fault)| check == LOSS && fault == "there are 2 losses instead of one"),
        "{report}"
    );
}

limbeck::plugin! { negatives "broken": BrokenSampler, summary: "", citation: "" }

#[derive(Clone, Debug, Settings)]
struct BrokenSampler {
    /// What is wrong with it.
    #[setting(default = "none")]
    fault: String,
}

#[typetag::serde(name = "broken")]
impl NegativeSamplerConfig for BrokenSampler {
    fn build(&self, site: &Site<'_>) -> Result<Box<dyn NegativeSampler>> {
        if self.fault == "panics for one class" {
            assert!(site.classes > 1);
        }
        if self.fault == "refuses everyone" {
            return Err(Error::plan("nobody fits"));
        }
        Ok(Box::new(LiveBrokenSampler { fault: self.fault.clone(), labels: site.labels.to_vec(), draws: 0 }))
    }
}

#[derive(Debug)]
struct LiveBrokenSampler {
    fault: String,
    labels: Vec<i64>,
    draws: u64,
}

impl NegativeSampler for LiveBrokenSampler {
    fn spares_class(&self) -> bool {
        self.fault == "does not spare the class"
    }

    fn wants_bank(&self) -> bool {
        self.fault != "keeps no bank"
    }

    fn draw(&mut self, draw: &Draw<'_>) -> Result<Negatives> {
        let samples = self.labels.len() as i64;
        self.draws += 1;
        let seed = if self.fault == "keeps state" { draw.seed.at(self.draws) } else { draw.seed };
        let mut rows = Vec::new();
        for (place, anchor) in draw.rows.host().iter().enumerate() {
            let at = if self.fault == "draws by place" { place as u64 } else { *anchor as u64 };
            let other = 1 + seed.at(at).rng().below(samples as u64 - 1) as i64;
            rows.push(match self.fault.as_str() {
                "draws the anchor" => *anchor,
                "draws what is not there" => samples,
                _ => (anchor + other) % samples,
            });
        }
        let rows = Tensor::from_slice(&rows);
        Ok(Negatives::Rows(if self.fault == "forgets a dimension" { rows } else { rows.unsqueeze(1) }))
    }
}

#[test]
fn a_broken_sampler_is_caught_by_name() {
    const OTHERS: &str = "negatives exist and are never the anchor itself";
    caught(
        Role::Negatives,
        &[
            ("none", &[], ""),
            ("draws the anchor", &[OTHERS], "a sample is its own negative"),
            ("draws what is not there", &[OTHERS], "rows 40 to 40 were drawn of a training set of 40 samples"),
            ("forgets a dimension", &[OTHERS], "rows of [6] Int64 were given where [6, K] Int64 is wanted"),
            ("keeps no bank", &["they are of the form that `wants_bank` announces"], "although `wants_bank` is false"),
            ("does not spare the class", &["no negative is of its anchor's class"], "although `spares_class` says"),
            ("keeps state", &["a draw is a function of the seed"], "keep no state between draws"),
            (
                "draws by place",
                &["an anchor's negatives do not depend on its place in the batch"],
                "draw from `seed.at(row)`",
            ),
            ("panics for one class", &["a training set of one class gives an error or valid negatives"], "panic: "),
            ("refuses everyone", &["it can be built"], "nobody fits"),
        ],
    );
}

limbeck::plugin! { model "broken": BrokenModel, summary: "", citation: "" }

#[derive(Clone, Debug, Settings)]
struct BrokenModel {
    /// What is wrong with it.
    #[setting(default = "none")]
    fault: String,
}

#[typetag::serde(name = "broken")]
impl ModelConfig for BrokenModel {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        let [channels, height, width] = spec.input;
        if channels < 1 && self.fault != "takes any image" {
            return Err(Error::plan("no channels"));
        }
        if self.fault == "refuses everyone" {
            return Err(Error::plan("nobody fits"));
        }
        let start = if self.fault == "begins by chance" { chance() } else { 0.05 };
        let init = nn::Init::Randn { mean: start, stdev: 0.2 };
        let conv = tch::nn::conv2d(
            path / "conv",
            channels.max(1),
            4,
            1,
            nn::ConvConfig { ws_init: init, ..Default::default() },
        );
        let norm = tch::nn::batch_norm2d(path / "bn", 4, Default::default());
        let fc = tch::nn::linear(path / "fc", 4, spec.classes, Default::default());
        if self.fault == "trains what it does not use" {
            let _ = (path / "fc").ones("extra", &[2]);
        }
        let stem: &[&str] = if self.fault == "forgets a group" { &["conv"] } else { &["conv", "bn"] };
        if self.fault == "lends another classifier" {
            let _ = (path / "fc").randn_standard("other", &[spec.classes, 4]).set_requires_grad(false);
        }
        let channels = if self.fault == "lies on a shape" { 5 } else { 4 };
        let batch_norm = BatchNormInfo::new(&(path / "bn"));
        let taps =
            vec![TapInfo::map("stem", [channels, height, width]).behind(batch_norm), TapInfo::vector("pooled", 4)];
        let stem = stem.iter().map(|name| (*name).to_owned()).collect();
        let groups = vec![
            Group { name: "stem".to_owned(), parameters: stem, feature: true },
            Group { name: "fc".to_owned(), parameters: vec!["fc".to_owned()], feature: false },
        ];
        let mut classifier = ClassifierInfo::new(&(path / "fc"), "pooled");
        match self.fault.as_str() {
            "lends another classifier" => classifier.weight = "fc.other".to_owned(),
            "lends what it has not" => classifier.weight = "head.weight".to_owned(),
            _ => {}
        }
        let spared = if self.fault == "spares what does not train" { "bn.running_mean" } else { "bn.bias" };
        let signature =
            Signature::new(spec, taps, groups).with_classifier(classifier).with_no_decay(vec![spared.to_owned()]);
        Ok(Box::new(LiveBrokenModel { fault: self.fault.clone(), signature, conv, norm, fc, kept: Mutex::default() }))
    }
}

#[derive(Debug)]
struct LiveBrokenModel {
    fault: String,
    signature: Signature,
    conv: nn::Conv2D,
    norm: nn::BatchNorm,
    fc: nn::Linear,
    kept: Mutex<Vec<Tensor>>,
}

impl Model for LiveBrokenModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let all = Taps::all(&self.signature);
        let mut record = Recorder::new(if self.fault == "keeps every tap" { &all } else { want });
        let train = match self.fault.as_str() {
            "always trains" => true,
            "ignores groups" => mode != Mode::Eval,
            _ => mode.trains("stem"),
        };
        let sum = input.apply(&self.conv).apply_t(&self.norm, train);
        let sum = if self.fault == "scales behind its BatchNorm" { sum * 2.0 } else { sum };
        record.pre_activation("stem", &sum);
        let x = sum.relu();
        record.output("stem", &x);
        let pooled = x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
        record.output("pooled", &pooled);
        if self.fault == "remembers every pass" {
            self.kept.lock().unwrap().push(x);
        }
        let logits = pooled.apply(&self.fc);
        let logits = if self.fault == "draws in evaluation" { logits.dropout(0.5, true) } else { logits };
        record.finish(if self.fault == "cancels" { (logits + 1e6) - 1e6 } else { logits })
    }

    fn fold_batch_norm(&mut self, _kind: Kind) -> Result<limbeck::model::Folded> {
        match self.fault.as_str() {
            "folds nothing well" => {
                let _ = self.fc.ws.shallow_clone().g_mul_scalar_(2.0);
                Ok(limbeck::model::Folded { folded: 1, kept: 0 })
            }
            _ => Err(Error::plan("it does not fold")),
        }
    }
}

#[test]
fn a_broken_network_is_caught_by_name() {
    const EVALUATION: &str = "evaluation changes nothing and treats samples one by one";
    const WANTED: &str = "the wanted taps are recorded, and what is not there is an error";
    const FROZEN: &str = "what a frozen group computes and remembers stands still";
    const CLASSIFIER: &str = "the logits are what the classifier that it lends makes of its tap";
    const BATCH_NORM: &str = "a tap follows the BatchNorm that is lent for it";
    caught(
        Role::Model,
        &[
            ("none", &[], ""),
            ("refuses everyone", &["it can be built for colour images of 32, 64 or 224 pixels"], "nobody fits"),
            (
                "lies on a shape",
                &["logits and taps have the signature's shapes"],
                "tap `stem` is [3, 4, 32, 32], and [3, 5, 32, 32] by the signature",
            ),
            ("begins by chance", &[TWICE], "conv.weight begin with other values each time"),
            ("forgets a group", &["every parameter is in one group", FROZEN], "`bn.weight` is in no group"),
            ("keeps every tap", &[WANTED], "`stem` alone was wanted, and others were kept: use `Recorder`"),
            ("always trains", &[EVALUATION, FROZEN], "an evaluation changed bn.running_mean, bn.running_var"),
            ("ignores groups", &[FROZEN], "with every group frozen a pass moved bn.running_mean"),
            (
                "draws in evaluation",
                &[WANTED, EVALUATION, CLASSIFIER],
                "two evaluations gave different logits: is dropout on?",
            ),
            ("trains what it does not use", &["gradients reach every parameter"], "do not depend on `fc.extra`"),
            ("lends another classifier", &[CLASSIFIER], "`fc.other` makes of tap `pooled` what is"),
            (
                "lends what it has not",
                &[CLASSIFIER, BATCH_NORM],
                "lends `head.weight`, and has no parameter of that name",
            ),
            (
                "scales behind its BatchNorm",
                &[BATCH_NORM],
                "tap `stem:pre` does not follow `bn.weight` and `bn.bias` as the output of their BatchNorm does",
            ),
            (
                "spares what does not train",
                &["every parameter that weight decay should spare is one that trains"],
                "`bn.running_mean` is named for `no_decay`, and is no parameter that trains",
            ),
            ("cancels", &[SINGLE], "apart where 1e-3 is allowed"),
            ("folds nothing well", &["folding BatchNorm changes nothing beyond rounding"], "logits are "),
            ("remembers every pass", &["memory does not grow"], "memory kept growing over"),
            ("takes any image", &["an impossible image is an error"], "check `ModelSpec` and say what is wanted"),
        ],
    );
}

limbeck::plugin! { dataset "broken": BrokenDataset, summary: "", citation: "" }

#[derive(Clone, Debug, Settings)]
struct BrokenDataset {
    /// What is wrong with it.
    #[setting(default = "none")]
    fault: String,
}

#[typetag::serde(name = "broken")]
impl DatasetConfig for BrokenDataset {
    fn build(&self, _device: Device) -> Result<Box<dyn Dataset>> {
        if self.fault == "refuses everyone" {
            return Err(Error::plan("nobody fits"));
        }
        let labels: Vec<i64> = (0..10).map(|row| row % 2).collect();
        let more = if self.fault == "has a label too high" { 1 } else { 0 };
        let identity = if self.fault == "changes its identity" { chance().to_string() } else { "broken".to_owned() };
        let second = if self.fault == "names two classes alike" { "a" } else { "b" };
        let info = DatasetInfo {
            notes: Vec::new(),
            name: "Broken".to_owned(),
            identity,
            class_names: ["a", second].map(str::to_owned).to_vec(),
            task: if self.fault.ends_with("sets") { &Presence } else { &Classification },
            train_labels: labels.iter().map(|label| label + more).collect(),
            test_labels: labels.into(),
            views: vec![ViewInfo { name: "image".to_owned(), shape: [3, 4, 4] }],
        };
        Ok(Box::new(LiveBrokenDataset { fault: self.fault.clone(), info, kept: Mutex::default() }))
    }
}

#[derive(Debug)]
struct LiveBrokenDataset {
    fault: String,
    info: DatasetInfo,
    kept: Mutex<Vec<Tensor>>,
}

impl LiveBrokenDataset {
    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }
}

impl Dataset for LiveBrokenDataset {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, draw: Option<Seed>) -> Result<Batch> {
        let shift = match draw {
            Some(seed) if self.has("augments by place") => {
                Tensor::arange(rows.len() as i64, (Kind::Float, Device::Cpu)) * seed.rng().unit()
            }
            Some(seed) => seed.draw_rows(rows.device()).remainder(5).to_kind(Kind::Float),
            None if self.has("augments in evaluation") => Tensor::full([1], chance(), (Kind::Float, Device::Cpu)),
            None => Tensor::zeros([1], (Kind::Float, Device::Cpu)),
        };
        let pixel = Tensor::arange(48, (Kind::Float, Device::Cpu)).view([1, 4, 4, 3]);
        let images = pixel + (rows.device().to_kind(Kind::Float) + shift).view([-1, 1, 1, 1]);
        let images = images.permute([0, 3, 1, 2]);
        let images = match self.fault.as_str() {
            "is in another order" => images.contiguous(),
            "is in float64" => images.to_kind(Kind::Double),
            "is infinite" => images / 0.0,
            _ => images,
        };
        if self.has("remembers every batch") {
            self.kept.lock().unwrap().push(images.shallow_clone());
        }
        let beyond = rows.host().iter().any(|row| *row >= self.info.labels(split).len() as i64);
        if beyond && !self.has("takes any row") {
            return Err(Error::run("there is no such row"));
        }
        let mut found = IndexMap::new();
        for name in views.iter() {
            if !self.has("takes any view") {
                self.info.view(Some(name))?;
            }
            found.insert(name.to_owned(), images.shallow_clone());
        }
        let labels: Vec<i64> = rows.host().iter().map(|row| self.info.labels(split)[*row as usize % 10]).collect();
        let labels = Tensor::from_slice(&labels);
        let targets = self
            .has("has halves in its sets")
            .then(|| Tensor::full([labels.size()[0], 2], 0.5, (Kind::Float, Device::Cpu)));
        let labels = if self.has("mixes up labels") { labels.flip([0]) } else { labels };
        Ok(Batch { views: found, labels, targets })
    }
}

#[test]
fn a_broken_data_set_is_caught_by_name() {
    const ORDER: &str = "classes, labels and views are in order";
    const BATCH: &str = "a batch is [B, C, H, W], float32, finite, channels_last, with its labels";
    const AUGMENTS: &str = "a sample's augmentation is a function of the seed and of its row";
    caught(
        Role::Dataset,
        &[
            ("none", &[], ""),
            ("has a label too high", &[ORDER], "row 1 of the Train part has label 2 of 2 classes"),
            ("names two classes alike", &[ORDER], "two classes are called `a`"),
            ("is in another order", &[BATCH], "view `image` is not in channels_last order"),
            ("is in float64", &[BATCH], "view `image` is of kind Double instead of Float"),
            ("is infinite", &[BATCH], "holds numbers that are not finite"),
            ("mixes up labels", &[BATCH], "a batch of the Train part has labels"),
            ("lacks sets", &[BATCH], "a batch of the Train part has no `targets`"),
            ("has halves in its sets", &[BATCH], "a batch of the Train part has `targets` other than 0 and 1"),
            (
                "augments in evaluation",
                &["evaluation is repeatable", "building twice gives the same"],
                "taken again without",
            ),
            ("augments by place", &[AUGMENTS], "differs at another place of the batch"),
            ("takes any view", &["what does not exist is an error"], "a view that does not exist was accepted"),
            ("takes any row", &["what does not exist is an error"], "row 10 of the test part was accepted"),
            ("changes its identity", &["building twice gives the same"], "runs are told apart by it"),
            ("refuses everyone", &["it can be built"], "nobody fits"),
            ("remembers every batch", &["memory does not grow"], "memory kept growing over"),
        ],
    );
}

/// A task that classifies, but for its fault: a type for each, since tasks have no settings.
macro_rules! broken_task {
    ($task:ident, $fault:literal, $key:literal) => {
        limbeck::plugin! { task $fault = $task, summary: "", citation: "" }

        #[derive(Debug)]
        struct $task;

        impl Task for $task {
            fn name(&self) -> &'static str {
                $fault
            }

            fn targets(&self) -> &'static str {
                "classes"
            }

            fn check(&self, truth: Truth<'_>, classes: i64) -> Result<()> {
                if $fault == "takes any targets" { Ok(()) } else { Classification.check(truth, classes) }
            }

            fn one_class(&self) -> bool {
                true
            }

            fn takes_unlabelled(&self) -> bool {
                true
            }

            fn of_whole_samples(&self) -> bool {
                $fault != "is of places and says so of samples"
            }

            fn loss(&self, logits: &Tensor, truth: Truth<'_>) -> Result<Tensor> {
                broken_loss($fault, logits, truth)
            }

            fn loss_key(&self) -> &'static str {
                "loss"
            }

            fn meter(&self, device: Device) -> Box<dyn TaskMeter> {
                Box::new(BrokenMeter { fault: $fault, meter: Classification.meter(device), batches: 0 })
            }

            fn score(&self) -> &'static MetricInfo {
                const SCORE: MetricInfo = MetricInfo {
                    key: $key,
                    short: "score",
                    name: "score",
                    note: "",
                    definition: "",
                    unit: Unit::PERCENT,
                    better: if matches!($fault.as_bytes(), b"has it the wrong way round") {
                        Better::Lower
                    } else {
                        Better::Higher
                    },
                };
                &SCORE
            }

            fn beside(&self) -> &'static [MetricInfo] {
                Classification.beside()
            }

            fn split_loss(&self) -> &'static MetricInfo {
                Classification.split_loss()
            }

            fn class_metric(&self) -> Option<&'static MetricInfo> {
                Classification.class_metric()
            }

            fn by_class(&self, classes: &[String], logits: &Tensor, truth: Truth<'_>) -> Result<Vec<ClassScore>> {
                let mut found = Classification.by_class(classes, logits, truth)?;
                if $fault == "loses a class" {
                    found.remove(2);
                }
                Ok(found)
            }

            fn example(&self, samples: i64, classes: i64) -> Example {
                Classification.example(samples, classes)
            }
        }
    };
}

broken_task!(SoundTask, "has no fault", "sound");
broken_task!(TwinTask, "has the key of another", "same_key");
broken_task!(OtherTwinTask, "has that key too", "same_key");
broken_task!(ShoutingTask, "has a key in capitals", "SCORE");
broken_task!(LaxTask, "takes any targets", "lax");
broken_task!(PlacedTask, "is of places and says so of samples", "placed");
broken_task!(DetachedTask, "detaches the logits", "detached");
broken_task!(BlindTask, "learns from the first sample alone", "blind");
broken_task!(InfiniteTask, "has an infinite loss", "infinite");
broken_task!(DoublingTask, "doubles the logits", "doubling");
broken_task!(DilutedTask, "counts what has no label", "diluted");
broken_task!(ShortTask, "forgets a metric", "short");
broken_task!(MeanTask, "takes the mean over batches", "mean");
broken_task!(UnlikeTask, "has another loss over a split", "unlike");
broken_task!(ReversedTask, "has it the wrong way round", "reversed");
broken_task!(LosingTask, "loses a class", "losing");

fn broken_loss(fault: &str, logits: &Tensor, truth: Truth<'_>) -> Result<Tensor> {
    let loss = Classification.loss(logits, truth)?;
    Ok(match fault {
        "detaches the logits" => loss.detach(),
        "learns from the first sample alone" => {
            Classification.loss(&logits.narrow(0, 0, 1), Truth::new(&truth.labels.narrow(0, 0, 1), None))?
        }
        "has an infinite loss" => loss / 0.0,
        "doubles the logits" => {
            let _ = logits.detach().g_mul_scalar_(2.0);
            loss
        }
        "counts what has no label" => loss * truth.labels.ge(0).to_kind(Kind::Double).mean(logits.kind()),
        _ => loss,
    })
}

#[derive(Debug)]
struct BrokenMeter {
    fault: &'static str,
    meter: Box<dyn TaskMeter>,
    batches: i64,
}

impl TaskMeter for BrokenMeter {
    fn add(&mut self, logits: &Tensor, truth: Truth<'_>) -> Result<()> {
        self.batches += 1;
        self.meter.add(logits, truth)
    }

    fn read(&self) -> Result<Vec<f64>> {
        let mut values = self.meter.read()?;
        match self.fault {
            "forgets a metric" => drop(values.pop()),
            "takes the mean over batches" => values[0] /= self.batches as f64,
            "has another loss over a split" => values[2] *= 2.0,
            _ => {}
        }
        Ok(values)
    }
}

#[test]
fn a_broken_task_is_caught_by_name() {
    tch::set_num_threads(1);
    const NAMES: &str = "its metrics have names, and keys of their own";
    const TARGETS: &str = "it knows its targets";
    const LOSS: &str = "its loss is a finite scalar of the logits' kind, and learns from every sample";
    const KNOWN: &str = "it is known by its name and by the key of its score";
    let cases: [(&str, &[&str], &str); 16] = [
        ("has no fault", &[], ""),
        ("has the key of another", &[KNOWN], "`same_key`, which is one of the task `has that key too` too"),
        ("has that key too", &[KNOWN], "files could not be told apart"),
        ("has a key in capitals", &[NAMES], "`SCORE` is no key"),
        ("takes any targets", &[TARGETS], "it accepts `targets` that it does not read"),
        ("is of places and says so of samples", &[TARGETS], "logits are [24, 7], and `of_whole_samples` is false"),
        ("detaches the logits", &[LOSS], "the loss does not depend on the logits"),
        ("learns from the first sample alone", &[LOSS], "a sample of its example has no gradient"),
        ("has an infinite loss", &[LOSS], "the loss of its example is not finite"),
        ("doubles the logits", &["logits and targets are left as they are"], "the logits were changed"),
        ("counts what has no label", &["samples without a label have no part in the loss"], "take the mean over those"),
        ("forgets a metric", &["its meter gives every metric"], "has 3 metrics, and its meter gave 2 values"),
        (
            "takes the mean over batches",
            &["neither batches nor the order of the samples matter to the meter"],
            "in batches of five `mean` is ",
        ),
        (
            "has another loss over a split",
            &["the loss over a split is the loss"],
            "and the loss of the same samples is ",
        ),
        (
            "has it the wrong way round",
            &["whoever learns by the loss gets the better score"],
            "after steps up, and Lower is said to be better",
        ),
        ("loses a class", &["scores by class are of all classes, in order"], "its scores are of the classes"),
    ];
    for (fault, checks, message) in cases {
        let report = limbeck_conformance::check(Role::Task, fault, "");
        let found: Vec<(&str, &str)> = report.faults().collect();
        assert_eq!(found.iter().map(|(check, _)| *check).collect::<Vec<_>>(), checks, "{fault}: {report}");
        assert!(checks.is_empty() || found.iter().any(|(_, said)| said.contains(message)), "{fault}: {report}");
    }
}
