//! Planning: everything that can be wrong with an experiment is found here, before the first batch.
//!
//! The data are read, every network and every term is built against the real signatures, and the cells are laid out.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use indexmap::IndexMap;
use limbeck::cohort::{CombinedTeacher, Data, Teacher, Term, TermSite, build_terms, check_main_stage};
use limbeck::combination::{Combination, Combining};
use limbeck::dataset::{DatasetConfig, DatasetInfo};
use limbeck::distiller::{TapPair, TapPairs};
use limbeck::error::{Error, Result};
use limbeck::experiment::{
    CompareConfig, Division, Experiment, MethodConfig, NetworkConfig, ProbeConfig, TeacherConfig, TermSchedule,
    TrainConfig,
};
use limbeck::model::{Folded, ModelConfig, ModelSpec, Outputs, Signature, TapInfo, TapShape};
use limbeck::precision::Precision;
use limbeck::seed::Seed;
use limbeck::task::Task;
use limbeck_report::twins::{Twin, twins, vanilla};
use limbeck_report::words::{plural, thousands};
use serde::Serialize;
use tch::{Device, Kind, nn};

use crate::probes::{self, PlannedProbe, ProbeOutline, ProbeSeat};
use crate::store::{self, CellEntry, PlanFile, Progress};

/// An experiment that can be run.
#[derive(Debug)]
pub struct Plan {
    /// The resolved experiment.
    pub experiment: Experiment,
    /// Its name among the points of a grid; empty if it is none.
    pub label: String,
    /// The experiment's folder.
    pub folder: PathBuf,
    /// Where its cells are: other experiments may have some of them too.
    pub cell_folder: PathBuf,
    /// Where trained teachers are kept.
    pub teacher_folder: PathBuf,
    /// Where linear probes are, beside the cells.
    pub probe_folder: PathBuf,
    /// The device.
    pub device: Device,
    /// libtorch's threads.
    pub threads: usize,
    /// The data, shared with other plans.
    pub data: Rc<Data>,
    /// The teachers that are networks.
    pub teachers: Vec<PlannedTeacher>,
    /// Those that combine others of them.
    pub combined: Vec<PlannedCombination>,
    /// The student's network.
    pub student: Network,
    /// The methods, in the order of the comparison.
    pub methods: Vec<PlannedMethod>,
    /// The cells: methods × seeds.
    pub cells: Vec<Cell>,
    /// The linear classifiers on their networks.
    pub probes: Vec<PlannedProbe>,
}

/// A network as planned.
#[derive(Debug)]
pub struct Network {
    /// Its kind.
    pub kind: String,
    /// The view that it sees.
    pub view: String,
    /// What it offers.
    pub signature: Signature,
    /// The number of its parameters.
    pub parameters: i64,
    /// What one image's forward pass multiplies and adds, if the network knows.
    pub multiply_adds: Option<i64>,
}

impl Network {
    /// Builds a network and asks it.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn of(config: &dyn ModelConfig, view: &str, spec: &ModelSpec) -> Result<Self> {
        let built = Teacher::new("", view, config, spec, Precision::Float32, false, Device::Cpu)?;
        Ok(Network {
            kind: config.typetag_name().to_owned(),
            view: view.to_owned(),
            signature: built.signature().clone(),
            parameters: built.parameters(),
            multiply_adds: built.model().multiply_adds(),
        })
    }
}

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

