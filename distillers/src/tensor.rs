//! Tensor functions that several methods share.

use limbeck::prelude::*;

/// `x` over its L2 norm along `dim`, the norm at least 1e-12: PyTorch's `normalize`.
pub(crate) fn normalize(x: &Tensor, dim: i64) -> Tensor {
    x / x.norm_scalaropt_dim(2.0, [dim], true).clamp_min(1e-12)
}

/// Two maps `[B, C, H, W]` at one height: the higher is adaptively average-pooled to the other's.
pub(crate) fn match_heights(student: &Tensor, teacher: &Tensor) -> (Tensor, Tensor) {
    let (s, t) = (student.size()[2], teacher.size()[2]);
    match s.cmp(&t) {
        std::cmp::Ordering::Greater => (student.adaptive_avg_pool2d([t, t]), teacher.shallow_clone()),
        std::cmp::Ordering::Less => (student.shallow_clone(), teacher.adaptive_avg_pool2d([s, s])),
        std::cmp::Ordering::Equal => (student.shallow_clone(), teacher.shallow_clone()),
    }
}

/// KL(p ‖ q) = Σ p (ln p − ln q), summed over everything, of two tensors of log-probabilities. Where p is 0, so is the term.
pub(crate) fn kl_divergence(ln_p: &Tensor, ln_q: &Tensor) -> Tensor {
    (ln_p.exp() * (ln_p - ln_q)).sum(None::<Kind>)
}
