//! STL-10: 5 000 training and 8 000 test images of 96×96 pixels, 10 classes, and 100 000 images without labels.
//!
//! # Getting it
//! `limbeck data fetch stl10`, or fetch `stl10_binary.tar.gz` from <https://cs.stanford.edu/~acoates/stl10/>, and let
//! `path` name the archive, the unpacked folder `stl10_binary`, or the folder that holds either.
//!
//! # Format
//! `train_X.bin`, `test_X.bin` and `unlabeled_X.bin` are images of 27 648 bytes: three planes (red, green, blue), each
//! column by column. `train_y.bin` and `test_y.bin` are labels from 1 to 10, a byte each. `class_names.txt` has one name a
//! line.
//!
//! # Labels
//! `train = "labelled"` trains on the 5 000 images, `"unlabelled"` on the 100 000, `"both"` on all. An image without label
//! has no part in the cross-entropy with the labels, and methods that need the label of every sample refuse it.
//!
//! # Normalisation
//! Mean and standard deviation of the labelled training images as much public code has them, without saying who measured
//! them. `limbeck data stats stl10` does.
//!
//! # Memory
//! 0.4 GB on the device without the unlabelled images, 3.3 GB with them; while loading, as much again on the host.

use std::path::PathBuf;

use limbeck::dataset::UNLABELLED;
use limbeck::inventory;
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

use crate::archive::{self, Member, Release};
use crate::fetch::Source;
use crate::image_set::{ImageSet, Part};
use crate::image_settings::resident_images;
use crate::resident::{Images, Resident};

const SIDE: usize = 96;
const PIXELS: usize = 3 * SIDE * SIDE;
const PAGE: &str = "https://cs.stanford.edu/~acoates/stl10/";
const FOLDER: &str = "stl10_binary";
const ARCHIVE: &str = "stl10_binary.tar.gz";
/// Images of the training part, the test part, and those without labels.
const COUNTS: [usize; 3] = [5_000, 8_000, 100_000];

/// The files; the unlabelled images are the last, and read only if they are asked for.
const MEMBERS: [(&str, usize); 6] = [
    ("train_X.bin", COUNTS[0] * PIXELS),
    ("train_y.bin", COUNTS[0]),
    ("test_X.bin", COUNTS[1] * PIXELS),
    ("test_y.bin", COUNTS[1]),
    ("class_names.txt", 1 << 16),
    ("unlabeled_X.bin", COUNTS[2] * PIXELS),
];
const ALL: Release = Release { folder: FOLDER, archive: ARCHIVE, members: &MEMBERS };
const LABELLED: Release = Release { folder: FOLDER, archive: ARCHIVE, members: MEMBERS.split_at(5).0 };

limbeck::plugin! {
    dataset "stl10": Stl10,
    summary: "STL-10: 13 000 photographs of 96×96 pixels in 10 classes, and 100 000 without labels",
    citation: "Coates, Lee and Ng. An Analysis of Single-Layer Networks in Unsupervised Feature Learning. AISTATS 2011",
}

inventory::submit! {
    Source {
        kind: "stl10",
        page: PAGE,
        terms: "no stated licence; images from ImageNet",
        url: "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        bytes: 2_640_397_119,
        md5: "91f7769df0f17e558f3565bffb0c7dfb",
        md5_from: "torchvision; the publisher names none",
        folder: FOLDER,
        content: &[
            "train_X.bin",
            "train_y.bin",
            "test_X.bin",
            "test_y.bin",
            "class_names.txt",
            "unlabeled_X.bin",
        ],
    }
}

resident_images! {
    /// STL-10 from its binary archive.
    pub struct Stl10 {
        /// The archive `stl10_binary.tar.gz`, the unpacked `stl10_binary`, or the folder that holds either.
        #[setting(default = "data")]
        pub path: PathBuf,
        /// "labelled": 5 000 images; "unlabelled": 100 000 without labels; "both".
        #[setting(default = Train::Labelled)]
        pub train: Train,
    }
    mean: [0.4467, 0.4398, 0.4066], "in wide use, of unknown origin";
    std: [0.2603, 0.2566, 0.2713];
    crop_pad: 12;
}

/// The images that are trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Train {
    /// Those with labels.
    Labelled,
    /// Those without.
    Unlabelled,
    /// Those with labels, then those without.
    Both,
}

#[typetag::serde(name = "stl10")]
impl DatasetConfig for Stl10 {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(COUNTS, device)?))
    }
}

