//! What a network must do.

use std::collections::HashSet;

use limbeck::cohort::catch;
use limbeck::error::{Error, Result};
use limbeck::experiment::Precision;
use limbeck::model::{
    BatchNormInfo, ClassifierInfo, Features, Form, Lent, Mode, Model, ModelConfig, ModelSpec, TapInfo, TapRef,
    TapShape, Taps,
};
use limbeck::seed::Seed;
use limbeck::weights;
use tch::{Kind, Tensor, nn, no_grad_guard};

use crate::data::noise;
use crate::memory::memory_is_steady;
use crate::settings::read;
use crate::tensors::{distance, is_finite, same};
use crate::trial::{Trial, ensure};

const CLASSES: i64 = 7;
const BATCH: i64 = 3;
/// Sides of the square images that are tried, until one is taken.
const SIDES: [i64; 3] = [32, 64, 224];
/// Relative distances.
const FLOAT32: f64 = 1e-3;
const ALONE: f64 = 1e-4;
const FOLDED: f64 = 1e-9;
const LENT: f64 = 1e-9;

pub fn check(trial: &mut Trial, table: &toml::Table) {
    let found = trial.value("it can be built for colour images of 32, 64 or 224 pixels", || ModelTrial::new(table));
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
    subject.lends(trial);
    trial.check("float32 agrees with float64", || subject.agrees_with_float64());
    let folding = "folding BatchNorm changes nothing beyond rounding";
    match catch(|| tch::no_grad(|| subject.build(Kind::Double)?.model.fold_batch_norm(Kind::Double))) {
        Err(why @ Error::Plan { .. }) => trial.skip(folding, &why.to_string()),
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

struct ModelTrial {
    config: Box<dyn ModelConfig>,
    spec: ModelSpec,
}

struct LiveModel {
    model: Box<dyn Model>,
    store: nn::VarStore,
    input: Tensor,
}

impl LiveModel {
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

impl LiveModel {
    /// What the network lends now.
    fn lent(&self) -> Result<Lent> {
        Lent::of(self.model.signature(), &weights::variables(&self.store), Precision::Float32)
    }

    /// Whether the classifier that is lent makes the logits, with other weights than those it began with: they are written
    /// into what is lent, and the network must compute with them.
    fn classifies(&self) -> Result<()> {
        let Some(ClassifierInfo { weight, bias, tap }) = &self.model.signature().classifier else { return Ok(()) };
        let lent = self.lent()?;
        for (name, variable) in weights::variables(&self.store) {
            if name == *weight || bias.as_ref() == Some(&name) {
                variable.shallow_clone().copy_(&noise(&format!("lent {name}"), &variable.size(), -0.5, 0.5));
            }
        }
        let tap = TapRef::output(tap);
        let features = self.forward(Mode::Eval, &Taps::from_iter([tap.clone()]))?.with(lent);
        let apart = distance(&features.classify(features.tap(&tap)?)?, &features.logits, 0.0);
        ensure(apart <= LENT, || {
            format!(
                "`{weight}` makes of tap `{tap}` what is {apart:.1e} from the logits where {LENT:.0e} is allowed: lend the layer \
                 that computes them, and name the tap before it"
            )
        })
    }

    /// Whether a tap's value before its activation is the sum of its BatchNorm's output and of what does not depend on that.
    /// With x̂ the normalised value and a shift d, what (2γ, β + d) and (0, β) give deviates by γx̂ + d and −γx̂.
    fn follows_batch_norm(&self, info: &TapInfo) -> Result<()> {
        let Some(BatchNormInfo { weight, bias }) = &info.batch_norm else { return Ok(()) };
        let tap = TapRef::pre_activation(&info.name);
        let (mut gamma, mut beta) = self.lent()?.batch_norm(&tap)?;
        let channels = info.shape.channels();
        ensure(gamma.size() == [channels] && beta.size() == [channels], || {
            format!(
                "`{weight}` is lent for tap `{tap}`, which has {channels} channels, and has the shape {:?}",
                gamma.size()
            )
        })?;
        let value =
            || -> Result<Tensor> { Ok(self.forward(Mode::Eval, &Taps::from_iter([tap.clone()]))?.tap(&tap)?.copy()) };
        let (usual, gamma_was, beta_was) = (value()?, gamma.copy(), beta.copy());
        let shift = noise(&format!("shift {bias}"), &[channels], 0.5, 1.5);
        gamma.copy_(&(&gamma_was * 2.0));
        beta.copy_(&(&beta_was + &shift));
        let more = value()?;
        gamma.copy_(&gamma.zeros_like());
        beta.copy_(&beta_was);
        let less = value()?;
        gamma.copy_(&gamma_was);
        let expected = match info.shape {
            TapShape::Map { .. } => shift.view([1, -1, 1, 1]),
            TapShape::Tokens { .. } | TapShape::Vector { .. } => shift,
        };
        // Sums are compared, not their difference: rounding is in proportion to what a deep network adds up.
        let apart = distance(&(more + &less), &(&usual * 2.0 + expected), 0.0);
        ensure(apart <= LENT && !same(&less, &usual), || {
            format!(
                "tap `{tap}` does not follow `{weight}` and `{bias}` as the output of their BatchNorm does: lend the last one \
                 before the activation, and only where it has all channels"
            )
        })
    }

    /// Whether every name that weight decay should spare is that of a parameter, once.
    fn spares_its_own(&self) -> Result<()> {
        let mut parameters: HashSet<String> = weights::variables(&self.store)
            .into_iter()
            .filter(|(_, variable)| variable.requires_grad())
            .map(|(name, _)| name)
            .collect();
        for name in &self.model.signature().no_decay {
            ensure(parameters.remove(name), || {
                format!("`{name}` is named for `no_decay`, and is no parameter that trains, or is named twice")
            })?;
        }
        Ok(())
    }
}

impl ModelTrial {
    fn new(table: &toml::Table) -> Result<Self> {
        let config: Box<dyn ModelConfig> = read(table)?;
        let mut last = Error::run("no size was tried");
        for side in SIDES {
            let spec = ModelSpec { input: [3, side, side], classes: CLASSES };
            match config.build(&store().root(), &spec) {
                Ok(_) => return Ok(ModelTrial { config, spec }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn build(&self, kind: Kind) -> Result<LiveModel> {
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
        Ok(LiveModel { model, store, input })
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
            let (found, said) = (features.tap(tap)?.size(), signature.shape(tap)?.of_batch(BATCH));
            ensure(found == said, || format!("tap `{tap}` is {found:?}, and {said:?} by the signature"))?;
        }
        ensure(signature.pooled().is_some(), || "the last tap is no vector: it is the pooled feature, `[D]`".to_owned())
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
            let owners: Vec<&str> =
                signature.groups.iter().filter(|group| group.holds(&name)).map(|group| group.name.as_str()).collect();
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
        let single = self.build(Kind::Float)?.forward(Mode::Eval, &Taps::none())?.logits;
        let double = self.build(Kind::Double)?.forward(Mode::Eval, &Taps::none())?.logits;
        let apart = distance(&single, &double, 0.0);
        ensure(apart <= FLOAT32, || format!("logits are {apart:.1e} apart where {FLOAT32:.0e} is allowed"))
    }

    fn keeps_nothing(&self) -> Result<()> {
        let live = self.build(Kind::Float)?;
        let taps = live.model.signature().taps.iter();
        let largest = taps.map(|tap| tap.shape.elements()).max().unwrap_or(1);
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
        ensure(apart <= FOLDED, || format!("logits are {apart:.1e} apart where {FOLDED:.0e} is allowed"))?;
        live.classifies()
    }

    /// What the network lends, and what it names for weight decay, is its own.
    fn lends(&self, trial: &mut Trial) {
        let (classifier, batch_norm) = (
            "the logits are what the classifier that it lends makes of its tap",
            "a tap follows the BatchNorm that is lent for it",
        );
        let decay = "every parameter that weight decay should spare is one that trains";
        let Some(live) = trial.value("it can be built in float64", || self.build(Kind::Double)) else { return };
        let signature = live.model.signature();
        if signature.classifier.is_some() {
            trial.check(classifier, || {
                let _no_grad = no_grad_guard();
                live.classifies()
            });
        } else {
            trial.skip(classifier, "the network lends no classifier: `Signature::with_classifier`");
        }
        if signature.taps.iter().any(|tap| tap.batch_norm.is_some()) {
            trial.check(batch_norm, || {
                let _no_grad = no_grad_guard();
                signature.taps.iter().try_for_each(|tap| live.follows_batch_norm(tap))
            });
        } else {
            trial.skip(batch_norm, "the network lends no BatchNorm: `TapInfo::behind`");
        }
        if signature.no_decay.is_empty() {
            trial.skip(decay, "the network names none: `Signature::with_no_decay`");
        } else {
            trial.check(decay, || live.spares_its_own());
        }
    }
}
