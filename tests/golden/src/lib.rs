//! Reference numbers: deterministic inputs, digests, and the distance of a result from them.
//!
//! The reference numbers were computed in float64 by other implementations of the same methods and networks. A number
//! file stores names and shapes, never inputs: [`fill`] makes them again. Of a result it stores a [`Digest`]. The files
//! are part of the binary, so that `limbeck check` needs nothing but itself.
//!
//! | module | holds |
//! |---|---|
//! | [`models`] | the networks: logits, taps, gradients |
//! | [`methods`] | a step of each method: losses and gradients |
//! | [`losses`] | cross-entropy, soft targets, and steps of CRD over its banks |
//!
//! ```
//! use limbeck_golden::{assert_digest, digest, fill};
//! let input = fill("a.x", &[2, 3], -1.8, 1.8);
//! assert_digest("x", &input, &digest("x", &input), 0.0, 1e-12);
//! ```

pub mod losses;
pub mod methods;
pub mod models;

use limbeck::error::{Error, Result};
use limbeck::seed::Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Numbers uniform in [`lo`, `hi`), a function of `name` and position alone.
fn values(name: &str, count: usize, lo: f64, hi: f64) -> impl Iterator<Item = f64> + use<> {
    let mut rng = Rng::named(name);
    (0..count).map(move |_| rng.range(lo, hi))
}

/// A float64 tensor of that shape on the CPU, uniform in [`lo`, `hi`), a function of `name` and position alone.
pub fn fill(name: &str, shape: &[i64], lo: f64, hi: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f64> = values(name, count, lo, hi).collect();
    Tensor::from_slice(&values).reshape(shape)
}

/// A parameter or running statistic of a network or of a method's own modules, as the number files fill them.
///
/// `name` is the full name that seeds the values (`a.resnet8.conv1.weight`); its last part says what the tensor is.
/// `batch_norm` says whether it belongs to a BatchNorm: each number file has its own rule to recognise one.
pub fn fill_parameter(name: &str, shape: &[i64], batch_norm: bool) -> Tensor {
    let (lo, hi) = if shape.len() >= 2 {
        let bound = (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt();
        (-bound, bound)
    } else if batch_norm && (name.ends_with("weight") || name.ends_with("running_var")) {
        (0.5, 1.5)
    } else {
        (-0.1, 0.1)
    };
    fill(name, shape, lo, hi)
}

/// The labels of every case: (3·i + 1) mod classes, int64 `[batch]`.
pub fn labels(batch: i64, classes: i64) -> Tensor {
    (Tensor::arange(batch, (Kind::Int64, Device::Cpu)) * 3 + 1).remainder(classes)
}

/// A tensor in a few numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Its shape.
    pub shape: Vec<i64>,
    /// The Euclidean norm.
    pub l2: f64,
    /// The sum of its elements.
    pub sum: f64,
    /// The projection on a fixed random direction, so that a permutation of the elements shows.
    pub probe: f64,
    /// Its first four elements in row-major order, where the number file has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Vec<f64>>,
}

/// The digest of a tensor. `name` chooses the direction of the probe: use the name that the number file prescribes.
///
/// # Panics
/// If the tensor is not of a numeric kind.
pub fn digest(name: &str, tensor: &Tensor) -> Digest {
    let shape = tensor.size();
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double).contiguous().view([-1]);
    let elements: Vec<f64> = Vec::try_from(&flat).unwrap_or_else(|e| panic!("{name}: not a tensor of numbers: {e}"));
    let direction = values(&format!("probe:{name}"), elements.len(), -1.0, 1.0);
    Digest {
        shape,
        l2: elements.iter().map(|x| x * x).sum::<f64>().sqrt(),
        sum: elements.iter().sum(),
        probe: elements.iter().zip(direction).map(|(x, d)| x * d).sum(),
        first: Some(elements.iter().take(4).copied().collect()),
    }
}