impl Stl10 {
    fn load(&self, counts: [usize; 3], device: Device) -> Result<ImageSet> {
        self.augmentation().check("stl10", SIDE as u32)?;
        let image = self.image(SIDE);
        image.check("stl10")?;
        let release = if self.train == Train::Labelled { &LABELLED } else { &ALL };
        let (_, place) = archive::locate("stl10", PAGE, &self.path, &[*release])?;
        let mut members = archive::read(&place, release)?.into_iter();
        let [train, train_labels, test, test_labels, names, unlabelled] =
            std::array::from_fn(|_| members.next().unwrap_or_default());

        let class_names = names.names(10)?;
        let train = (train, labels(&train_labels, counts[0])?);
        let unlabelled = (unlabelled, vec![UNLABELLED; counts[2]]);
        let train = match self.train {
            Train::Labelled => vec![train],
            Train::Unlabelled => vec![unlabelled],
            Train::Both => vec![train, unlabelled],
        };
        let test = vec![(test, labels(&test_labels, counts[1])?)];
        let parts = [self.part(train, image.shape, device)?, self.part(test, image.shape, device)?];
        ImageSet::new("STL-10", class_names, &[image], &self.views, parts, device)
    }

    /// The images of several files one after another, each file with its labels.
    fn part(&self, files: Vec<(Member, Vec<i64>)>, shape: [i64; 3], device: Device) -> Result<Part> {
        let count = files.iter().map(|(_, labels)| labels.len()).sum();
        let mut images = Images::black(count, shape, self.crop_pad, device);
        let mut all = Vec::with_capacity(count);
        for (member, labels) in files {
            write(&member, &mut images, all.len(), labels.len())?;
            all.extend(labels);
        }
        Ok(Part { pixels: Box::new(Resident::new(vec![images], self.augmentation())), labels: all })
    }
}

/// Labels from 1 to 10, as classes from 0 to 9.
fn labels(member: &Member, count: usize) -> Result<Vec<i64>> {
    if member.bytes.len() != count {
        return Err(member.fault(format!("{} bytes, expected {count} (a label each)", member.bytes.len())));
    }
    if let Some((i, label)) = member.bytes.iter().enumerate().find(|(_, label)| !(1..=10).contains(*label)) {
        return Err(member.fault(format!("byte {i}: label {label}, expected 1 to 10")));
    }
    Ok(member.bytes.iter().map(|label| i64::from(*label) - 1).collect())
}

