//! Data sets of one file a sample and modality: what they have in common once the files are listed.

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::prelude::*;
use limbeck::settings::Setting;
use rayon::ThreadPool;
use serde::{Deserialize, Serialize};

use crate::image_set::{ImageSet, Part};
use crate::index::{self, Entry, Kind, Trust};
use crate::resident::{Augmentation, Images, Resident};
use crate::stream::{Cropping, Files, Reader, Stream, pool};
use crate::views::{Modality, ViewConfigs};

/// Where the images are during training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Storage {
    /// On the training device, as bytes at their final size: for small images.
    Device(OnDevice),
    /// On the disk: decoded batch by batch, ahead of training.
    Stream(Streamed),
}

/// Images on the training device.
#[derive(Clone, Debug, PartialEq, Settings)]
pub struct OnDevice {
    /// Black margin in pixels before the random crop of a training image.
    #[setting(default = 4)]
    pub crop_pad: u32,
}

/// Images on the disk.
#[derive(Clone, Debug, PartialEq, Settings)]
pub struct Streamed {
    /// Share of the area of the random crop of a training image: from, to.
    #[setting(default = [0.08, 1.0])]
    pub scale: [f64; 2],
    /// Its ratio of width to height before it is scaled, to that of the result: from, to.
    #[setting(default = [0.75, 4.0 / 3.0])]
    pub ratio: [f64; 2],
    /// Side of the centred window of evaluation, as a share of the largest one: 224 of 256 pixels.
    #[setting(default = 0.875)]
    pub centre: f64,
    /// Threads that decode; 0: as many as there are cores.
    #[setting(default = 0)]
    pub threads: usize,
}

impl Storage {
    /// On the device, with the usual margins.
    pub fn device() -> Self {
        Storage::Device(OnDevice::default())
    }

    /// On the disk, with the usual crops.
    pub fn stream() -> Self {
        Storage::Stream(Streamed::default())
    }

    /// What the keys of both kinds mean.
    pub(crate) fn fields() -> Vec<Setting> {
        let kinds = r#""stream": on the disk, decoded ahead of training; "device": on the device, for small images"#;
        [vec![Setting::new("kind", &"", &[kinds])], OnDevice::settings(), Streamed::settings()].concat()
    }
}

/// What to do about images that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Broken {
    /// Refuse the data set, naming the first.
    Error,
    /// Leave the samples out, and say how many.
    Skip,
}

/// One sample.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// Its file for each modality, relative to the data set's folder.
    pub files: Vec<String>,
    pub label: i64,
    /// Whether it has each of the classes; empty where its target is its label.
    pub classes: Vec<bool>,
    /// The label map that these are of, if they are: its file, and `[H, W]` or what is wrong with it.
    pub map: Option<(String, Result<[u32; 2], String>)>,
}

/// The samples whose images are sound.
#[derive(Debug, Default)]
struct Sound {
    samples: Vec<Sample>,
    /// What is known of the files of each.
    entries: Vec<Vec<Entry>>,
    /// The first file that is not, and what is wrong with it.
    first_broken: Option<(String, String)>,
}

/// A data set whose files are listed.
#[derive(Debug)]
pub(crate) struct FileSet<'a> {
    pub kind: &'a str,
    pub name: &'a str,
    pub root: &'a Path,
    /// Their shapes are what the images are cut and scaled to; all alike in height and width.
    pub modalities: &'a [Modality],
    /// What the files of each modality are read as.
    pub kinds: &'a [Kind],
    pub class_names: Vec<String>,
    /// Training and test.
    pub parts: [Vec<Sample>; 2],
    pub storage: &'a Storage,
    pub flip: bool,
    pub broken: Broken,
    pub views: &'a ViewConfigs,
    pub trust: Trust,
}

