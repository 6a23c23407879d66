//! The arithmetic of a network: float32, and what is faster where the hardware has it.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use crate::error::{Error, Result};
use crate::switches::Switches;

/// The arithmetic of a network's forward pass and, for a student, of the backward pass through it. What a network gives
/// to others is float32 in any case, and so are a student's weights, the losses and the optimiser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32 bits throughout. On a GPU, TF32 is switched off: libtorch's own default lets convolutions use it.
    #[default]
    Float32,
    /// Float32 whose products are rounded to 10 bits of mantissa, by the tensor cores of a GPU. Not on the CPU.
    Tf32,
    /// Bfloat16 throughout: 16 bits with the exponent of float32, about three digits. A teacher's weights are cast once. A
    /// student keeps its weights in float32, or small updates would vanish: for it this is the same as `Mixed`.
    Bfloat16,
    /// Convolutions and matrix products in bfloat16, from float32 weights (libtorch's autocast).
    Mixed,
}

impl Precision {
    /// Whether it is the default.
    pub fn is_float32(&self) -> bool {
        *self == Precision::Float32
    }

    /// Its name in an experiment file.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Float32 => "float32",
            Precision::Tf32 => "tf32",
            Precision::Bfloat16 => "bfloat16",
            Precision::Mixed => "mixed",
        }
    }

    /// The kind that a teacher's weights are cast to.
    pub(crate) fn weights(self) -> Kind {
        if self == Precision::Bfloat16 { Kind::BFloat16 } else { Kind::Float }
    }

    /// Whether the device computes in it.
    ///
    /// # Errors
    /// With the remedy, if it does not.
    pub fn check(self, device: Device) -> Result<()> {
        match (self, device) {
            (Precision::Float32, Device::Cpu) => Ok(()),
            (Precision::Tf32, Device::Cpu) => {
                Err(Error::plan("precision \"tf32\" is a GPU's: use \"float32\", or \"mixed\" for speed"))
            }
            _ => switches().map(|_| ()),
        }
    }

    /// Sets the process's TF32 switches for work on a GPU until the result is dropped; outside, they are off.
    ///
    /// # Errors
    /// If this libtorch lacks the switches.
    pub fn select(self, device: Device) -> Result<Option<Selected>> {
        match device {
            Device::Cuda(_) => {
                switches()?.tf32(self == Precision::Tf32);
                Ok(Some(Selected {}))
            }
            _ => Ok(None),
        }
    }

    /// Switches autocast on for this thread, if this precision has it, until the result is dropped.
    pub(crate) fn autocast(self, device: Device) -> Result<Option<Autocast>> {
        match self {
            Precision::Mixed | Precision::Bfloat16 => Autocast::new(device).map(Some),
            Precision::Float32 | Precision::Tf32 => Ok(None),
        }
    }
}

/// Switches TF32 off for the whole process, as it is but within [`Precision::select`]: libtorch's default lets convolutions
/// use it.
///
/// # Errors
/// If this libtorch lacks the switches.
pub(crate) fn without_tf32() -> Result<()> {
    switches().map(|switches| switches.tf32(false))
}

/// A precision is selected as long as this lives.
#[derive(Debug)]
pub struct Selected {}

impl Drop for Selected {
    fn drop(&mut self) {
        // They were found when it was selected.
        let _ = without_tf32();
    }
}

/// Autocast to bfloat16 is on as long as this lives.
#[derive(Debug)]
pub(crate) struct Autocast {
    device: i8,
}

impl Autocast {
    fn new(device: Device) -> Result<Self> {
        // The numbers of c10::DeviceType.
        let device = match device {
            Device::Cuda(_) => 1,
            _ => 0,
        };
        switches()?.autocast(device, true);
        Ok(Autocast { device })
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // It was found when it was switched on.
        if let Ok(switches) = switches() {
            switches.autocast(self.device, false);
        }
    }
}

fn switches() -> Result<&'static Switches> {
    Switches::get().map_err(Error::plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn autocast_is_on_as_long_as_its_guard_lives() {
        let x = Tensor::ones([4, 4], (Kind::Float, Device::Cpu)) / 3.0;
        let weight = x.copy().set_requires_grad(true);
        assert_eq!(x.matmul(&weight).kind(), Kind::Float);
        {
            let _autocast = Precision::Mixed.autocast(Device::Cpu).unwrap();
            assert_eq!(x.matmul(&weight).kind(), Kind::BFloat16);
        }
        assert_eq!(x.matmul(&weight).kind(), Kind::Float);
        // Another value of the weight is what the next pass sees.
        let _ = tch::no_grad(|| weight.shallow_clone().fill_(2.0));
        let _autocast = Precision::Mixed.autocast(Device::Cpu).unwrap();
        let product = x.matmul(&weight).double_value(&[0, 0]);
        assert!((product - 8.0 / 3.0).abs() < 0.02, "{product}");
    }

    #[test]
    fn float32_needs_nothing_and_tf32_a_gpu() {
        assert!(Precision::Float32.autocast(Device::Cpu).unwrap().is_none());
        Precision::Mixed.check(Device::Cpu).unwrap();
        assert_eq!(
            Precision::Tf32.check(Device::Cpu).unwrap_err().to_string(),
            "precision \"tf32\" is a GPU's: use \"float32\", or \"mixed\" for speed"
        );
        // The switches exist without a GPU and can be set.
        without_tf32().unwrap();
        for precision in [Precision::Float32, Precision::Tf32, Precision::Bfloat16, Precision::Mixed] {
            assert_eq!(serde_json::to_string(&precision).unwrap(), format!("{:?}", precision.name()));
        }
    }
}
