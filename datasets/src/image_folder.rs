//! A folder of images in the layout of ImageNet: `train/CLASS/*.JPEG` and `val/CLASS/*.JPEG`.
//!
//! ```toml
//! [dataset]
//! kind = "image_folder"
//! path = "data/imagenet"
//! ```
//!
//! The classes are the folders of the training part in the order of their names; the test part must have the same. Files
//! are JPEG or PNG; anything else that is not hidden is an error, and so is an empty class. By default images stay on the
//! disk and are decoded batch by batch, with the crops of torchvision's recipes (random area and ratio in training, the
//! centre in evaluation); `storage = { kind = "device" }` keeps small images on the device.
//!
//! The first start decodes every file once, to find broken ones and to identify the content; see `.limbeck-index` in the
//! folder.
//!
//! # Normalisation
//! By default the constants of torchvision's ImageNet recipes, measured on ImageNet's training images. For other images
//! `limbeck data stats image_folder --path PATH` measures them.

use std::path::{Path, PathBuf};

use limbeck::prelude::*;

use crate::archive::relative_to;
use crate::file_set::{FileSet, Sample, Storage, list, list_images};
use crate::image_set::ImageSet;
use crate::image_settings::image_files;
use crate::index::{Kind, Trust};

limbeck::plugin! {
    dataset "image_folder": ImageFolder,
    summary: "folders of JPEG or PNG images in the layout of ImageNet: train/CLASS/… and val/CLASS/…",
    citation: "",
}

image_files! {
    /// Folders of images.
    pub struct ImageFolder {
        /// The folder that holds both parts.
        #[setting(default = "data/imagenet")]
        pub path: PathBuf,
        /// The folder of the training part.
        #[setting(default = "train")]
        pub train: String,
        /// The folder of the test part.
        #[setting(default = "val")]
        pub test: String,
    }
    size: [224, 224];
    mean: [0.485, 0.456, 0.406], "those of ImageNet";
    std: [0.229, 0.224, 0.225];
    storage: Storage::stream();
}

#[typetag::serde(name = "image_folder")]
impl DatasetConfig for ImageFolder {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(device, Trust::Known)?))
    }

    fn build_afresh(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(device, Trust::Nothing)?))
    }
}

impl ImageFolder {
    fn load(&self, device: Device, trust: Trust) -> Result<ImageSet> {
        for part in [&self.train, &self.test] {
            if !self.path.join(part).is_dir() {
                let (path, from) = (self.path.display(), relative_to(&self.path));
                return Err(Error::plan(format!(
                    "{path}: holds no folder `{part}`{from}; it must have a folder for each class"
                )));
            }
        }
        let class_names = classes(&self.path.join(&self.train))?;
        let found = classes(&self.path.join(&self.test))?;
        compare((&self.train, &class_names), (&self.test, &found)).map_err(|what| Error::data(&self.path, what))?;
        let parts = [self.samples(&self.train, &class_names)?, self.samples(&self.test, &class_names)?];
        let name = self.path.file_name().map_or_else(|| "images".into(), |name| name.to_string_lossy());
        FileSet {
            kind: "image_folder",
            name: &name,
            root: &self.path,
            modalities: &[self.image()],
            kinds: &[Kind::Colour],
            class_names,
            parts,
            storage: &self.storage,
            flip: self.flip,
            broken: self.broken,
            views: &self.views,
            trust,
        }
        .build(device)
    }

    fn samples(&self, part: &str, classes: &[String]) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for (label, class) in classes.iter().enumerate() {
            for file in list_images(&self.path.join(part).join(class))? {
                samples.push(Sample {
                    files: vec![format!("{part}/{class}/{file}")],
                    label: label as i64,
                    classes: Vec::new(),
                    map: None,
                });
            }
        }
        Ok(samples)
    }
}

