//! Who is told what happens to a lane.

use crate::event::{Event, LaneInfo, Observer};

/// Passes events on.
pub(super) struct Observers<'a>(pub &'a mut dyn Observer);

impl Observers<'_> {
    pub fn tell(&mut self, lane: &LaneInfo, event: Event) {
        self.0.event(lane, &event);
    }
}
