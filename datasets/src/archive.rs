//! Files of a data set, in a folder or in its archive.

use std::fs::{self, File};
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use limbeck::prelude::*;

/// One way in which a data set is published: a folder of files, and an archive of that folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    /// The unpacked folder's name.
    pub folder: &'static str,
    /// The archive's name, ending in `.tar.gz`; the same without `.gz` is taken as well.
    pub archive: &'static str,
    /// The files to read, each with its greatest size in bytes.
    pub members: &'static [(&'static str, usize)],
}

/// One of the files, and where it came from.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub name: &'static str,
    /// The archive, if it came from one; else the file itself.
    file: PathBuf,
    archived: bool,
    pub bytes: Vec<u8>,
}

impl Member {
    /// What is wrong with this file.
    pub fn fault(&self, what: impl std::fmt::Display) -> Error {
        Error::data(&self.file, if self.archived { format!("{}: {what}", self.name) } else { what.to_string() })
    }

    /// `count` lines that are not empty.
    pub fn names(&self, count: usize) -> Result<Vec<String>> {
        let text = std::str::from_utf8(&self.bytes)
            .map_err(|e| self.fault(format!("byte {}: not UTF-8 text", e.valid_up_to())))?;
        let names: Vec<String> =
            text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
        if names.len() != count {
            return Err(self.fault(format!("{} names, expected {count}, one a line", names.len())));
        }
        Ok(names)
    }
}

/// Where `path` has a data set, of several releases: (the release, its folder or its archive).
///
/// `path` is an archive, an unpacked folder, or the folder that holds either; an unpacked folder is preferred to an
/// archive, and an earlier release to a later one.
pub(crate) fn locate(kind: &str, page: &str, path: &Path, releases: &[Release]) -> Result<(usize, PathBuf)> {
    if !path.is_dir() {
        if !path.exists() {
            return Err(missing(kind, page, path, releases));
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let named = releases.iter().position(|release| name.starts_with(release.archive.trim_end_matches(".tar.gz")));
        return Ok((named.unwrap_or(0), path.to_owned()));
    }
    for (i, release) in releases.iter().enumerate() {
        for folder in [path.to_owned(), path.join(release.folder)] {
            let first = release.members.first().map_or("", |(name, _)| name);
            if folder.join(first).exists() || folder.ends_with(release.folder) && folder.is_dir() {
                return Ok((i, folder));
            }
        }
    }
    for (i, release) in releases.iter().enumerate() {
        let archives = [release.archive, release.archive.trim_end_matches(".gz")].map(|name| path.join(name));
        if let Some(archive) = archives.into_iter().find(|archive| archive.exists()) {
            return Ok((i, archive));
        }
    }
    Err(missing(kind, page, path, releases))
}

fn missing(kind: &str, page: &str, path: &Path, releases: &[Release]) -> Error {
    let folders: Vec<&str> = releases.iter().map(|release| release.folder).collect();
    let what = if path.is_dir() {
        format!("holds neither {} nor an archive of it", folders.join(" nor "))
    } else {
        "does not exist".to_owned()
    };
    let archive = releases.first().map_or("", |release| release.archive);
    Error::plan(format!(
        "{}: {what}{}; `limbeck data fetch {kind}` gets it; or download {archive} from {page} and set `path` of data set \
         {kind} to it, to the unpacked folder, or to the folder that holds either",
        path.display(),
        relative_to(path)
    ))
}

/// Where a relative path starts, for a message; nothing for an absolute one.
pub(crate) fn relative_to(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(here) if path.is_relative() => format!(" (relative to {})", here.display()),
        _ => String::new(),
    }
}

/// The files of a release, in its order, from what [`locate`] found.
pub(crate) fn read(place: &Path, release: &Release) -> Result<Vec<Member>> {
    if place.is_dir() { read_folder(place, release) } else { read_archive(place, release) }
}

fn read_folder(folder: &Path, release: &Release) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for (name, limit) in release.members {
        let file = folder.join(name);
        let open = File::open(&file).map_err(Error::io("read", &file))?;
        let mut bytes = Vec::new();
        // A little more than the limit says that there is more; not how much.
        open.take(*limit as u64 + 1).read_to_end(&mut bytes).map_err(Error::io("read", &file))?;
        if bytes.len() > *limit {
            let found = fs::metadata(&file).map_or(bytes.len() as u64, |metadata| metadata.len());
            return Err(Error::data(file, too_long(found, *limit)));
        }
        members.push(Member { name, file, archived: false, bytes });
    }
    Ok(members)
}

fn too_long(found: u64, limit: usize) -> String {
    format!("{found} bytes, expected at most {limit}")
}

fn read_archive(path: &Path, release: &Release) -> Result<Vec<Member>> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut magic = Vec::new();
    file.by_ref().take(6).read_to_end(&mut magic).map_err(Error::io("read", path))?;
    let whole = Cursor::new(magic.clone()).chain(file);
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => unpack(path, GzDecoder::new(BufReader::with_capacity(1 << 16, whole)), release),
        [0xfd, b'7', b'z', b'X', b'Z', 0]
        | [b'B', b'Z', b'h', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [b'P', b'K', ..] => Err(Error::data(
            path,
            format!("neither gzip nor plain tar; unpack it and set `path` to the folder {}", release.folder),
        )),
        _ => unpack(path, whole, release),
    }
}

/// The fault of an archive that cannot be read to its end.
fn damaged(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |e| Error::data(path, format!("truncated or damaged, or not a tar archive: {e}"))
}

fn unpack(path: &Path, stream: impl Read, release: &Release) -> Result<Vec<Member>> {
    let mut members: Vec<Option<Member>> = release.members.iter().map(|_| None).collect();
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(damaged(path))? {
        let mut entry = entry.map_err(damaged(path))?;
        let name = entry.path().map_err(damaged(path))?.file_name().and_then(|name| name.to_str().map(str::to_owned));
        let Some(place) = release.members.iter().position(|(member, _)| Some(*member) == name.as_deref()) else {
            continue;
        };
        let (name, limit) = release.members[place];
        let size = entry.size();
        let mut member = Member { name, file: path.to_owned(), archived: true, bytes: Vec::new() };
        // A wrong size in a damaged header must not become an allocation.
        if size > limit as u64 {
            return Err(member.fault(too_long(size, limit)));
        }
        member.bytes.reserve_exact(size as usize);
        if let Err(e) = entry.read_to_end(&mut member.bytes) {
            let got = member.bytes.len();
            return Err(member.fault(format!("the archive is truncated or damaged after {got} of {size} bytes: {e}")));
        }
        if (member.bytes.len() as u64) < size {
            let got = member.bytes.len();
            return Err(member.fault(format!("the archive ends after {got} of {size} bytes")));
        }
        members[place] = Some(member);
    }
    // To the end of the stream, where gzip has its checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged(path))?;
    let absent = members.iter().position(Option::is_none).map(|place| release.members[place].0);
    match absent {
        Some(name) => Err(Error::data(path, format!("no {name} in this archive; {} is wanted", release.archive))),
        None => Ok(members.into_iter().flatten().collect()),
    }
}
