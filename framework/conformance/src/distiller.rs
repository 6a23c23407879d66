//! What a distiller must do.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use indexmap::IndexMap;
use limbeck::cohort::{Term, TermSite, build_terms};
use limbeck::dataset::Rows;
use limbeck::device::DeviceSpec;
use limbeck::distiller::{DistillerConfig, Step};
use limbeck::error::{Error, Result};
use limbeck::experiment::{MethodConfig, Precision, TermConfig};
use limbeck::model::{Features, Form, Lent, Mode, Signature, TapRef};
use limbeck::seed::Seed;
use limbeck::task::Classification;
use limbeck::weights;
use tch::{Device, Kind, Tensor, no_grad_guard};

use crate::data::{CLASSES, SAMPLES, labels, noise};
use crate::memory::memory_is_steady;
use crate::network::{signature, tap_shape};
use crate::settings::read;
use crate::tensors::{distance, is_finite, same};
use crate::training::{End, TEACHER, Training};
use crate::trial::{Trial, ensure};

/// The student's channels in the first stage; the teacher has twice as many, or as many where a method wants that.
const WIDTH: i64 = 8;
/// Samples of several classes, some of which share one.
const ROWS: [i64; 8] = [3, 17, 8, 31, 22, 5, 14, 39];
/// Relative distances.
const EXACT: f64 = 1e-9;
const FLOAT32_LOSS: f64 = 1e-4;
const FLOAT32_GRADIENT: f64 = 1e-2;

pub fn check(trial: &mut Trial, table: &toml::Table) {
    let found =
        trial.value("it fits a student and a teacher of other widths, or of the same", || DistillerTrial::new(table));
    let Some(subject) = found else { return };
    if !trial.check("a loss comes of the declared taps", || subject.all(Input::default()).map(drop)) {
        return;
    }
    let twice = trial.check("one seed gives the same twice", || subject.is_reproducible());
    let else_why = "one seed does not give the same twice";
    trial.check("gradients reach the student and every parameter of its own", || subject.gradients());
    trial.check("teacher, student and labels are left as they are", || subject.leaves_inputs());
    trial.check("every declared tap is used", || subject.uses_its_taps());
    trial.check("losses and gradients are finite for constant, huge, tiny and identical features", || {
        subject.is_finite()
    });
    let order = "the order of the batch does not matter";
    match subject.order_matters() {
        Ok(true) => trial.skip(order, "the method says that it does: `order_matters`"),
        _ => trial.check_if(twice, else_why, order, || subject.ignores_order()),
    }
    let of = |kind, device| subject.all(Input { kind, device, ..Input::default() });
    trial.check_if(twice, else_why, "float32 agrees with float64", || {
        agree(&of(Kind::Float, Device::Cpu)?, &of(Kind::Double, Device::Cpu)?, FLOAT32_LOSS, FLOAT32_GRADIENT)
    });
    let cuda = "CUDA agrees with the CPU";
    match DeviceSpec::Cuda(0).resolve() {
        Err(_) => trial.skip(cuda, "there is no GPU"),
        Ok(device) => trial.check_if(twice, else_why, cuda, || {
            let _selected = Precision::Float32.select(device)?;
            agree(&of(Kind::Float, device)?, &of(Kind::Float, Device::Cpu)?, FLOAT32_LOSS, FLOAT32_GRADIENT)
        }),
    }
    trial.check("memory does not grow", || subject.keeps_nothing());
    let Some(alone) = trial.value("it trains", || subject.train(&[], None)) else { return };
    trial.check_if(twice, else_why, "a student that was resumed ends as one that was not", || {
        let what = "it keeps state that is not in the checkpoint: register it on `params` and change it in place";
        identical(&alone, &subject.train(&[], Some(3))?, what)
    });
    trial.check_if(twice, else_why, "a student ends the same alone and beside others", || {
        let vanilla = MethodConfig { cross_entropy: 1.0, terms: Vec::new() };
        let what = "it reads or changes something that others share, for example a static";
        identical(&alone, &subject.train(&[vanilla, subject.method.clone()], None)?, what)
    });
}

