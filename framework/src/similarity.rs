//! What a student took from a teacher: numbers of two networks on the same samples, in evaluation mode.

use tch::{Kind, Tensor, no_grad_guard};

use crate::error::{Error, Result};

/// The share of samples, in percent, of which student and teacher have the same first guess. Logits are `[N, classes]`.
///
/// # Errors
/// If the device fails.
pub fn agreement(student: &Tensor, teacher: &Tensor) -> Result<f64> {
    let same = student.argmax(1, false).eq_tensor(&teacher.argmax(1, false));
    read(&(same.mean(Kind::Double) * 100.0), "the agreement")
}

/// The mean Kullback–Leibler divergence KL(teacher ‖ student) of the class probabilities at temperature 1, in nats. Logits
/// are `[N, classes]`.
///
/// # Errors
/// If it is not finite: the logits overflowed.
pub fn divergence(student: &Tensor, teacher: &Tensor) -> Result<f64> {
    let [student, teacher] = [student, teacher].map(|logits| logits.to_kind(Kind::Double).log_softmax(1, Kind::Double));
    let each = (teacher.exp() * (&teacher - student)).sum_dim_intlist(1, false, Kind::Double);
    read(&each.mean(Kind::Double), "the divergence from the teacher")
}

/// How the logits of the classes are correlated over samples, `[N, C]`, or over samples and places, `[N, C, …]`: `[C, C]`,
/// float64. The difference of these matrices between teacher and student is what figures of the CRD paper (arXiv
/// 1910.10699) show. A class whose logit never changes is correlated with nothing.
pub fn class_correlation(logits: &Tensor) -> Tensor {
    let _no_grad = no_grad_guard();
    logits.to_kind(Kind::Double).transpose(0, 1).flatten(1, -1).corrcoef().nan_to_num(0.0, None, None)
}

/// The mean absolute difference of two correlation matrices `[C, C]` off their diagonals, which are both 1.
///
/// # Errors
/// If the device fails.
pub fn correlation_difference(student: &Tensor, teacher: &Tensor) -> Result<f64> {
    let classes = student.size()[0] as f64;
    let sum = (teacher - student).abs().triu(1).sum(Kind::Double) * 2.0;
    read(&(sum / (classes * (classes - 1.0)).max(1.0)), "the difference of the correlations")
}

/// Linear centred kernel alignment (Kornblith et al., arXiv 1905.00414) of every tap of one network with every tap of
/// another, gathered batch by batch: numerator and denominators are sums over batches of the unbiased estimator of HSIC,
/// each batch weighted by its samples (Nguyen et al., arXiv 2010.15327).
#[derive(Debug)]
pub struct Alignment {
    /// `[S, T]`: summed HSIC of the taps of the one with those of the other.
    cross: Tensor,
    /// `[S]` and `[T]`: of each tap with itself.
    own: [Tensor; 2],
}

impl Alignment {
    /// Nothing gathered yet.
    pub fn new(device: tch::Device) -> Self {
        let [cross, first, second] = [(); 3].map(|()| Tensor::zeros([] as [i64; 0], (Kind::Double, device)));
        Alignment { cross, own: [first, second] }
    }

    /// Adds a batch. Batches of fewer than four samples have no unbiased estimate and are passed over.
    pub fn add(&mut self, first: &Kernels, second: &Kernels) {
        let _no_grad = no_grad_guard();
        let samples = first.0.size()[1];
        if samples < 4 {
            return;
        }
        let weight = samples as f64;
        self.cross = &self.cross + first.hsic(second) * weight;
        for (sum, kernels) in self.own.iter_mut().zip([first, second]) {
            *sum = &*sum + kernels.hsic(kernels).diagonal(0, 0, 1) * weight;
        }
    }

    /// The alignment of each tap of the first with each of the second, row by row: 1 for equal geometries, about 0 for
    /// unrelated ones. Nothing where a tap did not vary, or no batch was large enough.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self) -> Result<Vec<Vec<Option<f64>>>> {
        let [first, second] = &self.own;
        if self.cross.dim() == 0 {
            return Ok(Vec::new());
        }
        let norm = (first.unsqueeze(1) * second.unsqueeze(0)).sqrt();
        let rows: Vec<Vec<f64>> = Vec::try_from(&self.cross / norm)?;
        let mut alignments = Vec::new();
        for row in rows {
            alignments.push(row.into_iter().map(|value| value.is_finite().then_some(value)).collect());
        }
        Ok(alignments)
    }
}

/// The linear kernels of some taps on one batch of `B` samples, without their diagonals: `[taps, B, B]`, float64.
#[derive(Debug)]
pub struct Kernels(Tensor);

impl Kernels {
    /// Of taps `[B, …]`. HSIC does not change with the features' mean: it is taken off first, for the sake of the last digits.
    pub fn of(taps: &[&Tensor]) -> Self {
        let _no_grad = no_grad_guard();
        let mut kernels = Vec::new();
        for tap in taps {
            let features = tap.to_kind(Kind::Float).flatten(1, -1);
            let features = &features - features.mean_dim(0, true, Kind::Float);
            kernels.push(features.matmul(&features.tr()).to_kind(Kind::Double).fill_diagonal_(0.0, false));
        }
        Kernels(Tensor::stack(&kernels, 0))
    }

