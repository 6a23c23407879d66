//! What the framework costs and what its shortcuts save: each claim is timed against the plain way of doing the same.
//!
//! `cargo bench -p limbeck-tests --profile dev --bench frame -- [SUBJECT…]` prints a table for each subject, all without a
//! name. `LIMBECK_BENCH_ROUNDS` is the number of pairs (5), `LIMBECK_BENCH_OUT` a file that gets the tables too.
//!
//! Both ways are timed in turn, A B A B …, so that whatever else the machine does meets both. The ratio is the median over
//! pairs, beside the least and the greatest.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use limbeck::prelude::*;
use limbeck_distillers::bank::Bank;
use limbeck_distillers::crd;
use limbeck_distillers::critics::nce::Nce;
use limbeck_distillers::negatives::other_class::OtherClass;

const CPU: Device = Device::Cpu;
const FLOAT: (Kind, Device) = (Kind::Float, CPU);

/// What is measured, in order: the name for the command line, and how.
type Subject = (&'static str, fn(usize) -> Result<Section>);
const SUBJECTS: &[Subject] = &[("crd", crd_scores), ("sampling", sampling)];

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
        let pair = |_| Ok((seconds(&mut a)?, seconds(&mut b)?));
        Ok(Pairs((0..rounds).map(pair).collect::<Result<_>>()?))
    }

    /// A row whose value is a function of a pair.
    fn row(&self, what: impl Into<String>, value: impl Fn(f64, f64) -> f64, goal: Goal) -> Row {
        let ms = |seconds: Vec<f64>| 1e3 * median(seconds);
        Row {
            what: what.into(),
            times: (
                ms(self.0.iter().map(|pair| pair.0).collect()),
                Some(ms(self.0.iter().map(|pair| pair.1).collect())),
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
    let pooled = TapInfo { name: "pooled".into(), shape: vec![64], pre_activation: false };
    Signature { input: [3, 32, 32], classes, taps: vec![pooled], groups: Vec::new() }
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
        configured_pairs: None,
        device: CPU,
    })
}

fn draw(sampler: &mut dyn NegativeSampler, rows: &Rows, step: u64) -> Result<Tensor> {
    let labels = rows.device().remainder(CLASSES);
    let draw = Draw { rows, labels: &labels, scores: None, seed: Seed::new(0).at(step), device: CPU };
    match sampler.draw(&draw)?.candidates {
        Candidates::Rows(chosen) => Ok(chosen),
        other => Err(Error::run(format!("rows expected, not {other:?}"))),
    }
}

fn anchors() -> Rows {
    Rows::new((0..ANCHORS).map(|i| i * 731 % SAMPLES).collect(), CPU)
}

fn crd_scores(rounds: usize) -> Result<Section> {
    let store = nn::VarStore::new(CPU);
    let site = CriticSite { student_width: 64, teacher_width: 64, embedding_width: WIDTH, samples: SAMPLES };
    let nce = Nce::default();
    let critic = nce.build(&site, &store.root())?;
    let bank = Bank::new(&store.root(), "bank", SAMPLES, WIDTH, 0.5);
    let rows = anchors();
    let chosen = draw(sampler()?.as_mut(), &rows, 0)?;
    let v = Tensor::randn([ANCHORS, WIDTH], FLOAT);
    let v = (&v / v.norm_scalaropt_dim(2.0, [1], true)).set_requires_grad(true);
    // Any gradient from above will do, but not one that libtorch could skip or broadcast.
    let above = Tensor::randn([ANCHORS, NEGATIVES as i64 + 1], FLOAT);

    let ours = || -> Result<Tensor> {
        let positive = critic.score(Side::Student, &v, &bank.at(rows.device()).unsqueeze(1))?;
        let negative = crd::row_scores(critic.as_ref(), Side::Student, &v, &bank, &chosen, None)?;
        Ok(Tensor::cat(&[positive, negative], 1))
    };
    let candidates = Tensor::cat(&[rows.device().unsqueeze(1), chosen.shallow_clone()], 1);
    let gathered = || -> Result<Tensor> {
        let rows = bank.all().index_select(0, &candidates.view([-1])).view([ANCHORS, -1, WIDTH]);
        Ok(rows.bmm(&v.unsqueeze(2)).squeeze_dim(2) / nce.temperature)
    };
    let both = |scores: Tensor| -> (Tensor, Tensor) {
        let gradient = Tensor::run_backward(&[(&scores * &above).sum(Kind::Float)], &[&v], false, false).remove(0);
        (scores.detach(), gradient)
    };
    let (first, second) = (both(ours()?), both(gathered()?));
    let apart = |a: &Tensor, b: &Tensor| ((a - b).abs().max() / b.abs().max()).double_value(&[]);
    let (scores, gradient) = (apart(&first.0, &second.0), apart(&first.1, &second.1));
    assert!(scores <= 1e-5 && gradient <= 1e-5, "scores differ by {scores:e}, gradients by {gradient:e}");

    let discard = |scores: Result<Tensor>| scores.map(|scores| drop(both(scores)));
    let pairs = Pairs::time(rounds, || discard(ours()), || discard(gathered()))?;
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
