//! Means and deviations over seeds.

/// The mean of some numbers and how they scatter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many numbers.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Their sample deviation (n − 1); absent for a single number.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of these numbers; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt());
        Some(Spread { count: values.len(), mean, deviation })
    }

    /// Of the differences `ours − theirs` over the keys (seeds) that both have: paired, because runs of one seed saw the
    /// same batches from the same initial weights.
    pub fn of_differences(ours: &[(u64, f64)], theirs: &[(u64, f64)]) -> Option<Self> {
        Spread::of(
            ours.iter()
                .filter_map(|(seed, our)| theirs.iter().find(|(other, _)| other == seed).map(|(_, their)| our - their)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_deviation() {
        let spread = Spread::of([1.0, 2.0, 4.0, 5.0]).unwrap();
        assert_eq!((spread.count, spread.mean), (4, 3.0));
        // Squares 4 + 1 + 1 + 4 = 10, over n − 1 = 3.
        assert!((spread.deviation.unwrap() - (10.0f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(Spread::of([7.0]), Some(Spread { count: 1, mean: 7.0, deviation: None }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn differences_are_taken_seed_by_seed() {
        let ours = [(0, 10.0), (1, 20.0), (2, 99.0)];
        let theirs = [(1, 17.0), (0, 9.0), (7, 1.0)];
        let spread = Spread::of_differences(&ours, &theirs).unwrap();
        assert_eq!((spread.count, spread.mean, spread.deviation), (2, 2.0, Some(2.0f64.sqrt())));
        assert_eq!(Spread::of_differences(&ours, &[]), None);
    }
}
