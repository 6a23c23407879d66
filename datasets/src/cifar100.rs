//! CIFAR-100: 50 000 training and 10 000 test images of 32×32 pixels, 100 classes in 20 superclasses.
//!
//! # Getting it
//! Fetch `cifar-100-binary.tar.gz`, the "binary version (suitable for C programs)" at
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, and let `path` name it:
//!
//! ```toml
//! [dataset]
//! kind = "cifar100"
//! path = "data/cifar-100-binary.tar.gz"
//! ```
//!
//! `path` may name the archive (gzip or plain tar), the unpacked folder `cifar-100-binary`, or the folder that holds
//! either; an unpacked folder is preferred to an archive beside it. A relative path starts at the current folder. An
//! archive in another compression has to be unpacked first. There is no download: the data set has no stated licence.
//!
//! # Format
//! `train.bin` and `test.bin` are records of 3074 bytes: the coarse label, the fine label, and 3072 pixels as three
//! planes (red, green, blue) of 32 rows. `fine_label_names.txt` and `coarse_label_names.txt` have one name a line.
//!
//! # Memory and time
//! 233 MB on the device, with margins of 4 for the crop; about twice that on the host while loading.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::resident::{Augmentation, ImageSet, Images, Normalisation, Part};

const FOLDER: &str = "cifar-100-binary";
const ARCHIVES: [&str; 2] = ["cifar-100-binary.tar.gz", "cifar-100-binary.tar"];
const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
const RECORD: usize = 2 + PIXELS;
/// Records of the training part and of the test part.
const COUNTS: [usize; 2] = [50_000, 10_000];

limbeck::plugin! {
    dataset "cifar100",
    summary: "CIFAR-100: 60 000 photographs of 32×32 pixels, 100 classes in 20 superclasses",
    citation: "Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, University of Toronto, 2009",
    settings: r#"
path = "data"                      # cifar-100-binary.tar.gz, the unpacked cifar-100-binary, or the folder that holds either
labels = "fine"                    # "fine": the 100 classes; "coarse": the 20 superclasses
mean = [0.5071, 0.4867, 0.4408]    # of red, green and blue, subtracted
std = [0.2675, 0.2565, 0.2761]     # of red, green and blue, divided by
crop_pad = 4                       # black margin in pixels before the random crop of a training image
flip = true                        # mirror half of the training images
"#,
}

/// CIFAR-100 from its binary archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cifar100 {
    /// The archive, the unpacked folder, or the folder that holds either.
    pub path: PathBuf,
    /// Which of the two labels to learn.
    pub labels: Labels,
    /// Mean of red, green and blue.
    pub mean: [f64; 3],
    /// Standard deviation of red, green and blue.
    pub std: [f64; 3],
    /// Black margin in pixels before the random crop of a training image.
    pub crop_pad: u32,
    /// Whether to mirror half of the training images.
    pub flip: bool,
}

/// Which of the two labels of an image to learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Labels {
    /// The 100 classes.
    Fine,
    /// The 20 superclasses.
    Coarse,
}

impl Default for Cifar100 {
    fn default() -> Self {
        Cifar100 {
            path: PathBuf::from("data"),
            labels: Labels::Fine,
            mean: [0.5071, 0.4867, 0.4408],
            std: [0.2675, 0.2565, 0.2761],
            crop_pad: 4,
            flip: true,
        }
    }
}

#[typetag::serde(name = "cifar100")]
impl DatasetConfig for Cifar100 {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(COUNTS, device)?))
    }
}

impl Cifar100 {
    fn load(&self, counts: [usize; 2], device: Device) -> Result<ImageSet> {
        let augmentation = Augmentation { crop_pad: self.crop_pad, flip: self.flip };
        augmentation.check("cifar100", SIDE as u32)?;
        Normalisation::check("cifar100", &self.mean, &self.std)?;
        let [train, test, fine, coarse] = read_members(&self.path, counts)?;
        let train = self.part(train, counts[0], device)?;
        let test = self.part(test, counts[1], device)?;
        let (name, class_names) = match self.labels {
            Labels::Fine => ("CIFAR-100", names(&fine, 100)?),
            Labels::Coarse => ("CIFAR-100 (superclasses)", names(&coarse, 20)?),
        };
        Ok(ImageSet::new(name, class_names, train, test, augmentation, (&self.mean, &self.std)))
    }