/// Whether |value − reference| ≤ tol · scale. Never true of a value that is not finite.
pub fn close(value: f64, reference: f64, scale: f64, tol: f64) -> bool {
    (value - reference).abs() <= tol * scale
}

/// A number beside its reference.
#[derive(Clone, Debug, PartialEq)]
pub struct Deviation {
    /// Of what.
    pub what: String,
    /// What was computed.
    pub value: f64,
    /// What the reference has.
    pub reference: f64,
    /// The size that their distance is measured by.
    pub scale: f64,
}

impl Deviation {
    /// |value − reference| / scale; infinite for a value that is not finite.
    pub fn relative(&self) -> f64 {
        let distance = (self.value - self.reference).abs();
        match distance {
            0.0 => 0.0,
            _ if distance.is_nan() => f64::INFINITY,
            _ => distance / self.scale,
        }
    }

    /// Asserts [`close`].
    ///
    /// # Panics
    /// With `what`, both numbers, their distance and the tolerance.
    #[track_caller]
    pub fn assert(&self, tol: f64) {
        let Deviation { what, value, reference, scale } = self;
        assert!(
            close(*value, *reference, *scale, tol),
            "{what}: {value:e}, but the reference is {reference:e}; they differ by {:.3e}, allowed is {tol:e} of the scale {scale:e}",
            (value - reference).abs()
        );
    }
}

/// Asserts [`close`].
///
/// # Panics
/// With `what`, both numbers, their distance and the tolerance.
#[track_caller]
pub fn assert_close(what: &str, value: f64, reference: f64, scale: f64, tol: f64) {
    Deviation { what: what.to_owned(), value, reference, scale }.assert(tol);
}

/// The scale of a loss: its own size; or `largest_l2`, the largest norm of its case, if beside that it counts as zero.
pub fn loss_scale(reference: f64, largest_l2: f64) -> f64 {
    if reference.abs() < 1e-9 * largest_l2 { largest_l2 } else { reference.abs() }
}

/// Asserts that a tensor has this digest: its shape exactly, its numbers within `tol` of their scale.
///
/// The scale is `l2` for the norm and the first elements, l2·√n for the sum, l2·√(n/3) for the probe (n elements). A
/// tensor whose `l2` is below 1e-9 of `largest_l2`, the largest norm of its case, counts as zero, and `largest_l2` is
/// the scale of all its numbers. Pass 0.0 where no tensor is expected to vanish.
///
/// # Panics
/// With `name`, which number is off, by how much, and what is allowed.
#[track_caller]
pub fn assert_digest(name: &str, tensor: &Tensor, reference: &Digest, largest_l2: f64, tol: f64) {
    assert_digest_named(name, name, tensor, reference, largest_l2, tol);
}

/// [`assert_digest`] where the name in messages, `what`, is not the `name` that chose the probe.
///
/// # Panics
/// As [`assert_digest`].
#[track_caller]
pub fn assert_digest_named(what: &str, name: &str, tensor: &Tensor, reference: &Digest, largest_l2: f64, tol: f64) {
    match deviations(what, name, tensor, reference, largest_l2) {
        Ok(all) => all.iter().for_each(|deviation| deviation.assert(tol)),
        Err(error) => panic!("{error}"),
    }
}

