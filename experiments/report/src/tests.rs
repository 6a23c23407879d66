//! Reports of hand-made runs. The texts are pinned: `tests/*.md`.

use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use limbeck::experiment::AccuracyChoice;
use limbeck::precision::Precision;
use limbeck::record::{
    Accuracies, Environment, EpochAccuracy, EpochRecord, Outcome, SIMILARITY_FORMAT, SUMMARY_FORMAT, Similarity,
    Summary, TapSimilarity, TeacherRecord, TeacherSimilarity, Timing,
};
use limbeck::task::{ClassScore, Classification, Metrics};
use limbeck::{cohort, weights};
use tch::Tensor;

use super::*;
use crate::store::{self, CellEntry, PlanFile};

const EXPERIMENT: &str = r#"
format = 1
name = "shapes-demo"
validation = 200
[dataset]
kind = "shapes"
[teacher.big]
model = { kind = "resnet56" }
weights = "big.safetensors"
[student]
model = { kind = "resnet8" }
[train]
epochs = 2
batch = 32
learning_rate = 0.1
warmup_epochs = 0.5
schedule = { kind = "cosine" }
optimizer = { kind = "sgd", momentum = 0.9, nesterov = true, weight_decay = 0.0005 }
[method.plain]
[method.soft]
cross_entropy = 0.5
[method.contrast]
[compare]
methods = ["plain", "soft", "contrast"]
seeds = [0, 1, 2]
"#;

fn accuracy(top1: f64) -> Metrics {
    Metrics::new(&Classification, &[top1, top1 + 20.0, 1.5]).unwrap()
}

fn epoch(method: &str, seed: u64, epoch: u64, top1: f64) -> EpochRecord {
    let mut train = IndexMap::from([("loss".to_owned(), 2.0 / epoch as f64), ("cross_entropy".to_owned(), 1.25)]);
    if method == "contrast" {
        train.insert("contrast.big.mutual_information".to_owned(), 3.0 + epoch as f64 + seed as f64);
    }
    EpochRecord {
        stage: "main".to_owned(),
        epoch,
        step: 100 * epoch,
        learning_rate: 0.05,
        train,
        train_top1: Some(55.5),
        validation: Some(accuracy(top1 - 1.0)),
        test: Some(accuracy(top1)),
        seconds: 30.5,
    }
}

fn summary(method: &str, seed: u64, last: f64) -> Summary {
    let best = EpochAccuracy { epoch: 1, test: accuracy(last + 0.5) };
    Summary {
        format: SUMMARY_FORMAT,
        method: method.to_owned(),
        seed,
        dataset: "Shapes".to_owned(),
        samples: [3800, 200, 2000].into(),
        student: "resnet8".to_owned(),
        precision: Precision::Float32,
        averaged: false,
        view: "image".to_owned(),
        teachers: vec![TeacherRecord {
            name: "big".to_owned(),
            model: "resnet56".to_owned(),
            view: "image".to_owned(),
            weights: "big.safetensors".into(),
            digest: "00ff".to_owned(),
            parameters: 855_770,
            precision: Precision::Float32,
            folded: false,
            test: Some(accuracy(72.0)),
            members: Vec::new(),
        }],
        ensemble: None,
        outcome: Outcome::Finished,
        accuracy: Some(Accuracies { last: accuracy(last), best_on_validation: Some(best), best_on_test: best }),
        epochs: 2,
        history: vec![epoch(method, seed, 1, last + 0.5), epoch(method, seed, 2, last)],
        student_parameters: 78_042,
        student_multiply_adds: Some(12_502_272),
        method_parameters: if method == "contrast" { 41_088 } else { 0 },
        timing: Timing { steps: 8, data: 0.001, teacher: 0.02, student: 0.03, loss: 0.0045, optimizer: 0.0005 },
        seconds: 61.0 + seed as f64,
        peak_memory: Some(900 << 20),
        lanes: 3,
        environment: Environment {
            limbeck: "0.1.0".to_owned(),
            git: Some("abc1234".to_owned()),
            libtorch: "2.11.0".to_owned(),
            device: "cpu".to_owned(),
            device_name: "Some CPU".to_owned(),
            threads: 2,
        },
    }
}