/// A part of training in which the method has a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Initial,
    Main,
}

/// The features of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Values {
    /// Outputs as behind a ReLU, the rest signed.
    Usual,
    Constant(f64),
    /// The usual ones, so many times.
    Times(f64),
    /// Every sample has the features of the first.
    OneSample,
    /// The teacher has the student's, where the shapes agree.
    Twins,
}

#[derive(Clone, Copy, Debug)]
struct Input<'a> {
    values: Values,
    /// The samples.
    rows: &'a [i64],
    kind: Kind,
    device: Device,
    /// The teacher's tap that holds something else than usual.
    replaced: Option<&'a TapRef>,
    /// How many steps were done before.
    step: u64,
}

impl Default for Input<'_> {
    fn default() -> Self {
        Input { values: Values::Usual, rows: &ROWS, kind: Kind::Float, device: Device::Cpu, replaced: None, step: 0 }
    }
}

impl Input<'_> {
    /// The value of a tap, or of the logits. A sample's features depend on its row alone.
    fn value(&self, side: &str, tap: Option<&TapRef>, shape: &[i64]) -> Tensor {
        let replaced = if tap.is_some() && tap == self.replaced { "replaced" } else { "" };
        let side = if self.values == Values::Twins { "" } else { side };
        let (name, low, high) = match tap {
            Some(tap) if tap.form == Form::Output => (tap.to_string(), -0.5, 1.0),
            Some(tap) => (tap.to_string(), -1.5, 1.5),
            None => ("logits".to_owned(), -4.0, 4.0),
        };
        let mut samples = Vec::with_capacity(self.rows.len());
        for row in self.rows {
            let row = if self.values == Values::OneSample { 0 } else { *row };
            samples.push(noise(&format!("{side} {name} {row} {replaced}"), &shape[1..], low, high));
        }
        let usual = Tensor::stack(&samples, 0);
        let usual = if low == -0.5 { usual.clamp_min(0.0) } else { usual };
        match self.values {
            Values::Constant(value) => usual.full_like(value),
            Values::Times(factor) => usual * factor,
            Values::Usual | Values::OneSample | Values::Twins => usual,
        }
    }

    /// As [`value`](Self::value), in the step's kind and on its device; the student's take gradients.
    fn leaf(&self, side: &str, tap: Option<&TapRef>, shape: &[i64]) -> Tensor {
        let value = self.value(side, tap, shape).to_kind(self.kind).to_device(self.device);
        value.set_requires_grad(side == "student")
    }

    /// The features of one side, with what its network lends.
    fn features(&self, side: &str, signature: &Signature, taps: &BTreeSet<TapRef>) -> Result<Given> {
        let batch = self.rows.len() as i64;
        let logits = self.leaf(side, None, &[batch, CLASSES]);
        let mut leaves = vec![("the logits".to_owned(), logits.shallow_clone())];
        let mut recorded = HashMap::new();
        for tap in taps {
            let value = self.leaf(side, Some(tap), &tap_shape(signature, tap, batch)?);
            leaves.push((format!("tap `{tap}`"), value.shallow_clone()));
            recorded.insert(tap.clone(), value);
        }
        let lent = self.lent(side, signature)?;
        let features = Features::new(logits, recorded).with(Lent::of(signature, &lent, Precision::Float32)?);
        Ok(Given { features, leaves, lent })
    }

    /// The parameters that a network lends, by state name.
    fn lent(&self, side: &str, signature: &Signature) -> Result<Vec<(String, Tensor)>> {
        let mut shapes: Vec<(&String, Vec<i64>)> = Vec::new();
        if let Some(classifier) = &signature.classifier {
            let width = signature.tap(&classifier.tap)?.shape.channels();
            shapes.push((&classifier.weight, vec![CLASSES, width]));
            shapes.extend(classifier.bias.iter().map(|bias| (bias, vec![CLASSES])));
        }
        for tap in &signature.taps {
            if let Some(batch_norm) = &tap.batch_norm {
                let channels = vec![tap.shape.channels()];
                shapes.extend([(&batch_norm.weight, channels.clone()), (&batch_norm.bias, channels)]);
            }
        }
        let mut lent = Vec::new();
        for (name, shape) in shapes {
            let value = noise(&format!("{side} {name}"), &shape, -0.5, 0.5).to_kind(self.kind).to_device(self.device);
            lent.push((name.clone(), value.set_requires_grad(side == "student")));
        }
        Ok(lent)
    }
}

