//! The runs that have no result, and why.

use crate::document::Block;
use crate::survey::Survey;
use crate::table::{Cell, Table};

/// A table, if there are any.
pub fn blocks(survey: &Survey) -> Vec<Block> {
    let mut header: Vec<&str> = survey.study_column().into_iter().collect();
    header.extend(["method", "seed", "status", "reason"]);
    let mut table = Table::new(header).left(5);
    for study in &survey.studies {
        for run in study.runs().filter(|run| !run.reason.is_empty()) {
            let mut row: Vec<Cell> = survey.study_cell(study).into_iter().collect();
            row.extend([run.cell.method.as_str().into(), run.cell.seed.to_string().into()]);
            row.extend([run.status.into(), run.reason.as_str().into()]);
            table.row(row);
        }
    }
    if table.rows.is_empty() { Vec::new() } else { vec![Block::Table(table)] }
}
