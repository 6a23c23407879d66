//! Whether a lane's numbers are finite: recorded on the device, read once in a while.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};

/// Which scalars of a stage became infinite or NaN, and when first. All of it is written in place.
#[derive(Debug)]
pub(super) struct Health {
    names: Vec<String>,
    /// `[names]`, int64: their places among a step's scalars.
    places: Tensor,
    /// The step of the first check.
    since: u64,
    checks: u64,
    /// `[names]`, float32: 0 as long as the scalar was finite in every check, NaN from then on.
    traces: Tensor,
    /// `[names]`, int64: the checks since the scalar was not finite, the first of those included.
    bad_checks: Tensor,
}

impl Health {
    /// Nothing was looked at yet.
    pub fn new(device: Device) -> Self {
        let none = Tensor::zeros([0], (Kind::Int64, device));
        let traces = none.to_kind(Kind::Float);
        Health { names: Vec::new(), places: none.copy(), since: 0, checks: 0, traces, bad_checks: none }
    }

    /// Gets ready for scalars of these names at these places, looked at from `step` on. Where they change, all of the earlier
    /// ones must have been found finite by [`verdict`](Self::verdict).
    pub fn expect<'n>(&mut self, judged: impl Iterator<Item = (&'n str, i64)> + Clone, step: u64) {
        if self.names.iter().map(String::as_str).eq(judged.clone().map(|(name, _)| name)) {
            return;
        }
        let device = self.traces.device();
        let places: Vec<i64> = judged.clone().map(|(_, place)| place).collect();
        *self = Health {
            names: judged.map(|(name, _)| name.to_owned()).collect(),
            since: step,
            traces: Tensor::zeros([places.len() as i64], (Kind::Float, device)),
            bad_checks: Tensor::zeros([places.len() as i64], (Kind::Int64, device)),
            places: Tensor::from_slice(&places).to_device(device),
            checks: 0,
        };
    }

    /// Looks at the scalars of a step, `[…]`, float32. Returns whether one of those that are judged was not finite, now or
    /// before: a scalar bool on the device.
    pub fn check(&mut self, scalars: &Tensor) -> Tensor {
        let judged = scalars.index_select(0, &self.places);
        // x − x is 0 where x is finite and NaN elsewhere.
        let change = judged.g_sub(&judged);
        let _ = self.traces.g_add_(&change);
        let bad = self.traces.isnan();
        let _ = self.bad_checks.g_add_(&bad);
        bad.any()
    }

    /// A check has been made.
    pub fn count(&mut self) {
        self.checks += 1;
    }

    /// Reads from the device what was found.
    ///
    /// # Errors
    /// With the first number that was not finite, the first by name of several, and its step.
    pub fn verdict(&self) -> Result<()> {
        let bad_checks: Vec<i64> = Vec::try_from(&self.bad_checks)?;
        let Some(most) = bad_checks.iter().copied().max().filter(|most| *most > 0) else { return Ok(()) };
        let first = self.names.iter().zip(&bad_checks).find(|(_, bad)| **bad == most);
        let name = first.map_or("?", |(name, _)| name.as_str());
        Err(Error::run(format!("`{name}` became non-finite at step {}", self.since + self.checks - most as u64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_is_not_finite_is_named_with_its_step() {
        fn check(health: &mut Health, [a, b, c]: [f32; 3]) -> (bool, Option<String>) {
            health.expect([("a", 2), ("b", 3), ("c", 0)].into_iter(), 7);
            // The second is judged by nobody.
            let scalars = Tensor::from_slice(&[c, f32::NAN, a, b]);
            let bad = health.check(&scalars).int64_value(&[]) != 0;
            health.count();
            (bad, health.verdict().err().map(|error| error.to_string()))
        }

        let mut health = Health::new(Device::Cpu);
        health.verdict().unwrap();
        assert_eq!(check(&mut health, [1.0, -2.0, f32::MAX]), (false, None));
        let found = Some("`b` became non-finite at step 8".to_owned());
        assert_eq!(check(&mut health, [1.0, f32::NEG_INFINITY, f32::NAN]), (true, found.clone()));
        // What comes later is a consequence, and nothing is sound again.
        assert_eq!(check(&mut health, [f32::NAN, 0.0, 0.0]), (true, found.clone()));
        assert_eq!(check(&mut health, [0.0, 0.0, 0.0]), (true, found));
    }
}
