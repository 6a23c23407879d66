//! Shapes: 20 classes of drawn shapes in 5 families, 32×32 pixels in colour, a function of the seed. Nothing to download.
//!
//! ```toml
//! [dataset]
//! kind = "shapes"
//! ```
//!
//! | family | classes |
//! |---|---|
//! | round | disc, ellipse, crescent, ring |
//! | polygon | triangle, square, pentagon, hexagon |
//! | star | four_point_star, five_point_star, six_point_star, eight_point_star |
//! | stroke | bar, corner, tee, cross |
//! | pattern | stripes, checks, dots, rings |
//!
//! It is made for trying a method within minutes, so it has what distillation feeds on: classes of a family look alike,
//! and a teacher's soft output tells in what order. Position, size, rotation, proportions and colours are random, the
//! background is a gradient, there is clutter behind and before the shape, and noise over everything.
//!
//! After 8 epochs of batches of 64 (SGD, 0.05 falling by a cosine) a resnet8 gets about 71 % of the test images right and a
//! resnet20 about 90 %; most of what they get wrong, they take for another class of the same family.
//!
//! Each image is a signed distance per pixel, turned into coverage, so edges are smooth. Image `row` of a split is drawn
//! from (seed, split, row) alone: a larger data set begins with the images of a smaller one. Its label is `row` modulo 20.
//! The bytes are reproducible on one platform; trigonometric functions differ in the last bit between platforms.

use std::f32::consts::{PI, TAU};
use std::ops::Range;

use limbeck::prelude::*;
use limbeck::seed::Rng;
use rayon::prelude::*;

use crate::image_set::{IMAGE, ImageSet, Part};
use crate::resident::{Augmentation, Images, Resident};
use crate::views::{Modality, ViewConfigs};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;

/// Of the training part with default settings.
const MEAN: [f64; 3] = [0.379, 0.378, 0.381];
const STD: [f64; 3] = [0.229, 0.228, 0.228];

limbeck::plugin! {
    dataset "shapes": Shapes,
    summary: "20 classes of drawn shapes in 5 families, 32×32 in colour; nothing to download",
    citation: "",
}

/// Drawn shapes.
#[derive(Clone, Debug, Settings)]
pub struct Shapes {
    /// Training images.
    #[setting(default = 4000, range = 1..=1_000_000)]
    pub train: usize,
    /// Test images.
    #[setting(default = 2000, range = 1..=1_000_000)]
    pub test: usize,
    /// Of the drawing; independent of the seeds of training.
    #[setting(default = 0)]
    pub seed: u32,
    /// Standard deviation of the pixel noise, as a share of full scale.
    #[setting(default = 0.1, range = 0.0..=1.0)]
    pub noise: f64,
    /// Small distractors an image, at most; half of them may cover the shape.
    #[setting(default = 6)]
    pub clutter: u32,
    /// Black margin in pixels before the random crop of a training image.
    #[setting(default = 4)]
    pub crop_pad: u32,
    /// Mirror half of the training images.
    #[setting(default = true)]
    pub flip: bool,
    /// Besides `image`: see `limbeck_datasets::views`.
    #[setting(default = ViewConfigs::new())]
    pub views: ViewConfigs,
}

#[typetag::serde(name = "shapes")]
impl DatasetConfig for Shapes {
    fn build(&self, device: Device) -> Result<Box<dyn Dataset>> {
        let augmentation = Augmentation { crop_pad: self.crop_pad, flip: self.flip };
        augmentation.check("shapes", SIDE as u32)?;
        let parts = [
            self.part(Split::Train, self.train, augmentation, device),
            self.part(Split::Test, self.test, augmentation, device),
        ];
        let names = CLASSES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let shape = [3, SIDE as i64, SIDE as i64];
        let image = Modality { name: IMAGE.to_owned(), shape, mean: MEAN.to_vec(), std: STD.to_vec() };
        Ok(Box::new(ImageSet::new("Shapes", names, &[image], &self.views, parts, device)?))
    }
}

fn class(row: usize) -> usize {
    row % CLASSES.len()
}

