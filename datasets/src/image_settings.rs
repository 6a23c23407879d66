//! Settings that data sets of photographs have in common, in one place.

/// Declares the settings of photographs that are kept on the device: those of one data set, then those of all.
macro_rules! resident_images {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident { $($own:tt)* }
        mean: $mean:expr, $source:literal;
        std: $std:expr;
        crop_pad: $crop_pad:literal;
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Settings)]
        pub struct $name {
            $($own)*
            #[doc = concat!("Of red, green and blue, subtracted; ", $source, ".")]
            #[setting(default = $mean)]
            pub mean: [f64; 3],
            /// Of red, green and blue, divided by.
            #[setting(default = $std)]
            pub std: [f64; 3],
            /// Black margin in pixels before the random crop of a training image.
            #[setting(default = $crop_pad)]
            pub crop_pad: u32,
            /// Mirror half of the training images.
            #[setting(default = true)]
            pub flip: bool,
            /// Besides `image`: see `limbeck_datasets::views`.
            #[setting(default = Default::default())]
            pub views: $crate::views::ViewConfigs,
        }

        impl $name {
            fn augmentation(&self) -> $crate::resident::Augmentation {
                $crate::resident::Augmentation { crop_pad: self.crop_pad, flip: self.flip }
            }

            /// The modality of images with sides of `side` pixels.
            fn image(&self, side: usize) -> $crate::views::Modality {
                $crate::views::Modality {
                    name: $crate::image_set::IMAGE.to_owned(),
                    shape: [3, side as i64, side as i64],
                    mean: self.mean.to_vec(),
                    std: self.std.to_vec(),
                }
            }
        }
    };
}

/// Declares the settings of photographs that are files: those of one data set, then those of all.
macro_rules! image_files {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident { $($own:tt)* }
        size: $size:expr;
        mean: $mean:expr, $source:literal;
        std: $std:expr;
        storage: $storage:expr;
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, Settings)]
        pub struct $name {
            $($own)*
            /// Height and width of what a network sees.
            #[setting(default = $size)]
            pub size: [i64; 2],
            #[doc = concat!("Of red, green and blue, subtracted; ", $source, ".")]
            #[setting(default = $mean)]
            pub mean: [f64; 3],
            /// Of red, green and blue, divided by.
            #[setting(default = $std)]
            pub std: [f64; 3],
            /// Mirror half of the training images.
            #[setting(default = true)]
            pub flip: bool,
            /// Images that cannot be decoded: "error", or "skip": leave them out and say how many.
            #[setting(default = $crate::file_set::Broken::Error)]
            pub broken: $crate::file_set::Broken,
            /// Where the images are during training.
            #[setting(default = $storage, fields = $crate::file_set::Storage::fields())]
            pub storage: $crate::file_set::Storage,
            /// Besides `image`: see `limbeck_datasets::views`.
            #[setting(default = Default::default())]
            pub views: $crate::views::ViewConfigs,
        }

        impl $name {
            /// The modality of what a network sees.
            fn image(&self) -> $crate::views::Modality {
                let [height, width] = self.size;
                $crate::views::Modality {
                    name: $crate::image_set::IMAGE.to_owned(),
                    shape: [3, height, width],
                    mean: self.mean.to_vec(),
                    std: self.std.to_vec(),
                }
            }
        }
    };
}

pub(crate) use {image_files, resident_images};
