//! Getting data sets from where they are published: resumable downloads, checksums, unpacking.
//!
//! What is downloaded grows in `ARCHIVE.part` and takes its name when its checksum is right; what is unpacked grows in a
//! folder beside and takes its name when it is whole. So a data set is there or it is not, whatever interrupts.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use flate2::bufread::GzDecoder;
use limbeck::inventory;
use limbeck::prelude::*;
use md5::{Digest, Md5};
use ureq::http::StatusCode;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};

/// Where a data set is published. A crate registers its own with `inventory::submit!`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The data set's kind.
    pub kind: &'static str,
    /// The page that describes it.
    pub page: &'static str,
    /// Under what terms, in a few words.
    pub terms: &'static str,
    /// The archive: `.tar.gz` or `.zip`.
    pub url: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Its MD5, in hexadecimal digits.
    pub md5: &'static str,
    /// Who published that MD5.
    pub md5_from: &'static str,
    /// The folder in the archive; everything is in it.
    pub folder: &'static str,
    /// Files and folders in that folder without which it is not the data set.
    pub content: &'static [&'static str],
}

inventory::collect!(Source);

impl Source {
    /// Every source that is linked in, by kind.
    pub fn all() -> Vec<&'static Source> {
        let mut sources: Vec<&Source> = inventory::iter::<Source>.into_iter().collect();
        sources.sort_by_key(|source| source.kind);
        sources
    }

    /// The archive's file name.
    pub fn archive(&self) -> &'static str {
        self.url.rsplit('/').next().unwrap_or(self.url)
    }

    /// The unpacked folder in `parent`, if it is there.
    ///
    /// # Errors
    /// If it is there and lacks something.
    pub fn unpacked(&self, parent: &Path) -> Result<Option<PathBuf>> {
        let folder = parent.join(self.folder);
        if !folder.exists() {
            return Ok(None);
        }
        let lacking: Vec<&str> = self.content.iter().copied().filter(|name| !folder.join(name).exists()).collect();
        match lacking.as_slice() {
            [] => Ok(Some(folder)),
            _ => Err(Error::data(folder, format!("lacks {}; delete it and fetch again", lacking.join(", ")))),
        }
    }
}

/// Bytes that are there, and bytes that there will be.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Downloads an archive.
#[derive(Clone, Copy, Debug)]
pub struct Download<'a> {
    /// Its address.
    pub url: &'a str,
    /// Its size.
    pub bytes: u64,
    /// Its MD5, in hexadecimal digits.
    pub md5: &'a str,
    /// How long to wait before asking again.
    pub pause: Duration,
    /// How long to wait for the next byte.
    pub patience: Duration,
}

/// So many times in a row a server may send nothing.
const ATTEMPTS: u32 = 4;