/// What a loss is given of one side.
struct Given {
    features: Features,
    /// The tensors of the features, in words.
    leaves: Vec<(String, Tensor)>,
    /// What the network lends, by state name.
    lent: Vec<(String, Tensor)>,
}

impl Given {
    /// Every tensor, in words.
    fn inputs<'a>(&'a self, side: &'a str) -> impl Iterator<Item = (String, &'a Tensor)> {
        let lent = self.lent.iter().map(move |(name, t)| (format!("the lent `{name}` of the {side}"), t));
        self.leaves.iter().map(move |(name, t)| (format!("{name} of the {side}"), t)).chain(lent)
    }
}

/// What came of a loss.
#[derive(Debug)]
struct Measured {
    phase: Phase,
    /// The sum of the losses.
    loss: Tensor,
    /// Gradients by the student's feature, and by the method's own parameter; those that exist.
    student: IndexMap<String, Tensor>,
    own: IndexMap<String, Tensor>,
    /// Gradients by what the student lends.
    lent: IndexMap<String, Tensor>,
    /// Inputs that are not what they were.
    changed: Vec<String>,
}

impl Measured {
    fn gradients(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.student.iter().chain(&self.own).chain(&self.lent)
    }
}

struct DistillerTrial {
    method: MethodConfig,
    student: Signature,
    teachers: IndexMap<String, Signature>,
    teacher_width: i64,
    labels: Arc<[i64]>,
}

impl DistillerTrial {
    fn new(table: &toml::Table) -> Result<Self> {
        let distiller: Arc<dyn DistillerConfig> = read::<Box<dyn DistillerConfig>>(table)?.into();
        let term = TermConfig { weight: 1.0, schedule: None, teachers: None, taps: None, distiller };
        let method = MethodConfig { cross_entropy: 1.0, terms: vec![term] };
        let mut refusals = Vec::new();
        for teacher_width in [2 * WIDTH, WIDTH] {
            let subject = DistillerTrial {
                method: method.clone(),
                student: signature(WIDTH)?,
                teachers: IndexMap::from([(TEACHER.to_owned(), signature(teacher_width)?)]),
                teacher_width,
                labels: labels(),
            };
            match subject.build(Kind::Float, Device::Cpu) {
                Ok(_) => return Ok(subject),
                Err(error) => refusals.push(error.to_string()),
            }
        }
        refusals.dedup();
        Err(Error::run(refusals.join("; and ")))
    }

    /// The live method, as training builds it.
    fn build(&self, kind: Kind, device: Device) -> Result<Term> {
        let (teachers, combined, labels) = (&self.teachers, &IndexMap::new(), &self.labels);
        let site = TermSite { teachers, combined, labels, task: &Classification, device, seed: 0 };
        let mut terms = build_terms(&self.method, &self.student, &site)?;
        let mut term = terms.pop().ok_or_else(|| Error::run("no term was built"))?;
        if kind == Kind::Double {
            term.store.double();
        }
        Ok(term)
    }

    fn phases(&self, term: &Term) -> Vec<Phase> {
        match term.initial_stage() {
            None => vec![Phase::Main],
            Some(stage) if stage.then_loss => vec![Phase::Initial, Phase::Main],
            Some(_) => vec![Phase::Initial],
        }
    }

    /// The loss of every phase, of a method just built.
    fn all(&self, input: Input<'_>) -> Result<Vec<Measured>> {
        let mut term = self.build(input.kind, input.device)?;
        self.phases(&term).into_iter().map(|phase| self.measure(&mut term, phase, input)).collect()
    }

