//! Where a check works, and how it compares.

use std::path::Path;

use tch::{Device, Tensor};

/// What the parts share.
pub(super) struct Bench<'a> {
    pub device: Device,
    pub folder: &'a Path,
    pub threads: usize,
}

/// ‖a − b‖ / ‖b‖ in float64, on the CPU; infinite if either is not finite.
pub(super) fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = [a, b].map(|tensor| tensor.detach().to_device(Device::Cpu).to_kind(tch::Kind::Double));
    let distance = (a - &b).norm().double_value(&[]);
    match distance / b.norm().double_value(&[]) {
        _ if distance == 0.0 => 0.0,
        ratio if ratio.is_nan() => f64::INFINITY,
        ratio => ratio,
    }
}

/// The largest; 0 of nothing, and NaN if one of them is.
pub(super) fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(0.0, |a: f64, b| if a.is_nan() || b <= a { a } else { b })
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Finding, Verdict};
    use super::*;

    #[test]
    fn what_is_not_a_number_is_never_within_a_tolerance() {
        let (one, nan) = (Tensor::from_slice(&[3.0, 4.0]), Tensor::from_slice(&[3.0, f64::NAN]));
        assert_eq!(relative(&one, &one), 0.0);
        assert!((relative(&(&one * 1.5), &one) - 0.5).abs() < 1e-12);
        assert_eq!(relative(&nan, &one), f64::INFINITY);
        assert!(largest([1.0, f64::NAN]).is_nan());
        for value in [0.2, f64::INFINITY, f64::NAN] {
            assert_eq!(Finding::within("cohort", "off by", value, 0.1).verdict, Verdict::Failed, "{value}");
        }
        let line = Finding::within("cohort", "off by", 0.2, 0.1).to_string();
        assert_eq!(line, "FAILED    cohort     off by 2.0e-1 (tolerance 1e-1)");
    }
}
