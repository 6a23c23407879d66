//! The command line: verbs, options, exit codes. What the verbs do is in the other modules.
//!
//! | module | holds |
//! |---|---|
//! | `arguments` | verbs and options with their help |
//! | `run` | `limbeck run` and `limbeck plan` |
//! | `output`, `log` | what is printed, and the program's log |
//! | `failure` | exit codes |

mod arguments;
mod failure;
mod log;
mod output;
mod run;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use limbeck::cohort;
use limbeck::device::DeviceSpec;
use limbeck::error::{DeviceError, Error, Result};
use limbeck::registry;

use crate::evaluate::{EvaluateArgs, evaluate};
use crate::listing::BuiltFor;
use crate::new::New;
use crate::{check, data, doctor, listing, waiting, weights};

use arguments::{Cli, LogOptions, NewArgs, PluginVerb, Verb};
use failure::Failure;
use log::start_log;
use output::{complain, print, print_error, print_plan, write_report};

/// Does what the arguments of this process say. What computes for long starts the program once again first, see `waiting`.
pub(crate) fn process() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Ok(cli) = Cli::try_parse_from(&arguments)
        && matches!(cli.verb, Verb::Run { dry_run: false, .. } | Verb::Evaluate(_) | Verb::Check { .. })
    {
        waiting::start_again_with_brief_spinning();
    }
    main(arguments)
}

/// Does what the arguments say; the first is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with code 0. If they cannot be printed, nothing can.
            let _ = error.print();
            return code(error.exit_code());
        }
    };
    anstream::ColorChoice::from(cli.log.color).write_global();
    match begin(cli, &arguments) {
        Ok(code) => code,
        Err(failure) => {
            print_error(&failure.error);
            ExitCode::from(failure.code)
        }
    }
}

fn begin(cli: Cli, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    start_log(&cli.log)?;
    registry::check()?;
    // Outside a lane, which ends by its own, a panic is an error of the whole command.
    cohort::catch(|| Ok(execute(cli.verb, &cli.log, arguments)))?
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

fn execute(verb: Verb, log: &LogOptions, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Run { experiment, workers, dry_run: false, stop_after, json } => {
            return run::run_experiment(&experiment, &workers, log, stop_after, json, arguments);
        }
        Verb::Run { experiment, workers, dry_run: true, stop_after, json } => {
            let pool = run::worker_pool(&experiment, &workers, log, stop_after, arguments)?;
            let sweep = run::plan_for(&experiment, pool.as_ref()).map_err(Failure::of_configuration)?;
            print_plan(&sweep, json)?;
        }
        Verb::Plan { experiment, json } => {
            print_plan(&run::plan_for(&experiment, None).map_err(Failure::of_configuration)?, json)?;
        }
        Verb::Report(mut arguments) => {
            let (dirs, json) = (std::mem::take(&mut arguments.dirs), arguments.json);
            write_report(&dirs, &arguments.into(), json)?;
        }
        Verb::Plugins { verb } => print(&plugins(verb)?)?,
        Verb::Weights { verb } => print(&weights::execute(&verb).map_err(Failure::of_configuration)?)?,
        Verb::Evaluate(arguments) => evaluate_weights(&arguments)?,
        Verb::New(arguments) => new_crate(arguments)?,
        Verb::Data { verb } => {
            // What `verify` finds damaged is what it was asked for; whoever measures needs sound data first.
            let is_stats = matches!(verb, data::DataVerb::Stats { .. });
            print(&data::run(&verb).map_err(if is_stats { Failure::of_configuration } else { Failure::from })?)?;
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "limbeck", &mut text);
            print(&String::from_utf8_lossy(&text))?;
        }
        Verb::Man { out } => manual(out.as_deref())?,
        Verb::Doctor { json } => return diagnose(json),
        Verb::Check { device, json } => return check_device(device, json),
    }
    Ok(ExitCode::SUCCESS)
}

fn plugins(verb: PluginVerb) -> Result<String> {
    match verb {
        PluginVerb::List { kind, json: true } => listing::list_json(kind),
        PluginVerb::List { kind, json: false } => Ok(listing::list(kind)),
        PluginVerb::Show { name, kind, input, classes, json } => {
            let asked = BuiltFor { input, classes };
            if json { listing::show_json(&name, kind, &asked) } else { listing::show(&name, kind, &asked) }
        }
    }
}

fn evaluate_weights(arguments: &EvaluateArgs) -> Result<(), Failure> {
    let evaluation = evaluate(arguments).map_err(Failure::of_configuration)?;
    print(&if arguments.json { listing::json(&evaluation)? } else { evaluation.to_string() })?;
    Ok(())
}

fn new_crate(arguments: NewArgs) -> Result<(), Failure> {
    let NewArgs { role, name, out, limbeck } = arguments;
    let folder = out.unwrap_or_else(|| PathBuf::from(&name));
    let new = New { role, name: &name, folder: &folder, limbeck: limbeck.as_deref() };
    new.write().map_err(Failure::of_configuration)?;
    let folder = folder.display();
    print(&format!(
        "{folder} has a {role} `{name}`; next: cd {folder} && cargo test && cargo run -- run experiment.toml"
    ))?;
    Ok(())
}

fn diagnose(json: bool) -> Result<ExitCode, Failure> {
    let diagnosis = doctor::examine();
    print(&if json { listing::json(&diagnosis)? } else { diagnosis.to_string() })?;
    for problem in &diagnosis.problems {
        complain(problem);
    }
    Ok(ExitCode::from(u8::from(!diagnosis.problems.is_empty())))
}

fn check_device(device: DeviceSpec, json: bool) -> Result<ExitCode, Failure> {
    // A reader that has seen enough does not end the check.
    let report = check::run(device, &mut |finding| {
        if !json {
            _ = print(&finding.to_string())
        }
    });
    let report = match report {
        Err(Error::Device(error @ DeviceError::NoCuda { .. })) => {
            let error = Error::run(format!("there is no GPU to check: {error}"));
            return Err(Failure { error, code: 1 });
        }
        report => report.map_err(|error| Failure { error, code: 1 })?,
    };
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(|e| Error::run(format!("the findings: {e}")))?;
        print(&text)?;
    } else {
        let end = if report.passed() { "nothing failed" } else { "something FAILED" };
        print(&format!("{} ({}): {end}", report.device, report.device_name))?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Prints the manual page, or writes those of all verbs into a folder.
fn manual(out: Option<&Path>) -> Result<()> {
    let Some(folder) = out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Error::io("write", "the manual page"))?;
        return print(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(Error::io("write", folder))
}
