//! The comparison: accuracy by method and pair, differences to the baseline, published numbers beside them.

use indexmap::IndexMap;
use limbeck::experiment::AccuracyChoice;
use limbeck::task::{MetricInfo, Metrics, Task, Unit};
use serde::Serialize;

use crate::csv::{self, Columns, CsvFile};
use crate::document::Block;
use crate::numbers::{plain, signed, signed_spread, spread, spread_cell};
use crate::statistics::{ENOUGH_SEEDS, Spread, best_first, differences, gain};
use crate::study::{Method, Study};
use crate::survey::Survey;
use crate::table::{Cell, Mark, NONE, Table};
use crate::words::plural;

/// The methods.
pub const METHODS: CsvFile = CsvFile {
    name: "comparison.csv",
    about: |_| "a row for each method".to_owned(),
    text: |survey| csv::text(method_rows(survey)),
};

/// The teachers.
pub const TEACHERS: CsvFile = CsvFile {
    name: "teachers.csv",
    about: |_| "where there are several: every teacher that was asked, and all of them together".to_owned(),
    text: |survey| csv::text(teacher_rows(survey)),
};

/// A method of an experiment.
#[derive(Serialize)]
struct MethodRow<'a> {
    experiment: &'a str,
    method: &'a str,
    accuracy: AccuracyChoice,
    seeds: usize,
    seeds_planned: usize,
    #[serde(flatten)]
    scores: Columns,
    baseline: &'a str,
    difference_mean: Option<f64>,
    difference_deviation: Option<f64>,
    difference_seeds: Option<usize>,
    teacher: Option<&'a str>,
    teacher_difference: Option<f64>,
    published: Option<f64>,
}

/// A teacher of an experiment with several, or all of its networks together.
#[derive(Serialize)]
struct TeacherRow<'a> {
    experiment: &'a str,
    teacher: &'a str,
    model: &'a str,
    members: String,
    #[serde(flatten)]
    test: Columns,
}

/// Everything.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut blocks = vec![Block::Text(reading(survey))];
    match survey.single() {
        Some(study) => blocks.extend(in_full(survey, study)),
        None => {
            blocks.extend(overview(survey));
            for study in &survey.studies {
                blocks.push(Block::Heading(study.label.clone()));
                blocks.extend(in_full(survey, study));
            }
        }
    }
    blocks.extend(notes(survey));
    blocks
}

/// The tables that say most, the protocol, and what must be known to believe them.
pub fn summary(survey: &Survey) -> Vec<Block> {
    let mut blocks = vec![Block::List(survey.studies.iter().map(protocol).collect()), Block::Text(reading(survey))];
    match survey.single() {
        Some(study) => blocks.extend(in_full(survey, study)),
        None => blocks.extend(overview(survey)),
    }
    blocks.extend(notes(survey));
    blocks
}

/// One study's methods, and its teachers where there are several.
fn in_full(survey: &Survey, study: &Study) -> Vec<Block> {
    let methods = detail(survey, study);
    match teachers(survey, study) {
        Some(teachers) => vec![Block::Table(methods.caption("Students")), Block::Table(teachers)],
        None => vec![Block::Table(methods)],
    }
}

/// What several teachers are worth, one by one and together.
fn teachers(survey: &Survey, study: &Study) -> Option<Table> {
    if study.teachers.len() < 2 {
        return None;
    }
    let mut header = vec!["teacher", "what it is", survey.task.score().short];
    header.extend(survey.task.beside().iter().map(|metric| metric.short));
    let mut table = Table::new(header).left(2).caption("Teachers, on the test split");
    for teacher in &study.teachers {
        table.row(teacher_cells(survey.task, &teacher.name, &teacher.model, teacher.test));
    }
    if let Some(ensemble) = study.ensemble() {
        let name = format!("ensemble of {}", ensemble.teachers.join(", "));
        table.row(teacher_cells(survey.task, &name, "mean of their probabilities", Some(ensemble.test)));
    }
    Some(table)
}

fn teacher_cells(task: &dyn Task, name: &str, what: &str, test: Option<Metrics>) -> Vec<Cell> {
    let mut cells = vec![name.into(), what.into(), metric_cell(task.score(), test.map(|test| test.score()))];
    for (at, metric) in task.beside().iter().enumerate() {
        let value = test.and_then(|test| test.beside().nth(at)).map(|(_, value)| value);
        cells.push(metric_cell(metric, value));
    }
    cells
}

fn metric_cell(metric: &MetricInfo, value: Option<f64>) -> Cell {
    Cell::maybe(value, |value| plain(value, metric.unit))
}

