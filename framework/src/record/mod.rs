//! What a run leaves behind: numbers with names, written as JSON and read again by reports.

mod probe;
mod run;
mod samples;
mod similarity;
mod teacher;

pub use probe::{PROBE_FORMAT, ProbeRecord, ProbedNetwork};
pub use run::{Accuracies, Environment, EpochAccuracy, EpochRecord, Outcome, SUMMARY_FORMAT, Summary, Timing};
pub use samples::{ProbeSampleCounts, SampleCounts};
pub use similarity::{SIMILARITY_FORMAT, Similarity, TapSimilarity, TeacherSimilarity};
pub use teacher::{Ensemble, TeacherRecord};
