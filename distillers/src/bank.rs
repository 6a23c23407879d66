//! A memory bank: one embedding per training sample, that of the last time the sample was seen.
//!
//! Wu, Xiong, Yu, Lin. *Unsupervised Feature Learning via Non-Parametric Instance Discrimination*. CVPR 2018, section 3.
//! A bank gives a contrastive loss as many negatives as there are samples, at the price of their age.

use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::embedding::unit_rows;

/// How a bank keeps its rows. They are computed with in float32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BankPrecision {
    /// 4 bytes a number.
    Float32,
    /// 2 bytes, 8 significant bits.
    Bfloat16,
    /// 2 bytes, 11 significant bits: enough range for vectors of norm 1.
    Float16,
}

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
    pub fn new(
        params: &nn::Path<'_>,
        name: &str,
        samples: i64,
        width: i64,
        momentum: f64,
        precision: BankPrecision,
    ) -> Self {
        let bound = 1.0 / (width as f64 / 3.0).sqrt();
        let mut rows = params.zeros_no_train(name, &[samples, width]);
        let _ = rows.uniform_(-bound, bound);
        match precision {
            BankPrecision::Float32 => {}
            BankPrecision::Bfloat16 => rows.set_data(&rows.to_kind(Kind::BFloat16)),
            BankPrecision::Float16 => rows.set_data(&rows.to_kind(Kind::Half)),
        }
        Bank { rows, momentum }
    }

    /// n
    pub fn samples(&self) -> i64 {
        self.rows.size()[0]
    }

    /// All rows: `[n, D]`.
    pub fn all(&self) -> Tensor {
        widened(&self.rows)
    }

    /// The rows of some samples: `[…]` int64 → `[…, D]`.
    pub fn at(&self, samples: &Tensor) -> Tensor {
        let mut shape = samples.size();
        shape.push(-1);
        widened(&self.rows.index_select(0, &samples.reshape([-1]))).reshape(shape)
    }

    /// Moves the rows of `samples` (`[B]`, each once) towards `embeddings` `[B, D]`: row ← normalise(m·row + (1 − m)·v).
    pub fn update(&mut self, samples: &Tensor, embeddings: &Tensor) {
        let _no_grad = limbeck::tch::no_grad_guard();
        let moved = self.at(samples) * self.momentum + embeddings * (1.0 - self.momentum);
        let _ = self.rows.index_copy_(0, samples, &unit_rows(&moved).to_kind(self.rows.kind()));
    }
}

/// Half-precision rows as float32.
fn widened(rows: &Tensor) -> Tensor {
    match rows.kind() {
        Kind::BFloat16 | Kind::Half => rows.to_kind(Kind::Float),
        _ => rows.shallow_clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(bank: &Tensor, i: i64) -> Vec<f64> {
        Vec::<f64>::try_from(bank.get(i)).unwrap()
    }

    #[test]
    fn rows_move_by_the_momentum_and_stay_on_the_sphere() {
        let store = nn::VarStore::new(Device::Cpu);
        let mut bank = Bank::new(&store.root(), "memory", 1000, 3, 0.25, BankPrecision::Float32);
        let spread = bank.all().abs().max().double_value(&[]);
        assert!((0.99..=1.0).contains(&spread), "uniform in ±1: {spread}");
        let before = bank.all().copy();
        let samples = Tensor::from_slice(&[7_i64, 2]);
        bank.update(&samples, &Tensor::from_slice(&[0.0_f32, 0.0, 1.0, 1.0, 0.0, 0.0]).view([2, 3]));
        let old = row(&before, 7);
        let moved = [0.25 * old[0], 0.25 * old[1], 0.25 * old[2] + 0.75];
        let norm = moved.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (found, expected) in row(&bank.all(), 7).iter().zip(moved) {
            assert!((found - expected / norm).abs() < 1e-6);
        }
        assert_eq!(row(&bank.all(), 8), row(&before, 8));
        assert_eq!(
            row(&store.variables()["memory"], 7),
            row(&bank.all(), 7),
            "the registered tensor is the one that moves"
        );
    }

    #[test]
    fn two_bytes_a_number_keep_so_many_bits_of_a_row() {
        for (precision, kind, bits) in
            [(BankPrecision::Bfloat16, Kind::BFloat16, 8), (BankPrecision::Float16, Kind::Half, 11)]
        {
            let store = nn::VarStore::new(Device::Cpu);
            let mut bank = Bank::new(&store.root(), "memory", 20, 16, 0.5, precision);
            assert_eq!((store.variables()["memory"].kind(), bank.all().kind()), (kind, Kind::Float));
            let before = bank.all();
            let v = unit_rows(&crate::fixture::wave(&[2, 16], 0.4).to_kind(Kind::Float));
            let samples = Tensor::from_slice(&[3_i64, 19]);
            bank.update(&samples, &v);
            let exact = unit_rows(&((before.index_select(0, &samples) + &v) * 0.5));
            let relative = ((bank.at(&samples) - &exact) / &exact).abs().max().double_value(&[]);
            assert!(relative > 0.0 && relative <= 0.5_f64.powi(bits), "{relative}");
        }
    }
}
