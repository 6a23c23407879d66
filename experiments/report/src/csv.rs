//! The CSV files of a report: numbers in full precision, and empty cells where there is no number.
//!
//! Each file is of the section that shows its numbers. A row is a struct, and the names of its fields are the header;
//! columns whose names are known only from the runs are [`Columns`] within it.

use ::csv::Writer;
use indexmap::IndexMap;
use limbeck::error::{Error, Result};
use limbeck::task::{Metrics, Task};
use serde::Serialize;
use serde_json::Value;

use crate::statistics::Spread;
use crate::survey::Survey;

/// A CSV file of a report. Its first column is the experiment's name where a row is of one experiment, and the sweep's where
/// it is of a sweep.
#[derive(Clone, Copy)]
pub struct CsvFile {
    /// Its name in the report's folder.
    pub name: &'static str,
    /// What is in it.
    pub about: fn(&Survey) -> String,
    /// Its text; absent where it has no row.
    pub text: fn(&Survey) -> Result<Option<String>>,
}

impl CsvFile {
    /// The name, for a picture that shows its numbers; absent where no CSV files are written.
    pub fn name_if_written(&self, survey: &Survey) -> Option<&'static str> {
        survey.csv.then_some(self.name)
    }
}

/// Columns of numbers under names that are no fields.
pub type Columns = IndexMap<String, Option<f64>>;

/// The columns `NAME_mean` and `NAME_deviation`.
pub fn spread(name: &str, spread: Option<Spread>) -> [(String, Option<f64>); 2] {
    [
        (format!("{name}_mean"), spread.map(|spread| spread.mean)),
        (format!("{name}_deviation"), spread.and_then(|spread| spread.deviation)),
    ]
}

/// The metrics of a task under their own names, behind a prefix.
pub fn metrics(task: &dyn Task, prefix: &str, metrics: Option<Metrics>) -> Columns {
    let mut columns: Columns = task.metrics().map(|metric| (format!("{prefix}_{}", metric.key), None)).collect();
    for (metric, value) in metrics.iter().flat_map(Metrics::named) {
        columns.insert(format!("{prefix}_{}", metric.key), Some(value));
    }
    columns
}

/// A file with these rows (RFC 4180): the header is the names of their fields. Absent where there is no row.
///
/// # Errors
/// If a row is no struct, or has not as many columns as the first.
pub fn text<R: Serialize>(rows: Vec<R>) -> Result<Option<String>> {
    if rows.is_empty() {
        return Ok(None);
    }
    let mut writer = Writer::from_writer(Vec::new());
    for (at, row) in rows.into_iter().enumerate() {
        let cells = match serde_json::to_value(row) {
            Ok(Value::Object(cells)) => cells,
            Ok(other) => return Err(Error::run(format!("a row of a CSV file is no struct: {other}"))),
            Err(error) => return Err(Error::run(format!("a row of a CSV file: {error}"))),
        };
        if at == 0 {
            writer
                .write_record(cells.keys())
                .map_err(|error| Error::run(format!("the header of a CSV file: {error}")))?;
        }
        writer
            .write_record(cells.values().map(cell))
            .map_err(|error| Error::run(format!("a row of a CSV file: {error}")))?;
    }
    let bytes = writer.into_inner().map_err(|error| Error::run(format!("a CSV file: {error}")))?;
    String::from_utf8(bytes).map(Some).map_err(|error| Error::run(format!("a CSV file: {error}")))
}

/// A value as it stands in a cell. A number has the fewest digits that give it back, and no `.0`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, |number| number.to_string())
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        method: &'static str,
        seeds: usize,
        #[serde(flatten)]
        scores: Columns,
        reason: Option<&'static str>,
    }

    fn row(method: &'static str, score: Option<f64>, reason: Option<&'static str>) -> Row {
        let deviation = score.map(|_| 0.75f64.sqrt());
        let score = score.map(|mean| Spread { count: 3, mean, deviation });
        Row { method, seeds: 3, scores: spread("top1", score).into_iter().collect(), reason }
    }

    #[test]
    fn the_header_is_the_fields_and_numbers_are_in_full() {
        let rows = vec![row("kd", Some(61.0), None), row("crd", Some(1e-7), None), row("none", None, None)];
        let expected = "method,seeds,top1_mean,top1_deviation,reason\n\
                        kd,3,61,0.8660254037844386,\n\
                        crd,3,0.0000001,0.8660254037844386,\n\
                        none,3,,,\n";
        assert_eq!(text(rows).unwrap().unwrap(), expected);
        assert_eq!(text(Vec::<Row>::new()).unwrap(), None);
    }

    #[test]
    fn what_needs_it_is_quoted() {
        let rows = vec![row("kd", None, Some("loss is \"nan\", step 3\nterm kd"))];
        assert!(text(rows).unwrap().unwrap().ends_with("kd,3,,,\"loss is \"\"nan\"\", step 3\nterm kd\"\n"));
    }

    #[test]
    fn every_row_has_the_same_columns() {
        let mut rows = vec![row("kd", None, None), row("crd", None, None)];
        rows[1].scores.clear();
        assert!(text(rows).unwrap_err().to_string().contains("a row of a CSV file"));
    }
}
