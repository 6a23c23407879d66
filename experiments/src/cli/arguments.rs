//! The arguments of the command: verbs and options, with their help.

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValuesParser, RangedI64ValueParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use limbeck::cohort::Limit;
use limbeck::device::DeviceSpec;
use limbeck::experiment::AccuracyChoice;
use limbeck::registry::Role;
use limbeck_report as report;

use crate::evaluate::EvaluateArgs;
use crate::weights::WeightsVerb;
use crate::{data, new};

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
pub(super) struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
    #[command(flatten)]
    pub log: LogOptions,
}

/// The colours of help and of errors in arguments: headings green, as cargo has them.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

#[derive(Debug, Args)]
pub(super) struct LogOptions {
    /// Log more to the standard error stream: -v information, -vv debugging, -vvv everything.
    ///
    /// The variable LIMBECK_LOG has the last word: a level, or levels by module (`warn,limbeck::cohort=debug`).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How log entries are written.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Colour: where the stream is a terminal (and NO_COLOR is not set), always, or never.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Colour,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Colour {
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
pub(super) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
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
        workers: WorkerArgs,
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
        verb: data::DataVerb,
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
pub(super) struct ExperimentArgs {
    /// The experiment file (TOML).
    pub file: PathBuf,
    /// Replace a value of the file: dotted key, TOML value. May be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where to train: auto, cpu, cuda or cuda:N. The same as --set device=DEVICE.
    #[arg(long)]
    pub device: Option<String>,
    /// Only cells of this method or seed, or with this value of an axis of the grid. May be given several times: values
    /// of one key are alternatives.
    #[arg(long, value_name = "KEY=VALUE")]
    pub only: Vec<String>,
    /// The most students that are trained side by side, in place of the experiment's `lanes`.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub lanes: Option<usize>,
    /// The folder of all runs.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// What the plugin is for.
    #[arg(value_parser = role_parser(&new::ROLES))]
    pub role: Role,
    /// Its name, and its crate's: lower-case letters, digits and underscores.
    pub name: String,
    /// The folder that is made. Without it: NAME, here.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Limbeck's sources, a checkout or a git URL. Without it: the checkout that built this command.
    #[arg(long, value_name = "PATH|URL")]
    pub limbeck: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Spread the cohorts over so many processes; their threads on the CPU are shared out. As many as devices by default.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub jobs: Option<usize>,
    /// Spread the cohorts over these devices, as in cuda:0,cuda:1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with = "device")]
    pub devices: Vec<DeviceSpec>,
    /// Keep an event file for TensorBoard in every run's folder, as new as its last epoch.
    #[arg(long)]
    pub tensorboard: bool,
    /// Work for another process of this program, which says what on the standard input stream.
    #[arg(long, hide = true)]
    pub worker: bool,
}

impl WorkerArgs {
    /// How many processes work at a time.
    pub fn jobs(&self) -> usize {
        self.jobs.unwrap_or(self.devices.len()).max(1)
    }
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The experiments' folders: runs/NAME. Several are several pairs of networks, side by side.
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// The method that others are compared with, in place of the experiment's own choice.
    #[arg(long, value_name = "METHOD")]
    pub baseline: Option<String>,
    /// The accuracy that is shown, in place of the experiment's own choice.
    #[arg(long)]
    pub accuracy: Option<Accuracy>,
    /// What was written, and each run's accuracy, as one JSON object for each experiment.
    #[arg(long)]
    pub json: bool,
    /// What to write.
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "html,md,csv,tex")]
    pub format: Vec<ReportFormat>,
    /// Where to write it: DIR/report for a single experiment; several need a folder of their own.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write event files for TensorBoard too, one for each run, into the folder `tensorboard`.
    #[arg(long)]
    pub tensorboard: bool,
}

impl From<ReportArgs> for report::Options {
    fn from(arguments: ReportArgs) -> Self {
        let ReportArgs { dirs: _, baseline, accuracy, json: _, format, out, tensorboard } = arguments;
        let formats = format.into_iter().map(report::Format::from).collect();
        report::Options { baseline, accuracy: accuracy.map(AccuracyChoice::from), formats, out, tensorboard }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ReportFormat {
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
pub(super) enum Accuracy {
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
pub(super) enum PluginVerb {
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
    fn wrong_use_ends_with_2_and_names_the_nearest() {
        let error = Cli::try_parse_from(["limbeck", "plugins", "list", "--kind", "modle"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("'model'"), "{error}");
        assert_eq!(Cli::try_parse_from(["limbeck", "--help"]).unwrap_err().exit_code(), 0);
        assert_eq!(Cli::try_parse_from(["limbeck", "--version"]).unwrap_err().exit_code(), 0);
    }
}
