//! Loading teachers and measuring them on the test split, alone and together.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use limbeck::cohort::{self, Classifier, CombinedTeacher, LoadedTeacher, Stop, Teacher};
use limbeck::combination::Combination;
use limbeck::dataset::{Batch, Split, Views};
use limbeck::error::{Error, Result};
use limbeck::model::Taps;
use limbeck::precision::Precision;
use limbeck::record::{Ensemble, TeacherRecord};
use limbeck::task::Metrics;
use limbeck_report::store;
use tch::Tensor;
use tracing::warn;

use crate::plan::Plan;
use crate::plan::combination::PlannedCombination;
use crate::plan::identity::file_digest;
use crate::plan::teacher::{PlannedTeacher, arithmetic};

/// Loads a teacher and measures it on the test split, once for each file, network, view, precision and data set.
pub(super) fn load_teacher(plan: &Plan, planned: &PlannedTeacher, stop: &Stop) -> Result<LoadedTeacher> {
    let PlannedTeacher { name, config, network, weights, .. } = planned;
    let spec = plan.data.spec(Some(&network.view))?;
    let mut teacher = Teacher::new(
        name,
        &network.view,
        &*config.model,
        &spec,
        config.precision,
        config.fold_batch_norm,
        plan.device,
    )?;
    let path = weights.path();
    teacher.load(&path)?;
    let file = file_digest(&path)?;
    let key =
        store::digest(&(&file, &config.model, &network.view, arithmetic(config), &plan.data.dataset.info().identity))?;
    let cache = format!("{}-{}", network.kind, store::short(&key));
    let test = if teacher.model().outputs().is_some() {
        None
    } else {
        let test = measured(
            plan,
            name,
            &cache,
            &[&teacher],
            &|batch| Ok(teacher.forward(batch.view(&teacher.view)?, &Taps::none())?.logits),
            stop,
        )?;
        Some(test)
    };
    let record = TeacherRecord {
        name: name.clone(),
        model: network.kind.clone(),
        view: network.view.clone(),
        weights: path,
        digest: file,
        parameters: network.parameters,
        precision: config.precision,
        folded: config.fold_batch_norm,
        test,
        members: Vec::new(),
    };
    Ok(LoadedTeacher { teacher, record })
}

/// A teacher that combines some of those that are loaded, measured on the test split where all of them can be.
pub(super) fn combine(
    plan: &Plan,
    planned: &PlannedCombination,
    teachers: &[LoadedTeacher],
    stop: &Stop,
) -> Result<LoadedTeacher<CombinedTeacher>> {
    let combination = &planned.combination;
    let members = members(combination, teachers)?;
    let mut views: Vec<&str> = members.iter().map(|member| member.record.view.as_str()).collect();
    views.sort_unstable();
    views.dedup();
    let record = TeacherRecord {
        name: planned.name.clone(),
        model: combination.to_string(),
        view: views.join(", "),
        weights: PathBuf::new(),
        digest: together(plan, combination, &members)?,
        parameters: members.iter().map(|member| member.record.parameters).sum(),
        precision: Precision::Float32,
        folded: false,
        test: measure_together(plan, &planned.name, combination, &members, stop)?,
        members: combination.teachers.clone(),
    };
    let teacher = CombinedTeacher { name: planned.name.clone(), combination: combination.clone() };
    Ok(LoadedTeacher { teacher, record })
}

/// What several networks are worth together, though nobody asked for their combination. Where samples have not one
/// class there is no distribution over all classes whose mean could be taken.
pub(super) fn ensemble(plan: &Plan, teachers: &[LoadedTeacher], stop: &Stop) -> Result<Option<Ensemble>> {
    if teachers.len() < 2 || !plan.data.dataset.info().task.one_class() {
        return Ok(None);
    }
    let names: Vec<String> = teachers.iter().map(|loaded| loaded.teacher.name.clone()).collect();
    let all: Vec<&LoadedTeacher> = teachers.iter().collect();
    let mean = Combination::mean_probabilities(names.clone());
    let digests = teachers.iter().map(|loaded| loaded.record.digest.clone()).collect();
    let test = measure_together(plan, &names.join(", "), &mean, &all, stop)?;
    Ok(test.map(|test| Ensemble { teachers: names, digests, test }))
}

