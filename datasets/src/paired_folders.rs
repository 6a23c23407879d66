//! Aligned images by file name: `rgb/NNNN.png`, `depth/NNNN.png` and `labels/NNNN.png` are one sample.
//!
//! ```toml
//! [dataset]
//! kind = "paired_folders"
//! path = "data/nyu-depth-v2-small"
//! size = [60, 80]
//! ```
//!
//! Each modality is a folder, with the same file names in each (their extensions may differ), and has a view of its name;
//! a crop and its mirroring are the same in all. A label map is an image whose grey values (or places in its palette) are
//! classes: a sample's label is the one with the most pixels, apart from those in `ignore`. It has the size of the images.
//!
//! # Targets
//! With `target = "dominant"` that label is what a network learns and is measured by. With `target = "presence"` it is the
//! set of classes that the label map shows, each with at least the share `present` of the pixels that are not in `ignore`
//! (0: with any): trained by binary cross-entropy, measured by mean average precision. The label then stands for the
//! sample where one class is needed: for the rows that are held out, and for samplers of negatives that go by class.
//!
//! # Parts
//! Neighbouring frames of a recording look alike, so a random split would test on what was trained on. The samples, in the
//! order of their names, are split into blocks of `block`, and the last of every `test_every` blocks is tested on.
//!
//! # Normalisation
//! The defaults are those of the training part of NYU-Depth V2 at 80×60, measured by `limbeck data stats`. Depth is a
//! share of full scale, 8 bits. Sensors write depth in millimetres as PNG files of 16 bits: `full_scale` is the value that
//! becomes full scale, as in `depth = { folder = "depth", full_scale = 10000, mean = [0.28], std = [0.14] }` for ten metres;
//! what is farther is as far. Pixels without a measurement are 0, as are those of less than 1/510 of full scale; images that
//! are scaled to another size mix them with their neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use limbeck::prelude::*;
use limbeck::settings::Setting;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::archive::relative_to;
use crate::file_set::{Broken, FileSet, Sample, Storage, list_images};
use crate::image_set::ImageSet;
use crate::index::{Kind as FileKind, Trust};
use crate::picture::Picture;
use crate::views::{Modality, ViewConfigs};

limbeck::plugin! {
    dataset "paired_folders": PairedFolders,
    summary: "aligned images by file name, such as photographs and their depth, with label maps",
    citation: "Silberman, Hoiem, Kohli and Fergus. Indoor Segmentation and Support Inference from RGBD Images. ECCV 2012 (NYU-Depth V2)",
}

/// Aligned images in folders.
#[derive(Clone, Debug, Settings)]
pub struct PairedFolders {
    /// The folder that holds the folders below.
    #[setting(default = "data/nyu-depth-v2-small")]
    pub path: PathBuf,
    /// Height and width of what a network sees.
    #[setting(default = [60, 80])]
    pub size: [i64; 2],
    /// Of the label maps: their pixels are 0 to classes − 1, or ignored.
    #[setting(default = 40, range = 1..)]
    pub classes: u8,
    /// What is learnt: "dominant", the class of most pixels; "presence", the set of classes shown.
    #[setting(default = Target::Dominant)]
    pub target: Target,
    /// With "presence": the least share of the pixels that a class must have; 0: any pixel.
    #[setting(default = 0.01, range = 0.0..=1.0)]
    pub present: f64,
    /// Pixels of the label maps that are no class.
    #[setting(default = Vec::new())]
    pub ignore: Vec<u8>,
    /// The folder of the label maps.
    #[setting(default = "labels")]
    pub labels: String,
    /// Samples of a block, in the order of their names.
    #[setting(default = 50, range = 1..)]
    pub block: usize,
    /// The last of so many blocks is tested on.
    #[setting(default = 5, range = 2..)]
    pub test_every: usize,
    /// Mirror half of the training images.
    #[setting(default = true)]
    pub flip: bool,
    /// Images and maps that cannot be decoded: "error", or "skip": leave them out and say how many.
    #[setting(default = Broken::Error)]
    pub broken: Broken,
    /// Where the images are during training.
    #[setting(default = Storage::device(), fields = Storage::fields())]
    pub storage: Storage,
    /// Besides one for each modality: see `limbeck_datasets::views`.
    #[setting(default = ViewConfigs::new())]
    pub views: ViewConfigs,
    /// By name: folder, and mean and std of each channel (three: colour; one: grey). The first is what a network sees that names no view.
    #[setting(default = nyu_depth(), fields = described())]
    pub modalities: IndexMap<String, Folder>,
}