/// An experiment's folder with the given runs; cells are planned for all of `seeds`.
fn folder(experiment: &str, methods: &[&str], seeds: &[u64], summaries: &[Summary]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), experiment, methods, seeds, summaries);
    dir
}

/// The same in a folder that is there.
fn fill(dir: &Path, experiment: &str, methods: &[&str], seeds: &[u64], summaries: &[Summary]) {
    fs::write(dir.join(store::EXPERIMENT), experiment).unwrap();
    let mut cells = Vec::new();
    for method in methods {
        for seed in seeds {
            cells.push(CellEntry {
                method: (*method).to_owned(),
                seed: *seed,
                folder: format!("cells/{method}-seed{seed}").into(),
            });
        }
    }
    store::write_json(&dir.join(store::PLAN), &PlanFile { format: 1, cells, probes: Vec::new() }).unwrap();
    for summary in summaries {
        let cell = dir.join(format!("cells/{}-seed{}", summary.method, summary.seed));
        fs::create_dir_all(&cell).unwrap();
        store::write_json(&cell.join(cohort::SUMMARY), summary).unwrap();
    }
}

/// Two classes and two taps on either side, all numbers moved by the seed.
fn similarity(seed: u64) -> Similarity {
    let moved = seed as f64;
    Similarity {
        format: SIMILARITY_FORMAT,
        calibration_error: Some(4.0 + moved),
        classes: vec![ClassScore::counted("circle", 20, 10 + seed as usize), ClassScore::counted("<square>", 20, 14)],
        teachers: vec![TeacherSimilarity {
            name: "big".to_owned(),
            digest: "00ff".to_owned(),
            calibration_error: Some(2.5),
            agreement: Some(60.0 + moved),
            divergence: Some(0.75),
            correlation_difference: 0.25,
            taps: vec![
                tap("stem", "stem", Some(0.75)),
                tap("stem", "pooled", Some(0.25)),
                tap("pooled", "stem", None),
                tap("pooled", "pooled", Some(0.5)),
            ],
        }],
    }
}

fn tap(student: &str, teacher: &str, alignment: Option<f64>) -> TapSimilarity {
    TapSimilarity { student: student.to_owned(), teacher: teacher.to_owned(), alignment }
}

/// Adds what the students have in common with the teacher.
fn with_similarity(dir: tempfile::TempDir) -> tempfile::TempDir {
    for method in METHODS {
        for seed in 0..3 {
            let cell = dir.path().join(format!("cells/{method}-seed{seed}"));
            store::write_json(&cell.join(cohort::SIMILARITY), &similarity(seed)).unwrap();
            let matrices = [("student", 0.5), ("teacher.big", 0.25 * seed as f32)]
                .map(|(name, off)| (name.to_owned(), Tensor::from_slice2(&[[1.0, off], [off, 1.0]])));
            weights::save(&cell.join(cohort::CORRELATIONS), &matrices, None).unwrap();
        }
    }
    dir
}

const METHODS: [&str; 3] = ["plain", "soft", "contrast"];

fn complete() -> tempfile::TempDir {
    let top1 = [("plain", [60.0, 61.0, 62.0]), ("soft", [61.5, 61.5, 63.0]), ("contrast", [62.0, 62.0, 62.0])];
    let summaries: Vec<Summary> = top1
        .into_iter()
        .flat_map(|(method, values)| (0..).zip(values).map(move |(seed, value)| summary(method, seed, value)))
        .collect();
    with_similarity(folder(EXPERIMENT, &METHODS, &[0, 1, 2], &summaries))
}

/// The report as Markdown.
fn written(dir: &Path, options: &Options) -> String {
    let report = write(&[dir.to_owned()], options).unwrap();
    fs::read_to_string(report.folder.join("report.md")).unwrap()
}

/// The lines of a CSV file of a report without its title.
fn rows(dir: &Path, name: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join("report").join(name)).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

/// Compares with a pinned text; `LIMBECK_PIN=1` writes it anew, to be read before it is committed.
fn pinned(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests").join(name);
    if std::env::var_os("LIMBECK_PIN").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "{name}");
}

