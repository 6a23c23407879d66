//! How the training part of a data set is divided into samples to train on and samples to hold out.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use serde::Serialize;

use crate::dataset::UNLABELLED;
use crate::error::{Error, Result};
use crate::seed::Seed;

/// How the training part of a data set is divided: `validation` and `train_samples` of the experiment file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Division {
    /// How many samples are held out.
    pub validation: usize,
    /// How many of the others are trained on; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_samples: Option<usize>,
}

/// Divides the rows of the training part, the same for every seed of an experiment.
///
/// Both parts are stratified: of every class they have its share, to within one sample. Where all rows have a label, they
/// are taken from the two ends of one order, so that a smaller part is a subset of a larger one, and neither changes with
/// the other. Rows without label are never held out; among those that are trained on they have their share of what is left.
///
/// Returns (training rows, validation rows), both ascending.
///
/// # Errors
/// If nothing is left to train on, or `train_samples` is 0 or more than what is left.
pub(crate) fn divide(labels: &[i64], classes: i64, division: Division) -> Result<(Vec<i64>, Vec<i64>)> {
    let Division { validation: held_out, train_samples } = division;
    if division == Division::default() {
        return Ok(((0..labels.len() as i64).collect(), Vec::new()));
    }
    let labelled = labels.iter().filter(|label| **label != UNLABELLED).count();
    if held_out > 0 && held_out >= labelled {
        let message =
            format!("{held_out} samples leave nothing to train on: the training part has {labelled} with a label");
        return Err(Error::plan(message).at("validation"));
    }
    let left = labels.len() - held_out;
    if let Some(wanted) = train_samples.filter(|wanted| !(1..=left).contains(wanted)) {
        let message = format!(
            "it must be at least 1 and at most {left}, the training samples that are not held out, not {wanted}"
        );
        return Err(Error::plan(message).at("train_samples"));
    }
    let mut groups: Vec<Vec<i64>> = vec![Vec::new(); classes as usize + 1];
    for (row, label) in labels.iter().enumerate() {
        groups[if *label == UNLABELLED { classes } else { *label } as usize].push(row as i64);
    }
    for (group, rows) in groups.iter_mut().enumerate() {
        Seed::new(0).stream("validation").at(group as u64).rng().shuffle(rows);
    }
    let unlabelled = groups.pop().unwrap_or_default();
    let mut order = interleave(groups);
    let rest = order.split_off(held_out);
    let mut train = interleave(vec![rest, unlabelled]).split_off(left - train_samples.unwrap_or(left));
    train.sort_unstable();
    order.sort_unstable();
    Ok((train, order))
}

/// One list of several, each in its own order, such that every beginning, and so every end, has of each list its share, to
/// within less than one: Tijdeman. *The Chairman Assignment Problem*. Discrete Mathematics 32, 1980.
///
/// With C lists of `n` of N items in all, the list's item j may come no earlier than k ≥ (j + ε) N / n and is due by
/// (j + 1 − ε) N / n, ε = 1 / (2C − 2); of those that may come, the one that is due first does.
fn interleave(lists: Vec<Vec<i64>>) -> Vec<i64> {
    let lists: Vec<Vec<i64>> = lists.into_iter().filter(|list| !list.is_empty()).collect();
    let Some(steps) = lists.len().checked_sub(1).filter(|others| *others > 0).map(|others| 2 * others as u128) else {
        return lists.into_iter().flatten().collect();
    };
    let sizes: Vec<u128> = lists.iter().map(|list| list.len() as u128).collect();
    let all: u128 = sizes.iter().sum();
    // The first k at which an item may come, the list, and the item.
    let mut waiting: BinaryHeap<Reverse<(u128, usize, u128)>> = BinaryHeap::new();
    for (list, size) in sizes.iter().enumerate() {
        waiting.push(Reverse((all.div_ceil(size * steps), list, 0)));
    }
    let (mut ready, mut order) = (BinaryHeap::new(), Vec::with_capacity(all as usize));
    for k in 1..=all {
        while let Some(&Reverse((first, list, item))) = waiting.peek()
            && (first <= k || ready.is_empty())
        {
            waiting.pop();
            // When it is due, but for the factor N / (2C − 2) that all lists share.
            ready.push(Reverse((Due((item + 1) * steps - 1, sizes[list], list), item)));
        }
        let Some(Reverse((Due(_, _, list), item))) = ready.pop() else { break };
        order.push(lists[list][item as usize]);
        let (next, size) = (item + 1, sizes[list]);
        if next < size {
            waiting.push(Reverse((((next * steps + 1) * all).div_ceil(size * steps), list, next)));
        }
    }
    order
}

