//! What methods refuse, and in which words: settings, networks, pairs of taps and data.

use std::path::Path;

use limbeck::config;
use limbeck::dataset::UNLABELLED;
use limbeck::prelude::*;

use crate::fixture::{Fixture, NARROW, WIDE, network};

fn distiller(settings: &str) -> Result<Box<dyn DistillerConfig>> {
    config::parse_as(settings, Path::new("x.toml"), &[])
}

/// Why a method refuses a site.
fn refusal(settings: &str, site: &Site<'_>) -> String {
    let config = distiller(settings).unwrap();
    let params = nn::VarStore::new(Device::Cpu);
    match config.taps(site).and_then(|_| config.build(site, &params.root())) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{settings} was not refused"),
    }
}

/// Settings out of their range, the key of which an error speaks, and what it says.
const OUT_OF_RANGE: [(&str, &str, &str); 29] = [
    ("kind = 'ab'\nmargin = 0", "margin", "must be positive, not 0"),
    ("kind = 'at'\np = -2", "p", "must be positive, not -2"),
    ("kind = 'cc'\nembedding_width = 0", "embedding_width", "must be at least 1, not 0"),
    ("kind = 'crd'\nembedding_width = 0", "embedding_width", "must be in 1..=65536, not 0"),
    ("kind = 'crd'\nbank_momentum = 1.0", "bank_momentum", "must be in 0..1, not 1"),
    ("kind = 'crd'\nbank_momentum = -0.5", "bank_momentum", "must be in 0..1, not -0.5"),
    ("kind = 'crd'\ncritic = { temperature = 0.0, kind = 'nce' }", "critic.temperature", "must be positive, not 0"),
    (
        "kind = 'crd'\ncritic = { kind = 'info_nce', temperature = -1 }",
        "critic.temperature",
        "must be positive, not -1",
    ),
    ("kind = 'crd'\ncritic = { kind = 'bilinear', temperature = 0 }", "critic.temperature", "must be positive, not 0"),
    ("kind = 'crd'\ncritic = { kind = 'mlp', hidden = 0 }", "critic.hidden", "must be in 1..=65536, not 0"),
    ("kind = 'crd'\nnegatives = { kind = 'hardest', count = 0 }", "negatives.count", "must be at least 1, not 0"),
    ("kind = 'crd'\nnegatives = { kind = 'other_class', count = 0 }", "negatives.count", "must be at least 1, not 0"),
    (
        "kind = 'crd'\nnegatives = { kind = 'other_instance', count = 0 }",
        "negatives.count",
        "must be at least 1, not 0",
    ),
    ("kind = 'dist'\ntau = 0.0", "tau", "must be positive, not 0"),
    ("kind = 'dkd'\ntemperature = 0.0", "temperature", "must be positive, not 0"),
    ("kind = 'ft'\nrate = 0.0", "rate", "must be positive, not 0"),
    ("kind = 'ft'\ninitial_learning_rate = 0", "initial_learning_rate", "must be positive, not 0"),
    ("kind = 'itrd'\ncorrelation = 0", "correlation", "must be positive, not 0"),
    ("kind = 'itrd'\nmutual = 0", "mutual", "must be positive, not 0"),
    ("kind = 'itrd'\nalpha = 0", "alpha", "must be positive, not 0"),
    ("kind = 'kd'\ntemperature = 0.0", "temperature", "must be positive, not 0"),
    ("kind = 'kd'\ntemperature = nan", "temperature", "must be positive, not NaN"),
    ("kind = 'lskd'\ntemperature = 0.0", "temperature", "must be positive, not 0"),
    ("kind = 'nkd'\ntemperature = 0.0", "temperature", "must be positive, not 0"),
    ("kind = 'nkd'\ngamma = -1", "gamma", "must be positive, not -1"),
    ("kind = 'rkd'\nangle = -1", "angle", "must not be negative, not -1"),
    ("kind = 'ttm'\nexponent = 0", "exponent", "must be positive, not 0"),
    ("kind = 'vid'\nepsilon = inf", "epsilon", "must be positive, not inf"),
    ("kind = 'wsld'\ntemperature = -4.0", "temperature", "must be positive, not -4"),
];