    /// One loss with its gradients, and in the main stage what follows the optimiser's step.
    fn measure(&self, term: &mut Term, phase: Phase, input: Input<'_>) -> Result<Measured> {
        let taps = term.taps.clone();
        let of_student = taps.pairs.iter().map(|pair| pair.student.clone()).collect();
        let of_teacher = taps.pairs.iter().map(|pair| pair.teacher.clone()).collect();
        let student = input.features("student", &self.student, &of_student)?;
        let teacher = input.features("teacher", &self.teachers[TEACHER], &of_teacher)?;
        let labels: Vec<i64> = input.rows.iter().map(|row| self.labels[*row as usize]).collect();
        let labels = Tensor::from_slice(&labels).to_device(input.device);
        let groups = term.initial_stage().map(|stage| stage.student_groups).unwrap_or_default();
        let seed = Seed::new(0).stream("conformance").at(input.step);
        let step = Step {
            student: &student.features,
            teacher: &teacher.features,
            taps: &taps,
            labels: &labels,
            rows: &Rows::new(input.rows.to_vec(), input.device),
            epoch: 1,
            step: input.step,
            seed,
            mode: if phase == Phase::Initial { Mode::TrainGroups(&groups) } else { Mode::Train },
        };
        let inputs = student.inputs("student").chain(teacher.inputs("teacher"));
        let inputs: Vec<(String, &Tensor)> = inputs.chain([("the labels".to_owned(), &labels)]).collect();
        let before: Vec<(Tensor, bool)> = inputs.iter().map(|(_, t)| (t.detach().copy(), t.requires_grad())).collect();

        let _drawing = seed.stream("libtorch").seed_libtorch();
        let terms = match phase {
            Phase::Initial => term.distiller.initial_loss(&step)?,
            Phase::Main => term.distiller.loss(&step)?,
        };
        for (name, loss) in terms.losses() {
            ensure(loss.numel() == 1, || format!("`{name}` has shape {:?}, a loss is a scalar", loss.size()))?;
        }
        let total = terms.losses().iter().map(|(_, loss)| loss.reshape([])).reduce(|a, b| a + b);
        let total = total.ok_or_else(|| Error::run("`loss` gave no loss: put one into `Terms`"))?;
        let own: Vec<(String, Tensor)> =
            weights::variables(&term.store).into_iter().filter(|(_, t)| t.requires_grad()).collect();
        if total.requires_grad() {
            total.backward();
        }
        let (of_student, of_lent) = (gradients(&student.leaves), gradients(&student.lent));
        let of_own = gradients(&own);
        let of_own = of_own.into_iter().map(|(name, grad)| (name, grad.copy())).collect();
        own.into_iter().for_each(|(_, mut variable)| variable.zero_grad());
        if phase == Phase::Main {
            let _no_grad = no_grad_guard();
            term.distiller.after_step(&step)?;
        }
        let mut changed = Vec::new();
        for ((name, now), (then, trained)) in inputs.into_iter().zip(before) {
            if now.requires_grad() != trained || !same(&now.detach(), &then) {
                changed.push(name);
            }
        }
        Ok(Measured { phase, loss: total.detach(), student: of_student, own: of_own, lent: of_lent, changed })
    }

    fn is_reproducible(&self) -> Result<()> {
        let ((start, losses), (second, again)) = (self.history()?, self.history()?);
        for (name, value) in &start {
            ensure(second.get(name).is_some_and(|other| same(value, other)), || {
                format!("`{name}` begins with other values each time: initialise it by libtorch's generator or `Seed`")
            })?;
        }
        ensure(losses.iter().zip(&again).all(|(a, b)| same(a, b) || !is_finite(a)), || {
            "the same steps give other losses the second time: draw by `Step::seed` or libtorch's generator; use no clock and no \
             static"
                .to_owned()
        })
    }