fn members<'a>(combination: &Combination, teachers: &'a [LoadedTeacher]) -> Result<Vec<&'a LoadedTeacher>> {
    let mut members = Vec::new();
    for name in &combination.teachers {
        let Some(member) = teachers.iter().find(|loaded| loaded.teacher.name == *name) else {
            return Err(Error::run(format!("teacher {name} is not there to be combined")));
        };
        members.push(member);
    }
    Ok(members)
}

/// A digest of the members and of how they are combined, whatever they are called.
fn together(plan: &Plan, combination: &Combination, members: &[&LoadedTeacher]) -> Result<String> {
    let mut digests = Vec::new();
    for member in members {
        let TeacherRecord { name, view, digest, precision, folded, .. } = &member.record;
        let model = plan.teachers.iter().find(|planned| planned.name == *name).map(|planned| &planned.config.model);
        digests.push(store::digest(&(model, view, digest, precision, folded))?);
    }
    store::digest(&(combination.kind, combination.shares(), digests, &plan.data.dataset.info().identity))
}

/// The accuracy of networks together; nothing if one of them is known by its outputs on the training samples alone.
fn measure_together(
    plan: &Plan,
    name: &str,
    combination: &Combination,
    members: &[&LoadedTeacher],
    stop: &Stop,
) -> Result<Option<Metrics>> {
    if members.iter().any(|member| member.teacher.model().outputs().is_some()) {
        return Ok(None);
    }
    let networks: Vec<&Teacher> = members.iter().map(|member| &member.teacher).collect();
    let cache = format!("{}-{}", combination.kind.name(), store::short(&together(plan, combination, members)?));
    let test = measured(plan, name, &cache, &networks, &|batch| combined_logits(combination, &networks, batch), stop)?;
    Ok(Some(test))
}

/// What networks say of a batch together.
fn combined_logits(combination: &Combination, networks: &[&Teacher], batch: &Batch) -> Result<Tensor> {
    let mut logits = Vec::new();
    for teacher in networks {
        logits.push(teacher.forward(batch.view(&teacher.view)?, &Taps::none())?.logits);
    }
    Ok(combination.logits(&logits.iter().collect::<Vec<_>>()))
}

/// The accuracy of a teacher on the test split, measured once for each `cache`, the name of a file.
fn measured(
    plan: &Plan,
    name: &str,
    cache: &str,
    networks: &[&Teacher],
    classify: Classifier<'_>,
    stop: &Stop,
) -> Result<Metrics> {
    let cache = plan.teacher_folder.join("measured").join(format!("{cache}.json"));
    let _turn = take_turns(&cache)?;
    store::read_json(&cache).or_else(|error| {
        if cache.exists() {
            warn!(%error, "the accuracy of teacher {name} is damaged and measured again");
        }
        let rows: Vec<i64> = (0..plan.data.dataset.info().test_labels.len() as i64).collect();
        let views: Views = networks.iter().map(|teacher| teacher.view.as_str()).collect();
        let results = cohort::accuracy(&plan.data, Split::Test, &rows, &views, &[classify], plan.device, stop)?;
        let test = results.into_iter().next().ok_or_else(|| Error::run("no accuracy was measured"))??;
        store::write_json(&cache, &test)?;
        Ok(test)
    })
}

/// While one process measures a teacher, others wait for the result.
fn take_turns(cache: &Path) -> Result<File> {
    if let Some(folder) = cache.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let path = cache.with_extension("lock");
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    file.lock().map_err(Error::io("lock", &path))?;
    Ok(file)
}