#[test]
fn a_complete_comparison() {
    let dir = complete();
    pinned("complete.md", &written(dir.path(), &Options::default()));
    // Differences by hand: soft − plain = 1.5, 0.5, 1.0; contrast − plain = 2, 1, 0.
    assert_eq!(
        rows(dir.path(), "comparison.csv"),
        [
            "shapes-demo,plain,last,3,3,61,1,81,1,plain,,,,big,-11,".to_owned(),
            format!("shapes-demo,soft,last,3,3,62,{0},82,{0},plain,1,0.5,3,big,-10,", 0.75f64.sqrt()),
            "shapes-demo,contrast,last,3,3,62,0,82,0,plain,1,1,3,big,-10,".to_owned(),
        ]
    );
    pinned("summary.md", &fs::read_to_string(dir.path().join("report/summary.md")).unwrap());
}

#[test]
fn what_students_took_from_teachers() {
    let dir = complete();
    written(dir.path(), &Options::default());
    assert_eq!(rows(dir.path(), "similarity.csv")[1], "shapes-demo,plain,1,big,61,0.75,5,2.5,0.25");
    assert_eq!(
        rows(dir.path(), "alignment.csv")[1..3],
        ["shapes-demo,plain,big,stem,pooled,0.25", "shapes-demo,plain,big,pooled,stem,"]
    );
    // |0.5 − 0|, |0.5 − 0.25| and 0, on average.
    assert_eq!(rows(dir.path(), "correlations.csv")[0], "shapes-demo,plain,big,circle,<square>,0.25");
    // 10, 11 and 12 of 20.
    assert_eq!(rows(dir.path(), "classes.csv")[..2], ["shapes-demo,plain,circle,55", "shapes-demo,plain,<square>,70"]);
    // A class that no test sample of the baseline has is nowhere in its rows, and in no difference.
    for seed in 0..3 {
        let mut other = similarity(seed);
        (other.classes[0].samples, other.classes[0].right) = (0, Some(0));
        store::write_json(&dir.path().join(format!("cells/plain-seed{seed}")).join(cohort::SIMILARITY), &other)
            .unwrap();
    }
    written(dir.path(), &Options::default());
    assert_eq!(rows(dir.path(), "classes.csv")[..2], ["shapes-demo,plain,<square>,70", "shapes-demo,soft,circle,55"]);
    let page = fs::read_to_string(dir.path().join("report/report.html")).unwrap();
    let bars = page.split("<svg ").find(|svg| svg.contains("by class, soft minus plain")).unwrap();
    let bars = bars.split("</svg>").next().unwrap();
    assert!(bars.contains("square") && !bars.contains("circle:"), "{bars}");
    // Measured with other weights of the teacher, it is of no use.
    let cell = dir.path().join("cells/plain-seed1");
    let mut other = similarity(1);
    other.teachers[0].digest = "beef".to_owned();
    store::write_json(&cell.join(cohort::SIMILARITY), &other).unwrap();
    written(dir.path(), &Options::default());
    assert_eq!(rows(dir.path(), "similarity.csv")[1], "shapes-demo,plain,2,big,62,0.75,6,2.5,0.25");
}

