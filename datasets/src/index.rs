//! What is known of the files of a data set: a digest of each, the size of its image, and whether it is sound.
//!
//! Finding that out reads and decodes every file once. It is kept in `.limbeck-index` in the data set's folder, where that
//! can be written; a file with another size or time of change is read again, and with [`Trust::Nothing`] all of them are.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::UNIX_EPOCH;

use limbeck::prelude::*;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::picture::Picture;

const FILE: &str = ".limbeck-index";
/// Raised when entries mean something else, or decoding becomes another.
const FORMAT: u32 = 2;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    bytes: u64,
    /// Time of change, in nanoseconds since 1970.
    modified: u128,
    /// BLAKE3, in hexadecimal digits.
    pub digest: String,
    /// `[H, W]` of the image; or what is wrong with it.
    pub image: Result<[u32; 2], String>,
}

/// What a file is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Kind {
    Colour,
    Grey,
    /// Grey of 16 bits, of which this value is full scale.
    Measure(u16),
    Numbers,
}

impl Kind {
    /// Whether a file is sound as one if it is as the other: the scale changes its values alone.
    fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    pub fn decode(self, file: &[u8]) -> Result<Picture, String> {
        match self {
            Kind::Colour => Picture::decode(file, 3),
            Kind::Grey => Picture::decode(file, 1),
            Kind::Measure(full_scale) => Picture::decode_measure(file, full_scale),
            Kind::Numbers => Picture::decode_numbers(file),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Index {
    format: u32,
    entries: HashMap<String, (Kind, Entry)>,
}

/// What of a file need not be found out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// What is known of it, as long as its size and its time of change are the same.
    Known,
    /// Nothing: a disk that loses bits changes neither.
    Nothing,
}

/// The entries of `files` (paths relative to `root`, and what they are read as), in their order.
///
/// # Errors
/// If a file cannot be read. A file that cannot be decoded is no error here: its entry says so.
pub(crate) fn index(root: &Path, files: &[(String, Kind)], trust: Trust) -> Result<Vec<Entry>> {
    let path = root.join(FILE);
    let known: Index = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let known = if known.format == FORMAT { known.entries } else { HashMap::new() };
    // The first error by name, whichever thread is first.
    let found: Vec<Result<(bool, Entry)>> =
        files.par_iter().map(|(name, kind)| entry(root, name, *kind, &known, trust)).collect();
    let found: Vec<(bool, Entry)> = found.into_iter().collect::<Result<_>>()?;
    if found.iter().any(|(new, _)| *new) {
        let mut entries = known;
        entries
            .extend(files.iter().zip(&found).map(|((name, kind), (_, entry))| (name.clone(), (*kind, entry.clone()))));
        // A folder that cannot be written costs time at the next start, and nothing else.
        let _ = write(root, &path, &Index { format: FORMAT, entries });
    }
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

/// The entry of a file, and whether the file was read for it: `known` has it otherwise.
fn entry(
    root: &Path,
    name: &str,
    kind: Kind,
    known: &HashMap<String, (Kind, Entry)>,
    trust: Trust,
) -> Result<(bool, Entry)> {
    let path = root.join(name);
    let metadata = fs::metadata(&path).map_err(Error::io("read", &path))?;
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified = modified.unwrap_or_default().as_nanos();
    if let Some((as_kind, entry)) = known.get(name)
        && trust == Trust::Known
        && as_kind.is_like(kind)
        && (entry.bytes, entry.modified) == (metadata.len(), modified)
    {
        return Ok((false, entry.clone()));
    }
    Ok((true, read(&path, kind, modified)?))
}

fn read(path: &Path, kind: Kind, modified: u128) -> Result<Entry> {
    let file = fs::read(path).map_err(Error::io("read", path))?;
    let image = kind.decode(&file).map(|picture| [picture.height as u32, picture.width as u32]);
    Ok(Entry { bytes: file.len() as u64, modified, digest: blake3::hash(&file).to_hex().to_string(), image })
}

fn write(root: &Path, path: &Path, index: &Index) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(root)?;
    file.write_all(&serde_json::to_vec(index)?)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::fixture::grey_png;

    #[test]
    fn a_file_is_read_again_when_its_size_or_time_of_change_is_another_or_it_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let files = [("a.png".to_owned(), Kind::Grey), ("b.png".to_owned(), Kind::Grey)];
        fs::write(&path, grey_png([4, 5], 1)).unwrap();
        fs::write(dir.path().join("b.png"), "no image").unwrap();
        let index = |files: &[(String, Kind)], trust| index(dir.path(), files, trust).unwrap();
        let first = index(&files, Trust::Known);
        assert_eq!(first[0].image, Ok([4, 5]));
        assert_eq!(first[1].image, Err("neither a JPEG nor a PNG file".to_owned()));
        // Other bytes under the same size and time are not noticed: the index is at work.
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, vec![0; first[0].bytes as usize]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(index(&files, Trust::Known), first);
        // Without trust they are, and the next reader has it from the index.
        let broken = Err("neither a JPEG nor a PNG file".to_owned());
        assert_eq!(index(&files[..1], Trust::Nothing)[0].image, broken);
        let again = index(&files, Trust::Known);
        assert_eq!((&again[0].image, &again[1]), (&broken, &first[1]), "other entries stay");
        // Another way to read it, and another time, are noticed too.
        assert!(index(&[("a.png".to_owned(), Kind::Colour)], Trust::Known)[0].image.is_err());
        fs::write(&path, grey_png([6, 5], 1)).unwrap();
        assert_eq!(index(&files, Trust::Known)[0].image, Ok([6, 5]));
    }
}
