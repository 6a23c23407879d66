//! What may be said of a few numbers: means over seeds, tests, corrections, ranks. Values are checked against SciPy.

pub mod distribution;

use std::cmp::Ordering;

use limbeck::task::Better;

use distribution::{chi_squared_tail, student_quantile, student_two_sided, studentized_range_quantile};

/// The level of every test and, as 1 − level, of every interval.
pub const LEVEL: f64 = 0.05;

/// With fewer seeds than this, the order of methods is not established, and the report says so.
pub const ENOUGH_SEEDS: usize = 3;

/// With fewer pairs than this, nothing is claimed of the methods' ranks.
pub const ENOUGH_PAIRS: usize = 5;

/// More paired differences than this are not enumerated: 2^20 sign changes take a moment, and so many seeds nobody has.
const MOST_FLIPPED: usize = 20;

/// Accuracies in percent that are not further apart than this differ by rounding alone.
pub const ROUNDING: f64 = 1e-9;

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

    /// The deviation of the mean, where the numbers scatter at all.
    fn standard_error(&self) -> Option<f64> {
        self.deviation.filter(|deviation| *deviation > ROUNDING).map(|deviation| deviation / (self.count as f64).sqrt())
    }

    /// The half width of the 95 % t interval of the mean; absent where the numbers do not scatter.
    pub fn half_width(&self) -> Option<f64> {
        let error = self.standard_error()?;
        Some(student_quantile(1.0 - LEVEL / 2.0, (self.count - 1) as f64) * error)
    }

    /// The two-sided p-value of the t test that the mean is 0 (of paired differences: the paired t test); absent where the
    /// numbers do not scatter.
    pub fn t_test(&self) -> Option<f64> {
        self.standard_error().map(|error| student_two_sided(self.mean / error, (self.count - 1) as f64))
    }
}

/// A difference of two scores, positive where the first is the better one.
pub fn gain(difference: f64, better: Better) -> f64 {
    match better {
        Better::Higher => difference,
        Better::Lower => -difference,
    }
}

/// The order of two scores, the better one first.
pub fn best_first(one: f64, other: f64, better: Better) -> Ordering {
    gain(other, better).total_cmp(&gain(one, better))
}

/// The differences `ours − theirs` over the keys (seeds) that both have: paired, because runs of one seed saw the same
/// batches from the same initial weights.
pub fn differences(ours: &[(u64, f64)], theirs: &[(u64, f64)]) -> Vec<f64> {
    let mut differences = Vec::new();
    for (seed, our) in ours {
        if let Some((_, their)) = theirs.iter().find(|(other, _)| other == seed) {
            differences.push(our - their);
        }
    }
    differences
}

/// The two-sided p-value of the exact sign-flip test that paired differences are symmetric about 0: the share of all 2^n
/// choices of signs whose sum is at least as far from 0. It supposes nothing about their distribution and cannot be smaller
/// than 2/2^n. Absent for no differences and for more than 20.
pub fn sign_flip_test(differences: &[f64]) -> Option<f64> {
    if differences.is_empty() || differences.len() > MOST_FLIPPED {
        return None;
    }
    let observed = differences.iter().sum::<f64>().abs();
    // Sums that are equal in exact arithmetic may differ in the last digits.
    let bound = observed - 1e-9 * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let choices = 1u32 << differences.len();
    let extreme = (0..choices).filter(|signs| with_signs(differences, *signs).abs() >= bound).count();
    Some(extreme as f64 / f64::from(choices))
}

/// The sum of some numbers, those negated whose bit is set.
fn with_signs(values: &[f64], signs: u32) -> f64 {
    values.iter().enumerate().map(|(at, value)| if signs >> at & 1 == 1 { -value } else { *value }).sum()
}

/// Holm's correction: p-values for the claim that none of many is significant by chance alone, in the order given.
pub fn holm(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut adjusted = vec![0.0; values.len()];
    let mut largest = 0.0f64;
    for (place, &at) in order.iter().enumerate() {
        largest = largest.max(values[at] * (values.len() - place) as f64).min(1.0);
        adjusted[at] = largest;
    }
    adjusted
}