/// A teacher that combines others, as planned.
#[derive(Debug)]
pub struct PlannedCombination {
    /// Its name in the experiment.
    pub name: String,
    /// Which, and how.
    pub combination: Combination,
    /// A digest of how, and of the members' identities.
    pub identity: String,
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

/// A method as planned.
#[derive(Debug)]
pub struct PlannedMethod {
    /// Its name.
    pub name: String,
    /// Its terms with their weights.
    pub config: MethodConfig,
    /// Its terms.
    pub terms: Vec<PlannedTerm>,
}

/// A term as planned.
#[derive(Debug)]
pub struct PlannedTerm {
    /// Its name in logs and reports.
    pub label: String,
    /// What its loss is multiplied by.
    pub weight: f64,
    /// When that applies; absent: always.
    pub schedule: Option<TermSchedule>,
    /// The teacher's name.
    pub teacher: String,
    /// The features that it compares.
    pub taps: TapPairs,
    /// The number of parameters that are trained beside the student.
    pub parameters: i64,
    /// The epochs of its initial stage, if it has one.
    pub initial_epochs: Option<u64>,
    /// The learning rate of that; absent: the experiment's.
    pub initial_learning_rate: Option<f64>,
    /// The last epoch of the main stage in which it has a loss; absent: the last of all. 0: it has none there.
    pub last_epoch: Option<u64>,
}

impl From<&Term> for PlannedTerm {
    fn from(term: &Term) -> Self {
        PlannedTerm {
            label: term.label.clone(),
            weight: term.weight,
            schedule: term.schedule.clone(),
            teacher: term.teacher.clone(),
            taps: term.taps.clone(),
            parameters: term.parameters(),
            initial_epochs: term.initial_stage().map(|stage| stage.epochs),
            initial_learning_rate: term.initial_stage().and_then(|stage| stage.learning_rate),
            last_epoch: term.last_epoch(),
        }
    }
}

/// One student to be trained.
#[derive(Clone, Debug)]
pub struct Cell {
    /// For people: `crd, seed 0`, after the label of the point if there is a grid.
    pub name: String,
    /// The method's name.
    pub method: String,
    /// The seed.
    pub seed: u64,
    /// The run folder.
    pub folder: PathBuf,
    /// A digest of everything that determines the result.
    pub identity: String,
    /// How far it has come.
    pub progress: Progress,
    /// Its own experiment: running this file alone trains this student.
    pub resolved: Experiment,
}

/// What determines a run's result, and nothing else: the order of fields is part of the digest.
#[derive(Serialize)]
struct Identity<'a> {
    format: u32,
    dataset: &'a str,
    validation: usize,
    /// The rows that are trained on, where they are not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<&'a str>,
    teachers: Vec<(&'a str, &'a str)>,
    view: &'a str,
    student: &'a dyn ModelConfig,
    #[serde(skip_serializing_if = "Precision::is_float32")]
    precision: Precision,
    train: TrainConfig,
    method: &'a MethodConfig,
    seed: u64,
}

/// Where an experiment has its files.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Weights in the file are relative to this folder.
    pub base: &'a Path,
    /// The experiment's name among the points of a grid; empty if it is none.
    pub label: &'a str,
    /// The experiment's folder.
    pub folder: PathBuf,
    /// The folder of its cells.
    pub cells: PathBuf,
    /// The folder of trained teachers.
    pub teachers: PathBuf,
}

impl<'a> Place<'a> {
    /// That of an experiment by itself. `file` is where it was read, `out` the folder of all runs.
    pub fn alone(name: &str, file: &'a Path, out: &Path) -> Self {
        let folder = out.join(name);
        let base = file.parent().unwrap_or(Path::new("."));
        Place { base, label: "", cells: folder.join(store::CELLS), folder, teachers: out.join(store::TEACHERS) }
    }
}

/// Data sets that were read already.
#[derive(Debug, Default)]
pub struct Pool(HashMap<String, Rc<Data>>);

impl Pool {
    /// A data set and how it is divided, read once for all experiments that say the same.
    fn data(&mut self, dataset: &dyn DatasetConfig, division: Division, device: Device) -> Result<Rc<Data>> {
        let key = store::digest(&(dataset, division, device_name(device)))?;
        if let Some(data) = self.0.get(&key) {
            return Ok(Rc::clone(data));
        }
        let dataset = dataset.build(device).map_err(|e| e.within("dataset"))?;
        let data = Rc::new(Data::new(dataset, division)?);
        self.0.insert(key, Rc::clone(&data));
        Ok(data)
    }
}

