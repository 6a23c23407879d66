//! How tensors are compared.

use tch::Tensor;

/// Whether two tensors are the same to the last bit, shape and kind included. NaN equals nothing.
pub fn same(a: &Tensor, b: &Tensor) -> bool {
    a.size() == b.size() && a.kind() == b.kind() && a.equal(&b.to_device(a.device()))
}

pub fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// ‖a − b‖ / ‖b‖ in float64; over `largest` where ‖b‖ is below 1e-9 of it. Infinite if either is not finite.
pub fn distance(a: &Tensor, b: &Tensor, largest: f64) -> f64 {
    let [a, b] = [a, b].map(|t| t.detach().to_device(tch::Device::Cpu).to_kind(tch::Kind::Double));
    let (apart, norm) = ((&a - &b).norm().double_value(&[]), b.norm().double_value(&[]));
    match apart {
        0.0 => 0.0,
        _ if apart.is_nan() => f64::INFINITY,
        _ if norm < 1e-9 * largest => apart / largest,
        _ => apart / norm,
    }
}
