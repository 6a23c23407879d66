//! Data sets for [Limbeck](limbeck): resident on the device, augmented by the batch.
//!
//! | kind | what | where |
//! |---|---|---|
//! | `cifar100` | CIFAR-100 from its official binary archive | [`cifar100`] |
//! | `shapes` | 20 classes of drawn shapes; nothing to download | [`shapes`] |
//!
//! # Adding a data set
//! Write one file. Give the configuration a struct with `deny_unknown_fields`, register it with `limbeck::plugin!`, and
//! let `build` fill an [`ImageSet`](resident::ImageSet): it keeps the pixels on the device, crops, mirrors and
//! normalises them there, and implements [`Dataset`](limbeck::dataset::Dataset). Only data that do not fit into memory,
//! or samples that are no images, need an implementation of their own.

mod archive;
mod cifar;
pub mod cifar10;
pub mod cifar100;
pub mod fetch;
pub mod image_set;
mod pickle;
pub mod resident;
pub mod shapes;
pub mod views;

pub use cifar10::Cifar10;
pub use cifar100::Cifar100;
pub use shapes::Shapes;

#[cfg(test)]
mod tests {
    use limbeck::registry::{self, Role};

    #[test]
    fn every_data_set_is_registered_with_its_defaults() {
        registry::check().unwrap();
        let names: Vec<&str> = registry::plugins_of(Role::Dataset).iter().map(|plugin| plugin.name).collect();
        assert_eq!(names, ["cifar10", "cifar100", "shapes"]);
    }
}
