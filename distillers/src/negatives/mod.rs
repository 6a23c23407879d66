//! Negative samplers: which samples an anchor is told apart from.
//!
//! Drawing happens on the host, one anchor per task, and an anchor's draw is a function of the step's seed and of the
//! anchor's own row: not of its place in the batch, and not of the number of threads.

pub mod other_class;
pub mod other_instance;
pub mod whole_bank;

use std::cell::RefCell;

use limbeck::prelude::*;
use limbeck::seed::Rng;
use rayon::prelude::*;

thread_local! {
    /// 0, 1, 2, …: between two draws every element is its own index.
    static IDENTITY: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Draws `out.len()` uniform positions of `0..population`, each at most once, or independently if there are too few.
///
/// Without replacement this is the start of a Fisher–Yates shuffle. The shuffled array is a lasting identity that is
/// repaired on the way out, so that a draw costs O(K) and not O(population).
pub fn draw_positions(mut rng: Rng, population: usize, out: &mut [i64]) {
    if out.len() > population {
        out.fill_with(|| rng.below(population as u64) as i64);
        return;
    }
    IDENTITY.with_borrow_mut(|order| {
        let known = order.len() as u32;
        order.extend(known..known.max(population as u32));
        let count = out.len();
        for i in 0..count {
            order.swap(i, i + rng.below((population - i) as u64) as usize);
        }
        // Beyond the first K, an element has moved only if it was drawn.
        for (i, slot) in out.iter_mut().enumerate() {
            let drawn = order[i];
            *slot = i64::from(drawn);
            order[i] = i as u32;
            if drawn as usize >= count {
                order[drawn as usize] = drawn;
            }
        }
    });
}

/// Draws `count` rows for every anchor: `[B, count]`, int64, on the draw's device.
///
/// The anchor of row r has `population(r)` candidates, and `place(r, position)` is the row of one of them. `buffer` is
/// scratch memory.
fn draw_rows(
    draw: &Draw<'_>,
    count: usize,
    buffer: &mut Vec<i64>,
    population: impl Fn(usize) -> usize + Sync,
    place: impl Fn(usize, usize) -> i64 + Sync,
) -> Tensor {
    let (anchors, seed) = (draw.rows.host(), draw.seed);
    buffer.resize(anchors.len() * count, 0);
    buffer.par_chunks_exact_mut(count).zip(anchors).for_each(|(out, anchor)| {
        let row = *anchor as usize;
        draw_positions(seed.at(row as u64).rng(), population(row), out);
        for slot in out {
            *slot = place(row, *slot as usize);
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
        for (population, count) in [(40, 10), (40, 40), (40, 60)] {
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

    #[test]
    fn the_lasting_identity_is_repaired() {
        let draw = |population, count| {
            let mut out = vec![0; count];
            draw_positions(Seed::new(8).rng(), population, &mut out);
            out
        };
        let first = draw(1000, 700);
        for (population, count) in [(10, 10), (2000, 1999), (1000, 1), (3, 2)] {
            draw(population, count);
        }
        assert_eq!(draw(1000, 700), first);
        IDENTITY.with_borrow(|order| assert!(order.iter().enumerate().all(|(i, value)| i == *value as usize)));
    }
}
