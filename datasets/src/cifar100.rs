//! CIFAR-100: 50 000 training and 10 000 test images of 32×32 pixels, 100 classes in 20 superclasses.
//!
//! # Getting it
//! `limbeck data fetch cifar100`, or fetch `cifar-100-binary.tar.gz` or `cifar-100-python.tar.gz` from
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, and let `path` name it:
//!
//! ```toml
//! [dataset]
//! kind = "cifar100"
//! path = "data/cifar-100-binary.tar.gz"
//! ```
//!
//! `path` may name the archive (gzip or plain tar), the unpacked folder, or the folder that holds either; an unpacked
//! folder is preferred to an archive beside it, and the binary release to Python's, which holds the same images in the
//! same order. A relative path starts at the current folder.
//!
//! # Format
//! `train.bin` and `test.bin` are records of 3074 bytes: the coarse label, the fine label, and 3072 pixels as three
//! planes (red, green, blue) of 32 rows. `fine_label_names.txt` and `coarse_label_names.txt` have one name a line. Python's
//! release has the same in the pickles `train`, `test` and `meta`.
//!
//! # Normalisation
//! The constants of the CRD paper's code (RepDistiller), which papers since have in common. `limbeck data stats cifar100`
//! measures (0.5071, 0.4865, 0.4409) and (0.2673, 0.2564, 0.2762).
//!
//! # Memory and time
//! 194 MB on the device, with margins of 4 for the crop; about twice that on the host while loading.

use std::path::PathBuf;

use limbeck::inventory;
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::archive::Release;
use crate::cifar::{self, Cifar, LabelKind};
use crate::fetch::Source;
use crate::image_set::ImageSet;
use crate::image_settings::resident_images;

const CIFAR: Cifar = Cifar {
    kind: "cifar100",
    releases: [
        Release {
            folder: "cifar-100-binary",
            archive: "cifar-100-binary.tar.gz",
            members: &[
                ("train.bin", 153_700_000),
                ("test.bin", 30_740_000),
                ("fine_label_names.txt", 1 << 16),
                ("coarse_label_names.txt", 1 << 16),
            ],
        },
        Release {
            folder: "cifar-100-python",
            archive: "cifar-100-python.tar.gz",
            members: &[("train", 160_000_000), ("test", 32_000_000), ("meta", 1 << 16)],
        },
    ],
    train_files: 1,
    labels: &[
        LabelKind {
            name: "coarse",
            classes: 20,
            key: "coarse_labels",
            names_key: "coarse_label_names",
            names_file: "coarse_label_names.txt",
        },
        LabelKind {
            name: "fine",
            classes: 100,
            key: "fine_labels",
            names_key: "fine_label_names",
            names_file: "fine_label_names.txt",
        },
    ],
};
/// Records of the training part and of the test part.
const COUNTS: [usize; 2] = [50_000, 10_000];

limbeck::plugin! {
    dataset "cifar100": Cifar100,
    summary: "CIFAR-100: 60 000 photographs of 32×32 pixels, 100 classes in 20 superclasses",
    citation: "Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, University of Toronto, 2009",
}

inventory::submit! {
    Source {
        kind: "cifar100",
        page: cifar::PAGE,
        terms: "no stated licence",
        url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        bytes: 168_513_733,
        md5: "03b5dce01913d631647c71ecec9e9cb8",
        md5_from: cifar::PAGE,
        folder: "cifar-100-binary",
        content: &["train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"],
    }
}

resident_images! {
    /// CIFAR-100 from its binary or its Python archive.
    pub struct Cifar100 {
        /// The archive (binary or Python's), the unpacked folder, or the folder that holds either.
        #[setting(default = "data")]
        pub path: PathBuf,
        /// "fine": the 100 classes; "coarse": the 20 superclasses.
        #[setting(default = Labels::Fine)]
        pub labels: Labels,
    }
    mean: [0.5071, 0.4867, 0.4408], "those of the CRD paper's code";
    std: [0.2675, 0.2565, 0.2761];
    crop_pad: 4;
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

#[typetag::serde(name = "cifar100")]
impl DatasetConfig for Cifar100 {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(COUNTS, device)?))
    }
}

