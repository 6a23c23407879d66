//! Archives that are unpacked whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use flate2::bufread::GzDecoder;
use limbeck::prelude::*;

use super::lock::lock;

/// Unpacks an archive (`.tar.gz`, `.tar` or `.zip`) into `into`; all that is in it must be in `folder`. Returns that
/// folder. If it is there already, nothing is done.
///
/// Files and folders are unpacked and nothing else: a link, or a path that leaves the folder, is refused.
///
/// # Errors
/// If the archive is damaged or has something else; then nothing is left behind.
pub fn unpack(archive: &Path, folder: &str, into: &Path) -> Result<PathBuf> {
    let target = into.join(folder);
    if target.exists() {
        return Ok(target);
    }
    let file = File::open(archive).map_err(Error::io("read", archive))?;
    lock(&file, archive)?;
    let prefix = format!(".unpacking-{folder}-");
    remove_leftovers(into, &prefix)?;
    let staging = tempfile::Builder::new().prefix(&prefix).tempdir_in(into).map_err(Error::io("create", into))?;
    let unpacked = Unpacking { archive, folder, staging: staging.path() };
    let reader = BufReader::with_capacity(1 << 16, file);
    match archive.extension().and_then(|extension| extension.to_str()) {
        Some("zip") => unpacked.zip(reader)?,
        Some("gz" | "tgz") => unpacked.tar(GzDecoder::new(reader))?,
        _ => unpacked.tar(reader)?,
    }
    let whole = staging.path().join(folder);
    if !whole.is_dir() {
        return Err(Error::data(archive, format!("holds no folder {folder}")));
    }
    fs::rename(&whole, &target).map_err(Error::io("rename", &whole))?;
    Ok(target)
}

/// What an earlier call left when it was killed. Its archive is locked by this one, so none is at work.
fn remove_leftovers(into: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(into).map_err(Error::io("read", into))? {
        let entry = entry.map_err(Error::io("read", into))?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            fs::remove_dir_all(entry.path()).map_err(Error::io("delete", entry.path()))?;
        }
    }
    Ok(())
}

struct Unpacking<'a> {
    archive: &'a Path,
    folder: &'a str,
    /// Empty at first, and ours alone: what is created below it is neither a link nor behind one.
    staging: &'a Path,
}

