//! A document as one HTML page that needs no other file: style, script and pictures are within it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::chart;
use crate::document::{Block, Document, Figure, Section};
use crate::table::{Cell, Mark, Table};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn write(document: &Document) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (document.title) " – Limbeck" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#content" { "To the content" }
                header {
                    h1 { (document.title) }
                    nav aria-label="Sections" {
                        ul {
                            @for section in &document.sections {
                                li { a href={ "#" (anchor(section)) } { (section.title) } }
                            }
                        }
                    }
                }
                main id="content" {
                    @for section in &document.sections {
                        section aria-labelledby=(anchor(section)) {
                            h2 id=(anchor(section)) { (section.title) }
                            @for (at, block) in section.blocks.iter().enumerate() {
                                (self::block(block, section.heading(at)))
                            }
                        }
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string() + "\n"
}

fn anchor(section: &Section) -> String {
    section.title.to_lowercase().replace(' ', "-")
}

fn block(block: &Block, heading: &str) -> Markup {
    match block {
        Block::Heading(title) => html! { h3 { (title) } },
        Block::Text(words) => html! { p { (text(words)) } },
        Block::List(items) => html! { ul { @for item in items { li { (text(item)) } } } },
        Block::Table(table) => self::table(table, heading),
        Block::Figures(figures) => html! { div.figures { @for figure in figures { (self::figure(figure)) } } },
    }
}

/// Text with `code` between backquotes.
fn text(words: &str) -> Markup {
    html! {
        @for (at, part) in words.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn table(table: &Table, heading: &str) -> Markup {
    let own = !table.caption.is_empty();
    let name = if own { &table.caption } else { heading };
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table {
                caption class=[(!own).then_some("hidden")] { (text(name)) }
                thead {
                    tr {
                        @for (at, title) in table.header.iter().enumerate() {
                            th scope="col" class=[(at >= table.left).then_some("number")] { (title) }
                        }
                    }
                }
                tbody {
                    @for row in &table.rows {
                        tr { @for (at, cell) in row.iter().enumerate() { (self::cell(cell, at, table.left)) } }
                    }
                }
            }
        }
    }
}

fn cell(cell: &Cell, column: usize, left: usize) -> Markup {
    let mark = cell.mark.map(|mark| match mark {
        Mark::Best => "best",
        Mark::Second => "second",
        Mark::Above => "above",
        Mark::Below => "below",
    });
    let class: Vec<&str> = (column >= left).then_some("number").into_iter().chain(mark).collect();
    let class = (!class.is_empty()).then(|| class.join(" "));
    let value = cell.value.map(|value| value.to_string());
    html! {
        @if column == 0 {
            th scope="row" class=[class] data-value=[value] { (cell.text) }
        } @else {
            td class=[class] data-value=[value] { (cell.text) }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption {
                (figure.caption)
                @if let Some(file) = figure.numbers { " " a.numbers href=(file) { (file) } }
            }
            (PreEscaped(&figure.svg))
            @if !figure.legend.is_empty() {
                ul.legend {
                    @for (index, name) in figure.legend.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                        li {
                            svg class=(chart::class(index)) viewBox="0 0 24 8" aria-hidden="true" { path.line d="M0 4h24" {} }
                            (name)
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_of_the_page() {
        let mut table = Table::new(["method"]);
        table.row(["</td><script>alert(1)</script>"]);
        let section = Section::new("Comparison", vec!["`<b>` & more".into(), Block::Table(table)]);
        let page = write(&Document { title: "<i>".to_owned(), sections: section.into_iter().collect() });
        assert!(page.contains("<code>&lt;b&gt;</code> &amp; more"), "{page}");
        assert!(page.contains("&lt;/td&gt;&lt;script&gt;") && !page.contains("<script>alert"), "{page}");
        assert!(page.contains("<h1>&lt;i&gt;</h1>"), "{page}");
    }

    #[test]
    fn the_page_needs_no_other_file() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        assert!(!SCRIPT.contains("fetch") && !SCRIPT.contains("import"));
    }
}
