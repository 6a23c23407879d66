//! Images that stay on the disk: decoded by several threads, batch after batch, ahead of training.
//!
//! What a batch holds is a function of the seed and of each row, whichever thread decodes it and whether it was announced:
//! so it is the same with any number of threads, and a resumed run goes on with the same images.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};

use limbeck::prelude::*;
use limbeck::seed::Rng;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::image_set::Pixels;
use crate::index::Kind as FileKind;
use crate::picture::Window;

/// What is cut out of an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cropping {
    /// The random crop of a training image: share of the area and ratio of width to height, from and to, as in Szegedy et
    /// al. (Going Deeper with Convolutions, CVPR 2015) and torchvision's `RandomResizedCrop`.
    pub scale: [f64; 2],
    /// To the ratio of the result.
    pub ratio: [f64; 2],
    /// Side of the centred window of evaluation, as a share of the largest one.
    pub centre: f64,
    /// Whether to mirror half of the training images.
    pub flip: bool,
}

impl Cropping {
    /// The whole image, as far as its proportions allow, always.
    pub const WHOLE: Cropping = Cropping { scale: [1.0; 2], ratio: [1.0; 2], centre: 1.0, flip: false };

    pub fn check(&self, kind: &str) -> Result<()> {
        let Cropping { scale, ratio, centre, .. } = self;
        let wrong = if !(0.0 < scale[0] && scale[0] <= scale[1] && scale[1] <= 1.0) {
            format!("scale must be two ascending shares above 0, not {scale:?}")
        } else if !(0.0 < ratio[0] && ratio[0] <= ratio[1] && ratio[1].is_finite()) {
            format!("ratio must be two ascending numbers above 0, not {ratio:?}")
        } else if !(0.0 < *centre && *centre <= 1.0) {
            format!("centre must be above 0 and at most 1, not {centre}")
        } else {
            return Ok(());
        };
        Err(Error::plan(format!("{kind}: {wrong}")))
    }

    /// The window of an image of `[H, W]` pixels for a result of `size`, and whether it is mirrored.
    fn window(&self, image: [usize; 2], size: [usize; 2], draw: Option<Seed>, row: i64) -> (Window, bool) {
        match draw {
            None => (centred(image, size, self.centre), false),
            Some(seed) => {
                let mut rng = seed.stream("geometry").at(row as u64).rng();
                let flip = rng.below(2) == 1 && self.flip;
                (self.random(image, size, &mut rng), flip)
            }
        }
    }

    fn random(&self, [height, width]: [usize; 2], size: [usize; 2], rng: &mut Rng) -> Window {
        let (h, w) = (height as f64, width as f64);
        let proportion = size[1] as f64 / size[0] as f64;
        for _ in 0..10 {
            let area = h * w * rng.range(self.scale[0], self.scale[1]);
            let ratio = proportion * rng.range(self.ratio[0].ln(), self.ratio[1].ln()).exp();
            let window = [(area / ratio).sqrt().round(), (area * ratio).sqrt().round()];
            if (1.0..=h).contains(&window[0]) && (1.0..=w).contains(&window[1]) {
                let top = rng.below((h - window[0]) as u64 + 1) as f64;
                let left = rng.below((w - window[1]) as u64 + 1) as f64;
                return Window { left, top, width: window[1], height: window[0] };
            }
        }
        // Very wide or very high: the largest window that the ratios allow, in the middle.
        let allowed = (w / h).clamp(proportion * self.ratio[0], proportion * self.ratio[1]);
        let (window_h, window_w) = ((w / allowed).round().clamp(1.0, h), (h * allowed).round().clamp(1.0, w));
        let (top, left) = (((h - window_h) / 2.0).floor(), ((w - window_w) / 2.0).floor());
        Window { left, top, width: window_w, height: window_h }
    }
}

