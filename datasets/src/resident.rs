//! Images that live on the device as bytes, and their augmentation by the batch.
//!
//! The pixels lie in memory as `[N, H, W, C]` with black margins, so that a padded crop is a window and nothing else:
//! one gather of `B` windows fetches a batch, without waiting for the device.
//!
//! The [`Geometry`] of the images (where to crop, whether to mirror) is drawn once an epoch, from the epoch's seed and the
//! row numbers, and is the same for every modality. What follows is a [view's](crate::views) own.

use std::cell::RefCell;

use limbeck::prelude::*;

use crate::image_set::Pixels;

/// What is done to an image in training: a padded random crop, and mirroring half of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// Black pixels added on each side before a crop of the original size is taken.
    pub crop_pad: u32,
    /// Whether to mirror left and right with probability ½.
    pub flip: bool,
}

/// Where images are cropped, and which are mirrored.
#[derive(Debug)]
pub struct Geometry {
    /// (y, x) of each crop's corner in the padded image, each `[B]` int64 in `0..=2 * crop_pad`; without it, the centre.
    corner: Option<(Tensor, Tensor)>,
    /// `[B]`, bool.
    flip: Option<Tensor>,
}

impl Augmentation {
    /// Checks the settings of `kind` for images with sides of `side` pixels.
    ///
    /// # Errors
    /// If the margin is wider than the image.
    pub fn check(&self, kind: &str, side: u32) -> Result<()> {
        if self.crop_pad > side {
            return Err(Error::plan(format!(
                "{kind}: crop_pad must be at most {side}, the side of the image, not {}",
                self.crop_pad
            )));
        }
        Ok(())
    }

    /// The geometry of some images: a function of the seed and of each row (`rows`: `[B]`, int64) alone. Without a seed, the
    /// images as they are.
    pub fn draw(&self, rows: &Tensor, draw: Option<Seed>) -> Geometry {
        let Some(seed) = draw else { return Geometry { corner: None, flip: None } };
        // One number in 0 .. 2·n·n per row, taken apart into digits: flip, x, y.
        let n = 2 * i64::from(self.crop_pad) + 1;
        let number = seed.stream("geometry").draw_rows(rows).remainder(2 * n * n);
        let place = number.bitwise_right_shift_tensor_scalar(1);
        let corner = (self.crop_pad > 0).then(|| (place.floor_divide_scalar(n), place.remainder(n)));
        let flip = self.flip.then(|| number.bitwise_and(1).to_kind(Kind::Bool));
        Geometry { corner, flip }
    }
}

/// Images on the device: uint8, channels last, with black margins.
///
/// Neighbours share their margins. A row's right margin is the left margin of the row below, and an image's lower margin
/// is the upper one of the next image; only the very last needs its own. For CIFAR-100 with a margin of 4 that is 194 MB
/// instead of 240 (154 without any).
#[derive(Debug)]
pub struct Images {
    count: i64,
    pad: i64,
    /// The images themselves, without margins: `[N, H, W, C]`, a view.
    inner: Tensor,
    /// Every window of the size of an image, by the number of its first pixel: `[P, H, W, C]`, a view whose elements
    /// overlap.
    windows: Tensor,
    /// Pixels from one row, and from one image, to the next.
    stride: (i64, i64),
}

impl Images {
    /// Black images: `count` of `[C, H, W]`, to be cropped with margins up to `pad`.
    pub fn black(count: usize, [channels, height, width]: [i64; 3], pad: u32, device: Device) -> Self {
        let (count, pad) = (count as i64, i64::from(pad));
        let row = width + pad;
        let image = (height + pad) * row;
        let pixels = count * image + pad * row + pad;
        let store = Tensor::zeros([pixels * channels], (Kind::Uint8, device));
        let inner = store.as_strided(
            [count, height, width, channels],
            [image * channels, row * channels, channels, 1],
            (pad * row + pad) * channels,
        );
        let last_window = pixels - ((height - 1) * row + width);
        let windows =
            store.as_strided([last_window + 1, height, width, channels], [channels, row * channels, channels, 1], 0);
        Images { count, pad, inner, windows, stride: (row, image) }
    }

    /// Overwrites the images from `first` on with `planes`, bytes in the order `[n, C, H, W]`.
    pub fn write(&mut self, first: usize, planes: &[u8]) {
        let size = self.inner.size();
        self.set(first, &Tensor::from_slice(planes).view([-1, size[3], size[1], size[2]]).permute([0, 2, 3, 1]));
    }