impl Shapes {
    /// The first `count` images of a split, with their labels.
    fn part(&self, split: Split, count: usize, augmentation: Augmentation, device: Device) -> Part {
        let mut images = Images::black(count, [3, SIDE as i64, SIDE as i64], self.crop_pad, device);
        for first in (0..count).step_by(1000) {
            images.write(first, &self.draw_rows(split, first..count.min(first + 1000)));
        }
        let labels = (0..count).map(|row| class(row) as i64).collect();
        Part { pixels: Box::new(Resident::new(vec![images], augmentation)), labels }
    }

    /// Images of a split, as planes: `[rows, 3, 32, 32]`.
    fn draw_rows(&self, split: Split, rows: Range<usize>) -> Vec<u8> {
        let stream = match split {
            Split::Train => "train",
            Split::Test => "test",
        };
        let seed = Seed::new(u64::from(self.seed)).stream("shapes").stream(stream);
        let mut planes = vec![0; rows.len() * PIXELS];
        planes
            .par_chunks_exact_mut(PIXELS)
            .zip(rows)
            .for_each(|(image, row)| self.draw(class(row), seed.at(row as u64).rng(), image));
        planes
    }

    /// One image: background, clutter, the shape, clutter, noise.
    fn draw(&self, class: usize, mut rng: Rng, planes: &mut [u8]) {
        let background = Paint::random(&mut rng, [0.05, 0.6]);
        let mut canvas = Canvas::new(&background);
        self.draw_clutter(&mut canvas, &mut rng);
        let paint = Paint::unlike(&background, &mut rng);
        let size = if class / 4 == 4 { [8.0, 11.5] } else { [6.5, 11.0] };
        let pose = Pose::random(&mut rng, size, 3.0, 0.6);
        canvas.fill(&pose, CLASSES[class].1, rng.unit() as f32, &paint);
        self.draw_clutter(&mut canvas, &mut rng);
        canvas.finish(self.noise as f32, &mut rng, planes);
    }

    /// At most half of the small distractors.
    fn draw_clutter(&self, canvas: &mut Canvas, rng: &mut Rng) {
        for _ in 0..rng.below(u64::from(self.clutter / 2) + 1) {
            let paint = Paint::random(rng, [0.05, 0.95]);
            let kind = CLUTTER[rng.below(CLUTTER.len() as u64) as usize];
            canvas.fill(&Pose::random(rng, [1.5, 3.0], 15.0, PI), kind, 0.5, &paint);
        }
    }
}

/// The signed distance from a shape of radius 1 to a point: negative inside. The last argument, in 0..1, is what varies
/// within the class.
type Shape = fn([f32; 2], f32) -> f32;

/// By family, four each.
const CLASSES: [(&str, Shape); 20] = [
    ("disc", |p, _| length(p) - 0.9),
    ("ellipse", |p, v| ellipse(p, [1.0, 0.5 + 0.25 * v])),
    ("crescent", |p, v| (length(p) - 0.95).max(0.75 - length([p[0] - 0.35 - 0.25 * v, p[1]]))),
    ("ring", |p, v| (length(p) - 0.78).abs() - (0.12 + 0.1 * v)),
    ("triangle", |p, _| polygon(p, 3, 1.1)),
    ("square", |p, _| polygon(p, 4, 1.05)),
    ("pentagon", |p, _| polygon(p, 5, 1.0)),
    ("hexagon", |p, _| polygon(p, 6, 1.0)),
    ("four_point_star", |p, v| star(p, 4, 0.38 + 0.1 * v)),
    ("five_point_star", |p, v| star(p, 5, 0.42 + 0.1 * v)),
    ("six_point_star", |p, v| star(p, 6, 0.48 + 0.1 * v)),
    ("eight_point_star", |p, v| star(p, 8, 0.55 + 0.1 * v)),
    ("bar", |p, v| segment(p, [-1.0, 0.0], [1.0, 0.0]) - stroke(v)),
    ("corner", |p, v| segment(p, [-0.7, -0.7], [0.8, -0.7]).min(segment(p, [-0.7, -0.7], [-0.7, 0.8])) - stroke(v)),
    ("tee", |p, v| segment(p, [-0.8, -0.6], [0.8, -0.6]).min(segment(p, [0.0, -0.6], [0.0, 0.9])) - stroke(v)),
    ("cross", |p, v| segment(p, [-0.9, 0.0], [0.9, 0.0]).min(segment(p, [0.0, -0.9], [0.0, 0.9])) - stroke(v)),
    ("stripes", |p, v| (wave(p[0], period(v)).abs() - 0.25 * period(v)).max(patch(p))),
    ("checks", |p, v| {
        checks([wave(p[0], 1.4 * period(v)), wave(p[1], 1.4 * period(v))], 1.4 * period(v)).max(patch(p))
    }),
    ("dots", |p, v| (length([wave(p[0], period(v)), wave(p[1], period(v))]) - 0.32 * period(v)).max(patch(p))),
    ("rings", |p, v| (wave(length(p), period(v)).abs() - 0.25 * period(v)).max(patch(p))),
];