/// Every number of a tensor's digest beside the reference's, with the scales of [`assert_digest`].
///
/// # Errors
/// If the shape is another.
pub fn deviations(
    what: &str,
    name: &str,
    tensor: &Tensor,
    reference: &Digest,
    largest_l2: f64,
) -> Result<Vec<Deviation>> {
    if tensor.size() != reference.shape {
        return Err(Error::run(format!("{what}: the shape is {:?}, not {:?}", tensor.size(), reference.shape)));
    }
    let found = digest(name, tensor);
    let n = tensor.numel() as f64;
    let vanishes = reference.l2 < 1e-9 * largest_l2;
    let mut parts = vec![
        ("l2".to_owned(), found.l2, reference.l2, reference.l2),
        ("sum".to_owned(), found.sum, reference.sum, reference.l2 * n.sqrt()),
        ("probe".to_owned(), found.probe, reference.probe, reference.l2 * (n / 3.0).sqrt()),
    ];
    for (k, (value, expected)) in found.first.iter().flatten().zip(reference.first.iter().flatten()).enumerate() {
        parts.push((format!("element {k}"), *value, *expected, reference.l2));
    }
    let mut all = Vec::with_capacity(parts.len());
    for (part, value, reference, scale) in parts {
        let scale = if vanishes { largest_l2 } else { scale };
        all.push(Deviation { what: format!("{what}, {part}"), value, reference, scale });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_a_function_of_name_and_position() {
        let x = fill("a.x", &[2, 3], -1.8, 1.8);
        assert_eq!((x.size(), x.kind()), (vec![2, 3], Kind::Double));
        let mut rng = Rng::named("a.x");
        let fourth = [(); 4].map(|()| rng.unit())[3];
        assert_eq!(x.double_value(&[1, 0]), -1.8 + 3.6 * fourth);
    }

    #[test]
    fn a_digest_holds_norm_sum_projection_and_the_first_elements() {
        let t = Tensor::from_slice(&[3.0_f32, -4.0, 0.0, 0.0, 12.0, 0.0]).view([2, 3]);
        let d = digest("t", &t);
        assert_eq!((d.shape.as_slice(), d.l2, d.sum), ([2, 3].as_slice(), 13.0, 11.0));
        assert_eq!(d.first, Some(vec![3.0, -4.0, 0.0, 0.0]));
        let direction = fill("probe:t", &[6], -1.0, 1.0);
        let [x, y, z] = [0, 1, 4].map(|k| direction.double_value(&[k]));
        assert!((d.probe - (3.0 * x - 4.0 * y + 12.0 * z)).abs() < 1e-12);
        assert_digest("t", &t, &d, 0.0, 1e-12);
        assert!(!close(f64::NAN, 0.0, 1.0, 1.0));
    }

    #[test]
    #[should_panic(expected = "grad, probe: ")]
    fn swapped_elements_are_found_by_the_probe() {
        let t = fill("t", &[2, 8], -1.0, 1.0);
        let reference = Digest { first: None, ..digest("grad", &t) };
        assert_digest("grad", &t.flip([1]), &reference, 0.0, 1e-6);
    }

    #[test]
    fn what_vanishes_beside_its_case_counts_as_zero() {
        let reference = Digest { shape: vec![2], l2: 1e-12, sum: 1e-12, probe: 0.0, first: None };
        assert_digest("zero", &Tensor::from_slice(&[1e-8, -1e-8]), &reference, 100.0, 1e-6);
        assert_eq!(loss_scale(1e-12, 100.0), 100.0);
        assert_eq!(loss_scale(-0.5, 100.0), 0.5);
    }

    /// The least and the largest value of a parameter.
    fn range(name: &str, shape: &[i64], bn: bool) -> (f64, f64) {
        let t = fill_parameter(name, shape, bn);
        (t.min().double_value(&[]), t.max().double_value(&[]))
    }

    #[test]
    fn parameters_are_filled_by_what_they_are() {
        let (lo, hi) = range("conv1.weight", &[64, 3, 3, 3], false);
        assert!((lo + (1.0_f64 / 9.0).sqrt()).abs() < 1e-3 && (hi - (1.0_f64 / 9.0).sqrt()).abs() < 1e-3, "{lo} {hi}");
        for (name, low, high) in [("bn.weight", 0.5, 1.5), ("bn.running_var", 0.5, 1.5), ("bn.bias", -0.1, 0.1)] {
            let (lo, hi) = range(name, &[4000], true);
            assert!(lo >= low && hi < high && hi - lo > 0.99 * (high - low), "{name}: {lo} {hi}");
        }
        assert!(range("fc.bias", &[100], false).1 < 0.1);
        assert_eq!(Vec::<i64>::try_from(labels(4, 10)).unwrap(), [1, 4, 7, 0]);
    }
}