/// The window with the proportions of `size` in the middle of an image: `share` of the largest one's side.
fn centred([height, width]: [usize; 2], size: [usize; 2], share: f64) -> Window {
    let (h, w) = (height as f64, width as f64);
    let scale = share * (h / size[0] as f64).min(w / size[1] as f64);
    let (window_h, window_w) = (scale * size[0] as f64, scale * size[1] as f64);
    Window { left: (w - window_w) / 2.0, top: (h - window_h) / 2.0, width: window_w, height: window_h }
}

/// One modality of the files.
#[derive(Debug)]
pub(crate) struct Files {
    /// By row.
    pub paths: Vec<PathBuf>,
    /// By row: of the content, in hexadecimal digits.
    pub digests: Vec<String>,
    pub kind: FileKind,
    pub channels: usize,
}

/// Reads files, cut to one size.
#[derive(Debug)]
pub(crate) struct Reader {
    pub modalities: Vec<Files>,
    /// `[H, W]`
    pub size: [usize; 2],
    pub cropping: Cropping,
}

impl Reader {
    /// The modalities of these rows: bytes in the order `[B, H, W, C]` for each, decoded by the threads of the pool that
    /// calls.
    pub fn read(&self, rows: &[i64], modalities: &[usize], draw: Option<Seed>) -> Result<Vec<Vec<u8>>> {
        let mut read = Vec::new();
        for modality in modalities {
            let files = &self.modalities[*modality];
            let image = self.size[0] * self.size[1] * files.channels;
            let mut bytes = vec![0; rows.len() * image];
            bytes.par_chunks_exact_mut(image).zip(rows).try_for_each(|(out, row)| {
                let path = &files.paths[*row as usize];
                let file = fs::read(path).map_err(Error::io("read", path))?;
                let picture = files.kind.decode(&file).map_err(|what| Error::data(path, what))?;
                let (window, flip) = self.cropping.window([picture.height, picture.width], self.size, draw, *row);
                picture.cut(window, self.size, flip, out).map_err(|what| Error::data(path, what))
            })?;
            read.push(bytes);
        }
        Ok(read)
    }

    pub fn count(&self) -> i64 {
        self.modalities.first().map_or(0, |files| files.paths.len() as i64)
    }
}

/// So many announced batches are kept.
const AHEAD: usize = 3;

/// The images of one split, read when they are asked for, or before.
#[derive(Debug)]
pub(crate) struct Stream {
    reader: Arc<Reader>,
    pool: Arc<ThreadPool>,
    announced: Mutex<VecDeque<Announced>>,
    device: Device,
}

#[derive(Debug)]
struct Announced {
    batch: (Vec<i64>, Vec<usize>, Option<Seed>),
    bytes: Receiver<Result<Vec<Vec<u8>>>>,
}

/// Threads for decoding; 0: as many as there are cores.
pub(crate) fn pool(threads: usize) -> Result<Arc<ThreadPool>> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("decode-{i}"))
        // A panic ahead of time ends that batch alone: it happens again when the batch is asked for, where it is caught.
        .panic_handler(|_| {})
        .build();
    pool.map(Arc::new).map_err(|e| Error::run(format!("threads for decoding: {e}")))
}

impl Stream {
    pub fn new(reader: Reader, pool: Arc<ThreadPool>, device: Device) -> Self {
        Stream { reader: Arc::new(reader), pool, announced: Mutex::default(), device }
    }

    /// The announced batch; those before it will not be asked for any more.
    fn take(&self, rows: &[i64], modalities: &[usize], draw: Option<Seed>) -> Option<Announced> {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let place = announced.iter().position(|Announced { batch: (of_rows, of_modalities, of_draw), .. }| {
            of_rows == rows && of_modalities == modalities && *of_draw == draw
        })?;
        announced.drain(..=place).next_back()
    }
}

impl Pixels for Stream {
    fn count(&self) -> i64 {
        self.reader.count()
    }

