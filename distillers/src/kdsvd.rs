//! `kdsvd`: knowledge distillation by singular value decomposition.
//!
//! Lee, Kim, Song. *Self-supervised Knowledge Distillation Using Singular Value Decomposition*. ECCV 2018,
//! arXiv:1807.06819, equations 2 to 7; in the form that the benchmark of the CRD paper uses.
//!
//! Each sample's map is a matrix of H·W rows and C columns, M = U Σ Vᵀ. Of the teacher the first k right singular vectors are
//! taken, of the student the first k + 3, each divided by its L2 norm; so are the singular values that are taken. For each
//! vector of the teacher, the student's with the largest |cosine| is taken with the sign of that cosine. All are multiplied by
//! the teacher's σ. With R = exp(−(a − b)² / 8) of all pairs of entries a, b of the vectors of consecutive stages,
//!
//! L = Σ_stages Σ (Rˢ − Rᵗ)² / B, non-finite entries as 0.
//!
//! **The gradient** of the j-th right singular vector, an eigenvector of A = MᵀM with eigenvalue λ_j, is by perturbation theory
//!
//! dv_j = Σ_{i ≠ j} v_i · (v_iᵀ dA v_j) / (λ_j − λ_i).
//!
//! Only the vectors that are taken appear as j. libtorch's own gradient divides by the differences of all pairs and gives NaN
//! as soon as two channels are silent, although the vectors that are taken do not depend on them. Where λ_j and λ_i themselves
//! cannot be told apart in floating point, v_j is not a function of the map, and the term is left out.
//!
//! *Taps*: the stages, with as many channels on both sides. *Cost*: one SVD a sample and stage, by far the slowest method.
//! *State*: none. *Published weight*: 1, beside a cross-entropy of 1, k = 1: the method `kdsvd`.

use limbeck::checks::{consecutive, only_maps, same_channels};
use limbeck::prelude::*;

use crate::tensor::normalize;

limbeck::plugin! {
    distiller "kdsvd": KdSvd,
    summary: "singular vectors: how the main patterns of consecutive stages relate",
    citation: "Lee, Kim, Song. Self-supervised Knowledge Distillation Using Singular Value Decomposition. ECCV 2018, arXiv:1807.06819, equations 2 to 7",
    page: include_str!("kdsvd.rs"),
    method "kdsvd": MethodConfig::new(1.0).term(1.0, KdSvd::default()),
    summary: "cross-entropy and singular vectors",
}

/// How many more of the student's vectors are looked at.
const SPARE: i64 = 3;

/// Singular vectors.
#[derive(Clone, Debug, Settings)]
pub struct KdSvd {
    /// How many singular vectors of the teacher are taken.
    #[setting(default = 1)]
    pub k: i64,
}

/// How many singular vectors the map of a tap has at most.
fn rank(shape: &TapShape) -> i64 {
    shape.channels().min(shape.positions())
}

#[typetag::serde(name = "kdsvd")]
impl DistillerConfig for KdSvd {
    fn taps(&self, site: &Site<'_>) -> Result<TapPairs> {
        let taps = consecutive("kdsvd", only_maps("kdsvd", site.stages(Form::Output)?)?)?;
        same_channels("kdsvd", taps)
    }

    fn build(&self, site: &Site<'_>, _params: &nn::Path<'_>) -> Result<Box<dyn Distiller>> {
        let taps = self.taps(site)?;
        let most = taps.pairs.iter().map(|pair| rank(&pair.teacher_shape).min(rank(&pair.student_shape))).min();
        match most {
            Some(most) if (1..=most).contains(&self.k) => Ok(Box::new(LiveKdSvd { k: self.k })),
            _ => Err(Error::plan(format!("kdsvd: k must be between 1 and {}, not {}", most.unwrap_or(1), self.k))),
        }
    }
}

#[derive(Debug)]
struct LiveKdSvd {
    k: i64,
}