/// When an item of a list is due: a fraction, then the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due(u128, u128, usize);

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1)).then(self.2.cmp(&other.2))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold_out(validation: usize) -> Division {
        Division { validation, train_samples: None }
    }

    /// Checks that these rows have of each class its share, to within less than one.
    fn assert_within_one(rows: &[i64], labels: &[i64], sizes: &[usize]) {
        for (class, size) in (0..).zip(sizes) {
            let found = rows.iter().filter(|row| labels[**row as usize] == class).count();
            let share = rows.len() as f64 * *size as f64 / labels.len() as f64;
            assert!((found as f64 - share).abs() < 1.0, "{found} of class {class} among {}", rows.len());
        }
    }

    #[test]
    fn fewer_samples_are_stratified_and_nested_and_apart_from_validation() {
        // Classes of like and of very unlike sizes, and one without samples.
        for sizes in
            [vec![400, 300, 0, 200, 100], [vec![1000], vec![10; 100]].concat(), [vec![100], vec![5; 20]].concat()]
        {
            let labels: Vec<i64> = (0..).zip(&sizes).flat_map(|(class, size)| vec![class; *size]).collect();
            let (classes, all) = (sizes.len() as i64, labels.len());
            let held_out = all / 7;
            let parts = |validation, wanted| {
                divide(&labels, classes, Division { validation, train_samples: Some(wanted) }).unwrap()
            };
            let (mut smaller, validation) = (Vec::new(), parts(held_out, 1).1);
            assert_eq!(validation.len(), held_out);
            assert_within_one(&validation, &labels, &sizes);
            for wanted in 1..=all - held_out {
                let (train, also_held_out) = parts(held_out, wanted);
                assert_eq!((train.len(), &also_held_out), (wanted, &validation));
                assert!(train.is_sorted() && train.iter().all(|row| validation.binary_search(row).is_err()));
                assert!(
                    smaller.iter().all(|row| train.binary_search(row).is_ok()),
                    "{wanted} samples hold not all fewer"
                );
                assert_within_one(&train, &labels, &sizes);
                smaller = train;
            }
            assert_eq!(parts(0, all / 2).0, parts(held_out, all / 2).0, "what is held out changes nothing else");
            assert_eq!(parts(held_out, all - held_out), divide(&labels, classes, hold_out(held_out)).unwrap());
            for wanted in [0, all - held_out + 1] {
                let message = divide(&labels, classes, Division { validation: held_out, train_samples: Some(wanted) });
                assert_eq!(
                    message.unwrap_err().to_string(),
                    format!(
                        "train_samples: it must be at least 1 and at most {}, the training samples that are not held out, \
                         not {wanted}",
                        all - held_out
                    )
                );
            }
        }
    }

    #[test]
    fn rows_without_label_have_their_share_of_fewer_samples() {
        // Two hundred samples in ten classes, and four thousand without label.
        let labels: Vec<i64> = (0..4200).map(|i| if i % 21 == 0 { i / 21 % 10 } else { UNLABELLED }).collect();
        for (validation, wanted) in [(0, 42), (0, 420), (100, 410), (190, 401), (190, 20)] {
            let (train, held_out) = divide(&labels, 10, Division { validation, train_samples: Some(wanted) }).unwrap();
            let labelled = train.iter().filter(|row| labels[**row as usize] != UNLABELLED).count();
            let share = wanted as f64 * (200 - validation) as f64 / (4200 - validation) as f64;
            assert_eq!((train.len(), held_out.len()), (wanted, validation));
            assert!((labelled as f64 - share).abs() < 1.0, "{labelled} of {wanted}, not {share}");
        }
    }

    #[test]
    fn validation_is_stratified_and_disjoint() {
        let labels: Vec<i64> = (0..1000).map(|i| i % 7).collect();
        let (train, validation) = divide(&labels, 7, hold_out(100)).unwrap();
        assert_eq!((train.len(), validation.len()), (900, 100));
        assert!(train.iter().all(|row| !validation.contains(row)));
        for class in 0..7 {
            let count = validation.iter().filter(|row| labels[**row as usize] == class).count();
            assert!((14..=15).contains(&count), "class {class} has {count}");
        }
        let message = divide(&labels, 7, hold_out(1000)).unwrap_err().to_string();
        assert_eq!(
            message,
            "validation: 1000 samples leave nothing to train on: the training part has 1000 with a label"
        );
    }

    #[test]
    fn rows_without_label_are_never_held_out() {
        let labels: Vec<i64> = (0..100).map(|i| if i % 2 == 0 { UNLABELLED } else { i % 3 }).collect();
        let (train, validation) = divide(&labels, 3, hold_out(20)).unwrap();
        assert_eq!((train.len(), validation.len()), (80, 20));
        assert!(validation.iter().all(|row| row % 2 == 1));
        let message = divide(&labels, 3, hold_out(50)).unwrap_err().to_string();
        assert_eq!(message, "validation: 50 samples leave nothing to train on: the training part has 50 with a label");
        assert_eq!(divide(&[UNLABELLED; 4], 3, hold_out(0)).unwrap(), (vec![0, 1, 2, 3], vec![]));
    }
}
