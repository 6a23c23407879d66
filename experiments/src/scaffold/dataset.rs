//! `my_dataset`: gratings of four directions, drawn and not downloaded.
//!
//! *Authors*. *Title*. Venue, year, and where to get it: cite what this is. Classes: the directions. One view, `image`,
//! `[3, 32, 32]`. Images live on the device as bytes; `ImageSet` crops, mirrors and normalises them there.
//!
//! This is a working data set to begin with. `limbeck plugins show my_dataset` prints this page.

use limbeck::prelude::*;
use limbeck_datasets::image_set::{IMAGE, ImageSet, Part};
use limbeck_datasets::resident::{Augmentation, Images, Resident};
use limbeck_datasets::views::Modality;

const SIDE: usize = 32;
const CLASSES: [&str; 4] = ["horizontal", "rising", "vertical", "falling"];
/// Mean and standard deviation of the pixels of each channel, as shares of full scale.
const MEAN: [f64; 3] = [0.5, 0.5, 0.5];
const STD: [f64; 3] = [0.3, 0.3, 0.3];

// What an experiment file calls `[dataset] kind = "my_dataset"`.
limbeck::plugin! {
    dataset "my_dataset": MyDataset,
    summary: "gratings of four directions, 32×32 in grey; nothing to download",
    citation: "",
    page: include_str!("dataset.rs"),
}

/// The recipe: what the file says.
#[derive(Clone, Debug, Settings)]
pub struct MyDataset {
    /// Training images.
    #[setting(default = 800, range = 1..)]
    pub train: usize,
    /// Test images.
    #[setting(default = 200, range = 1..)]
    pub test: usize,
}

#[typetag::serde(name = "my_dataset")]
impl DatasetConfig for MyDataset {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        // Mirrored, a rising grating would be a falling one.
        let augmentation = Augmentation { crop_pad: 4, flip: false };
        let parts = [("train", self.train), ("test", self.test)].map(|(name, count)| {
            let mut images = Images::black(count, [3, SIDE as i64, SIDE as i64], augmentation.crop_pad, device);
            let labels: Vec<i64> = (0..count).map(|row| (row % CLASSES.len()) as i64).collect();
            for (row, label) in labels.iter().enumerate() {
                images.write(row, &draw(*label, Seed::new(0).stream(name).at(row as u64)));
            }
            Part { pixels: Box::new(Resident::new(vec![images], augmentation)), labels }
        });
        let names = CLASSES.map(str::to_owned).to_vec();
        let shape = [3, SIDE as i64, SIDE as i64];
        let image = Modality { name: IMAGE.to_owned(), shape, mean: MEAN.to_vec(), std: STD.to_vec() };
        // No views of the file's own: give the recipe a field `views` to take them.
        Ok(Box::new(ImageSet::new("MyDataset", names, &[image], &Default::default(), parts, device)?))
    }
}

/// An image as planes, `[3, 32, 32]`: a wave of random length, phase and noise in the direction of its class.
fn draw(class: i64, seed: Seed) -> Vec<u8> {
    let mut rng = seed.rng();
    let (sin, cos) = (class as f64 * std::f64::consts::FRAC_PI_4).sin_cos();
    let (length, phase) = (rng.range(5.0, 12.0), rng.range(0.0, std::f64::consts::TAU));
    let mut plane = Vec::with_capacity(SIDE * SIDE);
    for place in 0..SIDE * SIDE {
        let (x, y) = ((place % SIDE) as f64, (place / SIDE) as f64);
        let wave = ((x * sin + y * cos) / length * std::f64::consts::TAU + phase).sin();
        plane.push((255.0 * (0.5 + 0.3 * wave + rng.range(-0.2, 0.2))) as u8);
    }
    plane.repeat(3)
}
