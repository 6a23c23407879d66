//! What the framework costs and what its shortcuts save: each claim is timed against the plain way of doing the same.
//!
//! `cargo bench --workspace --profile dev --bench frame -- [SUBJECT…]` prints a table for each subject, all without a
//! name. `LIMBECK_BENCH_ROUNDS` is the number of pairs (5), `LIMBECK_BENCH_OUT` a file that gets the tables too.
//!
//! Both ways are timed in turn, A B A B …, so that whatever else the machine does meets both. The ratio is the median over
//! pairs, beside the least and the greatest.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use limbeck::cohort::{self, Classifier, CohortConfig, Data, LaneConfig, LoadedTeacher, Stop, Teacher};
use limbeck::device::DeviceReport;
use limbeck::experiment::{Division, MethodConfig, TrainConfig};
use limbeck::metric::cross_entropy;
use limbeck::optim::{Constant, FlatParameters, Sgd, Variable};
use limbeck::precision::Precision;
use limbeck::prelude::*;
use limbeck::record::{Environment, Outcome, TeacherRecord};
use limbeck::registry::{self, Role};
use limbeck::task::Metrics;
use limbeck::{tch, weights};
use limbeck_datasets::shapes::Shapes;
use limbeck_distillers::bank::{Bank, BankPrecision};
use limbeck_distillers::crd;
use limbeck_distillers::critics::nce::Nce;
use limbeck_distillers::negatives::other_class::OtherClass;
use limbeck_models::resnet::{ResNet8, ResNet8x4, ResNet20, ResNet32x4};

const CPU: Device = Device::Cpu;
const FLOAT: (Kind, Device) = (Kind::Float, CPU);

/// What is measured, in order: the name for the command line, and how.
type Subject = (&'static str, fn(usize) -> Result<Section>);
const SUBJECTS: &[Subject] = &[
    ("crd", crd_scores),
    ("sampling", sampling),
    ("cohort", cohort_of_one),
    ("augmentation", augmentation),
    ("precision", precision),
    ("lanes", lanes),
];

/// A subject's result.
struct Section {
    title: &'static str,
    note: String,
    rows: Vec<Row>,
}

/// One comparison.
struct Row {
    what: String,
    /// Milliseconds of both ways; the second is absent where a time is held against a threshold.
    times: (f64, Option<f64>),
    /// What the threshold is about: median, least, greatest.
    value: [f64; 3],
    goal: Goal,
}

/// A threshold.
enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// For information.
    None,
}

impl Row {
    fn markdown(&self) -> String {
        let [median, least, most] = self.value;
        let (threshold, verdict) = match self.goal {
            Goal::AtLeast(bound) => (format!("≥ {bound}"), Some(median >= bound)),
            Goal::AtMost(bound) => (format!("≤ {bound}"), Some(median <= bound)),
            Goal::None => ("—".to_owned(), None),
        };
        let verdict = verdict.map_or("—", |met| if met { "met" } else { "missed" });
        let second = self.times.1.map_or_else(|| "—".to_owned(), |ms| format!("{ms:.2}"));
        format!(
            "| {} | {:.2} | {second} | {median:.3} ({least:.3} – {most:.3}) | {threshold} | {verdict} |",
            self.what, self.times.0
        )
    }
}

impl Section {
    fn markdown(&self) -> String {
        let rows: Vec<String> = self.rows.iter().map(Row::markdown).collect();
        format!(
            "## {}\n\n{}\n\n| | A, ms | B, ms | value (min – max) | threshold | verdict |\n|---|---|---|---|---|---|\n{}\n",
            self.title,
            self.note,
            rows.join("\n")
        )
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 { f64::NAN } else { (values[(n - 1) / 2] + values[n / 2]) / 2.0 }
}

/// Median, least and greatest.
fn spread(values: Vec<f64>) -> [f64; 3] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [median(values), least, most]
}

/// Seconds of two ways, pair by pair.
struct Pairs(Vec<(f64, f64)>);

