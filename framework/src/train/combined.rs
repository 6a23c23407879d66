//! Combined teachers: what several teachers of a cohort say together.

use indexmap::IndexMap;
use tch::Tensor;

use super::combination::Combination;
use crate::error::{Error, Result};
use crate::model::{Features, ModelSpec, Signature};

/// A teacher that is others taken as one. It runs no network: its members do, once for everyone who asks them.
#[derive(Clone, Debug, PartialEq)]
pub struct CombinedTeacher {
    /// Its name in the experiment.
    pub name: String,
    /// Which teachers of the cohort, and how.
    pub combination: Combination,
}

impl CombinedTeacher {
    /// What methods may know of it: that it has logits, and no taps.
    pub fn signature(spec: &ModelSpec) -> Signature {
        Signature::new(spec, Vec::new(), Vec::new())
    }

    /// Its logits, of those of its members.
    ///
    /// # Errors
    /// If a member was not asked.
    pub(super) fn logits<'a>(&self, of_member: impl Fn(&str) -> Option<&'a Tensor>) -> Result<Tensor> {
        let mut members = Vec::new();
        for name in &self.combination.teachers {
            let Some(logits) = of_member(name) else {
                return Err(Error::run(format!("teacher {name}, a part of {}, was not asked", self.name)));
            };
            members.push(logits);
        }
        Ok(self.combination.logits(&members))
    }

    /// Its logits as features, of the features of its members.
    ///
    /// # Errors
    /// If a member was not asked.
    pub(super) fn features(&self, members: &IndexMap<String, Features>) -> Result<Features> {
        let logits = self.logits(|name| members.get(name).map(|features| &features.logits))?;
        Ok(Features::new(logits, Default::default()))
    }
}