    /// The initial values of a method just built, and the losses of three steps of each phase.
    fn history(&self) -> Result<(IndexMap<String, Tensor>, Vec<Tensor>)> {
        let mut term = self.build(Kind::Float, Device::Cpu)?;
        let start = weights::variables(&term.store).into_iter().map(|(name, t)| (name, t.detach().copy())).collect();
        let mut losses = Vec::new();
        for phase in self.phases(&term) {
            for step in 0..3 {
                losses.push(self.measure(&mut term, phase, Input { step, ..Input::default() })?.loss);
            }
        }
        Ok((start, losses))
    }

    fn gradients(&self) -> Result<()> {
        let term = self.build(Kind::Float, Device::Cpu)?;
        let trainable = weights::variables(&term.store).into_iter().filter(|(_, t)| t.requires_grad());
        let mut unreached: BTreeSet<String> = trainable.map(|(name, _)| name).collect();
        for measured in self.all(Input::default())? {
            let trains = measured.phase == Phase::Main
                || term.initial_stage().is_some_and(|stage| !stage.student_groups.is_empty());
            ensure(!trains || measured.student.values().any(is_not_zero), || {
                format!(
                    "in the {:?} phase no gradient reaches the student's logits or taps: is something detached, or under \
                     `no_grad`?",
                    measured.phase
                )
            })?;
            unreached.retain(|name| !measured.own.contains_key(name));
        }
        ensure(unreached.is_empty(), || {
            let names: Vec<&str> = unreached.iter().map(String::as_str).collect();
            format!(
                "no loss reaches {}, which would not train: use it, or register it with `requires_grad` off",
                names.join(", ")
            )
        })
    }

    fn leaves_inputs(&self) -> Result<()> {
        for measured in self.all(Input::default())? {
            ensure(measured.changed.is_empty(), || {
                format!(
                    "{} were changed, and every method of a cohort shares them: compute a new tensor instead of changing one \
                     in place",
                    measured.changed.join(", ")
                )
            })?;
        }
        Ok(())
    }

    /// Two steps of each phase: what a step remembers may show in the next.
    fn totals(&self, input: Input<'_>) -> Result<Vec<Measured>> {
        let mut term = self.build(input.kind, input.device)?;
        let mut all = Vec::new();
        for phase in self.phases(&term) {
            for step in 0..2 {
                all.push(self.measure(&mut term, phase, Input { step, ..input })?);
            }
        }
        Ok(all)
    }

    fn uses_its_taps(&self) -> Result<()> {
        let input = Input { kind: Kind::Double, ..Input::default() };
        let pairs = self.build(Kind::Float, Device::Cpu)?.taps.pairs;
        let usual = self.totals(input)?;
        for pair in &pairs {
            let name = format!("tap `{}`", pair.student);
            ensure(usual.iter().any(|measured| measured.student.get(&name).is_some_and(is_not_zero)), || {
                format!("the student's {name} is declared in `taps`, but no loss depends on it: do not declare it")
            })?;
            let other = self.totals(Input { replaced: Some(&pair.teacher), ..input })?;
            ensure(usual.iter().zip(&other).any(|(a, b)| !same(&a.loss, &b.loss)), || {
                let tap = &pair.teacher;
                format!("the teacher's tap `{tap}` is declared in `taps`, but no loss depends on it: do not declare it")
            })?;
        }
        Ok(())
    }

    fn is_finite(&self) -> Result<()> {
        // Where all is one and the same number, a loss of directions may have no gradient; it never is but for 0, behind
        // dead units.
        let kinds = [
            ("zero everywhere", Values::Constant(0.0), true),
            ("one everywhere", Values::Constant(1.0), false),
            ("ten thousand times as large as usual", Values::Times(1e4), true),
            ("a millionth of the usual", Values::Times(1e-6), true),
            ("the same for every sample", Values::OneSample, true),
            ("the same on both sides", Values::Twins, true),
        ];
        for (what, values, has_gradient) in kinds {
            for measured in self.all(Input { values, ..Input::default() })? {
                let loss = measured.loss.double_value(&[]);
                ensure(loss.is_finite(), || format!("where features are {what}, the loss is {loss}"))?;
                for (name, gradient) in measured.gradients().filter(|_| has_gradient) {
                    ensure(is_finite(gradient), || {
                        format!("where features are {what}, the gradient of {name} is not finite")
                    })?;
                }
            }
        }
        Ok(())
    }

