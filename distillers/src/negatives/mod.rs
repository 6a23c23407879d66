//! Negative samplers: which samples an anchor is told apart from.
//!
//! Drawing happens on the host, one anchor per task, and an anchor's draw is a function of the step's seed and of the
//! anchor's own row: not of its place in the batch, and not of the number of threads.

pub mod hardest;
pub mod in_batch;
pub mod other_class;
pub mod other_instance;
pub mod whole_bank;

use std::cell::RefCell;
use std::mem::MaybeUninit;

use limbeck::prelude::*;
use limbeck::seed::Rng;
use rayon::prelude::*;

/// What a draw needs beside its result, kept from anchor to anchor.
#[derive(Default)]
struct Scratch {
    /// One bit for each position: drawn already.
    taken: Vec<u64>,
    /// All positions, in the course of being shuffled.
    order: Vec<u32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Fills all of `out` with the places of uniform positions of `0..population`, each position at most once, or independently if there
/// are too few.
fn draw_places(mut rng: Rng, population: u32, place: impl Fn(usize) -> i64, out: &mut [MaybeUninit<i64>]) {
    if out.len() > population as usize {
        out.fill_with(|| MaybeUninit::new(place(rng.below(population.into()) as usize)));
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        if 2 * out.len() <= population as usize {
            reject_repeated(&mut rng, population, &mut scratch.taken, place, out);
        } else {
            shuffle_start(&mut rng, population, &mut scratch.order, place, out);
        }
    });
}

/// Draws again what has been drawn: under two tries each while at most half of the positions are wanted.
fn reject_repeated(
    rng: &mut Rng,
    population: u32,
    taken: &mut Vec<u64>,
    place: impl Fn(usize) -> i64,
    out: &mut [MaybeUninit<i64>],
) {
    taken.clear();
    taken.resize(population.div_ceil(64) as usize, 0);
    // A product of 32 random bits with the population has the position in its upper half. Where its lower half is below this,
    // some positions would come more often than others (Lemire. Fast random integer generation in an interval. ACM TOMACS
    // 29, 2019).
    let uneven = population.wrapping_neg() % population;
    let mut found = 0;
    while found < out.len() {
        let bits = rng.next_u64();
        for half in [bits as u32, (bits >> 32) as u32] {
            let product = u64::from(half) * u64::from(population);
            let position = (product >> 32) as usize;
            let word = &mut taken[position / 64];
            let bit = u64::from(product as u32 >= uneven) << (position % 64);
            // No branch: whether the place is kept is as random as the draw, and a mispredicted jump costs more than a try.
            // The second half of the last word may have nothing left to fill.
            if let Some(slot) = out.get_mut(found) {
                slot.write(place(position));
            }
            found += usize::from(!*word & bit != 0);
            *word |= bit;
        }
    }
}

/// The start of a Fisher–Yates shuffle.
fn shuffle_start(
    rng: &mut Rng,
    population: u32,
    order: &mut Vec<u32>,
    place: impl Fn(usize) -> i64,
    out: &mut [MaybeUninit<i64>],
) {
    order.clear();
    order.extend(0..population);
    for (i, slot) in out.iter_mut().enumerate() {
        let drawn = i + rng.below(u64::from(population) - i as u64) as usize;
        slot.write(place(order[drawn] as usize));
        order[drawn] = order[i];
    }
}

/// Draws `count` rows for every anchor: `[B, count]`, int64, on the draw's device.
///
/// `candidates(r)` says how many candidates the anchor of row r has, and which row each of them is.
fn draw_rows<Place: Fn(usize) -> i64>(
    draw: &Draw<'_>,
    count: usize,
    candidates: impl Fn(usize) -> (usize, Place) + Sync,
) -> Tensor {
    let (anchors, seed) = (draw.rows.host(), draw.seed);
    let rows = Tensor::empty([anchors.len() as i64, count as i64], (Kind::Int64, Device::Cpu));
    // Filled in place, since copying a million places takes as long as drawing them, and here, since libtorch's own threads,
    // once they have filled it, wait for more on the cores that are needed now.
    // SAFETY: the tensor is new, contiguous, of so many int64 on the host, and nobody else has it yet; all of it is written.
    let places = unsafe { std::slice::from_raw_parts_mut(rows.data_ptr().cast::<MaybeUninit<i64>>(), rows.numel()) };
    places.par_chunks_exact_mut(count).zip(anchors).for_each(|(out, anchor)| {
        let (population, place) = candidates(*anchor as usize);
        draw_places(seed.at(*anchor as u64).rng(), population as u32, place, out);
    });
    rows.to_device(draw.device)
}

/// Refuses a training set in which nobody has a negative.
fn check_others(kind: &str, site: &Site<'_>) -> Result<()> {
    match site.samples() {
        0 | 1 => Err(Error::plan(format!("{kind}: there is no other sample in a training set of {}", site.samples()))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `draws` draws, which would come equally often.
    fn chi2(counts: &[u32], draws: f64) -> f64 {
        let expected = draws / counts.len() as f64;
        counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn draws_are_uniform_with_and_without_replacement() {
        for (population, count) in [(40_u32, 10), (40, 20), (40, 30), (40, 40), (40, 60)] {
            let mut counts = vec![0_u32; population as usize];
            let mut firsts = vec![0_u32; population as usize];
            let mut slots = vec![MaybeUninit::uninit(); count];
            let rounds = 20_000;
            for round in 0..rounds {
                draw_places(Seed::new(3).at(round).rng(), population, |position| position as i64, &mut slots);
                // SAFETY: all of them are written.
                let out: Vec<i64> = slots.iter().map(|slot| unsafe { slot.assume_init() }).collect();
                let mut sorted = out.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len() == count, count <= population as usize, "{count} of {population}");
                firsts[out[0] as usize] += 1;
                out.iter().for_each(|position| counts[*position as usize] += 1);
            }
            // 39 degrees of freedom: 72.1 is the 99.9 % quantile. Without replacement the sum is smaller still.
            assert!(chi2(&counts, rounds as f64 * count as f64) < 72.1);
            assert!(chi2(&firsts, rounds as f64) < 72.1);
        }
    }
}
