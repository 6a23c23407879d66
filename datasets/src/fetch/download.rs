//! Downloads that go on where they were interrupted, and are checked when they are whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use limbeck::prelude::*;
use md5::{Digest, Md5};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use ureq::http::{HeaderValue, StatusCode};

use super::lock::lock;

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
        let (start, total) = match response.status() {
            // The whole file, from a server that does not know ranges too.
            StatusCode::OK => (0, text_of(response.headers().get(CONTENT_LENGTH)).parse().ok()),
            StatusCode::PARTIAL_CONTENT => {
                let range = text_of(response.headers().get(CONTENT_RANGE));
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
            if count == 0 && at == self.bytes {
                return Ok(());
            }
            if count == 0 {
                return Err(Trouble::Passing(format!("the connection ended after {at} bytes")));
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

/// A header's text; empty where there is none.
fn text_of(header: Option<&HeaderValue>) -> &str {
    header.and_then(|value| value.to_str().ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

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
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {all}\r\nConnection: close\r\n\r\n");
        let part = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{all}\r\nConnection: \
             close\r\n\r\n",
            all.saturating_sub(from),
            all.saturating_sub(1)
        );
        let (head, body) = match answer {
            Answer::Whole if from == 0 => (whole, file),
            Answer::CutAfter(count) | Answer::StallAfter(count) if from == 0 => (whole, &file[..count]),
            Answer::Whole => (part, &file[from..]),
            Answer::CutAfter(count) | Answer::StallAfter(count) => (part, &file[from..from + count]),
            Answer::IgnoreRange => (whole, file),
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
    fn one_process_at_a_time_downloads() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("a.tar.gz.part");
        let file = File::create(&part).unwrap();
        file.try_lock().unwrap();
        let server = Server::new(noise(10), vec![]);
        let message = server.download(&noise(10), &dir.path().join("a.tar.gz")).unwrap_err().to_string();
        assert_eq!(message, format!("another process is at work on {}: wait for it", part.display()));
    }
}
