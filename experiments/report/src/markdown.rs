//! A document as Markdown that reads well as plain text.

use indexmap::IndexMap;

use crate::document::{Block, Document, Figure};
use crate::table::{Cell, Mark, Table};

/// Lines of text are broken here.
const WIDTH: usize = 120;

/// The document. Of pictures it names what they show and the file of their numbers.
pub fn write(document: &Document) -> String {
    let mut text = format!("# {}\n", document.title);
    for section in &document.sections {
        text += &format!("\n## {}\n", section.title);
        for block in section.blocks.iter().map(self::block).filter(|block| !block.is_empty()) {
            text += &format!("\n{block}");
        }
    }
    text
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(title) => format!("### {title}\n"),
        Block::Text(text) => wrapped(text),
        Block::List(items) => items.iter().map(|item| format!("- {item}\n")).collect(),
        Block::Table(table) if table.caption.is_empty() => self::table(table),
        Block::Table(table) => format!("{}\n{}", wrapped(&format!("{}:", table.caption)), self::table(table)),
        Block::Figures(figures) => self::figures(figures),
    }
}

/// A table whose columns line up.
fn table(table: &Table) -> String {
    let header: Vec<String> = table.header.iter().map(|title| harmless(title)).collect();
    let rows: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    let mut widths = vec![3; header.len()];
    for row in std::iter::once(&header).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut rule = Vec::new();
    for (column, width) in widths.iter().enumerate() {
        rule.push(if column < table.left { "-".repeat(*width) } else { format!("{}:", "-".repeat(width - 1)) });
    }
    let mut text = String::new();
    for row in [&header, &rule].into_iter().chain(&rows) {
        text += &line(row, &widths, table.left);
    }
    text
}

/// A line of a table; its first `left` cells are aligned to the left.
fn line(cells: &[String], widths: &[usize], left: usize) -> String {
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        line += if column == 0 { "| " } else { " | " };
        line += &if column < left { format!("{cell}{padding}") } else { format!("{padding}{cell}") };
    }
    line + " |\n"
}

fn cell(cell: &Cell) -> String {
    let text = harmless(&cell.text);
    match cell.mark {
        Some(Mark::Best) => format!("**{text}**"),
        Some(Mark::Second) => format!("_{text}_"),
        Some(Mark::Above | Mark::Below) | None => text,
    }
}

/// Without what would end a cell or a row.
fn harmless(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// What is drawn on the page, by the file of its numbers.
fn figures(figures: &[Figure]) -> String {
    let mut files: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for figure in figures {
        if let Some(file) = figure.numbers {
            files.entry(file).or_default().push(&figure.caption);
        }
    }
    files.iter().map(|(file, captions)| wrapped(&format!("Drawn from {file}: {}.", captions.join("; ")))).collect()
}

fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            lines.push('\n');
            width = 0;
        } else if width > 0 {
            lines.push(' ');
            width += 1;
        }
        lines.push_str(word);
        width += length;
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::NONE;

    #[test]
    fn a_table_lines_up_as_plain_text() {
        let mut table = Table::new(["method", "top-1"]);
        table.row([Cell::from("kd"), Cell::from("61.23 ± 0.45").marked(Some(Mark::Best))]);
        table.row(["a|b", NONE]);
        assert_eq!(
            self::table(&table),
            "| method |            top-1 |\n\
             | ------ | ---------------: |\n\
             | kd     | **61.23 ± 0.45** |\n\
             | a\\|b   |                – |\n"
        );
    }
}