impl Pairs {
    /// Times both in turn, after one unmeasured run of each.
    fn time(rounds: usize, mut a: impl FnMut() -> Result<()>, mut b: impl FnMut() -> Result<()>) -> Result<Self> {
        a()?;
        b()?;
        let mut pairs = Vec::new();
        for _ in 0..rounds {
            pairs.push((seconds(&mut a)?, seconds(&mut b)?));
        }
        Ok(Pairs(pairs))
    }

    /// A row whose value is a function of a pair.
    fn row(&self, what: impl Into<String>, value: impl Fn(f64, f64) -> f64, goal: Goal) -> Row {
        Row {
            what: what.into(),
            times: (
                1e3 * median(self.0.iter().map(|pair| pair.0).collect()),
                Some(1e3 * median(self.0.iter().map(|pair| pair.1).collect())),
            ),
            value: spread(self.0.iter().map(|(a, b)| value(*a, *b)).collect()),
            goal,
        }
    }
}

fn seconds(work: &mut impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Networks that are nothing but a pooled vector: enough for a sampler's site.
fn signature(classes: i64) -> Signature {
    let spec = ModelSpec { input: [3, 32, 32], classes };
    Signature::new(&spec, vec![TapInfo::vector("pooled", 64)], Vec::new())
}

const ANCHORS: i64 = 64;
const SAMPLES: i64 = 50_000;
const NEGATIVES: usize = 16_384;
const WIDTH: i64 = 128;
const CLASSES: i64 = 100;

/// `other_class` at CRD's default size on a training set as large as CIFAR-100's.
fn sampler() -> Result<Box<dyn NegativeSampler>> {
    let labels: Arc<[i64]> = (0..SAMPLES).map(|row| row % CLASSES).collect();
    let network = signature(CLASSES);
    OtherClass { count: NEGATIVES }.build(&Site {
        student: &network,
        teacher: &network,
        teacher_name: "teacher",
        labels: &labels,
        classes: CLASSES,
        task: &Classification,
        configured_pairs: None,
        device: CPU,
    })
}

fn draw(sampler: &mut dyn NegativeSampler, rows: &Rows, step: u64) -> Result<Tensor> {
    let labels = rows.device().remainder(CLASSES);
    let draw = Draw { rows, labels: &labels, scores: None, seed: Seed::new(0).at(step), device: CPU };
    match sampler.draw(&draw)? {
        Negatives::Rows(chosen) => Ok(chosen),
        other => Err(Error::run(format!("rows expected, not {other:?}"))),
    }
}

fn anchors() -> Rows {
    Rows::new((0..ANCHORS).map(|i| i * 731 % SAMPLES).collect(), CPU)
}

/// The student's anchors, and the rows of the bank that they are scored against.
struct Contrast {
    critic: Box<dyn Critic>,
    bank: Bank,
    rows: Rows,
    /// The negatives, `[B, K]`.
    chosen: Tensor,
    /// The positive and the negatives, `[B, K + 1]`.
    candidates: Tensor,
    temperature: f64,
    /// The anchors' embeddings, `[B, D]`.
    v: Tensor,
}

impl Contrast {
    /// The scores as CRD computes them.
    fn ours(&self) -> Result<Tensor> {
        let positive = self.critic.score(Side::Student, &self.v, &self.bank.at(self.rows.device()).unsqueeze(1))?;
        let negative = crd::row_scores(self.critic.as_ref(), Side::Student, &self.v, &self.bank, &self.chosen, None)?;
        Ok(Tensor::cat(&[positive, negative], 1))
    }

    /// The scores from rows that are gathered first.
    fn gathered(&self) -> Tensor {
        let rows = self.bank.all().index_select(0, &self.candidates.view([-1])).view([ANCHORS, -1, WIDTH]);
        rows.bmm(&self.v.unsqueeze(2)).squeeze_dim(2) / self.temperature
    }

    /// The scores and the gradient of the embeddings, with `above` as the gradient of the scores.
    fn with_gradient(&self, scores: Tensor, above: &Tensor) -> (Tensor, Tensor) {
        let gradient = Tensor::run_backward(&[(&scores * above).sum(Kind::Float)], &[&self.v], false, false).remove(0);
        (scores.detach(), gradient)
    }
}

fn crd_scores(rounds: usize) -> Result<Section> {
    let store = nn::VarStore::new(CPU);
    let site = CriticSite { embedding_width: WIDTH, samples: SAMPLES };
    let nce = Nce::default();
    let critic = nce.build(&site, &store.root())?;
    let bank = Bank::new(&store.root(), "bank", SAMPLES, WIDTH, 0.5, BankPrecision::Float32);
    let rows = anchors();
    let chosen = draw(sampler()?.as_mut(), &rows, 0)?;
    let v = Tensor::randn([ANCHORS, WIDTH], FLOAT);
    let v = (&v / v.norm_scalaropt_dim(2.0, [1], true)).set_requires_grad(true);
    // Any gradient from above will do, but not one that libtorch could skip or broadcast.
    let above = Tensor::randn([ANCHORS, NEGATIVES as i64 + 1], FLOAT);

    let candidates = Tensor::cat(&[rows.device().unsqueeze(1), chosen.shallow_clone()], 1);
    let contrast = Contrast { critic, bank, rows, chosen, candidates, temperature: nce.temperature, v };
    let first = contrast.with_gradient(contrast.ours()?, &above);
    let second = contrast.with_gradient(contrast.gathered(), &above);
    let [scores, gradient] = [(&first.0, &second.0), (&first.1, &second.1)]
        .map(|(a, b)| ((a - b).abs().max() / b.abs().max()).double_value(&[]));
    assert!(scores <= 1e-5 && gradient <= 1e-5, "scores differ by {scores:e}, gradients by {gradient:e}");

    let pairs = Pairs::time(
        rounds,
        || {
            drop(contrast.with_gradient(contrast.ours()?, &above));
            Ok(())
        },
        || {
            drop(contrast.with_gradient(contrast.gathered(), &above));
            Ok(())
        },
    )?;
    Ok(Section {
        title: "Scores of CRD",
        note: format!(
            "One side's scores of {ANCHORS} anchors with a positive and {NEGATIVES} negatives out of {SAMPLES} rows, \
             {WIDTH} wide, forward and backward to the embeddings. A: the whole bank in one product, then gathered. \
             B: the rows gathered to [B, K + 1, D], then multiplied. Value: B / A. Largest difference, relative to the \
             largest entry: scores {scores:.1e}, gradient {gradient:.1e}."
        ),
        rows: vec![pairs.row("scores and gradient", |a, b| b / a, Goal::AtLeast(8.0))],
    })
}

fn sampling(rounds: usize) -> Result<Section> {
    let (mut sampler, rows) = (sampler()?, anchors());
    let _ = draw(sampler.as_mut(), &rows, 0)?;
    let times = (0..rounds.max(1) as u64 * 4)
        .map(|step| seconds(&mut || draw(sampler.as_mut(), &rows, step + 1).map(drop)))
        .collect::<Result<Vec<f64>>>()?;
    let value = spread(times.iter().map(|s| 1e3 * s).collect());
    Ok(Section {
        title: "Negatives",
        note: format!(
            "`other_class`: {ANCHORS} × {NEGATIVES} of {SAMPLES} without replacement, of {CLASSES} classes, on {} cores. \
             Value: milliseconds.",
            std::thread::available_parallelism().map_or(1, usize::from)
        ),
        rows: vec![Row { what: "draw".into(), times: (value[0], None), value, goal: Goal::AtMost(5.0) }],
    })
}

const IMAGE: &str = "image";
const SPEC: ModelSpec = ModelSpec { input: [3, 32, 32], classes: CLASSES };
const RATE: f64 = 0.01;

/// Random images in channels_last order with random labels.
fn random_batch(size: i64) -> (Tensor, Tensor) {
    let images = Tensor::randn([size, 32, 32, 3], FLOAT).permute([0, 3, 1, 2]);
    (images, Tensor::randint(CLASSES, [size], (Kind::Int64, CPU)))
}

/// A network beside the tensors that it computes with.
struct Network {
    model: Box<dyn Model>,
    store: nn::VarStore,
}

impl Network {
    fn new(config: &dyn ModelConfig) -> Result<Self> {
        let store = nn::VarStore::new(CPU);
        let model = config.build(&store.root(), &SPEC)?;
        Ok(Network { model, store })
    }

    /// Its parameters in one buffer, where convolutions' lie in channels_last order.
    fn flat(&self) -> FlatParameters {
        let trained = weights::variables(&self.store).into_iter().filter(|(_, tensor)| tensor.requires_grad());
        FlatParameters::new(trained.map(|(name, tensor)| Variable { name, tensor }).collect())
    }

    fn logits(&self, images: &Tensor, mode: Mode<'_>) -> Result<Tensor> {
        Ok(self.model.forward(images, &Taps::none(), mode)?.logits)
    }
}

/// A training loop as one writes it for one experiment.
struct Handwritten {
    student: Network,
    flat: FlatParameters,
    optimizer: Box<dyn Optimizer>,
    teacher: Option<(Network, FlatParameters)>,
}

impl Handwritten {
    fn new(student: &dyn ModelConfig, teacher: Option<&dyn ModelConfig>) -> Result<Self> {
        let student = Network::new(student)?;
        let flat = student.flat();
        let optimizer = Sgd::default().build(flat.buffer())?;
        let teacher = teacher.map(Network::new).transpose()?.map(|teacher| {
            let flat = teacher.flat();
            (teacher, flat)
        });
        Ok(Handwritten { student, flat, optimizer, teacher })
    }

    /// Cross-entropy, with the soft targets of `kd` at T = 4 if there is a teacher.
    fn step(&mut self, images: &Tensor, labels: &Tensor) -> Result<()> {
        let soft = match &self.teacher {
            None => None,
            Some((teacher, _)) => Some(tch::no_grad(|| teacher.logits(images, Mode::Eval))?),
        };
        let logits = self.student.logits(images, Mode::Train)?;
        let mut loss = cross_entropy(&logits, labels);
        if let Some(soft) = soft {
            let (student, teacher) = ((&logits / 4.0).log_softmax(-1, None), (soft / 4.0).log_softmax(-1, None));
            let kl = (teacher.exp() * (&teacher - student)).sum(None) * (16.0 / labels.size()[0] as f64);
            loss = loss * 0.1 + kl * 0.9;
        }
        let mut gradient = self
            .flat
            .gradient(&loss, false)
            .map_err(|names| Error::run(format!("the loss does not reach {}", names.join(", "))))?;
        let rate = Tensor::full([] as [i64; 0], RATE, FLOAT);
        tch::no_grad(|| self.optimizer.step(self.flat.buffer_mut(), &mut gradient, &rate));
        Ok(())
    }
}

/// Something that is done with a batch before the cohort gets it.
type Between = Box<dyn FnMut(&Tensor, &Tensor) -> Result<()> + Send>;

/// Batches prepared before, for a cohort whose steps are timed from outside: a step lasts from the moment it gets a batch
/// to the moment it asks for the next. Between the two, another way of doing a step is run and timed.
struct Metronome {
    info: DatasetInfo,
    batch: (Tensor, Tensor),
    state: Mutex<Beat>,
    pairs: Arc<Mutex<Pairs>>,
}

struct Beat {
    between: Between,
    /// When the last batch was handed out, and the seconds of the other way before that.
    last: Option<(Instant, f64)>,
}

impl std::fmt::Debug for Metronome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metronome")
    }
}

