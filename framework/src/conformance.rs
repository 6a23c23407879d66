//! Conformance: what every good plugin does, checked by one call.
//!
//! ```
//! # use limbeck::prelude::*;
//! # limbeck::plugin! { distiller "squares": Squares, summary: "squared distance of the logits", citation: "" }
//! # #[derive(Debug, Clone, Settings)]
//! # struct Squares {}
//! # #[typetag::serde(name = "squares")]
//! # impl DistillerConfig for Squares {
//! #     fn taps(&self, site: &Site<'_>) -> Result<TapPairs> { site.logits_only() }
//! #     fn build(&self, _: &Site<'_>, _: &nn::Path<'_>) -> Result<Box<dyn Distiller>> { Ok(Box::new(self.clone())) }
//! # }
//! # impl Distiller for Squares {
//! #     fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
//! #         Ok(Terms::of("squares", (&step.student.logits - &step.teacher.logits).square().mean(None::<Kind>)))
//! #     }
//! # }
//! use limbeck::conformance;
//! use limbeck::registry::Role;
//!
//! conformance::check(Role::Distiller, "squares", "").assert();
//! ```
//!
//! It needs no data and no network: it brings features, batches, a small network and a data set of its own, and ends
//! within seconds. What is checked, by role:
//!
//! | role | what must hold |
//! |---|---|
//! | every one | the settings survive being written and read; an unknown key is refused |
//! | distiller | it fits a student and a teacher of other widths, or of the same; one seed gives the same twice; gradients reach the student and every parameter of its own; the teacher's features, the student's and the labels are left as they are; losses are finite for constant, huge, tiny and identical features; the order of the batch does not matter, unless [`order_matters`](crate::distiller::Distiller::order_matters); float32 agrees with float64, and CUDA with the CPU where there is one; every declared tap is used and no other; memory does not grow; in real training, a student resumed at every third step, and one beside two others, end with the bytes of one undisturbed and alone |
//! | critic | shapes; scores by the bank and by pairs agree; [`factors`](crate::critic::Critic::factors) is true; gradients; one finite loss for extreme scores; masked scores do not count; no bound for unfair negatives; the order of anchors and negatives does not matter; kinds; state |
//! | negatives | rows exist and are never the anchor's own; [`spares_class`](crate::negatives::NegativeSampler::spares_class) and [`wants_bank`](crate::negatives::NegativeSampler::wants_bank) are true; a draw is a function of the seed and the anchor; a training set of one class gives an error or valid negatives |
//! | model | the signature's shapes; groups that hold every parameter once; evaluation changes nothing and treats samples one by one; frozen groups stand still; gradients; wanted taps and no others; kinds; folding; memory |
//! | dataset | labels, names and views in order; `[B, C, H, W]` float32 in channels_last order; evaluation is repeatable; a sample's augmentation is a function of seed and row; what does not exist is an error; building twice gives the same |
//!
//! A check that cannot be made (no GPU) or that the plugin is exempt from is reported as skipped, with the reason. Methods,
//! schedules and optimisers have the checks of [`registry::check`] alone.

mod critic;
mod dataset;
mod distiller;
mod model;
mod negatives;
mod probe;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Tensor;

use crate::cohort::catch;
use crate::critic::CriticConfig;
use crate::dataset::DatasetConfig;
use crate::device::load_cuda;
use crate::distiller::DistillerConfig;
use crate::error::{Error, Result};
use crate::memory;
use crate::model::ModelConfig;
use crate::negatives::NegativeSamplerConfig;
use crate::registry::{self, Plugin, Role};

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "why", rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Held,
    /// It was not made, for this reason.
    Skipped(String),
    /// It does not hold: what was found, and what to do about it.
    Fault(String),
}

