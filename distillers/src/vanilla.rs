//! `vanilla`: cross-entropy with the labels and nothing else.
//!
//! Not a distillation method but what one is compared with: the same student, data order and schedule, no teacher.

limbeck::plugin! {
    method "vanilla",
    summary: "the labels alone, without a teacher",
    citation: "",
    settings: r#"
cross_entropy = 1.0   # the weight of the cross-entropy with the labels
"#,
    page: include_str!("vanilla.rs"),
}