impl Unpacking<'_> {
    fn damaged(&self, error: impl std::fmt::Display) -> Error {
        Error::data(self.archive, format!("truncated or damaged: {error}"))
    }

    /// Where an entry goes.
    fn place(&self, name: &Path) -> Result<PathBuf> {
        let inside = name.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
        let relative: PathBuf = name.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        if !inside || !relative.starts_with(self.folder) {
            let (name, folder) = (name.display(), self.folder);
            return Err(Error::data(self.archive, format!("`{name}` is not inside {folder}: refused")));
        }
        Ok(self.staging.join(relative))
    }

    fn write(&self, name: &Path, content: &mut dyn Read) -> Result<()> {
        let path = self.place(name)?;
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        }
        let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match content.read(&mut buffer).map_err(|e| self.damaged(e))? {
                0 => return Ok(()),
                count => file.write_all(&buffer[..count]).map_err(Error::io("write", &path))?,
            }
        }
    }

    fn folder(&self, name: &Path) -> Result<()> {
        let path = self.place(name)?;
        fs::create_dir_all(&path).map_err(Error::io("create", &path))
    }

    fn refuse(&self, name: &Path) -> Error {
        let name = name.display();
        Error::data(self.archive, format!("`{name}` is neither a file nor a folder: refused"))
    }

    fn tar(&self, stream: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries().map_err(|e| self.damaged(e))? {
            let mut entry = entry.map_err(|e| self.damaged(e))?;
            let name = entry.path().map_err(|e| self.damaged(e))?.into_owned();
            let size = entry.size();
            match entry.header().entry_type() {
                tar::EntryType::XGlobalHeader => {}
                tar::EntryType::Directory => self.folder(&name)?,
                tar::EntryType::Regular => {
                    self.write(&name, &mut entry)?;
                    let written = self.place(&name)?.metadata().map_or(0, |metadata| metadata.len());
                    if written != size {
                        return Err(self.damaged(format!("`{}` has {written} of {size} bytes", name.display())));
                    }
                }
                _ => return Err(self.refuse(&name)),
            }
        }
        // To the end of the stream, where gzip has its checksum.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| self.damaged(e))?;
        Ok(())
    }

    fn zip(&self, reader: impl Read + Seek) -> Result<()> {
        let mut archive = zip::ZipArchive::new(reader).map_err(|e| self.damaged(e))?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index).map_err(|e| self.damaged(e))?;
            let name = PathBuf::from(entry.name());
            if entry.is_dir() {
                self.folder(&name)?;
            } else if entry.is_file() {
                self.write(&name, &mut entry)?;
            } else {
                return Err(self.refuse(&name));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An archive of one entry.
    fn tar(kind: tar::EntryType, name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        // The library refuses such names: the bytes are written past it.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..11].copy_from_slice(b"/etc/passwd");
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Unpacks `bytes`, an archive of that name with the folder `set`: (the result, what is left in the folder).
    fn unpacked(name: &str, bytes: &[u8]) -> (Result<PathBuf>, Vec<String>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join(name);
        fs::write(&archive, bytes).unwrap();
        let result = unpack(&archive, "set", dir.path());
        let entries = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<String> = entries.collect();
        left.sort();
        (result, left, dir)
    }

    #[test]
    fn archives_are_unpacked_whole() {
        let file = tar(tar::EntryType::Regular, "set/train/a.bin", b"hello");
        let (result, left, dir) = unpacked("a.tar.gz", &gzip(&file));
        assert_eq!(fs::read(result.unwrap().join("train/a.bin")).unwrap(), b"hello");
        assert_eq!(left, ["a.tar.gz", "set"]);
        // What is there is left alone.
        fs::write(dir.path().join("a.tar.gz"), "damaged").unwrap();
        unpack(&dir.path().join("a.tar.gz"), "set", dir.path()).unwrap();

        let mut writer = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        writer.add_directory("set/val", options).unwrap();
        writer.start_file("set/val/b.txt", options).unwrap();
        writer.write_all(&b"line\n".repeat(1000)).unwrap();
        let zip = writer.finish().unwrap().into_inner();
        let (result, left, _dir) = unpacked("a.zip", &zip);
        assert_eq!(fs::read(result.unwrap().join("val/b.txt")).unwrap().len(), 5000);
        assert_eq!(left, ["a.zip", "set"]);
        let (result, left, dir) = unpacked("a.zip", &zip[..zip.len() / 2]);
        let message = result.unwrap_err().to_string();
        let start = format!("{}/a.zip: truncated or damaged: ", dir.path().display());
        assert!(message.starts_with(&start), "{message}");
        assert_eq!(left, ["a.zip"]);
    }

    #[test]
    fn nothing_leaves_the_folder_and_no_link_is_followed() {
        use tar::EntryType::{Fifo, Link, Regular, Symlink};
        let cases = [
            (Regular, "../evil", "`../evil` is not inside set: refused"),
            (Regular, "set/../../evil", "`set/../../evil` is not inside set: refused"),
            (Regular, "/evil", "`/evil` is not inside set: refused"),
            (Regular, "other/evil", "`other/evil` is not inside set: refused"),
            (Symlink, "set/link", "`set/link` is neither a file nor a folder: refused"),
            (Link, "set/hard", "`set/hard` is neither a file nor a folder: refused"),
            (Fifo, "set/pipe", "`set/pipe` is neither a file nor a folder: refused"),
        ];
        for (kind, name, expected) in cases {
            let content: &[u8] = if kind == Regular { b"x" } else { b"" };
            let (result, left, dir) = unpacked("a.tar", &tar(kind, name, content));
            assert_eq!(result.unwrap_err().to_string(), format!("{}/a.tar: {expected}", dir.path().display()));
            assert_eq!(left, ["a.tar"], "{name}");
        }
    }

    #[test]
    fn half_a_data_set_is_never_left() {
        // Noise, which is no smaller when it is compressed.
        let mut rng = Seed::new(3).rng();
        let noise: Vec<u8> = (0..50_000).map(|_| rng.below(256) as u8).collect();
        let file = tar(tar::EntryType::Regular, "set/a.bin", &noise);
        let gz = gzip(&file);
        for length in [gz.len() / 2, gz.len() - 4] {
            let (result, left, dir) = unpacked("a.tar.gz", &gz[..length]);
            let message = result.unwrap_err().to_string();
            let start = format!("{}/a.tar.gz: truncated or damaged: ", dir.path().display());
            assert!(message.starts_with(&start), "{message}");
            assert_eq!(left, ["a.tar.gz"]);
        }
        // What a killed call left is cleared away by the next.
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".unpacking-set-123/set")).unwrap();
        fs::write(dir.path().join("a.tar"), &file).unwrap();
        unpack(&dir.path().join("a.tar"), "set", dir.path()).unwrap();
        assert!(!dir.path().join(".unpacking-set-123").exists());
    }
}