#[test]
fn settings_out_of_range_are_refused_at_their_key() {
    for (settings, key, message) in OUT_OF_RANGE {
        let error = distiller(settings).unwrap_err().to_string();
        let name = key.rsplit('.').next().unwrap();
        assert!(error.starts_with(&format!("{name} {message}\n")), "{settings}: {error}");
        assert!(error.ends_with(&format!("\n  key: {key}")), "{settings}: {error}");
    }
}

/// Stages of (channels, height).
type Stages = &'static [(i64, i64)];

/// Pairs of output taps, the student's and the teacher's.
type Pairs = &'static [(&'static str, &'static str)];

/// Settings, student, teacher, pairs in place of the method's own, and why that is refused.
const REFUSED: [(&str, Stages, Stages, Pairs, &str); 32] = [
    (
        "kind = 'ab'",
        &NARROW,
        &WIDE,
        &[("stage1", "stage1")],
        "ab compares values before the activation, not `stage1`: write `stage1:pre`",
    ),
    (
        "kind = 'ab'",
        &[(16, 20), (32, 16)],
        &[(32, 32), (64, 16)],
        &[],
        "ab: a map of the student of height 20 cannot become the teacher's of height 32: it must be at least as high, or half \
         as high; pair other taps with `taps`",
    ),
    (
        "kind = 'fitnet'",
        &[(16, 20), (32, 10)],
        &[(32, 32), (64, 16)],
        &[],
        "fitnet: a map of the student of height 10 cannot become the teacher's of height 16: it must be at least as high, or \
         half as high; pair other taps with `taps`",
    ),
    (
        "kind = 'fitnet'\nhint_layer = 9",
        &NARROW,
        &WIDE,
        &[],
        "fitnet: hint_layer 9 does not exist, the student has 0 (stem), 1 (stage1), 2 (stage2), 3 (stage3)",
    ),
    (
        "kind = 'fitnet'",
        &NARROW,
        &WIDE,
        POOLED,
        "fitnet compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    (
        "kind = 'ft'",
        &NARROW,
        &WIDE,
        POOLED,
        "ft compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    ("kind = 'ft'\nrate = 0.001", &NARROW, &WIDE, &[], "ft: a rate of 0.001 leaves none of 128 channels"),
    (
        "kind = 'at'",
        &NARROW,
        &WIDE,
        MAP_AND_POOLED,
        "at compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    (
        "kind = 'fsp'",
        &NARROW,
        &WIDE,
        MAP_AND_POOLED,
        "fsp compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    (
        "kind = 'ickd'",
        &NARROW,
        &WIDE,
        MAP_AND_POOLED,
        "ickd compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    (
        "kind = 'nst'",
        &NARROW,
        &WIDE,
        MAP_AND_POOLED,
        "nst compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    (
        "kind = 'vid'",
        &NARROW,
        &WIDE,
        MAP_AND_POOLED,
        "vid compares maps, but the student's tap `pooled` is a vector: choose a stage",
    ),
    (
        "kind = 'fsp'",
        &NARROW,
        &WIDE,
        &[],
        "fsp needs as many channels on both sides, but the student's `stem` has 16 and the teacher's `stem` 32: choose networks \
         of one width, or other taps with `taps`",
    ),
    (
        "kind = 'kdsvd'",
        &NARROW,
        &WIDE,
        &[],
        "kdsvd needs as many channels on both sides, but the student's `stage1` has 16 and the teacher's `stage1` 32: choose \
         networks of one width, or other taps with `taps`",
    ),
    ("kind = 'kdsvd'\nk = 17", &NARROW, &NARROW, &[], "kdsvd: k must be between 1 and 16, not 17"),
    (
        "kind = 'fsp'",
        &NARROW,
        &NARROW,
        &[("stage1", "stage1")],
        "fsp needs at least two consecutive pairs of taps: name them with `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, \
         TEACHER'S]]`",
    ),
    (
        "kind = 'kdsvd'",
        &NARROW,
        &NARROW,
        &[("stage1", "stage1")],
        "kdsvd needs at least two consecutive pairs of taps: name them with `taps = [[STUDENT'S, TEACHER'S], [STUDENT'S, \
         TEACHER'S]]`",
    ),
    ("kind = 'cc'", &NARROW, &WIDE, TWO_PAIRS, ONE_PAIR),
    ("kind = 'itrd'", &NARROW, &WIDE, TWO_PAIRS, ONE_PAIR),
    ("kind = 'pkt'", &NARROW, &WIDE, TWO_PAIRS, ONE_PAIR),
    ("kind = 'rkd'", &NARROW, &WIDE, TWO_PAIRS, ONE_PAIR),
    (
        "kind = 'rkd'\ndistance = 0\nangle = 0",
        &NARROW,
        &WIDE,
        &[],
        "rkd: distance and angle are both 0: give at least one a weight",
    ),
    (
        "kind = 'vid'\ninitial_variance = 0",
        &NARROW,
        &WIDE,
        &[],
        "vid: initial_variance must be above epsilon (0.00001), not 0",
    ),
    ("kind = 'dist'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'dkd'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'kd'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'lskd'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'nkd'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'ttm'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'wsld'", &NARROW, &WIDE, POOLED, LOGITS_ALONE),
    ("kind = 'sp'", &NARROW, &WIDE, &[("stage4", "stage1")], NO_STAGE4),
    ("kind = 'ft'", &NARROW, &WIDE, &[("stage4", "stage1")], NO_STAGE4),
];

const POOLED: &[(&str, &str)] = &[("pooled", "pooled")];
const MAP_AND_POOLED: &[(&str, &str)] = &[("stage1", "stage1"), ("pooled", "pooled")];
const TWO_PAIRS: &[(&str, &str)] = &[("pooled", "pooled"), ("stage1", "stage1")];
const LOGITS_ALONE: &str = "this method uses the logits alone: remove `taps`";
const ONE_PAIR: &str = "this method takes one pair of taps, not 2: name it with `taps = [[STUDENT'S, TEACHER'S]]`";
const NO_STAGE4: &str = "student: there is no tap `stage4`; the network has stem, stage1, stage2, stage3, pooled";

#[test]
fn networks_and_pairs_that_do_not_fit_are_refused() {
    for (settings, student, teacher, pairs, message) in REFUSED {
        let fixture = Fixture { student: network(student), teacher: network(teacher), labels: vec![0, 1].into() };
        let pairs: Vec<_> = pairs.iter().map(|(s, t)| (TapRef::output(*s), TapRef::output(*t))).collect();
        let configured_pairs = (!pairs.is_empty()).then_some(&pairs[..]);
        let error = refusal(settings, &Site { configured_pairs, ..fixture.site() });
        assert_eq!(error, message, "{settings}");
    }
}

#[test]
fn a_stem_has_no_value_before_the_activation() {
    let stem = [(TapRef::pre_activation("stem"), TapRef::pre_activation("stage1"))];
    let fixture = Fixture { student: network(&NARROW), teacher: network(&WIDE), labels: vec![0, 1].into() };
    assert_eq!(
        refusal("kind = 'ab'", &Site { configured_pairs: Some(&stem), ..fixture.site() }),
        "student: tap `stem` has no pre-activation value; pair taps that have one with `taps` (stage1, stage2, stage3), or \
         take a method that needs none"
    );
}

#[test]
fn methods_of_probabilities_want_as_many_classes_on_both_sides() {
    let mut fixture = Fixture::new(&[0, 1], 4, 4);
    fixture.teacher.classes = 100;
    for kind in ["dist", "dkd", "kd", "lskd", "nkd", "ttm", "wsld"] {
        assert_eq!(
            refusal(&format!("kind = '{kind}'"), &fixture.site()),
            format!("{kind} compares class probabilities, but the student has 2 classes and the teacher 100")
        );
    }
}

#[test]
fn samples_without_label_are_refused() {
    let fixture = Fixture::new(&[0, UNLABELLED, 1, UNLABELLED], 4, 4);
    for (kind, why) in [
        ("dkd", "sets the class of the label apart"),
        ("nkd", "sets the class of the label apart"),
        ("wsld", "weighs a sample by its loss"),
    ] {
        assert_eq!(
            refusal(&format!("kind = '{kind}'"), &fixture.site()),
            format!(
                "{kind} {why}, and 2 of the 4 training samples have no label: leave them out, or take a method that does \
                 without"
            )
        );
    }
}
