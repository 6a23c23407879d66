//! `limbeck new`: what it writes works as it stands, and a crate that it made is built, tested, trained with and reported
//! outside the workspace.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use limbeck::config;
use limbeck::registry::Role;
use limbeck_cli::cli;
use limbeck_cli::new::{self, New};
use limbeck_cli::plan::Plan;
use limbeck_tests::experiment::overrides;
use limbeck_tests::files::checkout;
use tempfile::TempDir;

// The scaffold's plugins as they stand: compiled and linted here, and registered in this program.
#[path = "../../experiments/src/scaffold/critic.rs"]
mod critic;
#[path = "../../experiments/src/scaffold/dataset.rs"]
mod dataset;
#[path = "../../experiments/src/scaffold/distiller.rs"]
mod distiller;
#[path = "../../experiments/src/scaffold/model.rs"]
mod model;
#[path = "../../experiments/src/scaffold/negatives.rs"]
mod negatives;

#[test]
fn every_plugin_of_the_scaffold_conforms_and_its_experiment_can_be_planned() {
    limbeck::tch::set_num_threads(1);
    let folder = TempDir::new().unwrap();
    for role in new::ROLES {
        limbeck_conformance::check(role, &format!("my_{role}"), "").assert();
        let file = checkout().join(format!("experiments/src/scaffold/{role}.toml"));
        let values = overrides(&["dataset.train=200", "dataset.test=200", "threads=1", "device=\"cpu\""]);
        let plan = Plan::new(config::load(&file, &values).unwrap(), &file, folder.path()).unwrap();
        assert!(plan.to_string().contains(&format!("my_{role}")), "{plan}");
    }
}

fn limbeck(arguments: &[&str]) -> ExitCode {
    cli::main(std::iter::once("limbeck").chain(arguments.iter().copied()).map(Into::into))
}

fn refusal(role: Role, name: &str, folder: &Path, limbeck: Option<&str>) -> String {
    New { role, name, folder, limbeck }.write().unwrap_err().to_string()
}

