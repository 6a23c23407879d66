//! Tables: one type, written as Markdown, CSV, HTML and LaTeX.

use std::fmt::Write as _;

/// What stands where there is no number.
pub const NONE: &str = "–";

/// A cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    /// What it is sorted by, where that is not its text.
    pub value: Option<f64>,
    pub mark: Option<Mark>,
}

/// What makes a cell stand out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// The highest of its column.
    Best,
    /// The second highest.
    Second,
    /// Above the baseline.
    Above,
    /// Below it.
    Below,
}

impl Cell {
    /// A number as people read it.
    pub fn number(text: impl Into<String>, value: Option<f64>) -> Self {
        Cell { text: text.into(), value, mark: None }
    }

    /// With a mark.
    #[must_use]
    pub fn marked(self, mark: Option<Mark>) -> Self {
        Cell { mark, ..self }
    }
}

impl<S: Into<String>> From<S> for Cell {
    fn from(text: S) -> Self {
        Cell { text: text.into(), value: None, mark: None }
    }
}

/// A table: the first column to the left, the others to the right unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Said above it where it stands among others.
    pub caption: String,
    pub header: Vec<String>,
    /// How many columns are text, aligned to the left.
    pub left: usize,
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// With these column titles.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        let header = header.into_iter().map(Into::into).collect();
        Table { caption: String::new(), header, left: 1, rows: Vec::new() }
    }

    /// Aligns the first `count` columns to the left.
    #[must_use]
    pub fn left(self, count: usize) -> Self {
        Table { left: count, ..self }
    }

    /// Says what it shows.
    #[must_use]
    pub fn caption(self, caption: impl Into<String>) -> Self {
        Table { caption: caption.into(), ..self }
    }

    /// Adds a row, one cell for each column.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cells: Vec<Cell> = cells.into_iter().map(Into::into).collect();
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// A Markdown table whose columns line up. A `|` or a line break within a cell is made harmless.
    pub fn markdown(&self) -> String {
        let clean = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ");
        let header: Vec<String> = self.header.iter().map(|title| clean(title)).collect();
        let cell = |cell: &Cell| match cell.mark {
            Some(Mark::Best) => format!("**{}**", clean(&cell.text)),
            Some(Mark::Second) => format!("_{}_", clean(&cell.text)),
            _ => clean(&cell.text),
        };
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        let width = |column: usize| {
            let cells = std::iter::once(&header).chain(&rows);
            cells.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let mut text = String::new();
        let mut line = |cells: &[String]| {
            for (column, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = if column < self.left { ("", &padding[..]) } else { (&padding[..], "") };
                text.push_str(if column == 0 { "| " } else { " | " });
                text.push_str(before);
                text.push_str(cell);
                text.push_str(after);
            }
            text.push_str(" |\n");
        };
        line(&header);
        let rule = |(column, width): (usize, &usize)| {
            if column < self.left { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) }
        };
        line(&widths.iter().enumerate().map(rule).collect::<Vec<String>>());
        rows.iter().for_each(|row| line(row));
        text
    }

    /// The same as CSV (RFC 4180): a cell with a comma, a quotation mark or a line break is quoted.
    pub fn csv(&self) -> String {
        let mut text = String::new();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            for (column, cell) in cells.enumerate() {
                if column > 0 {
                    text.push(',');
                }
                if cell.contains([',', '"', '\n', '\r']) {
                    let _ = write!(text, "\"{}\"", cell.replace('"', "\"\""));
                } else {
                    text.push_str(cell);
                }
            }
            text.push('\n');
        };
        line(&mut self.header.iter().map(String::as_str));
        self.rows.iter().for_each(|row| line(&mut row.iter().map(|cell| cell.text.as_str())));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_as_plain_text() {
        let mut table = Table::new(["method", "top-1"]);
        table.row([Cell::from("kd"), Cell::from("61.23 ± 0.45").marked(Some(Mark::Best))]);
        table.row(["a|b", NONE]);
        assert_eq!(
            table.markdown(),
            "| method |            top-1 |\n\
             | ------ | ---------------: |\n\
             | kd     | **61.23 ± 0.45** |\n\
             | a\\|b   |                – |\n"
        );
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let mut table = Table::new(["method", "reason"]);
        table.row(["kd", "loss is \"nan\", step 3\nterm kd"]);
        assert_eq!(table.csv(), "method,reason\nkd,\"loss is \"\"nan\"\", step 3\nterm kd\"\n");
    }
}