impl Dataset for Metronome {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, rows: &Rows, _views: &Views, _draw: Option<Seed>) -> Result<Batch> {
        let (images, labels) = match split {
            Split::Train => (self.batch.0.shallow_clone(), self.batch.1.shallow_clone()),
            Split::Test => random_batch(rows.len() as i64),
        };
        if split == Split::Train {
            let asked = Instant::now();
            let mut beat = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((given, other)) = beat.last {
                let step = (asked - given).as_secs_f64();
                self.pairs.lock().unwrap_or_else(PoisonError::into_inner).0.push((step, other));
            }
            let other = seconds(&mut || tch::with_grad(|| (beat.between)(&images, &labels)))?;
            beat.last = Some((Instant::now(), other));
        }
        Ok(Batch { views: [(IMAGE.to_owned(), images)].into_iter().collect(), labels, targets: None })
    }
}

/// Steps of a cohort of one in turn with another way of doing them: (cohort, other), the first steps left out.
fn beside_a_cohort(
    steps: usize,
    batch: i64,
    student: Arc<dyn ModelConfig>,
    precision: Precision,
    method: &str,
    teachers: &[LoadedTeacher],
    between: Between,
) -> Result<Pairs> {
    const WARM: usize = 2;
    let pairs = Arc::new(Mutex::new(Pairs(Vec::new())));
    // The last step has no successor that would end it.
    let rows = (steps + WARM + 1) * batch as usize;
    let dataset = Metronome {
        info: DatasetInfo {
            name: "prepared".to_owned(),
            identity: "prepared".to_owned(),
            class_names: (0..CLASSES).map(|class| class.to_string()).collect(),
            task: &Classification,
            train_labels: (0..rows as i64).map(|row| row % CLASSES).collect(),
            test_labels: Arc::from([0, 1]),
            views: vec![ViewInfo { name: IMAGE.to_owned(), shape: SPEC.input }],
            notes: Vec::new(),
        },
        batch: random_batch(batch),
        state: Mutex::new(Beat { between, last: None }),
        pairs: Arc::clone(&pairs),
    };
    train(
        &Data::new(Box::new(dataset), Division::default())?,
        batch as usize,
        &[lane(student, precision, method)?],
        teachers,
    )?;
    let mut pairs = std::mem::replace(&mut *pairs.lock().unwrap_or_else(PoisonError::into_inner), Pairs(Vec::new()));
    pairs.0.drain(..WARM.min(pairs.0.len()));
    Ok(pairs)
}

