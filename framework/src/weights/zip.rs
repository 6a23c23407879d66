//! The zip archives that PyTorch writes: entries without compression (but for TorchScript's code), found by the directory
//! at the end (PKWARE's APPNOTE.TXT, sections 4.3 and 4.5). The crate `rawzip` reads that directory.
//!
//! Entries are slices of the file, so nothing is allocated by what the file claims; that no two of them share bytes is
//! checked, so that all together are no larger than the file.

use std::collections::HashMap;
use std::ops::Range;

use rawzip::{CompressionMethod, ErrorKind, ZipArchive, ZipSliceArchive};

const ENTRY: &[u8] = b"PK\x03\x04";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// Where an entry's content begins is a multiple of this, as PyTorch has it: a file mapped into memory is then aligned.
const ALIGNMENT: usize = 64;
/// The extra field that fills the room before that, by PyTorch's choice.
const PADDING: &[u8] = b"FB";

/// An archive in memory.
#[derive(Debug)]
pub(super) struct Archive<'a> {
    bytes: &'a [u8],
    entries: HashMap<String, Entry>,
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
    pub fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let archive = ZipArchive::from_slice(bytes).map_err(|error| fault(&error))?;
        let mut entries = HashMap::new();
        let mut count = 0;
        for record in archive.entries() {
            let record = record.map_err(|error| fault(&error))?;
            let path = record.file_path();
            let name =
                std::str::from_utf8(path.as_ref()).map_err(|_| "a name in the archive is not UTF-8".to_owned())?;
            if record.flags().is_encrypted() {
                return Err(format!("`{name}` in the archive is encrypted"));
            }
            let found = archive.get_entry(record.wayfinder()).map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature { .. } => format!("`{name}` is not where the archive's directory has it"),
                _ => fault(&error),
            })?;
            let (start, end) = found.compressed_data_range();
            let is_plain = record.compression_method() == CompressionMethod::STORE
                && record.compressed_size_hint() == record.uncompressed_size_hint();
            // The slice lies in memory, so both fit.
            let entry =
                Entry { content: start as usize..end as usize, checksum: record.crc32(), compressed: !is_plain };
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(format!("the archive has `{name}` twice"));
            }
            count += 1;
        }
        if count != archive.entries_hint() || !agrees(&archive) {
            return Err(contradiction());
        }
        let mut ranges: Vec<&Range<usize>> = entries.values().map(|entry| &entry.content).collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        if ranges.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return Err("entries of the archive share bytes, which none that was written honestly do".to_owned());
        }
        Ok(Archive { bytes, entries })
    }

    /// Whether there is an entry of that name.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The names of its entries, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The content of an entry, if there is one of that name.
    ///
    /// # Errors
    /// If it is compressed or damaged. A checksum of 0 is one that the writer left out, as PyTorch can be told to.
    pub fn get(&self, name: &str) -> Result<Option<&'a [u8]>, String> {
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

/// Whether the record at the end of the file says where the directory was found: `rawzip` overlooks what it can do without.
fn agrees(archive: &ZipSliceArchive<&[u8]>) -> bool {
    let bytes = *archive.get_ref();
    let end = archive.eocd_offset() as usize;
    let is_wide = end >= 76 && bytes[end - 20..].starts_with(LOCATOR_64);
    // Between directory and end then lie a record with fields of 64 bits and the place of that record.
    let [length, start] = if is_wide {
        [end - 36, end - 28].map(|at| number(&bytes[at..at + 8]))
    } else {
        [end + 12, end + 16].map(|at| number(&bytes[at..at + 4]))
    };
    let behind = if is_wide { end - 76 } else { end };
    archive.end_offset() == bytes.len() as u64
        && start == archive.directory_offset()
        && start.checked_add(length) == Some(behind as u64)
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn fault(error: &rawzip::Error) -> String {
    match error.kind() {
        ErrorKind::MissingEndOfCentralDirectory => "the archive is cut off: its directory is missing".to_owned(),
        ErrorKind::Eof => "the archive is cut off".to_owned(),
        _ => contradiction(),
    }
}

fn contradiction() -> String {
    "the archive's directory is damaged".to_owned()
}

/// Packs entries by name. The same entries give the same bytes.
///
/// # Errors
/// If the archive grows beyond 4 GiB: PyTorch reads larger ones, this does not write them.
pub(super) fn pack(entries: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
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
fn facts(content: &[u8], name: &str) -> Result<Vec<u8>, String> {
    let length = narrow::<u32>(content.len())?.to_le_bytes();
    // Names are UTF-8 (bit 11), stored (method 0), of midnight, 1 January 1980.
    let head = [0, 0, 0, 8, 0, 0, 0, 0, 0x21, 0];
    let checksum = crc32fast::hash(content).to_le_bytes();
    Ok([&head[..], &checksum, &length, &length, &narrow::<u16>(name.len())?.to_le_bytes()].concat())
}

fn narrow<T: TryFrom<usize>>(value: usize) -> Result<T, String> {
    T::try_from(value).map_err(|_| "more than 4 GiB, or 65 535 entries, do not fit into this archive".to_owned())
}
