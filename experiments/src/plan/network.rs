//! A network as planned: what it offers, built once and asked.

use std::fmt;

use limbeck::cohort::{Data, Inspection, inspect};
use limbeck::error::{Error, Result};
use limbeck::model::{ModelConfig, ModelSpec, Signature};
use limbeck_report::words::thousands;

use crate::words::shape;

/// A network as planned.
#[derive(Debug)]
pub struct Network {
    /// Its kind.
    pub kind: String,
    /// The view that it sees.
    pub view: String,
    /// What it offers.
    pub signature: Signature,
    /// The number of its parameters.
    pub parameters: i64,
    /// What one image's forward pass multiplies and adds, if the network knows.
    pub multiply_adds: Option<i64>,
}

impl Network {
    /// Builds a network and asks it.
    ///
    /// # Errors
    /// If it cannot be built.
    pub fn of(config: &dyn ModelConfig, view: &str, spec: &ModelSpec) -> Result<Self> {
        let Inspection { signature, parameters, multiply_adds } = inspect(config, spec)?;
        Ok(Network {
            kind: config.typetag_name().to_owned(),
            view: view.to_owned(),
            signature,
            parameters,
            multiply_adds,
        })
    }

    /// Builds a network for the view that it is said to see, or for the first of the data.
    pub(super) fn of_data(config: &dyn ModelConfig, view: Option<&str>, data: &Data) -> Result<Self> {
        let view = data.dataset.info().view(view)?.name.clone();
        let spec = data.spec(Some(&view))?;
        let network = Network::of(config, &view, &spec)?;
        if network.signature.classes != spec.classes {
            return Err(Error::plan(format!(
                "the network tells {} classes apart, the data have {}",
                network.signature.classes, spec.classes
            )));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} parameters, ", self.kind, thousands(self.parameters))?;
        if let Some(count) = self.multiply_adds {
            write!(f, "{} multiply-adds, ", thousands(count))?;
        }
        write!(f, "sees {} {}", self.view, shape(&self.signature.input))
    }
}
