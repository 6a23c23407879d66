//! Several teachers taken as one: how their logits become those of a combined teacher.
//!
//! ```toml
//! [teacher.all]
//! combine = { kind = "mean_probabilities", teachers = ["a", "b"], weights = [0.7, 0.3] }
//! ```
//!
//! With the members' logits z_k `[B, C]`, probabilities p_k = softmax(z_k) and weights w_k that sum to 1:
//!
//! - `mean_probabilities`: ln Σ w_k p_k, the arithmetic mean of the members' distributions;
//! - `mean_logits`: Σ w_k z_k, their geometric mean up to what normalises it. Both means are named by Hinton, Vinyals, Dean.
//!   *Distilling the Knowledge in a Neural Network*. arXiv:1503.02531, 2015, section 1;
//! - `confidence`: ln Σ w_k p_k with weights of their own for every sample, w = softmax over the members of −H(p_k), where
//!   H(p) = −Σ p ln p in nats. That the teacher of lower entropy counts more is from Kwon, Na, Lee, Kim. *Adaptive Knowledge
//!   Distillation Based on Entropy*. ICASSP 2020; that its share is a softmax is this framework's choice. It needs no labels,
//!   so that the combination can be measured on the test split like any teacher.
//!
//! Logits are known up to a constant. A single member's are given as they are: an ensemble of one is its member, bit for bit.

use std::fmt;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad_guard};

/// Which teachers are combined, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combination {
    /// How.
    pub kind: Combining,
    /// The members by name: teachers that are networks.
    pub teachers: Vec<String>,
    /// What each member counts, in any unit: they are divided by their sum. Absent: all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<f64>>,
}

/// A rule that makes one teacher's logits of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combining {
    /// The logarithm of the mean of the members' probabilities.
    MeanProbabilities,
    /// The mean of their logits.
    MeanLogits,
    /// As the mean of the probabilities, each sample with weights by the members' entropies.
    Confidence,
}

impl Combining {
    /// Its name in the experiment file.
    pub fn name(self) -> &'static str {
        match self {
            Combining::MeanProbabilities => "mean_probabilities",
            Combining::MeanLogits => "mean_logits",
            Combining::Confidence => "confidence",
        }
    }
}

impl Combination {
    /// The plain mean of several teachers' probabilities.
    pub fn mean_probabilities(teachers: Vec<String>) -> Self {
        Combination { kind: Combining::MeanProbabilities, teachers, weights: None }
    }

    /// The combined logits `[B, C]`, without gradients, of those of the members `[B, C]`, in the order of `teachers`.
    pub fn logits(&self, members: &[&Tensor]) -> Tensor {
        let _no_grad = no_grad_guard();
        if let [only] = members {
            return only.shallow_clone();
        }
        let logits = Tensor::stack(members, 0);
        match self.kind {
            Combining::MeanLogits => (&logits * self.weights_as(&logits)).sum_dim_intlist(0, false, None::<Kind>),
            Combining::MeanProbabilities => mixture(&logits.log_softmax(-1, None), &self.weights_as(&logits).log()),
            Combining::Confidence => {
                let ln_p = logits.log_softmax(-1, None);
                let minus_entropy = (ln_p.exp() * &ln_p).sum_dim_intlist(-1, true, None::<Kind>);
                mixture(&ln_p, &minus_entropy.log_softmax(0, None))
            }
        }
    }

    /// The weights w_k, which sum to 1; those of `confidence` are not known beforehand.
    pub fn shares(&self) -> Option<Vec<f64>> {
        let given = match (self.kind, &self.weights) {
            (Combining::Confidence, _) => return None,
            (_, Some(weights)) => weights.clone(),
            (_, None) => vec![1.0; self.teachers.len()],
        };
        let sum: f64 = given.iter().sum();
        Some(given.iter().map(|weight| weight / sum).collect())
    }

    /// The weights `[K, 1, …]`, in kind, on the device and with the dimensions of `like`.
    fn weights_as(&self, like: &Tensor) -> Tensor {
        let shares = self.shares().unwrap_or_default();
        let mut shape = vec![1; like.dim()];
        shape[0] = -1;
        Tensor::from_slice(&shares).to_kind(like.kind()).to_device(like.device()).view(shape.as_slice())
    }
}

/// ln Σ w_k p_k, of ln p_k `[K, B, C]` and ln w_k `[K, …, 1]`.
fn mixture(ln_p: &Tensor, ln_w: &Tensor) -> Tensor {
    (ln_p + ln_w).logsumexp(&[0i64][..], false)
}

