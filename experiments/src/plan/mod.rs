//! Planning: everything that can be wrong with an experiment is found here, before the first batch.
//!
//! The data are read, every network and every term is built against the real signatures, and the cells are laid out.
//!
//! | module | holds |
//! |---|---|
//! | [`network`], [`teacher`], [`combination`], [`method`], [`cell`], [`probe`] | the parts of a [`Plan`] |
//! | `identity` | what identifies a run |
//! | [`data`] | data sets that several experiments share |
//! | [`runs`] | single runs with the plan that they are of |
//! | [`cohorts`] | who is trained side by side |
//! | [`sweep`] | all experiments of a file with a grid |
//! | `text`, [`outline`] | what `limbeck plan` says, for people and for programs |

pub mod cell;
pub mod cohorts;
pub mod combination;
pub mod data;
pub(crate) mod identity;
pub mod method;
pub mod network;
pub mod outline;
pub mod probe;
pub mod runs;
pub mod sweep;
pub mod teacher;
mod text;

use std::path::{Path, PathBuf};
use std::rc::Rc;

use indexmap::IndexMap;
use limbeck::cohort::Data;
use limbeck::error::{Error, Result};
use limbeck::experiment::{CompareConfig, Division, Experiment, TeacherConfig};
use limbeck_report::store::{self, CellEntry, PlanFile};
use limbeck_report::twins::{Twin, twins};
use tch::Device;

use crate::words::join_label;

use cell::Cell;
use combination::{PlannedCombination, plan_combination};
use data::DataCache;
use identity::RunIdentity;
use method::{PlannedMethod, plan_method};
use network::Network;
use probe::{PlannedProbe, Probed};
use teacher::{PlannedTeacher, plan_teacher};

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

/// Where an experiment has its files.
#[derive(Debug)]
pub(crate) struct Folders<'a> {
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

impl<'a> Folders<'a> {
    /// That of an experiment by itself. `file` is where it was read, `out` the folder of all runs.
    pub fn alone(name: &str, file: &'a Path, out: &Path) -> Self {
        let folder = out.join(name);
        let base = file.parent().unwrap_or(Path::new("."));
        Folders { base, label: "", cells: folder.join(store::CELLS), folder, teachers: out.join(store::TEACHERS) }
    }
}

impl Plan {
    /// Plans an experiment. `file` is where it was read (weights are relative to its folder), `out` the folder of all runs.
    ///
    /// # Errors
    /// If anything in the experiment cannot be run; the message names the key and the remedy.
    pub fn new(experiment: Experiment, file: &Path, out: &Path) -> Result<Self> {
        let folders = Folders::alone(&experiment.name, file, out);
        Plan::at(experiment, folders, &mut DataCache::default(), |_, _| true)
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

    /// Plans an experiment in these folders, with the cells that `has` has, by method and seed.
    pub(crate) fn at(
        mut experiment: Experiment,
        folders: Folders<'_>,
        cache: &mut DataCache,
        has: impl Fn(&str, u64) -> bool,
    ) -> Result<Self> {
        resolve(&mut experiment, folders.base)?;
        let device = experiment.device.resolve()?;
        let threads = experiment.threads.unwrap_or_else(cores);
        tch::set_num_threads(threads as i32);
        let data = cache.data(&*experiment.dataset, experiment.division(), device)?;
        let mut teachers = Vec::new();
        for (name, config) in &experiment.teacher {
            if let Some(config) = config.network() {
                let teacher = plan_teacher(&experiment, name, config, &data, &folders.teachers, device);
                teachers.push(teacher.map_err(|e| e.at(["teacher", name]))?);
            }
        }
        let mut combined = Vec::new();
        for (name, config) in &experiment.teacher {
            if let Some(combination) = config.combination() {
                let teacher = plan_combination(name, combination, &teachers, &data);
                combined.push(teacher.map_err(|e| e.at(["teacher", name]))?);
            }
        }
        let student = Network::of_data(&*experiment.student.model, experiment.student.view.as_deref(), &data)
            .map_err(|e| e.at("student"))?;
        experiment.train.check_groups(&student.signature).map_err(|e| e.at("train"))?;
        experiment.student.precision.check(device).map_err(|e| e.at("student"))?;
        let mut methods = Vec::new();
        for name in &experiment.compare.methods {
            methods.push(plan_method(&experiment, name, &student, &teachers, &combined, &data)?);
        }
        let mut plan = Plan {
            label: folders.label.to_owned(),
            folder: folders.folder,
            probe_folder: folders.cells.with_file_name(store::PROBES),
            cell_folder: folders.cells,
            teacher_folder: folders.teachers,
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
        plan.probes = plan.lay_out_probes(cache)?;
        Ok(plan)
    }

    fn lay_out_probes(&self, cache: &mut DataCache) -> Result<Vec<PlannedProbe>> {
        let probed = Probed {
            label: &self.label,
            folder: &self.probe_folder,
            experiment: &self.experiment,
            student: &self.student,
            cells: &self.cells,
            teachers: self.asked_teachers().collect(),
        };
        let mut probes = Vec::new();
        for (name, config) in &self.experiment.probe {
            let data = match &config.dataset {
                None => Ok(Rc::clone(&self.data)),
                Some(dataset) => cache.data(&**dataset, Division::default(), self.device),
            };
            let probe = data.and_then(|data| PlannedProbe::new(&probed, name, config, data));
            probes.push(probe.map_err(|e| e.at(["probe", name]))?);
        }
        Ok(probes)
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
        let networks = self.teachers.iter().map(|teacher| (teacher.name.as_str(), teacher.identity.as_str()));
        let combined = self.combined.iter().map(|teacher| (teacher.name.as_str(), teacher.identity.as_str()));
        let identity = store::digest(&RunIdentity {
            format: limbeck::experiment::FORMAT,
            dataset: &self.data.dataset.info().identity,
            validation: self.experiment.validation,
            part: self.data.part.as_deref(),
            // A combination has its members' identities in its own.
            teachers: networks.chain(combined).filter(|(name, _)| method.asks(name)).collect(),
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
        resolved.teacher.retain(|name, _| {
            method.asks(name)
                || method.terms.iter().any(|term| self.networks_of(&term.teacher).contains(&name.as_str()))
        });
        resolved.method = IndexMap::from([(method.name.clone(), method.config.clone())]);
        resolved.compare =
            CompareConfig { methods: vec![method.name.clone()], seeds: vec![seed], baseline: None, ..resolved.compare };
        let progress = store::progress(&folder);
        let name = join_label(&self.label, &format!("{}, seed {seed}", method.name));
        Ok(Cell { name, method: method.name.clone(), seed, folder, identity, progress, resolved })
    }

    /// The teachers that are a student, too.
    pub(crate) fn twins(&self) -> Vec<Twin> {
        twins(&self.experiment, |name| {
            self.teachers.iter().any(|teacher| teacher.name == name && teacher.network.view == self.student.view)
        })
    }

    /// The cells and the probes as `plan.json` has them.
    pub fn file(&self) -> PlanFile {
        let mut file = PlanFile { format: 1, cells: Vec::new(), probes: Vec::new() };
        for cell in &self.cells {
            let folder = store::relative(&cell.folder, &self.folder);
            file.cells.push(CellEntry { method: cell.method.clone(), seed: cell.seed, folder });
        }
        for probe in &self.probes {
            file.probes.extend(probe.subjects.iter().map(|subject| subject.entry(&probe.name, &self.folder)));
        }
        file
    }
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