/// A lane whose folder is yet to be named.
fn lane(student: Arc<dyn ModelConfig>, precision: Precision, method: &str) -> Result<LaneConfig> {
    let entry = registry::find(Role::Method, method)?;
    let table = entry.default_table()?;
    let config: MethodConfig = table.try_into().map_err(|e| Error::plan(format!("method {method}: {e}")))?;
    Ok(LaneConfig {
        name: method.to_owned(),
        folder: Default::default(),
        identity: method.to_owned(),
        student,
        precision,
        view: IMAGE.to_owned(),
        method_name: method.to_owned(),
        method: config,
    })
}

/// One epoch of a cohort, in a folder that is removed.
fn train(data: &Data, batch: usize, lanes: &[LaneConfig], teachers: &[LoadedTeacher]) -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::io("create", env::temp_dir()))?;
    train_in(folder.path(), 1, data, batch, lanes, teachers)
}

/// A cohort's epochs, without logs and checkpoints but the last, each lane in a folder of its name.
fn train_in(
    folder: &Path,
    epochs: u64,
    data: &Data,
    batch: usize,
    lanes: &[LaneConfig],
    teachers: &[LoadedTeacher],
) -> Result<()> {
    let lanes: Vec<LaneConfig> =
        lanes.iter().map(|lane| LaneConfig { folder: folder.join(&lane.name), ..lane.clone() }).collect();
    let never = u64::MAX;
    let train = TrainConfig {
        epochs,
        evaluate_epochs: epochs,
        batch,
        learning_rate: RATE,
        schedule: Arc::new(Constant {}),
        checkpoint_steps: never,
        log_steps: never,
        timing_steps: 0,
        ..TrainConfig::default()
    };
    let environment = Environment {
        limbeck: env!("CARGO_PKG_VERSION").to_owned(),
        git: None,
        libtorch: DeviceReport::gather().libtorch_version.unwrap_or_else(|| "unknown".to_owned()),
        device: "cpu".to_owned(),
        device_name: "CPU".to_owned(),
        threads: tch::get_num_threads() as usize,
    };
    let config = CohortConfig {
        data,
        teachers,
        combined: &[],
        ensemble: None,
        train: &train,
        seed: 0,
        device: CPU,
        environment: &environment,
        stop: &Stop::default(),
    };
    for outcome in cohort::run(&config, &lanes, &mut ())? {
        if let Some(Outcome::Failed { reason, .. }) = outcome {
            return Err(Error::run(reason));
        }
    }
    Ok(())
}

