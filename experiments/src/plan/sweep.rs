//! Sweeps: all experiments of a file with a `[grid]`, planned together. A file without one is a sweep of one experiment.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use limbeck::config::grid::{Coordinates, Filter, Grid};
use limbeck::error::{Error, Result};
use limbeck_report::store::{self, PointEntry, SweepFile};
use limbeck_report::words::{plural, thousands};
use serde::Serialize;

use super::cohorts::{self, Cohort};
use super::data::DataCache;
use super::outline::Outline;
use super::runs::{PlannedProbeRun, PlannedRun, runs};
use super::{Folders, Plan};

/// The longest name of a point's folder, in bytes.
const LONGEST: usize = 150;

/// Experiments that are run in one folder.
#[derive(Debug)]
pub struct Sweep {
    /// Its folder.
    pub folder: PathBuf,
    /// The points that have cells to be run.
    pub points: Vec<Point>,
    /// What a reader of the folder has to know; absent where there is no grid.
    file: Option<SweepFile>,
    only: Filter,
}

/// An experiment of a sweep.
#[derive(Debug)]
pub struct Point {
    /// Where it is in the grid.
    pub at: Coordinates,
    /// The experiment.
    pub plan: Plan,
}

/// What a call says of a sweep beside its file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The most students of a cohort, in place of the experiment's own `lanes`.
    pub lanes: Option<usize>,
    /// libtorch's threads where the experiment does not say.
    pub threads: Option<usize>,
    /// The points that are planned, by label; absent: all.
    pub points: Option<Vec<String>>,
}

impl Sweep {
    /// Plans every point of a grid. `file` is where it was read, `out` the folder of all runs; `cache` has data that were
    /// read already.
    ///
    /// # Errors
    /// If a point cannot be run: the message names it.
    pub fn new(grid: Grid, file: &Path, out: &Path, options: &Options, cache: &mut DataCache) -> Result<Self> {
        let name = grid.points.first().map(|point| point.experiment.name.clone()).unwrap_or_default();
        let folder = out.join(&name);
        let listing = list(&name, &grid)?;
        // Planning draws numbers, and libtorch decides then whether there is CUDA: it must be loaded before, if any point
        // asks for it.
        for point in &grid.points {
            point.experiment.device.resolve()?;
        }
        let mut points = Vec::new();
        for point in &grid.points {
            if options.points.as_ref().is_some_and(|labels| !labels.contains(&point.label)) {
                continue;
            }
            let mut experiment = point.experiment.clone();
            experiment.lanes = options.lanes.unwrap_or(experiment.lanes);
            experiment.threads = experiment.threads.or(options.threads);
            let mut folders = Folders::alone(&name, file, out);
            if let Some(sub) = point_folder(&point.label) {
                experiment.name = format!("{name}-{sub}");
                folders.folder = folder.join(store::POINTS).join(sub);
                folders.label = &point.label;
            }
            let plan = Plan::at(experiment, folders, cache, |method, seed| point.has(method, seed));
            let plan = plan.map_err(|e| if point.label.is_empty() { e } else { e.within(&point.label) })?;
            points.push(Point { at: point.at.clone(), plan });
        }
        Ok(Sweep { folder, points, file: listing, only: grid.only })
    }

    /// The experiments.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.points.iter().map(|point| &point.plan)
    }

    /// The cells that were asked for, each once.
    pub fn chosen(&self) -> Vec<PlannedRun<'_>> {
        let at: IndexMap<&Path, &Coordinates> =
            self.points.iter().map(|point| (point.plan.folder.as_path(), &point.at)).collect();
        runs(self.plans(), |plan, cell| self.only.accepts(at[plan.folder.as_path()], Some((&cell.method, cell.seed))))
    }

    /// Those that are not finished.
    pub fn open(&self) -> Vec<PlannedRun<'_>> {
        let mut runs = self.chosen();
        runs.retain(|run| run.cell.is_open());
        runs
    }

    /// The linear classifiers on the networks that were asked for, each once.
    pub fn chosen_probes(&self) -> Vec<PlannedProbeRun<'_>> {
        let (cells, mut seen) = (self.chosen(), HashSet::new());
        let mut chosen: Vec<PlannedProbeRun<'_>> = self.plans().flat_map(PlannedProbeRun::all).collect();
        chosen.retain(|run| goes_with(run, &cells) && seen.insert(&run.subject.folder));
        chosen
    }

    /// Those that are not trained.
    pub fn open_probes(&self) -> Vec<PlannedProbeRun<'_>> {
        let mut runs = self.chosen_probes();
        runs.retain(PlannedProbeRun::is_open);
        runs
    }

    /// Writes what the sweep is into its folder.
    pub(crate) fn describe(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| store::write_json(&self.folder.join(store::SWEEP), file))
    }

    /// Of the sweep as a whole, for programs; of one experiment if there is no grid.
    ///
    /// # Errors
    /// If a configuration cannot be written as JSON.
    pub fn outline(&self) -> Result<SweepOutline> {
        match (&self.file, &self.points[..]) {
            (None, [point]) => Ok(SweepOutline::Alone(Box::new(point.plan.outline()))),
            _ => self.outline_of_grid(),
        }
    }

    fn outline_of_grid(&self) -> Result<SweepOutline> {
        let (mut points, mut cohorts) = (Vec::new(), Vec::new());
        for Point { at, plan } in &self.points {
            points.push(PointOutline { label: plan.label.clone(), at: at.clone(), plan: plan.outline() });
        }
        for cohort in cohorts::form(&self.open())? {
            cohorts.push(CohortOutline::from(&cohort));
        }
        Ok(SweepOutline::Grid {
            sweep: self.file.as_ref().map(|file| file.name.clone()).unwrap_or_default(),
            folder: self.folder.clone(),
            axes: self.file.as_ref().map(|file| file.axes.clone()).unwrap_or_default(),
            points,
            cohorts,
        })
    }

    /// The text of `limbeck plan`.
    ///
    /// # Errors
    /// If a configuration cannot be written as JSON.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        if let Some(SweepFile { name, axes, points, .. }) = &self.file {
            let count = plural(points.len() as u64, "point");
            let _ = writeln!(text, "sweep {name}, in {}: {count}", self.folder.display());
            for (axis, values) in axes {
                let _ = writeln!(text, "axis       {axis}: {}", values.join("; "));
            }
            text.push('\n');
        }
        match &self.points[..] {
            [point] => text += &point.plan.to_string(),
            points => {
                text += &points.iter().map(|point| point.plan.brief()).collect::<Vec<_>>().join("\n");
                text += "\nterms, taps and shapes are in the plan of one point: --only AXIS=VALUE\n";
            }
        }
        let cells = self.chosen();
        let _ = writeln!(text, "\ncells ({}):", cells.len());
        for PlannedRun { cell, .. } in &cells {
            let _ = writeln!(text, "  {:<8} {}: {}", cell.progress, cell.name, cell.folder.display());
        }
        let cohorts = cohorts::form(&self.open())?;
        let _ = writeln!(text, "cohorts ({}), of what is not finished:", cohorts.len());
        let mut saved = 0;
        for cohort in &cohorts {
            let (together, alone) = cohort.passes();
            saved += alone - together;
            let (together, alone) = (thousands(together as i64), thousands(alone as i64));
            let _ = writeln!(text, "  {}: {together} teacher passes, {alone} one by one", cohort.name());
        }
        let _ = writeln!(text, "teachers' forward passes that cohorts save: {}", thousands(saved as i64));
        let probes = self.chosen_probes();
        if !probes.is_empty() {
            let _ = writeln!(text, "\nlinear probes ({}):", probes.len());
        }
        for run in &probes {
            let subject = run.subject;
            let _ = writeln!(text, "  {:<8} {}: {}", run.progress(), subject.name, subject.folder.display());
        }
        Ok(text)
    }
}