/// A line: what was trained on what, for how long, with which seeds.
fn protocol(study: &Study) -> String {
    let train = &study.experiment.train;
    let seeds: Vec<String> = study.experiment.compare.seeds.iter().map(u64::to_string).collect();
    let dataset = study.summaries().next().map(|summary| format!(" on {}", summary.dataset)).unwrap_or_default();
    let word = if seeds.len() == 1 { "seed" } else { "seeds" };
    let (epochs, batch) = (plural(train.epochs, "epoch"), train.batch);
    format!("{}{dataset}: {epochs}, batches of {batch}, {word} {}", study.label, seeds.join(", "))
}

fn reading(survey: &Survey) -> String {
    let baseline = &survey.baseline;
    format!(
        "Shown: {}, in {}. Mean ± sample deviation (n − 1) over seeds; a single seed has no deviation. The difference to \
         `{baseline}` is the mean of the differences seed by seed ± their sample deviation; a page colours it where it is the \
         larger of the two. `common` is the number of seeds that both have.{}",
        survey.accuracy.describe(survey.task),
        survey.task.score().unit.words,
        if survey.csv { " Those of other epochs that were recorded are in runs.csv." } else { "" }
    )
}

/// Methods by pairs: accuracies, then differences.
fn overview(survey: &Survey) -> [Block; 2] {
    let mut header = vec!["method"];
    header.extend(survey.studies.iter().map(|study| study.label.as_str()));
    let score = survey.task.score();
    let mut title = score.title();
    if survey.studies.iter().any(|study| survey.published.of(study).is_some()) {
        title += "; published in parentheses";
    }
    let mut accuracies = Table::new(header.iter().copied()).caption(title);
    let mut row = vec![Cell::from("teacher")];
    row.extend(survey.studies.iter().map(|study| teacher_accuracy(survey, study)));
    accuracies.row(row);
    if survey.studies.iter().any(|study| study.ensemble().is_some()) {
        let mut row = vec![Cell::from("all asked teachers together")];
        for study in &survey.studies {
            row.push(metric_cell(score, study.ensemble().map(|ensemble| ensemble.test.score())));
        }
        accuracies.row(row);
    }
    let mut differences =
        Table::new(header).caption(format!("Difference to `{}` in {}", survey.baseline, score.unit.difference));
    for name in &survey.methods {
        let mut row = vec![Cell::from(name)];
        row.extend(survey.studies.iter().map(|study| accuracy(survey, study, name)));
        accuracies.row(row);
        if *name != survey.baseline {
            let mut row = vec![Cell::from(name)];
            for study in &survey.studies {
                row.push(difference(study.method(name).and_then(|method| method.difference), score));
            }
            differences.row(row);
        }
    }
    [Block::Table(accuracies), Block::Table(differences)]
}

/// The best teacher's accuracy, the published one of a single network beside it.
fn teacher_accuracy(survey: &Survey, study: &Study) -> Cell {
    let Some(teacher) = study.best_teacher() else { return NONE.into() };
    let unit = survey.task.score().unit;
    let score = teacher.test.map(|test| test.score());
    let published = survey.published.of(study).filter(|_| teacher.members.is_empty());
    let text = score.map_or_else(|| NONE.to_owned(), |score| plain(score, unit));
    Cell::number(with_published(text, published.map(|(_, pair)| pair.teacher()), unit), score)
}

/// A method's accuracy, the published one beside it.
fn accuracy(survey: &Survey, study: &Study, method: &str) -> Cell {
    let score = study.method(method).and_then(|method| method.score);
    let unit = survey.task.score().unit;
    let text = with_published(spread(score, unit), survey.published.accuracy(study, method), unit);
    Cell::number(text, score.map(|score| score.mean)).marked(place(survey, study, score))
}

fn with_published(text: String, published: Option<f64>, unit: Unit) -> String {
    match published {
        Some(published) => format!("{text} ({})", plain(published, unit)),
        None => text,
    }
}

/// The mean of the differences of a metric, coloured where it is further from 0 than they scatter.
pub fn difference(difference: Option<Spread>, metric: &MetricInfo) -> Cell {
    let mark = match difference {
        Some(Spread { mean, deviation: Some(deviation), .. }) if gain(mean, metric.better) > deviation => {
            Some(Mark::Above)
        }
        Some(Spread { mean, deviation: Some(deviation), .. }) if gain(mean, metric.better) < -deviation => {
            Some(Mark::Below)
        }
        _ => None,
    };
    let text = signed_spread(difference, metric.unit);
    Cell::number(text, difference.map(|difference| difference.mean)).marked(mark)
}

