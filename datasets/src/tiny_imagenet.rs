//! Tiny ImageNet: 100 000 training and 10 000 validation images of 64×64 pixels, 200 classes of ImageNet.
//!
//! # Getting it
//! `limbeck data fetch tiny_imagenet`, or unpack <http://cs231n.stanford.edu/tiny-imagenet-200.zip> and let `path` name the
//! folder `tiny-imagenet-200` or the one that holds it.
//!
//! # Format
//! `train/WNID/images/*.JPEG`, with boxes beside that are not used; `val/images/*.JPEG`, with the classes in
//! `val/val_annotations.txt`. The official test part has no labels: the validation part is what is tested on. Classes are
//! in the order of their WordNet numbers, as in an image folder, and named after `words.txt`.
//!
//! # Normalisation
//! Mean and standard deviation of the training images as aimagelab's mammoth has them, whose second mean is 0.4480; much
//! other code has 0.4481, as here, and none says who measured it. `limbeck data stats tiny_imagenet` does.
//!
//! # Memory
//! 1.3 GB on the device; `storage = { kind = "stream" }` leaves the images on the disk.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use limbeck::inventory;
use limbeck::prelude::*;

use crate::archive::relative_to;
use crate::fetch::Source;
use crate::file_set::{FileSet, Sample, Storage, list, list_images};
use crate::image_set::ImageSet;
use crate::image_settings::image_files;
use crate::index::{Kind, Trust};

const FOLDER: &str = "tiny-imagenet-200";
const PAGE: &str = "http://cs231n.stanford.edu/tiny-imagenet-200.zip";

limbeck::plugin! {
    dataset "tiny_imagenet": TinyImageNet,
    summary: "Tiny ImageNet: 110 000 photographs of 64×64 pixels, 200 classes",
    citation: "Le and Yang. Tiny ImageNet Visual Recognition Challenge. Stanford CS 231N, 2015",
}

inventory::submit! {
    Source {
        kind: "tiny_imagenet",
        page: PAGE,
        terms: "those of ImageNet: research and education, without commerce",
        url: PAGE,
        bytes: 248_100_043,
        md5: "90528d7ca1a48142e341f4ef8d21d0de",
        md5_from: "loaders in common use; the publisher names none",
        folder: FOLDER,
        content: &["wnids.txt", "words.txt", "train", "val/images", "val/val_annotations.txt"],
    }
}

image_files! {
    /// Tiny ImageNet from its folder.
    pub struct TinyImageNet {
        /// The folder `tiny-imagenet-200`, or the one that holds it.
        #[setting(default = "data")]
        pub path: PathBuf,
    }
    size: [64, 64];
    mean: [0.4802, 0.4481, 0.3975], "those of mammoth, but for 0.4480 there";
    std: [0.2770, 0.2691, 0.2821];
    storage: Storage::device();
}

#[typetag::serde(name = "tiny_imagenet")]
impl DatasetConfig for TinyImageNet {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(device, Trust::Known)?))
    }

    fn build_afresh(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(device, Trust::Nothing)?))
    }
}

impl TinyImageNet {
    fn load(&self, device: Device, trust: Trust) -> Result<ImageSet> {
        let root = self.root()?;
        let ids = wnids(&root)?;
        let parts = [training(&root, &ids)?, validation(&root, &ids)?];
        FileSet {
            kind: "tiny_imagenet",
            name: "Tiny ImageNet",
            root: &root,
            modalities: &[self.image()],
            kinds: &[Kind::Colour],
            class_names: names(&root, &ids)?,
            parts,
            storage: &self.storage,
            flip: self.flip,
            broken: self.broken,
            views: &self.views,
            trust,
        }
        .build(device)
    }

    fn root(&self) -> Result<PathBuf> {
        let folders = [self.path.clone(), self.path.join(FOLDER)];
        folders.into_iter().find(|folder| folder.join("wnids.txt").exists()).ok_or_else(|| {
            let (path, from) = (self.path.display(), relative_to(&self.path));
            Error::plan(format!(
                "{path}: holds no {FOLDER} with wnids.txt{from}; `limbeck data fetch tiny_imagenet` gets it; or unpack {PAGE} \
                 and set `path` of data set tiny_imagenet to its folder, or to the one that holds it"
            ))
        })
    }
}

/// The lines of a text file that are not empty.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// The classes by WordNet number, ascending: those of `wnids.txt`, which must be the folders of the training part.
fn wnids(root: &Path) -> Result<Vec<String>> {
    let file = root.join("wnids.txt");
    let mut ids = lines(&file)?;
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::data(file, format!("{} is there twice", twice[0])));
    }
    let train = root.join("train");
    for (name, _) in list(&train)? {
        if ids.binary_search(&name).is_err() {
            return Err(Error::data(train.join(name), "not a class of wnids.txt"));
        }
    }
    Ok(ids)
}

/// The first word for each class.
fn names(root: &Path, ids: &[String]) -> Result<Vec<String>> {
    let file = root.join("words.txt");
    let lines = lines(&file)?;
    let words: HashMap<&str, &str> = lines.iter().filter_map(|line| line.split_once('\t')).collect();
    let mut names = Vec::new();
    for id in ids {
        let words = words.get(id.as_str()).ok_or_else(|| Error::data(&file, format!("has no words for {id}")))?;
        names.push(words.split(',').next().unwrap_or(words).trim().to_owned());
    }
    Ok(names)
}

fn training(root: &Path, ids: &[String]) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for (label, id) in ids.iter().enumerate() {
        let folder = format!("train/{id}/images");
        for file in list_images(&root.join(&folder))? {
            let files = vec![format!("{folder}/{file}")];
            samples.push(Sample { files, label: label as i64, classes: Vec::new(), map: None });
        }
    }
    Ok(samples)
}