/// One check and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What must hold, in words.
    pub check: &'static str,
    /// Whether it does.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Every check of one plugin, in the order in which they were made. As text, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The plugin's role.
    pub role: Role,
    /// Its name.
    pub name: String,
    /// The checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The checks that do not hold: (check, fault).
    pub fn faults(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.findings.iter().filter_map(|finding| match &finding.outcome {
            Outcome::Fault(fault) => Some((finding.check, fault.as_str())),
            Outcome::Held | Outcome::Skipped(_) => None,
        })
    }

    /// Ends a test if there is a fault.
    ///
    /// # Panics
    /// If a check does not hold, with the whole report.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.faults().next().is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} `{}`:", self.role, self.name)?;
        for Finding { check, outcome } in &self.findings {
            match outcome {
                Outcome::Held => writeln!(f, "  ok       {check}")?,
                Outcome::Skipped(why) => writeln!(f, "  skipped  {check}: {why}")?,
                Outcome::Fault(fault) => writeln!(f, "  FAULT    {check}: {fault}")?,
            }
        }
        Ok(())
    }
}

/// Checks the plugin of that role and name. `settings` (TOML) replace its defaults where they are not right for a small data
/// set: `"count = 4"`, `"initial_epochs = 1"`, a path.
///
/// Checks run one after the other, also if called from several threads: they measure memory and seed libtorch's
/// generators.
pub fn check(role: Role, name: &str, settings: &str) -> Report {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Seeds and gradients make libtorch decide whether there is CUDA: it must be loaded before.
    load_cuda();
    let mut trial = Trial { findings: Vec::new() };
    let found = trial.value("the plugin is registered", || subject(role, name, settings));
    if let Some((plugin, table)) = found {
        match role {
            Role::Distiller => {
                settings_hold::<Box<dyn DistillerConfig>>(&mut trial, plugin, &table);
                distiller::check(&mut trial, &table);
            }
            Role::Critic => {
                settings_hold::<Box<dyn CriticConfig>>(&mut trial, plugin, &table);
                critic::check(&mut trial, &table);
            }
            Role::Negatives => {
                settings_hold::<Box<dyn NegativeSamplerConfig>>(&mut trial, plugin, &table);
                negatives::check(&mut trial, &table);
            }
            Role::Model => {
                settings_hold::<Box<dyn ModelConfig>>(&mut trial, plugin, &table);
                model::check(&mut trial, &table);
            }
            Role::Dataset => {
                settings_hold::<Box<dyn DatasetConfig>>(&mut trial, plugin, &table);
                dataset::check(&mut trial, &table);
            }
            Role::Method | Role::Schedule | Role::Optimizer => {
                trial.check("the default settings are complete and survive a round trip", || plugin.check());
            }
        }
    }
    Report { role, name: name.to_owned(), findings: trial.findings }
}

/// The plugin, and its settings: the defaults, with `settings` over them.
fn subject(role: Role, name: &str, settings: &str) -> Result<(&'static Plugin, toml::Table)> {
    registry::check_names()?;
    let plugin = registry::find(role, name)?;
    let own: toml::Table = settings.parse().map_err(|e: toml::de::Error| Error::plan(e.message()))?;
    let mut table = plugin.default_table()?;
    table.extend(own);
    Ok((plugin, table))
}

/// Reads a recipe.
fn read<T: DeserializeOwned>(table: &toml::Table) -> Result<T> {
    table.clone().try_into().map_err(|e: toml::de::Error| Error::plan(e.message()))
}

fn settings_hold<T: DeserializeOwned + Serialize + fmt::Debug>(
    trial: &mut Trial,
    plugin: &Plugin,
    table: &toml::Table,
) {
    trial.check("the default settings are complete and survive a round trip", || {
        plugin.check()?;
        let value: T = read(table)?;
        let written = toml::Table::try_from(&value).map_err(|e| Error::run(e.to_string()))?;
        let again: T = read(&written)?;
        ensure(format!("{value:?}") == format!("{again:?}"), || {
            format!("{value:?} became {again:?}: serialise every field by the name that is read")
        })
    });
    trial.check("an unknown key is refused", || {
        let key = "no_such_setting";
        let mut table = table.clone();
        table.insert(key.to_owned(), 1.into());
        ensure(read::<T>(&table).is_err(), || {
            format!("`{key} = 1` was accepted, and so would be a misspelt setting: add #[serde(deny_unknown_fields)]")
        })
    });
}

