//! Data from the disk in whole runs: interrupted and resumed, across modalities, and through `limbeck data`.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use limbeck::cohort::STUDENT;
use limbeck_cli::cli;
use limbeck_cli::data::{DataArgs, stats};
use limbeck_tests::files::{entries, png};

const HEIGHT: usize = 20;
const WIDTH: usize = 24;

/// The depth of a frame.
fn depth(frame: usize) -> Vec<u8> {
    (0..HEIGHT * WIDTH).map(|p| (7 * frame + 3 * (p % WIDTH) + 2 * (p / WIDTH)) as u8).collect()
}

/// Twenty-five frames of photographs, depth and label maps.
fn pairs(folder: &Path) {
    for frame in 0..25 {
        let depth = depth(frame);
        let rgb: Vec<u8> = depth.iter().flat_map(|d| [*d, 255 - d, (frame * 9) as u8]).collect();
        let labels = vec![(frame % 3) as u8; HEIGHT * WIDTH];
        for (kind, colour, pixels) in [
            ("depth", png::ColorType::Grayscale, &depth),
            ("rgb", png::ColorType::Rgb, &rgb),
            ("labels", png::ColorType::Grayscale, &labels),
        ] {
            png(&folder.join(format!("{kind}/{frame:02}.png")), [HEIGHT, WIDTH], colour, pixels);
        }
    }
}

/// A student that sees the luminance of jittered photographs learns from a teacher that sees their colours.
const EXPERIMENT: &str = r#"
format = 1
name = "across"
device = "cpu"
threads = 1
[dataset]
kind = "paired_folders"
path = "DATA"
size = [16, 16]
classes = 3
block = 1
storage = { kind = "stream", scale = [0.3, 1.0], threads = 2 }
[dataset.views.dim]
steps = [
    { kind = "jitter", brightness = 0.4, hue = 0.1 },
    { kind = "luminance" },
    { kind = "normalise", mean = [50], std = [25] },
]
[teacher.big]
view = "rgb"
model = { kind = "resnet8" }
train = { epochs = 1, batch = 4 }
[student]
view = "dim"
model = { kind = "resnet8" }
[train]
epochs = 3
batch = 4
checkpoint_steps = 1000
[compare]
methods = ["kd"]
"#;

fn limbeck(arguments: &[&str]) -> ExitCode {
    cli::main(std::iter::once("limbeck").chain(arguments.iter().copied()).map(Into::into))
}

/// The student's weights in the runs of a folder.
fn student(runs: &Path) -> Vec<u8> {
    let cells = entries(&runs.join("across/cells"));
    fs::read(cells[0].join(STUDENT)).unwrap()
}

#[test]
fn a_run_from_the_disk_resumes_at_any_step_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    pairs(&data);
    let file = dir.path().join("across.toml");
    fs::write(&file, EXPERIMENT.replace("DATA", data.to_str().unwrap())).unwrap();
    let whole = dir.path().join("whole");
    let run = ["run", file.to_str().unwrap(), "--out"];
    assert_eq!(limbeck(&[&run[..], &[whole.to_str().unwrap()]].concat()), ExitCode::SUCCESS);
    let expected = student(&whole);
    for steps in ["3steps", "4steps"] {
        let out = dir.path().join(steps);
        let all = [&run[..], &[out.to_str().unwrap(), "--stop-after", steps]].concat();
        let mut stopped = 0;
        while limbeck(&all) == ExitCode::from(3) {
            stopped += 1;
            assert!(stopped < 20, "it never ends");
        }
        assert!(stopped >= 3, "stopped {stopped} times");
        assert!(student(&out) == expected, "stopped every {steps}, the student differs");
    }
}

#[test]
fn data_are_verified_and_measured_by_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pairs");
    pairs(&data);
    let path = data.to_str().unwrap();
    let set = ["--set", "size=[20, 24]", "--set", "classes=3", "--set", "block=1"];
    for verb in ["verify", "stats"] {
        let all = [&["data", verb, "paired_folders", "--path", path][..], &set].concat();
        assert_eq!(limbeck(&all), ExitCode::SUCCESS);
    }
    // A byte that changed under the same size and time, as on a disk that loses bits.
    let file = data.join("depth/03.png");
    let (mut bytes, modified) = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    // Damage is what `verify` looks for, also where images stay on the disk; measuring needs sound data, as a plan does.
    for (verb, code) in [("verify", 1), ("stats", 2)] {
        let stream = ["--set", "storage={ kind = 'stream' }"];
        let all = [&["data", verb, "paired_folders", "--path", path][..], &set, &stream].concat();
        assert_eq!(limbeck(&all), ExitCode::from(code), "{verb}");
    }
    for verb in ["verify", "stats"] {
        for kind in ["cifar100", "stl10", "tiny_imagenet", "image_folder", "paired_folders"] {
            assert_eq!(limbeck(&["data", verb, kind, "--path", "nowhere"]), ExitCode::from(2), "{verb} {kind}");
        }
        assert_eq!(limbeck(&["data", verb, "paired_folders", "--set", "siez=3"]), ExitCode::from(2));
    }
    assert_eq!(limbeck(&["data", "verify", "nothing"]), ExitCode::from(2));
    assert_eq!(limbeck(&["data", "fetch", "shapes"]), ExitCode::from(2));
    assert_eq!(limbeck(&["data", "list", "--json"]), ExitCode::SUCCESS);
}

#[test]
fn what_is_measured_is_the_mean_and_the_standard_deviation() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path());
    let set = ["size=[20, 24]", "classes=3", "block=1"].map(str::to_owned).to_vec();
    let arguments = DataArgs { kind: "paired_folders".to_owned(), path: Some(dir.path().to_owned()), set };
    let stats = stats(&arguments).unwrap();
    assert_eq!((stats.train, stats.test, stats.unlabelled), (20, 5, 0));
    assert_eq!(stats.classes.values().copied().collect::<Vec<_>>(), [7, 6, 7]);
    let view = &stats.views[1];
    assert_eq!((view.view.as_str(), view.shape), ("depth", [1, 20, 24]));
    let frames = (0..25).filter(|frame| frame % 5 != 4);
    let values: Vec<f64> = frames.flat_map(depth).map(|byte| f64::from(byte) / 255.0).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    approx::assert_abs_diff_eq!(view.mean[0], mean, epsilon = 1e-6);
    approx::assert_abs_diff_eq!(view.std[0], variance.sqrt(), epsilon = 1e-6);
}
