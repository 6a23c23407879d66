//! A third task is one file: the class of every pixel, compared by a number of which the lower is better. It trains, is
//! evaluated, recorded and reported by code that has never heard of it. The data set and the network are of this test too.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use limbeck::cohort::Stop;
use limbeck::config;
use limbeck::prelude::*;
use limbeck::record::Similarity;
use limbeck::registry::{self, Role};
use limbeck::task::{Better, ClassScore, Example, MetricInfo, Metrics, Unit};
use limbeck_cli::plan::Plan;
use limbeck_cli::{run, store};
use limbeck_tests as _;
use tch::Reduction;
use tempfile::TempDir;

limbeck::plugin! { task "pixels" = Pixels, summary: "a class a pixel", citation: "" }

/// Targets are `[B, H, W]`, int64: the class of every pixel.
#[derive(Debug)]
struct Pixels;

const ERROR: MetricInfo = MetricInfo {
    key: "pixel_error",
    short: "error",
    name: "pixel error",
    note: "pixels of another class",
    definition: "the share of pixels that are given another class",
    unit: Unit::PERCENT,
    better: Better::Lower,
};

const MEAN_IOU: MetricInfo = MetricInfo {
    key: "mean_iou",
    short: "mIoU",
    name: "mean intersection over union",
    note: "",
    better: Better::Higher,
    ..ERROR
};

const IOU: MetricInfo = MetricInfo { key: "iou", short: "IoU", name: "intersection over union", ..MEAN_IOU };

const LOSS: MetricInfo = MetricInfo {
    key: "pixel_cross_entropy",
    short: "loss",
    name: "cross-entropy of pixels",
    unit: Unit::NATS,
    ..ERROR
};

impl Task for Pixels {
    fn name(&self) -> &'static str {
        "pixels"
    }

    fn targets(&self) -> &'static str {
        "maps of classes"
    }

    fn check(&self, truth: Truth<'_>, classes: i64) -> Result<()> {
        let targets = truth.targets()?;
        let (size, samples) = (targets.size(), truth.labels.size()[0]);
        if size.len() != 3 || size[0] != samples || targets.kind() != Kind::Int64 {
            return Err(Error::run(format!("`targets` {size:?} of kind {:?}", targets.kind())));
        }
        if targets.ge(0).logical_and(&targets.lt(classes)).all().int64_value(&[]) == 0 {
            return Err(Error::run("`targets` that are no class"));
        }
        Ok(())
    }

    fn one_class(&self) -> bool {
        false
    }

    fn of_whole_samples(&self) -> bool {
        false
    }

    fn loss(&self, logits: &Tensor, truth: Truth<'_>) -> Result<Tensor> {
        Ok(logits.cross_entropy_loss::<Tensor>(truth.targets()?, None, Reduction::Mean, -100, 0.0))
    }

    fn loss_key(&self) -> &'static str {
        "pixel_cross_entropy"
    }

    fn meter(&self, device: Device) -> Box<dyn TaskMeter> {
        let zero = Tensor::zeros([1, 1], (Kind::Double, device));
        Box::new(Confusion { counts: zero, loss: Tensor::zeros([], (Kind::Double, device)) })
    }

    fn score(&self) -> &'static MetricInfo {
        &ERROR
    }

    fn beside(&self) -> &'static [MetricInfo] {
        &[MEAN_IOU]
    }

    fn split_loss(&self) -> &'static MetricInfo {
        &LOSS
    }

    fn class_metric(&self) -> Option<&'static MetricInfo> {
        Some(&IOU)
    }

    fn by_class(&self, classes: &[String], logits: &Tensor, truth: Truth<'_>) -> Result<Vec<ClassScore>> {
        let counts = confusion(logits, truth.targets()?);
        let occurs = truth
            .targets()?
            .unsqueeze(1)
            .eq_tensor(&Tensor::arange(counts.size()[0], (Kind::Int64, Device::Cpu)).view([1, -1, 1, 1]));
        let samples: Vec<f64> =
            Vec::try_from(occurs.flatten(2, -1).any_dim(2, false).sum_dim_intlist(0, false, Kind::Double))?;
        let shares: Vec<f64> = Vec::try_from(ious(&counts))?;
        let each = classes.iter().zip(samples).zip(shares);
        Ok(each
            .map(|((name, samples), share)| ClassScore::measured(name, samples as usize, &IOU, Some(share)))
            .collect())
    }

    fn example(&self, samples: i64, classes: i64) -> Example {
        let pixels = Tensor::arange(samples * 16, (Kind::Int64, Device::Cpu)).remainder(classes);
        let logits = Tensor::randn([samples, classes, 4, 4], (Kind::Float, Device::Cpu));
        let labels = Tensor::zeros([samples], (Kind::Int64, Device::Cpu));
        Example { logits, labels, targets: Some(pixels.view([samples, 4, 4])) }
    }
}

