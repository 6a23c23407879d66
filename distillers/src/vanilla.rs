//! `vanilla`: cross-entropy with the labels and nothing else.
//!
//! Not a distillation method but what one is compared with: the same student, data order and schedule, no teacher.

use limbeck::prelude::*;

limbeck::plugin! {
    method "vanilla": MethodConfig::new(1.0),
    summary: "the labels alone, without a teacher",
    citation: "",
    page: include_str!("vanilla.rs"),
}