    fn gather(&self, rows: &Rows, modalities: &[usize], draw: Option<Seed>) -> Result<Vec<Tensor>> {
        let host = rows.host();
        let ready = self.take(host, modalities, draw).and_then(|announced| announced.bytes.recv().ok());
        let bytes = match ready {
            Some(bytes) => bytes?,
            None => self.pool.install(|| self.reader.read(host, modalities, draw))?,
        };
        let [height, width] = self.reader.size.map(|side| side as i64);
        let mut images = Vec::new();
        for bytes in &bytes {
            images.push(Tensor::from_slice(bytes).view([rows.len() as i64, height, width, -1]).to_device(self.device));
        }
        Ok(images)
    }

    fn prefetch(&self, rows: &[i64], modalities: &[usize], draw: Option<Seed>) {
        if rows.is_empty() || rows.iter().any(|row| !(0..self.count()).contains(row)) {
            return;
        }
        let batch = (rows.to_vec(), modalities.to_vec(), draw);
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        if announced.iter().any(|announced| announced.batch == batch) {
            return;
        }
        let (sender, bytes) = channel();
        announced.push_back(Announced { batch: batch.clone(), bytes });
        if announced.len() > AHEAD {
            announced.pop_front();
        }
        let reader = Arc::clone(&self.reader);
        self.pool.spawn(move || {
            let (rows, modalities, draw) = batch;
            // Nobody waits for a batch that was given up.
            let _ = sender.send(reader.read(&rows, &modalities, draw));
        });
    }

