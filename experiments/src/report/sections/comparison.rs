//! The comparison: accuracy by method and pair, differences to the baseline, published numbers beside them.

use indexmap::IndexMap;
use limbeck::record::{Accuracy, Measure};

use crate::report::document::Block;
use crate::report::numbers::{signed, signed_spread, spread};
use crate::report::statistics::{Spread, differences};
use crate::report::study::{Method, Study};
use crate::report::table::{Cell, Mark, NONE, Table};
use crate::report::{ENOUGH_SEEDS, Survey};
use crate::words::plural;

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

/// One study's methods, and its teachers where there are several.
fn in_full(survey: &Survey, study: &Study) -> impl Iterator<Item = Block> {
    let teachers = teachers(survey, study);
    let caption = if teachers.is_some() { "Students" } else { "" };
    [Some(detail(survey, study).caption(caption)), teachers].into_iter().flatten().map(Block::Table)
}

/// What several teachers are worth, one by one and together.
fn teachers(survey: &Survey, study: &Study) -> Option<Table> {
    if study.teachers.len() < 2 {
        return None;
    }
    let top5 = (survey.measure == Measure::Top1).then_some("top-5");
    let header = ["teacher", "what it is", survey.measure.short()].into_iter().chain(top5);
    let mut table = Table::new(header).left(2).caption("Teachers, on the test split");
    let mut row = |name: String, what: &str, test: Option<Accuracy>| {
        let number = |value: Option<f64>| Cell::number(value.map_or(NONE.to_owned(), |v| format!("{v:.2}")), value);
        let numbers =
            [Some(number(test.map(|test| test.score()))), top5.map(|_| number(test.and_then(|test| test.top5())))];
        table.row([name.into(), Cell::from(what)].into_iter().chain(numbers.into_iter().flatten()));
    };
    study.teachers.iter().for_each(|teacher| row(teacher.name.clone(), &teacher.model, teacher.test));
    if let Some(ensemble) = study.ensemble() {
        let name = format!("ensemble of {}", ensemble.teachers.join(", "));
        row(name, "mean of their probabilities", Some(ensemble.test));
    }
    Some(table)
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
        "Shown: {}, in percent. Mean ± sample deviation (n − 1) over seeds; a single seed has no deviation. The difference to \
         `{baseline}` is the mean of the differences seed by seed ± their sample deviation; a page colours it where it is the \
         larger of the two. `common` is the number of seeds that both have.{}",
        survey.accuracy.describe(survey.measure),
        if survey.csv { " Those of other epochs that were recorded are in runs.csv." } else { "" }
    )
}

/// Methods by pairs: accuracies, then differences.
fn overview(survey: &Survey) -> [Block; 2] {
    let header = || std::iter::once("method".to_owned()).chain(survey.studies.iter().map(|study| study.label.clone()));
    let any = survey.studies.iter().any(|study| survey.published.of(study).is_some());
    let title = survey.measure.title();
    let title = if any { format!("{title}; published in parentheses") } else { title.to_owned() };
    let mut accuracies = Table::new(header()).caption(title);
    accuracies.row(std::iter::once("teacher".into()).chain(survey.studies.iter().map(|study| {
        let best = study.best_teacher();
        let teacher = best.and_then(|teacher| teacher.test).map(|test| test.score());
        // What was published is of one network.
        let published = survey.published.of(study).filter(|_| best.is_some_and(|teacher| teacher.members.is_empty()));
        let published = published.map(|(_, pair)| pair.teacher());
        Cell::number(with_published(teacher.map_or(NONE.to_owned(), |score| format!("{score:.2}")), published), teacher)
    })));
    if survey.studies.iter().any(|study| study.ensemble().is_some()) {
        let together = |study: &Study| {
            let score = study.ensemble().map(|ensemble| ensemble.test.score());
            Cell::number(score.map_or(NONE.to_owned(), |score| format!("{score:.2}")), score)
        };
        accuracies
            .row(std::iter::once("all asked teachers together".into()).chain(survey.studies.iter().map(together)));
    }
    let mut table = Table::new(header()).caption(format!("Difference to `{}` in points", survey.baseline));
    for name in &survey.methods {
        let cell = |study: &Study| {
            let score = study.method(name).and_then(|method| method.score);
            let text = with_published(spread(score), survey.published.accuracy(study, name));
            Cell::number(text, score.map(|score| score.mean)).marked(place(study, score))
        };
        accuracies.row(std::iter::once(name.into()).chain(survey.studies.iter().map(cell)));
        if *name != survey.baseline {
            let cell = |study: &Study| difference(study.method(name).and_then(|method| method.difference));
            table.row(std::iter::once(name.into()).chain(survey.studies.iter().map(cell)));
        }
    }
    [Block::Table(accuracies), Block::Table(table)]
}

