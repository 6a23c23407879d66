//! Events: the trainer says what happens and does nothing else with it. Progress bars, logs and tests observe.

use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::record::{EpochRecord, Outcome};

/// Something that happened in a lane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The lane goes on from a checkpoint: the first event of every lane that does, and of no other.
    Resumed {
        /// The stage that the checkpoint was written in.
        stage: String,
        /// How many epochs that stage has.
        epochs: u64,
        /// Steps of one epoch.
        steps_per_epoch: u64,
        /// Steps done in the stage: those of the [`Checkpoint`](Event::Checkpoint) event.
        step: u64,
        /// Whether the epoch that ends there is still to be evaluated: as in that event.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open: bool,
        /// The checkpoint.
        path: PathBuf,
    },
    /// The first step of a stage is done.
    StageStarted {
        /// `main`, or `initial:TERM`.
        stage: String,
        /// How many epochs it has.
        epochs: u64,
        /// Steps of one epoch.
        steps_per_epoch: u64,
        /// Variables of the lane that do not train in this stage although they could: the loss does not reach them.
        unreached: Vec<String>,
    },
    /// A step at which values were read from the device.
    Step {
        /// The stage.
        stage: String,
        /// From 1.
        epoch: u64,
        /// Steps done in the stage.
        step: u64,
        /// Means since the epoch began: `loss`, the loss by the targets, terms and metrics.
        train: IndexMap<String, f64>,
        /// Top-1 on the training batches of this epoch so far, in percent; absent where samples have not one class.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        train_top1: Option<f64>,
        /// The learning rate.
        learning_rate: f64,
        /// Samples per second of the whole cohort: each sample counts once.
        samples_per_second: f64,
    },
    /// An epoch is done.
    Epoch(EpochRecord),
    /// A checkpoint is on the disk.
    Checkpoint {
        /// The stage.
        stage: String,
        /// Steps done in the stage.
        step: u64,
        /// Whether the epoch that ends there is still to be evaluated: it was stopped meanwhile.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open: bool,
        /// The file.
        path: PathBuf,
    },
    /// Something that the reader of the results must know.
    Warning {
        /// In the user's words.
        message: String,
    },
    /// The lane ended. Its summary is written next: a log that ends with this event is whole, whatever happens then.
    Ended(Outcome),
}

/// Watches a cohort.
pub trait Observer {
    /// Called for every event of every lane, in order.
    fn event(&mut self, lane: &LaneInfo, event: &Event);
}

/// Which lane an event is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneInfo {
    /// Its place in the cohort, from 0.
    pub index: usize,
    /// How many lanes the cohort has.
    pub lanes: usize,
    /// A name for people: `crd, seed 0`.
    pub name: String,
    /// The run folder.
    pub folder: PathBuf,
}

/// Observers are told one after the other.
impl Observer for Vec<Box<dyn Observer>> {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        for observer in self {
            observer.event(lane, event);
        }
    }
}

/// Nobody watches.
impl Observer for () {
    fn event(&mut self, _lane: &LaneInfo, _event: &Event) {}
}