    fn identify(&self, hasher: &mut blake3::Hasher) {
        let Reader { modalities, size, cropping } = &*self.reader;
        hasher.update(format!("{size:?} {cropping:?}").as_bytes());
        for files in modalities {
            hasher.update(format!("{:?} {:?}", files.kind, files.digests).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const SIZE: [usize; 2] = [16, 16];
    const USUAL: Cropping = Cropping { scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0], centre: 0.875, flip: true };

    fn stream(folder: &std::path::Path, count: usize, threads: usize) -> Stream {
        let paths: Vec<PathBuf> = (0..count).map(|i| folder.join(format!("{i}.png"))).collect();
        for (i, path) in paths.iter().enumerate() {
            fixture::write(path, fixture::rgb_png([20 + i % 7, 25 + i % 5], i));
        }
        let files = Files { digests: vec![String::new(); count], paths, kind: FileKind::Colour, channels: 3 };
        let reader = Reader { modalities: vec![files], size: SIZE, cropping: USUAL };
        Stream::new(reader, pool(threads).unwrap(), Device::Cpu)
    }

    fn gather(stream: &Stream, rows: &[i64], draw: Option<Seed>) -> Tensor {
        stream.gather(&Rows::new(rows.to_vec(), Device::Cpu), &[0], draw).unwrap().swap_remove(0)
    }

    #[test]
    fn batches_depend_neither_on_threads_nor_on_announcements() {
        let dir = tempfile::tempdir().unwrap();
        let (one, four) = (stream(dir.path(), 24, 1), stream(dir.path(), 24, 4));
        let seed = Some(Seed::new(5).at(2));
        let order: Vec<i64> = Seed::new(1).rng().permutation(24);
        let batches: Vec<&[i64]> = order.chunks(7).collect();
        for (i, rows) in batches.iter().enumerate() {
            let plain = gather(&one, rows, seed);
            // Announced twice, with others that nobody asks for.
            for next in batches.iter().skip(i).take(2) {
                four.prefetch(next, &[0], seed);
                four.prefetch(next, &[0], seed);
            }
            four.prefetch(rows, &[0], None);
            assert_eq!(gather(&four, rows, seed), plain);
            assert!(four.announced.lock().unwrap().len() <= AHEAD);
            assert_eq!(gather(&one, &rows[2..3], seed).get(0), plain.get(2));
        }
        assert_ne!(gather(&one, &order, seed), gather(&one, &order, Some(Seed::new(5).at(3))));
        // Rows that do not exist are no reason to fail before they are asked for.
        four.prefetch(&[99], &[0], None);
    }

    #[test]
    fn a_file_that_vanishes_is_named_announced_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let stream = stream(dir.path(), 4, 2);
        let path = dir.path().join("2.png");
        fs::remove_file(&path).unwrap();
        let rows = Rows::new(vec![1, 2], Device::Cpu);
        let message = |stream: &Stream| stream.gather(&rows, &[0], None).unwrap_err().to_string();
        assert_eq!(message(&stream), format!("cannot read {}", path.display()));
        stream.prefetch(rows.host(), &[0], None);
        assert_eq!(message(&stream), format!("cannot read {}", path.display()));
        fs::write(&path, "nothing").unwrap();
        assert_eq!(message(&stream), format!("{}: neither a JPEG nor a PNG file", path.display()));
    }

    #[test]
    fn crops_are_inside_and_have_area_and_ratio_as_asked() {
        let (image, size) = ([300, 400], [224, 224]);
        let (mut area, mut flips) = (0.0, 0);
        for row in 0..4000 {
            let (window, flip) = USUAL.window(image, size, Some(Seed::new(1)), row);
            let Window { left, top, width, height } = window;
            assert!(left >= 0.0 && top >= 0.0 && left + width <= 400.0 && top + height <= 300.0, "{window:?}");
            let share = width * height / 120_000.0;
            assert!((0.078..=1.0).contains(&share) && (0.73..1.36).contains(&(width / height)), "{window:?}");
            area += share / 4000.0;
            flips += i32::from(flip);
        }
        // Area and logarithm of the ratio are uniform among those that fit.
        let (mut fitting, mut total) = (0.0, 0.0);
        for (i, j) in (0..500).flat_map(|i| (0..500).map(move |j| (i, j))) {
            let [i, j] = [i, j].map(|i: i32| (f64::from(i) + 0.5) / 500.0);
            let (share, ratio) = (0.08 + 0.92 * i, (4.0_f64 / 3.0).powf(2.0 * j - 1.0));
            let (width, height) = ((120_000.0 * share * ratio).sqrt(), (120_000.0 * share / ratio).sqrt());
            if width < 400.5 && height < 300.5 {
                fitting += 1.0;
                total += share;
            }
        }
        approx::assert_abs_diff_eq!(area, total / fitting, epsilon = 0.015);
        assert!((1880..2120).contains(&flips), "{flips}");
        let whole = Cropping::WHOLE.window([60, 80], [60, 80], Some(Seed::new(1)), 3);
        assert_eq!(whole, (Window { left: 0.0, top: 0.0, width: 80.0, height: 60.0 }, false));
    }

    #[test]
    fn evaluation_sees_the_centre() {
        let (window, flip) = USUAL.window([256, 512], [224, 224], None, 0);
        assert_eq!((window, flip), (Window { left: 144.0, top: 16.0, width: 224.0, height: 224.0 }, false));
        // A very wide image: ten tries fail, and the middle with the greatest ratio is taken.
        let narrow = Cropping { scale: [1.0, 1.0], ..USUAL };
        let (window, _) = narrow.window([10, 1000], [224, 224], Some(Seed::new(1)), 0);
        assert_eq!(window, Window { left: 493.0, top: 0.0, width: 13.0, height: 10.0 });
    }

    #[test]
    fn impossible_crops_are_refused() {
        fn message(cropping: Cropping) -> String {
            cropping.check("image_folder").unwrap_err().to_string()
        }

        assert_eq!(
            message(Cropping { scale: [0.0, 1.0], ..USUAL }),
            "image_folder: scale must be two ascending shares above 0, not [0.0, 1.0]"
        );
        assert_eq!(
            message(Cropping { ratio: [2.0, 1.0], ..USUAL }),
            "image_folder: ratio must be two ascending numbers above 0, not [2.0, 1.0]"
        );
        assert_eq!(
            message(Cropping { centre: 1.5, ..USUAL }),
            "image_folder: centre must be above 0 and at most 1, not 1.5"
        );
    }
}
