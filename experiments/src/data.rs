//! `limbeck data`: which data sets there are, getting them, checking them, measuring them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indexmap::IndexMap;
use indicatif::{ProgressBar, ProgressStyle};
use limbeck::config;
use limbeck::dataset::{Dataset, DatasetConfig, DatasetInfo, Rows, Split, Views};
use limbeck::error::{Error, Result};
use limbeck::registry::{self, Role};
use limbeck::tch::{Device, Kind, Tensor, no_grad_guard};
use limbeck_datasets::fetch::{self, Download, Source};
use serde::Serialize;
use toml::{Table, Value};

use crate::listing;

/// What to do with data sets.
#[derive(Debug, Subcommand)]
pub enum DataVerb {
    /// List data sets, and where those come from that are published.
    #[command(after_help = "\
Examples:
  limbeck data list
  limbeck data list --json")]
    List {
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Download a data set from its publisher, check it and unpack it.
    #[command(after_help = "\
An interrupted download goes on where it was. Nothing is downloaded if the unpacked folder is there already; an archive
that is there is checked and unpacked.

Examples:
  limbeck data fetch cifar100
  limbeck data fetch tiny_imagenet --to /data")]
    Fetch {
        /// The data set's kind.
        kind: String,
        /// The folder that gets the archive and its content; it is created.
        #[arg(long, value_name = "DIR", default_value = "data")]
        to: PathBuf,
    },
    /// Check a data set: the archive against its checksum, then every file, as an experiment would read it.
    #[command(after_help = "\
Examples:
  limbeck data verify cifar100
  limbeck data verify image_folder --path /data/imagenet --set 'broken=\"skip\"'")]
    Verify {
        /// Which data set.
        #[command(flatten)]
        data: DataArgs,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Measure the training part: samples by class, mean and standard deviation of every view and channel.
    #[command(after_help = "\
Where a data set has settings `mean` and `std`, they are left out of what is measured: the result is what to set.

Examples:
  limbeck data stats cifar100
  limbeck data stats image_folder --path /data/birds --set 'size=[64, 64]'")]
    Stats {
        /// Which data set.
        #[command(flatten)]
        data: DataArgs,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// A data set as the section `[dataset]` of an experiment would have it.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// The data set's kind.
    pub kind: String,
    /// Where it is. The same as --set path=PATH.
    #[arg(long)]
    pub path: Option<PathBuf>,
    /// Another setting: dotted key, TOML value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Does it; returns what to print.
///
/// # Errors
/// If there is no such data set, or it is not what it should be.
pub fn run(verb: &DataVerb) -> Result<String> {
    match verb {
        DataVerb::List { json: true } => listing::json(&entries()),
        DataVerb::List { json: false } => Ok(list(&entries())),
        DataVerb::Fetch { kind, to } => get(source(kind)?, to),
        DataVerb::Verify { data, json } => {
            let verified = verify(data)?;
            if *json { listing::json(&verified) } else { Ok(verified.text()) }
        }
        DataVerb::Stats { data, json } => {
            let stats = stats(data)?;
            if *json { listing::json(&stats) } else { Ok(stats.text()) }
        }
    }
}

/// A data set in the list.
#[derive(Debug, Serialize)]
struct Entry {
    kind: &'static str,
    summary: &'static str,
    /// Absent for what is drawn, or comes from a folder of one's own.
    source: Option<Origin>,
}

#[derive(Debug, Serialize)]
struct Origin {
    url: &'static str,
    bytes: u64,
    md5: &'static str,
    md5_from: &'static str,
    page: &'static str,
    terms: &'static str,
}

fn entries() -> Vec<Entry> {
    let sources = Source::all();
    let mut entries = Vec::new();
    for plugin in registry::plugins_of(Role::Dataset) {
        let source = sources.iter().find(|source| source.kind == plugin.name);
        let source = source.map(|source| Origin {
            url: source.url,
            bytes: source.bytes,
            md5: source.md5,
            md5_from: source.md5_from,
            page: source.page,
            terms: source.terms,
        });
        entries.push(Entry { kind: plugin.name, summary: plugin.summary, source });
    }
    entries
}

fn list(entries: &[Entry]) -> String {
    let mut text = String::new();
    for Entry { kind, summary, source } in entries {
        _ = writeln!(text, "{kind:16} {summary}");
        if let Some(Origin { url, bytes, md5, terms, .. }) = source {
            _ = writeln!(text, "{:16} {url}, {} MB, MD5 {md5}; {terms}", "", bytes / 1_000_000);
        }
    }
    text
}

fn source(kind: &str) -> Result<&'static Source> {
    let plugin = registry::find(Role::Dataset, kind)?;
    let sources = Source::all();
    let found = sources.iter().find(|source| source.kind == plugin.name);
    found.copied().ok_or_else(|| {
        let kinds: Vec<&str> = sources.iter().map(|source| source.kind).collect();
        Error::plan(format!("nothing is published for data set {kind}; there is for {}", kinds.join(", ")))
    })
}

fn get(source: &Source, to: &Path) -> Result<String> {
    let (kind, terms, page) = (source.kind, source.terms, source.page);
    if let Some(folder) = source.unpacked(to)? {
        let folder = folder.display();
        return Ok(format!(
            "{kind}: {folder} is there already, nothing was downloaded; `limbeck data verify {kind}` reads it (terms: {terms}; \
             {page})"
        ));
    }
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let archive = to.join(source.archive());
    let bar = ProgressBar::new(source.bytes);
    if let Ok(style) =
        ProgressStyle::with_template("{prefix} {bar:24} {decimal_bytes} of {decimal_total_bytes}, {eta} left")
    {
        bar.set_style(style);
    }
    bar.set_prefix(source.archive());
    let [pause, patience] = [3, 60].map(Duration::from_secs);
    let download = Download { url: source.url, bytes: source.bytes, md5: source.md5, pause, patience };
    let result = download.to(&archive, &mut |done, _| bar.set_position(done));
    bar.finish_and_clear();
    result?;
    let folder = fetch::unpack(&archive, source.folder, to)?;
    Ok(format!("{kind}: {} (terms: {terms}; {page})", folder.display()))
}

/// What was found whole.
#[derive(Debug, Serialize)]
struct Verified {
    name: String,
    /// The archive, if it lies where the data are read from and its checksum is known.
    archive: Option<PathBuf>,
    train: usize,
    test: usize,
    classes: i64,
    identity: String,
    notes: Vec<String>,
}

impl Verified {
    fn text(&self) -> String {
        let Verified { name, train, test, classes, identity, .. } = self;
        let mut text = format!("{name}: {train} training and {test} test samples, {classes} classes, all read\n");
        if let Some(archive) = &self.archive {
            _ = writeln!(text, "archive   {}: MD5 as published", archive.display());
        }
        self.notes.iter().for_each(|note| _ = writeln!(text, "note      {note}"));
        _ = writeln!(text, "identity  {identity}");
        text
    }
}

fn verify(data: &DataArgs) -> Result<Verified> {
    let settings = settings(data)?;
    let archive = archive(data, &settings);
    if let (Some(archive), Ok(source)) = (&archive, source(&data.kind)) {
        fetch::verify(archive, source.md5)?;
    }
    let dataset = read_settings(settings)?.build_afresh(Device::Cpu)?;
    let DatasetInfo { name, identity, notes, train_labels, test_labels, .. } = dataset.info();
    Ok(Verified {
        name: name.clone(),
        archive,
        train: train_labels.len(),
        test: test_labels.len(),
        classes: dataset.info().classes(),
        identity: identity.clone(),
        notes: notes.clone(),
    })
}

/// The archive that the settings name, or that lies in the folder that they name.
fn archive(data: &DataArgs, settings: &Table) -> Option<PathBuf> {
    let source = source(&data.kind).ok()?;
    let path = Path::new(settings.get("path")?.as_str()?);
    let archive = if path.is_dir() { path.join(source.archive()) } else { path.to_owned() };
    (archive.is_file() && archive.file_name()? == source.archive()).then_some(archive)
}

/// What the training part holds.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// The data set's name.
    pub name: String,
    /// Training samples.
    pub train: usize,
    /// Test samples.
    pub test: usize,
    /// Training samples by class.
    pub classes: IndexMap<String, usize>,
    /// Training samples without label.
    pub unlabelled: usize,
    /// Every view.
    pub views: Vec<ViewStats>,
}

/// What a view of the training part holds, without augmentation.
#[derive(Debug, Serialize)]
pub struct ViewStats {
    /// Its name.
    pub view: String,
    /// `[C, H, W]`
    pub shape: [i64; 3],
    /// By channel.
    pub mean: Vec<f64>,
    /// By channel, over all pixels.
    pub std: Vec<f64>,
}

impl Stats {
    fn text(&self) -> String {
        let Stats { name, train, test, unlabelled, .. } = self;
        let (least, most) = (self.classes.values().min(), self.classes.values().max());
        let mut text = format!(
            "{name}: {train} training and {test} test samples; {} classes with {} to {} training samples each",
            self.classes.len(),
            least.unwrap_or(&0),
            most.unwrap_or(&0)
        );
        if *unlabelled > 0 {
            _ = write!(text, ", {unlabelled} without label");
        }
        for ViewStats { view, shape, mean, std } in &self.views {
            let [c, h, w] = shape;
            _ = write!(text, "\n{view} ({c} × {h} × {w})\n  mean = [{}]\n  std = [{}]", decimals(mean), decimals(std));
        }
        text
    }
}

/// `0.5071, 0.4866`
fn decimals(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.4}")).collect::<Vec<_>>().join(", ")
}

/// Measures the training part of a data set, before its own normalisation.
///
/// # Errors
/// If the data set cannot be read.
pub fn stats(data: &DataArgs) -> Result<Stats> {
    let mut settings = settings(data)?;
    without_normalisation(&mut settings);
    let dataset = read_settings(settings)?.build(Device::Cpu)?;
    let info = dataset.info();
    let mut counts: IndexMap<String, usize> = info.class_names.iter().map(|name| (name.clone(), 0)).collect();
    let mut unlabelled = 0;
    for label in info.train_labels.iter() {
        let class = usize::try_from(*label).ok().and_then(|class| info.class_names.get(class));
        match class.and_then(|name| counts.get_mut(name)) {
            Some(count) => *count += 1,
            None => unlabelled += 1,
        }
    }
    Ok(Stats {
        name: info.name.clone(),
        train: info.train_labels.len(),
        test: info.test_labels.len(),
        classes: counts,
        unlabelled,
        views: measure(&*dataset)?,
    })
}

/// Images that are measured at a time.
const CHUNK: usize = 250;

fn measure(dataset: &dyn Dataset) -> Result<Vec<ViewStats>> {
    let _no_grad = no_grad_guard();
    let info = dataset.info();
    let views: Views = info.views.iter().map(|view| view.name.as_str()).collect();
    let rows: Vec<i64> = (0..info.train_labels.len() as i64).collect();
    // Of the values and of their squares, by channel.
    let mut sums = Vec::new();
    for view in &info.views {
        sums.push(Tensor::zeros([2, view.shape[0]], (Kind::Double, Device::Cpu)));
    }
    let mut chunks = rows.chunks(CHUNK).peekable();
    while let Some(chunk) = chunks.next() {
        dataset.prefetch(Split::Train, chunks.peek().copied().unwrap_or_default(), &views, None);
        let batch = dataset.batch(Split::Train, &Rows::new(chunk.to_vec(), Device::Cpu), &views, None)?;
        for (view, sum) in info.views.iter().zip(&mut sums) {
            let values = batch.view(&view.name)?.to_kind(Kind::Double);
            let over = [0_i64, 2, 3];
            let first = values.sum_dim_intlist(over.as_slice(), false, Kind::Double);
            let second = values.square().sum_dim_intlist(over.as_slice(), false, Kind::Double);
            *sum = &*sum + Tensor::stack(&[first, second], 0);
        }
    }
    let mut stats = Vec::new();
    for (view, sums) in info.views.iter().zip(sums) {
        let means = sums / (rows.len() as i64 * view.shape[1] * view.shape[2]) as f64;
        let mean: Vec<f64> = Vec::try_from(means.get(0))?;
        let square: Vec<f64> = Vec::try_from(means.get(1))?;
        let std = mean.iter().zip(&square).map(|(mean, square)| (square - mean * mean).max(0.0).sqrt()).collect();
        stats.push(ViewStats { view: view.name.clone(), shape: view.shape, mean, std });
    }
    Ok(stats)
}

/// The section `[dataset]`: the defaults with what the arguments say.
///
/// # Errors
/// Those of an experiment that says this.
fn settings(data: &DataArgs) -> Result<Table> {
    let text = registry::find(Role::Dataset, &data.kind)?.default_table()?.to_string();
    let path = data.path.iter().map(|path| format!("path={}", Value::String(path.display().to_string())));
    let overrides: Vec<String> = path.chain(data.set.iter().cloned()).collect();
    let defaults = Path::new(&data.kind);
    config::parse_as::<Box<dyn DatasetConfig>>(&text, defaults, &overrides)?;
    config::parse_as(&text, defaults, &overrides)
}

/// Every `mean` becomes 0 and every `std` 1, except in configured views.
fn without_normalisation(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match (key.as_str(), value) {
            ("mean", Value::Array(values)) => values.fill(Value::Float(0.0)),
            ("std", Value::Array(values)) => values.fill(Value::Float(1.0)),
            ("views", _) => {}
            (_, Value::Table(inner)) => without_normalisation(inner),
            _ => {}
        }
    }
}