/// A teacher with the weights of a file, for images of `classes` classes.
fn teacher(config: &dyn ModelConfig, classes: i64, precision: Precision, file: Option<&Path>) -> Result<LoadedTeacher> {
    let spec = ModelSpec { classes, ..SPEC };
    let mut teacher = Teacher::new("big", IMAGE, config, &spec, precision, false, CPU)?;
    let folder = tempfile::tempdir().map_err(Error::io("create", env::temp_dir()))?;
    let path = match file {
        Some(path) => path.to_owned(),
        None => {
            let store = nn::VarStore::new(CPU);
            config.build(&store.root(), &spec)?;
            let path = folder.path().join("teacher.safetensors");
            weights::save(&path, &weights::variables(&store), None)?;
            path
        }
    };
    teacher.load(&path)?;
    let record = TeacherRecord {
        name: teacher.name.clone(),
        model: config.typetag_name().to_owned(),
        view: IMAGE.to_owned(),
        weights: path,
        digest: String::new(),
        parameters: teacher.parameters(),
        precision,
        folded: false,
        test: Metrics::new(&Classification, &[0.0, 0.0, 0.0]).ok(),
        members: Vec::new(),
    };
    Ok(LoadedTeacher { teacher, record })
}

fn cohort_of_one(rounds: usize) -> Result<Section> {
    let mut by_hand = Handwritten::new(&ResNet8::default(), Some(&ResNet20::default()))?;
    let pairs = beside_a_cohort(
        rounds * 12,
        64,
        Arc::new(ResNet8::default()),
        Precision::Float32,
        "kd",
        &[teacher(&ResNet20::default(), CLASSES, Precision::Float32, None)?],
        Box::new(move |images, labels| by_hand.step(images, labels)),
    )?;
    Ok(Section {
        title: "A cohort of one",
        note: format!(
            "A step of `kd`, resnet20 → resnet8, 64 images of a batch prepared before, {} steps of each kind in turn. A: in \
             a cohort. B: in a loop written by hand, with the same networks, buffer and optimiser. Value: A / B − 1.",
            pairs.0.len()
        ),
        rows: vec![pairs.row("step", |a, b| a / b - 1.0, Goal::AtMost(0.03))],
    })
}

