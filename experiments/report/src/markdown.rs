//! A document as Markdown that reads well as plain text.

use indexmap::IndexMap;

use super::document::{Block, Document, Figure};

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
        Block::Table(table) if table.caption.is_empty() => table.markdown(),
        Block::Table(table) => format!("{}\n{}", wrapped(&format!("{}:", table.caption)), table.markdown()),
        Block::Figures(figures) => self::figures(figures),
    }
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
