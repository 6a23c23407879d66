//! A report before it is written as HTML, Markdown or LaTeX. Text has `code` between backquotes and nothing else.

use crate::table::Table;

/// A report.
#[derive(Debug)]
pub struct Document {
    pub title: String,
    pub sections: Vec<Section>,
}

/// A part with a heading.
#[derive(Debug)]
pub struct Section {
    pub title: &'static str,
    pub blocks: Vec<Block>,
}

/// What a section is made of.
#[derive(Debug)]
pub enum Block {
    /// A heading within the section.
    Heading(String),
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// Pictures that belong together.
    Figures(Vec<Figure>),
}

/// A picture.
#[derive(Debug)]
pub struct Figure {
    pub caption: String,
    /// An `svg` element, with a title for those who do not see it.
    pub svg: String,
    /// What the colours of its lines mean; their places in it are their numbers.
    pub legend: Vec<String>,
    /// The CSV file with its numbers, if that is written.
    pub numbers: Option<&'static str>,
}

impl Section {
    /// Nothing, unless it has content.
    pub fn new(title: &'static str, blocks: Vec<Block>) -> Option<Self> {
        (!blocks.is_empty()).then_some(Section { title, blocks })
    }

    /// What a block stands under.
    pub fn heading(&self, at: usize) -> &str {
        let mut before = self.blocks[..at].iter().rev();
        before
            .find_map(|block| if let Block::Heading(title) = block { Some(title.as_str()) } else { None })
            .unwrap_or(self.title)
    }
}

impl From<&str> for Block {
    fn from(text: &str) -> Self {
        Block::Text(text.to_owned())
    }
}