/// Writes the report of a folder; its files by name, sorted.
fn report_files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let report = write(&[dir.to_owned()], &Options { tensorboard: true, ..Options::default() }).unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(report.folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            files.push((path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn a_report_made_twice_is_the_same() {
    let dir = complete();
    let first = report_files(dir.path());
    assert_eq!(
        first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        [
            "alignment.csv",
            "classes.csv",
            "comparison.csv",
            "correlations.csv",
            "curves.csv",
            "differences.csv",
            "relative.csv",
            "report.html",
            "report.md",
            "report.tex",
            "runs.csv",
            "similarity.csv",
            "summary.md"
        ]
    );
    fs::remove_dir_all(dir.path().join("report")).unwrap();
    assert_eq!(report_files(dir.path()), first);
}

/// The published pair ResNet-56 → ResNet-20 with CIFAR-100's name, and another pair. The methods have published names, but
/// `crd` is another method.
fn two_pairs() -> [tempfile::TempDir; 2] {
    two_pairs_of("image")
}

fn two_pairs_of(view: &str) -> [tempfile::TempDir; 2] {
    [
        pair(view, "first", ["resnet56", "resnet20"], [[69.0, 69.1, 69.2], [70.6, 70.7, 70.8], [71.15, 71.25, 71.32]]),
        pair(view, "second", ["resnet14", "resnet8"], [[60.0, 60.1, 60.2], [60.4, 60.6, 60.5], [62.4, 61.5, 62.7]]),
    ]
}

/// The runs of a pair of networks, teacher and student: three methods with three seeds each.
fn pair(view: &str, name: &str, [teacher, student]: [&str; 2], top1: [[f64; 3]; 3]) -> tempfile::TempDir {
    let mut summaries = Vec::new();
    for (method, values) in ["none", "kd", "crd"].into_iter().zip(top1) {
        for (seed, value) in (0..).zip(values) {
            let mut summary = summary(method, seed, value);
            summary.dataset = "CIFAR-100".to_owned();
            summary.view = view.to_owned();
            summary.student = student.to_owned();
            summary.teachers[0].model = teacher.to_owned();
            summaries.push(summary);
        }
    }
    let experiment = EXPERIMENT
        .replace(
            "[method.plain]\n[method.soft]\ncross_entropy = 0.5\n[method.contrast]",
            "[method.none]\n[method.crd]\nterms = [{ weight = 1.0, distiller = { kind = \"kd\" } }]",
        )
        .replace("[\"plain\", \"soft\", \"contrast\"]", "[\"none\", \"kd\", \"crd\"]")
        .replace("\"resnet56\"", &format!("\"{teacher}\""))
        .replace("\"resnet8\"", &format!("\"{student}\""))
        .replace("shapes-demo", name);
    folder(&experiment, &["none", "kd", "crd"], &[0, 1, 2], &summaries)
}

#[test]
fn pairs_side_by_side() {
    let dirs = two_pairs();
    let out = tempfile::tempdir().unwrap();
    let folders: Vec<PathBuf> = dirs.iter().map(|dir| dir.path().to_owned()).collect();
    let options = Options { baseline: Some("kd".to_owned()), ..Options::default() };
    let error = write(&folders, &options).unwrap_err();
    assert!(error.is_usage());
    assert_eq!(error.to_string(), "a report of several experiments needs a folder: name one with --out");
    let options = Options { out: Some(out.path().to_owned()), ..options };
    let report = write(&folders, &options).unwrap();
    assert_eq!(report.path, out.path().join("report.html"));
    pinned("pairs.md", &fs::read_to_string(out.path().join("report.md")).unwrap());
    pinned("pairs.tex", &fs::read_to_string(out.path().join("report.tex")).unwrap());
    let page = fs::read_to_string(&report.path).unwrap();
    // `crd` is another method here than the published one.
    assert!(page.contains("<td class=\"number second\" data-value=\"70.7\">70.70 ± 0.10 (70.66)</td>"), "{page}");
    assert!(page.contains("<td class=\"number best\" data-value=\"71.24\">71.24 ± 0.09</td>"), "{page}");
    // (71.24 − 70.7) / (70.7 − 69.1) and (62.2 − 60.5) / (60.5 − 60.1); the second denominator is below a point.
    let relative = fs::read_to_string(out.path().join("relative.csv")).unwrap();
    let row: Vec<&str> = relative.lines().find(|line| line.starts_with("crd,kd,2,2,")).unwrap().split(',').collect();
    let numbers: Vec<f64> = row[4..].iter().map(|cell| cell.parse().unwrap()).collect();
    for (found, expected) in numbers.iter().zip([229.375, 229.375, 1.12, 1.0]) {
        approx::assert_relative_eq!(*found, expected, max_relative = 1e-9);
    }
}

#[test]
fn what_was_published_is_of_its_views() {
    let [first, _] = two_pairs_of("ab");
    assert!(!written(first.path(), &Options::default()).contains("ublished"));
}

#[test]
fn a_pair_that_stands_twice_is_no_second_pair() {
    let (one, again) = (two_pairs(), two_pairs());
    let out = tempfile::tempdir().unwrap();
    let options = Options { out: Some(out.path().to_owned()), ..Options::default() };
    let twice = [&one[0], &one[1], &one[0]].map(|dir| dir.path().to_owned());
    let error = write(&twice, &options).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is given twice", one[0].path().display()));
    write(&[&one[0], &one[1], &again[0]].map(|dir| dir.path().to_owned()), &options).unwrap();
    let text = fs::read_to_string(out.path().join("report.md")).unwrap();
    let ranks = text.split("### Ranks over pairs\n").nth(1).unwrap().split("\n#").next().unwrap();
    assert_eq!(
        ranks.split_whitespace().collect::<Vec<_>>().join(" "),
        "Ranks and relative improvements are averages over pairs of networks. Here a pair stands more than once, with other \
         settings, so there are none: its studies are no independent evidence."
    );
    assert!(!out.path().join("ranks.csv").exists() && !text.contains("Relative improvement"));
    // Two studies of one name are told apart by their folders.
    assert!(text.contains(&format!("### first ({})", one[0].path().display())), "{text}");
}

/// A sweep over these axes, the last fastest. At each point `plain` has 60 % and `soft` 60 + 2 · (its number) ± 1 %, of two
/// seeds; `change` makes the experiment of a point.
fn sweep(axes: &[(&str, &[&str])], change: impl Fn(&IndexMap<String, String>) -> String) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut places = vec![IndexMap::new()];
    for (axis, values) in axes {
        let mut more = Vec::new();
        for place in &places {
            for value in *values {
                let mut place: IndexMap<String, String> = place.clone();
                place.insert((*axis).to_owned(), (*value).to_owned());
                more.push(place);
            }
        }
        places = more;
    }
    let mut points = Vec::new();
    for (number, at) in places.into_iter().enumerate() {
        let label = at.values().cloned().collect::<Vec<_>>().join(", ");
        let folder = Path::new("points").join(number.to_string());
        fs::create_dir_all(dir.path().join(&folder)).unwrap();
        let top1 = 60.0 + 2.0 * number as f64;
        let summaries = [("plain", 60.0, 0), ("plain", 60.0, 1), ("soft", top1 - 1.0, 0), ("soft", top1 + 1.0, 1)];
        let summaries = summaries.map(|(method, top1, seed)| summary(method, seed, top1));
        fill(&dir.path().join(&folder), &change(&at), &METHODS[..2], &[0, 1], &summaries);
        points.push(store::PointEntry { label, at, folder });
    }
    let axes = axes.iter().map(|(axis, values)| ((*axis).to_owned(), values.iter().map(|v| (*v).to_owned()).collect()));
    let file = store::SweepFile { format: 1, name: "settings".to_owned(), axes: axes.collect(), points };
    store::write_json(&dir.path().join(store::SWEEP), &file).unwrap();
    dir
}

fn two_seeds(experiment: &str) -> String {
    experiment.replace("seeds = [0, 1, 2]", "seeds = [0, 1]").replace(", \"contrast\"", "")
}

#[test]
fn a_setting_is_drawn_with_the_others_held() {
    let axes: [(&str, &[&str]); 2] = [("critic", &["nce", "mlp"]), ("count", &["256", "16", "4096"])];
    let dir = sweep(&axes, |_| two_seeds(EXPERIMENT));
    // An earlier report had ranks.
    fs::create_dir(dir.path().join("report")).unwrap();
    fs::write(dir.path().join("report/ranks.csv"), "").unwrap();
    let text = written(dir.path(), &Options::default());
    let section = text.split("\n## Ablations\n").nth(1).unwrap().split("\n## ").next().unwrap();
    pinned("ablations.md", section);
    assert_eq!(
        rows(dir.path(), "ablations.csv")[..4],
        [
            "settings,critic,nce,count = 256,plain,2,60,0".to_owned(),
            format!("settings,critic,nce,count = 256,soft,2,60,{}", 2f64.sqrt()),
            "settings,critic,mlp,count = 256,plain,2,60,0".to_owned(),
            format!("settings,critic,mlp,count = 256,soft,2,66,{}", 2f64.sqrt()),
        ]
    );
    assert_eq!(rows(dir.path(), "ablations.csv").len(), 2 * 6 * 2);
    // Three pictures by critic, two by count; in the latter 16 stands left of 256, and both lines have three points.
    let page = fs::read_to_string(dir.path().join("report/report.html")).unwrap();
    let pictures: Vec<&str> = page.split("<svg ").filter(|svg| svg.contains("settings: top-1 by ")).collect();
    assert_eq!(pictures.len(), 5);
    let by_count = pictures[3];
    assert!(by_count.contains("<title>settings: top-1 by count, critic = nce</title>"), "{by_count}");
    let [low, middle, high] = ["16", "256", "4096"].map(|name| -> f64 {
        let before = by_count.split(&format!(" text-anchor=\"middle\">{name}<")).next().unwrap();
        before.rsplit("x=\"").next().unwrap().split('"').next().unwrap().parse().unwrap()
    });
    assert!(low < middle && (middle - (low + high) / 2.0).abs() < 0.1);
    assert_eq!((by_count.matches("<circle").count(), by_count.matches("class=\"band").count()), (6, 1));
    assert!(by_count.contains("soft, 4096: 64.000 ± 1.414"), "{by_count}");
    // One pair of networks has no ranks or relative improvements over pairs, and its points are not called pairs.
    assert!(!["Ranks over pairs", "Relative improvement", "| pair "].iter().any(|part| text.contains(part)), "{text}");
    assert!(!["ranks.csv", "relative.csv"].iter().any(|name| dir.path().join("report").join(name).exists()));
}

#[test]
fn networks_are_no_setting() {
    let axes: [(&str, &[&str]); 2] = [("pair", &["small", "smaller"]), ("temperature", &["1.0", "4.0"])];
    let dir = sweep(&axes, |at| {
        let student = if at["pair"] == "small" { "resnet14" } else { "resnet8" };
        two_seeds(&EXPERIMENT.replace("\"resnet8\"", &format!("\"{student}\"")))
    });
    let text = written(dir.path(), &Options::default());
    let section = text.split("\n## Ablations\n").nth(1).unwrap().split("\n## ").next().unwrap();
    assert!(section.contains("\n### temperature\n") && !section.contains("### pair"), "{section}");
    assert!(section.contains("Drawn from ablations.csv: pair = small; pair = smaller."), "{section}");
    assert_eq!(rows(dir.path(), "ablations.csv").len(), 4 * 2);
    // One experiment has nothing to be drawn.
    assert!(!written(complete().path(), &Options::default()).contains("Ablations"));
}

/// With two more teachers: another network, and both together.
fn with_others(mut summary: Summary) -> Summary {
    let first = summary.teachers[0].clone();
    let other = TeacherRecord { name: "odd".to_owned(), digest: "01".to_owned(), test: None, ..first.clone() };
    let own = vec![first.digest.clone(), other.digest.clone()];
    let model = "mean_logits of big (3), odd (1)".to_owned();
    let members = vec!["big".to_owned(), "odd".to_owned()];
    let test = Some(accuracy(73.5));
    let both = TeacherRecord {
        name: "both".to_owned(),
        digest: "02".to_owned(),
        model,
        test,
        members: members.clone(),
        ..first
    };
    summary.teachers.extend([other, both]);
    summary.ensemble = Some(limbeck::record::Ensemble { teachers: members, digests: own, test: accuracy(73.25) });
    summary
}

#[test]
fn several_teachers_are_listed_one_by_one_and_together() {
    let summaries = [summary("plain", 0, 60.0), summary("soft", 0, 61.0)].map(with_others);
    let teachers = "[teacher.odd]\nmodel = { kind = \"resnet56\" }\nweights = \"odd.safetensors\"\n[teacher.both]\n\
                    combine = { kind = \"mean_logits\", teachers = [\"big\", \"odd\"], weights = [3, 1] }\n[student]";
    let experiment = two_seeds(EXPERIMENT).replace("[student]", teachers);
    let dir = folder(&experiment, &METHODS[..2], &[0], &summaries);
    let text = written(dir.path(), &Options::default());
    for line in [
        "\nTeachers, on the test split:\n",
        "\n| big                  | resnet56                        | 72.00 | 92.00 |\n",
        "\n| odd                  | resnet56                        |     – |     – |\n",
        "\n| both                 | mean_logits of big (3), odd (1) | 73.50 | 93.50 |\n",
        "\n| ensemble of big, odd | mean of their probabilities     | 73.25 | 93.25 |\n",
        "to teacher both",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(
        rows(dir.path(), "teachers.csv"),
        [
            "shapes-demo,big,resnet56,,72,92,1.5",
            "shapes-demo,odd,resnet56,,,,",
            "shapes-demo,both,\"mean_logits of big (3), odd (1)\",big odd,73.5,93.5,1.5",
            "shapes-demo,ensemble,mean_probabilities,big odd,73.25,93.25,1.5",
        ]
    );
    // A student that asks no teacher may have sat beside those of another experiment, of the same names.
    let [mut first, second] = summaries;
    let ensemble = first.ensemble.as_mut().unwrap();
    (ensemble.digests[1], ensemble.test) = ("03".to_owned(), accuracy(99.0));
    let dir = folder(&experiment, &METHODS[..2], &[0], &[first, second]);
    let text = written(dir.path(), &Options::default());
    assert!(text.contains(" 73.25 | 93.25 |\n") && !text.contains("99.00"), "{text}");
    // The networks are those of the pair; how they are combined is no third one.
    assert!(!rows(dir.path(), "comparison.csv").is_empty() && !text.contains("→ resnet8 + "), "{text}");
}

#[test]
fn one_format_alone_points_to_no_other_file() {
    let dir = complete();
    let options = Options { formats: vec![Format::Html], ..Options::default() };
    let report = write(&[dir.path().to_owned()], &options).unwrap();
    assert_eq!(fs::read_dir(&report.folder).unwrap().count(), 1);
    let page = fs::read_to_string(report.path).unwrap();
    assert!(!page.contains(".csv"), "{page}");
    assert!(page.contains("&lt;square&gt;") && !page.contains("<square>"), "{page}");
    // Every picture has a name, every table a caption, and every line of the navigation a place.
    assert_eq!(page.matches("<svg viewBox").count(), page.matches("role=\"img\" aria-label=\"").count());
    assert_eq!(page.matches("<table>").count(), page.matches("<caption").count());
    for anchor in page.split("<a href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("<h2 id=\"{anchor}\"")), "{anchor}");
    }
}