/// Whether a mean, as it is shown, is the best or the second best of a study with several.
fn place(survey: &Survey, study: &Study, score: Option<Spread>) -> Option<Mark> {
    let metric = survey.task.score();
    let mut means: Vec<f64> = study.methods.iter().filter_map(|method| Some(method.score?.mean)).collect();
    if means.len() < 2 {
        return None;
    }
    means.sort_by(|one, other| best_first(*one, *other, metric.better));
    let mut shown: Vec<String> = means.into_iter().map(|mean| plain(mean, metric.unit)).collect();
    shown.dedup();
    let own = plain(score?.mean, metric.unit);
    match shown.iter().position(|mean| *mean == own)? {
        0 => Some(Mark::Best),
        1 => Some(Mark::Second),
        _ => None,
    }
}

/// One study in full.
fn detail(survey: &Survey, study: &Study) -> Table {
    let has_published = survey.published.of(study).is_some();
    let score = survey.task.score();
    let best_teacher = study.best_teacher();
    let mut header = vec!["method".to_owned(), "seeds".to_owned(), score.short.to_owned()];
    header.extend(survey.task.beside().iter().map(|metric| metric.short.to_owned()));
    header.extend(has_published.then(|| "published".to_owned()));
    header.extend([format!("to {}", survey.baseline), "common".to_owned()]);
    header.extend(best_teacher.map(|teacher| format!("to teacher {}", teacher.name)));
    let mut table = Table::new(header);
    for method in &study.methods {
        let mut row: Vec<Cell> = vec![method.name.as_str().into(), seeds(method).into()];
        row.push(spread_cell(method.score, score.unit).marked(place(survey, study, method.score)));
        for (metric, spread) in survey.task.beside().iter().zip(&method.beside) {
            row.push(spread_cell(*spread, metric.unit));
        }
        if has_published {
            row.push(metric_cell(score, survey.published.accuracy(study, &method.name)));
        }
        if method.name == survey.baseline {
            row.extend(["baseline".into(), NONE.into()]);
        } else {
            let common = method.difference.map_or_else(|| NONE.to_owned(), |difference| difference.count.to_string());
            row.extend([difference(method.difference, score), common.into()]);
        }
        if best_teacher.is_some() {
            row.push(Cell::maybe(study.to_teacher(method), |value| signed(value, score.unit)));
        }
        table.row(row);
    }
    table
}

/// `2`, or `1 of 2` where runs are missing.
fn seeds(method: &Method) -> String {
    match (method.results.len(), method.runs.len()) {
        (done, planned) if done == planned => done.to_string(),
        (done, planned) => format!("{done} of {planned}"),
    }
}

/// What a reader must know before believing the table.
fn notes(survey: &Survey) -> Option<Block> {
    let mut notes: Vec<String> = Vec::new();
    if survey.studies.iter().any(|study| study.methods.iter().filter(|method| method.score.is_some()).count() > 1) {
        let best = survey.task.score().better.best();
        notes.push(format!("Bold: the {best} mean; italic or underlined: the second."));
        notes.extend(survey.studies.iter().filter_map(|study| lead(survey, study)));
    }
    // What holds of several studies is said once.
    let mut studies: IndexMap<String, Vec<&str>> = IndexMap::new();
    for study in &survey.studies {
        for note in study_notes(survey, study) {
            studies.entry(note).or_default().push(&study.label);
        }
    }
    for (note, labels) in studies {
        notes.push(if survey.single().is_some() { note } else { format!("{}: {note}", labels.join("; ")) });
    }
    (!notes.is_empty()).then_some(Block::List(notes))
}

fn study_notes(survey: &Survey, study: &Study) -> Vec<String> {
    let mut notes = Vec::new();
    let with_result: Vec<&Method> = study.methods.iter().filter(|method| method.score.is_some()).collect();
    if let Some(fewest) = with_result.iter().map(|method| method.results.len()).min()
        && fewest < ENOUGH_SEEDS
        && with_result.len() > 1
    {
        let seeds = if fewest == 1 { "a single seed".to_owned() } else { plural(fewest as u64, "seed") };
        notes.push(format!(
            "With {seeds} the order of the methods is not established; {ENOUGH_SEEDS} or more are needed to say anything about it."
        ));
    }
    if study.methods.iter().any(|method| method.results.len() < method.runs.len()) {
        notes.push("Runs without a result are left out of the means; the report lists them. Means over different seeds are not paired: compare by the differences.".to_owned());
    }
    if study.mean(&survey.baseline).is_none() && !with_result.is_empty() {
        notes.push(format!("The baseline `{}` has no result, so there are no differences to it.", survey.baseline));
    }
    notes.extend(without_labels(study, &with_result));
    if study.teachers.len() > 1
        && let Some(teacher) = study.best_teacher()
    {
        notes.push(format!("The difference to the teacher is to `{}`, the most accurate one.", teacher.name));
    }
    notes.extend(published(survey, study));
    notes
}