fn augmentation(rounds: usize) -> Result<Section> {
    const REPEAT: usize = 20;
    let dataset = Shapes { train: 2000, test: 1, ..Shapes::default() }.build(CPU)?;
    let rows = Rows::new((0..64).map(|i| i * 31 % 2000).collect(), CPU);
    let views: Views = [IMAGE].into_iter().collect();
    let mut by_hand = Handwritten::new(&ResNet8x4::default(), None)?;
    let (images, labels) = random_batch(64);
    let pairs = Pairs::time(
        rounds,
        || {
            (0..REPEAT)
                .try_for_each(|i| dataset.batch(Split::Train, &rows, &views, Some(Seed::new(i as u64))).map(drop))
        },
        || by_hand.step(&images, &labels),
    )?;
    let pairs = Pairs(pairs.0.into_iter().map(|(a, b)| (a / REPEAT as f64, b)).collect());
    Ok(Section {
        title: "Augmentation",
        note: "A: a batch of 64 from `shapes`, cropped, mirrored and normalised (mean of 20). B: a training step of resnet8x4 \
               on 64 images. Value: A / B."
            .to_owned(),
        rows: vec![pairs.row("batch", |a, b| a / b, Goal::AtMost(0.03))],
    })
}

const SMALL_BATCH: i64 = 16;