/// Photographs and their depth, 8 bits, with the constants of the training part of NYU-Depth V2.
fn nyu_depth() -> IndexMap<String, Folder> {
    let [rgb, depth] =
        [("rgb", vec![0.4815, 0.4106, 0.3899], vec![0.2748, 0.2801, 0.2936]), ("depth", vec![0.2763], vec![0.1380])]
            .map(|(name, mean, std)| {
                (name.to_owned(), Folder { folder: name.to_owned(), mean, std, full_scale: None })
            });
    IndexMap::from([rgb, depth])
}

fn described() -> Vec<Setting> {
    let depth = "Their depth, 8 bits; of 16 bits with `full_scale`, the value that is full scale.";
    vec![Setting::new("rgb", &"", &["Photographs."]), Setting::new("depth", &"", &[depth])]
}

/// What is learnt of a label map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The class with the most pixels.
    Dominant,
    /// The set of classes that it shows.
    Presence,
}

/// The images of one modality.
#[derive(Clone, Debug, PartialEq, Settings)]
pub struct Folder {
    /// Its folder.
    #[setting(example = "depth")]
    pub folder: String,
    /// Mean of each channel, as a share of full scale: three for colour, one for grey.
    #[setting(example = vec![0.28])]
    pub mean: Vec<f64>,
    /// Standard deviation of each channel.
    #[setting(example = vec![0.14])]
    pub std: Vec<f64>,
    /// For images of 16 bits, which are grey: the value that is full scale, as are those above it. Absent: the images have 8 bits.
    ///
    /// What a network sees has 8 bits: 255 of them are full scale.
    pub full_scale: Option<u32>,
}

impl Folder {
    /// Call it after `check`, which bounds `full_scale`.
    fn kind(&self) -> FileKind {
        match (self.mean.len(), self.full_scale) {
            (1, None) => FileKind::Grey,
            (1, Some(full_scale)) => FileKind::Measure(u16::try_from(full_scale).unwrap_or(u16::MAX)),
            _ => FileKind::Colour,
        }
    }
}

#[typetag::serde(name = "paired_folders")]
impl DatasetConfig for PairedFolders {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(device, Trust::Known)?))
    }

    fn build_afresh(&self, device: Device) -> Result<Box<dyn Dataset>> {
        Ok(Box::new(self.load(device, Trust::Nothing)?))
    }
}

impl PairedFolders {
    fn load(&self, device: Device, trust: Trust) -> Result<ImageSet> {
        let modalities = self.check()?;
        let samples = self.samples()?;
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (i, sample) in samples.into_iter().enumerate() {
            let is_test = i / self.block % self.test_every == self.test_every - 1;
            if is_test { test.push(sample) } else { train.push(sample) }
        }
        if test.is_empty() {
            return Err(Error::plan(format!(
                "paired_folders: {} samples are fewer than test_every = {} blocks of {}: nothing is left to test on; choose a \
                 smaller `block` or `test_every`",
                train.len(),
                self.test_every,
                self.block
            )));
        }
        let notes = match self.target {
            Target::Dominant => Vec::new(),
            Target::Presence => self.presence([&train, &test])?,
        };
        let name = self.path.file_name().map_or_else(|| "pairs".into(), |name| name.to_string_lossy());
        FileSet {
            kind: "paired_folders",
            name: &name,
            root: &self.path,
            modalities: &modalities,
            kinds: &self.modalities.values().map(Folder::kind).collect::<Vec<_>>(),
            class_names: (0..self.classes).map(|class| class.to_string()).collect(),
            parts: [train, test],
            storage: &self.storage,
            flip: self.flip,
            broken: self.broken,
            views: &self.views,
            trust,
        }
        .build(device)
        .map(|set| notes.into_iter().fold(set, ImageSet::with_note))
    }