/// How many pixels of each class were given each class: `[C, C]`, float64.
fn confusion(logits: &Tensor, targets: &Tensor) -> Tensor {
    let classes = logits.size()[1];
    let pairs = (targets * classes + logits.argmax(1, false)).flatten(0, -1);
    pairs.bincount::<Tensor>(None, classes * classes).view([classes, classes]).to_kind(Kind::Double)
}

/// `[C]`, in percent; 0 for a class that neither occurs nor is given.
fn ious(counts: &Tensor) -> Tensor {
    let right = counts.diagonal(0, 0, 1);
    let all = counts.sum_dim_intlist(0, false, Kind::Double) + counts.sum_dim_intlist(1, false, Kind::Double) - &right;
    right * 100.0 / all.clamp_min(1.0)
}

#[derive(Debug)]
struct Confusion {
    /// `[C, C]`, float64.
    counts: Tensor,
    /// Summed over pixels.
    loss: Tensor,
}

impl TaskMeter for Confusion {
    fn add(&mut self, logits: &Tensor, truth: Truth<'_>) -> Result<()> {
        let targets = truth.targets()?;
        self.counts = &self.counts + confusion(logits, targets);
        let loss = logits.to_kind(Kind::Double).cross_entropy_loss::<Tensor>(targets, None, Reduction::Sum, -100, 0.0);
        self.loss += loss;
        Ok(())
    }

    fn read(&self) -> Result<Vec<f64>> {
        let pixels = self.counts.sum(Kind::Double).double_value(&[]).max(1.0);
        let right = self.counts.diagonal(0, 0, 1).sum(Kind::Double).double_value(&[]);
        let mean_iou = ious(&self.counts).mean(Kind::Double).double_value(&[]);
        Ok(vec![100.0 * (pixels - right) / pixels, mean_iou, self.loss.double_value(&[]) / pixels])
    }
}

limbeck::plugin! { dataset "stripes": Stripes, summary: "", citation: "" }

/// Images of eight by eight pixels in stripes of three classes, each of a colour that is hard to see.
#[derive(Debug, Settings)]
struct Stripes {}

#[typetag::serde(name = "stripes")]
impl DatasetConfig for Stripes {
    fn build(&self, _device: Device) -> Result<Box<dyn Dataset>> {
        let info = DatasetInfo {
            name: "Stripes".to_owned(),
            identity: "stripes".to_owned(),
            class_names: ["sky", "sea", "sand"].map(str::to_owned).to_vec(),
            task: &Pixels,
            train_labels: (0..48_i64).map(|row| row % 3).collect(),
            test_labels: (0..20_i64).map(|row| row % 3).collect(),
            views: vec![ViewInfo { name: "image".to_owned(), shape: [3, 8, 8] }],
            notes: Vec::new(),
        };
        Ok(Box::new(LiveStripes { info }))
    }
}

#[derive(Debug)]
struct LiveStripes {
    info: DatasetInfo,
}

impl Dataset for LiveStripes {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, _draw: Option<Seed>) -> Result<Batch> {
        let known = self.info.labels(split);
        if rows.host().iter().any(|row| *row >= known.len() as i64) {
            return Err(Error::run("there is no such row"));
        }
        let count = rows.len() as i64;
        let column = Tensor::arange(8, (Kind::Int64, Device::Cpu)).floor_divide_scalar(3).view([1, 1, 8]);
        let targets = (rows.device().view([-1, 1, 1]) + column).remainder(3).expand([count, 8, 8], false).contiguous();
        let colours = targets.one_hot(3).to_kind(Kind::Float);
        let place = Tensor::arange(8 * 8 * 3, (Kind::Float, Device::Cpu)).view([1, 8, 8, 3]);
        let noise = (place * (rows.device() + 1).to_kind(Kind::Float).view([-1, 1, 1, 1])).sin();
        let images = (colours * 0.4 + noise).permute([0, 3, 1, 2]);
        let mut found = indexmap::IndexMap::new();
        for name in views.iter() {
            self.info.view(Some(name))?;
            found.insert(name.to_owned(), images.shallow_clone());
        }
        let labels: Vec<i64> = rows.host().iter().map(|row| known[*row as usize]).collect();
        Ok(Batch { views: found, labels: Tensor::from_slice(&labels), targets: Some(targets) })
    }
}