/// The checks of a plugin so far.
struct Trial {
    findings: Vec<Finding>,
}

impl Trial {
    /// Makes a check. A panic is a fault too.
    fn check(&mut self, check: &'static str, work: impl FnOnce() -> Result<()>) -> bool {
        self.value(check, work).is_some()
    }

    /// Makes a check that gives something for those that follow.
    fn value<T>(&mut self, check: &'static str, work: impl FnOnce() -> Result<T>) -> Option<T> {
        let (outcome, value) = match catch(|| tch::with_grad(work)) {
            Ok(value) => (Outcome::Held, Some(value)),
            Err(error) => (Outcome::Fault(error.to_string()), None),
        };
        self.findings.push(Finding { check, outcome });
        value
    }

    /// Makes a check that says something only where another one holds.
    fn check_if(&mut self, sound: bool, else_why: &str, check: &'static str, work: impl FnOnce() -> Result<()>) {
        match sound {
            true => drop(self.check(check, work)),
            false => self.skip(check, else_why),
        }
    }

    fn skip(&mut self, check: &'static str, why: &str) {
        self.findings.push(Finding { check, outcome: Outcome::Skipped(why.to_owned()) });
    }
}

fn ensure(holds: bool, fault: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::run(fault())) }
}

/// Whether two tensors are the same to the last bit, shape and kind included. NaN equals nothing.
fn same(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.kind() == b.kind() && a.equal(&b.to_device(a.device()))
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// ‖a − b‖ / ‖b‖ in float64; over `largest` where ‖b‖ is below 1e-9 of it. Infinite if either is not finite.
fn distance(a: &Tensor, b: &Tensor, largest: f64) -> f64 {
    let [a, b] = [a, b].map(|t| t.detach().to_device(tch::Device::Cpu).to_kind(tch::Kind::Double));
    let (apart, norm) = ((&a - &b).norm().double_value(&[]), b.norm().double_value(&[]));
    match apart {
        0.0 => 0.0,
        _ if apart.is_nan() => f64::INFINITY,
        _ if norm < 1e-9 * largest => apart / largest,
        _ => apart / norm,
    }
}

/// Takes what memory the process holds and does not use: what is kept would vanish there.
fn fill_holes() -> Vec<Vec<u8>> {
    const BLOCK: usize = 4 << 10;
    const BLOCKS: usize = 256;
    let (mut taken, mut grown) = (Vec::new(), 0);
    while grown < 2 && taken.len() < 256 * BLOCKS {
        let before = memory::resident();
        taken.extend((0..BLOCKS).map(|_| vec![1; BLOCK]));
        let (Some(before), Some(after)) = (before, memory::resident()) else { break };
        grown = if after >= before + (BLOCK * BLOCKS / 2) as u64 { grown + 1 } else { 0 };
    }
    taken
}

/// Does `work` again and again, until resident memory has stood still for three rounds. It never does if each call leaves
/// `bytes` behind: then every round grows by more than half of what that makes. Others may allocate meanwhile, so that one
/// round proves nothing.
fn memory_is_steady(bytes: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    const ROUNDS: u64 = 16;
    const LEFT_BY_ROUND: u64 = 1 << 20;
    let _ballast = fill_holes();
    let calls = LEFT_BY_ROUND.div_ceil(bytes.max(1) as u64).clamp(4, 64);
    let mut still = 0;
    for _ in 0..ROUNDS {
        let before = memory::resident();
        (0..calls).try_for_each(|_| work())?;
        let (Some(before), Some(after)) = (before, memory::resident()) else { return Ok(()) };
        still = if after > before + calls * bytes as u64 / 2 { 0 } else { still + 1 };
        if still == 3 {
            return Ok(());
        }
    }
    Err(Error::run(format!(
        "memory kept growing over {} calls: something of every call is kept, for example a tensor with its graph (detach \
         what is remembered, and change it in place)",
        ROUNDS * calls
    )))
}