#[test]
fn what_cannot_be_made_is_refused_and_nothing_is_written() {
    let temporary = TempDir::new().unwrap();
    let folder = temporary.path().join("made");
    let plain = "write it in lower-case letters, digits and underscores, a letter first";
    assert_eq!(refusal(Role::Distiller, "My-Method", &folder, None), format!("the name `My-Method`: {plain}"));
    assert_eq!(refusal(Role::Distiller, "2nd", &folder, None), format!("the name `2nd`: {plain}"));
    assert_eq!(refusal(Role::Distiller, "", &folder, None), format!("the name ``: {plain}"));
    assert_eq!(refusal(Role::Model, "match", &folder, None), "the name `match`: a crate cannot be called that");
    assert_eq!(
        refusal(Role::Model, "limbeck_net", &folder, None),
        "the name `limbeck_net`: a crate cannot be called that"
    );
    let taken = "the name `kd`: there is a method of that name, in crate limbeck-distillers";
    assert_eq!(refusal(Role::Distiller, "kd", &folder, None), taken);
    assert_eq!(refusal(Role::Schedule, "mine", &folder, None), "there is no scaffold for a schedule");
    let elsewhere = temporary.path().display().to_string();
    assert_eq!(
        refusal(Role::Distiller, "mine", &folder, Some(&elsewhere)),
        format!("{elsewhere} is no checkout of Limbeck: it has no framework/Cargo.toml")
    );
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("thesis.tex"), "").unwrap();
    let message = refusal(Role::Distiller, "mine", &folder, None);
    assert_eq!(message, format!("{} has files in it: choose another folder with --out", folder.display()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}

fn text_of(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap()
}

#[test]
fn the_framework_may_come_from_git_and_the_name_is_everywhere() {
    let temporary = TempDir::new().unwrap();
    let folder = temporary.path().join("tiny_net");
    let url = "https://example.org/limbeck.git";
    New { role: Role::Dataset, name: "grey_squares", folder: &folder, limbeck: Some(url) }.write().unwrap();
    let manifest: toml::Table = text_of(&folder, "Cargo.toml").parse().unwrap();
    for package in ["limbeck", "limbeck-cli", "limbeck-datasets"] {
        assert_eq!(manifest["dependencies"][package]["git"].as_str(), Some(url));
    }
    assert_eq!(manifest["dev-dependencies"]["limbeck-conformance"]["git"].as_str(), Some(url));
    let settings: toml::Table = text_of(&folder, ".cargo/config.toml").parse().unwrap();
    assert!(settings["env"]["LIBTORCH"]["value"].as_str().is_some_and(|path| Path::new(path).is_absolute()));
    assert!(!settings.contains_key("build"), "there is no target folder to share");
    assert!(text_of(&folder, "src/dataset.rs").contains("pub struct GreySquares"));
    assert!(text_of(&folder, "src/lib.rs").contains("mod dataset;\n\npub use dataset::GreySquares;"));
    assert!(text_of(&folder, "tests/conformance.rs").contains("check(Role::Dataset, \"grey_squares\", \"\")"));
    // Git's short form is written out, as cargo wants it.
    let (other, url) = (temporary.path().join("other"), Some("git@example.org:limbeck/limbeck.git"));
    New { role: Role::Model, name: "other", folder: &other, limbeck: url }.write().unwrap();
    let manifest: toml::Table = text_of(&other, "Cargo.toml").parse().unwrap();
    let long = "ssh://git@example.org/limbeck/limbeck.git";
    assert_eq!(manifest["dependencies"]["limbeck"]["git"].as_str(), Some(long));
    for file in [
        "Cargo.toml",
        ".cargo/config.toml",
        "README.md",
        "build.rs",
        "experiment.toml",
        "src/lib.rs",
        "src/main.rs",
        "src/dataset.rs",
    ] {
        for left in ["my_", "My", "LIMBECK_DEPENDENCIES", "LIMBECK_CONFORMANCE", "_FOLDER"] {
            assert!(!text_of(&folder, file).contains(left), "{file} has `{left}`");
        }
    }
}

/// A crate made by `limbeck new`, and cargo at work in it with the workspace's target folder: what is compiled there is not
/// compiled again.
struct Made {
    folder: PathBuf,
    target: PathBuf,
    _temporary: TempDir,
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Made {
    fn new(role: &str, name: &str) -> Self {
        let temporary = TempDir::new().unwrap();
        let folder = temporary.path().join(name);
        let code = limbeck(&["new", role, name, "--out", folder.to_str().unwrap()]);
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
        let executable = std::env::current_exe().unwrap();
        let target = executable.ancestors().find(|path| path.join("CACHEDIR.TAG").exists()).unwrap();
        Made { folder, target: target.to_owned(), _temporary: temporary }
    }

    fn cargo(&self, arguments: &[&str]) -> Output {
        // Outside the workspace its packages are others to cargo, and compiled once more: quickly, here.
        let packages = [
            "limbeck",
            "limbeck-conformance",
            "limbeck-distillers",
            "limbeck-models",
            "limbeck-datasets",
            "limbeck-cli",
        ];
        let quick = packages.map(|package| format!("profile.dev.package.{package}.opt-level=0"));
        let (verb, arguments) = arguments.split_first().unwrap();
        Command::new(env!("CARGO"))
            .arg(verb)
            .args(quick.iter().flat_map(|setting| ["--config", setting]))
            .args(arguments)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_NET_OFFLINE", "true")
            .env("OMP_NUM_THREADS", "1")
            .output()
            .unwrap()
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.cargo(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }
}

#[test]
fn a_distiller_in_a_crate_of_its_own_is_tested_trained_and_reported() {
    let made = Made::new("distiller", "outside");
    let tested = made.succeeds(&["test", "--quiet", "--test", "conformance"]);
    assert!(tested.contains("1 passed"), "{tested}");
    let shown = made.succeeds(&["run", "--quiet", "--", "plugins", "show", "outside"]);
    assert!(shown.contains("outside 0.1.0") && shown.contains("point where the teacher's point"), "{shown}");
    let mut run = vec!["run", "--quiet", "--", "run", "experiment.toml"];
    for set in ["dataset.train=256", "dataset.test=100", "teacher.big.train.epochs=1", "train.epochs=1", "threads=1"] {
        run.extend(["--set", set]);
    }
    run.extend(["--set", "compare.methods=[\"vanilla\", \"outside\"]", "--device", "cpu"]);
    made.succeeds(&run);
    let [report, curves] = ["report.md", "curves.csv"]
        .map(|file| fs::read_to_string(made.folder.join("runs/outside/report").join(file)).unwrap());
    assert!(report.lines().any(|line| line.starts_with("| outside")), "{report}");
    assert!(curves.contains("outside.cosine"), "{curves}");

    // The command that was not linked with the crate.
    let file = made.folder.join("experiment.toml");
    let planned = config::load(&file, &["threads=1".to_owned()]).and_then(|e| Plan::new(e, &file, &made.folder));
    let message = planned.unwrap_err().to_string();
    assert!(message.contains("outside") && message.contains("is its crate linked?"), "{message}");

    // A name that another crate has.
    let source = fs::read_to_string(made.folder.join("src/distiller.rs")).unwrap();
    fs::write(made.folder.join("src/distiller.rs"), source.replace("distiller \"outside\"", "distiller \"kd\""))
        .unwrap();
    let output = made.cargo(&["run", "--quiet", "--", "plugins", "list"]);
    let two = "two plugins claim the distiller `kd`: one of crate limbeck-distillers 0.1.0, one of crate outside 0.1.0; \
               unlink or rename one";
    let alternative = "two plugins claim the distiller `kd`: one of crate outside 0.1.0, one of crate limbeck-distillers \
                       0.1.0; unlink or rename one";
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains(two) || text(&output).contains(alternative), "{}", text(&output));

    // A framework of another version.
    another_framework(&made);
    let message = text(&made.cargo(&["metadata", "--format-version", "1"]));
    assert!(message.contains("links") && message.contains("package `limbeck v0.2.0"), "{message}");
}

/// Lets the crate name a framework of version 0.2.0, while the command still has its own.
fn another_framework(made: &Made) {
    let other = made.folder.join("other");
    fs::create_dir_all(other.join("src")).unwrap();
    let manifest = "[package]\nname = \"limbeck\"\nversion = \"0.2.0\"\nedition = \"2024\"\nlinks = \"limbeck\"\n";
    fs::write(other.join("Cargo.toml"), manifest).unwrap();
    for file in ["build.rs", "src/lib.rs"] {
        fs::write(other.join(file), "fn main() {}").unwrap();
    }
    let mut manifest: toml::Table = fs::read_to_string(made.folder.join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["dependencies"]["limbeck"]["path"] = other.display().to_string().into();
    fs::write(made.folder.join("Cargo.toml"), toml::to_string(&manifest).unwrap()).unwrap();
}