/// `mean_probabilities of a (0.7), b (0.3)`
impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members = self.teachers.clone();
        for (member, weight) in members.iter_mut().zip(self.weights.iter().flatten()) {
            *member = format!("{member} ({weight})");
        }
        write!(f, "{} of {}", self.kind.name(), members.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combination(kind: Combining, weights: Option<Vec<f64>>) -> Combination {
        Combination { kind, teachers: vec!["a".to_owned(), "b".to_owned()], weights }
    }

    /// Logits of two samples whose probabilities are (½, ¼, ¼), (⅕, ⅗, ⅕) and (¼, ¼, ½), (⅓, ⅓, ⅓).
    fn members(kind: Kind) -> [Tensor; 2] {
        let rows = [[[2.0, 1.0, 1.0], [1.0, 3.0, 1.0]], [[1.0, 1.0, 2.0], [5.0, 5.0, 5.0]]];
        rows.map(|rows: [[f64; 3]; 2]| Tensor::from_slice2(&rows).log().to_kind(kind))
    }

    /// The probabilities of the combined logits, row by row.
    fn probabilities(combination: &Combination, kind: Kind) -> Vec<f64> {
        let [a, b] = members(kind);
        let logits = combination.logits(&[&a, &b]);
        assert_eq!((logits.kind(), logits.size()), (kind, vec![2, 3]));
        Vec::try_from(logits.softmax(-1, kind).to_kind(Kind::Double).view(-1)).unwrap()
    }

    /// In float64 and in float32.
    fn assert_gives(combination: &Combination, expected: [f64; 6]) {
        for (kind, tolerance) in [(Kind::Double, 1e-14), (Kind::Float, 1e-6)] {
            for (found, expected) in probabilities(combination, kind).iter().zip(expected) {
                assert!((found - expected).abs() < tolerance, "{combination}, {kind:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn means_of_probabilities_by_hand() {
        let mean = combination(Combining::MeanProbabilities, None);
        assert_gives(&mean, [3.0 / 8.0, 1.0 / 4.0, 3.0 / 8.0, 4.0 / 15.0, 7.0 / 15.0, 4.0 / 15.0]);
        // 3 : 1, in any unit.
        let weighted = combination(Combining::MeanProbabilities, Some(vec![6.0, 2.0]));
        let second = [(3.0 / 5.0 + 1.0 / 3.0) / 4.0, (9.0 / 5.0 + 1.0 / 3.0) / 4.0, (3.0 / 5.0 + 1.0 / 3.0) / 4.0];
        assert_gives(&weighted, [7.0 / 16.0, 1.0 / 4.0, 5.0 / 16.0, second[0], second[1], second[2]]);
        // The logits are logarithms of the probabilities themselves.
        let [a, b] = members(Kind::Double);
        assert!((mean.logits(&[&a, &b]).exp().sum(Kind::Double).double_value(&[]) - 2.0).abs() < 1e-14);
    }

    #[test]
    fn means_of_logits_by_hand() {
        // The geometric means: √2, 1, √2 and √5, √15, √5, each by its sum.
        let (two, three) = (2f64.sqrt(), 3f64.sqrt());
        let (first, second) = (2.0 * two + 1.0, 2.0 + three);
        let expected = [two / first, 1.0 / first, two / first, 1.0 / second, three / second, 1.0 / second];
        assert_gives(&combination(Combining::MeanLogits, None), expected);
        // 3 : 1 gives 2^¾ : 1 : 2^¼ and 1 : 3^¾ : 1.
        let powers = [2f64.powf(0.75), 1.0, 2f64.powf(0.25)];
        let (first, second) = (powers.iter().sum::<f64>(), 2.0 + 3f64.powf(0.75));
        let weighted = combination(Combining::MeanLogits, Some(vec![0.75, 0.25]));
        let [one, other, last] = powers.map(|power| power / first);
        assert_gives(&weighted, [one, other, last, 1.0 / second, 3f64.powf(0.75) / second, 1.0 / second]);
        let [a, b] = members(Kind::Double);
        let by_hand = (&a * 0.75 + &b * 0.25 - weighted.logits(&[&a, &b])).abs().max().double_value(&[]);
        assert!(by_hand < 1e-15, "{by_hand}");
    }

    #[test]
    fn confidence_by_hand() {
        // Of the first sample both are as sure: the plain mean. Of the second the one has the entropy
        // ⅖ ln 5 + ⅗ ln 5/3, the other ln 3.
        let sure = 0.4 * 5f64.ln() + 0.6 * (5.0f64 / 3.0).ln();
        let share = (-sure).exp() / ((-sure).exp() + 1.0 / 3.0);
        let second = [0.2_f64, 0.6, 0.2].map(|p| share * p + (1.0 - share) * (1.0 / 3.0));
        let expected = [3.0 / 8.0, 1.0 / 4.0, 3.0 / 8.0, second[0], second[1], second[2]];
        assert!(share > 0.5);
        assert_gives(&combination(Combining::Confidence, None), expected);
    }

    #[test]
    fn a_single_member_is_itself() {
        let [a, _] = members(Kind::Float);
        for kind in [Combining::MeanProbabilities, Combining::MeanLogits, Combining::Confidence] {
            let alone = Combination { kind, teachers: vec!["a".to_owned()], weights: None };
            assert_eq!(alone.logits(&[&a]), a);
        }
    }

    #[test]
    fn it_says_what_it_is() {
        let weighted = combination(Combining::MeanLogits, Some(vec![0.75, 0.25]));
        assert_eq!(weighted.to_string(), "mean_logits of a (0.75), b (0.25)");
        assert_eq!(combination(Combining::Confidence, None).to_string(), "confidence of a, b");
    }
}
