//! Schedules: what the base learning rate is multiplied by.

use super::schedule::{Progress, ScheduleConfig};
use crate::error::{Error, Result};
use crate::settings::Settings;

crate::plugin! {
    schedule "constant": Constant,
    summary: "the base learning rate throughout",
    citation: "",
}

/// The base learning rate throughout.
#[derive(Clone, Debug, Settings)]
pub struct Constant {}

#[typetag::serde(name = "constant")]
impl ScheduleConfig for Constant {
    fn factor(&self, _progress: &Progress) -> f64 {
        1.0
    }
}

crate::plugin! {
    schedule "multi_step": MultiStep,
    summary: "multiplies the learning rate by a factor at each milestone",
    citation: "",
}

/// Multiplies the learning rate by `factor` at each milestone.
#[derive(Clone, Debug, Settings)]
pub struct MultiStep {
    /// From 1 up: epochs after which it drops; below 1: fractions of training (150, 180, 210 of 240).
    #[setting(default = vec![0.625, 0.75, 0.875])]
    pub milestones: Vec<f64>,
    /// What each milestone multiplies by.
    #[setting(default = 0.1, range = positive)]
    pub factor: f64,
}

#[typetag::serde(name = "multi_step")]
impl ScheduleConfig for MultiStep {
    fn factor(&self, progress: &Progress) -> f64 {
        let done = (progress.epoch - 1) as f64;
        let mut passed = 0;
        for milestone in self.milestones.iter().copied() {
            let after = if milestone < 1.0 { milestone * progress.epochs as f64 } else { milestone };
            passed += i32::from(done >= after);
        }
        self.factor.powi(passed)
    }

    fn check(&self, epochs: u64) -> Result<()> {
        if let Some(bad) = self.milestones.iter().find(|m| !(**m > 0.0 && **m < (epochs as f64).max(1.0))) {
            return Err(Error::plan(format!(
                "milestone {bad} is never reached in {epochs} epochs; give epochs below {epochs}, or fractions of training below 1"
            )));
        }
        Ok(())
    }
}

crate::plugin! {
    schedule "cosine": Cosine,
    summary: "half a cosine from the base learning rate down to a share of it, step by step",
    citation: "Loshchilov, Hutter. SGDR: Stochastic Gradient Descent with Warm Restarts. ICLR 2017, equation 5 without restarts",
}

/// Half a cosine over the whole training, step by step.
#[derive(Clone, Debug, Settings)]
pub struct Cosine {
    /// The share of the base learning rate that is left at the end.
    #[setting(default = 0.0, range = 0.0..=1.0)]
    pub final_factor: f64,
}

#[typetag::serde(name = "cosine")]
impl ScheduleConfig for Cosine {
    fn factor(&self, progress: &Progress) -> f64 {
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress.fraction()).cos());
        self.final_factor + (1.0 - self.final_factor) * cosine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::assert_relative_eq;

    fn at(epoch: u64, epochs: u64, step: u64) -> Progress {
        Progress { epoch, epochs, step, steps_per_epoch: 10 }
    }

    #[test]
    fn the_papers_schedule_drops_at_epochs_151_181_and_211() {
        for schedule in [MultiStep::default(), MultiStep { milestones: vec![150.0, 180.0, 210.0], factor: 0.1 }] {
            let factor = |epoch| schedule.factor(&at(epoch, 240, 0));
            assert_relative_eq!(factor(150), 1.0);
            assert_relative_eq!(factor(151), 0.1);
            assert_relative_eq!(factor(180), 0.1);
            assert_relative_eq!(factor(181), 0.01, max_relative = 1e-12);
            assert_relative_eq!(factor(211), 0.001, max_relative = 1e-12);
            assert_relative_eq!(factor(240), 0.001, max_relative = 1e-12);
        }
    }

    #[test]
    fn cosine_starts_at_one_and_ends_at_its_final_factor() {
        let schedule = Cosine { final_factor: 0.1 };
        assert_relative_eq!(schedule.factor(&at(1, 10, 0)), 1.0);
        assert_relative_eq!(schedule.factor(&at(6, 10, 50)), 0.55);
        assert_relative_eq!(schedule.factor(&at(10, 10, 100)), 0.1);
    }

    #[test]
    fn a_milestone_that_is_never_reached_is_refused() {
        let schedule = MultiStep { milestones: vec![5.0, 150.0], factor: 0.1 };
        assert_eq!(
            schedule.check(10).unwrap_err().to_string(),
            "milestone 150 is never reached in 10 epochs; give epochs below 10, or fractions of training below 1"
        );
    }
}