/// The ranks of some scores, 1 for the highest; equal ones share the mean of their places.
pub fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut ranks = Vec::new();
    for score in scores {
        let above = scores.iter().filter(|other| *other - score > ROUNDING).count();
        let equal = scores.iter().filter(|other| (*other - score).abs() <= ROUNDING).count();
        ranks.push(above as f64 + (equal as f64 + 1.0) / 2.0);
    }
    ranks
}

/// Several methods on several pairs, by rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranking {
    /// How many pairs.
    pub pairs: usize,
    /// The mean rank of each method.
    pub mean_ranks: Vec<f64>,
    /// Friedman's statistic, corrected for ties, and its p-value by χ² with k − 1 degrees of freedom; absent where every
    /// pair ranks all methods equal.
    pub friedman: Option<(f64, f64)>,
    /// Nemenyi's critical difference of mean ranks.
    pub critical_difference: f64,
}

impl Ranking {
    /// Of `scores[pair][method]`; `None` for fewer than two pairs or three methods.
    pub fn of(scores: &[Vec<f64>]) -> Option<Self> {
        let (n, k) = (scores.len(), scores.first()?.len());
        if n < 2 || k < 3 {
            return None;
        }
        let by_pair: Vec<Vec<f64>> = scores.iter().map(|scores| ranks(scores)).collect();
        let sums: Vec<f64> = (0..k).map(|method| by_pair.iter().map(|ranks| ranks[method]).sum()).collect();
        let (pairs, methods) = (n as f64, k as f64);
        let middle = pairs * (methods + 1.0) / 2.0;
        // The second moment of the ranks themselves has the correction for ties in it.
        let between: f64 = sums.iter().map(|sum| (sum - middle).powi(2)).sum();
        let within: f64 = by_pair.iter().flatten().map(|rank| (rank - (methods + 1.0) / 2.0).powi(2)).sum();
        let statistic = (methods - 1.0) * between / within;
        Some(Ranking {
            pairs: n,
            mean_ranks: sums.iter().map(|sum| sum / pairs).collect(),
            friedman: (within > 0.0).then(|| (statistic, chi_squared_tail(statistic, methods - 1.0))),
            critical_difference: studentized_range_quantile(1.0 - LEVEL, k) / 2f64.sqrt()
                * (methods * (methods + 1.0) / (6.0 * pairs)).sqrt(),
        })
    }
}