/// Whether a classifier is on a network of these cells. One on a network of no method goes with the students of its seed.
fn goes_with(run: &PlannedProbeRun<'_>, cells: &[PlannedRun<'_>]) -> bool {
    if let Some(folder) = &run.subject.cell {
        return cells.iter().any(|other| other.cell.folder == *folder);
    }
    let seed = run.subject.seed;
    let is_any_seed = !run.plan.experiment.compare.seeds.contains(&seed);
    cells.iter().any(|other| {
        (is_any_seed || other.cell.seed == seed) && run.plan.cells.iter().any(|cell| cell.folder == other.cell.folder)
    })
}

/// The folder of a point below the sweep's; none where there is no grid.
fn point_folder(label: &str) -> Option<String> {
    if label.is_empty() { None } else { Some(store::folder_name(&label.replace(", ", ","))) }
}

/// What the folder of a sweep says of it; nothing where there is no grid.
fn list(name: &str, grid: &Grid) -> Result<Option<SweepFile>> {
    if grid.axes.is_empty() {
        return Ok(None);
    }
    let (mut points, mut taken) = (Vec::new(), HashSet::new());
    for (label, at) in &grid.listing {
        let folder = point_folder(label).unwrap_or_default();
        let remedy = "give the values short names: [[grid.AXIS]] with `name` and `set`";
        if folder.len() > LONGEST {
            return Err(Error::plan(format!("the point `{label}` is too long for the name of a folder: {remedy}")));
        }
        if !taken.insert(folder.clone()) {
            return Err(Error::plan(format!("two points have the folder `{folder}`, one is `{label}`: {remedy}")));
        }
        let folder = Path::new(store::POINTS).join(folder);
        points.push(PointEntry { label: label.clone(), at: at.clone(), folder });
    }
    Ok(Some(SweepFile { format: 1, name: name.to_owned(), axes: grid.axes.clone(), points }))
}

/// A sweep for programs: `limbeck plan --json`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum SweepOutline {
    /// One experiment.
    Alone(Box<Outline>),
    /// The points of a grid.
    Grid {
        /// Its name.
        sweep: String,
        /// Its folder.
        folder: PathBuf,
        /// The axes with the names of their values.
        axes: IndexMap<String, Vec<String>>,
        /// The points that have cells to be run.
        points: Vec<PointOutline>,
        /// Who is trained side by side, of what is not finished.
        cohorts: Vec<CohortOutline>,
    },
}

/// A point for programs.
#[derive(Debug, Serialize)]
pub struct PointOutline {
    label: String,
    at: Coordinates,
    plan: Outline,
}

/// A cohort for programs.
#[derive(Debug, Serialize)]
pub struct CohortOutline {
    seed: u64,
    students: Vec<String>,
    teachers: Vec<String>,
    /// Teachers' forward passes, one for each batch.
    teacher_passes: u64,
    /// The same if the students were trained one by one.
    teacher_passes_alone: u64,
}

impl From<&Cohort<'_>> for CohortOutline {
    fn from(cohort: &Cohort<'_>) -> Self {
        let (teacher_passes, teacher_passes_alone) = cohort.passes();
        CohortOutline {
            seed: cohort.seed(),
            students: cohort.runs.iter().map(|run| run.cell.name.clone()).collect(),
            teachers: cohort.teachers().iter().map(|(_, teacher)| teacher.name.clone()).collect(),
            teacher_passes,
            teacher_passes_alone,
        }
    }
}