impl Plan {
    /// Plans an experiment. `file` is where it was read (weights are relative to its folder), `out` the folder of all runs.
    ///
    /// # Errors
    /// If anything in the experiment cannot be run; the message names the key and the remedy.
    pub fn new(experiment: Experiment, file: &Path, out: &Path) -> Result<Self> {
        let place = Place::alone(&experiment.name, file, out);
        Plan::at(experiment, place, &mut Pool::default(), |_, _| true)
    }

    /// The networks that any of its students asks, itself or as parts of a combination.
    pub fn asked_teachers(&self) -> impl Iterator<Item = &PlannedTeacher> {
        self.teachers.iter().filter(|teacher| self.asks(&teacher.name))
    }

    /// The combinations that any of its students asks.
    pub fn asked_combinations(&self) -> impl Iterator<Item = &PlannedCombination> {
        self.combined.iter().filter(|teacher| self.asks(&teacher.name))
    }

    fn asks(&self, teacher: &str) -> bool {
        self.cells.iter().any(|cell| cell.resolved.teacher.contains_key(teacher))
    }

    /// The networks behind a teacher: itself, or those that it combines.
    pub fn networks_of<'a>(&'a self, teacher: &'a str) -> Vec<&'a str> {
        let combined = self.combined.iter().find(|combined| combined.name == teacher);
        combined.map_or_else(|| vec![teacher], |combined| combined.members().collect())
    }

    /// Plans an experiment at a place, with the cells that `has` has, by method and seed.
    pub(crate) fn at(
        mut experiment: Experiment,
        place: Place<'_>,
        pool: &mut Pool,
        has: impl Fn(&str, u64) -> bool,
    ) -> Result<Self> {
        resolve(&mut experiment, place.base)?;
        let device = experiment.device.resolve()?;
        let threads = experiment.threads.unwrap_or_else(cores);
        tch::set_num_threads(threads as i32);
        let data = pool.data(&*experiment.dataset, experiment.division(), device)?;
        let teachers = experiment
            .teacher
            .iter()
            .filter_map(|(name, config)| Some((name, config.network()?)))
            .map(|(name, config)| {
                plan_teacher(&experiment, name, config, &data, &place.teachers, device)
                    .map_err(|e| e.within(&format!("teacher.{name}")))
            })
            .collect::<Result<Vec<_>>>()?;
        let combined = experiment
            .teacher
            .iter()
            .filter_map(|(name, config)| Some((name, config.combination()?)))
            .map(|(name, combination)| {
                plan_combination(name, combination, &teachers, &data).map_err(|e| e.within(&format!("teacher.{name}")))
            })
            .collect::<Result<Vec<_>>>()?;
        let student = network(&*experiment.student.model, experiment.student.view.as_deref(), &data)
            .map_err(|e| e.within("student"))?;
        experiment.train.check_groups(&student.signature).map_err(|e| e.within("train"))?;
        experiment.student.precision.check(device).map_err(|e| e.within("student"))?;
        let methods = experiment
            .compare
            .methods
            .iter()
            .map(|name| plan_method(&experiment, name, &student, &teachers, &combined, &data))
            .collect::<Result<Vec<_>>>()?;
        let mut plan = Plan {
            label: place.label.to_owned(),
            folder: place.folder,
            probe_folder: place.cells.with_file_name(store::PROBES),
            cell_folder: place.cells,
            teacher_folder: place.teachers,
            experiment,
            device,
            threads,
            data,
            teachers,
            combined,
            student,
            methods,
            cells: Vec::new(),
            probes: Vec::new(),
        };
        plan.cells = plan.lay_out(has)?;
        plan.probes = plan.lay_out_probes(pool)?;
        Ok(plan)
    }