/// The first `n` right singular vectors, `[B, C, n]`, with their gradient, and singular values, `[B, n]`, without.
fn decompose(map: &Tensor, n: i64) -> (Tensor, Tensor) {
    let rows = map.flatten(2, -1).transpose(1, 2);
    // A GPU decomposes one small matrix after the other, many times slower than the CPU all of them.
    let (_, values, vectors) = limbeck::tch::no_grad(|| rows.to_device(Device::Cpu).svd(true, true));
    let (values, vectors) = (values.to_device(rows.device()), vectors.to_device(rows.device()));
    let rank = values.size()[1];
    let n = n.min(rank);
    let taken = vectors.narrow(2, 0, n);

    let a = rows.transpose(1, 2).bmm(&rows);
    // Zero, with the gradient of A: what is added to the vectors has no value, only their gradient.
    let change = (&a - a.detach()).bmm(&taken);
    let lambda = values.square();
    let gaps = lambda.narrow(1, 0, n).unsqueeze(1) - lambda.unsqueeze(2);
    let noise = lambda.narrow(1, 0, 1).unsqueeze(2) * (epsilon(&lambda) * rank as f64);
    let inverse = gaps.reciprocal().masked_fill(&gaps.abs().le_tensor(&noise), 0.0);
    let along = vectors.transpose(1, 2).bmm(&change);
    let mut taken = &taken + vectors.bmm(&(inverse * &along));
    if rank < vectors.size()[1] {
        // Fewer positions than channels: λ = 0 in all directions that are left.
        let own = lambda.narrow(1, 0, n).unsqueeze(1);
        let inverse = own.reciprocal().masked_fill(&own.le_tensor(&noise), 0.0);
        taken += (change - vectors.bmm(&along)) * inverse;
    }
    (normalize(&taken, 1), normalize(&values.narrow(1, 0, n), 1))
}

/// The distance from 1 to the next number.
fn epsilon(tensor: &Tensor) -> f64 {
    if tensor.kind() == Kind::Double { f64::EPSILON } else { f64::from(f32::EPSILON) }
}

/// For each vector of the teacher the student's that is nearest to it in direction, `[B, C, k]`.
fn align(student: &Tensor, teacher: &Tensor) -> Tensor {
    let cosine = student.transpose(1, 2).bmm(teacher);
    let nearest = cosine.abs().amax([1_i64].as_slice(), true);
    let mask = cosine.sign() * cosine.abs().eq_tensor(&nearest).to_kind(cosine.kind());
    student.bmm(&mask)
}

/// R of the vectors of two stages: `[B, C, k]`, `[B, D, k]` → `[B, C, D, k]`
fn relation(upper: &Tensor, lower: &Tensor) -> Tensor {
    ((upper.unsqueeze(2) - lower.unsqueeze(1)).square() / -8.0).exp()
}

impl Distiller for LiveKdSvd {
    fn loss(&mut self, step: &Step<'_>) -> Result<Terms> {
        let (batch, mut terms) = (step.batch() as f64, Terms::new());
        let mut below: Option<(Tensor, Tensor)> = None;
        for (i, (student, teacher)) in step.pairs()?.into_iter().enumerate() {
            let (v_t, sigma) = decompose(teacher, self.k);
            let (v_s, _) = decompose(student, self.k + SPARE);
            let sigma = sigma.unsqueeze(1);
            let (v_s, v_t) = (align(&v_s, &v_t) * &sigma, v_t * &sigma);
            if let Some((s, t)) = &below {
                let squares = (relation(&v_s, s) - relation(&v_t, t)).square();
                let finite = squares.where_self(&squares.isfinite(), &squares.zeros_like());
                terms = terms.loss(&format!("relation{i}"), finite.sum(None::<Kind>) / batch);
            }
            below = Some((v_s, v_t));
        }
        Ok(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::wave;

    /// Σ of fixed weights times the first vectors, with the sign in which their largest entry is positive.
    fn probe(map: &Tensor, n: i64) -> Tensor {
        let (vectors, _) = decompose(map, n);
        let largest = vectors.gather(1, &vectors.detach().abs().argmax(1, true), false).sign();
        (&vectors * largest * wave(&vectors.size(), 0.4)).sum(None::<Kind>)
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences_with_silent_channels_and_few_positions() {
        for (channels, height) in [(6, 4), (12, 3)] {
            // Not a plain wave, which has two singular values.
            let map = (wave(&[2, channels, height, height], 0.9) * 4321.0).sin();
            // Two silent channels: two singular values of zero.
            let _ = map.narrow(1, 2, 2).zero_();
            let map = map.set_requires_grad(true);
            probe(&map, 3).backward();
            let gradient = map.grad();
            assert!(gradient.isfinite().all().int64_value(&[]) == 1);
            let direction = wave(&map.size(), 2.3);
            let step = 1e-6;
            let found = (&gradient * &direction).sum(None::<Kind>).double_value(&[]);
            let [ahead, behind] =
                [1.0, -1.0].map(|sign: f64| probe(&(map.detach() + &direction * (sign * step)), 3).double_value(&[]));
            let expected = (ahead - behind) / (2.0 * step);
            assert!(
                (found - expected).abs() < 1e-6 * expected.abs().max(1.0),
                "{channels} channels: {found} {expected}"
            );
        }
    }

    #[test]
    fn a_map_of_zeros_has_no_gradient() {
        let map = Tensor::zeros([1, 6, 4, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (vectors, values) = decompose(&map, 3);
        (vectors * 0.3).sum(None::<Kind>).backward();
        assert_eq!((map.grad().abs().max().double_value(&[]), values.abs().max().double_value(&[])), (0.0, 0.0));
    }
}
