//! What conformance checks are made with: a small network, a small data set, and training with both.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::nn::{Module, ModuleT};
use tch::{Device, Kind, Tensor, nn};

use crate::checkpoint;
use crate::cohort::{self, CohortConfig, Data, LaneConfig, Limit, Stop, Teacher};
use crate::dataset::{Batch, Dataset, DatasetInfo, Rows, Split, ViewInfo, Views};
use crate::error::{Error, Result};
use crate::experiment::{Division, MethodConfig, Precision, TrainConfig};
use crate::model::{Features, Group, Mode, Model, ModelConfig, ModelSpec, Recorder, Signature, TapInfo, TapRef, Taps};
use crate::record::{Environment, Outcome, TeacherRecord};
use crate::seed::Seed;
use crate::task::{Classification, Metrics};
use crate::weights;

pub const CLASSES: i64 = 5;
pub const SAMPLES: usize = 40;
const SPEC: ModelSpec = ModelSpec { input: [3, 16, 16], classes: CLASSES };
const VIEW: &str = "image";

/// The label of every sample.
pub fn labels() -> Arc<[i64]> {
    (0..SAMPLES as i64).map(|row| row % CLASSES).collect()
}

/// Numbers in [low, high) without a pattern, float64 on the CPU, a function of the name.
pub fn noise(name: &str, shape: &[i64], low: f64, high: f64) -> Tensor {
    let mut rng = Seed::new(0).stream("conformance").stream(name).rng();
    let values: Vec<f64> = (0..shape.iter().product::<i64>()).map(|_| rng.range(low, high)).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// A network of three stages, `width` channels in the first and twice as many in each that follows. Not listed: it is of no
/// use but here.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub width: i64,
}

#[typetag::serde(name = "limbeck_conformance_probe")]
impl ModelConfig for Probe {
    fn build(&self, path: &nn::Path<'_>, spec: &ModelSpec) -> Result<Box<dyn Model>> {
        let [channels, height, width] = spec.input;
        let layers = ["stem", "stage1", "stage2", "stage3"];
        let scale = [1, 1, 2, 4];
        let mut from = channels;
        let (mut taps, mut live) = (Vec::new(), Vec::new());
        for (name, scale) in layers.into_iter().zip(scale) {
            let to = self.width * scale;
            let stride = if name == "stage2" || name == "stage3" { 2 } else { 1 };
            let config = nn::ConvConfig { stride, padding: 1, bias: false, ..Default::default() };
            let conv = nn::conv2d(&(path / name) / "conv", from, to, 3, config);
            let norm = nn::batch_norm2d(&(path / name) / "bn", to, Default::default());
            live.push((name, conv, norm));
            taps.push(TapInfo {
                name: name.to_owned(),
                shape: vec![to, height / scale, width / scale],
                pre_activation: true,
            });
            from = to;
        }
        taps.push(TapInfo { name: "pooled".to_owned(), shape: vec![from], pre_activation: false });
        let group = |name: &str, feature| Group { name: name.to_owned(), parameters: vec![name.to_owned()], feature };
        let groups = layers.map(|name| group(name, true)).into_iter().chain([group("fc", false)]).collect();
        let signature = Signature { input: spec.input, classes: spec.classes, taps, groups };
        let fc = nn::linear(path / "fc", from, spec.classes, Default::default());
        Ok(Box::new(LiveProbe { signature, layers: live, fc }))
    }
}

#[derive(Debug)]
struct LiveProbe {
    signature: Signature,
    layers: Vec<(&'static str, nn::Conv2D, nn::BatchNorm)>,
    fc: nn::Linear,
}

impl Model for LiveProbe {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn forward(&self, input: &Tensor, want: &Taps, mode: Mode<'_>) -> Result<Features> {
        let mut record = Recorder::new(want);
        let mut x = input.shallow_clone();
        for (name, conv, norm) in &self.layers {
            let sum = norm.forward_t(&conv.forward(&x), mode.trains(name));
            record.pre_activation(name, &sum);
            x = sum.relu();
            record.output(name, &x);
        }
        let pooled = x.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
        record.output("pooled", &pooled);
        record.finish(self.fc.forward(&pooled))
    }
}

/// The signature of a [`Probe`].
pub fn signature(width: i64) -> Result<Signature> {
    Ok(Probe { width }.build(&nn::VarStore::new(Device::Cpu).root(), &SPEC)?.signature().clone())
}

/// Images of noise.
#[derive(Debug)]
struct Noise {
    info: DatasetInfo,
    images: Tensor,
}

impl Noise {
    fn new() -> Self {
        let [channels, height, width] = SPEC.input;
        let images = noise("images", &[SAMPLES as i64, channels, height, width], -1.5, 1.5).to_kind(Kind::Float);
        let info = DatasetInfo {
            notes: Vec::new(),
            name: "noise".to_owned(),
            identity: "noise".to_owned(),
            class_names: (0..CLASSES).map(|class| class.to_string()).collect(),
            task: &Classification,
            train_labels: labels(),
            test_labels: (0..CLASSES).collect(),
            views: vec![ViewInfo { name: VIEW.to_owned(), shape: SPEC.input }],
        };
        Noise { info, images }
    }
}

impl Dataset for Noise {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, _draw: Option<Seed>) -> Result<Batch> {
        let labels = Tensor::from_slice(self.info.labels(split)).index_select(0, rows.device());
        let images = self.images.index_select(0, rows.device());
        let views = views.iter().map(|view| (view.to_owned(), images.shallow_clone())).collect();
        Ok(Batch { views, labels, targets: None })
    }
}