    /// `count` records, to the device. Takes the member by value so that its bytes are gone before the next is unpacked.
    fn part(&self, member: Member, count: usize, device: Device) -> Result<Part> {
        check_records(&member, count)?;
        let which = match self.labels {
            Labels::Coarse => 0,
            Labels::Fine => 1,
        };
        let labels = member.bytes.chunks_exact(RECORD).map(|record| i64::from(record[which])).collect();
        let side = SIDE as i64;
        let mut images = Images::black(count, [3, side, side], self.crop_pad, device);
        // A thousand at a time: what is copied on the way stays small.
        let mut planes = Vec::with_capacity(1000 * PIXELS);
        for (i, records) in member.bytes.chunks(1000 * RECORD).enumerate() {
            planes.clear();
            for record in records.chunks_exact(RECORD) {
                planes.extend_from_slice(&record[2..]);
            }
            images.write(1000 * i, &planes);
        }
        Ok(Part { images, labels })
    }
}

fn check_records(member: &Member, count: usize) -> Result<()> {
    let (found, expected) = (member.bytes.len(), count * RECORD);
    if found != expected {
        return Err(member.fault(format!("{found} bytes, expected {expected} ({count} records of {RECORD} bytes)")));
    }
    for (i, record) in member.bytes.chunks_exact(RECORD).enumerate() {
        for (place, (kind, classes)) in [("coarse", 20), ("fine", 100)].into_iter().enumerate() {
            let label = record[place];
            if label >= classes {
                let offset = i * RECORD + place;
                let last = classes - 1;
                return Err(
                    member.fault(format!("byte {offset} (record {i}): {kind} label {label}, expected 0 to {last}"))
                );
            }
        }
    }
    Ok(())
}

fn names(member: &Member, count: usize) -> Result<Vec<String>> {
    let text = std::str::from_utf8(&member.bytes)
        .map_err(|e| member.fault(format!("byte {}: not UTF-8 text", e.valid_up_to())))?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if names.len() != count {
        return Err(member.fault(format!("{} names, expected {count}, one a line", names.len())));
    }
    Ok(names)
}

/// One of the four files, and where it came from.
#[derive(Debug, Default)]
struct Member {
    name: &'static str,
    /// The archive, if it came from one; else the file itself.
    file: PathBuf,
    archived: bool,
    bytes: Vec<u8>,
}

impl Member {
    fn fault(&self, what: String) -> Error {
        Error::data(&self.file, if self.archived { format!("{}: {what}", self.name) } else { what })
    }
}

const MEMBERS: [&str; 4] = ["train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"];

/// The four files, in the order of [`MEMBERS`], wherever `path` has them.
fn read_members(path: &Path, counts: [usize; 2]) -> Result<[Member; 4]> {
    if !path.is_dir() {
        return if path.exists() { read_archive(path, counts) } else { Err(missing(path)) };
    }
    for folder in [path.to_owned(), path.join(FOLDER)] {
        if folder.join(MEMBERS[0]).exists() || folder.ends_with(FOLDER) && folder.is_dir() {
            return read_folder(&folder);
        }
    }
    match ARCHIVES.iter().map(|name| path.join(name)).find(|archive| archive.exists()) {
        Some(archive) => read_archive(&archive, counts),
        None => Err(missing(path)),
    }
}

fn missing(path: &Path) -> Error {
    let current = std::env::current_dir().map(|here| format!(" (relative to {})", here.display())).unwrap_or_default();
    let from = if path.is_relative() { current } else { String::new() };
    let what = if path.is_dir() { "holds neither cifar-100-binary nor its archive" } else { "does not exist" };
    Error::data(
        path,
        format!(
            "{what}{from}; download cifar-100-binary.tar.gz (\"binary version\") from \
             https://www.cs.toronto.edu/~kriz/cifar.html and set `path` of data set cifar100 to it, to the unpacked \
             folder, or to the folder that holds either"
        ),
    )
}

