//! The sections of a report, each a module that turns a survey into blocks and CSV files.

mod ablations;
mod classes;
mod comparison;
mod cost;
mod curves;
pub mod evidence;
mod likeness;
mod mutual_information;
mod probes;
mod setting;
mod without_result;

use limbeck::error::Result;

use crate::csv::CsvFile;
use crate::document::{Block, Document, Section};
use crate::survey::Survey;

/// The CSV files, in the order in which a report lists them.
const FILES: [CsvFile; 13] = [
    comparison::METHODS,
    comparison::TEACHERS,
    ablations::FILE,
    cost::FILE,
    curves::FILE,
    evidence::DIFFERENCES,
    evidence::RANKS,
    evidence::RELATIVE,
    likeness::SIMILARITY,
    likeness::ALIGNMENT,
    likeness::CORRELATIONS,
    classes::FILE,
    probes::FILE,
];

/// The whole report; `files` are those that [`files`] gave.
pub fn document(survey: &Survey, files: &[(CsvFile, Option<String>)]) -> Document {
    let sections = [
        Section::new("What was compared", setting::blocks(survey)),
        Section::new("Comparison", comparison::blocks(survey)),
        Section::new("Ablations", ablations::blocks(survey)),
        Section::new("What can be said", evidence::blocks(survey)),
        Section::new("Linear probes", probes::blocks(survey)),
        Section::new("What the students took from the teacher", likeness::blocks(survey)),
        Section::new("Cost", cost::blocks(survey)),
        Section::new("Curves", curves::blocks(survey)),
        Section::new("Classes", classes::blocks(survey)),
        Section::new("Runs without a result", without_result::blocks(survey)),
        Section::new("Files", list(survey, files)),
    ];
    Document { title: survey.title(), sections: sections.into_iter().flatten().collect() }
}

/// The comparison, and the probes where there are any: short enough to be pasted.
pub fn summary(survey: &Survey) -> Document {
    let sections = [
        Section::new("Comparison", comparison::summary(survey)),
        Section::new("Linear probes", probes::blocks(survey)),
    ];
    Document { title: survey.title(), sections: sections.into_iter().flatten().collect() }
}

/// The CSV files with their texts, absent where there is no row; none of them if they are not written.
///
/// # Errors
/// If a file cannot be made.
pub fn files(survey: &Survey) -> Result<Vec<(CsvFile, Option<String>)>> {
    let mut files = Vec::new();
    for file in FILES.iter().filter(|_| survey.csv) {
        files.push((*file, (file.text)(survey)?));
    }
    Ok(files)
}

/// What is in the files that are written.
fn list(survey: &Survey, files: &[(CsvFile, Option<String>)]) -> Vec<Block> {
    if files.is_empty() {
        return Vec::new();
    }
    let written = files.iter().filter(|(_, text)| text.is_some());
    let items = written.map(|(file, _)| format!("{}: {}", file.name, (file.about)(survey)));
    vec!["In full precision:".into(), Block::List(items.collect())]
}
