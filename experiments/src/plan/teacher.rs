//! A teacher that is a network, as planned: checked, and known by its weights or by the recipe that gives them.

use std::path::{Path, PathBuf};

use limbeck::cohort::{Data, Teacher};
use limbeck::dataset::DatasetInfo;
use limbeck::error::{Error, Result};
use limbeck::experiment::{Experiment, NetworkConfig};
use limbeck::model::{Folded, ModelConfig, ModelSpec, Outputs};
use limbeck::precision::Precision;
use limbeck::seed::Seed;
use limbeck_report::store::{self, Progress};
use limbeck_report::twins::vanilla;
use tch::{Device, Kind, nn};

use super::identity::{RunIdentity, file_digest};
use super::network::Network;

/// A teacher as planned.
#[derive(Debug)]
pub struct PlannedTeacher {
    /// Its name in the experiment.
    pub name: String,
    /// Its configuration.
    pub config: NetworkConfig,
    /// Its network.
    pub network: Network,
    /// Where its weights come from.
    pub weights: TeacherWeights,
    /// A digest of the weights' content or recipe.
    pub identity: String,
    /// Whether nothing is known of it but its outputs on the training samples.
    pub is_recorded: bool,
    /// What there is to know of it beside that.
    pub notes: Vec<String>,
}

impl PlannedTeacher {
    /// Whether its weights are not there yet.
    pub fn is_to_be_trained(&self) -> bool {
        match &self.weights {
            TeacherWeights::File(_) => false,
            TeacherWeights::Trained { folder, .. } => store::progress(folder) != Progress::Finished,
        }
    }
}

/// Where a teacher's weights come from.
#[derive(Debug)]
pub enum TeacherWeights {
    /// A file that was given.
    File(PathBuf),
    /// Trained by its own recipe, in this folder.
    Trained {
        /// Its run folder.
        folder: PathBuf,
        /// A digest of its recipe: what its run folder is identified by.
        recipe: String,
        /// How far it has come.
        progress: Progress,
    },
}

impl TeacherWeights {
    /// The file that holds the weights, now or later.
    pub fn path(&self) -> PathBuf {
        match self {
            TeacherWeights::File(path) => path.clone(),
            TeacherWeights::Trained { folder, .. } => folder.join(limbeck::cohort::STUDENT),
        }
    }
}

/// Plans a teacher that is a network: builds it, and loads its weights if they are there.
pub(super) fn plan_teacher(
    experiment: &Experiment,
    name: &str,
    config: &NetworkConfig,
    data: &Data,
    teacher_folder: &Path,
    device: Device,
) -> Result<PlannedTeacher> {
    let network = Network::of_data(&*config.model, config.view.as_deref(), data)?;
    config.precision.check(device)?;
    let spec = data.spec(Some(&network.view))?;
    let mut trial = Teacher::new(name, &network.view, &*config.model, &spec, Precision::Float32, false, Device::Cpu)?;
    let mut notes = Vec::new();
    let is_recorded = trial.model().outputs().is_some();
    if let Some(outputs) = trial.model().outputs() {
        notes.push(check_outputs(outputs, data.dataset.info())?);
    }
    if config.fold_batch_norm {
        notes.push(try_folding(&*config.model, &spec)?);
    }
    // A network that comes complete is its file and how the file is read, wherever it lies.
    let anywhere = config.model.at(PathBuf::new());
    let weights = config.weights.as_deref().or(config.model.file());
    let (weights, identity) = match (weights, &config.train) {
        (Some(path), _) => {
            trial.load(path).map_err(|e| e.at("weights"))?;
            (TeacherWeights::File(path.to_owned()), file_digest(path)?)
        }
        (None, Some(train)) => {
            train.check_groups(&network.signature).map_err(|e| e.at("train"))?;
            let identity = store::digest(&RunIdentity {
                format: limbeck::experiment::FORMAT,
                dataset: &data.dataset.info().identity,
                validation: experiment.validation,
                part: data.part.as_deref(),
                teachers: Vec::new(),
                view: &network.view,
                student: &*config.model,
                precision: Precision::Float32,
                train: store::decisive(train),
                method: &vanilla(),
                seed: config.seed,
            })?;
            let folder = teacher_folder.join(format!("{}-{}", network.kind, store::short(&identity)));
            let progress = store::progress(&folder);
            (TeacherWeights::Trained { folder, recipe: identity.clone(), progress }, identity)
        }
        (None, None) => return Err(Error::plan("it has neither weights nor a recipe")),
    };
    let identity = match anywhere {
        None => store::digest(&(&identity, arithmetic(config), &config.model, &network.view))?,
        Some(recipe) => store::digest(&(&identity, arithmetic(config), &recipe, &network.view))?,
    };
    let (name, config) = (name.to_owned(), config.clone());
    Ok(PlannedTeacher { name, config, network, weights, identity, is_recorded, notes })
}

/// Checks that outputs computed beforehand are those of the training samples, and says what they are.
fn check_outputs(outputs: &Outputs, info: &DatasetInfo) -> Result<String> {
    let (samples, rows) = (outputs.samples(), info.train_labels.len());
    if samples != rows {
        return Err(Error::plan(format!(
            "there are outputs of {samples} samples, and the training part has {rows}: compute them for every row, in order"
        )));
    }
    let text = "its outputs are of images without augmentation: it and the student see different crops";
    if !info.task.one_class() {
        return Ok(text.to_owned());
    }
    let right = outputs.agreement(&info.train_labels);
    Ok(format!("{text}; they name the right class of {right:.2} % of the training samples"))
}

/// Folds a network's BatchNorm and says how far that goes.
fn try_folding(config: &dyn ModelConfig, spec: &ModelSpec) -> Result<String> {
    let store = nn::VarStore::new(Device::Cpu);
    let mut model = {
        let _drawing = Seed::new(0).stream("folding").seed_libtorch();
        config.build(&store.root(), spec)?
    };
    let _no_grad = tch::no_grad_guard();
    Ok(match model.fold_batch_norm(Kind::Float)? {
        Folded { folded, kept: 0 } => format!("its {folded} BatchNorms are folded into convolutions"),
        Folded { folded, kept } => {
            format!("{folded} of its BatchNorms are folded into convolutions; {kept} follow none and stay")
        }
    })
}

/// The arithmetic in which a teacher teaches is part of what a student sees.
pub(crate) fn arithmetic(config: &NetworkConfig) -> String {
    let folded = if config.fold_batch_norm { ", folded" } else { "" };
    format!("{}{folded}", config.precision.name())
}