#[test]
fn missing_failed_and_damaged_runs_are_listed() {
    let mut broken = summary("soft", 1, 0.0);
    broken.outcome = Outcome::Failed { reason: "loss is nan at step 120, term soft | kd".to_owned(), checkpoint: None };
    broken.accuracy = None;
    let mut later = summary("soft", 2, 60.0);
    later.format = 9;
    let summaries = [summary("plain", 0, 60.0), summary("plain", 1, 61.0), summary("soft", 0, 62.5), broken, later];
    let dir = folder(EXPERIMENT, &METHODS[..2], &[0, 1, 2], &summaries);
    pinned("incomplete.md", &written(dir.path(), &Options::default()));
    let runs = fs::read_to_string(dir.path().join("report/runs.csv")).unwrap();
    assert_eq!(runs.lines().count(), 1 + 9);
    assert!(
        runs.contains("shapes-demo,soft,1,failed,\"loss is nan at step 120, term soft | kd\",cells/soft-seed1,,,,"),
        "{runs}"
    );
    let columns = runs.lines().next().unwrap().split(',').count();
    assert!(runs.lines().filter(|line| !line.contains('"')).all(|line| line.split(',').count() == columns), "{runs}");
    // A failed run's epochs are in the curves.
    let curves = fs::read_to_string(dir.path().join("report/curves.csv")).unwrap();
    assert_eq!(curves.lines().filter(|line| line.starts_with("shapes-demo,soft,1,main,")).count(), 2);
}