    fn lay_out_probes(&self, pool: &mut Pool) -> Result<Vec<PlannedProbe>> {
        let probe = |(name, config): (&String, &ProbeConfig)| {
            let planned = match &config.dataset {
                None => Ok(Rc::clone(&self.data)),
                Some(dataset) => pool.data(&**dataset, Division::default(), self.device),
            };
            planned
                .and_then(|data| probes::plan(self, name, config, data))
                .map_err(|e| e.within(&format!("probe.{name}")))
        };
        self.experiment.probe.iter().map(probe).collect()
    }

    fn lay_out(&self, has: impl Fn(&str, u64) -> bool) -> Result<Vec<Cell>> {
        let mut cells = Vec::new();
        for method in &self.methods {
            for &seed in self.experiment.compare.seeds.iter().filter(|seed| has(&method.name, **seed)) {
                let cell = self.cell(method, seed)?;
                if let Some(same) = cells.iter().find(|other: &&Cell| other.folder == cell.folder) {
                    let (one, other) = (&same.method, &cell.method);
                    return Err(Error::plan(format!(
                        "the methods `{one}` and `{other}` are the same under one folder name: rename one"
                    )));
                }
                cells.push(cell);
            }
        }
        Ok(cells)
    }

    fn cell(&self, method: &PlannedMethod, seed: u64) -> Result<Cell> {
        let asked = |name: &str| method.terms.iter().any(|term| term.teacher == name);
        let needed =
            |name: &str| asked(name) || method.terms.iter().any(|term| self.networks_of(&term.teacher).contains(&name));
        let networks = self.teachers.iter().map(|teacher| (teacher.name.as_str(), teacher.identity.as_str()));
        let combined = self.combined.iter().map(|teacher| (teacher.name.as_str(), teacher.identity.as_str()));
        let identity = store::digest(&Identity {
            format: limbeck::experiment::FORMAT,
            dataset: &self.data.dataset.info().identity,
            validation: self.experiment.validation,
            part: self.data.part.as_deref(),
            // A combination has its members' identities in its own.
            teachers: networks.chain(combined).filter(|(name, _)| asked(name)).collect(),
            view: &self.student.view,
            student: &*self.experiment.student.model,
            precision: self.experiment.student.precision,
            train: store::decisive(&self.experiment.train),
            method: &method.config,
            seed,
        })?;
        let name = format!("{}-seed{seed}-{}", store::folder_name(&method.name), store::short(&identity));
        let folder = self.cell_folder.join(name);
        let mut resolved = self.experiment.clone();
        resolved.probe.clear();
        resolved.threads = Some(self.threads);
        resolved.teacher.retain(|name, _| needed(name));
        resolved.method = IndexMap::from([(method.name.clone(), method.config.clone())]);
        resolved.compare =
            CompareConfig { methods: vec![method.name.clone()], seeds: vec![seed], baseline: None, ..resolved.compare };
        let progress = store::progress(&folder);
        let name = join_label(&self.label, &format!("{}, seed {seed}", method.name));
        Ok(Cell { name, method: method.name.clone(), seed, folder, identity, progress, resolved })
    }

    /// The cells as `plan.json` has them.
    pub fn file(&self) -> PlanFile {
        let entry = |cell: &Cell| CellEntry {
            method: cell.method.clone(),
            seed: cell.seed,
            folder: store::relative(&cell.folder, &self.folder),
        };
        let probes = ProbeSeat::all(self).map(|seat| seat.subject.entry(&seat.probe.name, &self.folder));
        PlanFile { format: 1, cells: self.cells.iter().map(entry).collect(), probes: probes.collect() }
    }
}

/// The label of a point before what is meant there.
pub(crate) fn join_label(label: &str, what: &str) -> String {
    if label.is_empty() { what.to_owned() } else { format!("{label}, {what}") }
}

