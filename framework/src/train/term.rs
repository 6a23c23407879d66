//! Terms: a method's distillers, one for each teacher, with what they train and remember.

use std::sync::Arc;

use indexmap::IndexMap;
use tch::{Device, nn};

use super::catch::catch;
use super::teacher;
use crate::config::key::KeyPath;
use crate::contracts::task::Task;
use crate::distiller::{Distiller, InitialStage, Site, TapPairs};
use crate::error::{Error, Result};
use crate::experiment::{MethodConfig, TermConfig, TermSchedule};
use crate::model::Signature;
use crate::seed::Seed;
use crate::weights;

/// One distiller of one method for one teacher.
#[derive(Debug)]
pub struct Term {
    /// `crd`, or `crd.TEACHER` where there are several teachers; numbered where a kind occurs twice.
    pub label: String,
    /// What its loss is multiplied by.
    pub weight: f64,
    /// When that applies; absent: always.
    pub schedule: Option<TermSchedule>,
    /// The teacher's name.
    pub teacher: String,
    /// The features that it compares.
    pub taps: TapPairs,
    /// The distiller at work.
    pub distiller: Box<dyn Distiller>,
    /// What it trains and remembers.
    pub store: nn::VarStore,
}

/// What the terms of a method are built for.
#[derive(Clone, Debug)]
pub struct TermSite<'a> {
    /// The teachers by name, in the order of the experiment.
    pub teachers: &'a IndexMap<String, Signature>,
    /// Which of them combine others, with the names of those: they have no taps, and only a term that names them asks them.
    pub combined: &'a IndexMap<String, Vec<String>>,
    /// The label of every training sample, by position.
    pub labels: &'a Arc<[i64]>,
    /// The task of the data.
    pub task: &'static dyn Task,
    /// Where tensors live.
    pub device: Device,
    /// The lane's seed: initial values of heads are a function of it and of the term's place in its method.
    pub seed: u64,
}

/// Builds a method's terms. Planning and training both call this, so what is planned is what is trained.
///
/// # Errors
/// If a term does not fit its student and teacher: the message names the term and the teacher.
pub fn build_terms(method: &MethodConfig, student: &Signature, site: &TermSite<'_>) -> Result<Vec<Term>> {
    // Labels name state and metrics: they depend on the method alone, not on teachers that others ask.
    let asked = site.teachers.keys().filter(|name| method.terms.iter().any(|config| asks(config, name, site)));
    let several = asked.count() > 1;
    let mut terms: Vec<Term> = Vec::new();
    for (index, config) in method.terms.iter().enumerate() {
        for (name, signature) in site.teachers.iter().filter(|(name, _)| asks(config, name, site)) {
            let kind = config.distiller.typetag_name();
            let label = if several { format!("{kind}.{name}") } else { kind.to_owned() };
            let earlier = terms.iter().filter(|term| term.label.split('#').next() == Some(label.as_str())).count();
            let label = if earlier > 0 { format!("{label}#{}", earlier + 1) } else { label };
            let place = Site {
                student,
                teacher: signature,
                teacher_name: name,
                labels: site.labels,
                classes: student.classes,
                task: site.task,
                configured_pairs: config.taps.as_deref(),
                device: site.device,
            };
            let seed = Seed::new(site.seed).stream("term").at(index as u64).stream(name);
            let members = site.combined.get(name).map(Vec::as_slice);
            let term = build_term(config, &place, members, label, seed)
                .map_err(|e| e.at_what(KeyPath::from("terms").item(index), format!("{kind}, teacher {name}")))?;
            terms.push(term);
        }
    }
    Ok(terms)
}

/// Whether a term asks this teacher; those that are combined, only if it names them.
fn asks(config: &TermConfig, name: &str, site: &TermSite<'_>) -> bool {
    let usual = !site.combined.contains_key(name);
    config.teachers.as_ref().map_or(usual, |chosen| chosen.iter().any(|chosen| chosen == name))
}

