//! Event files for TensorBoard: the scalars of a run's event log, in the format that its readers share.
//!
//! A file is a sequence of TFRecords; each holds an `Event` message of protocol buffers. Both are simple enough to be
//! written here: <https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto> has the fields.
//! An event's wall time is the time that the run had taken by then, not a date: the same log gives the same bytes.

use std::fs;
use std::path::Path;

use limbeck::error::{Error, Result};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::record::EpochRecord;
use limbeck::task::Metrics;

use crate::log::EVENTS;

/// TensorBoard finds a file by `tfevents` in its name.
pub const FILE: &str = "events.out.tfevents.0.limbeck";

/// Writes the event file of the run in `run` into the folder `out`, which is created. Without an event log there is nothing
/// to write.
///
/// # Errors
/// If the log cannot be read or the file not be written. A line that is cut, as a killed run leaves it, ends the log.
pub fn write(run: &Path, out: &Path) -> Result<()> {
    let path = run.join(EVENTS);
    let log = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        log => log.map_err(Error::io("read", &path))?,
    };
    let events = log.lines().map_while(|line| serde_json::from_str::<Event>(line).ok());
    fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let file = out.join(FILE);
    fs::write(&file, bytes(events)).map_err(Error::io("write", &file))
}

/// Keeps the event file in the folder of every run that ends an epoch, if that is wanted; then passes events on. The run's
/// log has the event already.
#[derive(Debug)]
pub struct EventFiles<O> {
    /// Whether it is.
    pub written: bool,
    /// Whoever watches.
    pub then: O,
}

impl<O: Observer> Observer for EventFiles<O> {
    fn event(&mut self, lane: &LaneInfo, event: &Event) {
        // A file is written whole, from the log: whatever a kill left behind, it has each step once, and a reader that is
        // in the middle of it finds the same bytes again.
        if self.written
            && let Event::Epoch(_) | Event::Ended(_) = event
            && let Err(error) = write(&lane.folder, &lane.folder)
        {
            tracing::error!(lane = lane.name, %error, "cannot write the event file");
        }
        self.then.event(lane, event);
    }
}

/// A whole file.
fn bytes(events: impl Iterator<Item = Event>) -> Vec<u8> {
    let mut file = record(&Message::default().double(1, 0.0).bytes(3, b"brain.Event:2").0);
    let mut seconds = 0.0;
    for event in events {
        let (stage, step, scalars) = match &event {
            Event::Step { stage, step, .. } => (stage, *step, of_step(&event)),
            Event::Epoch(record) => {
                seconds += record.seconds;
                (&record.stage, record.step, of_epoch(record))
            }
            _ => continue,
        };
        // The main stage has the plain names: they are what runs have in common.
        let prefix = if stage == "main" { String::new() } else { format!("{stage}/") };
        for (name, value) in scalars {
            file.extend(record(&scalar(seconds, step, &format!("{prefix}{name}"), value)));
        }
    }
    file
}

fn of_step(event: &Event) -> Vec<(String, f64)> {
    let Event::Step { train, train_top1, learning_rate, samples_per_second, .. } = event else { return Vec::new() };
    let losses = train.iter().map(|(name, value)| (format!("train/{name}"), *value));
    let top1 = train_top1.map(|top1| ("train/top1", top1));
    let others =
        top1.into_iter().chain([("learning_rate", *learning_rate), ("samples_per_second", *samples_per_second)]);
    losses.chain(others.map(|(name, value)| (name.to_owned(), value))).collect()
}

fn of_epoch(record: &EpochRecord) -> Vec<(String, f64)> {
    let losses = record.train.iter().map(|(name, value)| (format!("epoch/{name}"), *value));
    let mut scalars: Vec<(String, f64)> = losses.collect();
    scalars.extend(record.train_top1.map(|top1| ("epoch/top1".to_owned(), top1)));
    for (split, found) in [("validation", record.validation), ("test", record.test)] {
        for (metric, value) in found.iter().flat_map(Metrics::named) {
            scalars.push((format!("{split}/{}", metric.key), value));
        }
    }
    scalars
}

/// An `Event` with a `Summary` of one `Value`: `wall_time = 1`, `step = 2`, `summary = 5`; `value = 1`; `tag = 1`,
/// `simple_value = 2`.
fn scalar(wall_time: f64, step: u64, tag: &str, value: f64) -> Vec<u8> {
    let value = Message::default().bytes(1, tag.as_bytes()).float(2, value as f32);
    let summary = Message::default().bytes(1, &value.0);
    Message::default().double(1, wall_time).integer(2, step).bytes(5, &summary.0).0
}

