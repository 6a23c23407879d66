//! Ending before the end: a request from outside, or a limit on what one call does.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much one call does at most, counted over every cohort that shares a [`Stop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Steps of training.
    Steps(u64),
    /// Ends of epochs.
    Epochs(u64),
    /// Time on the clock since [`Stop::new`].
    Time(Duration),
}

/// The number before a unit, which may lack its last letter.
fn number_of(unit: &str, text: &str) -> Option<u64> {
    let number = text.strip_suffix(unit).or_else(|| text.strip_suffix(&unit[..unit.len() - 1]))?;
    number.trim().parse::<u64>().ok()
}

impl FromStr for Limit {
    type Err = String;

    /// Reads `500steps`, `3epochs`, or a time as in `90s`, `1h 30m`.
    fn from_str(text: &str) -> Result<Self, String> {
        let limit = number_of("steps", text)
            .map(Limit::Steps)
            .or_else(|| number_of("epochs", text).map(Limit::Epochs))
            .or_else(|| humantime::parse_duration(text).ok().map(Limit::Time));
        match limit {
            Some(Limit::Steps(0) | Limit::Epochs(0)) | None => {
                Err(format!("{text:?} is no limit: give 500steps, 3epochs, or a time such as 90s or 1h30m"))
            }
            Some(limit) => Ok(limit),
        }
    }
}

/// Asks cohorts to finish their step, give up an evaluation, write their checkpoints and return. Share it by reference or in an `Arc`.
#[derive(Debug)]
pub struct Stop {
    requested: AtomicBool,
    limit: Option<Limit>,
    began: Instant,
    counted: AtomicU64,
}

impl Default for Stop {
    /// Stops only when [requested](Stop::request).
    fn default() -> Self {
        Stop::new(None)
    }
}

impl Stop {
    /// Stops when requested, or once the limit is reached.
    pub fn new(limit: Option<Limit>) -> Self {
        Stop { requested: AtomicBool::new(false), limit, began: Instant::now(), counted: AtomicU64::new(0) }
    }

    /// Asks to stop after the current step; returns whether that was asked before. It only sets a flag: a signal handler
    /// may call it.
    pub fn request(&self) -> bool {
        self.requested.swap(true, Ordering::SeqCst)
    }

    /// Whether a stop was asked for: then an evaluation is given up, and done again by the next call. A limit waits for its
    /// end, since one that is shorter than the evaluation would never get beyond it.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Whether a stop was asked for or the limit is reached.
    pub fn is_due(&self) -> bool {
        let reached = match self.limit {
            None => false,
            Some(Limit::Steps(most) | Limit::Epochs(most)) => self.counted.load(Ordering::SeqCst) >= most,
            Some(Limit::Time(most)) => self.began.elapsed() >= most,
        };
        reached || self.is_requested()
    }

    /// Counts a step of training.
    pub(super) fn count(&self, epoch_ends: bool) {
        if match self.limit {
            Some(Limit::Steps(_)) => true,
            Some(Limit::Epochs(_)) => epoch_ends,
            _ => false,
        } {
            self.counted.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        for (text, limit) in [
            ("500steps", Limit::Steps(500)),
            ("1 step", Limit::Steps(1)),
            ("3epochs", Limit::Epochs(3)),
            ("1 epoch", Limit::Epochs(1)),
            ("90s", Limit::Time(Duration::from_secs(90))),
            ("1h 30m", Limit::Time(Duration::from_secs(5400))),
        ] {
            assert_eq!(text.parse(), Ok(limit), "{text}");
        }
        for text in ["", "0steps", "500", "steps", "-1epochs", "soon"] {
            assert_eq!(
                text.parse::<Limit>().unwrap_err(),
                format!("{text:?} is no limit: give 500steps, 3epochs, or a time such as 90s or 1h30m")
            );
        }
    }

    #[test]
    fn a_stop_is_due_when_requested_or_counted_out() {
        let stop = Stop::default();
        stop.count(true);
        assert!(!stop.is_due());
        assert!(!stop.request());
        assert!(stop.is_due() && stop.request());
        let stop = Stop::new(Some(Limit::Epochs(2)));
        [false, true, false].into_iter().for_each(|ends| stop.count(ends));
        assert!(!stop.is_due());
        stop.count(true);
        assert!(stop.is_due());
        assert!(Stop::new(Some(Limit::Time(Duration::ZERO))).is_due());
    }
}