/// Turns columns into rows and writes the images from `first` on.
fn write(member: &Member, images: &mut Images, first: usize, count: usize) -> Result<()> {
    let (found, expected) = (member.bytes.len(), count * PIXELS);
    if found != expected {
        return Err(member.fault(format!("{found} bytes, expected {expected} ({count} images of {PIXELS} bytes)")));
    }
    let mut planes = Vec::new();
    for (i, chunk) in member.bytes.chunks(500 * PIXELS).enumerate() {
        planes.clear();
        for plane in chunk.chunks_exact(SIDE * SIDE) {
            planes.extend((0..SIDE * SIDE).map(|at| plane[at % SIDE * SIDE + at / SIDE]));
        }
        images.write(first + 500 * i, &planes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use limbeck::cohort::Data;
    use limbeck::experiment::Division;

    use super::*;
    use crate::image_set::IMAGE;

    const SMALL: [usize; 3] = [4, 3, 5];
    const NAMES: &str = "airplane\nbird\ncar\ncat\ndeer\ndog\nhorse\nmonkey\nship\ntruck\n";

    fn bytes(count: usize, salt: usize) -> Vec<u8> {
        (0..count * PIXELS).map(|i| (i * 31 / 7 + salt) as u8).collect()
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        let files: [(&str, Vec<u8>); 7] = [
            ("train_X.bin", bytes(4, 1)),
            ("train_y.bin", vec![1, 10, 3, 1]),
            ("test_X.bin", bytes(3, 2)),
            ("test_y.bin", vec![2, 2, 9]),
            ("unlabeled_X.bin", bytes(5, 3)),
            ("class_names.txt", NAMES.as_bytes().to_vec()),
            ("fold_indices.txt", b"0 1\n".to_vec()),
        ];
        for (name, bytes) in files {
            fs::write(folder.join(name), bytes).unwrap();
        }
        dir
    }

    fn load(path: &Path, train: Train) -> Result<ImageSet> {
        Stl10 { path: path.into(), train, ..Stl10::default() }.load(SMALL, Device::Cpu)
    }

    #[test]
    fn columns_become_rows_and_labels_begin_at_zero() {
        let dir = folder();
        let set = load(dir.path(), Train::Labelled).unwrap();
        assert_eq!((&set.info().train_labels[..], &set.info().test_labels[..]), (&[0, 9, 2, 0][..], &[1, 1, 8][..]));
        assert_eq!(set.info().class_names[9], "truck");
        let views: Views = [IMAGE].into_iter().collect();
        let batch = set.batch(Split::Train, &Rows::new(vec![2], Device::Cpu), &views, None).unwrap();
        for (c, y, x) in [(0_usize, 0_usize, 1_usize), (1, 17, 90), (2, 95, 0)] {
            let byte = bytes(4, 1)[2 * PIXELS + c * SIDE * SIDE + x * SIDE + y];
            let exact = (f64::from(byte) / 255.0 - Stl10::default().mean[c]) / Stl10::default().std[c];
            let value = batch.views[IMAGE].double_value(&[0, c as i64, y as i64, x as i64]);
            approx::assert_abs_diff_eq!(value, exact, epsilon = 1e-6);
        }
    }

    #[test]
    fn images_without_labels_may_be_trained_on() {
        let dir = folder();
        let both = load(dir.path(), Train::Both).unwrap();
        assert_eq!(both.info().train_labels[..], [0, 9, 2, 0, -100, -100, -100, -100, -100]);
        let unlabelled = load(dir.path(), Train::Unlabelled).unwrap();
        assert_eq!(unlabelled.info().train_labels[..], [UNLABELLED; 5]);
        let views: Views = [IMAGE].into_iter().collect();
        let in_both = both.batch(Split::Train, &Rows::new(vec![4 + 3], Device::Cpu), &views, None).unwrap();
        let alone = unlabelled.batch(Split::Train, &Rows::new(vec![3], Device::Cpu), &views, None).unwrap();
        assert_eq!(in_both.views[IMAGE], alone.views[IMAGE]);
    }

    #[test]
    fn a_probe_is_of_those_with_a_label() {
        let dir = folder();
        let [both, unlabelled] = [Train::Both, Train::Unlabelled]
            .map(|train| Data::new(Box::new(load(dir.path(), train).unwrap()), Division::default()).unwrap());
        assert_eq!(both.train_rows.len(), 9);
        assert_eq!(both.labelled(Split::Train).unwrap(), [0, 1, 2, 3]);
        assert_eq!(both.labelled(Split::Test).unwrap(), [0, 1, 2]);
        let error = unlabelled.labelled(Split::Train).unwrap_err();
        assert!(error.is_usage());
        assert_eq!(error.to_string(), "the training part has no sample with a label: a probe needs them");
    }

    #[test]
    fn broken_files_are_named() {
        fn error(file: &str, bytes: Option<&[u8]>) -> String {
            let dir = folder();
            let path = dir.path().join(FOLDER).join(file);
            match bytes {
                Some(bytes) => fs::write(&path, bytes).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            load(dir.path(), Train::Both).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "")
        }

        assert_eq!(
            error("train_y.bin", Some(&[1, 0, 3, 1])),
            "/stl10_binary/train_y.bin: byte 1: label 0, expected 1 to 10"
        );
        assert_eq!(
            error("test_y.bin", Some(&[1, 11, 3])),
            "/stl10_binary/test_y.bin: byte 1: label 11, expected 1 to 10"
        );
        assert_eq!(error("test_y.bin", Some(&[1])), "/stl10_binary/test_y.bin: 1 bytes, expected 3 (a label each)");
        assert_eq!(
            error("test_X.bin", Some(&bytes(3, 0)[1..])),
            "/stl10_binary/test_X.bin: 82943 bytes, expected 82944 (3 images of 27648 bytes)"
        );
        assert_eq!(
            error("unlabeled_X.bin", Some(&bytes(6, 0))),
            "/stl10_binary/unlabeled_X.bin: 165888 bytes, expected 138240 (5 images of 27648 bytes)"
        );
        assert_eq!(
            error("class_names.txt", Some(b"a\nb")),
            "/stl10_binary/class_names.txt: 2 names, expected 10, one a line"
        );
        assert_eq!(error("unlabeled_X.bin", None), "cannot read /stl10_binary/unlabeled_X.bin");
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "stl10").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Stl10::default()));
    }
}
