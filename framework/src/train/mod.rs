//! Training: a cohort of students, what they are asked and told, and what is left of them.

mod catch;
pub mod checkpoint;
mod clock;
pub mod cohort;
pub mod combination;
mod combined;
mod comparison;
mod config;
mod data;
mod evaluate;
mod file_names;
mod lane;
mod observers;
mod order;
pub mod probe;
mod stage;
mod stop;
mod teacher;
mod term;