/// What lies about: parts that several classes have in common.
const CLUTTER: [Shape; 4] = [
    |p, _| length(p) - 0.8,
    |p, _| polygon(p, 3, 1.0),
    |p, _| segment(p, [-1.2, 0.0], [1.2, 0.0]) - 0.3,
    |p, _| polygon(p, 4, 1.0),
];

fn length(p: [f32; 2]) -> f32 {
    p[0].hypot(p[1])
}

/// To first order: the implicit function over its gradient.
fn ellipse(p: [f32; 2], radii: [f32; 2]) -> f32 {
    let a = length([p[0] / radii[0], p[1] / radii[1]]);
    let b = length([p[0] / radii[0].powi(2), p[1] / radii[1].powi(2)]);
    if b > 0.0 { a * (a - 1.0) / b } else { -radii[1] }
}

/// The point in the sector of the angle 2π/n about the x axis that repeats n times around.
fn fold(p: [f32; 2], n: u32) -> [f32; 2] {
    let sector = TAU / n as f32;
    let angle = p[1].atan2(p[0]);
    let angle = angle - sector * (angle / sector).round();
    [length(p) * angle.cos(), length(p) * angle.sin().abs()]
}

/// Regular, with n corners at `radius`.
fn polygon(p: [f32; 2], n: u32, radius: f32) -> f32 {
    fold(p, n)[0] - radius * (PI / n as f32).cos()
}

/// n tips at radius 1, with notches at radius `inner` between them.
fn star(p: [f32; 2], n: u32, inner: f32) -> f32 {
    let q = fold(p, n);
    let (sin, cos) = (PI / n as f32).sin_cos();
    // The line from the tip (1, 0) to the notch; its normal points outwards.
    let normal = [inner * sin, 1.0 - inner * cos];
    ((q[0] - 1.0) * normal[0] + q[1] * normal[1]) / length(normal)
}

/// The distance to a line from `a` to `b`.
fn segment(p: [f32; 2], a: [f32; 2], b: [f32; 2]) -> f32 {
    let (ab, ap) = ([b[0] - a[0], b[1] - a[1]], [p[0] - a[0], p[1] - a[1]]);
    let along = ((ap[0] * ab[0] + ap[1] * ab[1]) / (ab[0] * ab[0] + ab[1] * ab[1])).clamp(0.0, 1.0);
    length([ap[0] - along * ab[0], ap[1] - along * ab[1]])
}

/// Half the width of a stroke.
fn stroke(v: f32) -> f32 {
    0.16 + 0.1 * v
}

/// The period of a pattern: 4 to 6 pixels at the usual size.
fn period(v: f32) -> f32 {
    0.42 + 0.2 * v
}

/// The distance to the nearest multiple of `period`, with sign.
fn wave(x: f32, period: f32) -> f32 {
    x - period * (x / period).round()
}

/// Squares of half a period, every other one filled, from two [`wave`]s.
fn checks(w: [f32; 2], period: f32) -> f32 {
    let (a, b) = (w[0].abs() - 0.25 * period, w[1].abs() - 0.25 * period);
    let edge = a.abs().min(b.abs());
    if (a < 0.0) == (b < 0.0) { -edge } else { edge }
}

/// What a pattern covers.
fn patch(p: [f32; 2]) -> f32 {
    length(p) - 1.0
}

/// Where a shape is drawn, how large and how turned.
struct Pose {
    centre: [f32; 2],
    size: f32,
    /// (sine, cosine)
    turn: (f32, f32),
}

impl Pose {
    /// At most `reach` pixels from the middle in either direction, turned by at most `turn` radians.
    fn random(rng: &mut Rng, size: [f64; 2], reach: f64, turn: f32) -> Self {
        let middle = SIDE as f64 / 2.0;
        let (low, high) = (middle - reach, middle + reach);
        let centre = [rng.range(low, high) as f32, rng.range(low, high) as f32];
        let size = rng.range(size[0], size[1]) as f32;
        Pose { centre, size, turn: (turn * rng.range(-1.0, 1.0) as f32).sin_cos() }
    }
}