fn build_term(
    config: &TermConfig,
    site: &Site<'_>,
    members: Option<&[String]>,
    label: String,
    seed: Seed,
) -> Result<Term> {
    let taps = match members {
        None => config.distiller.taps(site)?,
        Some(members) => no_taps(config, site, members)?,
    };
    // On the CPU first, as the student: heads and banks begin with the same values on every device.
    let mut store = nn::VarStore::new(Device::Cpu);
    let distiller = {
        let _drawing = seed.seed_libtorch();
        config.distiller.build(site, &store.root())?
    };
    store.set_device(site.device);
    weights::check_names(&store)?;
    if let Some(stage) = distiller.initial_stage() {
        check_initial_stage(&stage, site.student, &store)?;
        if !stage.then_loss && config.schedule.is_some() {
            return Err(Error::plan(
                "it has no loss after its initial stage, so that `schedule` has no effect: remove it",
            ));
        }
    }
    let teacher = site.teacher_name.to_owned();
    Ok(Term { label, weight: config.weight, schedule: config.schedule.clone(), teacher, taps, distiller, store })
}

/// Refuses a method that has nothing to minimise in some epoch of the main stage, which has `epochs` of them.
///
/// # Errors
/// With the terms that have a loss no longer, and the remedy.
pub fn check_main_stage(method: &MethodConfig, terms: &[Term], epochs: u64) -> Result<()> {
    // A term that has ended stays so: the last epoch is the poorest.
    let last = terms.iter().map(|term| term.last_epoch().unwrap_or(epochs)).max();
    let without = terms.iter().find(|term| term.last_epoch() == Some(0));
    match (last, without) {
        (Some(0), Some(term)) if method.cross_entropy == 0.0 => Err(Error::plan(format!(
            "{} has no loss after its initial stage: give cross_entropy or another term",
            term.label
        ))),
        (Some(last), Some(term)) if method.cross_entropy == 0.0 && last < epochs => Err(Error::plan(format!(
            "{} has no loss after its initial stage, and every other term has ended after epoch {last}: give \
             cross_entropy or another term",
            term.label
        ))),
        _ => Ok(()),
    }
}

/// That a method compares no features: a teacher that combines others has none.
fn no_taps(config: &TermConfig, site: &Site<'_>, members: &[String]) -> Result<TapPairs> {
    // A method may take it for granted that there are taps.
    let found = catch(|| config.distiller.taps(site));
    if let Ok(taps) = &found
        && taps.pairs.is_empty()
        && taps.dropped.is_empty()
    {
        return found;
    }
    // What it refuses beside any teacher has another reason.
    config.distiller.taps(&Site { teacher: site.student, ..site.clone() })?;
    Err(Error::plan(format!(
        "teacher `{}` combines {}: it has logits and no taps, and this term compares taps; ask the members one by one, \
         teachers = {members:?}",
        site.teacher_name,
        members.join(", ")
    )))
}

/// An initial stage that names something that does not exist would silently not train it.
fn check_initial_stage(stage: &InitialStage, student: &Signature, store: &nn::VarStore) -> Result<()> {
    if stage.epochs == 0 {
        return Err(Error::plan("the initial stage must have at least 1 epoch"));
    }
    if let Some(unknown) =
        stage.student_groups.iter().find(|name| !student.groups.iter().any(|group| group.name == **name))
    {
        let groups: Vec<&str> = student.groups.iter().map(|group| group.name.as_str()).collect();
        return Err(Error::plan(format!(
            "the initial stage trains the student's group `{unknown}`, which has {}",
            groups.join(", ")
        )));
    }
    match stage.own.iter().find(|prefix| !store.variables().keys().any(|name| is_within(name, prefix))) {
        None => Ok(()),
        Some(unknown) => {
            Err(Error::plan(format!("the initial stage trains `{unknown}`, which the method did not register")))
        }
    }
}

/// Whether a parameter is the one of that name, or belongs to the module of that name.
pub(super) fn is_within(parameter: &str, module: &str) -> bool {
    parameter.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Term {
    /// The number of parameters that are trained beside the student.
    pub fn parameters(&self) -> i64 {
        teacher::parameters(&self.store)
    }

    /// The weight in an epoch of the main stage, from 1; `None` once the term has ended.
    pub(super) fn weight_in(&self, epoch: u64, epochs: u64) -> Option<f64> {
        let factor = self.schedule.as_ref().map_or(Some(1.0), |schedule| schedule.factor(epoch, epochs));
        factor.map(|factor| self.weight * factor)
    }

    /// The last epoch of the main stage in which it has a loss; absent: the last of all. 0: it has none there.
    pub fn last_epoch(&self) -> Option<u64> {
        match self.initial_stage() {
            Some(stage) if !stage.then_loss => Some(0),
            _ => self.schedule.as_ref().and_then(|schedule| schedule.to),
        }
    }

    /// The stage before the main one, if the method has one.
    pub fn initial_stage(&self) -> Option<InitialStage> {
        self.distiller.initial_stage()
    }
}