    /// What there is to say of the sets of classes in the training part and the test part.
    fn presence(&self, parts: [&[Sample]; 2]) -> Result<Vec<String>> {
        let occurring = parts.map(|part| occurring(part, self.classes));
        if occurring.contains(&0) {
            return Err(Error::plan(format!(
                "paired_folders: no class has a share of {} of the pixels of any label map of a part: choose a smaller `present`",
                self.present
            )));
        }
        let [train, test] = parts.map(mean_shown);
        let least =
            if self.present > 0.0 { format!("at least {} % of", 100.0 * self.present) } else { "any of".to_owned() };
        Ok(vec![format!(
            "targets are the classes with {least} the pixels: {train:.1} of a training sample, {test:.1} of a test sample in \
             the mean; {} and {} of {} classes occur",
            occurring[0], occurring[1], self.classes
        )])
    }

    fn check(&self) -> Result<Vec<Modality>> {
        if self.modalities.is_empty() {
            return Err(Error::plan("paired_folders: `modalities` names none"));
        }
        let mut modalities = Vec::new();
        for (name, folder) in &self.modalities {
            if ![1, 3].contains(&folder.mean.len()) {
                let found = folder.mean.len();
                return Err(Error::plan(format!("paired_folders: {name}: mean must have 1 or 3 values, not {found}")));
            }
            match folder.full_scale {
                Some(_) if folder.mean.len() == 3 => {
                    let message = "full_scale is for grey images, which have one mean, not three";
                    return Err(Error::plan(format!("paired_folders: {name}: {message}")));
                }
                Some(value) if !(1..=65_535).contains(&value) => {
                    let message = format!("full_scale must be a value of 16 bits, 1 to 65535, not {value}");
                    return Err(Error::plan(format!("paired_folders: {name}: {message}")));
                }
                _ => {}
            }
            let shape = [folder.mean.len() as i64, self.size[0], self.size[1]];
            let (mean, std) = (folder.mean.clone(), folder.std.clone());
            modalities.push(Modality { name: name.clone(), shape, mean, std });
        }
        Ok(modalities)
    }

    /// The samples in the order of their names, with the class of each.
    fn samples(&self) -> Result<Vec<Sample>> {
        let labels = self.by_stem(&self.labels)?;
        let folders: Vec<BTreeMap<String, String>> =
            self.modalities.values().map(|folder| self.by_stem(&folder.folder)).collect::<Result<_>>()?;
        for (folder, files) in self.modalities.values().map(|folder| &folder.folder).zip(&folders) {
            self.same_names((&self.labels, &labels), (folder, files))?;
        }
        let stems: Vec<(&String, &String)> = labels.iter().collect();
        let samples: Vec<Result<Sample>> =
            stems.par_iter().map(|(stem, map)| self.sample(stem, map, &folders)).collect();
        // The first error by name, whichever thread is first.
        samples.into_iter().collect()
    }

    /// The sample of a label map; `folders` has the files of each modality by their names without extension.
    fn sample(&self, stem: &str, map: &str, folders: &[BTreeMap<String, String>]) -> Result<Sample> {
        let files = folders.iter().map(|files| files.get(stem).cloned().unwrap_or_default()).collect();
        let path = self.path.join(map);
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        match Picture::decode_numbers(&bytes) {
            Ok(picture) => {
                let size = [picture.height as u32, picture.width as u32];
                let counts = self.count(&picture).map_err(|what| Error::data(path, what))?;
                let classes = if self.target == Target::Presence { self.shown(&counts) } else { Vec::new() };
                Ok(Sample { files, label: dominant(&counts), classes, map: Some((map.to_owned(), Ok(size))) })
            }
            // Whether that is an error is decided with the images.
            Err(what) => Ok(Sample { files, label: 0, classes: Vec::new(), map: Some((map.to_owned(), Err(what))) }),
        }
    }

