//! The zip archives that PyTorch writes: entries without compression (but for TorchScript's code), found by the directory at the end (PKWARE's
//! APPNOTE.TXT, sections 4.3 and 4.5).
//!
//! Entries are slices of the file, so nothing is allocated by what the file claims; that no two of them share bytes is
//! checked, so that all together are no larger than the file.

use std::collections::HashMap;
use std::ops::Range;

use super::pickle::Reason;

const ENTRY: &[u8] = b"PK\x03\x04";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// What stands in a field of 32 bits whose value is in a field of 64.
const ELSEWHERE: u64 = u32::MAX as u64;
/// The extra field with the values of 64 bits.
const EXTRA_64: u16 = 1;
/// Where an entry's content begins is a multiple of this, as PyTorch has it: a file mapped into memory is then aligned.
const ALIGNMENT: usize = 64;
/// The extra field that fills the room before that, by PyTorch's choice.
const PADDING: &[u8] = b"FB";

/// An archive in memory.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: HashMap<&'a str, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    content: Range<usize>,
    checksum: u32,
    compressed: bool,
}

impl<'a> Archive<'a> {
    /// Whether the bytes begin like an archive.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(ENTRY)
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// If the archive is cut off, contradicts itself, or has encrypted or overlapping entries.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Reason> {
        let (count, directory) = find_directory(bytes)?;
        let mut entries = HashMap::new();
        let mut fields = Fields { bytes: directory };
        for _ in 0..count {
            let (name, entry) = read_entry(bytes, &mut fields)?;
            if entries.insert(name, entry).is_some() {
                return Err(format!("the archive has `{name}` twice"));
            }
        }
        let mut ranges: Vec<&Range<usize>> = entries.values().map(|entry| &entry.content).collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        match ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
            true => Err("entries of the archive share bytes, which none that was written honestly do".to_owned()),
            false => Ok(Archive { bytes, entries }),
        }
    }

    /// Whether there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The names of its entries, in no order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// The content of an entry, if there is one of that name.
    ///
    /// # Errors
    /// If it is compressed or damaged. A checksum of 0 is one that the writer left out, as PyTorch can be told to.
    pub fn get(&self, name: &str) -> Result<Option<&'a [u8]>, Reason> {
        let Some(Entry { content, checksum, compressed }) = self.entries.get(name) else { return Ok(None) };
        if *compressed {
            return Err(format!(
                "`{name}` in the archive is compressed, which `torch.save` does not do: unpack it and pack it with `zip -0`"
            ));
        }
        let content = &self.bytes[content.clone()];
        let found = crc32fast::hash(content);
        if *checksum != 0 && *checksum != found {
            return Err(format!("`{name}` is damaged: its CRC-32 is {found:08x}, not {checksum:08x}"));
        }
        Ok(Some(content))
    }
}

/// A slice that is read field by field, little-endian.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Reason> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or_else(|| "the archive is cut off".to_owned())?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, Reason> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        Ok(u64::from_le_bytes(wide))
    }

    fn signature(&mut self, expected: &[u8]) -> Result<(), Reason> {
        if self.take(4)? == expected { Ok(()) } else { Err("the archive's directory is damaged".to_owned()) }
    }
}

