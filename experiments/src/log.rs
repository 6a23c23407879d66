//! The event log of a run: `events.jsonl` in its folder, one event a line.
//!
//! The log of a resumed run goes on where its checkpoint stood: what was logged after that is done again, and cut first.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use limbeck::event::{Event, LaneInfo, Observer};

/// The log's name in a run folder.
pub const EVENTS: &str = "events.jsonl";

/// Writes every lane's events into its own folder.
#[derive(Debug, Default)]
pub struct EventLog {
    files: HashMap<PathBuf, File>,
    /// Warnings of lanes that have not said yet where they begin: the log is cut there first.
    early: Vec<(PathBuf, Event)>,
}

impl EventLog {
    fn write(&mut self, folder: &Path, event: &Event) -> std::io::Result<()> {
        if !self.files.contains_key(folder) {
            let path = folder.join(EVENTS);
            match event {
                Event::Warning { .. } => {
                    self.early.push((folder.to_owned(), event.clone()));
                    return Ok(());
                }
                Event::StageStarted { stage, step, .. } => cut(&path, stage, *step)?,
                _ => cut(&path, "", 0)?,
            }
            self.files.insert(folder.to_owned(), OpenOptions::new().create(true).append(true).open(&path)?);
            let (mine, others) = std::mem::take(&mut self.early).into_iter().partition(|(early, _)| early == folder);
            self.early = others;
            let mine: Vec<(PathBuf, Event)> = mine;
            mine.iter().try_for_each(|(folder, event)| self.write(folder, event))?;
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        match self.files.get_mut(folder) {
            Some(file) => file.write_all(&line),
            None => Ok(()),
        }
    }
}

impl Observer for EventLog {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        if let Err(error) = self.write(&lane.folder, event) {
            // Training does not depend on its log; whoever reads the log must know that it is short.
            tracing::error!(lane = lane.name, %error, "cannot write the event log");
        }
    }
}

/// The stage and the steps done that an event speaks of.
fn place(event: &Event) -> Option<(&str, u64)> {
    match event {
        Event::StageStarted { stage, step, .. }
        | Event::Step { stage, step, .. }
        | Event::Checkpoint { stage, step, .. } => Some((stage, *step)),
        Event::Epoch(record) => Some((&record.stage, record.step)),
        Event::Warning { .. } | Event::Ended(_) => None,
    }
}

/// Cuts a log at the first line beyond `step` of `stage`; a new run (step 0 of its first stage) starts a new log.
fn cut(path: &Path, stage: &str, step: u64) -> std::io::Result<()> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut kept = 0;
    for line in text.split_inclusive('\n') {
        let Ok(event) = serde_json::from_str::<Event>(line) else { break };
        let beyond = match place(&event) {
            Some((name, done)) => name == stage && (done > step || step == 0),
            None => matches!(event, Event::Ended(_)),
        };
        if beyond || !line.ends_with('\n') {
            break;
        }
        kept += line.len();
    }
    OpenOptions::new().write(true).open(path)?.set_len(kept as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(stage: &str, step: u64) -> Event {
        Event::Checkpoint { stage: stage.into(), step, path: "c".into() }
    }

    fn started(stage: &str, step: u64) -> Event {
        Event::StageStarted { stage: stage.into(), epochs: 1, steps_per_epoch: 9, step, unreached: Vec::new() }
    }

    #[test]
    fn a_warning_before_the_first_stage_does_not_keep_the_log_from_being_cut() {
        let folder = tempfile::tempdir().unwrap();
        let lane = LaneInfo { index: 0, lanes: 1, name: "x".into(), folder: folder.path().into() };
        let write = |events: &[Event]| {
            let mut log = EventLog::default();
            events.iter().for_each(|event| log.event(&lane, event));
        };
        let warning = Event::Warning { message: "an older checkpoint is used".into() };
        write(&[started("main", 0), checkpoint("main", 2), checkpoint("main", 4)]);
        write(&[warning.clone(), started("main", 2), checkpoint("main", 4)]);
        let text = fs::read_to_string(folder.path().join(EVENTS)).unwrap();
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected = [started("main", 0), checkpoint("main", 2), warning, started("main", 2), checkpoint("main", 4)];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_resumed_log_has_every_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let lane = LaneInfo { index: 0, lanes: 1, name: "x".into(), folder: folder.path().into() };
        let mut log = EventLog::default();
        let first = [started("initial:ab", 0), checkpoint("initial:ab", 4), started("main", 0), checkpoint("main", 3)];
        first.iter().for_each(|event| log.event(&lane, event));
        log.event(&lane, &checkpoint("main", 6));
        // Killed in the middle of a line, resumed at step 3.
        let path = folder.path().join(EVENTS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 5]).unwrap();
        let mut log = EventLog::default();
        let second = [started("main", 3), checkpoint("main", 6)];
        second.iter().for_each(|event| log.event(&lane, event));
        let read: Vec<Event> =
            fs::read_to_string(&path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, [&first[..], &second[..]].concat());
        // Begun anew.
        EventLog::default().event(&lane, &started("initial:ab", 0));
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}
