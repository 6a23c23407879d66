//! Training of the small network on the noise.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;
use limbeck::checkpoint;
use limbeck::cohort::{self, CohortConfig, Data, LaneConfig, Limit, LoadedTeacher, Stop, Teacher};
use limbeck::experiment::{Division, MethodConfig, Precision, TrainConfig};
use limbeck::prelude::*;
use limbeck::record::{Environment, Outcome, TeacherRecord};
use limbeck::task::{Classification, Metrics};
use limbeck::weights;

use crate::data::{NoiseImages, SPEC, VIEW};
use crate::network::SmallNetwork;

/// Training of one method's student, in a folder, taught by a network of `teacher_width`.
pub struct Training {
    pub method: MethodConfig,
    pub student_width: i64,
    pub teacher_width: i64,
}

/// The tensors of a student's last checkpoint, and its final weights.
pub type End = IndexMap<String, Tensor>;

impl Training {
    /// Two epochs of four steps, the last batch smaller, beside `others`. It stops after every `limit` steps and goes on.
    /// Returns the end of every lane, the method's own first.
    pub fn run(&self, folder: &Path, others: &[MethodConfig], limit: Option<u64>) -> Result<Vec<End>> {
        let data = Data::new(Box::new(NoiseImages::new()), Division::default())?;
        let train = TrainConfig { epochs: 2, batch: 12, learning_rate: 1e-3, ..TrainConfig::default() };
        let environment = Environment {
            limbeck: env!("CARGO_PKG_VERSION").to_owned(),
            git: None,
            libtorch: String::new(),
            device: "cpu".to_owned(),
            device_name: String::new(),
            threads: tch::get_num_threads() as usize,
        };
        let lanes: Vec<LaneConfig> = std::iter::once(&self.method)
            .chain(others)
            .enumerate()
            .map(|(index, method)| LaneConfig {
                name: index.to_string(),
                folder: folder.join(index.to_string()),
                identity: String::new(),
                student: Arc::new(SmallNetwork { width: self.student_width }),
                precision: Precision::Float32,
                view: VIEW.to_owned(),
                method_name: index.to_string(),
                method: method.clone(),
            })
            .collect();
        loop {
            let stop = Stop::new(limit.map(Limit::Steps));
            let teachers = [self.teacher()?];
            let config = CohortConfig {
                data: &data,
                teachers: &teachers,
                combined: &[],
                ensemble: None,
                train: &train,
                seed: 0,
                device: Device::Cpu,
                environment: &environment,
                stop: &stop,
            };
            let outcomes = cohort::run(&config, &lanes, &mut ())?;
            if let Some(Outcome::Failed { reason, .. }) =
                outcomes.iter().flatten().find(|outcome| **outcome != Outcome::Finished)
            {
                return Err(Error::run(format!("training failed: {reason}")));
            }
            if outcomes.iter().all(Option::is_some) {
                return lanes.iter().map(|lane| end(&lane.folder)).collect();
            }
        }
    }

    fn teacher(&self) -> Result<LoadedTeacher> {
        let config = SmallNetwork { width: self.teacher_width };
        let teacher = Teacher::new(TEACHER, VIEW, &config, &SPEC, Precision::Float32, false, Device::Cpu)?;
        let record = TeacherRecord {
            name: TEACHER.to_owned(),
            model: config.typetag_name().to_owned(),
            view: VIEW.to_owned(),
            weights: "none".into(),
            digest: String::new(),
            parameters: teacher.parameters(),
            precision: Precision::Float32,
            folded: false,
            test: Metrics::new(&Classification, &[0.0, 0.0, 0.0]).ok(),
            members: Vec::new(),
        };
        Ok(LoadedTeacher { teacher, record })
    }
}

/// The teacher's name.
pub const TEACHER: &str = "teacher";

fn end(folder: &Path) -> Result<End> {
    let mut tensors = weights::read(&folder.join(checkpoint::NEWEST))?.tensors;
    let student = weights::read(&folder.join(cohort::STUDENT))?.tensors;
    tensors.extend(student.into_iter().map(|(name, tensor)| (format!("exported.{name}"), tensor)));
    Ok(tensors)
}