fn with_published(text: String, published: Option<f64>) -> String {
    published.map_or(text.clone(), |published| format!("{text} ({published:.2})"))
}

/// The mean of the differences, coloured where it is further from 0 than they scatter.
pub fn difference(difference: Option<Spread>) -> Cell {
    let mark = difference.and_then(|difference| match difference.deviation {
        Some(deviation) if difference.mean > deviation => Some(Mark::Above),
        Some(deviation) if difference.mean < -deviation => Some(Mark::Below),
        _ => None,
    });
    Cell::number(signed_spread(difference), difference.map(|difference| difference.mean)).marked(mark)
}

/// Whether a mean, as it is shown, is the highest or the second highest of a study with several.
fn place(study: &Study, score: Option<Spread>) -> Option<Mark> {
    let shown = |score: Spread| format!("{:.2}", score.mean);
    let mut means: Vec<Spread> = study.methods.iter().filter_map(|method| method.score).collect();
    if means.len() < 2 {
        return None;
    }
    means.sort_by(|a, b| b.mean.total_cmp(&a.mean));
    let mut shown_means: Vec<String> = means.into_iter().map(shown).collect();
    shown_means.dedup();
    match shown_means.iter().position(|mean| Some(mean) == score.map(shown).as_ref())? {
        0 => Some(Mark::Best),
        1 => Some(Mark::Second),
        _ => None,
    }
}