/// Training of one method's student, in a folder, taught by a network of `teacher_width`.
pub struct Training {
    pub method: MethodConfig,
    pub student_width: i64,
    pub teacher_width: i64,
}

/// The tensors of a student's last checkpoint, and its final weights.
pub type End = IndexMap<String, Tensor>;

impl Training {
    /// Two epochs of four steps, the last batch smaller, beside `others`. It stops after every `limit` steps and goes on.
    /// Returns the end of every lane, the method's own first.
    pub fn run(&self, folder: &Path, others: &[MethodConfig], limit: Option<u64>) -> Result<Vec<End>> {
        let data = Data::new(Box::new(Noise::new()), Division::default())?;
        let train = TrainConfig { epochs: 2, batch: 12, learning_rate: 1e-3, ..TrainConfig::default() };
        let environment = Environment {
            limbeck: env!("CARGO_PKG_VERSION").to_owned(),
            git: None,
            libtorch: String::new(),
            device: "cpu".to_owned(),
            device_name: String::new(),
            threads: tch::get_num_threads() as usize,
        };
        let lanes: Vec<LaneConfig> = std::iter::once(&self.method)
            .chain(others)
            .enumerate()
            .map(|(index, method)| LaneConfig {
                name: index.to_string(),
                folder: folder.join(index.to_string()),
                identity: String::new(),
                student: Arc::new(Probe { width: self.student_width }),
                precision: Precision::Float32,
                view: VIEW.to_owned(),
                method_name: index.to_string(),
                method: method.clone(),
            })
            .collect();
        loop {
            let stop = Stop::new(limit.map(Limit::Steps));
            let teachers = [self.teacher()?];
            let config = CohortConfig {
                data: &data,
                teachers: &teachers,
                combined: &[],
                ensemble: None,
                train: &train,
                seed: 0,
                device: Device::Cpu,
                environment: &environment,
                stop: &stop,
            };
            let outcomes = cohort::run(&config, &lanes, &mut ())?;
            if let Some(Outcome::Failed { reason, .. }) =
                outcomes.iter().flatten().find(|outcome| **outcome != Outcome::Finished)
            {
                return Err(Error::run(format!("training failed: {reason}")));
            }
            if outcomes.iter().all(Option::is_some) {
                return lanes.iter().map(|lane| end(&lane.folder)).collect();
            }
        }
    }

    fn teacher(&self) -> Result<(Teacher, TeacherRecord)> {
        let config = Probe { width: self.teacher_width };
        let teacher = Teacher::new(TEACHER, VIEW, &config, &SPEC, Precision::Float32, false, Device::Cpu)?;
        let record = TeacherRecord {
            name: TEACHER.to_owned(),
            model: config.typetag_name().to_owned(),
            view: VIEW.to_owned(),
            weights: "none".into(),
            digest: String::new(),
            parameters: teacher.parameters(),
            precision: Precision::Float32,
            folded: false,
            test: Metrics::new(&Classification, &[0.0, 0.0, 0.0]).ok(),
            members: Vec::new(),
        };
        Ok((teacher, record))
    }
}

/// The teacher's name.
pub const TEACHER: &str = "teacher";

fn end(folder: &Path) -> Result<End> {
    let mut tensors = weights::read(&folder.join(checkpoint::NEWEST))?.tensors;
    let student = weights::read(&folder.join(cohort::STUDENT))?.tensors;
    tensors.extend(student.into_iter().map(|(name, tensor)| (format!("exported.{name}"), tensor)));
    Ok(tensors)
}

/// What a parameter's tap of that name and form would hold.
pub fn tap_shape(signature: &Signature, tap: &TapRef, batch: i64) -> Result<Vec<i64>> {
    Ok([&[batch], signature.shape(tap)?].concat())
}
