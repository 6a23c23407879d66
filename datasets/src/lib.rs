//! Data sets for [Limbeck](limbeck): resident on the device or streamed from the disk, augmented by the batch.
//!
//! | kind | what | where |
//! |---|---|---|
//! | `cifar10`, `cifar100` | from the official binary or Python archives | [`cifar10`], [`cifar100`] |
//! | `stl10` | STL-10 from its official binary archive, with its images without labels | [`stl10`] |
//! | `tiny_imagenet` | Tiny ImageNet in its official layout | [`tiny_imagenet`] |
//! | `image_folder` | folders of images in the layout of ImageNet | [`image_folder`] |
//! | `paired_folders` | aligned images by file name: NYU-Depth and its like | [`paired_folders`] |
//! | `shapes` | 20 classes of drawn shapes; nothing to download | [`shapes`] |
//!
//! Every data set has [`views`], by name: pipelines over the same crops. [`fetch`] gets those that are published.
//!
//! # Adding a data set
//! Write one file. Give the configuration a struct with `#[derive(Settings)]`, register it with `limbeck::plugin!`, and
//! let `build` put together an [`ImageSet`](image_set::ImageSet) of pixels and labels:
//! [`Resident`](resident::Resident) keeps pixels on the device and crops and mirrors them there; other places implement
//! [`Pixels`](image_set::Pixels). Only samples that are no images need a [`Dataset`](limbeck::dataset::Dataset) of their
//! own.

mod archive;
mod cifar;
pub mod cifar10;
pub mod cifar100;
pub mod fetch;
pub mod file_set;
#[cfg(test)]
mod fixture;
pub mod image_folder;
pub mod image_set;
mod image_settings;
mod index;
pub mod paired_folders;
mod pickle;
pub mod picture;
pub mod resident;
pub mod shapes;
pub mod stl10;
mod stream;
pub mod tiny_imagenet;
pub mod views;

pub use cifar10::Cifar10;
pub use cifar100::Cifar100;
pub use image_folder::ImageFolder;
pub use paired_folders::PairedFolders;
pub use shapes::Shapes;
pub use stl10::Stl10;
pub use tiny_imagenet::TinyImageNet;

#[cfg(test)]
mod tests {
    use limbeck::registry::{self, Role};

    #[test]
    fn every_data_set_is_registered_with_its_defaults() {
        registry::check().unwrap();
        let names: Vec<&str> = registry::plugins_of(Role::Dataset).iter().map(|plugin| plugin.name).collect();
        assert_eq!(
            names,
            ["cifar10", "cifar100", "image_folder", "paired_folders", "shapes", "stl10", "tiny_imagenet"]
        );
    }
}
