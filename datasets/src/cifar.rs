//! What CIFAR-10 and CIFAR-100 have in common: images of 32×32 pixels in files of records, or in pickles of Python.
//!
//! A binary file holds records: one byte for each kind of label, then 3072 pixels as three planes (red, green, blue) of 32
//! rows. A Python file is a pickled dictionary: `data` is an array of n × 3072 bytes in the same order, the labels are
//! lists of numbers. Python files are read by a parser that knows arrays of bytes and executes nothing.

use std::path::Path;

use limbeck::pickle::Value;
use limbeck::prelude::*;

use crate::archive::{self, Member, Release};
use crate::image_set::{ImageSet, Part};
use crate::pickle::{self, Array};
use crate::resident::{Augmentation, Images, Resident};
use crate::views::{Modality, ViewConfigs};

pub(crate) const SIDE: usize = 32;
pub(crate) const PIXELS: usize = 3 * SIDE * SIDE;
pub(crate) const PAGE: &str = "https://www.cs.toronto.edu/~kriz/cifar.html";

/// A kind of label, in the order in which a binary record has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LabelKind {
    /// For messages.
    pub name: &'static str,
    pub classes: usize,
    /// The key of the list in a Python file.
    pub key: &'static str,
    /// The key of the names in the Python file with the names.
    pub names_key: &'static str,
    /// The file of the binary release with the names.
    pub names_file: &'static str,
}

impl LabelKind {
    fn check(&self, label: i64, place: impl FnOnce() -> String) -> Result<(), String> {
        if (0..self.classes as i64).contains(&label) {
            return Ok(());
        }
        Err(format!("{}: {} label {label}, expected 0 to {}", place(), self.name, self.classes - 1))
    }
}

/// One of the two data sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cifar {
    pub kind: &'static str,
    /// Binary, then Python. The training files come first, then the test file, then names.
    pub releases: [Release; 2],
    pub train_files: usize,
    pub labels: &'static [LabelKind],
}

/// What an experiment says of it.
pub(crate) struct Photographs<'a> {
    pub name: &'a str,
    pub path: &'a Path,
    /// Which kind of label to learn.
    pub label: usize,
    pub image: Modality,
    pub augmentation: Augmentation,
    pub views: &'a ViewConfigs,
}

/// The images and labels of one file.
#[derive(Debug)]
struct Block {
    /// Of the kind that is learnt.
    labels: Vec<i64>,
    /// `[n, 3, 32, 32]`
    planes: Vec<u8>,
}

impl Cifar {
    /// Reads it; `counts` are the records of a training file and of the test file.
    pub fn load(&self, settings: Photographs<'_>, counts: [usize; 2], device: Device) -> Result<ImageSet> {
        settings.augmentation.check(self.kind, SIDE as u32)?;
        settings.image.check(self.kind)?;
        let (release, place) = archive::locate(self.kind, PAGE, settings.path, &self.releases)?;
        let python = release == 1;
        let mut members = archive::read(&place, &self.releases[release])?;
        let names = members.split_off(self.train_files + 1);
        let class_names = self.class_names(&names, settings.label, python)?;
        let test = members.split_off(self.train_files);
        let (label, augmentation) = (settings.label, settings.augmentation);
        let parts = [
            self.part(members, counts[0], python, label, augmentation, device)?,
            self.part(test, counts[1], python, label, augmentation, device)?,
        ];
        ImageSet::new(settings.name, class_names, &[settings.image], settings.views, parts, device)
    }

    fn class_names(&self, members: &[Member], label: usize, python: bool) -> Result<Vec<String>> {
        let label = self.labels[label];
        if !python {
            let file = members.iter().find(|member| member.name == label.names_file);
            return file.map_or_else(|| Ok(Vec::new()), |file| file.names(label.classes));
        }
        let Some(meta) = members.first() else { return Ok(Vec::new()) };
        let dictionary = pickle::read(&meta.bytes).map_err(|e| meta.fault(e))?;
        let mut names = Vec::new();
        for name in dictionary.list(label.names_key) {
            if let Value::Text(name) = name {
                names.push((*name).to_owned());
            }
        }
        if names.len() != label.classes {
            return Err(meta.fault(format!("{} {}, expected {}", names.len(), label.names_key, label.classes)));
        }
        Ok(names)
    }

    /// Takes the members by value so that the bytes of one are gone before the next is copied.
    fn part(
        &self,
        members: Vec<Member>,
        count: usize,
        python: bool,
        label: usize,
        augmentation: Augmentation,
        device: Device,
    ) -> Result<Part> {
        let side = SIDE as i64;
        let mut images = Images::black(members.len() * count, [3, side, side], augmentation.crop_pad, device);
        let mut labels = Vec::with_capacity(members.len() * count);
        for member in members {
            let block = if python { self.pickled(&member, count, label) } else { self.records(member, count, label) }?;
            // A thousand at a time: what is copied on the way stays small.
            for planes in block.planes.chunks(1000 * PIXELS).enumerate() {
                images.write(labels.len() + 1000 * planes.0, planes.1);
            }
            labels.extend(block.labels);
        }
        Ok(Part { pixels: Box::new(Resident::new(vec![images], augmentation)), labels })
    }