    fn order_matters(&self) -> Result<bool> {
        Ok(self.build(Kind::Float, Device::Cpu)?.distiller.order_matters())
    }

    fn ignores_order(&self) -> Result<()> {
        const ORDER: [i64; 8] = [5, 2, 7, 0, 3, 6, 1, 4];
        let shuffled = ORDER.map(|place| ROWS[place as usize]);
        let usual = self.all(Input { kind: Kind::Double, ..Input::default() })?;
        let other = self.all(Input { kind: Kind::Double, rows: &shuffled, ..Input::default() })?;
        for (usual, mut other) in usual.iter().zip(other) {
            for gradient in other.student.values_mut() {
                *gradient = gradient.index_copy(0, &Tensor::from_slice(&ORDER), gradient);
            }
            agree(&[other], std::slice::from_ref(usual), EXACT, 1e-6).map_err(|error| {
                Error::run(format!(
                    "with the samples of the batch in another order {error}; if that is meant, say so with `order_matters`"
                ))
            })?;
        }
        Ok(())
    }

    fn keeps_nothing(&self) -> Result<()> {
        let rows: Vec<i64> = (0..SAMPLES as i64).collect();
        let mut term = self.build(Kind::Float, Device::Cpu)?;
        let phases = self.phases(&term);
        let smallest = term.taps.pairs.iter().map(|pair| pair.student_shape.elements()).min();
        let bytes = 4 * rows.len() * smallest.unwrap_or(CLASSES) as usize;
        let mut step = 0;
        memory_is_steady(bytes, || {
            for phase in &phases {
                drop(self.measure(&mut term, *phase, Input { rows: &rows, step, ..Input::default() })?);
            }
            step += 1;
            Ok(())
        })
    }

    /// How the method's student ends.
    fn train(&self, others: &[MethodConfig], limit: Option<u64>) -> Result<End> {
        let folder = tempfile::tempdir().map_err(Error::io("create", std::env::temp_dir()))?;
        let training =
            Training { method: self.method.clone(), student_width: WIDTH, teacher_width: self.teacher_width };
        let mut ends = training.run(folder.path(), others, limit)?;
        Ok(ends.swap_remove(0))
    }
}

fn is_not_zero(gradient: &Tensor) -> bool {
    gradient.abs().max().double_value(&[]) > 0.0
}

/// The gradients that exist, by name.
fn gradients(named: &[(String, Tensor)]) -> IndexMap<String, Tensor> {
    named.iter().map(|(name, t)| (name.clone(), t.grad())).filter(|(_, grad)| grad.defined()).collect()
}

/// Whether losses and gradients are so near. A gradient that vanishes beside the largest, as that of a bias before a
/// BatchNorm, is measured by that.
fn agree(found: &[Measured], expected: &[Measured], loss: f64, gradient: f64) -> Result<()> {
    for (a, b) in found.iter().zip(expected) {
        let apart = distance(&a.loss, &b.loss, 0.0);
        ensure(apart <= loss, || {
            let [a, b] = [a, b].map(|measured| measured.loss.double_value(&[]));
            format!("the loss is {a:e} instead of {b:e}, {apart:.1e} apart where {loss:.0e} is allowed")
        })?;
        let largest = b.gradients().map(|(_, gradient)| gradient.norm().double_value(&[])).fold(0.0, f64::max);
        for ((name, a), (_, b)) in a.gradients().zip(b.gradients()) {
            let apart = distance(a, b, largest);
            ensure(apart <= gradient, || {
                format!("the gradient of {name} is {apart:.1e} apart where {gradient:.0e} is allowed")
            })?;
        }
    }
    Ok(())
}

/// Whether two students ended with the same bytes.
fn identical(expected: &End, found: &End, why: &str) -> Result<()> {
    for (name, tensor) in expected {
        ensure(found.get(name).is_some_and(|other| same(tensor, other)), || format!("`{name}` differs: {why}"))?;
    }
    Ok(())
}
