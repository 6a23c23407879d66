//! What the command prints, and where.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::builder::styling::AnsiColor;
use limbeck::error::{Error, Result};
use limbeck_report as report;

use crate::listing;
use crate::plan::sweep::Sweep;
use crate::words::full_message;

/// Prints to the standard output stream. A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let text = if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write", "the standard output stream")(error))
        }
        _ => Ok(()),
    }
}

/// One `error: …` line. If the standard error stream is gone, the exit code has to do.
pub(super) fn complain(message: &str) {
    let style = AnsiColor::Red.on_default().bold();
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {message}");
}

/// An `error: …` line with what caused it.
pub(super) fn print_error(error: &Error) {
    complain(&full_message(error));
}

/// Prints what would run.
pub(super) fn print_plan(sweep: &Sweep, json: bool) -> Result<()> {
    print(&if json { listing::json(&sweep.outline()?)? } else { sweep.text()? })
}

/// Writes the report; prints its comparison and, as the last line, where it is.
pub(super) fn write_report(folders: &[PathBuf], options: &report::Options, json: bool) -> Result<()> {
    let report = report::write(folders, options)?;
    if json {
        return print_outlines(folders, options, Some(&report.path));
    }
    print(&format!("{}\nreport: {}\n", report.comparison, report.path.display()))
}

/// Prints what became of an experiment, or of several, for programs.
pub(super) fn print_outlines(folders: &[PathBuf], options: &report::Options, report: Option<&Path>) -> Result<()> {
    let outlines = report::Outline::read(folders, options, report)?;
    print(&match &outlines[..] {
        [outline] => listing::json(outline)?,
        outlines => listing::json(&outlines)?,
    })
}
