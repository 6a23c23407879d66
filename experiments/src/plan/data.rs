//! Data sets that several experiments share.

use std::collections::HashMap;
use std::rc::Rc;

use limbeck::cohort::Data;
use limbeck::dataset::DatasetConfig;
use limbeck::error::Result;
use limbeck::experiment::Division;
use limbeck_report::store;
use tch::Device;

use crate::words::device_name;

/// Data sets that were read already.
#[derive(Debug, Default)]
pub struct DataCache(HashMap<String, Rc<Data>>);

impl DataCache {
    /// A data set and how it is divided, read once for all experiments that say the same.
    pub(super) fn data(&mut self, dataset: &dyn DatasetConfig, division: Division, device: Device) -> Result<Rc<Data>> {
        let key = store::digest(&(dataset, division, device_name(device)))?;
        if let Some(data) = self.0.get(&key) {
            return Ok(Rc::clone(data));
        }
        let dataset = dataset.build(device).map_err(|e| e.at("dataset"))?;
        let data = Rc::new(Data::new(dataset, division)?);
        self.0.insert(key, Rc::clone(&data));
        Ok(data)
    }
}