fn read_settings(settings: Table) -> Result<Box<dyn DatasetConfig>> {
    Value::Table(settings).try_into().map_err(|e: toml::de::Error| Error::plan(e.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(kind: &str, set: &[&str]) -> DataArgs {
        DataArgs { kind: kind.into(), path: None, set: set.iter().map(|text| (*text).to_owned()).collect() }
    }

    #[test]
    fn settings_come_from_defaults_and_arguments() {
        let settings = settings(&data("image_folder", &["size=[8, 9]", "broken=skip", "storage.threads=2"])).unwrap();
        assert_eq!(settings["size"].to_string(), "[8, 9]");
        assert_eq!(settings["broken"].as_str(), Some("skip"));
        assert_eq!(settings["storage"]["threads"].as_integer(), Some(2));
        let device = super::settings(&data("image_folder", &["storage={ kind = 'device' }"])).unwrap();
        assert_eq!(device["storage"].to_string(), "{ kind = \"device\" }");
        let error = super::settings(&data("cifar1000", &[])).unwrap_err().to_string();
        assert_eq!(error, "unknown dataset `cifar1000`: did you mean `cifar100`?");
        let error = super::settings(&data("shapes", &["train"])).unwrap_err().to_string();
        assert_eq!(error, "an override is KEY=VALUE\n  --> --set train");
        let error = super::settings(&data("image_folder", &["siez=[8, 9]"])).unwrap_err().to_string();
        assert_eq!(error, "unknown key `siez`: did you mean `size`?\n  --> --set siez=[8, 9]\n  key: siez");
    }

    #[test]
    fn what_is_measured_is_not_normalised() {
        let mut settings = settings(&data("paired_folders", &[])).unwrap();
        without_normalisation(&mut settings);
        assert_eq!(settings["modalities"]["rgb"]["std"].to_string(), "[1.0, 1.0, 1.0]");
        assert_eq!(settings["modalities"]["depth"]["mean"].to_string(), "[0.0]");
    }

    #[test]
    fn every_published_data_set_has_a_whole_source() {
        for source in Source::all() {
            assert!(registry::find(Role::Dataset, source.kind).is_ok());
            assert!(source.md5.len() == 32 && source.md5.bytes().all(|c| c.is_ascii_hexdigit()), "{source:?}");
            assert!(source.bytes > 1 << 20 && source.url.starts_with("http"), "{source:?}");
        }
        let error = source("shapes").unwrap_err().to_string();
        assert_eq!(
            error,
            "nothing is published for data set shapes; there is for cifar10, cifar100, stl10, tiny_imagenet"
        );
    }
}
