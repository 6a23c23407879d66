//! Writing a report into its folder.

use std::fs;
use std::path::{Path, PathBuf};

use limbeck::error::{Error, Result};

use crate::options::{Format, Options};
use crate::survey::Survey;
use crate::{html, latex, markdown, sections, tensorboard};

/// A report that was written.
#[derive(Clone, Debug)]
pub struct Report {
    /// The folder.
    pub folder: PathBuf,
    /// What to look at first.
    pub path: PathBuf,
    /// Its comparison with what must be known to read it, as Markdown.
    pub comparison: String,
}

/// Writes the report of the experiments in `dirs` (`runs/NAME` each). The points of a sweep are experiments side by side.
///
/// Runs that are missing, failed or unreadable are listed with their reason; they are no error.
///
/// # Errors
/// If a folder holds no experiment, an option asks for what the experiments do not have, or a file cannot be written.
pub fn write(dirs: &[PathBuf], options: &Options) -> Result<Report> {
    let folder = match (&options.out, dirs) {
        (Some(out), _) => out.clone(),
        (None, [dir]) => dir.join("report"),
        (None, _) => return Err(Error::plan("a report of several experiments needs a folder: name one with --out")),
    };
    let survey = Survey::read(dirs, options)?;
    let csv_files = sections::files(&survey)?;
    let document = sections::document(&survey, &csv_files);
    let summary = markdown::write(&sections::summary(&survey));
    let mut files: Vec<(&str, String)> = Vec::new();
    // What an earlier report may have had and this one has not.
    let mut stale: Vec<&str> = Vec::new();
    for format in Format::ALL.into_iter().filter(|format| options.formats.contains(format)) {
        match format {
            Format::Html => files.push(("report.html", html::write(&document))),
            Format::Markdown => {
                files.push(("report.md", markdown::write(&document)));
                files.push(("summary.md", summary.clone()));
            }
            Format::Csv => {
                for (file, text) in &csv_files {
                    match text {
                        Some(text) => files.push((file.name, text.clone())),
                        None => stale.push(file.name),
                    }
                }
            }
            Format::Latex => files.push(("report.tex", latex::write(&document))),
        }
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    for name in stale {
        let path = folder.join(name);
        if path.exists() {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    for (name, text) in &files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    if options.tensorboard {
        write_events(&survey, &folder.join("tensorboard"))?;
    }
    let path = folder.join(files.first().map_or("", |(name, _)| *name));
    Ok(Report { folder, path, comparison: summary })
}

/// Writes an event file for each run that has a log, below the experiment's name where there are several.
fn write_events(survey: &Survey, out: &Path) -> Result<()> {
    for study in &survey.studies {
        let out = if survey.single().is_some() { out.to_owned() } else { out.join(&study.experiment.name) };
        for run in study.runs() {
            // A run that the plan lacks has no folder.
            if let Some(name) = run.path.file_name() {
                tensorboard::write(&run.path, &out.join(name))?;
            }
        }
    }
    Ok(())
}
