//! Tables that read well as Markdown and as plain text, CSV, and numbers for people.

use std::fmt::Write as _;

use super::statistics::Spread;

/// What stands where there is no number.
pub const NONE: &str = "–";

/// A table: the first column to the left, the others to the right unless said otherwise.
#[derive(Debug)]
pub struct Table {
    header: Vec<String>,
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these column titles.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Table { header: header.into_iter().map(Into::into).collect(), left: 1, rows: Vec::new() }
    }

    /// Aligns the first `count` columns to the left.
    #[must_use]
    pub fn left(mut self, count: usize) -> Self {
        self.left = count;
        self
    }

    /// Adds a row, one cell for each column.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells);
    }

    /// A Markdown table whose columns line up. A `|` or a line break within a cell is made harmless.
    pub fn markdown(&self) -> String {
        let clean = |cells: &[String]| -> Vec<String> {
            cells.iter().map(|cell| cell.replace('|', "\\|").replace(['\n', '\r'], " ")).collect()
        };
        let header = clean(&self.header);
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| clean(row)).collect();
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
        for row in std::iter::once(&self.header).chain(&self.rows) {
            for (column, cell) in row.iter().enumerate() {
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
        }
        text
    }
}

/// `61.23 ± 0.45`; without a deviation `61.23`.
pub fn spread(value: Option<Spread>) -> String {
    spread_with(value, |mean| format!("{mean:.2}"))
}

/// `+1.23 ± 0.45`
pub fn signed_spread(value: Option<Spread>) -> String {
    spread_with(value, signed)
}

fn spread_with(value: Option<Spread>, mean: impl Fn(f64) -> String) -> String {
    match value {
        None => NONE.to_owned(),
        Some(Spread { mean: value, deviation: None, .. }) => mean(value),
        Some(Spread { mean: value, deviation: Some(deviation), .. }) => format!("{} ± {deviation:.2}", mean(value)),
    }
}

/// `+1.23`; what rounds to nothing has no sign.
pub fn signed(value: f64) -> String {
    let text = format!("{value:+.2}");
    if text == "+0.00" || text == "-0.00" { "0.00".to_owned() } else { text }
}

/// `7 433 860`
pub fn count(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// `3.2 s`, `4 min 05 s`, `2 h 03 min`
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{:.1} s", seconds.max(0.0)),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => {
            let minutes = (whole + 30) / 60;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

/// `512 MiB`, `3.4 GiB`
pub fn bytes(value: u64) -> String {
    let mebibytes = value as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.1} GiB", mebibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_as_plain_text() {
        let mut table = Table::new(["method", "top-1"]);
        table.row(["kd", "61.23 ± 0.45"]);
        table.row(["a|b", NONE]);
        assert_eq!(
            table.markdown(),
            "| method |        top-1 |\n\
             | ------ | -----------: |\n\
             | kd     | 61.23 ± 0.45 |\n\
             | a\\|b   |            – |\n"
        );
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let mut table = Table::new(["method", "reason"]);
        table.row(["kd", "loss is \"nan\", step 3\nterm kd"]);
        assert_eq!(table.csv(), "method,reason\nkd,\"loss is \"\"nan\"\", step 3\nterm kd\"\n");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(7_433_860), "7 433 860");
        assert_eq!(count(999), "999");
        assert_eq!(count(-1000), "-1 000");
        assert_eq!(duration(3.21), "3.2 s");
        assert_eq!(duration(59.97), "1 min 00 s");
        assert_eq!(duration(245.0), "4 min 05 s");
        assert_eq!(duration(7380.0), "2 h 03 min");
        assert_eq!(duration(7199.9), "2 h 00 min");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(3_650_722_201), "3.4 GiB");
        assert_eq!(signed(-0.001), "0.00");
        assert_eq!(signed(1.234), "+1.23");
        assert_eq!(signed_spread(Some(Spread { count: 2, mean: -1.0, deviation: Some(0.5) })), "-1.00 ± 0.50");
        assert_eq!(spread(Some(Spread { count: 1, mean: 61.234, deviation: None })), "61.23");
    }
}
