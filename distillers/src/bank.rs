//! A memory bank: one embedding per training sample, that of the last time the sample was seen.
//!
//! Wu, Xiong, Yu, Lin. *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*. CVPR 2018, section 3.
//! A bank gives a contrastive loss as many negatives as there are samples, at the price of their age.

use limbeck::prelude::*;

use crate::critics::head::unit_rows;

/// Embeddings of all training samples, `[n, D]`.
#[derive(Debug)]
pub struct Bank {
    rows: Tensor,
    momentum: f64,
}

impl Bank {
    /// Registers a bank on `params`: uniform in ±1/√(D/3), so that a row's expected squared norm is 1.
    ///
    /// `momentum` is the share of the old row that is kept, between 0 and 1.
    pub fn new(params: &nn::Path<'_>, name: &str, samples: i64, width: i64, momentum: f64) -> Self {
        let bound = 1.0 / (width as f64 / 3.0).sqrt();
        let mut rows = params.zeros_no_train(name, &[samples, width]);
        let _ = rows.uniform_(-bound, bound);
        Bank { rows, momentum }
    }

    /// All rows: `[n, D]`.
    pub fn all(&self) -> &Tensor {
        &self.rows
    }

    /// The rows of some samples: `[…]` int64 → `[…, D]`.
    pub fn at(&self, samples: &Tensor) -> Tensor {
        let mut shape = samples.size();
        shape.push(-1);
        self.rows.index_select(0, &samples.reshape([-1])).reshape(shape)
    }

    /// Moves the rows of `samples` (`[B]`, each once) towards `embeddings` `[B, D]`: row ← normalise(m·row + (1 − m)·v).
    pub fn update(&mut self, samples: &Tensor, embeddings: &Tensor) {
        let _no_grad = limbeck::tch::no_grad_guard();
        let moved = self.rows.index_select(0, samples) * self.momentum + embeddings * (1.0 - self.momentum);
        let _ = self.rows.index_copy_(0, samples, &unit_rows(&moved));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_by_the_momentum_and_stay_on_the_sphere() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut bank = Bank::new(&store.root(), "memory", 1000, 3, 0.25);
        let spread = bank.all().abs().max().double_value(&[]);
        assert!((0.99..=1.0).contains(&spread), "uniform in ±1: {spread}");
        let before = bank.all().copy();
        let samples = Tensor::from_slice(&[7_i64, 2]);
        bank.update(&samples, &Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 1.0, 0.0, 0.0]).view([2, 3]));
        let row = |bank: &Tensor, i| Vec::<f64>::try_from(bank.get(i)).unwrap();
        let old = row(&before, 7);
        let moved = [0.25 * old[0], 0.25 * old[1], 0.25 * old[2] + 0.75];
        let norm = moved.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (found, expected) in row(bank.all(), 7).iter().zip(moved) {
            assert!((found - expected / norm).abs() < 1e-6);
        }
        assert_eq!(row(bank.all(), 8), row(&before, 8));
        assert_eq!(
            row(&store.variables()["memory"], 7),
            row(bank.all(), 7),
            "the registered tensor is the one that moves"
        );
    }
}
