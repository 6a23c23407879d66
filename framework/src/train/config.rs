//! What a cohort is given: what its lanes share, and each lane.

use std::path::PathBuf;
use std::sync::Arc;

use tch::Device;

use super::combined::CombinedTeacher;
use super::data::Data;
use super::stop::Stop;
use super::teacher::Teacher;
use crate::experiment::{MethodConfig, TrainConfig};
use crate::model::ModelConfig;
use crate::precision::Precision;
use crate::record::{Ensemble, Environment, TeacherRecord};

/// Everything that the lanes of a cohort share.
#[derive(Debug)]
pub struct CohortConfig<'a> {
    /// The data.
    pub data: &'a Data,
    /// The teachers with what is known of them, in the order of the experiment.
    pub teachers: &'a [LoadedTeacher],
    /// The teachers that combine others of them.
    pub combined: &'a [LoadedTeacher<CombinedTeacher>],
    /// What all the networks among the teachers are worth together, where there are several.
    pub ensemble: Option<&'a Ensemble>,
    /// How the students are trained.
    pub train: &'a TrainConfig,
    /// The seed of every lane: the same seed gives the same batches.
    pub seed: u64,
    /// Where.
    pub device: Device,
    /// The surroundings, for the summaries.
    pub environment: &'a Environment,
    /// Ends training before its time.
    pub stop: &'a Stop,
}

/// A teacher that is there, with what is known of it.
#[derive(Debug)]
pub struct LoadedTeacher<T = Teacher> {
    /// The teacher: a network, or a [`CombinedTeacher`].
    pub teacher: T,
    /// What is known of it.
    pub record: TeacherRecord,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    /// For people: `crd, seed 0`.
    pub name: String,
    /// The run folder; it is created.
    pub folder: PathBuf,
    /// A digest of the resolved configuration: a folder of another identity is refused.
    pub identity: String,
    /// The student's network.
    pub student: Arc<dyn ModelConfig>,
    /// The arithmetic in which it computes.
    pub precision: Precision,
    /// What it sees.
    pub view: String,
    /// The method's name.
    pub method_name: String,
    /// The method.
    pub method: MethodConfig,
}