/// The cores of this machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Makes the experiment say all that it means: built-in methods are written out, and weights no longer depend on where
/// the file lies, since the resolved file lies elsewhere.
fn resolve(experiment: &mut Experiment, base: &Path) -> Result<()> {
    let methods = experiment.compare.methods.iter().map(|name| Ok((name.clone(), experiment.method(name)?)));
    experiment.method = methods.collect::<Result<_>>()?;
    for teacher in experiment.teacher.values_mut().filter_map(TeacherConfig::network_mut) {
        if let Some(weights) = &mut teacher.weights {
            *weights = absolute(base, weights)?;
        }
        if let Some(file) = teacher.model.file()
            && let Some(model) = teacher.model.at(absolute(base, file)?)
        {
            teacher.model = model;
        }
    }
    Ok(())
}

fn absolute(base: &Path, path: &Path) -> Result<PathBuf> {
    std::path::absolute(base.join(path)).map_err(Error::io("find", path))
}

fn network(config: &dyn ModelConfig, view: Option<&str>, data: &Data) -> Result<Network> {
    let view = data.dataset.info().view(view)?.name.clone();
    let spec = data.spec(Some(&view))?;
    let network = Network::of(config, &view, &spec)?;
    if network.signature.classes != spec.classes {
        return Err(Error::plan(format!(
            "the network tells {} classes apart, the data have {}",
            network.signature.classes, spec.classes
        )));
    }
    Ok(network)
}

