//! A data set of images: pixels from somewhere, labels, and views of them.

use std::sync::Arc;

use limbeck::prelude::*;

use crate::views::{Modality, Pipeline, ViewConfigs, pipelines};

/// The one modality of a plain image data set, and its view.
pub const IMAGE: &str = "image";

/// Where the pixels of one split come from: by the batch, cropped and mirrored alike in every modality.
pub trait Pixels: std::fmt::Debug + Send {
    /// How many samples.
    fn count(&self) -> i64;

    /// The `modalities` (by number) of `rows`: `[B, H, W, C]` each, uint8, contiguous, on the training device.
    ///
    /// The geometry is a function of `draw` and of each row alone; without `draw` it is that of evaluation.
    ///
    /// # Errors
    /// If a row cannot be read.
    fn gather(&self, rows: &Rows, modalities: &[usize], draw: Option<Seed>) -> Result<Vec<Tensor>>;

    /// These rows will be asked for soon.
    fn prefetch(&self, _rows: &[i64], _modalities: &[usize], _draw: Option<Seed>) {}

    /// Adds everything that a batch is a function of: content, and the settings of the geometry.
    fn identify(&self, hasher: &mut blake3::Hasher);
}

/// The images and labels of one split.
#[derive(Debug)]
pub struct Part {
    /// The pixels.
    pub pixels: Box<dyn Pixels>,
    /// One per image, below the number of classes.
    pub labels: Vec<i64>,
}

/// A data set of images.
#[derive(Debug)]
pub struct ImageSet {
    info: DatasetInfo,
    views: Vec<Pipeline>,
    /// Training part and test part: pixels and labels (`[N]`, int64).
    parts: [(Box<dyn Pixels>, Tensor); 2],
    /// `[N, classes]`, float32, of both parts, where targets are sets of classes.
    targets: Option<[Tensor; 2]>,
}

impl ImageSet {
    /// Puts the training part and the test part together.
    ///
    /// # Errors
    /// If the configured views do not fit the modalities.
    pub fn new(
        name: &str,
        class_names: Vec<String>,
        modalities: &[Modality],
        views: &ViewConfigs,
        parts: [Part; 2],
        device: Device,
    ) -> Result<Self> {
        let pipelines = pipelines(modalities, views, device)?;
        let [train, test] = &parts;
        let info = DatasetInfo {
            name: name.to_owned(),
            identity: identity(&parts, &class_names, modalities, views),
            class_names,
            task: &Classification,
            train_labels: Arc::from(train.labels.as_slice()),
            test_labels: Arc::from(test.labels.as_slice()),
            views: pipelines.iter().map(|view| view.info.clone()).collect(),
            notes: Vec::new(),
        };
        let parts = parts.map(|part| (part.pixels, Tensor::from_slice(&part.labels).to_device(device)));
        Ok(ImageSet { info, views: pipelines, parts, targets: None })
    }

    /// The same with sets of classes for targets: those of the training and of the test part, `[N, classes]` float32 of 0
    /// and 1.
    ///
    /// # Errors
    /// If they are not of that shape.
    pub fn with_targets(mut self, targets: [Tensor; 2]) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.info.identity.as_bytes());
        for (part, (pixels, _)) in targets.iter().zip(&self.parts) {
            let expected = [pixels.count(), self.info.classes()];
            if part.size() != expected {
                return Err(Error::run(format!(
                    "targets must be [samples, classes], {expected:?}, not {:?}",
                    part.size()
                )));
            }
            hasher.update(&Vec::<u8>::try_from(part.to_kind(Kind::Uint8).flatten(0, -1))?);
        }
        self.info.identity = hasher.finalize().to_hex().to_string();
        self.info.task = &Presence;
        let device = self.parts[0].1.device();
        self.targets = Some(targets.map(|part| part.to_device(device)));
        Ok(self)
    }

    /// The same with a note for those who read the plan.
    pub fn with_note(mut self, note: String) -> Self {
        self.info.notes.push(note);
        self
    }

    fn part(&self, split: Split) -> &(Box<dyn Pixels>, Tensor) {
        match split {
            Split::Train => &self.parts[0],
            Split::Test => &self.parts[1],
        }
    }

    /// The views of those names, and the modalities that they begin with, each once.
    fn wanted(&self, views: &Views) -> Result<(Vec<&Pipeline>, Vec<usize>)> {
        let mut pipelines = Vec::new();
        for name in views.iter() {
            self.info.view(Some(name))?;
            pipelines.extend(self.views.iter().find(|view| view.info.name == name));
        }
        let mut modalities: Vec<usize> = pipelines.iter().map(|view| view.modality).collect();
        modalities.sort_unstable();
        modalities.dedup();
        Ok((pipelines, modalities))
    }
}

/// A digest of everything that a batch is a function of.
fn identity(parts: &[Part], class_names: &[String], modalities: &[Modality], views: &ViewConfigs) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{class_names:?} {modalities:?} {views:?}").as_bytes());
    for part in parts {
        hasher.update(format!("{:?}", part.labels).as_bytes());
        part.pixels.identify(&mut hasher);
    }
    hasher.finalize().to_hex().to_string()
}

impl Dataset for ImageSet {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, rows: &Rows, views: &Views, draw: Option<Seed>) -> Result<Batch> {
        let (pixels, labels) = self.part(split);
        let count = pixels.count();
        if let Some(bad) = rows.host().iter().find(|row| !(0..count).contains(*row)) {
            let part = if split == Split::Train { "training" } else { "test" };
            let name = &self.info.name;
            return Err(Error::run(format!("row {bad} is not in the {part} part of {name}, which has {count} rows")));
        }
        let (pipelines, modalities) = self.wanted(views)?;
        let bytes = pixels.gather(rows, &modalities, draw)?;
        let labels = labels.index_select(0, rows.device());
        let targets = self.targets.as_ref().map(|parts| &parts[usize::from(split == Split::Test)]);
        let targets = targets.map(|targets| targets.index_select(0, rows.device()));
        let mut batch = Batch { views: Default::default(), labels, targets };
        for view in pipelines {
            for (bytes, _) in bytes.iter().zip(&modalities).filter(|(_, modality)| **modality == view.modality) {
                batch.views.insert(view.info.name.clone(), view.apply(bytes, rows.device(), draw));
            }
        }
        Ok(batch)
    }

    fn prefetch(&self, split: Split, rows: &[i64], views: &Views, draw: Option<Seed>) {
        if let Ok((_, modalities)) = self.wanted(views) {
            self.part(split).0.prefetch(rows, &modalities, draw);
        }
    }
}