/// The middle of some numbers; `None` if there are none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let high = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { high } else { (sorted[middle - 1] + high) / 2.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    /// Two made-up samples, paired; the reference numbers are those of SciPy 1.17.1.
    const OURS: [f64; 5] = [71.12, 70.85, 71.61, 70.97, 71.33];
    const THEIRS: [f64; 5] = [70.66, 70.91, 70.42, 70.12, 70.8];

    fn paired(count: usize) -> Vec<f64> {
        let [ours, theirs] = [OURS, THEIRS].map(|values| (0..).zip(values).take(count).collect::<Vec<(u64, f64)>>());
        differences(&ours, &theirs)
    }

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
    fn the_better_score_comes_first() {
        let mut scores = [2.0, 3.0, 1.0];
        scores.sort_by(|a, b| best_first(*a, *b, Better::Higher));
        assert_eq!(scores, [3.0, 2.0, 1.0]);
        scores.sort_by(|a, b| best_first(*a, *b, Better::Lower));
        assert_eq!(scores, [1.0, 2.0, 3.0]);
        assert_eq!([gain(0.5, Better::Higher), gain(0.5, Better::Lower)], [0.5, -0.5]);
    }

    #[test]
    fn differences_are_taken_seed_by_seed() {
        let ours = [(0, 10.0), (1, 20.0), (2, 99.0)];
        let theirs = [(1, 17.0), (0, 9.0), (7, 1.0)];
        assert_eq!(differences(&ours, &theirs), [1.0, 3.0]);
        assert!(differences(&ours, &[]).is_empty());
    }

    #[test]
    fn paired_t_test_and_interval() {
        // scipy.stats.ttest_rel and its confidence_interval(0.95).
        let five = Spread::of(paired(5)).unwrap();
        assert_relative_eq!(five.t_test().unwrap(), 0.04652917907678789, max_relative = 1e-9);
        let half = five.half_width().unwrap();
        assert_relative_eq!(five.mean - half, 0.01475343100052351, max_relative = 1e-9);
        assert_relative_eq!(five.mean + half, 1.173246568999476, max_relative = 1e-9);
        let three = Spread::of(paired(3)).unwrap();
        assert_relative_eq!(three.t_test().unwrap(), 0.28126370119322475, max_relative = 1e-9);
        assert_relative_eq!(three.mean - three.half_width().unwrap(), -1.0298723375333314, max_relative = 1e-9);
        let one = Spread::of(paired(1)).unwrap();
        assert_eq!((one.t_test(), one.half_width()), (None, None));
        // Without scatter there is nothing to test against; rounding is no scatter.
        for same in [[0.5, 0.5, 0.5], [70.6 - 69.0, 70.7 - 69.1, 70.8 - 69.2]] {
            let spread = Spread::of(same).unwrap();
            assert_eq!((spread.t_test(), spread.half_width()), (None, None), "{spread:?}");
        }
    }

    #[test]
    fn exact_sign_flips() {
        // scipy.stats.permutation_test(…, permutation_type="samples", n_resamples=inf).
        assert_eq!(sign_flip_test(&paired(5)), Some(0.125));
        assert_eq!(sign_flip_test(&paired(3)), Some(0.5));
        // All of one sign: only the choice itself and its opposite are as extreme. Equal sums count as equal.
        assert_eq!(sign_flip_test(&[0.1, 0.2, 0.3]), Some(0.25));
        assert_eq!(sign_flip_test(&[0.3, 0.1, -0.2, 0.2]), Some(0.5));
        assert_eq!(sign_flip_test(&[0.0, 0.0]), Some(1.0));
        assert_eq!((sign_flip_test(&[]), sign_flip_test(&[1.0; 21])), (None, None));
    }

    #[test]
    fn holm_steps_down() {
        // statsmodels 0.14, multipletests(method="holm").
        let adjusted = holm(&[0.01, 0.04, 0.03, 0.005, 0.2, 0.03]);
        let expected = [0.05, 0.12, 0.12, 0.03, 0.2, 0.12];
        adjusted
            .iter()
            .zip(expected)
            .for_each(|(ours, theirs)| assert_relative_eq!(*ours, theirs, max_relative = 1e-12));
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    /// KD, FitNet, AT and CRD on the first six pairs of the CRD paper's Table 1.
    fn published() -> Vec<Vec<f64>> {
        [
            [74.92, 73.58, 74.08, 75.48],
            [73.54, 72.24, 72.77, 74.14],
            [70.66, 69.21, 70.55, 71.16],
            [70.67, 68.99, 70.22, 71.46],
            [73.08, 71.06, 72.31, 73.48],
            [73.33, 73.50, 73.44, 75.51],
        ]
        .map(Vec::from)
        .into()
    }

    #[test]
    fn friedman_and_nemenyi() {
        // scipy.stats.friedmanchisquare; the critical difference with the table of Demšar (2006): 2.569 for four methods.
        let ranking = Ranking::of(&published()).unwrap();
        let (statistic, p) = ranking.friedman.unwrap();
        assert_relative_eq!(statistic, 14.0, max_relative = 1e-12);
        assert_relative_eq!(p, 0.002905152774267437, max_relative = 1e-9);
        let expected = [14.0 / 6.0, 22.0 / 6.0, 3.0, 1.0];
        ranking.mean_ranks.iter().zip(expected).for_each(|(ours, rank)| assert_relative_eq!(*ours, rank));
        assert_relative_eq!(
            ranking.critical_difference,
            2.5690317725464833 * (20.0f64 / 36.0).sqrt(),
            max_relative = 1e-9
        );
        // With ties.
        let mut tied = published();
        tied[0][1] = tied[0][0];
        tied[3][2] = tied[3][3];
        let (statistic, p) = Ranking::of(&tied).unwrap().friedman.unwrap();
        assert_relative_eq!(statistic, 11.275862068965523, max_relative = 1e-9);
        assert_relative_eq!(p, 0.01032398875149908, max_relative = 1e-9);
        assert_eq!(Ranking::of(&[vec![1.0; 3], vec![2.0; 3]]).unwrap().friedman, None);
        assert_eq!((Ranking::of(&published()[..1]), Ranking::of(&[vec![1.0, 2.0], vec![3.0, 4.0]])), (None, None));
    }

    #[test]
    fn the_middle() {
        assert_eq!(
            (median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])),
            (Some(2.0), Some(2.5), None)
        );
    }
}
