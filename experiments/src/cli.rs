//! The command line: verbs, options, exit codes. What the verbs do is in the other modules.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{
    PossibleValue, PossibleValuesParser, RangedI64ValueParser, RangedU64ValueParser, TypedValueParser,
};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use limbeck::cohort::{self, Limit, Stop};
use limbeck::config::{self, grid::Filter};
use limbeck::device::DeviceSpec;
use limbeck::error::{DeviceError, Error, Result};
use limbeck::experiment::AccuracyChoice;
use limbeck::registry::{self, Role};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::evaluate::{EvaluateArgs, evaluate};
use crate::listing::BuiltFor;
use crate::new::{self, New};
use crate::plan::Pool;
use crate::progress::{Progress, Stderr};
use crate::sweep::{Options, Sweep};
use crate::tensorboard::EventFiles;
use crate::weights::WeightsVerb;
use crate::worker::Crew;
use crate::{check, data, doctor, listing, plan, report, run, weights, worker};

/// The variable with the log filter: `LIMBECK_LOG=debug`, `LIMBECK_LOG=limbeck::cohort=trace`.
const LOG_VARIABLE: &str = "LIMBECK_LOG";

/// Knowledge distillation: train students by several methods from one experiment file, and compare them.
#[derive(Debug, Parser)]
#[command(
    name = "limbeck",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  limbeck plan experiment.toml         what would run; trains nothing
  limbeck run experiment.toml          trains, goes on where it was stopped, writes the report
  limbeck report runs/NAME             the report again, for example with another baseline
  limbeck plugins show kd              a method's settings and citation
  limbeck weights import a.pth b.safetensors
  limbeck new distiller NAME           a crate with a method of your own

Exit codes: 0 fine, 1 a run failed, 2 bad use or configuration, 3 stopped before the end, 130 interrupted at once.",
    styles = STYLES
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    log: LogOptions,
}

/// The colours of help and of errors in arguments: headings green, as cargo has them.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