limbeck::plugin! { model "pixelwise": Pixelwise, summary: "", citation: "" }

/// A convolution, and a class for every pixel.
#[derive(Debug, Settings)]
struct Pixelwise {
    /// Channels of the convolution.
    #[setting(example = 8)]
    width: i64,
}

/// A layer as a group of its own.
fn group(name: &str, feature: bool) -> Group {
    Group { name: name.to_owned(), parameters: vec![name.to_owned()], feature }
}

#[typetag::serde(name = "pixelwise")]
impl ModelConfig for Pixelwise {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        let [channels, height, width] = spec.input;
        let padded = nn::ConvConfig { padding: 1, ..Default::default() };
        Ok(Box::new(LivePixelwise {
            stage: tch::nn::conv2d(path / "stage1", channels, self.width, 3, padded),
            head: tch::nn::conv2d(path / "head", self.width, spec.classes, 1, Default::default()),
            signature: Signature::new(
                spec,
                vec![TapInfo::new("stage1", TapShape::Map { c: self.width, h: height, w: width })],
                vec![group("stage1", true), group("head", false)],
            ),
        }))
    }
}

#[derive(Debug)]
struct LivePixelwise {
    stage: nn::Conv2D,
    head: nn::Conv2D,
    signature: Signature,
}

impl Model for LivePixelwise {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, _mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let features = input.apply(&self.stage).relu();
        record.output("stage1", &features);
        record.finish(features.apply(&self.head))
    }
}

const EXPERIMENT: &str = r#"
format = 1
name = "pixels"
device = "cpu"
threads = 1
validation = 6
[dataset]
kind = "stripes"
[teacher.wide]
model = { kind = "pixelwise", width = 16 }
train = { epochs = 6, batch = 8 }
[student]
model = { kind = "pixelwise", width = 8 }
[train]
epochs = 4
batch = 8
learning_rate = 0.2
[compare]
methods = ["vanilla", "at"]
seeds = [0, 1]
"#;

fn plan(overrides: &[&str], out: &Path) -> Result<Plan> {
    let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
    Plan::new(config::parse(EXPERIMENT, Path::new("file.toml"), &overrides)?, Path::new("file.toml"), out)
}

#[test]
fn it_is_found_by_its_name_and_conforms() {
    registry::check().unwrap();
    limbeck_conformance::check(Role::Task, "pixels", "").assert();
    limbeck_conformance::check(Role::Dataset, "stripes", "").assert();
}

