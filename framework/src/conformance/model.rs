//! What a network must do.

use std::collections::HashSet;

use tch::{Kind, Tensor, nn, no_grad_guard};

use super::probe::noise;
use super::{Trial, distance, ensure, is_finite, memory_is_steady, read, same};
use crate::cohort::catch;
use crate::error::{Error, Result};
use crate::model::{Features, Form, Mode, Model, ModelConfig, ModelSpec, TapRef, Taps};
use crate::seed::Seed;
use crate::weights;

const CLASSES: i64 = 7;
const BATCH: i64 = 3;
/// Sides of the square images that are tried, until one is taken.
const SIDES: [i64; 3] = [32, 64, 224];
/// Relative distances.
const FLOAT32: f64 = 1e-3;
const ALONE: f64 = 1e-4;
const FOLDED: f64 = 1e-9;

pub fn check(trial: &mut Trial, table: &toml::Table) {
    let found = trial.value("it can be built for colour images of 32, 64 or 224 pixels", || Subject::new(table));
    let Some(subject) = found else { return };
    if !trial.check("logits and taps have the signature's shapes", || subject.has_its_shapes()) {
        return;
    }
    trial.check("one seed gives the same twice", || subject.is_reproducible());
    trial.check("every parameter is in one group", || subject.has_its_groups());
    trial.check("the wanted taps are recorded, and what is not there is an error", || subject.records_what_is_wanted());
    trial.check("evaluation changes nothing and treats samples one by one", || subject.evaluates());
    trial.check("what a frozen group computes and remembers stands still", || subject.freezes());
    trial.check("gradients reach every parameter", || subject.gradients());
    trial.check("float32 agrees with float64", || subject.agrees_with_float64());
    let folding = "folding BatchNorm changes nothing beyond rounding";
    match catch(|| tch::no_grad(|| subject.build(Kind::Double)?.model.fold_batch_norm(Kind::Double))) {
        Err(Error::Plan(why)) => trial.skip(folding, &why),
        _ => drop(trial.check(folding, || subject.folds())),
    }
    trial.check("memory does not grow", || subject.keeps_nothing());
    trial.check("an impossible image is an error", || {
        let spec = ModelSpec { input: [0, 1, 1], classes: CLASSES };
        let built = read::<Box<dyn ModelConfig>>(table)?.build(&store().root(), &spec);
        ensure(built.is_err(), || {
            "it was built for images of 0 channels and 1×1 pixels: check `ModelSpec` and say what is wanted".to_owned()
        })
    });
}

fn store() -> nn::VarStore {
    nn::VarStore::new(tch::Device::Cpu)
}

struct Subject {
    config: Box<dyn ModelConfig>,
    spec: ModelSpec,
}

struct Live {
    model: Box<dyn Model>,
    store: nn::VarStore,
    input: Tensor,
}

impl Live {
    fn forward(&self, mode: Mode<'_>, want: &Taps) -> Result<Features> {
        self.model.forward(&self.input, want, mode)
    }

    fn variables(&self) -> Vec<(String, Tensor)> {
        weights::variables(&self.store).into_iter().map(|(name, t)| (name, t.detach().copy())).collect()
    }

    /// The variables that are no longer what they were.
    fn moved(&self, before: &[(String, Tensor)]) -> Vec<String> {
        let now = self.variables();
        let moved = before.iter().zip(&now).filter(|((_, then), (_, now))| !same(then, now));
        moved.map(|((name, _), _)| name.clone()).collect()
    }
}