    /// The unbiased estimate of HSIC (Song et al., Journal of Machine Learning Research 13, 2012) of each of our taps with each of theirs: `[S, T]`.
    fn hsic(&self, other: &Kernels) -> Tensor {
        let n = self.0.size()[1] as f64;
        let [ours, theirs] = [self, other].map(|kernels| kernels.0.sum_dim_intlist(2, false, Kind::Double));
        let traces = self.0.flatten(1, 2).matmul(&other.0.flatten(1, 2).tr());
        let [our_total, their_total] = [&ours, &theirs].map(|rows| rows.sum_dim_intlist(1, true, Kind::Double));
        let totals = our_total.matmul(&their_total.tr()) / ((n - 1.0) * (n - 2.0));
        let mixed = ours.matmul(&theirs.tr()) * (2.0 / (n - 2.0));
        (traces + totals - mixed) / (n * (n - 3.0))
    }
}

/// Reads a scalar from the device.
fn read(value: &Tensor, what: &str) -> Result<f64> {
    let value = f64::try_from(value)?;
    if value.is_finite() { Ok(value) } else { Err(Error::run(format!("{what} is not finite"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;
    use tch::Device;

    fn logits(rows: [[f64; 3]; 4]) -> Tensor {
        Tensor::from_slice2(&rows)
    }

    #[test]
    fn agreement_and_divergence_by_hand() {
        let teacher = logits([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]);
        let student = logits([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);
        assert_eq!(agreement(&student, &teacher).unwrap(), 50.0);
        // Two rows are equal; in the others the probabilities e/(e+2) and 1/(e+2) have changed places.
        let e = 1f64.exp();
        assert_relative_eq!(divergence(&student, &teacher).unwrap(), (e - 1.0) / (e + 2.0) / 2.0, epsilon = 1e-14);
        let broken = logits([[f64::INFINITY, 0.0, 0.0]; 4]);
        let message = divergence(&broken, &teacher).unwrap_err().to_string();
        assert_eq!(message, "the divergence from the teacher is not finite");
    }

    #[test]
    fn correlations_of_classes() {
        fn flat(t: &Tensor) -> Vec<f64> {
            Vec::<f64>::try_from(t.flatten(0, -1)).unwrap()
        }

        // The second class follows the first, the third runs against it; the deviations (−3, −1, 1, 3) and (−1, 1, −1, 1)
        // of another matrix have correlation 4 / √(20 · 4).
        let one = logits([[0.0, 1.0, 9.0], [2.0, 2.0, 7.0], [4.0, 3.0, 5.0], [6.0, 4.0, 3.0]]);
        let other = logits([[0.0, 0.0, 5.0], [2.0, 1.0, 5.0], [4.0, 0.0, 5.0], [6.0, 1.0, 5.0]]);
        let (one, other) = (class_correlation(&one), class_correlation(&other));
        assert_relative_eq!(flat(&one)[..3], [1.0, 1.0, -1.0], epsilon = 1e-14);
        let r = 4.0 / 80f64.sqrt();
        assert_relative_eq!(flat(&other)[..3], [1.0, r, 0.0], epsilon = 1e-14);
        // Off the diagonal: |1 − r|, |−1 − 0|, |−1 − 0|, each twice, of six.
        assert_relative_eq!(correlation_difference(&one, &other).unwrap(), (3.0 - r) / 3.0, epsilon = 1e-14);
    }

    /// Numbers of the kind that nothing is special about.
    fn features(rows: i64, columns: i64, phase: f64) -> Tensor {
        let grid = Tensor::arange(rows * columns, (Kind::Double, Device::Cpu)).reshape([rows, columns]);
        ((grid * 12.9898 + phase).sin() * 3.7).sin()
    }

    fn alignment(batches: &[(Tensor, Tensor)]) -> f64 {
        let mut sums = Alignment::new(Device::Cpu);
        batches.iter().for_each(|(x, y)| sums.add(&Kernels::of(&[x]), &Kernels::of(&[y])));
        sums.read().unwrap()[0][0].unwrap()
    }

    #[test]
    fn alignment_does_not_change_with_rotation_scale_and_mean() {
        let x = features(12, 2, 0.3);
        let (sin, cos) = 0.7f64.sin_cos();
        let turned = x.matmul(&Tensor::from_slice2(&[[cos, sin], [-sin, cos]])) * 5.0 + 100.0;
        assert_relative_eq!(alignment(&[(x, turned)]), 1.0, epsilon = 1e-5);
    }

    #[test]
    fn alignment_equals_reference_numbers() {
        fn pair(n: i64, phase: f64) -> (Tensor, Tensor) {
            (features(n, 5, phase), features(n, 3, phase + 1.0))
        }

        // NumPy 2, the U-statistic written out as sums over i, j, q, r, all different, in float64.
        assert_relative_eq!(alignment(&[pair(6, 0.1)]), 0.1811995218010804, epsilon = 1e-6);
        assert_relative_eq!(alignment(&[pair(6, 0.1), pair(5, 2.0)]), 0.2657380184087858, epsilon = 1e-6);
        // Three samples are passed over.
        assert_relative_eq!(alignment(&[pair(6, 0.1), pair(3, 2.0)]), 0.1811995218010804, epsilon = 1e-6);
        let mut none = Alignment::new(Device::Cpu);
        let (x, y) = pair(3, 0.0);
        none.add(&Kernels::of(&[&x]), &Kernels::of(&[&y]));
        assert!(none.read().unwrap().is_empty());
    }
}
