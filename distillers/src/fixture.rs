//! What the tests of this crate share: a site, and steps over it.

use std::collections::HashMap;
use std::sync::Arc;

use limbeck::prelude::*;

/// Two networks that are nothing but a pooled vector, and a training set that is nothing but labels.
pub struct Fixture {
    pub student: Signature,
    pub teacher: Signature,
    pub labels: Arc<[i64]>,
}

fn signature(width: i64) -> Signature {
    let spec = ModelSpec { input: [1, 1, 1], classes: 2 };
    Signature::new(&spec, vec![TapInfo::vector("pooled", width)], Vec::new())
}

/// A network of a stem, stages of (channels, height) that have pre-activations, and what is pooled of the last.
pub fn network(stages: &[(i64, i64)]) -> Signature {
    let (channels, height) = stages[0];
    let mut taps = vec![TapInfo::map("stem", [channels, height, height])];
    for (i, &(channels, height)) in (1..).zip(stages) {
        taps.push(TapInfo::map(&format!("stage{i}"), [channels, height, height]).with_pre_activation());
    }
    taps.push(TapInfo::vector("pooled", stages[stages.len() - 1].0));
    Signature::new(&ModelSpec { input: [3, 32, 32], classes: 2 }, taps, Vec::new())
}

/// The pairs that a method finds beside a teacher from elsewhere, without a stem; and what it leaves out.
pub fn pairs_without_stem(config: &dyn DistillerConfig) -> (Vec<(String, String)>, Vec<String>) {
    let mut teacher = network(&NARROW);
    teacher.taps.remove(0);
    let fixture = Fixture { student: network(&NARROW), teacher, labels: vec![0, 1].into() };
    let TapPairs { pairs, dropped } = config.taps(&fixture.site()).unwrap();
    (pairs.iter().map(|pair| (pair.student.to_string(), pair.teacher.to_string())).collect(), dropped)
}

/// Stages of (channels, height) as the small residual networks have them.
pub const NARROW: [(i64, i64); 3] = [(16, 32), (32, 16), (64, 8)];
/// Twice as wide.
pub const WIDE: [(i64, i64); 3] = [(32, 32), (64, 16), (128, 8)];

impl Fixture {
    pub fn new(labels: &[i64], student_width: i64, teacher_width: i64) -> Self {
        Fixture { student: signature(student_width), teacher: signature(teacher_width), labels: labels.into() }
    }

    /// Labels are 0 and 1 unless a test has more: classes are those that occur, at least two.
    pub fn site(&self) -> Site<'_> {
        let mut distinct = self.labels.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        Site {
            student: &self.student,
            teacher: &self.teacher,
            teacher_name: "big",
            labels: &self.labels,
            classes: distinct.len().max(2) as i64,
            task: &Classification,
            configured_pairs: None,
            device: Device::Cpu,
        }
    }

    /// Runs `f` with a step of these rows.
    pub fn step<T>(
        &self,
        step: u64,
        rows: &[i64],
        student: &Features,
        teacher: &Features,
        taps: &TapPairs,
        f: impl FnOnce(&Step<'_>) -> T,
    ) -> T {
        let labels: Vec<i64> = rows.iter().map(|row| self.labels[*row as usize]).collect();
        f(&Step {
            student,
            teacher,
            taps,
            labels: &Tensor::from_slice(&labels),
            rows: &Rows::new(rows.to_vec(), Device::Cpu),
            epoch: 1,
            step,
            seed: Seed::new(0).at(step),
            mode: Mode::Train,
        })
    }

    /// The loss of a method of logits, in rows 0, 1, ….
    pub fn logits_loss(&self, distiller: &mut dyn Distiller, student: &Features, teacher: &Features) -> f64 {
        let rows: Vec<i64> = (0..student.logits.size()[0]).collect();
        self.step(0, &rows, student, teacher, &TapPairs::default(), |step| {
            distiller.loss(step).unwrap().losses().iter().map(|(_, loss)| loss.double_value(&[])).sum()
        })
    }
}

/// Numbers between −1 and 1 without a pattern, float64.
pub fn wave(shape: &[i64], phase: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.731 + phase).sin().view(shape)
}

/// Features with these pooled vectors and meaningless logits.
pub fn pooled(vectors: &Tensor) -> Features {
    let logits = Tensor::zeros([vectors.size()[0], 2], (vectors.kind(), Device::Cpu));
    Features::new(logits, HashMap::from([(TapRef::output("pooled"), vectors.shallow_clone())]))
}

/// The rows that a sampler draws, anchor by anchor.
pub fn drawn(sampler: &mut dyn NegativeSampler, anchors: &[i64], seed: Seed) -> Vec<Vec<i64>> {
    let rows = Rows::new(anchors.to_vec(), Device::Cpu);
    let labels = Tensor::zeros([anchors.len() as i64], (Kind::Int64, Device::Cpu));
    let draw = Draw { rows: &rows, labels: &labels, scores: None, seed, device: Device::Cpu };
    match sampler.draw(&draw).unwrap() {
        Negatives::Rows(rows) => Vec::try_from(rows).unwrap(),
        other => panic!("rows expected, not {other:?}"),
    }
}