/// A linear gradient over the image.
struct Paint {
    /// In the middle.
    colour: [f32; 3],
    /// Change for each pixel to the right and down.
    slope: [[f32; 2]; 3],
}

impl Paint {
    /// With each colour between two bounds in the middle of the image.
    fn random(rng: &mut Rng, [low, high]: [f64; 2]) -> Self {
        let colour = std::array::from_fn(|_| rng.range(low, high) as f32);
        let slope = std::array::from_fn(|_| std::array::from_fn(|_| rng.range(-0.012, 0.012) as f32));
        Paint { colour, slope }
    }

    /// A bright colour that can be told from `other`'s, sometimes only just.
    fn unlike(other: &Paint, rng: &mut Rng) -> Self {
        loop {
            let paint = Paint::random(rng, [0.4, 0.95]);
            let difference: f32 = paint.colour.iter().zip(other.colour).map(|(a, b)| (a - b).powi(2)).sum();
            if difference.sqrt() > 0.3 {
                return paint;
            }
        }
    }

    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let middle = SIDE as f32 / 2.0;
        std::array::from_fn(|c| self.colour[c] + self.slope[c][0] * (x - middle) + self.slope[c][1] * (y - middle))
    }
}

struct Canvas {
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    fn new(background: &Paint) -> Self {
        let mut pixels = Vec::with_capacity(SIDE * SIDE);
        for i in 0..SIDE * SIDE {
            pixels.push(background.at((i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5));
        }
        Canvas { pixels }
    }

    /// Draws a shape with edges one pixel wide. All shapes end within 1.5 times their size.
    fn fill(&mut self, pose: &Pose, shape: Shape, variant: f32, paint: &Paint) {
        let reach = 1.5 * pose.size + 1.0;
        let (sin, cos) = pose.turn;
        for row in within(pose.centre[1], reach) {
            for column in within(pose.centre[0], reach) {
                let (x, y) = (column as f32 + 0.5, row as f32 + 0.5);
                let (dx, dy) = ((x - pose.centre[0]) / pose.size, (y - pose.centre[1]) / pose.size);
                let distance = pose.size * shape([cos * dx + sin * dy, cos * dy - sin * dx], variant);
                let coverage = (0.5 - distance).clamp(0.0, 1.0);
                if coverage > 0.0 {
                    let pixel = &mut self.pixels[row * SIDE + column];
                    let colour = paint.at(x, y);
                    for c in 0..3 {
                        pixel[c] += coverage * (colour[c] - pixel[c]);
                    }
                }
            }
        }
    }

    /// Adds noise and writes the planes as bytes.
    fn finish(&self, noise: f32, rng: &mut Rng, planes: &mut [u8]) {
        for (i, pixel) in self.pixels.iter().enumerate() {
            for (c, value) in pixel.iter().enumerate() {
                let value = value + noise * bell(rng.next_u64());
                planes[c * SIDE * SIDE + i] = (value * 255.0).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// The rows or columns of the image that are at most `reach` from a centre.
fn within(centre: f32, reach: f32) -> Range<usize> {
    let (first, end) = ((centre - reach).floor(), (centre + reach).ceil());
    first.clamp(0.0, SIDE as f32) as usize..end.clamp(0.0, SIDE as f32) as usize
}

/// A nearly normal number of variance 1: the sum of four uniform ones.
fn bell(bits: u64) -> f32 {
    let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 3.0_f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use approx::{assert_abs_diff_eq, assert_relative_eq};

    fn small(seed: u32) -> Shapes {
        Shapes { train: 60, test: 40, seed, ..Shapes::default() }
    }

    #[test]
    fn images_are_a_function_of_seed_split_and_row() {
        let train = small(0).draw_rows(Split::Train, 0..60);
        assert_eq!(train, small(0).draw_rows(Split::Train, 0..60));
        assert_eq!(train[20 * PIXELS..30 * PIXELS], small(0).draw_rows(Split::Train, 20..30));
        let others = [small(1).draw_rows(Split::Train, 0..60), small(0).draw_rows(Split::Test, 0..60)];
        for other in others {
            let same = train.chunks_exact(PIXELS).zip(other.chunks_exact(PIXELS)).filter(|(a, b)| a == b).count();
            assert_eq!(same, 0, "of 60 images");
        }
    }

    #[test]
    fn classes_are_balanced_and_named() {
        let set = Shapes::default().build(Device::Cpu).unwrap();
        let info = set.info();
        assert_eq!((info.classes(), info.train_labels.len(), info.test_labels.len()), (20, 4000, 2000));
        for class in 0..20 {
            assert_eq!(info.train_labels.iter().filter(|label| **label == class).count(), 200);
            assert_eq!(info.test_labels.iter().filter(|label| **label == class).count(), 100);
        }
        let mut names = info.class_names.clone();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 20);
    }

    #[test]
    fn the_normalisation_is_that_of_the_defaults() {
        let config = Shapes::default();
        let planes = config.draw_rows(Split::Train, 0..config.train);
        let values = Tensor::from_slice(&planes).view([-1, 3, 1024]).to_kind(Kind::Double) / 255.0;
        let channels: Vec<Tensor> = (0..3).map(|c| values.select(1, c)).collect();
        let mean: Vec<f64> = channels.iter().map(|v| v.mean(Kind::Double).double_value(&[])).collect();
        let std: Vec<f64> = channels.iter().map(|v| v.std(false).double_value(&[])).collect();
        assert_abs_diff_eq!(mean.as_slice(), MEAN.as_slice(), epsilon = 0.002);
        assert_abs_diff_eq!(std.as_slice(), STD.as_slice(), epsilon = 0.002);
    }

    /// How much of each pixel a shape covers, of radius 10 in the middle.
    fn drawn(shape: Shape, variant: f32) -> Vec<f32> {
        let pose = Pose { centre: [16.0, 16.0], size: 10.0, turn: (0.0, 1.0) };
        let black = Paint { colour: [0.0; 3], slope: [[0.0; 2]; 3] };
        let white = Paint { colour: [1.0; 3], slope: [[0.0; 2]; 3] };
        let mut canvas = Canvas::new(&black);
        canvas.fill(&pose, shape, variant, &white);
        canvas.pixels.iter().map(|p| p[0]).collect()
    }

    #[test]
    fn every_class_draws_a_shape_of_middling_size() {
        for variant in [0.0, 1.0] {
            let all: Vec<Vec<f32>> = CLASSES.iter().map(|(_, shape)| drawn(*shape, variant)).collect();
            for (i, (name, _)) in CLASSES.iter().enumerate() {
                let area: f32 = all[i].iter().sum();
                assert!((60.0..300.0).contains(&area), "{name}: {area} pixels");
                let border: f32 = (0..SIDE).map(|k| all[i][k] + all[i][k * SIDE]).sum();
                assert_eq!(border, 0.0, "{name} reaches the border");
                for j in 0..i {
                    let difference: f32 = all[i].iter().zip(&all[j]).map(|(a, b)| (a - b).abs()).sum();
                    assert!(difference > 12.0, "{name} and {} differ by {difference} pixels", CLASSES[j].0);
                }
            }
        }
        // Areas that are known: a disc, a square, a ring.
        let ring = PI * (9.0_f32.powi(2) - 6.6_f32.powi(2));
        for (class, expected) in [(0_usize, PI * 81.0), (5, 2.0 * 110.25), (3, ring)] {
            let area: f32 = drawn(CLASSES[class].1, 0.0).iter().sum();
            assert_relative_eq!(area, expected, max_relative = 0.01);
        }
    }

    #[test]
    fn impossible_settings_are_refused() {
        fn error(config: Shapes) -> String {
            config.check_ranges().unwrap_err().to_string()
        }

        assert_eq!(error(Shapes { noise: 1.5, ..Shapes::default() }), "noise must be in 0..=1, not 1.5");
        assert_eq!(error(Shapes { train: 0, ..Shapes::default() }), "train must be in 1..=1000000, not 0");
    }

    #[test]
    fn the_defaults_are_the_registered_settings() {
        let plugin = limbeck::registry::find(limbeck::registry::Role::Dataset, "shapes").unwrap();
        let config: Box<dyn DatasetConfig> = plugin.default_table().unwrap().try_into().unwrap();
        assert_eq!(format!("{config:?}"), format!("{:?}", Shapes::default()));
    }
}