fn read_folder(folder: &Path) -> Result<[Member; 4]> {
    let mut members: [Member; 4] = Default::default();
    for (member, name) in members.iter_mut().zip(MEMBERS) {
        let file = folder.join(name);
        let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
        *member = Member { name, file, archived: false, bytes };
    }
    Ok(members)
}

fn read_archive(path: &Path, counts: [usize; 2]) -> Result<[Member; 4]> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let mut magic = [0; 6];
    let length = read_up_to(&mut file, &mut magic).map_err(Error::io("read", path))?;
    let whole = io::Cursor::new(magic).take(length as u64).chain(file);
    match magic {
        [0x1f, 0x8b, ..] => unpack(path, GzDecoder::new(BufReader::with_capacity(1 << 16, whole)), counts),
        [0xfd, b'7', b'z', b'X', b'Z', 0]
        | [b'B', b'Z', b'h', ..]
        | [0x28, 0xb5, 0x2f, 0xfd, ..]
        | [b'P', b'K', ..] => Err(Error::data(
            path,
            "neither gzip nor plain tar; unpack it and set `path` to the folder cifar-100-binary",
        )),
        _ => unpack(path, whole, counts),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

fn unpack(path: &Path, stream: impl Read, counts: [usize; 2]) -> Result<[Member; 4]> {
    let mut members: [Option<Member>; 4] = Default::default();
    let mut archive = tar::Archive::new(stream);
    let damaged = |e: io::Error| Error::data(path, format!("truncated or damaged, or not a tar archive: {e}"));
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let name = entry.path().map_err(damaged)?.file_name().and_then(|name| name.to_str().map(str::to_owned));
        let Some(place) = MEMBERS.iter().position(|member| Some(*member) == name.as_deref()) else { continue };
        let size = entry.size();
        let mut member = Member { name: MEMBERS[place], file: path.to_owned(), archived: true, bytes: Vec::new() };
        // A wrong size in a damaged header must not become an allocation: what is expected, and a little.
        let limit = counts.get(place).map_or(1 << 16, |count| count * RECORD) as u64;
        if size <= limit {
            member.bytes.reserve_exact(size as usize);
        }
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
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged)?;
    if let Some(place) = members.iter().position(Option::is_none) {
        return Err(Error::data(
            path,
            format!(
                "no {} in this archive; cifar-100-binary.tar.gz is wanted, not the Python or the Matlab version",
                MEMBERS[place]
            ),
        ));
    }
    Ok(members.map(Option::unwrap_or_default))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use tempfile::TempDir;

    const SMALL: [usize; 2] = [20, 10];

    /// Records with labels (row % 20, row % 100) and noise for pixels.
    fn records(count: usize) -> Vec<u8> {
        let mut rng = Seed::new(count as u64).rng();
        let mut bytes: Vec<u8> = (0..count * RECORD).map(|_| rng.below(256) as u8).collect();
        for (row, record) in bytes.chunks_exact_mut(RECORD).enumerate() {
            record[0] = (row % 20) as u8;
            record[1] = (99 - row % 100) as u8;
        }
        bytes
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        let names = |kind: &str, count: usize| (0..count).map(|i| format!("{kind}_{i}\n")).collect::<String>().into();
        vec![
            ("train.bin", records(SMALL[0])),
            ("test.bin", records(SMALL[1])),
            ("fine_label_names.txt", names("fine", 100)),
            ("coarse_label_names.txt", names("coarse", 20)),
        ]
    }

    fn folder_of(files: &[(&str, Vec<u8>)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(FOLDER)).unwrap();
        for (name, bytes) in files {
            fs::write(dir.path().join(FOLDER).join(name), bytes).unwrap();
        }
        dir
    }

    fn tar_of(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("{FOLDER}/{name}"), bytes.as_slice()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn load(path: impl Into<PathBuf>) -> Result<ImageSet> {
        Cifar100 { path: path.into(), ..Cifar100::default() }.load(SMALL, Device::Cpu)
    }

    fn batch(set: &ImageSet, split: Split, rows: &[i64], draw: Option<Seed>) -> Batch {
        let views: Views = ["image"].into_iter().collect();
        set.batch(split, &Rows::new(rows.to_vec(), Device::Cpu), &views, draw).unwrap()
    }

    /// The message for a folder with one file changed, without the temporary folder's name.
    fn folder_error(change: impl FnOnce(&mut Vec<(&'static str, Vec<u8>)>)) -> String {
        let mut files = files();
        change(&mut files);
        let dir = folder_of(&files);
        let message = load(dir.path().join(FOLDER)).unwrap_err().to_string();
        message.replace(dir.path().to_str().unwrap(), "").replace('\\', "/")
    }

    /// The message for an archive with these bytes.
    fn archive_error(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(ARCHIVES[0]), bytes).unwrap();
        let message = load(dir.path().join(ARCHIVES[0])).unwrap_err().to_string();
        message.replace(dir.path().to_str().unwrap(), "").replace('\\', "/")
    }

    #[test]
    fn pixels_and_labels_arrive() {
        let dir = folder_of(&files());
        let set = load(dir.path()).unwrap();
        let got = batch(&set, Split::Train, &[3, 19], None);
        assert_eq!(Vec::<i64>::try_from(&got.labels).unwrap(), [96, 80]);
        let record = &records(SMALL[0])[19 * RECORD..];
        for (channel, y, x) in [(0, 0, 0), (1, 4, 31), (2, 31, 7)] {
            let byte = record[2 + channel * 1024 + y * 32 + x];
            let exact =
                (f64::from(byte) / 255.0 - [0.5071, 0.4867, 0.4408][channel]) / [0.2675, 0.2565, 0.2761][channel];
            let value = got.views["image"].double_value(&[1, channel as i64, y as i64, x as i64]);
            approx::assert_abs_diff_eq!(value, exact, epsilon = 1e-6);
        }
        let info = set.info();
        assert_eq!((info.classes(), info.class_names[99].as_str()), (100, "fine_99"));
        assert_eq!((info.train_labels.len(), info.test_labels.len()), (20, 10));
        assert_eq!(info.views, [ViewInfo { name: "image".into(), shape: [3, 32, 32] }]);
    }

    #[test]
    fn coarse_labels_are_the_first_byte() {
        let dir = folder_of(&files());
        let config = Cifar100 { path: dir.path().into(), labels: Labels::Coarse, ..Cifar100::default() };
        let set = config.load(SMALL, Device::Cpu).unwrap();
        assert_eq!((set.info().classes(), set.info().class_names[19].as_str()), (20, "coarse_19"));
        assert_eq!(set.info().train_labels[..], (0..20).collect::<Vec<i64>>());
    }

    #[test]
    fn archive_and_folder_are_the_same() {
        let dir = folder_of(&files());
        let tar = tar_of(&files());
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.tar"), &tar).unwrap();
        fs::write(elsewhere.path().join(ARCHIVES[0]), gzip(&tar)).unwrap();
        let rows: Vec<i64> = (0..10).collect();
        let expected = load(dir.path().join(FOLDER)).unwrap();
        let paths = [dir.path().to_owned(), dir.path().join("a.tar"), elsewhere.path().to_owned()];
        for path in paths.into_iter().chain([elsewhere.path().join(ARCHIVES[0])]) {
            let set = load(&path).unwrap();
            for (split, draw) in [(Split::Train, Some(Seed::new(1))), (Split::Test, None)] {
                let (a, b) = (batch(&set, split, &rows, draw), batch(&expected, split, &rows, draw));
                assert_eq!(a.views["image"], b.views["image"], "{}", path.display());
                assert_eq!(a.labels, b.labels);
            }
        }
    }

    #[test]
    fn broken_files_are_named_with_offset_and_expectation() {
        let short = folder_error(|files| {
            files[0].1.pop();
        });
        assert_eq!(short, "/cifar-100-binary/train.bin: 61479 bytes, expected 61480 (20 records of 3074 bytes)");
        let long = folder_error(|files| files[1].1.extend([0; RECORD]));
        assert_eq!(long, "/cifar-100-binary/test.bin: 33814 bytes, expected 30740 (10 records of 3074 bytes)");
        let fine = folder_error(|files| files[0].1[3074 * 7 + 1] = 100);
        assert_eq!(fine, "/cifar-100-binary/train.bin: byte 21519 (record 7): fine label 100, expected 0 to 99");
        let coarse = folder_error(|files| files[1].1[3074] = 20);
        assert_eq!(coarse, "/cifar-100-binary/test.bin: byte 3074 (record 1): coarse label 20, expected 0 to 19");
        let names = folder_error(|files| files[2].1 = b"apple\nbear\n".to_vec());
        assert_eq!(names, "/cifar-100-binary/fine_label_names.txt: 2 names, expected 100, one a line");
        let text = folder_error(|files| files[2].1[4] = 0xff);
        assert_eq!(text, "/cifar-100-binary/fine_label_names.txt: byte 4: not UTF-8 text");
        let absent = folder_error(|files| {
            files.remove(1);
        });
        assert_eq!(absent, "cannot read /cifar-100-binary/test.bin");
        let absent = folder_error(|files| {
            files.remove(0);
        });
        assert_eq!(absent, "cannot read /cifar-100-binary/train.bin");
    }

    #[test]
    fn broken_archives_are_named_with_what_was_expected() {
        let mut all = files();
        let whole = tar_of(&all);
        let archive = "/cifar-100-binary.tar.gz";
        // Inside train.bin: its header is 512 bytes, its content 61480.
        assert_eq!(
            archive_error(&whole[..512 + 1000]),
            format!("{archive}: train.bin: the archive ends after 1000 of 61480 bytes")
        );
        let gz = gzip(&whole);
        let message = archive_error(&gz[..gz.len() / 2]);
        let start = format!("{archive}: train.bin: the archive is truncated or damaged after ");
        assert!(message.starts_with(&start) && message.contains(" of 61480 bytes: "), "{message}");
        let truncated = format!("{archive}: truncated or damaged, or not a tar archive: ");
        let message = archive_error(&gz[..gz.len() - 4]);
        assert!(message.starts_with(&truncated), "{message}");
        let mut checksum = gz.clone();
        let crc = checksum.len() - 8;
        checksum[crc] ^= 1;
        let message = archive_error(&checksum);
        assert!(message.starts_with(&truncated), "{message}");
        let message = archive_error(&[b'x'; 2000]);
        assert!(message.starts_with(&truncated), "{message}");
        assert_eq!(
            archive_error(b"\xfd7zXZ\0..."),
            format!("{archive}: neither gzip nor plain tar; unpack it and set `path` to the folder cifar-100-binary")
        );
        all[0].1.pop();
        assert_eq!(
            archive_error(&gzip(&tar_of(&all))),
            format!("{archive}: train.bin: 61479 bytes, expected 61480 (20 records of 3074 bytes)")
        );
        all.remove(0);
        assert_eq!(
            archive_error(&gzip(&tar_of(&all))),
            format!(
                "{archive}: no train.bin in this archive; cifar-100-binary.tar.gz is wanted, not the Python or the Matlab version"
            )
        );
    }

    #[test]
    fn a_missing_path_says_what_to_get() {
        let how = "; download cifar-100-binary.tar.gz (\"binary version\") from \
            https://www.cs.toronto.edu/~kriz/cifar.html and set `path` of data set cifar100 to it, to the unpacked folder, \
            or to the folder that holds either";
        assert_eq!(load("/nowhere/c.tar").unwrap_err().to_string(), format!("/nowhere/c.tar: does not exist{how}"));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            load(empty.path()).unwrap_err().to_string(),
            format!("{}: holds neither cifar-100-binary nor its archive{how}", empty.path().display())
        );
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            load("no-data").unwrap_err().to_string(),
            format!("no-data: does not exist (relative to {}){how}", here.display())
        );
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "cifar100").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Cifar100::default()));
    }
}
