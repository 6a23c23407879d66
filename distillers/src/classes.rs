//! Which samples are of which class.

use limbeck::prelude::*;

/// The rows of the training set, sorted by class: a class is an interval.
#[derive(Debug)]
pub struct Classes {
    labels: Vec<usize>,
    rows: Vec<u32>,
    /// Where each class's interval starts; one more at the end.
    starts: Vec<usize>,
}

impl Classes {
    /// Of a training set. `kind` is the name for messages.
    ///
    /// # Errors
    /// If a label is no class.
    pub fn new(kind: &str, site: &Site<'_>) -> Result<Self> {
        let classes = site.classes as usize;
        let mut starts = vec![0; classes + 1];
        for label in site.labels.iter() {
            match usize::try_from(*label) {
                Ok(class) if class < classes => starts[class + 1] += 1,
                _ => return Err(Error::plan(format!("{kind}: a label is {label}, but there are {classes} classes"))),
            }
        }
        for class in 0..classes {
            starts[class + 1] += starts[class];
        }
        let mut rows: Vec<u32> = (0..site.labels.len() as u32).collect();
        rows.sort_by_key(|row| site.labels[*row as usize]);
        let labels = site.labels.iter().map(|label| *label as usize).collect();
        Ok(Classes { labels, rows, starts })
    }

    /// All rows, by class.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The interval of [`rows`](Self::rows) that holds the class of this row.
    pub fn of(&self, row: usize) -> std::ops::Range<usize> {
        let class = self.labels[row];
        self.starts[class]..self.starts[class + 1]
    }

    /// The class with the most samples, and how many it has.
    pub fn largest(&self) -> (usize, usize) {
        let sizes = self.starts.windows(2).map(|ends| ends[1] - ends[0]).enumerate();
        sizes.max_by_key(|(class, size)| (*size, std::cmp::Reverse(*class))).unwrap_or_default()
    }
}