impl FileSet<'_> {
    pub fn build(mut self, device: Device) -> Result<ImageSet> {
        let &[_, height, width] = self.modalities.first().map_or(&[0; 3], |modality| &modality.shape);
        if !(1..=4096).contains(&height) || !(1..=4096).contains(&width) {
            let kind = self.kind;
            return Err(Error::plan(format!(
                "{kind}: size must be [height, width] in pixels, not [{height}, {width}]"
            )));
        }
        self.modalities.iter().try_for_each(|modality| modality.check(self.kind))?;
        let threads = if let Storage::Stream(stream) = self.storage { stream.threads } else { 0 };
        let pool = pool(threads)?;
        let listed = std::mem::take(&mut self.parts);
        let mut left_out = Vec::new();
        let (mut parts, mut targets) = (Vec::new(), Vec::new());
        for (samples, name) in listed.into_iter().zip(["training", "test"]) {
            let listed = samples.len();
            let Sound { samples, entries, first_broken } = self.sound(samples, &pool)?;
            if samples.is_empty() {
                let first = first_broken.map(|(file, what)| format!("; the first, {file}: {what}")).unwrap_or_default();
                let message = format!("the {name} part has no sound image ({listed} are listed){first}");
                return Err(Error::data(self.root, message));
            }
            if samples.len() < listed {
                left_out.push(format!("{} of {listed} {name} samples", listed - samples.len()));
            }
            let labels = samples.iter().map(|sample| sample.label).collect();
            targets.extend(targets_of(&samples));
            let reader = self.reader(samples, entries, [height as usize, width as usize])?;
            let pixels: Box<dyn crate::image_set::Pixels> = match self.storage {
                Storage::Stream(_) => Box::new(Stream::new(reader, pool.clone(), device)),
                Storage::Device(storage) => Box::new(self.resident(&reader, storage.crop_pad, &pool, device)?),
            };
            parts.push(Part { pixels, labels });
        }
        let Ok(parts) = <[Part; 2]>::try_from(parts) else { return Err(Error::run("two parts are built")) };
        let set = ImageSet::new(self.name, self.class_names, self.modalities, self.views, parts, device)?;
        let set = match <[Tensor; 2]>::try_from(targets) {
            Ok(targets) => set.with_targets(targets)?,
            Err(_) => set,
        };
        Ok(match left_out.as_slice() {
            [] => set,
            _ => set.with_note(format!("left out because their images are broken: {}", left_out.join(", "))),
        })
    }

    /// The samples whose images are sound, with what is known of their files; or an error, if that is wanted.
    fn sound(&self, samples: Vec<Sample>, pool: &ThreadPool) -> Result<Sound> {
        let files: Vec<(String, Kind)> = samples
            .iter()
            .flat_map(|sample| sample.files.iter().cloned().enumerate().map(|(m, file)| (file, self.kinds[m])))
            .collect();
        let entries = pool.install(|| index::index(self.root, &files, self.trust))?;
        let mut sound = Sound::default();
        for (sample, entries) in samples.into_iter().zip(entries.chunks(self.modalities.len())) {
            match (self.check(&sample, entries), self.broken) {
                (Ok(()), _) => {
                    sound.samples.push(sample);
                    sound.entries.push(entries.to_vec());
                }
                (Err(broken), Broken::Skip) => {
                    sound.first_broken.get_or_insert(broken);
                }
                (Err((file, what)), Broken::Error) => {
                    let remedy = "; `broken = \"skip\"` leaves such samples out";
                    return Err(Error::data(self.root.join(file), format!("{what}{remedy}")));
                }
            }
        }
        Ok(sound)
    }

    /// Whether the images of a sample, its label map included, are sound and of one size; else the file, and what is wrong.
    fn check(&self, sample: &Sample, entries: &[Entry]) -> Result<(), (String, String)> {
        let mut first: Option<(&String, &[u32; 2])> = None;
        let images = sample.files.iter().zip(entries).map(|(file, entry)| (file, &entry.image));
        for (file, image) in images.chain(sample.map.iter().map(|(file, map)| (file, map))) {
            match image {
                Err(what) => return Err((file.clone(), what.clone())),
                Ok(size @ [h, w]) => match first {
                    None => first = Some((file, size)),
                    Some((_, other)) if other == size => {}
                    Some((other, [oh, ow])) => {
                        return Err((file.clone(), format!("{w} × {h} pixels, but {other} has {ow} × {oh}")));
                    }
                },
            }
        }
        Ok(())
    }

    fn reader(&self, samples: Vec<Sample>, entries: Vec<Vec<Entry>>, size: [usize; 2]) -> Result<Reader> {
        let cropping = match self.storage {
            Storage::Stream(Streamed { scale, ratio, centre, .. }) => {
                Cropping { scale: *scale, ratio: *ratio, centre: *centre, flip: self.flip }
            }
            Storage::Device(_) => Cropping::WHOLE,
        };
        cropping.check(self.kind)?;
        let mut modalities = Vec::new();
        for (m, modality) in self.modalities.iter().enumerate() {
            modalities.push(Files {
                paths: samples.iter().map(|sample| self.root.join(&sample.files[m])).collect(),
                digests: entries.iter().map(|entries| entries[m].digest.clone()).collect(),
                kind: self.kinds[m],
                channels: modality.shape[0] as usize,
            });
        }
        Ok(Reader { modalities, size, cropping })
    }

    /// Every image, decoded and put on the device.
    fn resident(&self, reader: &Reader, crop_pad: u32, pool: &ThreadPool, device: Device) -> Result<Resident> {
        let augmentation = Augmentation { crop_pad, flip: self.flip };
        augmentation.check(self.kind, reader.size[0].min(reader.size[1]) as u32)?;
        let rows: Vec<i64> = (0..reader.count()).collect();
        let mut modalities = Vec::new();
        for (m, modality) in self.modalities.iter().enumerate() {
            let mut images = Images::black(rows.len(), modality.shape, crop_pad, device);
            for (i, chunk) in rows.chunks(CHUNK).enumerate() {
                for pixels in pool.install(|| reader.read(chunk, &[m], None))? {
                    images.write_pixels(i * CHUNK, &pixels);
                }
            }
            modalities.push(images);
        }
        Ok(Resident::new(modalities, augmentation))
    }
}

/// The sets of classes of samples that have them, `[N, classes]` float32 of 0 and 1.
fn targets_of(samples: &[Sample]) -> Option<Tensor> {
    let classes = samples.first().map_or(0, |sample| sample.classes.len()) as i64;
    let present: Vec<f32> = samples.iter().flat_map(|sample| &sample.classes).map(|has| f32::from(*has)).collect();
    (classes > 0).then(|| Tensor::from_slice(&present).view([-1, classes]))
}

/// Images that are decoded at a time on their way to the device.
const CHUNK: usize = 1000;

/// What is in a folder, without what is hidden: (name, whether it is a folder), in the order of names.
pub(crate) fn list(folder: &Path) -> Result<Vec<(String, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path: PathBuf = entry.map_err(Error::io("read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let name = name.ok_or_else(|| Error::data(&path, "its name is not UTF-8 text"))?;
        if !name.starts_with('.') {
            entries.push((name, path.is_dir()));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// The image files of a folder that holds nothing else, in the order of names.
pub(crate) fn list_images(folder: &Path) -> Result<Vec<String>> {
    let mut images = Vec::new();
    for (name, is_folder) in list(folder)? {
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if is_folder || !["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known)) {
            let what = "not an image file (.jpg, .jpeg, .png), and nothing else is expected here";
            return Err(Error::data(folder.join(name), what));
        }
        images.push(name);
    }
    if images.is_empty() {
        return Err(Error::data(folder, "holds no image"));
    }
    Ok(images)
}