    /// Overwrites the images from `first` on with `pixels`, bytes in the order `[n, H, W, C]`.
    pub fn write_pixels(&mut self, first: usize, pixels: &[u8]) {
        let size = self.inner.size();
        self.set(first, &Tensor::from_slice(pixels).view([-1, size[1], size[2], size[3]]));
    }

    fn set(&mut self, first: usize, images: &Tensor) {
        self.inner.narrow(0, first as i64, images.size()[0]).copy_(images);
    }

    /// How many.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// The first pixel of the crop of each of `rows` (`[B]`, int64) that `geometry` asks for: `[B]`, int64.
    fn first_pixels(&self, rows: &Tensor, geometry: &Geometry) -> Tensor {
        let (row, image) = self.stride;
        match &geometry.corner {
            Some((y, x)) => rows * image + y * row + x,
            None => rows * image + self.pad * (row + 1),
        }
    }

    /// The crops that begin with `first_pixels` (`[B]`, int64), mirrored where `flip` (`[B]`, bool) says so: `[B, H, W, C]`,
    /// uint8, contiguous.
    fn crops(&self, first_pixels: &Tensor, flip: Option<&Tensor>) -> Tensor {
        let crops = self.windows.index_select(0, first_pixels);
        match flip {
            Some(flip) => crops.flip([2]).where_self(&flip.view([-1, 1, 1, 1]), &crops),
            None => crops,
        }
    }
}

/// The images of one split, resident on the device: a tensor for each modality.
#[derive(Debug)]
pub struct Resident {
    modalities: Vec<Images>,
    augmentation: Augmentation,
    /// For the seed that was asked for last: an epoch asks for the same one at every step.
    drawn: RefCell<Option<Drawn>>,
}

/// The crops of all images of a split for one seed.
#[derive(Debug)]
struct Drawn {
    seed: Seed,
    /// For each modality `[N]`, int64.
    first_pixels: Vec<Tensor>,
    /// `[N]`, bool.
    flip: Option<Tensor>,
}

impl Resident {
    /// The modalities, aligned: as many images in each.
    pub fn new(modalities: Vec<Images>, augmentation: Augmentation) -> Self {
        Resident { modalities, augmentation, drawn: RefCell::new(None) }
    }

    /// The crops of all images.
    fn draw(&self, seed: Seed) -> Drawn {
        let device = self.modalities.first().map_or(Device::Cpu, |images| images.inner.device());
        let rows = Tensor::arange(self.count(), (Kind::Int64, device));
        let geometry = self.augmentation.draw(&rows, Some(seed));
        let first_pixels = self.modalities.iter().map(|images| images.first_pixels(&rows, &geometry)).collect();
        Drawn { seed, first_pixels, flip: geometry.flip }
    }
}

impl Pixels for Resident {
    fn count(&self) -> i64 {
        self.modalities.first().map_or(0, Images::count)
    }

    fn gather(&self, rows: &Rows, modalities: &[usize], draw: Option<Seed>) -> Result<Vec<Tensor>> {
        let rows = rows.device();
        let Some(seed) = draw else {
            let whole = self.augmentation.draw(rows, None);
            let images = modalities.iter().map(|modality| &self.modalities[*modality]);
            return Ok(images.map(|images| images.crops(&images.first_pixels(rows, &whole), None)).collect());
        };
        let mut last = self.drawn.borrow_mut();
        let drawn = match last.take() {
            Some(drawn) if drawn.seed == seed => drawn,
            _ => self.draw(seed),
        };
        let flip = drawn.flip.as_ref().map(|flip| flip.index_select(0, rows));
        let mut crops = Vec::new();
        for modality in modalities {
            let first_pixels = drawn.first_pixels[*modality].index_select(0, rows);
            crops.push(self.modalities[*modality].crops(&first_pixels, flip.as_ref()));
        }
        *last = Some(drawn);
        Ok(crops)
    }

    fn identify(&self, hasher: &mut blake3::Hasher) {
        hasher.update(format!("{:?}", self.augmentation).as_bytes());
        for images in &self.modalities {
            let pixels = &images.inner;
            hasher.update(format!("{:?}", pixels.size()).as_bytes());
            for start in (0..pixels.size()[0]).step_by(IDENTITY_CHUNK) {
                let rows = (pixels.size()[0] - start).min(IDENTITY_CHUNK as i64);
                let chunk = pixels.narrow(0, start, rows).to_device(Device::Cpu).contiguous();
                let mut bytes = vec![0; chunk.numel()];
                chunk.copy_data_u8(&mut bytes, chunk.numel());
                hasher.update(&bytes);
            }
        }
    }
}

