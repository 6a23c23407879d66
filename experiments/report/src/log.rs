//! The event log of a run: `events.jsonl` in its folder, one event a line.
//!
//! The log of a resumed run goes on where its checkpoint stood: what was logged after that is done again, and cut first.
//! However often it was stopped or killed, the log has every step, epoch and checkpoint once, and ends once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::record::Outcome;

/// The log's name in a run folder.
pub const EVENTS: &str = "events.jsonl";

/// Writes every lane's events into its own folder.
#[derive(Debug, Default)]
pub struct EventLog {
    files: HashMap<PathBuf, File>,
}

impl EventLog {
    /// Closes the logs that are open: of lanes that have come to an end in this process.
    pub fn close(&mut self) {
        self.files.clear();
    }

    fn write(&mut self, folder: &Path, event: &Event) -> io::Result<()> {
        let file = match self.files.entry(folder.to_owned()) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(new) => new.insert(open(&folder.join(EVENTS), event)?),
        };
        append(file, event)
    }
}

fn append(file: &mut File, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    file.write_all(&line)
}

/// Opens a lane's log for its first event in this process, and cuts off what that event says will be done again.
fn open(path: &Path, first: &Event) -> io::Result<File> {
    let log = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        log => log?,
    };
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    match first {
        Event::Resumed { stage, step, open, path, .. } => {
            let checkpoint = Event::Checkpoint { stage: stage.clone(), step: *step, open: *open, path: path.clone() };
            let (length, found) = before_end(&log, |event| is_same(event, &checkpoint));
            file.set_len(length as u64)?;
            // Killed after it was written and before that was logged.
            if !found {
                append(&mut file, &checkpoint)?;
            }
        }
        // The lane could not go on: what it had done stays.
        Event::Ended(_) => file.set_len(before_end(&log, |_| false).0 as u64)?,
        _ => file.set_len(0)?,
    }
    Ok(file)
}

/// Why the run in a folder failed, if that is how its log ends.
pub fn failure(folder: &Path) -> Option<String> {
    let log = fs::read_to_string(folder.join(EVENTS)).ok()?;
    match serde_json::from_str(log.lines().next_back()?).ok()? {
        Event::Ended(Outcome::Failed { reason, .. }) => Some(reason),
        _ => None,
    }
}

fn is_same(event: &Event, checkpoint: &Event) -> bool {
    match (event, checkpoint) {
        (
            Event::Checkpoint { stage, step, open, .. },
            Event::Checkpoint { stage: of_stage, step: of_step, open: of_open, .. },
        ) => (stage, step, open) == (of_stage, of_step, of_open),
        _ => false,
    }
}

/// The length of a log up to and with the event that is `last`, and whether that is there; else up to its end, without
/// what says so and without a line that a kill cut short.
fn before_end(log: &[u8], last: impl Fn(&Event) -> bool) -> (usize, bool) {
    let mut length = 0;
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let event = if line.ends_with(b"\n") { serde_json::from_slice(line).ok() } else { None };
        let Some(event) = event.filter(|event| !matches!(event, Event::Ended(_))) else { break };
        length += line.len();
        if last(&event) {
            return (length, true);
        }
    }
    (length, false)
}

impl Observer for EventLog {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Err(error) = self.write(&lane.folder, event) {
            // Training does not depend on its log; whoever reads the log must know that it is short.
            tracing::error!(lane = lane.name, %error, "cannot write the event log");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(stage: &str, step: u64) -> Event {
        Event::Checkpoint { stage: stage.into(), step, open: false, path: "c".into() }
    }

    fn resumed(stage: &str, step: u64) -> Event {
        Event::Resumed { stage: stage.into(), epochs: 1, steps_per_epoch: 9, step, open: false, path: "c".into() }
    }

    fn started(stage: &str) -> Event {
        Event::StageStarted { stage: stage.into(), epochs: 1, steps_per_epoch: 9, unreached: Vec::new() }
    }

    fn warning() -> Event {
        Event::Warning { message: "an older checkpoint is used".into() }
    }

    /// What the log says after each of these processes has written its events, and lost so many bytes at its end.
    fn log(processes: &[(&[Event], usize)]) -> Vec<Event> {
        let folder = tempfile::tempdir().unwrap();
        let lane = LaneInfo { index: 0, lanes: 1, name: "x".into(), folder: folder.path().into() };
        let path = folder.path().join(EVENTS);
        for (events, lost) in processes {
            let mut log = EventLog::default();
            events.iter().for_each(|event| log.event(&lane, event));
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - lost]).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_resumed_log_has_everything_once() {
        let (ab, main) = ("initial:ab", "main");
        let first = [started(ab), checkpoint(ab, 9), started(main), checkpoint(main, 3), checkpoint(main, 6)];
        // Killed in the middle of a line, and resumed at step 3; then with the newest checkpoint damaged.
        let second = [resumed(main, 3), checkpoint(main, 6), checkpoint(main, 9)];
        let third = [resumed(main, 6), warning(), checkpoint(main, 9), Event::Ended(Outcome::Finished)];
        let whole = [&first[..4], &second[..2], &third[..]].concat();
        assert_eq!(log(&[(&first, 5), (&second, 0), (&third, 0)]), whole);
        // The end of a stage, twice.
        let again = [resumed(ab, 9), started(main)];
        assert_eq!(log(&[(&first, 0), (&again, 0), (&again, 0)]), [&first[..2], &again[..]].concat());
        // Begun anew.
        assert_eq!(log(&[(&first, 0), (&[warning(), started(ab)], 0)]), [warning(), started(ab)]);
    }

    #[test]
    fn killed_between_a_checkpoint_and_its_line_the_line_is_there() {
        let line = serde_json::to_vec(&checkpoint("main", 6)).unwrap().len() + 1;
        let first = [started("main"), checkpoint("main", 3), checkpoint("main", 6)];
        for lost in [0, 1, 7, line] {
            let events = log(&[(&first, lost), (&[resumed("main", 6)], 0)]);
            assert_eq!(events, [&first[..], &[resumed("main", 6)]].concat(), "{lost} bytes lost");
        }
    }

    #[test]
    fn a_log_ends_once() {
        let ended = Event::Ended(Outcome::Failed { reason: "it broke".into(), checkpoint: None });
        let first = [started("main"), checkpoint("main", 3), ended.clone()];
        assert_eq!(log(&[(&first, 0), (std::slice::from_ref(&ended), 0)]), first);
        let again = [resumed("main", 3), ended];
        assert_eq!(log(&[(&first, 0), (&again, 0), (&again, 0)]), [&first[..2], &again[..]].concat());
    }
}
