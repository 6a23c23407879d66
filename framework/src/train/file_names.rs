//! The files of a run folder.

/// The student's weights in a run folder, once the run is finished.
pub const STUDENT: &str = "student.safetensors";
/// What the finished student is like beside the teachers: [`Similarity`](crate::record::Similarity).
pub const SIMILARITY: &str = "similarity.json";
/// Correlations of the classes' logits over the test split, `[C, C]`, float32: `student`, and `teacher.NAME` for each teacher.
pub const CORRELATIONS: &str = "correlations.safetensors";
/// What a run says of itself, once it has ended.
pub const SUMMARY: &str = "summary.json";