/// Images that are digested at a time.
const IDENTITY_CHUNK: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_set::{IMAGE, ImageSet, Part};
    use crate::views::Modality;

    const MEAN: [f64; 3] = [0.5071, 0.4867, 0.4408];
    const STD: [f64; 3] = [0.2675, 0.2565, 0.2761];
    const PAPER: Augmentation = Augmentation { crop_pad: 4, flip: true };

    /// Random planes: `count` images `[3, height, width]`, never 0, so that black is margin.
    fn planes(count: usize, height: usize, width: usize) -> Vec<u8> {
        let mut rng = Seed::new(3).rng();
        (0..count * 3 * height * width).map(|_| 1 + rng.below(255) as u8).collect()
    }

    fn image_set(planes: &[u8], [height, width]: [usize; 2], augmentation: Augmentation) -> ImageSet {
        let names = vec!["even".to_owned(), "odd".to_owned()];
        let shape = [3, height as i64, width as i64];
        let image = Modality { name: IMAGE.to_owned(), shape, mean: MEAN.to_vec(), std: STD.to_vec() };
        let parts = [planes, planes].map(|planes| {
            let count = planes.len() / (3 * height * width);
            let mut images = Images::black(count, shape, augmentation.crop_pad, Device::Cpu);
            images.write(0, planes);
            let labels = (0..count as i64).map(|row| row % 2).collect();
            Part { pixels: Box::new(Resident::new(vec![images], augmentation)), labels }
        });
        ImageSet::new("noise", names, &[image], &Default::default(), parts, Device::Cpu).unwrap()
    }

    fn batch(set: &ImageSet, rows: &[i64], draw: Option<Seed>) -> Tensor {
        let views: Views = [IMAGE].into_iter().collect();
        let rows = Rows::new(rows.to_vec(), Device::Cpu);
        set.batch(Split::Train, &rows, &views, draw).unwrap().views.swap_remove(IMAGE).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.contiguous().view(-1)).unwrap()
    }

    fn normalised(byte: u8, channel: usize) -> f32 {
        f32::from(byte) * (1.0 / (255.0 * STD[channel])) as f32 + (-MEAN[channel] / STD[channel]) as f32
    }

    /// One image at a time, pixel by pixel, with the margin made on the spot: `[C, H, W]`.
    fn reference(image: &[u8], [h, w]: [usize; 2], how: Augmentation, row: i64, draw: Option<Seed>) -> Vec<f32> {
        let pad = how.crop_pad as usize;
        let (mut y0, mut x0, mut flip) = (pad, pad, false);
        if let Some(seed) = draw {
            let number = seed.stream("geometry").draw_rows(&Tensor::from_slice(&[row])).int64_value(&[0]) as usize;
            let n = 2 * pad + 1;
            let number = number % (2 * n * n);
            flip = how.flip && number % 2 == 1;
            x0 = number / 2 % n;
            y0 = number / 2 / n;
        }
        let mut out = Vec::new();
        for c in 0..3 {
            for y in 0..h {
                for x in 0..w {
                    let (y, x) = (y + y0, if flip { w - 1 - x } else { x } + x0);
                    let inside = (pad..pad + h).contains(&y) && (pad..pad + w).contains(&x);
                    let byte = if inside { image[(c * h + y - pad) * w + x - pad] } else { 0 };
                    out.push(normalised(byte, c));
                }
            }
        }
        out
    }

    #[test]
    fn a_batch_equals_the_naive_augmentation_of_each_image() {
        let plain = Augmentation { crop_pad: 0, flip: false };
        let only_flip = Augmentation { crop_pad: 0, flip: true };
        for (size, how) in [([32, 32], PAPER), ([6, 9], PAPER), ([5, 4], plain), ([5, 4], only_flip)] {
            let count = 40;
            let planes = planes(count, size[0], size[1]);
            let set = image_set(&planes, size, how);
            let rows: Vec<i64> = Seed::new(1).rng().permutation(count);
            for draw in [None, Some(Seed::new(8)), Some(Seed::new(9))] {
                let expected: Vec<f32> = rows
                    .iter()
                    .flat_map(|row| {
                        let bytes = 3 * size[0] * size[1];
                        reference(&planes[*row as usize * bytes..][..bytes], size, how, *row, draw)
                    })
                    .collect();
                assert_eq!(values(&batch(&set, &rows, draw)), expected, "{size:?} {how:?} {draw:?}");
            }
        }
    }

    #[test]
    fn evaluation_is_the_plain_normalised_image() {
        let planes = planes(7, 32, 32);
        let set = image_set(&planes, [32, 32], PAPER);
        let got = values(&batch(&set, &[6, 0], None));
        for (slot, row) in [6, 0].into_iter().enumerate() {
            for (i, byte) in planes[row * 3072..][..3072].iter().enumerate() {
                let exact = (f64::from(*byte) / 255.0 - MEAN[i / 1024]) / STD[i / 1024];
                assert!((f64::from(got[slot * 3072 + i]) - exact).abs() < 5e-7);
            }
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch_but_on_the_seed() {
        let set = image_set(&planes(100, 32, 32), [32, 32], PAPER);
        let draw = Some(Seed::new(5).stream("augment").at(2));
        let all = batch(&set, &(0..100).collect::<Vec<_>>(), draw);
        let mixed = batch(&set, &[71, 3, 99, 3, 0], draw);
        for (place, row) in [71, 3, 99, 3, 0].into_iter().enumerate() {
            assert_eq!(mixed.get(place as i64), all.get(row));
            assert_eq!(batch(&set, &[row], draw).get(0), all.get(row));
        }
        let next_epoch = batch(&set, &(0..100).collect::<Vec<_>>(), Some(Seed::new(5).stream("augment").at(3)));
        let same = (0..100).filter(|row| all.get(*row) == next_epoch.get(*row)).count();
        assert!(same < 5, "{same} of 100 images look the same in the next epoch; 100 / 162 were expected to");
    }

    #[test]
    fn every_crop_and_both_orientations_are_equally_likely() {
        let rows = Tensor::arange(162_000, (Kind::Int64, Device::Cpu));
        let geometry = PAPER.draw(&rows, Some(Seed::new(0)));
        let (y, x) = geometry.corner.unwrap();
        let cell = (y * 9 + x) * 2 + geometry.flip.unwrap().to_kind(Kind::Int64);
        let counts = cell.bincount::<Tensor>(None, 162);
        assert_eq!(counts.size(), [162]);
        let chi2 = ((counts - 1000.0).square() / 1000.0).sum(Kind::Float).double_value(&[]);
        assert!((100.0..240.0).contains(&chi2), "chi-squared with 161 degrees of freedom: {chi2}");
    }

    #[test]
    fn batches_are_channels_last_and_keep_their_labels() {
        let set = image_set(&planes(9, 32, 32), [32, 32], PAPER);
        for draw in [None, Some(Seed::new(1))] {
            let image = batch(&set, &[4, 5, 6], draw);
            assert_eq!((image.size(), image.kind()), (vec![3, 3, 32, 32], Kind::Float));
            assert_eq!(image.stride(), [3072, 1, 96, 3]);
        }
        let views: Views = [IMAGE].into_iter().collect();
        let rows = Rows::new(vec![4, 5, 6], Device::Cpu);
        let labels = set.batch(Split::Test, &rows, &views, None).unwrap().labels;
        assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [0, 1, 0]);
    }

    #[test]
    fn unknown_views_and_rows_are_refused() {
        let set = image_set(&planes(9, 32, 32), [32, 32], PAPER);
        let rows = Rows::new(vec![4, 9], Device::Cpu);
        let views: Views = [IMAGE].into_iter().collect();
        let error = set.batch(Split::Train, &rows, &views, None).unwrap_err().to_string();
        assert_eq!(error, "row 9 is not in the training part of noise, which has 9 rows");
        let (rows, views) = (Rows::new(vec![4], Device::Cpu), ["depth"].into_iter().collect());
        let error = set.batch(Split::Train, &rows, &views, None).unwrap_err().to_string();
        assert_eq!(error, "data set noise has no view `depth`; it has image");
    }

    #[test]
    fn impossible_settings_are_refused() {
        let wide = Augmentation { crop_pad: 33, flip: true };
        assert_eq!(
            wide.check("cifar100", 32).unwrap_err().to_string(),
            "cifar100: crop_pad must be at most 32, the side of the image, not 33"
        );
        for (std, expected) in [
            (vec![0.2, 0.0, 0.2], "cifar100: std must be positive, not 0"),
            (vec![0.2], "cifar100: std must have a value for each of 3 channels, not 1"),
        ] {
            let image = Modality { name: IMAGE.into(), shape: [3, 2, 2], mean: MEAN.into(), std };
            assert_eq!(image.check("cifar100").unwrap_err().to_string(), expected);
        }
    }
}
