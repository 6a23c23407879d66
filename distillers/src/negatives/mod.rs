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

/// Draws `out.len()` uniform positions of `0..population`, each at most once, or independently if there are too few.
pub fn draw_positions(mut rng: Rng, population: usize, out: &mut [i64]) {
    if out.len() > population {
        out.fill_with(|| rng.below(population as u64) as i64);
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        if 2 * out.len() <= population {
            reject_repeated(&mut rng, population, &mut scratch.taken, out);
        } else {
            shuffle_start(&mut rng, population, &mut scratch.order, out);
        }
    });
}

/// Draws again what has been drawn: under two tries each while at most half of the positions are wanted.
fn reject_repeated(rng: &mut Rng, population: usize, taken: &mut Vec<u64>, out: &mut [i64]) {
    taken.clear();
    taken.resize(population.div_ceil(64), 0);
    let mut found = 0;
    while found < out.len() {
        let position = rng.below(population as u64);
        let word = &mut taken[(position / 64) as usize];
        let bit = 1 << (position % 64);
        // No branch: whether the place is kept is as random as the draw, and a mispredicted jump costs more than a try.
        out[found] = position as i64;
        found += usize::from(*word & bit == 0);
        *word |= bit;
    }
}

/// The start of a Fisher–Yates shuffle.
fn shuffle_start(rng: &mut Rng, population: usize, order: &mut Vec<u32>, out: &mut [i64]) {
    order.clear();
    order.extend(0..population as u32);
    for (i, slot) in out.iter_mut().enumerate() {
        let drawn = i + rng.below((population - i) as u64) as usize;
        *slot = i64::from(order[drawn]);
        order[drawn] = order[i];
    }
}

/// Draws `count` rows for every anchor: `[B, count]`, int64, on the draw's device.
///
/// `candidates(r)` says how many candidates the anchor of row r has, and which row each of them is. `buffer` is scratch
/// memory.
fn draw_rows<Place: Fn(usize) -> i64>(
    draw: &Draw<'_>,
    count: usize,
    buffer: &mut Vec<i64>,
    candidates: impl Fn(usize) -> (usize, Place) + Sync,
) -> Tensor {
    let (anchors, seed) = (draw.rows.host(), draw.seed);
    buffer.resize(anchors.len() * count, 0);
    buffer.par_chunks_exact_mut(count).zip(anchors).for_each(|(out, anchor)| {
        let (population, place) = candidates(*anchor as usize);
        draw_positions(seed.at(*anchor as u64).rng(), population, out);
        for slot in out {
            *slot = place(*slot as usize);
        }
    });
    Tensor::from_slice(buffer).view([anchors.len() as i64, count as i64]).to_device(draw.device)
}

/// Refuses a count of zero.
fn check_count(kind: &str, count: usize) -> Result<()> {
    match count {
        0 => Err(Error::plan(format!("{kind}: count must be at least 1"))),
        _ => Ok(()),
    }
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

    #[test]
    fn draws_are_uniform_with_and_without_replacement() {
        for (population, count) in [(40, 10), (40, 20), (40, 30), (40, 40), (40, 60)] {
            let mut counts = vec![0_u32; population];
            let mut firsts = vec![0_u32; population];
            let mut out = vec![0; count];
            let rounds = 20_000;
            for round in 0..rounds {
                draw_positions(Seed::new(3).at(round).rng(), population, &mut out);
                let mut sorted = out.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len() == count, count <= population, "{count} of {population}");
                firsts[out[0] as usize] += 1;
                out.iter().for_each(|position| counts[*position as usize] += 1);
            }
            let chi2 = |counts: &[u32], draws: f64| {
                let expected = draws / population as f64;
                counts.iter().map(|c| (f64::from(*c) - expected).powi(2) / expected).sum::<f64>()
            };
            // 39 degrees of freedom: 72.1 is the 99.9 % quantile. Without replacement the sum is smaller still.
            assert!(chi2(&counts, rounds as f64 * count as f64) < 72.1);
            assert!(chi2(&firsts, rounds as f64) < 72.1);
        }
    }
}