impl Cifar100 {
    fn load(&self, counts: [usize; 2], device: Device) -> Result<ImageSet> {
        let (name, label) = match self.labels {
            Labels::Coarse => ("CIFAR-100 (superclasses)", 0),
            Labels::Fine => ("CIFAR-100", 1),
        };
        let settings = cifar::Photographs {
            name,
            path: &self.path,
            label,
            image: self.image(cifar::SIDE),
            augmentation: self.augmentation(),
            views: &self.views,
        };
        CIFAR.load(settings, counts, device)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;

    use flate2::{Compression, write::GzEncoder};
    use tempfile::TempDir;

    use super::*;
    use crate::cifar::test_pickle;

    const FOLDER: &str = "cifar-100-binary";
    const ARCHIVES: [&str; 1] = ["cifar-100-binary.tar.gz"];
    const RECORD: usize = 3074;

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

    fn names(kind: &str, count: usize) -> Vec<String> {
        (0..count).map(|i| format!("{kind}_{i}")).collect()
    }

    /// A file with a name a line.
    fn names_file(kind: &str, count: usize) -> Vec<u8> {
        names(kind, count).into_iter().map(|name| name + "\n").collect::<String>().into_bytes()
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("train.bin", records(SMALL[0])),
            ("test.bin", records(SMALL[1])),
            ("fine_label_names.txt", names_file("fine", 100)),
            ("coarse_label_names.txt", names_file("coarse", 20)),
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

    /// [`records`] as Python has them.
    fn pickled_records(count: usize) -> Vec<u8> {
        let (mut coarse, mut fine, mut data): (Vec<u8>, Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new(), Vec::new());
        for record in records(count).chunks_exact(RECORD) {
            coarse.push(record[0]);
            fine.push(record[1]);
            data.extend_from_slice(&record[2..]);
        }
        test_pickle::batch(&[("coarse_labels", &coarse), ("fine_labels", &fine)], &data)
    }

    /// The same images as [`files`] as Python has them.
    fn pickles() -> Vec<(&'static str, Vec<u8>)> {
        let meta = [("fine_label_names", names("fine", 100)), ("coarse_label_names", names("coarse", 20))];
        vec![
            ("train", pickled_records(SMALL[0])),
            ("test", pickled_records(SMALL[1])),
            ("meta", test_pickle::names(&meta)),
        ]
    }

    #[test]
    fn both_releases_hold_the_same() {
        let dir = folder_of(&files());
        let python = tempfile::tempdir().unwrap();
        for (name, bytes) in pickles() {
            fs::write(python.path().join(name), bytes).unwrap();
        }
        let folder = python.path().join("cifar-100-python");
        fs::create_dir(&folder).unwrap();
        for (name, _) in pickles() {
            fs::rename(python.path().join(name), folder.join(name)).unwrap();
        }
        let (binary, pickled) = (load(dir.path()).unwrap(), load(python.path()).unwrap());
        assert_eq!(binary.info().identity, pickled.info().identity);
        assert_eq!(binary.info().class_names, pickled.info().class_names);
        let rows: Vec<i64> = (0..10).collect();
        let (a, b) = (batch(&binary, Split::Train, &rows, None), batch(&pickled, Split::Train, &rows, None));
        assert_eq!(a.views["image"], b.views["image"]);
        assert_eq!(a.labels, b.labels);
    }

    #[test]
    fn broken_pickles_are_named() {
        fn error(change: &dyn Fn(&mut Vec<u8>)) -> String {
            let dir = tempfile::tempdir().unwrap();
            let folder = dir.path().join("cifar-100-python");
            fs::create_dir(&folder).unwrap();
            for (i, (name, mut bytes)) in pickles().into_iter().enumerate() {
                if i == 0 {
                    change(&mut bytes);
                }
                fs::write(folder.join(name), bytes).unwrap();
            }
            load(dir.path()).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "")
        }

        let train = "/cifar-100-python/train";
        let size = pickles()[0].1.len();
        let cut = error(&|bytes| bytes.truncate(1000));
        assert!(cut.starts_with(&format!("{train}: its pickle cannot be read at byte ")), "{cut}");
        assert!(cut.contains(": it ends there: 61440 bytes are wanted and "), "{cut}");
        assert_eq!(error(&|bytes| bytes.push(0)), format!("{train}: 1 bytes behind the end of the pickle"));
        assert_eq!(
            error(&|bytes| *bytes = test_pickle::batch(&[("coarse_labels", &[3; 20])], &[0; 20 * 3072])),
            format!("{train}: 0 `fine_labels`, expected 20")
        );
        assert_eq!(
            error(&|bytes| *bytes = test_pickle::batch(&[], &[0; 19 * 3072])),
            format!("{train}: `data` is 19 × 3072, expected 20 × 3072")
        );
        let labels: [(&str, &[u8]); 2] = [("coarse_labels", &[3; 20]), ("fine_labels", &[100; 20])];
        assert_eq!(
            error(&|bytes| *bytes = test_pickle::batch(&labels, &[0; 20 * 3072])),
            format!("{train}: record 0: fine label 100, expected 0 to 99")
        );
        assert!(size > 20 * 3072);
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
            format!("{archive}: no train.bin in this archive; cifar-100-binary.tar.gz is wanted")
        );
    }

    #[test]
    fn a_missing_path_says_what_to_get() {
        let how = "; `limbeck data fetch cifar100` gets it; or download cifar-100-binary.tar.gz from \
            https://www.cs.toronto.edu/~kriz/cifar.html and set `path` of data set cifar100 to it, to the unpacked folder, \
            or to the folder that holds either";
        assert_eq!(load("/nowhere/c.tar").unwrap_err().to_string(), format!("/nowhere/c.tar: does not exist{how}"));
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            load(empty.path()).unwrap_err().to_string(),
            format!(
                "{}: holds neither cifar-100-binary nor cifar-100-python nor an archive of it{how}",
                empty.path().display()
            )
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