fn plan_teacher(
    experiment: &Experiment,
    name: &str,
    config: &NetworkConfig,
    data: &Data,
    teacher_folder: &Path,
    device: Device,
) -> Result<PlannedTeacher> {
    let network = network(&*config.model, config.view.as_deref(), data)?;
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
            trial.load(path).map_err(|e| e.within("weights"))?;
            (TeacherWeights::File(path.to_owned()), file_digest(path)?)
        }
        (None, Some(train)) => {
            train.check_groups(&network.signature).map_err(|e| e.within("train"))?;
            let identity = store::digest(&Identity {
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

fn plan_combination(
    name: &str,
    combination: &Combination,
    teachers: &[PlannedTeacher],
    data: &Data,
) -> Result<PlannedCombination> {
    let task = data.dataset.info().task;
    if combination.kind != Combining::MeanLogits && !task.one_class() {
        return Err(Error::plan(format!(
            "{} takes one distribution over all classes, and the targets of these data are {}: combine by mean_logits",
            combination.kind.name(),
            task.targets()
        )));
    }
    let identity = |member: &String| {
        let found = teachers.iter().find(|teacher| teacher.name == *member);
        found.map(|teacher| &teacher.identity).ok_or_else(|| Error::plan(format!("there is no teacher `{member}`")))
    };
    let members = combination.teachers.iter().map(identity).collect::<Result<Vec<_>>>()?;
    let identity = store::digest(&(combination.kind, combination.shares(), members))?;
    Ok(PlannedCombination { name: name.to_owned(), combination: combination.clone(), identity })
}

impl PlannedCombination {
    /// The names of the teachers that it combines.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.combination.teachers.iter().map(String::as_str)
    }
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

/// The plan for programs: `limbeck plan --json`.
#[derive(Debug, Serialize)]
pub struct Outline {
    experiment: String,
    folder: PathBuf,
    device: String,
    threads: usize,
    /// Samples to train on, held out, and to test on.
    samples: [usize; 3],
    /// Samples of the training part, whether they are trained on, held out or neither.
    available: usize,
    steps_per_epoch: u64,
    /// The key of the score, where it is not the usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<&'static str>,
    student: NetworkOutline,
    teachers: Vec<TeacherOutline>,
    /// Teachers that combine others.
    combined: Vec<CombinationOutline>,
    methods: Vec<MethodOutline>,
    cells: Vec<CellOutline>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probes: Vec<ProbeOutline>,
}

#[derive(Debug, Serialize)]
struct NetworkOutline {
    kind: String,
    view: String,
    parameters: i64,
    multiply_adds: Option<i64>,
    signature: Signature,
}

impl From<&Network> for NetworkOutline {
    fn from(network: &Network) -> Self {
        let Network { kind, view, signature, parameters, multiply_adds } = network;
        let (kind, view, signature) = (kind.clone(), view.clone(), signature.clone());
        NetworkOutline { kind, view, parameters: *parameters, multiply_adds: *multiply_adds, signature }
    }
}

#[derive(Debug, Serialize)]
struct TeacherOutline {
    name: String,
    network: NetworkOutline,
    arithmetic: String,
    weights: PathBuf,
    /// Of its training; absent where the weights are given.
    progress: Option<String>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CombinationOutline {
    name: String,
    #[serde(flatten)]
    combination: Combination,
}

#[derive(Debug, Serialize)]
struct MethodOutline {
    name: String,
    cross_entropy: f64,
    terms: Vec<TermOutline>,
}

#[derive(Debug, Serialize)]
struct TermOutline {
    label: String,
    weight: f64,
    schedule: Option<TermSchedule>,
    teacher: String,
    parameters: i64,
    initial_epochs: Option<u64>,
    pairs: Vec<PairOutline>,
    /// Taps without a partner.
    dropped: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PairOutline {
    student: String,
    student_shape: TapShape,
    teacher: String,
    teacher_shape: TapShape,
}

#[derive(Debug, Serialize)]
struct CellOutline {
    method: String,
    seed: u64,
    progress: String,
    folder: PathBuf,
}

impl Plan {
    /// The teachers that are a student, too.
    fn twins(&self) -> Vec<Twin> {
        let view = |name: &str| self.teachers.iter().find(|teacher| teacher.name == name).map(|t| &t.network.view);
        twins(&self.experiment, |name| view(name) == Some(&self.student.view))
    }

    /// The plan for programs.
    pub fn outline(&self) -> Outline {
        let twins = self.twins();
        let of_twin = |name: &str| {
            let found = twins.iter().filter(|twin| twin.teacher == name);
            found.map(|twin| twin.message.clone()).collect::<Vec<_>>()
        };
        let teacher = |teacher: &PlannedTeacher| TeacherOutline {
            name: teacher.name.clone(),
            network: (&teacher.network).into(),
            arithmetic: arithmetic(&teacher.config),
            weights: teacher.weights.path(),
            progress: match &teacher.weights {
                TeacherWeights::File(_) => None,
                TeacherWeights::Trained { progress, .. } => Some(progress.to_string()),
            },
            notes: [teacher.notes.clone(), of_twin(&teacher.name)].concat(),
        };
        let pair = |pair: &TapPair| PairOutline {
            student: pair.student.to_string(),
            student_shape: pair.student_shape,
            teacher: pair.teacher.to_string(),
            teacher_shape: pair.teacher_shape,
        };
        let term = |term: &PlannedTerm| TermOutline {
            label: term.label.clone(),
            weight: term.weight,
            schedule: term.schedule.clone(),
            teacher: term.teacher.clone(),
            parameters: term.parameters,
            initial_epochs: term.initial_epochs,
            pairs: term.taps.pairs.iter().map(pair).collect(),
            dropped: term.taps.dropped.clone(),
        };
        let info = self.data.dataset.info();
        Outline {
            experiment: self.experiment.name.clone(),
            folder: self.folder.clone(),
            device: device_name(self.device),
            threads: self.threads,
            samples: [self.data.train_rows.len(), self.data.validation_rows.len(), info.test_labels.len()],
            available: info.train_labels.len(),
            steps_per_epoch: self.data.steps_per_epoch(self.experiment.train.batch),
            measure: (!info.task.is_usual()).then(|| info.task.score().key),
            student: (&self.student).into(),
            teachers: self.teachers.iter().map(teacher).collect(),
            combined: self
                .combined
                .iter()
                .map(|teacher| CombinationOutline {
                    name: teacher.name.clone(),
                    combination: teacher.combination.clone(),
                })
                .collect(),
            methods: self
                .methods
                .iter()
                .map(|method| MethodOutline {
                    name: method.name.clone(),
                    cross_entropy: method.config.cross_entropy,
                    terms: method.terms.iter().map(term).collect(),
                })
                .collect(),
            cells: self
                .cells
                .iter()
                .map(|cell| CellOutline {
                    method: cell.method.clone(),
                    seed: cell.seed,
                    progress: cell.progress.to_string(),
                    folder: cell.folder.clone(),
                })
                .collect(),
            probes: self.probes.iter().map(|probe| probe.outline(self)).collect(),
        }
    }
}

fn plan_method(
    experiment: &Experiment,
    name: &str,
    student: &Network,
    teachers: &[PlannedTeacher],
    combined: &[PlannedCombination],
    data: &Data,
) -> Result<PlannedMethod> {
    let config = experiment.method(name)?;
    let networks = teachers.iter().map(|teacher| (teacher.name.clone(), teacher.network.signature.clone()));
    let of_all = CombinedTeacher::signature(&data.spec(None)?);
    let together = combined.iter().map(|teacher| (teacher.name.clone(), of_all.clone()));
    let signatures: IndexMap<String, Signature> = networks.chain(together).collect();
    let combined: IndexMap<String, Vec<String>> =
        combined.iter().map(|teacher| (teacher.name.clone(), teacher.combination.teachers.clone())).collect();
    let labels: &Arc<[i64]> = &data.labels;
    let task = data.dataset.info().task;
    let site = TermSite { teachers: &signatures, combined: &combined, labels, task, device: Device::Cpu, seed: 0 };
    let terms = build_terms(&config, &student.signature, &site)
        .and_then(|terms| check_main_stage(&config, &terms, experiment.train.epochs).map(|()| terms))
        .map_err(|e| e.within(&format!("method.{name}")))?;
    let terms = terms.iter().map(PlannedTerm::from).collect();
    Ok(PlannedMethod { name: name.to_owned(), config, terms })
}

/// The taps of a network with their shapes, in a line.
fn taps(signature: &Signature) -> String {
    let tap = |tap: &TapInfo| format!("{} {}", tap.name, tap.shape);
    format!("taps {}", signature.taps.iter().map(tap).collect::<Vec<_>>().join(", "))
}

pub(crate) fn shape(shape: &[i64]) -> String {
    shape.iter().map(i64::to_string).collect::<Vec<_>>().join("×")
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} parameters, ", self.kind, thousands(self.parameters))?;
        if let Some(count) = self.multiply_adds {
            write!(f, "{} multiply-adds, ", thousands(count))?;
        }
        write!(f, "sees {} {}", self.view, shape(&self.signature.input))
    }
}

impl Plan {
    /// What distinguishes it from other points of a grid, in a few lines.
    pub(crate) fn brief(&self) -> String {
        let methods: Vec<&str> = self.methods.iter().map(|method| method.name.as_str()).collect();
        format!("point {}\n{}methods    {}\n", self.label, Setting(self), methods.join(", "))
    }
}

/// What a plan says of a task that is not the usual one.
fn unusual(task: &dyn Task) -> String {
    let (loss, score, usual) = (task.split_loss().name, task.score().full(), <&dyn Task>::default().score().short);
    format!("targets are {}: trained by {loss}, measured by {score}, not by {usual}", task.targets())
}

/// Data, networks and training of a plan.
struct Setting<'a>(&'a Plan);

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let (info, train) = (plan.data.dataset.info(), &plan.experiment.train);
        writeln!(
            f,
            "data       {}: {}{} to train on, {} held out, {} to test on, {} classes",
            info.name,
            plan.data.train_rows.len(),
            plan.experiment.train_samples.map(|_| format!(" of {}", info.train_labels.len())).unwrap_or_default(),
            plan.data.validation_rows.len(),
            info.test_labels.len(),
            info.classes()
        )?;
        if !info.task.is_usual() {
            writeln!(f, "           {}", unusual(info.task))?;
        }
        info.notes.iter().try_for_each(|note| writeln!(f, "           note: {note}"))?;
        for teacher in &plan.teachers {
            write!(f, "teacher    {}: {}, {}, ", teacher.name, teacher.network, arithmetic(&teacher.config))?;
            match &teacher.weights {
                TeacherWeights::File(path) => writeln!(f, "weights {}", path.display())?,
                TeacherWeights::Trained { folder, progress, .. } => {
                    let epochs = teacher.config.train.as_ref().map_or(0, |train| train.epochs);
                    let epochs = plural(epochs, "epoch");
                    writeln!(f, "trained first, {epochs}, in {} ({progress})", folder.display())?;
                }
            }
            writeln!(f, "           {}", taps(&teacher.network.signature))?;
            for note in &teacher.notes {
                writeln!(f, "           {note}")?;
            }
        }
        for PlannedCombination { name, combination, .. } in &plan.combined {
            writeln!(f, "teacher    {name}: {combination}; logits alone, and only for terms that name it")?;
        }
        for twin in plan.twins() {
            writeln!(f, "           note: {}", twin.message)?;
        }
        writeln!(f, "student    {}, {}", plan.student, plan.experiment.student.precision.name())?;
        writeln!(f, "           {}", taps(&plan.student.signature))?;
        writeln!(
            f,
            "training   {} of {}, batch {}, learning rate {}, {} on {}",
            plural(train.epochs, "epoch"),
            plural(plan.data.steps_per_epoch(train.batch), "step"),
            train.batch,
            train.learning_rate,
            plural(plan.threads as u64, "thread"),
            device_name(plan.device)
        )
    }
}