/// One study in full.
fn detail(survey: &Survey, study: &Study) -> Table {
    let has_published = survey.published.of(study).is_some();
    let best_teacher = study.best_teacher();
    let top5 = (survey.measure == Measure::Top1).then_some("top-5");
    let mut header: Vec<String> =
        ["method", "seeds", survey.measure.short()].into_iter().chain(top5).map(str::to_owned).collect();
    header.extend(has_published.then(|| "published".to_owned()));
    header.extend([format!("to {}", survey.baseline), "common".to_owned()]);
    header.extend(best_teacher.map(|teacher| format!("to teacher {}", teacher.name)));
    let mut table = Table::new(header);
    for method in &study.methods {
        let mark = place(study, method.score);
        let number = |spread: Option<Spread>, text: String| Cell::number(text, spread.map(|spread| spread.mean));
        let mut row: Vec<Cell> = vec![method.name.as_str().into(), seeds(method).into()];
        row.push(number(method.score, spread(method.score)).marked(mark));
        row.extend(top5.map(|_| number(method.top5, spread(method.top5))));
        if has_published {
            let value = survey.published.accuracy(study, &method.name);
            row.push(Cell::number(value.map_or(NONE.to_owned(), |value| format!("{value:.2}")), value));
        }
        row.extend(if method.name == survey.baseline {
            ["baseline".into(), NONE.into()]
        } else {
            let common = method.difference.map_or_else(|| NONE.to_owned(), |difference| difference.count.to_string());
            [difference(method.difference), common.into()]
        });
        if best_teacher.is_some() {
            let value = study.to_teacher(method);
            row.push(Cell::number(value.map_or_else(|| NONE.to_owned(), signed), value));
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
        let leads = survey.studies.iter().filter_map(|study| lead(survey, study));
        notes.push("Bold: the highest mean; italic or underlined: the second.".to_owned());
        notes.extend(leads);
    }
    let mut of_studies: IndexMap<String, Vec<&str>> = IndexMap::new();
    for study in &survey.studies {
        for note in study_notes(survey, study) {
            of_studies.entry(note).or_default().push(&study.label);
        }
    }
    let about = |(text, labels): (String, Vec<&str>)| match survey.single() {
        Some(_) => text,
        None => format!("{}: {text}", labels.join("; ")),
    };
    notes.extend(of_studies.into_iter().map(about));
    (!notes.is_empty()).then_some(Block::List(notes))
}

fn study_notes(survey: &Survey, study: &Study) -> Vec<String> {
    let mut notes = Vec::new();
    let with_result = || study.methods.iter().filter(|method| method.score.is_some());
    if let Some(fewest) = with_result().map(|method| method.results.len()).min()
        && fewest < ENOUGH_SEEDS
        && with_result().count() > 1
    {
        let seeds = if fewest == 1 { "a single seed".to_owned() } else { plural(fewest as u64, "seed") };
        notes.push(format!(
            "With {seeds} the order of the methods is not established; {ENOUGH_SEEDS} or more are needed to say anything about it."
        ));
    }
    if study.methods.iter().any(|method| method.results.len() < method.runs.len()) {
        notes.push("Runs without a result are left out of the means; the report lists them. Means over different seeds are not paired: compare by the differences.".to_owned());
    }
    if study.mean(&survey.baseline).is_none() && with_result().next().is_some() {
        notes.push(format!("The baseline `{}` has no result, so there are no differences to it.", survey.baseline));
    }
    let unlabelled: Vec<String> = with_result()
        .filter(|method| study.experiment.method(&method.name).is_ok_and(|config| config.cross_entropy == 0.0))
        .map(|method| format!("`{}`", method.name))
        .collect();
    if !unlabelled.is_empty() {
        let probes = if study.probes.is_empty() { "a linear probe would say" } else { "the linear probes say" };
        notes.push(format!(
            "Trained without labels: {}. Where no term of such a method teaches the last layer, it is as it was drawn, and this \
             table says nothing of the student's features; {probes} what they are worth.",
            unlabelled.join(", ")
        ));
    }
    if study.teachers.len() > 1
        && let Some(teacher) = study.best_teacher()
    {
        notes.push(format!("The difference to the teacher is to `{}`, the most accurate one.", teacher.name));
    }
    if let Some((source, pair)) = survey.published.of(study) {
        let deviations = source.deviations(pair, study, survey.accuracy);
        let differs = if deviations.is_empty() {
            String::new()
        } else {
            format!(" These runs differ ({}): the two are not comparable.", deviations.join(", "))
        };
        let others = survey.published.others(study);
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(" Not set as the published ones of their names, and so without: {}.", others.join(", "))
        };
        notes.push(format!(
            "Published: table {} of {} ({}).{differs}{others}",
            pair.table, source.source, source.protocol
        ));
    }
    notes
}

/// How far the best method is ahead of the next, and whether that is more than the seeds scatter.
fn lead(survey: &Survey, study: &Study) -> Option<String> {
    let mut ranked: Vec<(&Method, f64)> =
        study.methods.iter().filter_map(|method| Some((method, method.score?.mean))).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let [(first, _), (second, _), ..] = &ranked[..] else { return None };
    let lead = Spread::of(differences(&first.scores(), &second.scores()))?;
    let verdict = match lead.deviation {
        Some(deviation) if lead.mean.abs() <= deviation => ": within the deviation, so their order is not established",
        _ => "",
    };
    let place = if survey.single().is_some() { String::new() } else { format!("{}: ", study.label) };
    Some(format!(
        "{place}The paired difference of `{}` to `{}`, the next, is {} over {}{verdict}.",
        first.name,
        second.name,
        signed_spread(Some(lead)),
        if lead.count == 1 { "one seed".to_owned() } else { format!("{} common seeds", lead.count) },
    ))
}