fn validation(root: &Path, ids: &[String]) -> Result<Vec<Sample>> {
    let file = root.join("val/val_annotations.txt");
    let mut labels: HashMap<String, i64> = HashMap::new();
    for (i, line) in lines(&file)?.iter().enumerate() {
        let wrong = |what: String| Error::data(&file, format!("line {}: {what}", i + 1));
        let mut columns = line.split('\t');
        let (Some(image), Some(id)) = (columns.next(), columns.next()) else {
            return Err(wrong("expected an image and a class, with tabs between".to_owned()));
        };
        let label = ids.binary_search_by(|known| known.as_str().cmp(id));
        let label = label.map_err(|_| wrong(format!("{id} is not a class of wnids.txt")))?;
        if labels.insert(image.to_owned(), label as i64).is_some() {
            return Err(wrong(format!("{image} is there twice")));
        }
    }
    let folder = root.join("val/images");
    let mut samples = Vec::new();
    for image in list_images(&folder)? {
        let label = labels.remove(&image);
        let label = label.ok_or_else(|| Error::data(folder.join(&image), "not in val_annotations.txt"))?;
        samples.push(Sample { files: vec![format!("val/images/{image}")], label, classes: Vec::new(), map: None });
    }
    match labels.keys().min() {
        Some(image) => Err(Error::data(&file, format!("names {image}, which is not in val/images"))),
        None => Ok(samples),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{jpeg, write};

    /// Two classes in the official layout, listed in another order than that of their numbers.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(FOLDER);
        write(root.join("wnids.txt"), "n02\nn01\n");
        write(root.join("words.txt"), "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\tbullfrog, Rana\n");
        for (class, id) in ["n01", "n02"].into_iter().enumerate() {
            for i in 0..2 {
                write(root.join(format!("train/{id}/images/{id}_{i}.JPEG")), jpeg([64, 64], 3, 5 * class + i));
            }
            write(root.join(format!("train/{id}/{id}_boxes.txt")), "n01_0.JPEG\t0\t0\t9\t9\n");
        }
        for i in 0..3 {
            write(root.join(format!("val/images/val_{i}.JPEG")), jpeg([64, 64], 3, 20 + i));
        }
        write(
            root.join("val/val_annotations.txt"),
            "val_0.JPEG\tn02\t0\t0\t9\t9\nval_2.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n",
        );
        dir
    }

    fn load(path: &Path) -> Result<ImageSet> {
        TinyImageNet { path: path.into(), ..TinyImageNet::default() }.load(Device::Cpu, Trust::Known)
    }

    #[test]
    fn the_official_layout_is_read() {
        let dir = folder();
        let set = load(dir.path()).unwrap();
        let info = set.info();
        assert_eq!(info.class_names, ["goldfish", "bullfrog"]);
        assert_eq!((&info.train_labels[..], &info.test_labels[..]), (&[0, 0, 1, 1][..], &[1, 0, 1][..]));
        assert_eq!(info.views[0].shape, [3, 64, 64]);
        assert_eq!(load(&dir.path().join(FOLDER)).unwrap().info().identity, info.identity);
    }

    #[test]
    fn what_is_broken_is_named() {
        fn error(change: &dyn Fn(&Path)) -> String {
            let dir = folder();
            let root = dir.path().join(FOLDER);
            change(&root);
            load(dir.path()).unwrap_err().to_string().replace(root.to_str().unwrap(), "")
        }

        fn annotations(text: &'static str) -> impl Fn(&Path) {
            move |root: &Path| fs::write(root.join("val/val_annotations.txt"), text).unwrap()
        }

        let file = "/val/val_annotations.txt";
        assert_eq!(
            error(&annotations("val_0.JPEG\tn03\n")),
            format!("{file}: line 1: n03 is not a class of wnids.txt")
        );
        assert_eq!(
            error(&annotations("val_0.JPEG n01\n")),
            format!("{file}: line 1: expected an image and a class, with tabs between")
        );
        assert_eq!(
            error(&annotations("val_0.JPEG\tn01\nval_0.JPEG\tn01\n")),
            format!("{file}: line 2: val_0.JPEG is there twice")
        );
        assert_eq!(error(&annotations("val_0.JPEG\tn01\n")), "/val/images/val_1.JPEG: not in val_annotations.txt");
        let removed = error(&|root| fs::remove_file(root.join("val/images/val_2.JPEG")).unwrap());
        assert_eq!(removed, format!("{file}: names val_2.JPEG, which is not in val/images"));
        let emptied = error(&|root| {
            fs::remove_file(root.join("train/n02/images/n02_0.JPEG")).unwrap();
            fs::remove_file(root.join("train/n02/images/n02_1.JPEG")).unwrap();
        });
        assert_eq!(emptied, "/train/n02/images: holds no image");
        assert_eq!(error(&|root| write(root.join("train/n09/x"), "")), "/train/n09: not a class of wnids.txt");
        assert_eq!(error(&|root| write(root.join("words.txt"), "n01\tx\n")), "/words.txt: has no words for n02");
        assert_eq!(error(&|root| write(root.join("wnids.txt"), "n01\nn01\nn02\n")), "/wnids.txt: n01 is there twice");
        let message = load(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(
            message.starts_with("/nowhere: holds no tiny-imagenet-200 with wnids.txt; `limbeck data fetch"),
            "{message}"
        );
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "tiny_imagenet").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", TinyImageNet::default()));
    }
}