    /// A binary file.
    fn records(&self, mut member: Member, count: usize, label: usize) -> Result<Block> {
        let kinds = self.labels.len();
        let record = kinds + PIXELS;
        let (found, expected) = (member.bytes.len(), count * record);
        if found != expected {
            return Err(member.fault(format!("{found} bytes, expected {expected} ({count} records of {record} bytes)")));
        }
        for (i, bytes) in member.bytes.chunks_exact(record).enumerate() {
            for (place, kind) in self.labels.iter().enumerate() {
                kind.check(i64::from(bytes[place]), || format!("byte {} (record {i})", i * record + place))
                    .map_err(|e| member.fault(e))?;
            }
        }
        let labels = member.bytes.chunks_exact(record).map(|bytes| i64::from(bytes[label])).collect();
        // The labels are closed up in place: another copy of all pixels would be large.
        let mut planes = std::mem::take(&mut member.bytes);
        for i in 0..count {
            planes.copy_within(i * record + kinds..(i + 1) * record, i * PIXELS);
        }
        planes.truncate(count * PIXELS);
        Ok(Block { labels, planes })
    }

    /// A Python file.
    fn pickled(&self, member: &Member, count: usize, label: usize) -> Result<Block> {
        let dictionary = pickle::read(&member.bytes).map_err(|e| member.fault(e))?;
        let Some(data) = dictionary.array("data") else { return Err(member.fault("no array `data`")) };
        if (data.rows, data.columns) != (count, PIXELS) {
            let (rows, columns) = (data.rows, data.columns);
            return Err(member.fault(format!("`data` is {rows} × {columns}, expected {count} × {PIXELS}")));
        }
        let mut chosen = Vec::new();
        for (place, kind) in self.labels.iter().enumerate() {
            let labels = dictionary.list(kind.key);
            if labels.len() != count {
                return Err(member.fault(format!("{} `{}`, expected {count}", labels.len(), kind.key)));
            }
            for (i, value) in labels.iter().enumerate() {
                let Value::Int(value) = value else {
                    return Err(member.fault(format!("`{}` has something else than a number at {i}", kind.key)));
                };
                kind.check(*value, || format!("record {i}")).map_err(|e| member.fault(e))?;
                if place == label {
                    chosen.push(*value);
                }
            }
        }
        Ok(Block { labels: chosen, planes: row_major(data) })
    }
}

fn row_major(array: &Array<'_>) -> Vec<u8> {
    if !array.fortran {
        return array.bytes.to_vec();
    }
    let places = (0..array.bytes.len()).map(|i| i % array.columns * array.rows + i / array.columns);
    places.map(|place| array.bytes[place]).collect()
}

/// Pickles as Python 2 wrote those of the archives, opcode by opcode.
#[cfg(test)]
pub(crate) mod test_pickle {
    use super::PIXELS;

    fn string(out: &mut Vec<u8>, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(length) => out.extend([b'U', length]),
            Err(_) => {
                out.push(b'T');
                out.extend((text.len() as u32).to_le_bytes());
            }
        }
        out.extend(text);
        out.extend(b"q\x01");
    }

    /// `{b'batch_label': …, NAME: [labels], b'data': array}`
    pub fn batch(labels: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
        let mut out = b"\x80\x02}q\x01(".to_vec();
        string(&mut out, b"batch_label");
        string(&mut out, b"a batch");
        for (name, labels) in labels {
            string(&mut out, name.as_bytes());
            out.extend(b"]q\x02(");
            labels.iter().for_each(|label| out.extend([b'K', *label]));
            out.push(b'e');
        }
        string(&mut out, b"data");
        out.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09U\x01bq\x0a\x87q\x0bRq\x0c(K\x01");
        out.push(b'J');
        out.extend(((data.len() / PIXELS) as u32).to_le_bytes());
        out.push(b'M');
        out.extend((PIXELS as u16).to_le_bytes());
        out.extend(b"\x86q\x0dcnumpy\ndtype\nq\x0eU\x02u1q\x0fK\x00K\x01\x87q\x10Rq\x11(K\x03U\x01|q\x12NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x13b\x89");
        string(&mut out, data);
        out.extend(b"tq\x14bu.");
        out
    }

    /// `{NAME: [names]}`
    pub fn names(lists: &[(&str, Vec<String>)]) -> Vec<u8> {
        let mut out = b"\x80\x02}q\x01(".to_vec();
        for (name, items) in lists {
            string(&mut out, name.as_bytes());
            out.extend(b"]q\x02(");
            items.iter().for_each(|item| string(&mut out, item.as_bytes()));
            out.push(b'e');
        }
        out.extend(b"u.");
        out
    }
}