/// A message of protocol buffers, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, wire: u64) {
        self.varint(field << 3 | wire);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn integer(mut self, field: u64, value: u64) -> Self {
        self.key(field, 0);
        self.varint(value);
        self
    }

    fn double(mut self, field: u64, value: f64) -> Self {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.key(field, 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn float(mut self, field: u64, value: f32) -> Self {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
        self
    }
}

/// A TFRecord: length, its checksum, data, their checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// A checksum as TFRecords have it: turned and shifted, since data may hold checksums themselves.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: event files are small.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use indexmap::IndexMap;
    use limbeck::task::Classification;

    /// A reader that shares nothing with the writer: a table-driven checksum, and fields taken apart by their wire type.
    mod reader {
        fn table() -> Vec<u32> {
            let mut table: Vec<u32> = (0..256).collect();
            for value in &mut table {
                for _ in 0..8 {
                    *value = if *value % 2 == 1 { (*value / 2) ^ 0x82F6_3B78 } else { *value / 2 };
                }
            }
            table
        }

        fn check(data: &[u8], expected: &[u8]) {
            let table = table();
            let mut crc = u32::MAX;
            for byte in data {
                crc = table[((crc ^ u32::from(*byte)) & 255) as usize] ^ (crc / 256);
            }
            let crc = !crc;
            let masked = (crc / 0x8000 + crc % 0x8000 * 0x2_0000).wrapping_add(0xA282_EAD8);
            assert_eq!(masked, u32::from_le_bytes(expected.try_into().unwrap()));
        }

        pub fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
            let mut records = Vec::new();
            while !file.is_empty() {
                check(&file[..8], &file[8..12]);
                let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
                let end = 12 + length;
                check(&file[12..end], &file[end..end + 4]);
                records.push(file[12..end].to_vec());
                file = &file[end + 4..];
            }
            records
        }

        fn varint(data: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = data[0];
                *data = &data[1..];
                value += u64::from(byte & 127) << shift;
                if byte < 128 {
                    break;
                }
            }
            value
        }

        /// (field, bytes of its value; numbers little-endian)
        pub fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
            let mut fields = Vec::new();
            while !data.is_empty() {
                let key = varint(&mut data);
                let length = match key % 8 {
                    0 => {
                        fields.push((key / 8, varint(&mut data).to_le_bytes().to_vec()));
                        continue;
                    }
                    1 => 8,
                    2 => varint(&mut data) as usize,
                    5 => 4,
                    wire => panic!("wire type {wire}"),
                };
                fields.push((key / 8, data[..length].to_vec()));
                data = &data[length..];
            }
            fields
        }

        pub fn field(data: &[u8], number: u64) -> Vec<u8> {
            fields(data).into_iter().find(|(field, _)| *field == number).unwrap().1
        }
    }

    fn step(stage: &str, step: u64) -> Event {
        let train = IndexMap::from([("loss".to_owned(), 2.5)]);
        let stage = stage.to_owned();
        Event::Step {
            stage,
            epoch: 1,
            step,
            train,
            train_top1: Some(12.5),
            learning_rate: 0.05,
            samples_per_second: 640.0,
        }
    }

    fn epoch() -> Event {
        Event::Epoch(EpochRecord {
            stage: "main".to_owned(),
            epoch: 1,
            step: 300,
            learning_rate: 0.05,
            train: IndexMap::from([("loss".to_owned(), 1.25)]),
            train_top1: Some(40.0),
            validation: None,
            test: Metrics::new(&Classification, &[44.5, 80.0, 1.5]).ok(),
            seconds: 12.5,
        })
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the CRC catalogue.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn an_independent_reader_finds_every_scalar() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = String::new();
        for event in [step("initial:ab", 7), step("main", 200), epoch()] {
            log += &(serde_json::to_string(&event).unwrap() + "\n");
        }
        // The last line is cut.
        fs::write(folder.path().join(EVENTS), log + "{\"event\":\"st").unwrap();
        let out = folder.path().join("board/kd");
        write(folder.path(), &out).unwrap();
        let file = fs::read(out.join(FILE)).unwrap();
        let records = reader::records(&file);
        assert_eq!(reader::field(&records[0], 3), b"brain.Event:2");
        let scalars: Vec<(f64, u64, String, f32)> = records[1..]
            .iter()
            .map(|event| {
                let value = reader::field(&reader::field(event, 5), 1);
                (
                    f64::from_le_bytes(reader::field(event, 1).try_into().unwrap()),
                    u64::from_le_bytes(reader::field(event, 2).try_into().unwrap()),
                    String::from_utf8(reader::field(&value, 1)).unwrap(),
                    f32::from_le_bytes(reader::field(&value, 2).try_into().unwrap()),
                )
            })
            .collect();
        let expected = [
            (0.0, 7, "initial:ab/train/loss".to_owned(), 2.5),
            (0.0, 7, "initial:ab/train/top1".to_owned(), 12.5),
            (0.0, 7, "initial:ab/learning_rate".to_owned(), 0.05),
            (0.0, 7, "initial:ab/samples_per_second".to_owned(), 640.0),
            (0.0, 200, "train/loss".to_owned(), 2.5),
            (0.0, 200, "train/top1".to_owned(), 12.5),
            (0.0, 200, "learning_rate".to_owned(), 0.05),
            (0.0, 200, "samples_per_second".to_owned(), 640.0),
            (12.5, 300, "epoch/loss".to_owned(), 1.25),
            (12.5, 300, "epoch/top1".to_owned(), 40.0),
            (12.5, 300, "test/top1".to_owned(), 44.5),
            (12.5, 300, "test/top5".to_owned(), 80.0),
            (12.5, 300, "test/loss".to_owned(), 1.5),
        ];
        assert_eq!(scalars, expected);
        assert!(!folder.path().join("none").exists());
        write(&folder.path().join("nothing"), &folder.path().join("none")).unwrap();
        assert!(!folder.path().join("none").exists());
    }
}