#[derive(Debug, Args)]
struct LogOptions {
    /// Log more to the standard error stream: -v information, -vv debugging, -vvv everything.
    ///
    /// The variable LIMBECK_LOG has the last word: a level, or levels by module (`warn,limbeck::cohort=debug`).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log entries are written.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Colour: where the stream is a terminal (and NO_COLOR is not set), always, or never.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

impl From<Colour> for anstream::ColorChoice {
    fn from(colour: Colour) -> Self {
        match colour {
            Colour::Auto => anstream::ColorChoice::Auto,
            Colour::Always => anstream::ColorChoice::Always,
            Colour::Never => anstream::ColorChoice::Never,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train every student that an experiment compares, then write the report.
    #[command(after_help = "\
A second call goes on where the first one was stopped; what is finished is not trained again.
Ctrl-C (or SIGTERM) finishes the step, writes checkpoints and ends with code 3; a second one ends at once, with 130.
Results are in DIR/NAME, NAME being the experiment's; teachers that were trained are in DIR/teachers, for every experiment.

Examples:
  limbeck run experiment.toml
  limbeck run experiment.toml --device cuda:0 --out /data/runs
  limbeck run experiment.toml --set train.epochs=3 --set 'compare.methods=[\"vanilla\", \"kd\"]'
  limbeck run experiment.toml --set 'method.kd.terms[0].distiller.temperature=2.0'
  limbeck run sweep.toml --only pair=vgg13-vgg8 --only seed=0 --devices cuda:0,cuda:1")]
    Run {
        #[command(flatten)]
        experiment: ExperimentArgs,
        #[command(flatten)]
        crew: CrewArgs,
        /// Show what `limbeck plan` shows, and stop: nothing is trained or written.
        #[arg(long)]
        dry_run: bool,
        /// Stop with checkpoints after so much: 500steps, 3epochs, or a time such as 90s or 1h30m. Ends with code 3.
        #[arg(long, value_name = "LIMIT", value_parser = |text: &str| text.parse::<Limit>())]
        stop_after: Option<Limit>,
        /// What came of it, or with --dry-run the plan, as one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check an experiment and show what would run: cells, tap pairs, parameters. Trains nothing.
    #[command(after_help = "\
Examples:
  limbeck plan experiment.toml
  limbeck plan experiment.toml --set student.model.kind=resnet20
  limbeck plan sweep.toml --only pair=vgg13-vgg8 --only method=crd --only method=kd")]
    Plan {
        #[command(flatten)]
        experiment: ExperimentArgs,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Write the report of one experiment, or of several side by side: a page, Markdown, LaTeX, CSV.
    #[command(after_help = "\
Examples:
  limbeck report runs/quickstart
  limbeck report runs/quickstart --baseline kd --accuracy best_on_test --format html,csv
  limbeck report runs/pair1 runs/pair2 runs/pair3 --baseline kd --out runs/table1
  limbeck report runs/quickstart --tensorboard && tensorboard --logdir runs/quickstart/report/tensorboard")]
    Report(ReportArgs),
    /// List what is linked into this binary: methods, networks, data sets and the rest.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Plugins {
        #[command(subcommand)]
        verb: PluginVerb,
    },
    /// Read and write checkpoints of PyTorch.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Weights {
        #[command(subcommand)]
        verb: WeightsVerb,
    },
    /// Evaluate given weights: top-1, top-5, loss, calibration error, images per second; mAP where targets are sets of classes.
    #[command(after_help = "\
Published weights differ in the normalisation that they expect: set it with the data set's own settings.

Examples:
  limbeck evaluate --model resnet32x4 --weights ckpt_epoch_240.pth --dataset cifar100
  limbeck evaluate --model resnet32x4 --weights resnet32x4.safetensors --dataset cifar100 \\
      --set dataset.path=data --set 'dataset.std=[0.2673, 0.2564, 0.2762]' --json")]
    Evaluate(EvaluateArgs),
    /// Make a crate with a plugin of your own: working, tested, ready to be changed.
    #[command(after_help = "\
The crate has a working plugin, a test that runs the conformance checks, an experiment, and a command that has everything
built in and the plugin. Then: cd NAME && cargo test && cargo run -- run experiment.toml

Examples:
  limbeck new distiller cosine
  limbeck new critic logistic --out plugins/logistic
  limbeck new model tiny_net --limbeck ~/src/limbeck")]
    New(NewArgs),
    /// Get, check and measure data sets.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Data {
        #[command(subcommand)]
        verb: data::Verb,
    },
    /// Check this host: versions, libtorch, devices, plugins, data.
    #[command(after_help = "\
Examples:
  limbeck doctor
  limbeck doctor --json
  limbeck doctor -vv                   with what was looked for")]
    Doctor {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Print the completions of a shell.
    #[command(after_help = "\
Examples:
  limbeck completions bash > ~/.local/share/bash-completion/completions/limbeck
  limbeck completions zsh > ~/.zfunc/_limbeck
  limbeck completions fish > ~/.config/fish/completions/limbeck.fish")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each verb into a folder.
    #[command(after_help = "\
Examples:
  limbeck man | man -l -
  limbeck man --out ~/.local/share/man/man1")]
    Man {
        /// The folder; it is created.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Check that a GPU computes what the CPU computes: reference numbers, methods, resuming, precisions, speed.
    #[command(after_help = "\
Takes minutes, needs no file and writes to a temporary folder only. Exit codes: 0 all fine, 1 a part failed or no GPU.

Examples:
  limbeck check
  limbeck check --device cuda:1 --json
  limbeck check --device cpu           the check itself, where there is no GPU")]
    Check {
        /// What to check: cuda, cuda:N, cpu, or auto.
        #[arg(long, default_value = "cuda:0")]
        device: DeviceSpec,
        /// As one JSON object at the end.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Debug, Args)]
struct ExperimentArgs {
    /// The experiment file (TOML).
    file: PathBuf,
    /// Replace a value of the file: dotted key, TOML value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where to train: auto, cpu, cuda or cuda:N. The same as --set device=DEVICE.
    #[arg(long)]
    device: Option<String>,
    /// Only cells of this method or seed, or with this value of an axis of the grid. May be given several times: values
    /// of one key are alternatives.
    #[arg(long, value_name = "KEY=VALUE")]
    only: Vec<String>,
    /// The most students that are trained side by side, in place of the experiment's `lanes`.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    lanes: Option<usize>,
    /// The folder of all runs.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct NewArgs {
    /// What the plugin is for.
    #[arg(value_parser = role_parser(&new::ROLES))]
    role: Role,
    /// Its name, and its crate's: lower-case letters, digits and underscores.
    name: String,
    /// The folder that is made. Without it: NAME, here.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Limbeck's sources, a checkout or a git URL. Without it: the checkout that built this command.
    #[arg(long, value_name = "PATH|URL")]
    limbeck: Option<String>,
}

#[derive(Debug, Args)]
struct CrewArgs {
    /// Spread the cohorts over so many processes; their threads on the CPU are shared out. As many as devices by default.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    jobs: Option<usize>,
    /// Spread the cohorts over these devices, as in cuda:0,cuda:1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "device")]
    devices: Vec<DeviceSpec>,
    /// Keep an event file for TensorBoard in every run's folder, as new as its last epoch.
    #[arg(long)]
    tensorboard: bool,
    /// Work for another process of this program, which says what on the standard input stream.
    #[arg(long, hide = true)]
    worker: bool,
}

impl CrewArgs {
    fn jobs(&self) -> usize {
        self.jobs.unwrap_or(self.devices.len()).max(1)
    }
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// The experiments' folders: runs/NAME. Several are several pairs of networks, side by side.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// The method that others are compared with, in place of the experiment's own choice.
    #[arg(long, value_name = "METHOD")]
    baseline: Option<String>,
    /// The accuracy that is shown, in place of the experiment's own choice.
    #[arg(long)]
    accuracy: Option<Accuracy>,
    /// What was written, and each run's accuracy, as one JSON object for each experiment.
    #[arg(long)]
    json: bool,
    /// What to write.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "html,md,csv,tex")]
    format: Vec<ReportFormat>,
    /// Where to write it: DIR/report for a single experiment; several need a folder of their own.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write event files for TensorBoard too, one for each run, into the folder `tensorboard`.
    #[arg(long)]
    tensorboard: bool,
}

impl From<ReportArgs> for report::Options {
    fn from(arguments: ReportArgs) -> Self {
        let ReportArgs { dirs: _, baseline, accuracy, json: _, format, out, tensorboard } = arguments;
        let formats = format.into_iter().map(report::Format::from).collect();
        report::Options { baseline, accuracy: accuracy.map(AccuracyChoice::from), formats, out, tensorboard }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ReportFormat {
    /// One page for a browser, which needs no other file.
    Html,
    /// The report as text, and a summary to be pasted.
    Md,
    /// The numbers of every table and picture.
    Csv,
    /// The tables for LaTeX.
    Tex,
}

impl From<ReportFormat> for report::Format {
    fn from(format: ReportFormat) -> Self {
        match format {
            ReportFormat::Html => report::Format::Html,
            ReportFormat::Md => report::Format::Markdown,
            ReportFormat::Csv => report::Format::Csv,
            ReportFormat::Tex => report::Format::Latex,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Accuracy {
    /// Test accuracy after the last epoch.
    Last,
    /// Test accuracy at the epoch with the best validation accuracy.
    BestOnValidation,
    /// The best test accuracy of any epoch: chosen on the test set, hence optimistic.
    BestOnTest,
}

impl From<Accuracy> for AccuracyChoice {
    fn from(accuracy: Accuracy) -> Self {
        match accuracy {
            Accuracy::Last => AccuracyChoice::Last,
            Accuracy::BestOnValidation => AccuracyChoice::BestOnValidation,
            Accuracy::BestOnTest => AccuracyChoice::BestOnTest,
        }
    }
}

#[derive(Debug, Subcommand)]
enum PluginVerb {
    /// List names and summaries by role.
    #[command(after_help = "\
Examples:
  limbeck plugins list
  limbeck plugins list --kind model
  limbeck plugins list --json")]
    List {
        /// Only those of this role.
        #[arg(long, visible_alias = "role", value_name = "ROLE", value_parser = role_parser(&Role::ALL))]
        kind: Option<Role>,
        /// As a JSON array with every field.
        #[arg(long)]
        json: bool,
    },
    /// Show a plugin's summary, citation and default settings; of every role that has the name.
    #[command(after_help = "\
Examples:
  limbeck plugins show crd
  limbeck plugins show kd --kind distiller
  limbeck plugins show resnet20 --input 1,60,80 --classes 40")]
    Show {
        /// Its name.
        name: String,
        /// Only of this role.
        #[arg(long, visible_alias = "role", value_name = "ROLE", value_parser = role_parser(&Role::ALL))]
        kind: Option<Role>,
        /// Channels, height and width of what a network sees, in place of what it was published with.
        #[arg(long, value_name = "C,H,W", value_parser = input_shape)]
        input: Option<[i64; 3]>,
        /// The classes that a network tells apart.
        #[arg(long, value_name = "N", value_parser = RangedI64ValueParser::<i64>::new().range(1..=1_000_000))]
        classes: Option<i64>,
        /// As a JSON array with every field.
        #[arg(long)]
        json: bool,
    },
}

/// Reads `3,32,32`.
fn input_shape(text: &str) -> std::result::Result<[i64; 3], String> {
    let sizes: Option<Vec<i64>> =
        text.split(',').map(|size| size.trim().parse().ok().filter(|size| (1..=4096).contains(size))).collect();
    let sizes = sizes.and_then(|sizes| sizes.try_into().ok());
    sizes
        .ok_or_else(|| format!("{text:?} is no input: give channels, height and width, each up to 4096, as in 3,32,32"))
}

fn role_parser(roles: &'static [Role]) -> impl TypedValueParser<Value = Role> {
    PossibleValuesParser::new(roles.iter().map(|role| role.name()))
        .try_map(|name| roles.iter().copied().find(|role| role.name() == name).ok_or("no such role"))
}

/// Why the command ends with another code than 0.
#[derive(Debug)]
struct Failure {
    error: Error,
    code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.is_usage() { 2 } else { 1 };
        Failure { error, code }
    }
}

impl Failure {
    /// Whatever goes wrong before a run begins is the configuration's fault: a missing file, damaged data.
    fn of_configuration(error: Error) -> Self {
        Failure { error, code: 2 }
    }
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
    let result = start_log(&cli.log).and_then(|()| registry::check()).map_err(Failure::from);
    // Outside a lane, which ends by its own, a panic is an error of the whole command.
    let work = || cohort::catch(|| Ok(execute(cli.verb, &cli.log, &arguments)))?;
    let result = result.and_then(|()| work());
    result.unwrap_or_else(|failure| {
        print_error(&failure.error);
        ExitCode::from(failure.code)
    })
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(2))
}

fn execute(verb: Verb, log: &LogOptions, arguments: &[OsString]) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Run { experiment, crew, dry_run: false, stop_after, json } => {
            run_experiment(&experiment, &crew, log, stop_after, json, arguments)
        }
        Verb::Run { experiment, crew, dry_run: true, stop_after, json } => {
            let crew = self::crew(&experiment, &crew, log, stop_after, arguments)?;
            print_plan(&plan_for(&experiment, crew.as_ref()).map_err(Failure::of_configuration)?, json)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Plan { experiment, json } => {
            print_plan(&plan_for(&experiment, None).map_err(Failure::of_configuration)?, json)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Report(mut arguments) => {
            let (dirs, json) = (std::mem::take(&mut arguments.dirs), arguments.json);
            write_report(&dirs, &arguments.into(), json)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Plugins { verb: PluginVerb::List { kind, json } } => {
            print(&if json { listing::list_json(kind)? } else { listing::list(kind) })?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Plugins { verb: PluginVerb::Show { name, kind, input, classes, json } } => {
            let asked = BuiltFor { input, classes };
            let show = if json { listing::show_json } else { listing::show };
            print(&show(&name, kind, &asked)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Weights { verb } => {
            print(&weights::execute(&verb).map_err(Failure::of_configuration)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Evaluate(arguments) => {
            let evaluation = evaluate(&arguments).map_err(Failure::of_configuration)?;
            print(&if arguments.json { listing::json(&evaluation)? } else { evaluation.to_string() })?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::New(NewArgs { role, name, out, limbeck }) => {
            let folder = out.unwrap_or_else(|| PathBuf::from(&name));
            New { role, name: &name, folder: &folder, limbeck: limbeck.as_deref() }
                .write()
                .map_err(Failure::of_configuration)?;
            let folder = folder.display();
            print(&format!(
                "{folder} has a {role} `{name}`; next: cd {folder} && cargo test && cargo run -- run experiment.toml"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Data { verb } => {
            // What `verify` finds damaged is what it was asked for; whoever measures needs sound data first.
            let failure =
                if matches!(verb, data::Verb::Stats { .. }) { Failure::of_configuration } else { Failure::from };
            print(&data::run(&verb).map_err(failure)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "limbeck", &mut text);
            print(&String::from_utf8_lossy(&text))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man { out } => {
            manual(out.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Doctor { json } => {
            let diagnosis = doctor::examine();
            print(&if json { listing::json(&diagnosis)? } else { diagnosis.text.clone() })?;
            diagnosis.problems.iter().for_each(|problem| complain(problem));
            Ok(if diagnosis.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        Verb::Check { device, json } => check_device(device, json),
    }
}

fn check_device(device: DeviceSpec, json: bool) -> Result<ExitCode, Failure> {
    // A reader that has seen enough does not end the check.
    let mut tell = |finding: &check::Finding| {
        if !json {
            _ = print(&finding.to_string())
        }
    };
    let report = match check::run(device, &mut tell) {
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

fn plan(arguments: &ExperimentArgs, options: Options) -> Result<Sweep> {
    let device = arguments.device.iter().map(|device| format!("device={device}"));
    let overrides: Vec<String> = arguments.set.iter().cloned().chain(device).collect();
    let only = Filter::new(arguments.only.iter().map(String::as_str))?;
    let grid = config::load_grid(&arguments.file, &overrides, &only)?;
    let options = Options { lanes: arguments.lanes, ..options };
    Sweep::new(grid, &arguments.file, &arguments.out, &options, &mut Pool::default())
        .map_err(|error| config::place(error, &arguments.file, &overrides))
}

fn run_experiment(
    experiment: &ExperimentArgs,
    crew: &CrewArgs,
    log: &LogOptions,
    limit: Option<Limit>,
    json: bool,
    arguments: &[OsString],
) -> Result<ExitCode, Failure> {
    if crew.worker {
        return work(experiment, crew.tensorboard).map_err(Failure::from);
    }
    let tensorboard = crew.tensorboard;
    let crew = self::crew(experiment, crew, log, limit, arguments)?;
    let sweep = plan_for(experiment, crew.as_ref()).map_err(Failure::of_configuration)?;
    let stop = Arc::new(Stop::new(limit));
    watch_signals(&stop, "stopping: the step is finished and checkpoints are written; once more stops at once");
    let mut observer = EventFiles { written: tensorboard, then: Progress::new() };
    let finished = run::execute_sweep(&sweep, crew.as_ref(), &stop, &mut observer)?;
    drop(observer);
    finished.failed.iter().for_each(|failed| complain(&format!("a run failed: {failed}")));
    finished.errors.iter().for_each(print_error);
    if finished.errors.iter().any(Error::is_usage) {
        return Ok(ExitCode::from(2));
    }
    // What ended one experiment leaves nothing to report; the other points of a sweep have gone on.
    if !finished.errors.is_empty() && sweep.points.len() == 1 {
        return Ok(ExitCode::from(1));
    }
    let has_failed = !finished.failed.is_empty() || !finished.errors.is_empty();
    if finished.stopped {
        let _ = writeln!(
            anstream::stderr(),
            "stopped before the end, with checkpoints in {}; this goes on from there:\n  {}",
            finished.folder.display(),
            command_line(&going_on(arguments))
        );
        if json {
            print_outlines(&[finished.folder], &report::Options::default(), None)?;
        }
        return Ok(ExitCode::from(if finished.errors.is_empty() { STOPPED } else { 1 }));
    }
    write_report(&[finished.folder], &report::Options::default(), json)?;
    Ok(ExitCode::from(u8::from(has_failed)))
}

/// Plans for this process, or for those of a crew.
fn plan_for(experiment: &ExperimentArgs, crew: Option<&Crew>) -> Result<Sweep> {
    let device = crew.and_then(|crew| crew.devices.first().cloned()).or_else(|| experiment.device.clone());
    let threads = crew.map(|crew| crew.threads);
    plan(&ExperimentArgs { device, ..experiment.clone() }, Options { threads, ..Options::default() })
}

/// A first request stops in order, a second one at once.
fn watch_signals(stop: &Arc<Stop>, message: &'static str) {
    let watched = Arc::clone(stop);
    // Within a test there is a handler already, from the run before.
    let _ = ctrlc::set_handler(move || {
        if watched.request() {
            // SAFETY: it takes any number and does not return. Plain `exit` would run libtorch's destructors while it works.
            unsafe { libc::_exit(INTERRUPTED) };
        }
        if !message.is_empty() {
            let _ = writeln!(Stderr, "{message}");
        }
    });
}

/// How the work is spread over processes, if it is.
fn crew(
    experiment: &ExperimentArgs,
    crew: &CrewArgs,
    log: &LogOptions,
    limit: Option<Limit>,
    arguments: &[OsString],
) -> Result<Option<Crew>, Failure> {
    let jobs = crew.jobs();
    if jobs == 1 && crew.devices.is_empty() {
        return Ok(None);
    }
    if let Some(Limit::Steps(_) | Limit::Epochs(_)) = limit {
        let message =
            "--stop-after counts steps and epochs in one process only: give a time, or leave --jobs and --devices out";
        return Err(Error::plan(message).into());
    }
    // The program itself, unless it was called by its whole path.
    let program = match arguments.first().map(Path::new) {
        Some(path) if path.is_absolute() => path.to_owned(),
        _ => std::env::current_exe().map_err(Error::io("find", "the program"))?,
    };
    let mut arguments: Vec<OsString> = vec!["--out".into(), experiment.out.clone().into()];
    let pairs = |option: &'static str, values: &[String]| {
        values.iter().map(|value| format!("--{option}={value}").into()).collect::<Vec<OsString>>()
    };
    arguments.extend(pairs("set", &experiment.set));
    arguments.extend(pairs("only", &experiment.only));
    arguments.extend(pairs("lanes", &experiment.lanes.iter().map(usize::to_string).collect::<Vec<_>>()));
    arguments.extend(crew.tensorboard.then(|| "--tensorboard".into()));
    arguments.extend((0..log.verbose).map(|_| "-v".into()));
    let named = |option: &str, value: Option<PossibleValue>| {
        value.map(|value| OsString::from(format!("--{option}={}", value.get_name())))
    };
    arguments.extend(named("log-format", log.log_format.to_possible_value()));
    arguments.extend(named("color", log.color.to_possible_value()));
    arguments.extend([OsString::from("--"), experiment.file.clone().into()]);
    let devices = match &crew.devices[..] {
        [] => experiment.device.iter().cloned().collect(),
        devices => {
            // The plan is made for the first of them: the others' workers would be the ones to find out.
            devices.iter().try_for_each(|device| device.resolve().map(drop)).map_err(Error::from)?;
            devices.iter().map(DeviceSpec::to_string).collect()
        }
    };
    Ok(Some(Crew { program, arguments, devices, jobs, threads: (plan::cores() / jobs).max(1) }))
}

/// Works for another process.
fn work(experiment: &ExperimentArgs, tensorboard: bool) -> Result<ExitCode> {
    let stop = Arc::new(Stop::default());
    watch_signals(&stop, "");
    let mut observer = EventFiles { written: tensorboard, then: Progress::new() };
    worker::serve(&stop, &mut observer, |order| {
        let options =
            Options { threads: Some(order.threads), points: Some(order.points.clone()), ..Options::default() };
        plan(experiment, options)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The option that ends a call early.
const STOP_AFTER: &str = "--stop-after";
/// The exit code of a run that was stopped in order.
const STOPPED: u8 = 3;
/// The exit code of one that was interrupted at once: 128 and the number of SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// The arguments of a call that goes on: without the limit that this one has reached.
fn going_on(arguments: &[OsString]) -> Vec<OsString> {
    let mut rest = arguments.iter();
    let mut kept = Vec::new();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some(STOP_AFTER) => _ = rest.next(),
            Some(text) if text.strip_prefix(STOP_AFTER).is_some_and(|value| value.starts_with('=')) => {}
            _ => kept.push(argument.clone()),
        }
    }
    kept
}

/// The arguments as one types them for a shell.
fn command_line(arguments: &[OsString]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_+=./:,@%".contains(c);
    let quoted = |text: &str| match text {
        "" => "''".to_owned(),
        text if text.chars().all(plain) => text.to_owned(),
        text => format!("'{}'", text.replace('\'', "'\\''")),
    };
    arguments.iter().map(|text| quoted(&text.to_string_lossy())).collect::<Vec<_>>().join(" ")
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

/// Writes the report; prints its comparison and, as the last line, where it is.
fn write_report(folders: &[PathBuf], options: &report::Options, json: bool) -> Result<()> {
    let report = report::write(folders, options)?;
    if json {
        return print_outlines(folders, options, Some(&report.path));
    }
    print(&format!("{}\nreport: {}\n", report.comparison, report.path.display()))
}

/// Prints what became of an experiment, or of several, for programs.
fn print_outlines(folders: &[PathBuf], options: &report::Options, report: Option<&Path>) -> Result<()> {
    let outlines = report::Outline::read(folders, options, report)?;
    print(&match &outlines[..] {
        [outline] => listing::json(outline)?,
        outlines => listing::json(&outlines)?,
    })
}

/// Prints what would run.
fn print_plan(sweep: &Sweep, json: bool) -> Result<()> {
    print(&if json { listing::json(&sweep.outline()?)? } else { sweep.text()? })
}

/// Prints to the standard output stream. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
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
fn complain(message: &str) {
    let style = AnsiColor::Red.on_default().bold();
    let _ = writeln!(anstream::stderr(), "{style}error:{style:#} {message}");
}

fn print_error(error: &Error) {
    complain(&full_message(error));
}

/// An error with what caused it.
pub(crate) fn full_message(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text += &format!("\n  caused by: {cause}");
        source = cause.source();
    }
    text
}

/// Starts the log on the standard error stream, above the progress bars.
fn start_log(options: &LogOptions) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(command: &clap::Command) -> Vec<clap::Command> {
        let mut all = vec![command.clone()];
        command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| all.extend(commands(sub)));
        all
    }

    #[test]
    fn every_verb_has_help_with_examples() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let verbs = commands(&command);
        assert_eq!(verbs.len(), 22);
        for mut verb in verbs {
            let (name, help) = (verb.get_name().to_owned(), verb.render_long_help().to_string());
            assert!(verb.get_about().is_some(), "{name}");
            assert!(
                ["plugins", "weights", "data"].contains(&name.as_str()) || help.contains("Examples:\n  limbeck "),
                "{help}"
            );
        }
    }

    #[test]
    fn arguments_are_read() {
        let cli = Cli::try_parse_from([
            "limbeck",
            "run",
            "a.toml",
            "--set",
            "train.epochs=3",
            "--set",
            "name=b",
            "--device",
            "cpu",
            "--out",
            "r",
            "-vv",
        ])
        .unwrap();
        assert_eq!(cli.log.verbose, 2);
        let Verb::Run { experiment: arguments, dry_run: false, stop_after: None, json: false, .. } = cli.verb else {
            panic!("{:?}", cli.verb)
        };
        assert_eq!((arguments.file, arguments.out), ("a.toml".into(), "r".into()));
        assert_eq!((arguments.set.len(), arguments.device.as_deref()), (2, Some("cpu")));
        let cli = Cli::try_parse_from(["limbeck", "report", "runs/a", "--accuracy", "best_on_validation"]).unwrap();
        let Verb::Report(arguments) = cli.verb else { panic!("{:?}", cli.verb) };
        assert_eq!(arguments.accuracy.map(AccuracyChoice::from), Some(AccuracyChoice::BestOnValidation));
        assert_eq!(report::Options::from(arguments).formats, report::Format::ALL);
        let several = ["limbeck", "report", "a", "b", "--format", "md,html", "--out", "c", "--tensorboard"];
        let Verb::Report(arguments) = Cli::try_parse_from(several).unwrap().verb else { panic!("{several:?}") };
        assert_eq!(arguments.dirs, [PathBuf::from("a"), "b".into()]);
        let options = report::Options::from(arguments);
        assert_eq!(options.formats, [report::Format::Markdown, report::Format::Html]);
        assert_eq!((options.out, options.tensorboard), (Some("c".into()), true));
        for option in ["--kind", "--role"] {
            let cli = Cli::try_parse_from(["limbeck", "plugins", "list", option, "model"]).unwrap();
            assert!(matches!(
                cli.verb,
                Verb::Plugins { verb: PluginVerb::List { kind: Some(Role::Model), json: false } }
            ));
        }
    }

    #[test]
    fn a_command_line_can_be_typed_again() {
        let arguments = ["limbeck", "run", "it's.toml", "--set", "compare.methods=[\"kd\"]", ""].map(OsString::from);
        assert_eq!(command_line(&arguments), r#"limbeck run 'it'\''s.toml' --set 'compare.methods=["kd"]' ''"#);
        let limited =
            ["limbeck", "run", "--stop-after", "3steps", "a.toml", "--stop-after=9m", "-v"].map(OsString::from);
        assert_eq!(command_line(&going_on(&limited)), "limbeck run a.toml -v");
    }

    #[test]
    fn wrong_use_ends_with_2_and_names_the_nearest() {
        let error = Cli::try_parse_from(["limbeck", "plugins", "list", "--kind", "modle"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("'model'"), "{error}");
        assert_eq!(Cli::try_parse_from(["limbeck", "--help"]).unwrap_err().exit_code(), 0);
        assert_eq!(Cli::try_parse_from(["limbeck", "--version"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn errors_of_use_end_with_2_and_failed_runs_with_1() {
        assert_eq!(Failure::from(Error::plan("x")).code, 2);
        assert_eq!(Failure::from(Error::run("x")).code, 1);
        assert_eq!(Failure::of_configuration(Error::data("x", "y")).code, 2);
    }
}