/// What `limbeck plan` says of an experiment before it lists the cells.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "experiment {}, in {}", self.experiment.name, self.folder.display())?;
        write!(f, "{}", Setting(self))?;
        for method in &self.methods {
            let loss = self.data.dataset.info().task.split_loss().name;
            writeln!(f, "\nmethod {}: {} × {loss}", method.name, method.config.cross_entropy)?;
            for term in &method.terms {
                write!(f, "  + {} × {} of teacher {}", term.weight, term.label, term.teacher)?;
                if let Some(schedule) = &term.schedule {
                    write!(f, ", {schedule}")?;
                }
                match term.parameters {
                    0 => writeln!(f)?,
                    n => writeln!(f, ", {} parameters of its own", thousands(n))?,
                }
                if let Some(epochs) = term.initial_epochs {
                    let rate = term.initial_learning_rate.unwrap_or(self.experiment.train.learning_rate);
                    let then = if term.last_epoch == Some(0) { "; no loss after it" } else { "" };
                    let epochs = plural(epochs, "epoch");
                    writeln!(f, "      first: an initial stage of {epochs} at rate {rate}{then}")?;
                }
                if term.taps.pairs.is_empty() {
                    writeln!(f, "      logits {0} — logits {0}", self.student.signature.classes)?;
                }
                for pair in &term.taps.pairs {
                    let TapPair { student, teacher, student_shape, teacher_shape } = pair;
                    writeln!(f, "      student {student} {student_shape} — teacher {teacher} {teacher_shape}")?;
                }
                if !term.taps.dropped.is_empty() {
                    writeln!(f, "      warning: without a partner, hence unused: {}", term.taps.dropped.join(", "))?;
                }
            }
        }
        self.probes.iter().try_for_each(|probe| write!(f, "{probe}"))
    }
}

/// The digest of a file: BLAKE3 in hexadecimal.
pub(crate) fn file_digest(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}

/// The device's name: `cpu`, `cuda:0`.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}
