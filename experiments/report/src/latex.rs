//! The tables of a document as LaTeX, with the packages `booktabs` and `xcolor`.

use crate::document::{Block, Document};
use crate::table::{Cell, Mark, Table};

/// Every table, each within `tabular`, to be put into a `table` of one's own.
pub fn write(document: &Document) -> String {
    let mut text = String::from("% \\usepackage{booktabs,xcolor}\n");
    for section in &document.sections {
        for (at, block) in section.blocks.iter().enumerate() {
            if let Block::Table(table) = block {
                let name = if table.caption.is_empty() { section.heading(at) } else { &table.caption };
                text += &format!("\n% {name}\n{}", self::table(table));
            }
        }
    }
    text
}

fn table(table: &Table) -> String {
    let columns: String = (0..table.header.len()).map(|column| if column < table.left { 'l' } else { 'r' }).collect();
    let header = row(table.header.iter().map(|title| escape(title)).collect());
    let rows: String = table.rows.iter().map(|cells| row(cells.iter().map(cell).collect())).collect();
    format!("\\begin{{tabular}}{{{columns}}}\n\\toprule\n{header}\\midrule\n{rows}\\bottomrule\n\\end{{tabular}}\n")
}

fn row(cells: Vec<String>) -> String {
    format!("{} \\\\\n", cells.join(" & "))
}

fn cell(cell: &Cell) -> String {
    let text = escape(&cell.text);
    match cell.mark {
        None => text,
        Some(Mark::Best) => format!("\\textbf{{{text}}}"),
        Some(Mark::Second) => format!("\\underline{{{text}}}"),
        Some(Mark::Above) => format!("\\textcolor{{green!45!black}}{{{text}}}"),
        Some(Mark::Below) => format!("\\textcolor{{red!70!black}}{{{text}}}"),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => escaped.extend(['\\', character]),
            '\\' => escaped += "\\textbackslash{}",
            '~' => escaped += "\\textasciitilde{}",
            '^' => escaped += "\\textasciicircum{}",
            // A minus sign, not a hyphen.
            '-' if escaped.is_empty() || escaped.ends_with(' ') => escaped += "$-$",
            '<' => escaped += "$<$",
            '>' => escaped += "$>$",
            '±' => escaped += "$\\pm$",
            '→' => escaped += "$\\to$",
            '…' => escaped += "\\dots{}",
            '–' => escaped += "--",
            '\n' | '\r' => escaped.push(' '),
            '`' => {}
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table() {
        let mut table = Table::new(["method", "top-1 %"]);
        table.row([Cell::from("crd_kd & more"), Cell::from("61.00 ± 0.10").marked(Some(Mark::Best))]);
        let expected = "\\begin{tabular}{lr}\n\\toprule\nmethod & top-1 \\% \\\\\n\\midrule\n\
                        crd\\_kd \\& more & \\textbf{61.00 $\\pm$ 0.10} \\\\\n\\bottomrule\n\\end{tabular}\n";
        assert_eq!(super::table(&table), expected);
        assert_eq!(escape("-1.5 … -0.2, k-means"), "$-$1.5 \\dots{} $-$0.2, k-means");
        assert_eq!(
            escape("a\\b ~ ^ {x} $1 < 2 → …"),
            "a\\textbackslash{}b \\textasciitilde{} \\textasciicircum{} \\{x\\} \\$1 $<$ 2 $\\to$ \\dots{}"
        );
    }
}
