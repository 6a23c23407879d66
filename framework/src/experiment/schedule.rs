//! When a term of a method has weight: `[method.NAME.terms.schedule]`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fault::Fault;

/// When a term's weight applies, by epochs of the main stage, which count from 1.
///
/// In epoch e the weight is multiplied by 0 outside `from ..= to`, else by
/// min(1, (e − from + 1) / `warmup_epochs`, (to − e + 1) / `cooldown_epochs`).
///
/// Before `from` the term is computed all the same, so that memory banks are full and statistics known when it begins
/// (its heads, like anything that trains without a gradient, lose a little to weight decay). After `to` it is not, and
/// its teacher is not asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TermSchedule {
    /// The first epoch.
    #[serde(skip_serializing_if = "is_one")]
    pub from: u64,
    /// The last epoch; absent: the last one of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Epochs over which the weight rises linearly; in the last of them it is whole. 0 and 1: whole from the start.
    #[serde(skip_serializing_if = "is_zero")]
    pub warmup_epochs: u64,
    /// Epochs over which it falls linearly, up to and with `to`; 0 and 1: whole to the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub cooldown_epochs: u64,
}

impl Default for TermSchedule {
    fn default() -> Self {
        TermSchedule { from: 1, to: None, warmup_epochs: 0, cooldown_epochs: 0 }
    }
}

impl TermSchedule {
    /// The share of a ramp that is done, at most 1.
    fn ramp(done: u64, of: u64) -> f64 {
        (done as f64 / of.max(1) as f64).min(1.0)
    }

    /// What the weight is multiplied by in `epoch` of `epochs`, both from 1; `None` after the last epoch of the term.
    pub fn factor(&self, epoch: u64, epochs: u64) -> Option<f64> {
        let to = self.to.unwrap_or(epochs);
        if epoch > to {
            return None;
        }
        let begun = (epoch + 1).saturating_sub(self.from);
        Some(Self::ramp(begun, self.warmup_epochs).min(Self::ramp(to - epoch + 1, self.cooldown_epochs)))
    }

    /// Checks the epochs against the length of training; `key` is the table that this is.
    pub(super) fn check(&self, key: &str, epochs: u64) -> Result<(), Fault> {
        if !(1..=epochs).contains(&self.from) {
            return Fault::refuse(
                key,
                "from",
                format!("from must be between 1 and epochs ({epochs}), not {}", self.from),
            );
        }
        match self.to {
            Some(to) if !(self.from..=epochs).contains(&to) => Fault::refuse(
                key,
                "to",
                format!("to must be between from ({}) and epochs ({epochs}), not {to}", self.from),
            ),
            None if self.cooldown_epochs > epochs => Fault::refuse(
                key,
                "cooldown_epochs",
                format!("cooldown_epochs must be at most epochs ({epochs}), not {}", self.cooldown_epochs),
            ),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for TermSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.from > 1 {
            parts.push(format!("from epoch {}", self.from));
        }
        if let Some(to) = self.to {
            parts.push(format!("to epoch {to}"));
        }
        for (epochs, what) in [(self.warmup_epochs, "rising"), (self.cooldown_epochs, "falling")] {
            if epochs > 1 {
                parts.push(format!("{what} over {epochs} epochs"));
            }
        }
        if parts.is_empty() { f.write_str("always") } else { f.write_str(&parts.join(", ")) }
    }
}

fn is_one(value: &u64) -> bool {
    *value == 1
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: &TermSchedule, epochs: u64) -> Vec<Option<f64>> {
        (1..=epochs).map(|epoch| schedule.factor(epoch, epochs)).collect()
    }

    #[test]
    fn a_schedule_rises_from_its_first_epoch_and_falls_to_its_last() {
        let always = TermSchedule::default();
        assert_eq!(factors(&always, 3), [Some(1.0); 3]);
        assert_eq!(always.to_string(), "always");

        let warm = TermSchedule { warmup_epochs: 4, ..always.clone() };
        assert_eq!(factors(&warm, 5), [Some(0.25), Some(0.5), Some(0.75), Some(1.0), Some(1.0)]);

        let window = TermSchedule { from: 2, to: Some(6), warmup_epochs: 2, cooldown_epochs: 4 };
        let expected = [Some(0.0), Some(0.5), Some(1.0), Some(0.75), Some(0.5), Some(0.25), None, None];
        assert_eq!(factors(&window, 8), expected);
        assert_eq!(window.to_string(), "from epoch 2, to epoch 6, rising over 2 epochs, falling over 4 epochs");

        let down = TermSchedule { cooldown_epochs: 2, ..always };
        assert_eq!(factors(&down, 3), [Some(1.0), Some(1.0), Some(0.5)]);
    }
}