impl Subject {
    fn new(table: &toml::Table) -> Result<Self> {
        let config: Box<dyn ModelConfig> = read(table)?;
        let mut last = Error::run("no size was tried");
        for side in SIDES {
            let spec = ModelSpec { input: [3, side, side], classes: CLASSES };
            match config.build(&store().root(), &spec) {
                Ok(_) => return Ok(Subject { config, spec }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn build(&self, kind: Kind) -> Result<Live> {
        let mut store = store();
        let model = {
            let _drawing = Seed::new(0).stream("model").seed_libtorch();
            self.config.build(&store.root(), &self.spec)?
        };
        weights::check_names(&store)?;
        if kind == Kind::Double {
            store.double();
        }
        weights::separate(&weights::variables(&store));
        let [channels, height, width] = self.spec.input;
        let input = noise("input", &[BATCH, height, width, channels], -1.5, 1.5).to_kind(kind).permute([0, 3, 1, 2]);
        Ok(Live { model, store, input })
    }

    fn has_its_shapes(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let signature = live.model.signature();
        ensure((signature.input, signature.classes) == (self.spec.input, CLASSES), || {
            format!(
                "built for {:?} and {CLASSES} classes, the signature says {:?} and {}",
                self.spec.input, signature.input, signature.classes
            )
        })?;
        let names: HashSet<&str> = signature.taps.iter().map(|tap| tap.name.as_str()).collect();
        ensure(names.len() == signature.taps.len() && names.len() >= 2, || {
            "taps need different names, and a stem and a pooled vector at least".to_owned()
        })?;
        let want = Taps::all(signature);
        let features = live.forward(Mode::Train, &want)?;
        let size = features.logits.size();
        ensure(size == [BATCH, CLASSES], || format!("the logits are {size:?} instead of [{BATCH}, {CLASSES}]"))?;
        for tap in want.iter() {
            let (found, said) = (features.tap(tap)?.size(), [&[BATCH], signature.shape(tap)?].concat());
            ensure(found == said, || format!("tap `{tap}` is {found:?}, and {said:?} by the signature"))?;
        }
        let last = signature.taps.last().map(|tap| tap.shape.len());
        ensure(last == Some(1), || "the last tap is no vector: it is the pooled feature, `[D]`".to_owned())
    }

    fn is_reproducible(&self) -> Result<()> {
        let (first, second) = (self.build(Kind::Float)?, self.build(Kind::Float)?);
        let differ = second.moved(&first.variables());
        ensure(differ.is_empty(), || {
            format!("{} begin with other values each time: use the layers of `limbeck::nn`", differ.join(", "))
        })
    }

    fn has_its_groups(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let signature = live.model.signature();
        for (name, _) in live.variables() {
            let within = |prefix: &String| {
                name.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            };
            let owners: Vec<&str> = signature
                .groups
                .iter()
                .filter(|group| group.parameters.iter().any(within))
                .map(|group| group.name.as_str())
                .collect();
            ensure(owners.len() == 1, || match owners.as_slice() {
                [] => format!("`{name}` is in no group, so that an initial stage cannot train it"),
                _ => format!("`{name}` is in several groups: {}", owners.join(", ")),
            })?;
        }
        ensure(!signature.feature_groups().is_empty(), || "no group computes features".to_owned())
    }

    fn records_what_is_wanted(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let all = Taps::all(live.model.signature());
        let bare = live.forward(Mode::Eval, &Taps::none())?;
        for wanted in all.iter() {
            let features = live.forward(Mode::Eval, &Taps::from_iter([wanted.clone()]))?;
            features.tap(wanted)?;
            ensure(same(&features.logits, &bare.logits), || {
                format!("the logits are others when `{wanted}` is wanted")
            })?;
            let more = all.iter().find(|tap| *tap != wanted && features.tap(tap).is_ok());
            ensure(more.is_none(), || format!("`{wanted}` alone was wanted, and others were kept: use `Recorder`"))?;
        }
        let unknown = TapRef { name: "no_such_tap".to_owned(), form: Form::Output };
        ensure(live.forward(Mode::Eval, &Taps::from_iter([unknown])).is_err(), || {
            "a tap that does not exist was accepted: use `Recorder::finish`".to_owned()
        })
    }

    fn evaluates(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let _no_grad = no_grad_guard();
        let before = live.variables();
        let all = live.forward(Mode::Eval, &Taps::none())?.logits;
        let moved = live.moved(&before);
        ensure(moved.is_empty(), || format!("an evaluation changed {}", moved.join(", ")))?;
        let again = live.forward(Mode::Eval, &Taps::none())?.logits;
        ensure(same(&all, &again), || "two evaluations gave different logits: is dropout on?".to_owned())?;
        let one = live.model.forward(&live.input.narrow(0, 1, 1), &Taps::none(), Mode::Eval)?.logits;
        let apart = distance(&one, &all.narrow(0, 1, 1), 0.0);
        ensure(apart <= ALONE, || {
            format!(
                "the logits of a sample alone and among others are {apart:.1e} apart: does BatchNorm use the batch?"
            )
        })
    }

    fn freezes(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let signature = live.model.signature();
        let before = live.variables();
        live.forward(Mode::TrainGroups(&[]), &Taps::none())?;
        let moved = live.moved(&before);
        ensure(moved.is_empty(), || {
            format!("with every group frozen a pass moved {}: ask `Mode::trains` of the group", moved.join(", "))
        })?;
        for group in &signature.groups {
            let before = live.variables();
            live.forward(Mode::TrainGroups(std::slice::from_ref(&group.name)), &Taps::none())?;
            let foreign = live
                .moved(&before)
                .into_iter()
                .find(|name| signature.group_of(name).is_none_or(|owner| owner.name != group.name));
            ensure(foreign.is_none(), || {
                let name = foreign.unwrap_or_default();
                format!("a pass that trains group `{}` moved `{name}`: ask `Mode::trains` of its group", group.name)
            })?;
        }
        Ok(())
    }

    fn gradients(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        live.forward(Mode::Train, &Taps::none())?.logits.square().mean(None::<Kind>).backward();
        for (name, variable) in weights::variables(&live.store).into_iter().filter(|(_, t)| t.requires_grad()) {
            let gradient = variable.grad();
            ensure(gradient.defined(), || format!("the logits do not depend on `{name}`, which would not train"))?;
            ensure(is_finite(&gradient), || format!("the gradient of `{name}` is not finite"))?;
        }
        Ok(())
    }

    fn agrees_with_float64(&self) -> Result<()> {
        let _no_grad = no_grad_guard();
        // Not in training mode: where a deep network leaves BatchNorm a handful of values, it amplifies any rounding.
        let logits = |kind| Ok::<_, Error>(self.build(kind)?.forward(Mode::Eval, &Taps::none())?.logits);
        let apart = distance(&logits(Kind::Float)?, &logits(Kind::Double)?, 0.0);
        ensure(apart <= FLOAT32, || format!("logits are {apart:.1e} apart where {FLOAT32:.0e} is allowed"))
    }

    fn keeps_nothing(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let taps = live.model.signature().taps.iter();
        let largest = taps.map(|tap| tap.shape.iter().product::<i64>()).max().unwrap_or(1);
        memory_is_steady((4 * BATCH * largest) as usize, || live.forward(Mode::Train, &Taps::none()).map(drop))
    }

    fn folds(&self) -> Result<()> {
        let mut live = self.build(Kind::Double)?;
        let _no_grad = no_grad_guard();
        for (name, variable) in weights::variables(&live.store) {
            // Statistics and scales as of a trained network; positive, as variances are.
            if variable.dim() == 1 {
                variable.shallow_clone().copy_(&noise(&name, &variable.size(), 0.5, 1.5));
            }
        }
        let want = Taps::all(live.model.signature());
        let plain = live.forward(Mode::Eval, &want)?;
        live.model.fold_batch_norm(Kind::Double)?;
        let folded = live.forward(Mode::Eval, &want)?;
        let apart = distance(&folded.logits, &plain.logits, 0.0);
        ensure(apart <= FOLDED, || format!("logits are {apart:.1e} apart where {FOLDED:.0e} is allowed"))
    }
}