fn precision(rounds: usize) -> Result<Section> {
    let folder = tempfile::tempdir().map_err(Error::io("create", env::temp_dir()))?;
    let path = folder.path().join("resnet32x4.safetensors");
    let plain = Network::new(&ResNet32x4::default())?;
    weights::save(&path, &weights::variables(&plain.store), None)?;
    let float32 = teacher(&ResNet32x4::default(), CLASSES, Precision::Float32, Some(&path))?.teacher;
    let bfloat16 = teacher(&ResNet32x4::default(), CLASSES, Precision::Bfloat16, Some(&path))?.teacher;
    let (images, _) = random_batch(SMALL_BATCH);
    let contiguous = images.contiguous();
    let none = Taps::none();
    let mut rows = Vec::new();
    for (name, network) in [("channels_last", &float32), ("bfloat16", &bfloat16)] {
        let pairs = Pairs::time(
            rounds,
            || network.forward(&images, &none).map(drop),
            || tch::no_grad(|| plain.logits(&contiguous, Mode::Eval)).map(drop),
        )?;
        rows.push(pairs.row(format!("resnet32x4 forward, {name}"), |a, b| b / a, Goal::None));
    }
    let (exact, rounded) = (float32.forward(&images, &none)?.logits, bfloat16.forward(&images, &none)?.logits);
    let error = (&rounded - &exact).abs();
    let agree = rounded.argmax(1, false).eq_tensor(&exact.argmax(1, false)).to_kind(Kind::Float).mean(None);

    for precision in [Precision::Float32, Precision::Bfloat16] {
        let network = Network::new(&ResNet8x4::default())?;
        let mut optimizer = tch::nn::OptimizerConfig::build(tch::nn::sgd(0.9, 0.0, 5e-4, false), &network.store, RATE)?;
        let pairs = beside_a_cohort(
            rounds,
            SMALL_BATCH,
            Arc::new(ResNet8x4::default()),
            precision,
            "vanilla",
            &[],
            Box::new(move |images, labels| {
                let logits = network.logits(&images.contiguous(), Mode::Train)?;
                optimizer.backward_step(&cross_entropy(&logits, labels));
                Ok(())
            }),
        )?;
        let name = if precision == Precision::Float32 { "channels_last" } else { "bfloat16" };
        rows.push(pairs.row(format!("resnet8x4 step, {name}"), |a, b| b / a, Goal::None));
    }
    Ok(Section {
        title: "Precision",
        note: format!(
            "{SMALL_BATCH} images. A: as named, float32 in channels_last order or bfloat16 (a step: of a cohort of one, its \
             convolutions and products in bfloat16). B: float32, contiguous. Value: B / A. With random weights the bfloat16 \
             teacher's logits, of mean size {:.3}, are off by {:.1e} on average and {:.1e} at most; the first guess is the \
             same for {:.0} % of the images. {}",
            exact.abs().mean(None).double_value(&[]),
            error.mean(None).double_value(&[]),
            error.max().double_value(&[]),
            100.0 * agree.double_value(&[]),
            accuracy_in_bfloat16()?,
        ),
        rows,
    })
}