/// The class folders of a part, which holds nothing else.
fn classes(part: &Path) -> Result<Vec<String>> {
    let mut classes = Vec::new();
    for (name, is_folder) in list(part)? {
        if !is_folder {
            let message = "not a folder: a part holds a folder for each class, and nothing else";
            return Err(Error::data(part.join(name), message));
        }
        classes.push(name);
    }
    if classes.is_empty() {
        return Err(Error::data(part, "holds no class folder"));
    }
    Ok(classes)
}

fn compare((train, expected): (&str, &[String]), (test, found): (&str, &[String])) -> Result<(), String> {
    if let Some(class) = expected.iter().find(|class| !found.contains(class)) {
        return Err(format!("{test} has no folder `{class}`, which {train} has"));
    }
    match found.iter().find(|class| !expected.contains(class)) {
        Some(class) => Err(format!("{train} has no folder `{class}`, which {test} has")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::file_set::Broken;
    use crate::fixture::{jpeg, rgb_png, write};
    use crate::image_set::IMAGE;

    /// Two classes, three training and two test images each.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (part, count) in [("train", 3), ("val", 2)] {
            for (class, name) in ["n01", "n02"].into_iter().enumerate() {
                for i in 0..count {
                    let salt = 10 * class + i;
                    let file = if i == 0 { rgb_png([20, 24], salt) } else { jpeg([20, 24], 3, salt) };
                    write(dir.path().join(part).join(name).join(format!("{name}_{i}.JPEG")), file);
                }
            }
        }
        dir
    }

    fn config(path: &Path) -> ImageFolder {
        ImageFolder { path: path.into(), size: [16, 16], ..ImageFolder::default() }
    }

    fn batch(set: &ImageSet, split: Split, rows: &[i64], draw: Option<Seed>) -> Tensor {
        let views: Views = [IMAGE].into_iter().collect();
        set.batch(split, &Rows::new(rows.to_vec(), Device::Cpu), &views, draw)
            .unwrap()
            .views
            .swap_remove(IMAGE)
            .unwrap()
    }

    /// The message after a change, without the folder's name.
    fn error(change: impl FnOnce(&Path)) -> String {
        let dir = folder();
        change(dir.path());
        let message = config(dir.path()).load(Device::Cpu, Trust::Known).unwrap_err().to_string();
        message.replace(dir.path().to_str().unwrap(), "")
    }

    #[test]
    fn classes_and_rows_are_in_the_order_of_names() {
        let dir = folder();
        write(dir.path().join("train/.hidden"), "x");
        let set = config(dir.path()).load(Device::Cpu, Trust::Known).unwrap();
        let info = set.info();
        assert_eq!(info.class_names, ["n01", "n02"]);
        assert_eq!((&info.train_labels[..], &info.test_labels[..]), (&[0, 0, 0, 1, 1, 1][..], &[0, 0, 1, 1][..]));
        assert_eq!(info.views[0].shape, [3, 16, 16]);
        assert!(info.notes.is_empty());
        let image = batch(&set, Split::Train, &[4, 0], Some(Seed::new(1)));
        assert_eq!((image.size(), image.stride()), (vec![2, 3, 16, 16], vec![768, 1, 48, 3]));
    }

    #[test]
    fn small_images_may_live_on_the_device() {
        let dir = folder();
        let storage = Storage::device();
        let config = ImageFolder { storage, size: [20, 24], ..config(dir.path()) };
        let set = config.load(Device::Cpu, Trust::Known).unwrap();
        let image = batch(&set, Split::Train, &[3], None);
        let byte = crate::fixture::smooth([20, 24], 3, 10)[(7 * 24 + 5) * 3 + 1];
        let exact = (f64::from(byte) / 255.0 - 0.456) / 0.224;
        approx::assert_abs_diff_eq!(image.double_value(&[0, 1, 7, 5]), exact, epsilon = 1e-6);
    }

    #[test]
    fn the_identity_is_the_content_and_not_the_place() {
        fn identity(path: &Path) -> String {
            config(path).load(Device::Cpu, Trust::Known).unwrap().info().identity.clone()
        }

        let (a, b) = (folder(), folder());
        assert_eq!(identity(a.path()), identity(b.path()));
        // From the index that the first start wrote.
        assert!(a.path().join(".limbeck-index").exists());
        assert_eq!(identity(a.path()), identity(b.path()));
        thread::sleep(Duration::from_millis(20));
        fs::write(b.path().join("train/n02/n02_1.JPEG"), jpeg([20, 24], 3, 99)).unwrap();
        assert_ne!(identity(a.path()), identity(b.path()));
        let other = ImageFolder { flip: false, ..config(a.path()) }.load(Device::Cpu, Trust::Known).unwrap();
        assert_ne!(other.info().identity, identity(a.path()));
        // A damaged index is as good as none.
        fs::write(a.path().join(".limbeck-index"), "{").unwrap();
        identity(a.path());
    }

    #[test]
    fn a_broken_image_is_an_error_or_skipped_with_a_count() {
        fn truncate(dir: &Path) {
            let path = dir.join("train/n01/n01_1.JPEG");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }

        assert_eq!(
            error(truncate),
            "/train/n01/n01_1.JPEG: not a sound JPEG file: truncated; `broken = \"skip\"` leaves such samples out"
        );
        assert_eq!(
            error(|dir| fs::write(dir.join("val/n02/n02_0.JPEG"), "").unwrap()),
            "/val/n02/n02_0.JPEG: the file is empty; `broken = \"skip\"` leaves such samples out"
        );
        let dir = folder();
        truncate(dir.path());
        let set = ImageFolder { broken: Broken::Skip, ..config(dir.path()) }.load(Device::Cpu, Trust::Known).unwrap();
        assert_eq!(set.info().train_labels[..], [0, 0, 1, 1, 1]);
        assert_eq!(set.info().notes, ["left out because their images are broken: 1 of 6 training samples"]);
        assert_eq!(batch(&set, Split::Train, &[0, 1, 2, 3, 4], None).size(), [5, 3, 16, 16]);
        for image in
            fs::read_dir(dir.path().join("val/n01")).unwrap().chain(fs::read_dir(dir.path().join("val/n02")).unwrap())
        {
            fs::write(image.unwrap().path(), "x").unwrap();
        }
        let none = ImageFolder { broken: Broken::Skip, ..config(dir.path()) }
            .load(Device::Cpu, Trust::Known)
            .unwrap_err()
            .to_string();
        assert_eq!(
            none,
            format!(
                "{}: the test part has no sound image (4 are listed); the first, val/n01/n01_0.JPEG: neither a JPEG nor a PNG \
                 file",
                dir.path().display()
            )
        );
    }

    #[test]
    fn folders_that_are_not_as_they_should_be_are_named() {
        fn remove(path: &'static str) -> impl FnOnce(&Path) {
            move |dir: &Path| fs::remove_dir_all(dir.join(path)).unwrap()
        }

        assert_eq!(error(remove("val")), ": holds no folder `val`; it must have a folder for each class");
        assert_eq!(error(remove("val/n02")), ": val has no folder `n02`, which train has");
        assert_eq!(error(remove("train/n02")), ": train has no folder `n02`, which val has");
        let empty = error(|dir| {
            fs::remove_dir_all(dir.join("train/n01")).unwrap();
            fs::create_dir(dir.join("train/n01")).unwrap();
        });
        assert_eq!(empty, "/train/n01: holds no image");
        assert_eq!(
            error(|dir| write(dir.join("train/n01/list.txt"), "x")),
            "/train/n01/list.txt: not an image file (.jpg, .jpeg, .png), and nothing else is expected here"
        );
        assert_eq!(
            error(|dir| write(dir.join("train/list.txt"), "x")),
            "/train/list.txt: not a folder: a part holds a folder for each class, and nothing else"
        );
        let none = error(|dir| {
            fs::remove_dir_all(dir.join("train")).unwrap();
            fs::create_dir(dir.join("train")).unwrap();
        });
        assert_eq!(none, "/train: holds no class folder");
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "image_folder").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", ImageFolder::default()));
    }
}
