//! Tables, before they are written as HTML, Markdown or LaTeX.

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

    /// A number as `text` has it; [`NONE`] where there is none.
    pub fn maybe(value: Option<f64>, text: impl Fn(f64) -> String) -> Self {
        Cell::number(value.map_or_else(|| NONE.to_owned(), text), value)
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
}
