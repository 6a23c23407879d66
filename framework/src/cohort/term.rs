//! Terms: a method's distillers, one for each teacher, with what they train and remember.

use std::sync::Arc;

use indexmap::IndexMap;
use tch::{Device, nn};

use crate::distiller::{Distiller, Site, TapPairs};
use crate::error::{Error, Result};
use crate::experiment::{MethodConfig, TermConfig};
use crate::model::Signature;
use crate::seed::Seed;

/// One distiller of one method for one teacher.
#[derive(Debug)]
pub struct Term {
    /// `crd`, or `crd.TEACHER` where there are several teachers; numbered where a kind occurs twice.
    pub label: String,
    /// What its loss is multiplied by.
    pub weight: f64,
    /// The teacher's name.
    pub teacher: String,
    /// The features that it compares.
    pub taps: TapPairs,
    pub(crate) distiller: Box<dyn Distiller>,
    pub(crate) store: nn::VarStore,
}

/// What the terms of a method are built for.
#[derive(Clone, Debug)]
pub struct TermSite<'a> {
    /// The student.
    pub student: &'a Signature,
    /// The teachers by name, in the order of the experiment.
    pub teachers: &'a IndexMap<String, Signature>,
    /// The label of every training sample, by position.
    pub labels: &'a Arc<[i64]>,
    /// Where tensors live.
    pub device: Device,
    /// The lane's seed: initial values of heads are a function of it and of the term's place in its method.
    pub seed: u64,
}

/// Builds a method's terms. Planning and training both call this, so what is planned is what is trained.
///
/// # Errors
/// If a term does not fit its student and teacher: the message names the term and the teacher.
pub fn build_terms(method: &MethodConfig, site: &TermSite<'_>) -> Result<Vec<Term>> {
    let mut terms: Vec<Term> = Vec::new();
    for (index, config) in method.terms.iter().enumerate() {
        for (name, signature) in site.teachers {
            if config.teachers.as_ref().is_none_or(|chosen| chosen.contains(name)) {
                let kind = config.distiller.typetag_name();
                let label = if site.teachers.len() > 1 { format!("{kind}.{name}") } else { kind.to_owned() };
                let earlier = terms.iter().filter(|term| term.label.split('#').next() == Some(label.as_str())).count();
                let label = if earlier > 0 { format!("{label}#{}", earlier + 1) } else { label };
                let term = build_term(config, index, name, signature, label, site)
                    .map_err(|e| e.within(&format!("terms[{index}] ({kind}, teacher {name})")))?;
                terms.push(term);
            }
        }
    }
    Ok(terms)
}

fn build_term(
    config: &TermConfig,
    index: usize,
    teacher: &str,
    signature: &Signature,
    label: String,
    site: &TermSite<'_>,
) -> Result<Term> {
    let place = Site {
        student: site.student,
        teacher: signature,
        teacher_name: teacher,
        labels: site.labels,
        classes: site.student.classes,
        configured_pairs: config.taps.as_deref(),
        device: site.device,
    };
    let taps = config.distiller.taps(&place)?;
    let store = nn::VarStore::new(site.device);
    let _drawing = Seed::new(site.seed).stream("term").at(index as u64).stream(teacher).seed_libtorch();
    let distiller = config.distiller.build(&place, &store.root())?;
    if let Some(name) = store.variables().keys().find(|name| name.contains("__")) {
        return Err(Error::plan(format!(
            "a parameter was registered twice, and libtorch renamed it to `{name}`: give every parameter a path of its own"
        )));
    }
    Ok(Term { label, weight: config.weight, teacher: teacher.to_owned(), taps, distiller, store })
}

impl Term {
    /// The number of parameters that are trained beside the student.
    pub fn parameters(&self) -> i64 {
        super::teacher::parameters(&self.store)
    }

    /// The stage before the main one, if the method has one.
    pub fn initial_stage(&self) -> Option<crate::distiller::InitialStage> {
        self.distiller.initial_stage()
    }
}