#[test]
fn its_numbers_are_known_by_the_key_of_the_score() {
    let found = Metrics::new(&Pixels, &[12.5, 70.0, 0.25]).unwrap();
    let written = serde_json::to_string(&found).unwrap();
    assert_eq!(written, r#"{"pixel_error":12.5,"mean_iou":70.0,"pixel_cross_entropy":0.25}"#);
    assert_eq!(serde_json::from_str::<Metrics>(&written).unwrap(), found);
    assert_eq!((found.show(), found.in_words()), ("error 12.50 %".into(), "12.50 % error, 70.00 % mIoU".into()));
    assert_eq!(found.task().measured(), "pixel error (error, not top-1: targets are maps of classes)");
    let worse = Metrics::new(&Pixels, &[13.0, 80.0, 0.1]).unwrap();
    assert!(found.is_better_than(&worse) && !worse.is_better_than(&found) && !found.is_better_than(&found));
    let lacking = serde_json::from_str::<Metrics>(r#"{"pixel_error":12.5}"#).unwrap_err().to_string();
    assert!(lacking.starts_with("missing field `mean_iou`"), "{lacking}");
    let unknown = serde_json::from_str::<Metrics>(r#"{"word_error":12.5}"#).unwrap_err().to_string();
    assert!(unknown.starts_with("the numbers word_error are of no task that is linked into this binary"), "{unknown}");
    let short = Metrics::new(&Pixels, &[1.0]).unwrap_err().to_string();
    assert_eq!(short, "the task `pixels` has 3 metrics, and its meter gave 1 values");
}

#[test]
fn it_trains_and_is_recorded() {
    let out = TempDir::new().unwrap();
    let planned = plan(&[], out.path()).unwrap();
    let text = planned.to_string();
    let said = "targets are maps of classes: trained by cross-entropy of pixels, measured by pixel error, not by top-1";
    assert!(text.contains(said), "{text}");
    let outline = serde_json::to_value(planned.outline()).unwrap();
    assert_eq!(outline["measure"], "pixel_error");
    let finished = run::execute(&planned, &Stop::default(), &mut ()).unwrap();
    assert_eq!(finished.failed, Vec::<String>::new());
    let written: store::PlanFile = store::read_json(&finished.folder.join(store::PLAN)).unwrap();
    for cell in &written.cells {
        let folder = finished.folder.join(&cell.folder);
        let summary = store::summary(&folder).unwrap().unwrap();
        let accuracy = summary.accuracy.as_ref().unwrap();
        let tested: Vec<f64> = summary.history.iter().map(|epoch| epoch.test.unwrap().score()).collect();
        let lowest = tested.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(accuracy.best_on_test.test.score(), lowest, "{tested:?}");
        assert!(tested[3] < tested[0], "{tested:?}");
        let validated: Vec<f64> = summary.history.iter().map(|epoch| epoch.validation.unwrap().score()).collect();
        let chosen = accuracy.best_on_validation.unwrap().epoch as usize - 1;
        assert!(validated.iter().all(|other| validated[chosen] <= *other), "{validated:?}");
        let last = summary.history.last().unwrap();
        assert_eq!((last.train_top1, last.train.contains_key("pixel_cross_entropy")), (None, true));
        let similarity: Similarity = store::read_json(&folder.join("similarity.json")).unwrap();
        assert_eq!(similarity.calibration_error, None);
        assert_eq!((similarity.teachers[0].agreement, similarity.teachers[0].divergence), (None, None));
        assert!(similarity.teachers[0].correlation_difference.is_finite());
        let names: Vec<&str> = similarity.classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, ["sky", "sea", "sand"]);
        let text = fs::read_to_string(folder.join("similarity.json")).unwrap();
        assert_eq!(text.matches("\"iou\": ").count(), 3, "{text}");
    }
    is_reported(&finished.folder);
}

/// A report calls it by its names, and the lower number is the better one.
fn is_reported(folder: &Path) {
    let report = limbeck_cli::report::write(&[folder.to_owned()], &Default::default()).unwrap();
    let text = fs::read_to_string(report.folder.join("report.md")).unwrap().replace('\n', " ");
    for words in [
        "- targets: maps of classes, trained by cross-entropy of pixels, measured by pixel error: the share of pixels that are \
         given another class",
        "Shown: pixel error (error, not top-1: targets are maps of classes) on the test split after the last epoch, in percent.",
        "- Bold: the lowest mean;",
        "left out where targets are maps of classes.",
        "- classes.csv: intersection over union by class, mean over seeds",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let comparison = fs::read_to_string(report.folder.join("comparison.csv")).unwrap();
    let (header, rows) = comparison.split_once('\n').unwrap();
    let columns = "seeds_planned,pixel_error_mean,pixel_error_deviation,mean_iou_mean,mean_iou_deviation,baseline,";
    assert!(header.contains(columns), "{header}");
    let mut means: Vec<f64> = rows.lines().map(|row| row.split(',').nth(5).unwrap().parse().unwrap()).collect();
    means.sort_by(f64::total_cmp);
    assert!(means.len() > 1 && text.contains(&format!("**{:.2}", means[0])), "{means:?}\n{text}");
    let classes = fs::read_to_string(report.folder.join("classes.csv")).unwrap();
    assert!(classes.starts_with("experiment,method,class,iou\n"), "{classes}");
    for name in ["report.md", "comparison.csv", "curves.csv", "runs.csv"] {
        let text = fs::read_to_string(report.folder.join(name)).unwrap().replace('\n', " ").replace("not top-1", "");
        for word in ["top-1", "top1", "top-5", "top5", "mAP", "average precision"] {
            assert!(!text.contains(word), "{name} speaks of {word}");
        }
    }
}

#[test]
fn methods_and_probes_that_suppose_another_task_are_refused() {
    let out = TempDir::new().unwrap();
    let error = plan(&["compare.methods=[\"vanilla\", \"kd\"]"], out.path()).unwrap_err().to_string();
    let why = "kd compares one distribution over all classes, and the targets of these data are maps of classes: take a method \
               that compares features, or data with one class a sample";
    assert!(error.ends_with(why), "{error}");
    let error = plan(&["probe.itself={ tap = \"stage1\" }"], out.path()).unwrap_err().to_string();
    let why = "probe.itself: a linear probe tells whole samples apart, and the targets of its data are maps of classes: give it \
               another `dataset`";
    assert_eq!(error, why);
}