/// What a teacher's accuracy becomes in bfloat16: a small one, trained on `shapes` until it knows something.
fn accuracy_in_bfloat16() -> Result<String> {
    const EPOCHS: u64 = 8;
    let folder = tempfile::tempdir().map_err(Error::io("create", env::temp_dir()))?;
    let data = Data::new(Shapes { train: 2000, test: 1000, ..Shapes::default() }.build(CPU)?, Division::default())?;
    let student = lane(Arc::new(ResNet20::default()), Precision::Float32, "vanilla")?;
    train_in(folder.path(), EPOCHS, &data, 64, std::slice::from_ref(&student), &[])?;
    let file = folder.path().join(&student.name).join(cohort::STUDENT);
    let classes = data.dataset.info().class_names.len() as i64;
    let exact = teacher(&ResNet20::default(), classes, Precision::Float32, Some(&file))?.teacher;
    let rounded = teacher(&ResNet20::default(), classes, Precision::Bfloat16, Some(&file))?.teacher;
    let networks: [Classifier<'_>; 2] =
        [&|batch| Ok(exact.forward(batch.view(IMAGE)?, &Taps::none())?.logits), &|batch| {
            Ok(rounded.forward(batch.view(IMAGE)?, &Taps::none())?.logits)
        }];
    let rows: Vec<i64> = (0..data.dataset.info().test_labels.len() as i64).collect();
    let found =
        cohort::accuracy(&data, Split::Test, &rows, &[IMAGE].into_iter().collect(), &networks, CPU, &Stop::default())?;
    let found = found.into_iter().map(|accuracy| Ok(accuracy?.score())).collect::<Result<Vec<f64>>>()?;
    Ok(format!(
        "A resnet20 that was trained on `shapes` for {EPOCHS} epochs has {:.1} % top-1 on its {} test images in float32, and {:.1} % in \
         bfloat16.",
        found[0],
        rows.len(),
        found[1]
    ))
}

fn lanes(rounds: usize) -> Result<Section> {
    const BATCH: usize = 64;
    let data = Data::new(Shapes { train: 4 * BATCH, test: 20, ..Shapes::default() }.build(CPU)?, Division::default())?;
    let teachers = [teacher(&ResNet8x4::default(), 20, Precision::Float32, None)?];
    let four: &[&str] = &["kd", "crd", "crd+kd", "vanilla"];
    let fifteen: &[&str] = &[
        "vanilla", "kd", "fitnet", "at", "sp", "cc", "vid", "rkd", "pkt", "nst", "dkd", "dist", "lskd", "crd", "crd+kd",
    ];
    let mut rows = Vec::new();
    for methods in [four, fifteen] {
        let all = side_by_side(methods)?;
        let pairs = Pairs::time(
            rounds.min(2),
            || train(&data, BATCH, &all, &teachers),
            || all.iter().try_for_each(|lane| train(&data, BATCH, std::slice::from_ref(lane), &teachers)),
        )?;
        rows.push(pairs.row(format!("{} lanes", methods.len()), |a, b| b / a, Goal::AtLeast(1.0)));
    }
    Ok(Section {
        title: "Four lanes, and fifteen",
        note: format!(
            "kd, crd, crd+kd and vanilla; and the methods of the CRD paper without an initial stage, with dkd, dist and lskd. resnet8x4 → resnet8, on `shapes`: 4 steps \
             of {BATCH} and all that is around them, {} pairs. A: in one cohort. B: one after the other. Value: B / A.",
            rounds.min(2)
        ),
        rows,
    })
}

/// Students of `shapes`, one for each method.
fn side_by_side(methods: &[&str]) -> Result<Vec<LaneConfig>> {
    methods
        .iter()
        .map(|method| {
            let mut lane = lane(Arc::new(ResNet8::default()), Precision::Float32, method)?;
            // Default negatives are as many as CIFAR-100 has: here, half of the samples.
            for term in &mut lane.method.terms {
                if term.distiller.typetag_name() == "crd" {
                    let negatives = Arc::new(OtherClass { count: 128 });
                    term.distiller = Arc::new(crd::Crd { negatives, ..crd::Crd::default() });
                }
            }
            Ok(lane)
        })
        .collect()
}

fn main() -> Result<()> {
    // cargo adds `--bench`.
    let chosen: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = chosen.iter().find(|name| !SUBJECTS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = SUBJECTS.iter().map(|(name, _)| *name).collect();
        return Err(Error::plan(format!("there is no subject `{unknown}`, but {}", known.join(", "))));
    }
    let rounds = match env::var("LIMBECK_BENCH_ROUNDS") {
        Err(_) => 5,
        Ok(text) => match text.parse() {
            Ok(rounds) if rounds > 0 => rounds,
            _ => return Err(Error::plan(format!("LIMBECK_BENCH_ROUNDS must be a positive number, not {text:?}"))),
        },
    };
    let mut document = format!(
        "# Benchmarks\n\n`make bench`: float32 on the CPU, {} threads of libtorch, {rounds} pairs of measurements. Values \
         are medians of pairwise values.\n",
        tch::get_num_threads()
    );
    println!("{document}");
    for (_, measure) in SUBJECTS.iter().filter(|(name, _)| chosen.is_empty() || chosen.iter().any(|c| c == name)) {
        let section = measure(rounds)?.markdown();
        println!("{section}");
        let _ = write!(document, "\n{section}");
    }
    if let Some(path) = env::var_os("LIMBECK_BENCH_OUT") {
        fs::write(&path, &document).map_err(Error::io("write", &path))?;
    }
    Ok(())
}