/// Which methods train without labels, and what their accuracy says then.
fn without_labels(study: &Study, methods: &[&Method]) -> Option<String> {
    let mut names = Vec::new();
    for method in methods {
        if study.experiment.method(&method.name).is_ok_and(|config| config.cross_entropy == 0.0) {
            names.push(format!("`{}`", method.name));
        }
    }
    if names.is_empty() {
        return None;
    }
    let probes = if study.probes.is_empty() { "a linear probe would say" } else { "the linear probes say" };
    Some(format!(
        "Trained without labels: {}. Where no term of such a method teaches the last layer, it is as it was drawn, and this \
         table says nothing of the student's features; {probes} what they are worth.",
        names.join(", ")
    ))
}

/// Where the published numbers are from, and what differs here.
fn published(survey: &Survey, study: &Study) -> Option<String> {
    let (source, pair) = survey.published.of(study)?;
    let mut note = format!("Published: table {} of {} ({}).", pair.table, source.source, source.protocol);
    let deviations = source.deviations(pair, study, survey.accuracy);
    if !deviations.is_empty() {
        note += &format!(" These runs differ ({}): the two are not comparable.", deviations.join(", "));
    }
    let others = survey.published.others(study);
    if !others.is_empty() {
        note += &format!(" Not set as the published ones of their names, and so without: {}.", others.join(", "));
    }
    Some(note)
}

/// How far the best method is ahead of the next, and whether that is more than the seeds scatter.
fn lead(survey: &Survey, study: &Study) -> Option<String> {
    let mut ranked: Vec<(&Method, f64)> =
        study.methods.iter().filter_map(|method| Some((method, method.score?.mean))).collect();
    let metric = survey.task.score();
    ranked.sort_by(|one, other| best_first(one.1, other.1, metric.better));
    let [(first, _), (second, _), ..] = &ranked[..] else { return None };
    let lead = Spread::of(differences(&first.scores(), &second.scores()))?;
    let verdict = match lead.deviation {
        Some(deviation) if lead.mean.abs() <= deviation => ": within the deviation, so their order is not established",
        _ => "",
    };
    Some(format!(
        "{}The paired difference of `{}` to `{}`, the next, is {} over {}{verdict}.",
        survey.place(study),
        first.name,
        second.name,
        signed_spread(Some(lead), metric.unit),
        if lead.count == 1 { "one seed".to_owned() } else { format!("{} common seeds", lead.count) },
    ))
}

fn method_rows(survey: &Survey) -> Vec<MethodRow<'_>> {
    let mut rows = Vec::new();
    for study in &survey.studies {
        for method in &study.methods {
            let mut scores: Columns = csv::spread(survey.task.score().key, method.score).into();
            for (metric, spread) in survey.task.beside().iter().zip(&method.beside) {
                scores.extend(csv::spread(metric.key, *spread));
            }
            rows.push(MethodRow {
                experiment: &study.experiment.name,
                method: &method.name,
                accuracy: survey.accuracy,
                seeds: method.results.len(),
                seeds_planned: method.runs.len(),
                scores,
                baseline: &survey.baseline,
                difference_mean: method.difference.map(|difference| difference.mean),
                difference_deviation: method.difference.and_then(|difference| difference.deviation),
                difference_seeds: method.difference.map(|difference| difference.count),
                teacher: study.best_teacher().map(|teacher| teacher.name.as_str()),
                teacher_difference: study.to_teacher(method),
                published: survey.published.accuracy(study, &method.name),
            });
        }
    }
    rows
}

fn teacher_rows(survey: &Survey) -> Vec<TeacherRow<'_>> {
    let mut rows = Vec::new();
    for study in survey.studies.iter().filter(|study| study.teachers.len() > 1) {
        let experiment = study.experiment.name.as_str();
        for teacher in &study.teachers {
            rows.push(TeacherRow {
                experiment,
                teacher: &teacher.name,
                model: &teacher.model,
                members: teacher.members.join(" "),
                test: csv::metrics(survey.task, "test", teacher.test),
            });
        }
        if let Some(ensemble) = study.ensemble() {
            rows.push(TeacherRow {
                experiment,
                teacher: "ensemble",
                model: "mean_probabilities",
                members: ensemble.teachers.join(" "),
                test: csv::metrics(survey.task, "test", Some(ensemble.test)),
            });
        }
    }
    rows
}