#[test]
fn one_seed_has_no_deviation_and_establishes_nothing() {
    let experiment = EXPERIMENT.replace("seeds = [0, 1, 2]", "seeds = [0]");
    let summaries =
        [("plain", 60.0), ("soft", 61.25), ("contrast", 61.25)].map(|(method, top1)| summary(method, 0, top1));
    let dir = folder(&experiment, &METHODS, &[0], &summaries);
    pinned("one-seed.md", &written(dir.path(), &Options::default()));
}

#[test]
fn a_part_of_the_data_taps_of_choice_and_a_teacher_that_is_a_student_are_said() {
    let train = EXPERIMENT.split("[train]\n").nth(1).unwrap().split("[method").next().unwrap();
    let taps =
        "terms = [{ distiller = { kind = \"at\" }, taps = [[\"stage1\", \"stage2\"], [\"stage2\", \"stage3\"]] }]";
    let experiment = EXPERIMENT
        .replace("validation = 200", "validation = 200\ntrain_samples = 500")
        .replace("resnet56", "resnet8")
        .replace("weights = \"big.safetensors\"", &format!("[teacher.big.train]\n{train}"))
        .replace("cross_entropy = 0.5", &format!("cross_entropy = 0.5\n{taps}"));
    let dir = folder(&experiment, &METHODS, &[0], &[summary("plain", 0, 60.0), summary("soft", 0, 61.0)]);
    let text = written(dir.path(), &Options::default());
    for words in [
        "training samples (a part of them, each class by its share), ",
        "0.5 cross-entropy + 1 at (p = 2.0) at student — teacher stage1 — stage2, stage2 — stage3",
        "Note that the teacher `big` and the student of `plain` with seed 0 are the same network with the same weights: ",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let apart = folder(&experiment.replace("seeds = [0, 1, 2]", "seeds = [1]"), &METHODS, &[1], &[]);
    assert!(!written(apart.path(), &Options::default()).contains("are the same network"));
}

#[test]
fn nothing_has_run_yet() {
    let dir = folder(EXPERIMENT, &METHODS, &[0, 1, 2], &[]);
    let text = written(dir.path(), &Options::default());
    assert!(text.contains("\nNo run has ended yet.\n"), "{text}");
    assert!(!text.contains("Bold"), "{text}");
    assert_eq!(text.matches("| missing | it has not ended; run the experiment again and it goes on |").count(), 9);
}

#[test]
fn curves_have_every_metric_of_every_run() {
    let dir = complete();
    written(dir.path(), &Options::default());
    let curves = fs::read_to_string(dir.path().join("report/curves.csv")).unwrap();
    let lines: Vec<&str> = curves.lines().collect();
    assert_eq!(lines.len(), 1 + 9 * 2);
    assert_eq!(
        lines[0],
        "experiment,method,seed,stage,epoch,step,learning_rate,seconds,train_top1,validation_top1,validation_top5,validation_loss,\
         test_top1,test_top5,test_loss,train.loss,train.cross_entropy,train.contrast.big.mutual_information"
    );
    assert_eq!(lines[1], "shapes-demo,plain,0,main,1,100,0.05,30.5,55.5,59.5,79.5,1.5,60.5,80.5,1.5,2,1.25,");
    assert_eq!(lines[18], "shapes-demo,contrast,2,main,2,200,0.05,30.5,55.5,61,81,1.5,62,82,1.5,1,1.25,7");
}

#[test]
fn options_override_the_experiment() {
    let dir = complete();
    let options =
        Options { baseline: Some("soft".to_owned()), accuracy: Some(AccuracyChoice::BestOnTest), ..Options::default() };
    let text = written(dir.path(), &options);
    assert!(
        text.replace('\n', " ")
            .contains("Shown: best test accuracy of any epoch (chosen on the test set, hence optimistic), in percent."),
        "{text}"
    );
    assert!(text.contains(" |      to soft | common | to teacher big |"), "{text}");
    assert!(text.contains("| plain    |     3 |   _61.50 ± 1.00_ | 81.50 ± 1.00 | -1.00 ± 0.50 |      3 |"), "{text}");

    for (baseline, hint) in [("sofd", "did you mean `soft`?"), ("something", "it compares plain, soft, contrast")] {
        let options = Options { baseline: Some(baseline.to_owned()), ..Options::default() };
        let error = write(&[dir.path().to_owned()], &options).unwrap_err();
        assert!(error.is_usage());
        assert_eq!(
            error.to_string(),
            format!("the baseline `{baseline}` is not among the methods of this experiment: {hint}")
        );
    }
}

#[test]
fn best_on_validation_needs_a_validation_split() {
    let dir = folder(&EXPERIMENT.replace("validation = 200", ""), &METHODS, &[0, 1, 2], &[]);
    let options = Options { accuracy: Some(AccuracyChoice::BestOnValidation), ..Options::default() };
    assert_eq!(
        write(&[dir.path().to_owned()], &options).unwrap_err().to_string(),
        "the accuracy best_on_validation needs samples that were held out, and this experiment has `validation = 0`"
    );
}

#[test]
fn a_folder_without_an_experiment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = write(&[dir.path().to_owned()], &Options::default()).unwrap_err();
    assert!(error.is_usage());
    assert!(error.to_string().ends_with("give the folder that `limbeck run` wrote, runs/NAME"), "{error}");
    assert!(!dir.path().join("report").exists());
}
