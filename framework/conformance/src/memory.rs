//! Whether the process's memory grows.

use limbeck::error::{Error, Result};
use limbeck::memory;

/// Takes what memory the process holds and does not use: what is kept would vanish there.
fn fill_holes() -> Vec<Vec<u8>> {
    const BLOCK: usize = 4 << 10;
    const BLOCKS: usize = 256;
    let (mut taken, mut grown) = (Vec::new(), 0);
    while grown < 2 && taken.len() < 256 * BLOCKS {
        let before = memory::resident();
        taken.extend((0..BLOCKS).map(|_| vec![1; BLOCK]));
        let (Some(before), Some(after)) = (before, memory::resident()) else { break };
        grown = if after >= before + (BLOCK * BLOCKS / 2) as u64 { grown + 1 } else { 0 };
    }
    taken
}

/// Does `work` again and again, until resident memory has stood still for three rounds. It never does if each call leaves
/// `bytes` behind: then every round grows by more than half of what that makes. Others may allocate meanwhile, so that one
/// round proves nothing.
pub fn memory_is_steady(bytes: usize, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    const ROUNDS: u64 = 16;
    const LEFT_BY_ROUND: u64 = 1 << 20;
    let _ballast = fill_holes();
    let calls = LEFT_BY_ROUND.div_ceil(bytes.max(1) as u64).clamp(4, 64);
    let mut still = 0;
    for _ in 0..ROUNDS {
        let before = memory::resident();
        (0..calls).try_for_each(|_| work())?;
        let (Some(before), Some(after)) = (before, memory::resident()) else { return Ok(()) };
        still = if after > before + calls * bytes as u64 / 2 { 0 } else { still + 1 };
        if still == 3 {
            return Ok(());
        }
    }
    Err(Error::run(format!(
        "memory kept growing over {} calls: something of every call is kept, for example a tensor with its graph (detach \
         what is remembered, and change it in place)",
        ROUNDS * calls
    )))
}