/// The slice of `length` bytes at `start`.
fn slice(bytes: &[u8], start: u64, length: u64) -> Result<&[u8], Reason> {
    let range =
        start.checked_add(length).and_then(|end| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
    range.and_then(|range| bytes.get(range)).ok_or_else(|| "the archive is cut off".to_owned())
}

/// How many entries there are, and the bytes that list them.
fn find_directory(bytes: &[u8]) -> Result<(u64, &[u8]), Reason> {
    // The record at the end has 22 bytes and a comment, which has no more than 65 535.
    let ends_here = |at: &usize| {
        let record = &bytes[*at..];
        record.starts_with(END) && 22 + usize::from(u16::from_le_bytes([record[20], record[21]])) == record.len()
    };
    let at = bytes.len().checked_sub(22).and_then(|last| (last.saturating_sub(65_535)..=last).rev().find(ends_here));
    let at = at.ok_or_else(|| "the archive is cut off: its directory is missing".to_owned())?;
    let mut end = Fields { bytes: &bytes[at..] };
    end.signature(END)?;
    let [_disk, _of, _here, mut count] =
        [end.number::<2>()?, end.number::<2>()?, end.number::<2>()?, end.number::<2>()?];
    let [mut length, mut start] = [end.number::<4>()?, end.number::<4>()?];
    if let Some(record) = at.checked_sub(20).map(|at| &bytes[at..]).filter(|record| record.starts_with(LOCATOR_64)) {
        let mut locator = Fields { bytes: record };
        locator.take(8)?;
        let mut end = Fields { bytes: slice(bytes, locator.number::<8>()?, 56)? };
        end.signature(END_64)?;
        end.take(28)?;
        [count, length, start] = [end.number::<8>()?, end.number::<8>()?, end.number::<8>()?];
    }
    Ok((count, slice(bytes, start, length)?))
}

/// The next entry of the directory, and where its content is.
fn read_entry<'a>(bytes: &'a [u8], fields: &mut Fields<'a>) -> Result<(&'a str, Entry), Reason> {
    fields.signature(DIRECTORY)?;
    fields.take(4)?;
    let [flags, method] = [fields.number::<2>()?, fields.number::<2>()?];
    fields.take(4)?;
    let checksum = fields.number::<4>()?;
    let [mut packed, mut length] = [fields.number::<4>()?, fields.number::<4>()?];
    let [name, extra, comment] = [fields.number::<2>()?, fields.number::<2>()?, fields.number::<2>()?];
    fields.take(8)?;
    let mut start = fields.number::<4>()?;
    let name = std::str::from_utf8(fields.take(name as usize)?)
        .map_err(|_| "a name in the archive is not UTF-8".to_owned())?;
    let mut wide = Fields { bytes: extra_64(fields.take(extra as usize)?)? };
    for value in [&mut length, &mut packed, &mut start] {
        if *value == ELSEWHERE {
            *value = wide.number::<8>()?;
        }
    }
    fields.take(comment as usize)?;
    if flags & 1 != 0 {
        return Err(format!("`{name}` in the archive is encrypted"));
    }
    let mut local = Fields { bytes: slice(bytes, start, 30)? };
    if local.take(4)? != ENTRY {
        return Err(format!("`{name}` is not where the archive's directory has it"));
    }
    local.take(22)?;
    let header = 30 + local.number::<2>()? + local.number::<2>()?;
    let start = start.saturating_add(header);
    slice(bytes, start, packed)?;
    // Both fit: the slice lies in memory.
    let content = start as usize..(start + packed) as usize;
    Ok((name, Entry { content, checksum: checksum as u32, compressed: method != 0 || packed != length }))
}

/// The extra field with the values of 64 bits; empty if there is none.
fn extra_64(extra: &[u8]) -> Result<&[u8], Reason> {
    let mut fields = Fields { bytes: extra };
    while fields.bytes.len() >= 4 {
        let [id, length] = [fields.number::<2>()?, fields.number::<2>()?];
        let content = fields.take(length as usize)?;
        if id == u64::from(EXTRA_64) {
            return Ok(content);
        }
    }
    Ok(&[])
}

/// Packs entries by name. The same entries give the same bytes.
///
/// # Errors
/// If the archive grows beyond 4 GiB: PyTorch reads larger ones, this does not write them.
pub(super) fn pack(entries: &[(String, Vec<u8>)]) -> Result<Vec<u8>, Reason> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in entries {
        let start = narrow::<u32>(file.len())?;
        let room = (file.len() + 30 + name.len() + 4).next_multiple_of(ALIGNMENT) - (file.len() + 30 + name.len());
        let padding = room - 4;
        let extra = [PADDING, &narrow::<u16>(padding)?.to_le_bytes(), &vec![b'Z'; padding]].concat();
        let facts = facts(content, name)?;
        file.extend(
            [ENTRY, &facts, &narrow::<u16>(extra.len())?.to_le_bytes(), name.as_bytes(), &extra, content].concat(),
        );
        // No extra field, no comment, first disk, no attributes.
        directory.extend([DIRECTORY, &[0, 0], &facts, &[0; 12], &start.to_le_bytes(), name.as_bytes()].concat());
    }
    let count = narrow::<u16>(entries.len())?.to_le_bytes();
    let [length, start] = [narrow::<u32>(directory.len())?, narrow::<u32>(file.len())?].map(u32::to_le_bytes);
    file.extend([directory.as_slice(), END, &[0; 4], &count, &count, &length, &start, &[0; 2]].concat());
    Ok(file)
}

/// What an entry and the directory both say of it, from the version that is needed to the length of its name.
fn facts(content: &[u8], name: &str) -> Result<Vec<u8>, Reason> {
    let length = narrow::<u32>(content.len())?.to_le_bytes();
    // Names are UTF-8 (bit 11), stored (method 0), of midnight, 1 January 1980.
    let head = [0, 0, 0, 8, 0, 0, 0, 0, 0x21, 0];
    let checksum = crc32fast::hash(content).to_le_bytes();
    Ok([&head[..], &checksum, &length, &length, &narrow::<u16>(name.len())?.to_le_bytes()].concat())
}

fn narrow<T: TryFrom<usize>>(value: usize) -> Result<T, Reason> {
    T::try_from(value).map_err(|_| "more than 4 GiB, or 65 535 entries, do not fit into this archive".to_owned())
}
