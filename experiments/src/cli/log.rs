//! The program's log, on the standard error stream.

use std::io;

use limbeck::error::{Error, Result};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::arguments::{LogFormat, LogOptions};
use crate::progress::Stderr;

/// The variable with the log filter: `LIMBECK_LOG=debug`, `LIMBECK_LOG=limbeck::cohort=trace`.
const LOG_VARIABLE: &str = "LIMBECK_LOG";

/// Starts the log on the standard error stream, above the progress bars.
pub(super) fn start_log(options: &LogOptions) -> Result<()> {
    let level = match options.verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = match std::env::var(LOG_VARIABLE) {
        Ok(text) if !text.trim().is_empty() => EnvFilter::builder().parse(&text).map_err(|error| {
            Error::plan(format!("{LOG_VARIABLE}={text}: {error}; give a level such as `debug`, or `module=level,…`"))
        })?,
        _ => EnvFilter::default().add_directive(level.into()),
    };
    let ansi = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(|| Stderr);
    // A second start, within a test for example, keeps the first.
    let _ = match options.log_format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    Ok(())
}
