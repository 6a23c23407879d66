//! A distiller in a crate of its own, outside the workspace: it registers, plans, trains, resumes and is reported.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const EXPERIMENT: &str = r#"
format = 1
name = "outside"
device = "cpu"
threads = 1

[dataset]
kind = "shapes"
train = 256
test = 100

[teacher.big]
model = { kind = "resnet14" }
train = { epochs = 1 }

[student]
model = { kind = "resnet8" }

[train]
epochs = 1
checkpoint_steps = 1

[compare]
methods = ["vanilla", "cosine"]
"#;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_distiller_in_a_crate_outside_the_workspace() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources = checkout.join("tests/third_party");
    let folder = TempDir::new().unwrap();
    let manifest = fs::read_to_string(sources.join("Cargo.toml")).unwrap();
    fs::write(folder.path().join("Cargo.toml"), manifest.replace("LIMBECK", &checkout.display().to_string())).unwrap();
    fs::create_dir(folder.path().join("src")).unwrap();
    for file in ["build.rs", "src/main.rs", "src/cosine.rs"] {
        fs::copy(sources.join(file), folder.path().join(file)).unwrap();
    }
    // The workspace's lock file and target folder: what is compiled there is not compiled again.
    fs::copy(checkout.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
    let executable = std::env::current_exe().unwrap();
    let target = executable.ancestors().find(|path| path.join("CACHEDIR.TAG").exists()).unwrap();

    let build = Command::new(env!("CARGO"))
        .args(["build", "--quiet"])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", target)
        // What .cargo/config.toml says in the checkout; with other values torch-sys would be compiled anew.
        .envs(["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_LIB"].map(|name| (name, checkout.join(".libtorch"))))
        .env("LIBTORCH_STATIC", "0")
        .env("CPATH", checkout.join(".cargo/no-libtorch"))
        .output()
        .unwrap();
    assert!(build.status.success(), "{}", text(&build));

    fs::write(folder.path().join("outside.toml"), EXPERIMENT).unwrap();
    let limbeck = |arguments: &[&str]| {
        let output = Command::new(target.join("debug/cosine-distiller"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    };
    let listing = limbeck(&["plugins", "show", "cosine"]);
    assert!(listing.contains("one minus the cosine") && listing.contains("cosine-distiller 0.1.0"), "{listing}");
    let plan = limbeck(&["plan", "outside.toml"]);
    assert!(plan.contains("+ 2 × cosine of teacher big, 4 160 parameters of its own"), "{plan}");
    assert!(plan.contains("student pooled 64 — teacher pooled 64"), "{plan}");
    limbeck(&["run", "outside.toml"]);
    let report = fs::read_to_string(folder.path().join("runs/outside/report/report.md")).unwrap();
    assert!(report.lines().any(|line| line.starts_with("| cosine")), "{report}");
    let curves = fs::read_to_string(folder.path().join("runs/outside/report/curves.csv")).unwrap();
    assert!(curves.contains("cosine.distance") && curves.contains("cosine.cosine"), "{curves}");
}