impl Download<'_> {
    /// Downloads to `target`, going on where an earlier call was interrupted. A file that is there is checked and kept.
    ///
    /// # Errors
    /// If the server does not answer, has another file, or the disk is full; whatever was received is kept, unless its
    /// checksum is wrong.
    pub fn to(&self, target: &Path, progress: Progress<'_>) -> Result<()> {
        if target.exists() {
            return verify(target, self.md5).map_err(|error| Error::run(format!("{error}; delete it and fetch again")));
        }
        let mut part = target.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&part)
            .map_err(Error::io("create", &part))?;
        lock(&file, &part)?;
        self.receive(&mut file, &part, progress)?;
        file.sync_all().map_err(Error::io("write", &part))?;
        if let Err(error) = verify(&part, self.md5) {
            fs::remove_file(&part).map_err(Error::io("delete", &part))?;
            return Err(Error::run(format!("{error}; it was deleted: fetch it again")));
        }
        fs::rename(&part, target).map_err(Error::io("rename", &part))
    }

    fn receive(&self, file: &mut File, part: &Path, progress: Progress<'_>) -> Result<()> {
        let mut fruitless = 0;
        loop {
            let have = file.metadata().map_err(Error::io("read", part))?.len();
            if have == self.bytes {
                return Ok(());
            }
            match self.ask(file, have, progress) {
                Ok(()) => fruitless = 0,
                Err(Trouble::Final(what)) => return Err(Error::run(format!("{}: {what}", self.url))),
                Err(Trouble::Disk(error)) => return Err(Error::io("write", part)(error)),
                Err(Trouble::Passing(what)) => {
                    let now = file.metadata().map_err(Error::io("read", part))?.len();
                    fruitless = if now > have { 0 } else { fruitless + 1 };
                    if fruitless == ATTEMPTS {
                        let (url, all, kept) = (self.url, self.bytes, part.display());
                        return Err(Error::run(format!(
                            "{url}: {what}; {now} of {all} bytes are in {kept}, and the next call goes on there"
                        )));
                    }
                    thread::sleep(self.pause * fruitless);
                }
            }
        }
    }

    /// One request for what is missing behind `have` bytes.
    fn ask(&self, file: &mut File, have: u64, progress: Progress<'_>) -> Result<(), Trouble> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(self.patience))
            .build()
            .into();
        let mut request = agent.get(self.url);
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        let mut response = request.call().map_err(|error| Trouble::Passing(error.to_string()))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (start, total) = match response.status() {
            // The whole file, from a server that does not know ranges too.
            StatusCode::OK => (0, header(CONTENT_LENGTH).parse().ok()),
            StatusCode::PARTIAL_CONTENT => {
                let range = header(CONTENT_RANGE);
                let (start, total) = content_range(range)
                    .filter(|(start, _)| *start == have)
                    .ok_or_else(|| Trouble::Final(format!("asked for bytes from {have}, answered `{range}`")))?;
                (start, total)
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Trouble::Passing(format!("status {status}")));
            }
            status => return Err(Trouble::Final(format!("status {status}"))),
        };
        if let Some(total) = total
            && total != self.bytes
        {
            return Err(Trouble::Final(format!("the server has {total} bytes, expected {}", self.bytes)));
        }
        file.set_len(start).and_then(|()| file.seek(io::SeekFrom::Start(start))).map_err(Trouble::Disk)?;
        let mut body = response.body_mut().as_reader();
        let (mut at, mut buffer) = (start, vec![0; 1 << 16]);
        loop {
            let count = body.read(&mut buffer).map_err(|error| Trouble::Passing(self.interruption(error.into())))?;
            at += count as u64;
            if at > self.bytes {
                return Err(Trouble::Final(format!("more than {} bytes", self.bytes)));
            }
            file.write_all(&buffer[..count]).map_err(Trouble::Disk)?;
            progress(at, self.bytes);
            if count == 0 {
                let cut = || Trouble::Passing(format!("the connection ended after {at} bytes"));
                return if at == self.bytes { Ok(()) } else { Err(cut()) };
            }
        }
    }

    /// What ended a body before its end.
    fn interruption(&self, error: ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => format!("nothing came for {:?}", self.patience),
            other => other.to_string(),
        }
    }
}

/// What ends a request.
enum Trouble {
    /// Asking again may help.
    Passing(String),
    /// It will not.
    Final(String),
    Disk(io::Error),
}

