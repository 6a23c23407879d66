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
//! use limbeck::registry::Role;
//!
//! limbeck_conformance::check(Role::Distiller, "squares", "").assert();
//! ```
//!
//! It needs no data and no network: it brings features, batches, a small network and a data set of its own, and ends
//! within seconds. What is checked, by role:
//!
//! | role | what must hold |
//! |---|---|
//! | every one | the settings survive being written and read; an unknown key is refused |
//! | distiller | it fits a student and a teacher of other widths, or of the same; one seed gives the same twice; gradients reach the student and every parameter of its own; the teacher's features, the student's, what they lend and the labels are left as they are; losses are finite for constant, huge, tiny and identical features; the order of the batch does not matter, unless [`order_matters`](limbeck::distiller::Distiller::order_matters); float32 agrees with float64, and CUDA with the CPU where there is one; every declared tap is used and no other; memory does not grow; in real training, a student resumed at every third step, and one beside two others, end with the bytes of one undisturbed and alone |
//! | critic | shapes; scores by the bank and by pairs agree; [`factors`](limbeck::critic::Critic::factors) is true; gradients; one finite loss for extreme scores; masked scores do not count; no bound for unfair negatives; the order of anchors and negatives does not matter; kinds; state |
//! | negatives | rows exist and are never the anchor's own; [`spares_class`](limbeck::negatives::NegativeSampler::spares_class) and [`wants_bank`](limbeck::negatives::NegativeSampler::wants_bank) are true; a draw is a function of the seed and the anchor; a training set of one class gives an error or valid negatives |
//! | model | the signature's shapes; groups that hold every parameter once; evaluation changes nothing and treats samples one by one; frozen groups stand still; gradients; wanted taps and no others; what it lends is what it computes with ([`Lent`](limbeck::model::Lent)), and what weight decay should spare trains; kinds; folding; memory |
//! | dataset | labels, names and views in order; `[B, C, H, W]` float32 in channels_last order; evaluation is repeatable; a sample's augmentation is a function of seed and row; what does not exist is an error; building twice gives the same |
//! | task | metrics with names and keys of their own; targets that it knows and others that it refuses; a finite loss of the logits' kind that learns from every sample and changes nothing; a meter that does not depend on batches or order and agrees with the loss; the better score for whoever learns; scores of all classes, in order |
//!
//! A check that cannot be made (no GPU) or that the plugin is exempt from is reported as skipped, with the reason. Methods,
//! schedules and optimisers have the checks of [`registry::check`](limbeck::registry::check) alone.

mod critic;
mod data;
mod dataset;
mod distiller;
mod memory;
mod model;
mod negatives;
mod network;
mod report;
mod settings;
mod task;
mod tensors;
mod training;
mod trial;

use std::sync::{Mutex, PoisonError};

use limbeck::critic::CriticConfig;
use limbeck::dataset::DatasetConfig;
use limbeck::device::load_cuda;
use limbeck::distiller::DistillerConfig;
use limbeck::model::ModelConfig;
use limbeck::negatives::NegativeSamplerConfig;
use limbeck::registry::Role;

pub use report::{Finding, Outcome, Report};
use settings::{settings_hold, subject};
use trial::Trial;

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
            Role::Task => task::check(&mut trial, plugin),
            Role::Method | Role::Schedule | Role::Optimizer => {
                trial.check("the default settings are complete and survive a round trip", || plugin.check());
            }
        }
    }
    Report { role, name: name.to_owned(), findings: trial.findings }
}