    /// The files of a folder by their names without extension.
    fn by_stem(&self, folder: &str) -> Result<BTreeMap<String, String>> {
        let path = self.path.join(folder);
        if !path.is_dir() {
            let (path, from) = (self.path.display(), relative_to(&self.path));
            return Err(Error::plan(format!("{path}: holds no folder `{folder}`{from}")));
        }
        let mut files = BTreeMap::new();
        for name in list_images(&path)? {
            let stem = Path::new(&name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            if let Some(other) = files.insert(stem, format!("{folder}/{name}")) {
                return Err(Error::data(path.join(name), format!("{other} has the same name")));
            }
        }
        Ok(files)
    }

    fn same_names(
        &self,
        (a, a_files): (&str, &BTreeMap<String, String>),
        (b, b_files): (&str, &BTreeMap<String, String>),
    ) -> Result<()> {
        let (a_names, b_names): (BTreeSet<_>, BTreeSet<_>) = (a_files.keys().collect(), b_files.keys().collect());
        match a_names.symmetric_difference(&b_names).next() {
            None => Ok(()),
            Some(name) if a_names.contains(name) => {
                Err(Error::data(&self.path, format!("{} has no partner in {b}", a_files[*name])))
            }
            Some(name) => Err(Error::data(&self.path, format!("{} has no partner in {a}", b_files[*name]))),
        }
    }

    /// The pixels of each class in a label map.
    fn count(&self, picture: &Picture) -> Result<Vec<u64>, String> {
        let mut counts = vec![0_u64; self.classes.into()];
        for (i, pixel) in picture.bytes.iter().enumerate().filter(|(_, pixel)| !self.ignore.contains(pixel)) {
            let Some(count) = counts.get_mut(usize::from(*pixel)) else {
                let (x, y, last) = (i % picture.width, i / picture.width, self.classes - 1);
                return Err(format!("pixel ({x}, {y}) is {pixel}, expected 0 to {last} or one of `ignore`"));
            };
            *count += 1;
        }
        if counts.iter().all(|count| *count == 0) {
            return Err("every pixel is one of `ignore`: the sample has no class".to_owned());
        }
        Ok(counts)
    }

    /// Whether each class has its share of the pixels.
    fn shown(&self, counts: &[u64]) -> Vec<bool> {
        let all = counts.iter().sum::<u64>() as f64;
        counts.iter().map(|count| *count > 0 && *count as f64 >= self.present * all).collect()
    }
}

/// How many of the classes any sample shows.
fn occurring(samples: &[Sample], classes: u8) -> usize {
    let classes = 0..usize::from(classes);
    classes.filter(|class| samples.iter().any(|sample| sample.classes.get(*class) == Some(&true))).count()
}

/// How many classes a sample shows in the mean.
fn mean_shown(samples: &[Sample]) -> f64 {
    let shown = samples.iter().flat_map(|sample| &sample.classes).filter(|has| **has).count();
    // A broken map has no classes.
    let count = samples.iter().filter(|sample| !sample.classes.is_empty()).count();
    shown as f64 / count.max(1) as f64
}

/// The class with the most pixels; the lowest of several.
fn dominant(counts: &[u64]) -> i64 {
    let most = counts.iter().max();
    counts.iter().position(|count| Some(count) == most).unwrap_or_default() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{grey_png, png, png_of_16_bits, rgb_png, smooth, write};
    use crate::views::ViewConfig;

    const SIZE: [usize; 2] = [12, 16];

    /// Twelve frames; frame i is of class i modulo 3, with a border of class 3.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..12 {
            write(dir.path().join(format!("rgb/{i:04}.png")), rgb_png(SIZE, i));
            write(dir.path().join(format!("depth/{i:04}.png")), grey_png(SIZE, i));
            let map: Vec<u8> = (0..12 * 16).map(|p| if p < 16 { 3 } else { (i % 3) as u8 }).collect();
            write(dir.path().join(format!("labels/{i:04}.png")), png(SIZE, png::ColorType::Grayscale, &map));
        }
        dir
    }

    fn config(path: &Path) -> PairedFolders {
        PairedFolders { path: path.into(), size: [12, 16], classes: 4, block: 2, test_every: 3, ..Default::default() }
    }

    fn error(change: impl FnOnce(&Path, &mut PairedFolders)) -> String {
        let dir = folder();
        let mut config = config(dir.path());
        change(dir.path(), &mut config);
        config.load(Device::Cpu, Trust::Known).unwrap_err().to_string().replace(dir.path().to_str().unwrap(), "")
    }

    #[test]
    fn blocks_are_split_and_labels_are_what_most_pixels_are() {
        let dir = folder();
        let set = config(dir.path()).load(Device::Cpu, Trust::Known).unwrap();
        let info = set.info();
        // Blocks of two, the last of every three for testing: frames 4, 5, 10 and 11.
        assert_eq!(info.train_labels[..], [0, 1, 2, 0, 0, 1, 2, 0]);
        assert_eq!(info.test_labels[..], [1, 2, 1, 2]);
        let views: Vec<(&str, [i64; 3])> = info.views.iter().map(|view| (view.name.as_str(), view.shape)).collect();
        assert_eq!(views, [("rgb", [3, 12, 16]), ("depth", [1, 12, 16])]);
        let ignoring = PairedFolders { ignore: vec![0], ..config(dir.path()) }.load(Device::Cpu, Trust::Known).unwrap();
        assert_eq!(ignoring.info().train_labels[..], [3, 1, 2, 3, 3, 1, 2, 3]);
    }

    #[test]
    fn targets_are_the_classes_that_a_map_shows() {
        fn targets(config: &PairedFolders, split: Split) -> Vec<Vec<f64>> {
            let set = config.load(Device::Cpu, Trust::Known).unwrap();
            assert_eq!(set.info().task.name(), "presence");
            let views: Views = ["depth"].into_iter().collect();
            let batch = set.batch(split, &Rows::new(vec![2, 1], Device::Cpu), &views, None).unwrap();
            Vec::try_from(batch.targets.unwrap()).unwrap()
        }

        fn identity(config: PairedFolders) -> String {
            config.load(Device::Cpu, Trust::Known).unwrap().info().identity.clone()
        }

        let dir = folder();
        let of = |present: f64, ignore: &[u8]| {
            let config = config(dir.path());
            PairedFolders { target: Target::Presence, present, ignore: ignore.to_vec(), ..config }
        };
        // The border is a twelfth of every map: 8.3 % of its pixels.
        let (frame2, frame1) = (vec![0.0, 0.0, 1.0, 1.0], vec![0.0, 1.0, 0.0, 1.0]);
        for present in [0.0, 0.01, 1.0 / 12.0] {
            assert_eq!(targets(&of(present, &[]), Split::Train), [frame2.clone(), frame1.clone()]);
        }
        assert_eq!(targets(&of(0.0, &[]), Split::Test), [vec![0.0, 1.0, 0.0, 1.0], vec![0.0, 0.0, 1.0, 1.0]]);
        assert_eq!(targets(&of(0.09, &[]), Split::Train), [vec![0.0, 0.0, 1.0, 0.0], vec![0.0, 1.0, 0.0, 0.0]]);
        // Without class 2, the border is all that is left of frame 2.
        assert_eq!(targets(&of(1.0, &[2]), Split::Train), [vec![0.0, 0.0, 0.0, 1.0], vec![0.0; 4]]);
        let set = of(0.0, &[]).load(Device::Cpu, Trust::Known).unwrap();
        assert_eq!(set.info().train_labels[..], [0, 1, 2, 0, 0, 1, 2, 0], "labels stay the dominant class");
        let other = config(dir.path()).load(Device::Cpu, Trust::Known).unwrap();
        let wrong = other.with_targets([8, 3].map(|rows| Tensor::zeros([rows, 3], (Kind::Float, Device::Cpu))));
        assert_eq!(wrong.unwrap_err().to_string(), "targets must be [samples, classes], [8, 4], not [8, 3]");
        let note = "targets are the classes with any of the pixels: 2.0 of a training sample, 2.0 of a test sample in the \
                    mean; 4 and 3 of 4 classes occur";
        assert_eq!(set.info().notes, [note]);
        let plain = identity(config(dir.path()));
        assert_ne!(identity(of(0.0, &[])), plain);
        assert_ne!(identity(of(0.0, &[])), identity(of(0.09, &[])), "other targets are other data");
        assert_eq!(identity(of(0.0, &[])), identity(of(0.01, &[])), "the same targets are the same data");
        assert_eq!(identity(PairedFolders { present: 0.5, ..config(dir.path()) }), plain, "it does not matter here");
    }

    #[test]
    fn views_share_their_geometry_on_the_device_and_on_the_disk() {
        // The depth of the fixture is the red channel of its photograph: whatever is cropped, it stays so.
        let dir = folder();
        for storage in [Storage::device(), Storage::stream()] {
            let size = if storage == Storage::device() { [12, 16] } else { [8, 8] };
            let mut config = PairedFolders { storage, size, ..config(dir.path()) };
            for folder in config.modalities.values_mut() {
                folder.mean.fill(0.0);
                folder.std.fill(1.0);
            }
            let luminance = "from = 'rgb'\nsteps = [{ kind = 'luminance' }]";
            config.views.insert("luminance".to_owned(), toml::from_str::<ViewConfig>(luminance).unwrap());
            let set = config.load(Device::Cpu, Trust::Known).unwrap();
            let views: Views = ["rgb", "depth", "luminance"].into_iter().collect();
            let rows = Rows::new(vec![3, 0, 7, 5], Device::Cpu);
            let mut differ = 0;
            for epoch in 0..4 {
                let batch = set.batch(Split::Train, &rows, &views, Some(Seed::new(1).at(epoch))).unwrap();
                assert_eq!(batch.views["rgb"].narrow(1, 0, 1), batch.views["depth"]);
                assert_eq!(batch.views["luminance"].size()[1], 1);
                let plain = set.batch(Split::Train, &rows, &views, None).unwrap();
                differ += i32::from(plain.views["depth"] != batch.views["depth"]);
            }
            assert!(differ >= 3, "{differ} of 4 batches were augmented");
        }
        let plain = config(dir.path()).load(Device::Cpu, Trust::Known).unwrap();
        let views: Views = ["depth"].into_iter().collect();
        let depth = plain.batch(Split::Test, &Rows::new(vec![1], Device::Cpu), &views, None).unwrap();
        let exact = (f64::from(smooth(SIZE, 1, 5)[3 * 16 + 2]) / 255.0 - 0.2763) / 0.138;
        approx::assert_abs_diff_eq!(depth.views["depth"].double_value(&[0, 0, 3, 2]), exact, epsilon = 1e-5);
    }

    /// Writes the depth with 16 bits instead of 8: 40 times the values.
    fn sixteen(dir: &Path) {
        for i in 0..12 {
            let values = smooth(SIZE, 1, i).into_iter().flat_map(|value| (40 * u16::from(value)).to_be_bytes());
            let file = png_of_16_bits(SIZE, png::ColorType::Grayscale, &values.collect::<Vec<_>>());
            write(dir.join(format!("depth/{i:04}.png")), file);
        }
    }

    /// The depth of the eight training samples.
    fn depth(set: &ImageSet) -> Tensor {
        let views: Views = ["depth"].into_iter().collect();
        let rows = Rows::new((0..8).collect(), Device::Cpu);
        set.batch(Split::Train, &rows, &views, None).unwrap().views["depth"].copy()
    }

    #[test]
    fn depth_of_16_bits_has_a_full_scale() {
        let message = error(|dir, _| sixteen(dir));
        assert_eq!(
            message,
            "/depth/0000.png: 16 bits a pixel: `full_scale` says which value of them is full scale; `broken = \"skip\"` \
             leaves such samples out"
        );
        let eight = folder();
        let dir = folder();
        sixteen(dir.path());
        for storage in [Storage::device(), Storage::stream()] {
            // 40 of the 16 bits' values are one of the 8: the same bytes, hence the same data where bytes are kept.
            let mut config = PairedFolders { storage: storage.clone(), ..config(dir.path()) };
            config.modalities["depth"].full_scale = Some(40 * 255);
            let set = config.load(Device::Cpu, Trust::Known).unwrap();
            let plain = PairedFolders { path: eight.path().into(), ..config.clone() };
            let plain = PairedFolders { modalities: PairedFolders::default().modalities, ..plain };
            assert_eq!(depth(&set), depth(&plain.load(Device::Cpu, Trust::Known).unwrap()));
            let identity = set.info().identity.clone();
            config.modalities["depth"].full_scale = Some(10_000);
            assert_ne!(config.load(Device::Cpu, Trust::Known).unwrap().info().identity, identity);
        }
        let message = error(|_, config| config.modalities["rgb"].full_scale = Some(100));
        assert_eq!(message, "paired_folders: rgb: full_scale is for grey images, which have one mean, not three");
        for wrong in [0, 65_536] {
            let message = error(|_, config| config.modalities["depth"].full_scale = Some(wrong));
            assert_eq!(
                message,
                format!("paired_folders: depth: full_scale must be a value of 16 bits, 1 to 65535, not {wrong}")
            );
        }
        let message = error(|dir, config| {
            sixteen(dir);
            config.broken = Broken::Skip;
        });
        assert_eq!(
            message,
            ": the training part has no sound image (8 are listed); the first, depth/0000.png: 16 bits a pixel: `full_scale` \
             says which value of them is full scale"
        );
    }

    #[test]
    fn mismatched_pairs_are_named() {
        let message = error(|dir, _| fs::remove_file(dir.join("depth/0007.png")).unwrap());
        assert_eq!(message, ": labels/0007.png has no partner in depth");
        let message = error(|dir, _| write(dir.join("rgb/0012.png"), rgb_png(SIZE, 0)));
        assert_eq!(message, ": rgb/0012.png has no partner in labels");
        let message = error(|dir, _| write(dir.join("rgb/0003.jpg"), rgb_png(SIZE, 0)));
        assert_eq!(message, "/rgb/0003.png: rgb/0003.jpg has the same name");
        let message = error(|dir, _| write(dir.join("depth/0003.png"), grey_png([10, 16], 0)));
        assert_eq!(
            message,
            "/depth/0003.png: 16 × 10 pixels, but rgb/0003.png has 16 × 12; `broken = \"skip\"` leaves such samples out"
        );
        let message = error(|dir, _| write(dir.join("depth/0003.png"), rgb_png(SIZE, 0)));
        assert_eq!(
            message,
            "/depth/0003.png: the file has colour, expected grey; `broken = \"skip\"` leaves such samples out"
        );
        let message = error(|dir, _| fs::remove_dir_all(dir.join("depth")).unwrap());
        assert_eq!(message, ": holds no folder `depth`");
    }

    #[test]
    fn a_broken_label_map_is_a_broken_sample() {
        fn spoil(dir: &Path) {
            write(dir.join("labels/0001.png"), "no image");
            write(dir.join("labels/0003.png"), png([10, 16], png::ColorType::Grayscale, &[1; 160]));
        }

        for target in [Target::Dominant, Target::Presence] {
            let message = error(|dir, config| {
                spoil(dir);
                config.target = target;
            });
            let remedy = "`broken = \"skip\"` leaves such samples out";
            assert!(message.starts_with("/labels/0001.png: not a sound PNG file: "), "{message}");
            assert!(message.ends_with(remedy), "{message}");
            let message = error(|dir, config| {
                spoil(dir);
                config.target = target;
                fs::copy(dir.join("labels/0002.png"), dir.join("labels/0001.png")).unwrap();
            });
            assert_eq!(message, format!("/labels/0003.png: 16 × 10 pixels, but rgb/0003.png has 16 × 12; {remedy}"));

            let dir = folder();
            spoil(dir.path());
            let set = PairedFolders { target, broken: Broken::Skip, present: 0.0, ..config(dir.path()) };
            let set = set.load(Device::Cpu, Trust::Known).unwrap();
            assert_eq!(set.info().train_labels[..], [0, 2, 0, 1, 2, 0], "frames 0, 2, 6, 7, 8 and 9");
            let note = "left out because their images are broken: 2 of 8 training samples";
            assert!(set.info().notes.iter().any(|found| found == note), "{:?}", set.info().notes);
        }
    }

    #[test]
    fn wrong_labels_and_settings_are_named() {
        let message = error(|_, config| config.classes = 3);
        assert_eq!(message, "/labels/0000.png: pixel (0, 0) is 3, expected 0 to 2 or one of `ignore`");
        let message = error(|_, config| config.ignore = vec![0, 1, 2, 3]);
        assert_eq!(message, "/labels/0000.png: every pixel is one of `ignore`: the sample has no class");
        let message = error(|_, config| config.block = 6);
        assert_eq!(
            message,
            "paired_folders: 12 samples are fewer than test_every = 3 blocks of 6: nothing is left to test on; choose a \
             smaller `block` or `test_every`"
        );
        let message = error(|_, config| config.modalities[0].mean = vec![0.5; 2]);
        assert_eq!(message, "paired_folders: rgb: mean must have 1 or 3 values, not 2");
        let wide = PairedFolders { present: 1.5, ..PairedFolders::default() };
        assert_eq!(wide.check_ranges().unwrap_err().to_string(), "present must be in 0..=1, not 1.5");
        let message = error(|_, config| (config.target, config.present) = (Target::Presence, 1.0));
        assert_eq!(
            message,
            "paired_folders: no class has a share of 1 of the pixels of any label map of a part: choose a smaller `present`"
        );
        let message = error(|_, config| config.modalities.clear());
        assert_eq!(message, "paired_folders: `modalities` names none");
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "paired_folders").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", PairedFolders::default()));
    }
}
