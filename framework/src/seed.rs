//! Randomness as a function: every draw is computed from (seed, stream name, positions) and from nothing else.
//!
//! There is no generator whose state would have to be saved: a resumed run asks the same questions and gets the same
//! answers, and two lanes of a cohort cannot disturb each other. The mixing function is SplitMix64 (Steele, Lea and
//! Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014), used as a counter-based generator.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::Tensor;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
const MIX_1: u64 = 0xBF58_476D_1CE4_E5B9;
const MIX_2: u64 = 0x94D0_49BB_1331_11EB;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(MIX_1);
    z = (z ^ (z >> 27)).wrapping_mul(MIX_2);
    z ^ (z >> 31)
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// A point in the tree of random streams. Narrow it by name and by position, then draw.
///
/// ```
/// use limbeck::seed::Seed;
/// let order = Seed::new(7).stream("order").at(3).rng().permutation(10);
/// assert_eq!(order, Seed::new(7).stream("order").at(3).rng().permutation(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The root of all streams of a run.
    pub fn new(seed: u64) -> Self {
        Seed(mix(seed.wrapping_add(GOLDEN)))
    }

    /// The stream of that name below this point.
    pub fn stream(self, name: &str) -> Self {
        Seed(mix(self.0 ^ fnv1a(name)))
    }

    /// The `position`th child: an epoch, a step, a row.
    pub fn at(self, position: u64) -> Self {
        Seed(mix(self.0.wrapping_add(position.wrapping_add(1).wrapping_mul(GOLDEN))))
    }

    /// A generator that starts here.
    pub fn rng(self) -> Rng {
        // Salted: the generator's draws are not the children that `at` gives.
        Rng { state: mix(self.0 ^ fnv1a("generator")) }
    }

    /// Seeds libtorch's own generators (dropout, parameter initialisation) and keeps every other user of this function
    /// waiting until the guard is dropped: the generators are global to the process. The CPU's keeps 32 bits of its
    /// seed only, so 32 well-mixed bits are what it gets.
    pub fn seed_libtorch(self) -> MutexGuard<'static, ()> {
        static GENERATORS: Mutex<()> = Mutex::new(());
        // A panic while drawing leaves nothing behind: the next user seeds anew.
        let guard = GENERATORS.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed((mix(self.0) >> 32) as i64);
        guard
    }

    /// One draw per row, on the rows' own device: 62 uniform bits for each element of `rows` (int64, any shape).
    ///
    /// A row's draw depends on the row alone, not on its place in the batch. Take a number below n with
    /// `remainder(n)`; for n up to a million its bias is below 1e-12.
    pub fn draw_rows(self, rows: &Tensor) -> Tensor {
        fn logical_shift_right(z: &Tensor, bits: i64) -> Tensor {
            z.bitwise_right_shift_tensor_scalar(bits).bitwise_and((1_i64 << (64 - bits)) - 1)
        }
        let mut z = (rows + 1) * (GOLDEN as i64) + (self.0 as i64);
        z = z.bitwise_xor_tensor(&logical_shift_right(&z, 30)) * (MIX_1 as i64);
        z = z.bitwise_xor_tensor(&logical_shift_right(&z, 27)) * (MIX_2 as i64);
        z = z.bitwise_xor_tensor(&logical_shift_right(&z, 31));
        logical_shift_right(&z, 2)
    }
}

/// A small, fast generator on the host; created by [`Seed::rng`] and never stored across steps.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The generator that a name alone gives: SplitMix64 from the name's FNV-1a hash on.
    pub fn named(name: &str) -> Self {
        Rng { state: fnv1a(name) }
    }

    /// 64 uniform bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `0..bound` by multiplication and shift; the bias is below `bound` / 2⁶⁴.
    ///
    /// A `bound` of 0 gives 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in [0, 1) with 53 bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform in [`low`, `high`).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A uniform permutation of `0..n` (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..n as i64).collect();
        self.shuffle(&mut order);
        order
    }

    /// Shuffles in place (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_positions_are_independent_of_each_other() {
        let root = Seed::new(1);
        let values =
            [root, root.stream("a"), root.stream("b"), root.at(0), root.at(1), Seed::new(2), root.stream("a").at(0)];
        for (i, a) in values.iter().enumerate() {
            for b in &values[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(root.stream("a").at(3), Seed::new(1).stream("a").at(3));
    }

    #[test]
    fn the_hash_and_the_generator_are_as_published() {
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Rng { state: 0 }.next_u64(), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn a_permutation_holds_every_row_once_and_moves_most() {
        let order = Seed::new(0).stream("order").at(1).rng().permutation(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<i64>>());
        assert!(order.iter().enumerate().filter(|(i, r)| *i as i64 == **r).count() < 10);
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = Seed::new(5).rng();
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[rng.below(10) as usize] += 1;
        }
        let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - 10_000.0).powi(2) / 10_000.0).sum();
        assert!(chi2 < 30.0, "chi-squared with 9 degrees of freedom: {chi2}");
    }

    #[test]
    fn the_draw_of_a_row_does_not_depend_on_the_batch() {
        let seed = Seed::new(9).stream("augment").at(4);
        let rows = Tensor::from_slice(&[5_i64, 49_999, 0, 17]);
        let all: Vec<i64> = Vec::try_from(seed.draw_rows(&rows)).unwrap();
        let one: Vec<i64> = Vec::try_from(seed.draw_rows(&Tensor::from_slice(&[17_i64]))).unwrap();
        assert_eq!(all[3], one[0]);
        assert!(all.iter().all(|v| *v >= 0));
        let many = seed.draw_rows(&Tensor::arange(90_000, (tch::Kind::Int64, tch::Device::Cpu))).remainder(9);
        let counts = many.bincount::<Tensor>(None, 9);
        let spread = (counts - 10_000.0).abs().max().double_value(&[]);
        assert!(spread < 500.0, "nine cells of 10000 each, off by {spread}");
    }
}