/// `bytes START-END/TOTAL`; the total may be unknown.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            Err(Error::run(format!("another process is at work on {}: wait for it", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Checks a file's MD5, given in hexadecimal digits.
///
/// # Errors
/// If it is another.
pub fn verify(file: &Path, md5: &str) -> Result<()> {
    let mut reader = File::open(file).map_err(Error::io("read", file))?;
    let mut digest = Md5::new();
    io::copy(&mut reader, &mut digest).map_err(Error::io("read", file))?;
    let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != md5 {
        return Err(Error::data(file, format!("its MD5 is {found}, expected {md5}")));
    }
    Ok(())
}

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
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// How a server answers one request.
    #[derive(Clone, Copy, Debug)]
    enum Answer {
        /// As it should.
        Whole,
        /// It closes the connection after so many bytes of the body.
        CutAfter(usize),
        /// It sends so many bytes of the body, then nothing, and leaves the connection open.
        StallAfter(usize),
        /// The whole file, whatever range was asked for.
        IgnoreRange,
        /// Without the file's length, then closing after so many bytes.
        WithoutLength(usize),
        Status(u16),
    }

    /// A server of one file: it answers as it is told, in turn, then as it should; it notes the ranges it was asked for.
    struct Server {
        url: String,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        fn new(file: Vec<u8>, answers: Vec<Answer>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
            let asked = Arc::new(Mutex::new(Vec::new()));
            let notes = asked.clone();
            thread::spawn(move || {
                let (mut answers, mut stalled) = (answers.into_iter(), Vec::new());
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        request.push(byte[0]);
                    }
                    let request = String::from_utf8(request).unwrap().to_lowercase();
                    let range = request.lines().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or_default();
                    notes.lock().unwrap().push(range.to_owned());
                    let from = range.trim_end_matches('-').parse().unwrap_or(0);
                    let answer = answers.next().unwrap_or(Answer::Whole);
                    // A client that has seen enough may be gone.
                    let _ = respond(&mut stream, &file, from, answer);
                    if matches!(answer, Answer::StallAfter(_)) {
                        stalled.push(stream);
                    }
                }
            });
            Server { url, asked }
        }

        fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }

        fn download(&self, file: &[u8], target: &Path) -> Result<()> {
            let digest = md5(file);
            let (pause, patience) = (Duration::from_millis(1), Duration::from_millis(500));
            let mut last = 0;
            Download { url: &self.url, bytes: file.len() as u64, md5: &digest, pause, patience }
                .to(target, &mut |done, all| {
                    assert!(done <= all);
                    last = done;
                })
                .inspect(|()| assert!(last == file.len() as u64 || last == 0))
        }
    }

    fn respond(stream: &mut impl Write, file: &[u8], from: usize, answer: Answer) -> io::Result<()> {
        let all = file.len();
        let whole = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let part = || {
            let (length, last) = (all - from, all - 1);
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-{last}/{all}\r\n\
                 Connection: close\r\n\r\n"
            )
        };
        let (head, body) = match answer {
            Answer::Whole if from == 0 => (whole(all), file),
            Answer::CutAfter(count) | Answer::StallAfter(count) if from == 0 => (whole(all), &file[..count]),
            Answer::Whole => (part(), &file[from..]),
            Answer::CutAfter(count) | Answer::StallAfter(count) => (part(), &file[from..from + count]),
            Answer::IgnoreRange => (whole(all), file),
            Answer::WithoutLength(count) => ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_owned(), &file[..count]),
            Answer::Status(status) => {
                (format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), &file[..0])
            }
        };
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        stream.flush()
    }

    fn md5(bytes: &[u8]) -> String {
        Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn noise(count: usize) -> Vec<u8> {
        let mut rng = Seed::new(3).rng();
        (0..count).map(|_| rng.below(256) as u8).collect()
    }

    #[test]
    fn an_interrupted_download_goes_on_where_it_was() {
        let file = noise(300_000);
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.tar.gz");
        let answers = vec![
            Answer::CutAfter(100_000),
            Answer::Status(503),
            Answer::Status(429),
            Answer::StallAfter(70_000),
            Answer::StallAfter(0),
        ];
        let server = Server::new(file.clone(), answers);
        server.download(&file, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), file);
        assert_eq!(server.asked(), ["", "100000-", "100000-", "100000-", "170000-", "170000-"]);
        assert!(!dir.path().join("a.tar.gz.part").exists());
        // Again: what is there is checked and kept.
        server.download(&file, &target).unwrap();
        assert_eq!(server.asked().len(), 6);
    }

    #[test]
    fn a_server_that_sends_nothing_more_is_not_waited_for() {
        let file = noise(100_000);
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.tar.gz");
        let server = Server::new(
            file.clone(),
            vec![
                Answer::StallAfter(40_000),
                Answer::StallAfter(0),
                Answer::StallAfter(0),
                Answer::StallAfter(0),
                Answer::StallAfter(0),
            ],
        );
        let message = server.download(&file, &target).unwrap_err().to_string();
        let expected = format!(
            "{}: nothing came for 500ms; 40000 of 100000 bytes are in {}.part, and the next call goes on there",
            server.url,
            target.display()
        );
        assert_eq!(message, expected);
    }

    #[test]
    fn another_call_goes_on_too() {
        let file = noise(100_000);
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.tar.gz");
        let none = vec![
            Answer::CutAfter(40_000),
            Answer::CutAfter(0),
            Answer::CutAfter(0),
            Answer::CutAfter(0),
            Answer::CutAfter(0),
        ];
        let server = Server::new(file.clone(), none);
        let message = server.download(&file, &target).unwrap_err().to_string();
        let end = format!("40000 of 100000 bytes are in {}.part, and the next call goes on there", target.display());
        assert!(message.starts_with(&server.url) && message.ends_with(&end), "{message}");
        assert!(!target.exists());
        server.download(&file, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), file);
        assert_eq!(server.asked().last().unwrap(), "40000-");
    }

    #[test]
    fn a_server_without_ranges_sends_it_all_again() {
        let file = noise(100_000);
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.tar.gz");
        let server = Server::new(file.clone(), vec![Answer::CutAfter(60_000), Answer::IgnoreRange]);
        server.download(&file, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), file);
        let server = Server::new(file.clone(), vec![Answer::WithoutLength(60_000), Answer::WithoutLength(100_000)]);
        server.download(&file, &dir.path().join("b.tar.gz")).unwrap();
        assert_eq!(fs::read(dir.path().join("b.tar.gz")).unwrap(), file);
    }

    #[test]
    fn what_is_not_the_file_is_not_kept() {
        let file = noise(10_000);
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.tar.gz");
        let mut other = file.clone();
        other[5000] ^= 1;
        let server = Server::new(other.clone(), vec![]);
        let message = server.download(&file, &target).unwrap_err().to_string();
        let (found, expected) = (md5(&other), md5(&file));
        assert_eq!(
            message,
            format!(
                "{}.part: its MD5 is {found}, expected {expected}; it was deleted: fetch it again",
                target.display()
            )
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let server = Server::new(noise(10_001), vec![]);
        let message = server.download(&file, &target).unwrap_err().to_string();
        assert_eq!(message, format!("{}: the server has 10001 bytes, expected 10000", server.url));
        let server = Server::new(noise(10_001), vec![Answer::WithoutLength(10_001)]);
        let message = server.download(&file, &target).unwrap_err().to_string();
        assert_eq!(message, format!("{}: more than 10000 bytes", server.url));
        let server = Server::new(vec![], vec![Answer::Status(404)]);
        let message = server.download(&file, &target).unwrap_err().to_string();
        assert_eq!(message, format!("{}: status 404 Not Found", server.url));
        fs::write(&target, "something else").unwrap();
        let message = server.download(&file, &target).unwrap_err().to_string();
        let (found, expected) = (md5(b"something else"), md5(&file));
        assert_eq!(
            message,
            format!("{}: its MD5 is {found}, expected {expected}; delete it and fetch again", target.display())
        );
    }

    #[test]
    fn an_unpacked_folder_is_whole_or_what_it_lacks_is_named() {
        let source = Source {
            kind: "set",
            page: "",
            terms: "",
            url: "http://nowhere/set.tar.gz",
            bytes: 1,
            md5: "",
            md5_from: "",
            folder: "set",
            content: &["train.bin", "val/images", "names.txt"],
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(source.unpacked(dir.path()).unwrap(), None);
        let folder = dir.path().join("set");
        fs::create_dir_all(folder.join("val/images")).unwrap();
        let message = source.unpacked(dir.path()).unwrap_err().to_string();
        let lacking = format!("{}: lacks train.bin, names.txt; delete it and fetch again", folder.display());
        assert_eq!(message, lacking);
        for name in ["train.bin", "names.txt"] {
            fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(source.unpacked(dir.path()).unwrap(), Some(folder));
    }

    #[test]
    fn one_process_at_a_time_downloads() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("a.tar.gz.part");
        let file = File::create(&part).unwrap();
        file.try_lock().unwrap();
        let server = Server::new(noise(10), vec![]);
        let message = server.download(&noise(10), &dir.path().join("a.tar.gz")).unwrap_err().to_string();
        assert_eq!(message, format!("another process is at work on {}: wait for it", part.display()));
    }

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
        let file = tar(tar::EntryType::Regular, "set/a.bin", &noise(50_000));
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
