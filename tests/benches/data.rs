//! What reading images from the disk costs: `image_folder` against a loop that only decodes the same files.
//!
//! `cargo bench --workspace --profile dev --bench data` prints the images a second of both, and their ratio. The
//! pictures are drawn: 500×375 pixels of gradients and noise, JPEG of quality 90, as large as ImageNet's are on average.
//! Both ways use as many threads as there are cores and are timed in turn, A B A B …; the ratio is the median over pairs.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use limbeck::prelude::*;
use limbeck_datasets::ImageFolder;
use limbeck_datasets::picture::Picture;
use rayon::prelude::*;

const IMAGES: usize = 512;
const BATCH: usize = 64;
const ROUNDS: usize = 5;
const SIZE: (u16, u16) = (500, 375);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let files = draw(dir.path())?;
    let config = ImageFolder { path: dir.path().into(), ..ImageFolder::default() };
    // The first start writes the index; it is no part of what is timed.
    let set = config.build(Device::Cpu)?;
    let mut pairs = Vec::new();
    for round in 0..=ROUNDS as u64 {
        let (reading, decoding) = (seconds(|| read(&*set, round))?, seconds(|| decode(&files))?);
        // The first pair warms up.
        if round > 0 {
            pairs.push((reading, decoding));
        }
    }
    pairs.sort_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)));
    let (reading, decoding) = pairs[ROUNDS / 2];
    println!("{IMAGES} images of {} × {} pixels, {} threads", SIZE.0, SIZE.1, rayon::current_num_threads());
    println!("image_folder, cropped, scaled, mirrored, normalised   {:7.0} images/s", IMAGES as f64 / reading);
    println!("a loop that decodes and nothing else                  {:7.0} images/s", IMAGES as f64 / decoding);
    let [least, most] = [0, ROUNDS - 1].map(|at| pairs[at].1 / pairs[at].0);
    println!("ratio {:.3} ({least:.3} – {most:.3})", decoding / reading);
    Ok(())
}

fn seconds(work: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// An epoch as the trainer reads it: a batch is asked for, and the next announced.
fn read(set: &dyn Dataset, epoch: u64) -> Result<(), Box<dyn Error>> {
    let views: Views = ["image"].into_iter().collect();
    let draw = Some(Seed::new(1).at(epoch));
    let order = Seed::new(2).at(epoch).rng().permutation(IMAGES);
    let mut batches = order.chunks(BATCH).peekable();
    while let Some(rows) = batches.next() {
        set.prefetch(Split::Train, batches.peek().copied().unwrap_or_default(), &views, draw);
        black_box(set.batch(Split::Train, &Rows::new(rows.to_vec(), Device::Cpu), &views, draw)?);
    }
    Ok(())
}

fn decode(files: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    files.par_iter().try_for_each(|path| {
        let file = fs::read(path).map_err(|e| e.to_string())?;
        black_box(Picture::decode(&file, 3)?);
        Ok::<_, String>(())
    })?;
    Ok(())
}

fn file(folder: &Path, part: &str, i: usize) -> PathBuf {
    folder.join(format!("{part}/{}/{i:04}.JPEG", ["a", "b"][i % 2]))
}

/// Two classes of pictures; the training part's files.
fn draw(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    for part in ["train", "val"] {
        ["a", "b"].iter().try_for_each(|class| fs::create_dir_all(folder.join(part).join(class)))?;
    }
    let files: Vec<PathBuf> = (0..IMAGES).map(|i| file(folder, "train", i)).collect();
    let all: Vec<PathBuf> = files.iter().cloned().chain((0..2).map(|i| file(folder, "val", i))).collect();
    all.par_iter().enumerate().try_for_each(|(i, path)| picture(path, i as u64).map_err(|e| e.to_string()))?;
    Ok(files)
}

fn picture(path: &Path, salt: u64) -> Result<(), Box<dyn Error>> {
    let (width, height) = SIZE;
    let mut rng = Seed::new(salt).rng();
    let slope: Vec<u64> = (0..6).map(|_| rng.below(4)).collect();
    let mut pixels = Vec::new();
    for (y, x) in (0..u64::from(height)).flat_map(|y| (0..u64::from(width)).map(move |x| (y, x))) {
        pixels.extend((0..3).map(|c| ((slope[c] * x + slope[c + 3] * y) / 2 % 220 + rng.below(24)) as u8));
    }
    let encoder = jpeg_encoder::Encoder::new_file(path, 90)?;
    Ok(encoder.encode(&pixels, width, height, jpeg_encoder::ColorType::Rgb)?)
}
