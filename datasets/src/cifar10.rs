//! CIFAR-10: 50 000 training and 10 000 test images of 32×32 pixels, 10 classes.
//!
//! # Getting it
//! `limbeck data fetch cifar10`, or fetch `cifar-10-binary.tar.gz` or `cifar-10-python.tar.gz` from
//! <https://www.cs.toronto.edu/~kriz/cifar.html>, and let `path` name the archive, the unpacked folder, or the folder
//! that holds either.
//!
//! # Format
//! Five training files `data_batch_N.bin` and `test_batch.bin` are 10 000 records of 3073 bytes each: the label, and 3072
//! pixels as three planes (red, green, blue) of 32 rows. `batches.meta.txt` has one name a line. Python's release has the
//! same in the pickles `data_batch_N`, `test_batch` and `batches.meta`.
//!
//! # Normalisation
//! Mean and standard deviation of the training images as airbench (KellerJordan/cifar10-airbench) has them; `limbeck data
//! stats cifar10` measures them.

use std::path::PathBuf;

use limbeck::inventory;
use limbeck::prelude::*;

use crate::archive::Release;
use crate::cifar::{self, Cifar, LabelKind};
use crate::fetch::Source;
use crate::image_set::ImageSet;
use crate::image_settings::resident_images;

const RECORDS: usize = 30_730_000;
const PICKLE: usize = 32_000_000;

const CIFAR: Cifar = Cifar {
    kind: "cifar10",
    releases: [
        Release {
            folder: "cifar-10-batches-bin",
            archive: "cifar-10-binary.tar.gz",
            members: &[
                ("data_batch_1.bin", RECORDS),
                ("data_batch_2.bin", RECORDS),
                ("data_batch_3.bin", RECORDS),
                ("data_batch_4.bin", RECORDS),
                ("data_batch_5.bin", RECORDS),
                ("test_batch.bin", RECORDS),
                ("batches.meta.txt", 1 << 16),
            ],
        },
        Release {
            folder: "cifar-10-batches-py",
            archive: "cifar-10-python.tar.gz",
            members: &[
                ("data_batch_1", PICKLE),
                ("data_batch_2", PICKLE),
                ("data_batch_3", PICKLE),
                ("data_batch_4", PICKLE),
                ("data_batch_5", PICKLE),
                ("test_batch", PICKLE),
                ("batches.meta", 1 << 16),
            ],
        },
    ],
    train_files: 5,
    labels: &[LabelKind {
        name: "class",
        classes: 10,
        key: "labels",
        names_key: "label_names",
        names_file: "batches.meta.txt",
    }],
};
/// Records of a training file and of the test file.
const COUNTS: [usize; 2] = [10_000, 10_000];

limbeck::plugin! {
    dataset "cifar10": Cifar10,
    summary: "CIFAR-10: 60 000 photographs of 32×32 pixels, 10 classes",
    citation: "Krizhevsky. Learning Multiple Layers of Features from Tiny Images. Technical report, University of Toronto, 2009",
}

inventory::submit! {
    Source {
        kind: "cifar10",
        page: cifar::PAGE,
        terms: "no stated licence",
        url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        bytes: 170_052_171,
        md5: "c32a1d4ab5d03f1284b67883e8d87530",
        md5_from: cifar::PAGE,
        folder: "cifar-10-batches-bin",
        content: &[
            "batches.meta.txt",
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
            "test_batch.bin",
        ],
    }
}

resident_images! {
    /// CIFAR-10 from its binary or its Python archive.
    pub struct Cifar10 {
        /// The archive (binary or Python's), the unpacked folder, or the folder that holds either.
        #[setting(default = "data")]
        pub path: PathBuf,
    }
    mean: [0.4914, 0.4822, 0.4465], "airbench's";
    std: [0.2470, 0.2435, 0.2616];
    crop_pad: 4;
}

#[typetag::serde(name = "cifar10")]
impl DatasetConfig for Cifar10 {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(COUNTS, device)?))
    }
}

impl Cifar10 {
    fn load(&self, counts: [usize; 2], device: Device) -> Result<ImageSet> {
        let settings = cifar::Photographs {
            name: "CIFAR-10",
            path: &self.path,
            label: 0,
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
    use std::path::Path;

    use super::*;
    use crate::cifar::test_pickle;

    const NAMES: [&str; 10] =
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

    /// Three records of file `file`: labels and pixels from their numbers.
    fn file(file: usize) -> (Vec<u8>, Vec<u8>) {
        let labels = (0..3).map(|i| ((3 * file + i) % 10) as u8).collect();
        (labels, (0..3 * 3072).map(|i| (i * 7 + file) as u8).collect())
    }

    fn binary(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for i in 0..6 {
            let (labels, data) = file(i);
            let records = labels.iter().zip(data.chunks(3072)).flat_map(|(label, image)| [&[*label], image].concat());
            let bytes: Vec<u8> = records.collect();
            fs::write(folder.join(CIFAR.releases[0].members[i].0), bytes).unwrap();
        }
        fs::write(folder.join("batches.meta.txt"), NAMES.join("\n") + "\n\n").unwrap();
    }

    fn python(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for i in 0..6 {
            let (labels, data) = file(i);
            fs::write(folder.join(CIFAR.releases[1].members[i].0), test_pickle::batch(&[("labels", &labels)], &data))
                .unwrap();
        }
        let names = NAMES.map(str::to_owned).to_vec();
        fs::write(folder.join("batches.meta"), test_pickle::names(&[("label_names", names)])).unwrap();
    }

    fn load(path: &Path) -> Result<ImageSet> {
        Cifar10 { path: path.into(), ..Cifar10::default() }.load([3, 3], Device::Cpu)
    }

    #[test]
    fn five_files_make_the_training_part_in_both_releases() {
        let dir = tempfile::tempdir().unwrap();
        binary(&dir.path().join("b/cifar-10-batches-bin"));
        python(&dir.path().join("p/cifar-10-batches-py"));
        let (binary, python) = (load(&dir.path().join("b")).unwrap(), load(&dir.path().join("p")).unwrap());
        let info = binary.info();
        assert_eq!(
            (info.identity.as_str(), info.class_names.as_slice()),
            (python.info().identity.as_str(), &NAMES.map(str::to_owned)[..])
        );
        assert_eq!(info.train_labels[..], (0..15).map(|i| i % 10).collect::<Vec<i64>>());
        assert_eq!(info.test_labels[..], [5, 6, 7]);
        let views: Views = ["image"].into_iter().collect();
        let image = binary.batch(Split::Train, &Rows::new(vec![14], Device::Cpu), &views, None).unwrap();
        let byte = file(4).1[2 * 3072 + 1024 + 32 * 5 + 9];
        let exact = (f64::from(byte) / 255.0 - 0.4822) / 0.2435;
        approx::assert_abs_diff_eq!(image.views["image"].double_value(&[0, 1, 5, 9]), exact, epsilon = 1e-6);
    }

    #[test]
    fn a_wrong_label_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("cifar-10-batches-bin");
        binary(&folder);
        let path = folder.join("data_batch_4.bin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3073] = 10;
        fs::write(&path, &bytes).unwrap();
        let message = load(dir.path()).unwrap_err().to_string();
        assert_eq!(message, format!("{}: byte 3073 (record 1): class label 10, expected 0 to 9", path.display()));
        fs::remove_file(&path).unwrap();
        assert_eq!(load(dir.path()).unwrap_err().to_string(), format!("cannot read {}", path.display()));
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "cifar10").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Cifar10::default()));
    }
}
