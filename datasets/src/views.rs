//! Views: what a network sees of a sample, as a pipeline of operations on a whole batch.
//!
//! ```toml
//! [dataset.views.ab]
//! from = "image"                         # a modality of the data set; absent: the first
//! steps = [{ kind = "ab" }, { kind = "normalise", mean = [0, 0], std = [20, 20] }]
//! ```
//!
//! A batch is first cropped and mirrored, alike in every modality: views share their geometry. Then every view goes its
//! own way on the training device, from bytes as shares of full scale (0 to 1) to what its `steps` make of them. Without
//! configuration every modality has a view of its own name, normalised; configured views come besides, and one of the
//! same name replaces it.
//!
//! CIE Lab is that of the reference white D65 (CIE 15; sRGB after IEC 61966-2-1, with the matrix of
//! <http://www.brucelindbloom.com/index.html?Eqn_RGB_XYZ_Matrix.html>): L from 0 to 100, a and b between −128 and 127.

use indexmap::IndexMap;
use limbeck::prelude::*;
use serde::{Deserialize, Serialize};

/// The views of a data set by name, as the experiment file has them.
pub type ViewConfigs = IndexMap<String, ViewConfig>;

/// One view: a modality and what is done to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// The modality; absent: the data set's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// In this order.
    #[serde(default)]
    pub steps: Vec<Operation>,
}

/// A step of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// (x − mean) / std for each channel.
    Normalise {
        /// Subtracted.
        mean: Vec<f64>,
        /// Divided by.
        std: Vec<f64>,
    },
    /// Bilinear, with antialiasing where it shrinks.
    Resize {
        /// `[H, W]`
        size: [i64; 2],
    },
    /// Red, green and blue to the three channels of CIE Lab.
    Lab {},
    /// Red, green and blue to L of CIE Lab: one channel, 0 to 100.
    Luminance {},
    /// Red, green and blue to a and b of CIE Lab: two channels.
    Ab {},
    /// In training: random brightness, contrast, saturation and hue, in this order, by factors drawn from
    /// [1 − value, 1 + value] for each image; the hue turns by a share of the circle drawn from [−value, value]. The
    /// operations are those of torchvision's `ColorJitter`, whose order is random.
    Jitter {
        /// At most 1.
        #[serde(default)]
        brightness: f64,
        /// At most 1.
        #[serde(default)]
        contrast: f64,
        /// At most 1.
        #[serde(default)]
        saturation: f64,
        /// At most ½.
        #[serde(default)]
        hue: f64,
    },
}

impl Operation {
    fn name(&self) -> &'static str {
        match self {
            Operation::Normalise { .. } => "normalise",
            Operation::Resize { .. } => "resize",
            Operation::Lab {} => "lab",
            Operation::Luminance {} => "luminance",
            Operation::Ab {} => "ab",
            Operation::Jitter { .. } => "jitter",
        }
    }
}

/// What a data set has of every sample, as bytes: a photograph, its depth.
#[derive(Clone, Debug, PartialEq)]
pub struct Modality {
    /// Its name, and that of its default view.
    pub name: String,
    /// `[C, H, W]` after cropping.
    pub shape: [i64; 3],
    /// Mean of each channel, as a share of full scale.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, likewise.
    pub std: Vec<f64>,
}

impl Modality {
    /// Checks the constants of a data set of kind `kind`.
    ///
    /// # Errors
    /// If there is not one for each channel, a mean is not finite or a standard deviation not positive.
    pub fn check(&self, kind: &str) -> Result<()> {
        check_constants(kind, &self.mean, &self.std, self.shape[0])
    }

    fn view(&self) -> ViewConfig {
        let steps = vec![Operation::Normalise { mean: self.mean.clone(), std: self.std.clone() }];
        ViewConfig { from: Some(self.name.clone()), steps }
    }
}

fn check_constants(place: &str, mean: &[f64], std: &[f64], channels: i64) -> Result<()> {
    for (name, values) in [("mean", mean), ("std", std)] {
        if values.len() as i64 != channels {
            return Err(Error::plan(format!(
                "{place}: {name} must have a value for each of {channels} channels, not {}",
                values.len()
            )));
        }
    }
    if let Some(bad) = mean.iter().find(|mean| !mean.is_finite()) {
        return Err(Error::plan(format!("{place}: mean must be finite, not {bad}")));
    }
    if let Some(bad) = std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
        return Err(Error::plan(format!("{place}: std must be positive, not {bad}")));
    }
    Ok(())
}

/// The views of a data set: the default one of each modality, and those that are configured.
///
/// # Errors
/// If a view names no modality, or its steps do not fit one another.
pub fn pipelines(modalities: &[Modality], configured: &ViewConfigs, device: Device) -> Result<Vec<Pipeline>> {
    let mut views: ViewConfigs = modalities.iter().map(|modality| (modality.name.clone(), modality.view())).collect();
    views.extend(configured.clone());
    views.iter().map(|(name, view)| Pipeline::new(name, view, modalities, device)).collect()
}

/// A view at work.
#[derive(Debug)]
pub struct Pipeline {
    /// Its name and what comes out of it.
    pub info: ViewInfo,
    /// The modality that it begins with.
    pub modality: usize,
    entry: Scale,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    /// Mean and standard deviation, each `[1, C, 1, 1]`.
    Normalise(Tensor, Tensor),
    Resize([i64; 2]),
    Lab(Lab, Channels),
    Jitter(Jitter),
}

/// A value for each channel: `[1, C, 1, 1]`.
fn by_channel(values: &[f64], device: Device) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float).to_device(device).view([1, -1, 1, 1])
}

impl Pipeline {
    fn new(name: &str, config: &ViewConfig, modalities: &[Modality], device: Device) -> Result<Self> {
        let wrong = |what: String| Error::plan(format!("view `{name}`: {what}"));
        let modality = match &config.from {
            None => 0,
            Some(from) => modalities.iter().position(|modality| modality.name == *from).ok_or_else(|| {
                let names: Vec<&str> = modalities.iter().map(|modality| modality.name.as_str()).collect();
                wrong(format!("the data have no `{from}`; they have {}", names.join(", ")))
            })?,
        };
        let mut shape = modalities[modality].shape;
        // The first normalisation reads the bytes itself; without one they become shares of full scale.
        let (entry, rest) = match config.steps.as_slice() {
            [Operation::Normalise { mean, std }, rest @ ..] => {
                check_constants(&format!("view `{name}`"), mean, std, shape[0])?;
                (Scale::new(mean, std, shape[1] * shape[2], device), rest)
            }
            rest => {
                let channels = shape[0] as usize;
                (Scale::new(&vec![0.0; channels], &vec![1.0; channels], shape[1] * shape[2], device), rest)
            }
        };
        let mut plain = rest.len() == config.steps.len();
        let mut steps = Vec::new();
        for operation in rest {
            let colour = matches!(
                operation,
                Operation::Lab {} | Operation::Luminance {} | Operation::Ab {} | Operation::Jitter { .. }
            );
            if colour && shape[0] != 3 {
                let (step, found) = (operation.name(), shape[0]);
                return Err(wrong(format!("`{step}` needs 3 channels (red, green, blue), but gets {found}")));
            }
            if colour && !plain {
                return Err(wrong(format!("`{}` must come before `normalise` and other colours", operation.name())));
            }
            steps.push(match operation {
                Operation::Normalise { mean, std } => {
                    check_constants(&format!("view `{name}`"), mean, std, shape[0])?;
                    Step::Normalise(by_channel(mean, device), by_channel(std, device))
                }
                Operation::Resize { size } => {
                    if size.iter().any(|side| !(1..=8192).contains(side)) {
                        return Err(wrong(format!("a size is 1 to 8192 pixels, not {size:?}")));
                    }
                    [shape[1], shape[2]] = *size;
                    Step::Resize(*size)
                }
                Operation::Lab {} => Step::Lab(Lab::new(device), Channels::All),
                Operation::Luminance {} => Step::Lab(Lab::new(device), Channels::Luminance),
                Operation::Ab {} => Step::Lab(Lab::new(device), Channels::Ab),
                Operation::Jitter { brightness, contrast, saturation, hue } => {
                    let jitter = Jitter { factors: [*brightness, *contrast, *saturation], hue: *hue };
                    jitter.check().map_err(wrong)?;
                    Step::Jitter(jitter)
                }
            });
            plain &= matches!(operation, Operation::Resize { .. } | Operation::Jitter { .. });
            if let Some(Step::Lab(_, channels)) = steps.last() {
                shape[0] = channels.range().1;
            }
        }
        Ok(Pipeline { info: ViewInfo { name: name.to_owned(), shape }, modality, entry, steps })
    }

    /// `[B, H, W, C]` uint8, the modality's crops of `rows` (`[B]`, int64) → `[B, C, H, W]` float32 in channels_last
    /// memory order. Without `draw` nothing is random.
    pub fn apply(&self, bytes: &Tensor, rows: &Tensor, draw: Option<Seed>) -> Tensor {
        let mut values = self.entry.apply(bytes);
        for step in &self.steps {
            values = match step {
                Step::Normalise(mean, std) => (values - mean) / std,
                Step::Resize(size) => values.internal_upsample_bilinear2d_aa(size, false, None, None),
                Step::Lab(lab, channels) => {
                    let (first, count) = channels.range();
                    lab.apply(&values).narrow(1, first, count)
                }
                Step::Jitter(jitter) => {
                    draw.map_or_else(|| values.shallow_clone(), |seed| jitter.apply(&values, rows, seed))
                }
            };
        }
        values.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    }
}

/// From bytes to numbers: (x / 255 − mean) / std for each channel, computed as x · scale + shift in float32.
#[derive(Debug)]
struct Scale {
    /// 1 / (255 std) for each byte of an image: `[H * W * C]`. As long as an image, because libtorch is ten times slower
    /// at broadcasting three channels.
    scale: Tensor,
    /// −mean / std, likewise.
    shift: Tensor,
}

impl Scale {
    fn new(mean: &[f64], std: &[f64], pixels: i64, device: Device) -> Self {
        let scale: Vec<f64> = std.iter().map(|std| 1.0 / (255.0 * std)).collect();
        let shift: Vec<f64> = mean.iter().zip(std).map(|(mean, std)| -mean / std).collect();
        let [scale, shift] = [scale, shift].map(|values| {
            Tensor::from_slice(&values).to_kind(Kind::Float).to_device(device).repeat([pixels]).contiguous()
        });
        Scale { scale, shift }
    }

    /// `[B, H, W, C]` uint8 → `[B, C, H, W]` float32.
    fn apply(&self, bytes: &Tensor) -> Tensor {
        let mut values = bytes.flatten(1, -1).to_kind(Kind::Float);
        let _ = values.g_mul_(&self.scale);
        let _ = values.g_add_(&self.shift);
        values.view_as(bytes).permute([0, 3, 1, 2])
    }
}

/// Which channels of Lab.
#[derive(Clone, Copy, Debug)]
enum Channels {
    All,
    Luminance,
    Ab,
}

impl Channels {
    /// (first, count)
    fn range(self) -> (i64, i64) {
        match self {
            Channels::All => (0, 3),
            Channels::Luminance => (0, 1),
            Channels::Ab => (1, 2),
        }
    }
}

/// sRGB to XYZ for the white D65.
const XYZ: [[f64; 3]; 3] = [
    [0.412_456_4, 0.357_576_1, 0.180_437_5],
    [0.212_672_9, 0.715_152_2, 0.072_175_0],
    [0.019_333_9, 0.119_192_0, 0.950_304_1],
];

/// From sRGB to CIE Lab.
#[derive(Debug)]
struct Lab {
    /// Linear red, green and blue to X, Y and Z as shares of white: `[3, 3]`, for a product from the right.
    white_xyz: Tensor,
}

impl Lab {
    fn new(device: Device) -> Self {
        // White is (1, 1, 1): then greys have a = b = 0 to the last bit but one.
        let columns: Vec<f64> = (0..3).flat_map(|c| XYZ.map(|row| row[c] / row.iter().sum::<f64>())).collect();
        Lab { white_xyz: Tensor::from_slice(&columns).to_kind(Kind::Float).to_device(device).view([3, 3]) }
    }

    /// `[B, 3, H, W]`, 0 to 1 → `[B, 3, H, W]`: L, a, b.
    fn apply(&self, rgb: &Tensor) -> Tensor {
        const D: f64 = 6.0 / 29.0;
        let rgb = rgb.permute([0, 2, 3, 1]);
        let linear = ((&rgb + 0.055) / 1.055).pow_tensor_scalar(2.4).where_self(&rgb.gt(0.040_45), &(&rgb / 12.92));
        let t = linear.matmul(&self.white_xyz);
        let f = t.pow_tensor_scalar(1.0 / 3.0).where_self(&t.gt(D * D * D), &(&t / (3.0 * D * D) + 4.0 / 29.0));
        let (x, y, z) = (f.select(3, 0), f.select(3, 1), f.select(3, 2));
        Tensor::stack(&[&y * 116.0 - 16.0, (x - &y) * 500.0, (y - z) * 200.0], 3).permute([0, 3, 1, 2])
    }
}

#[derive(Debug)]
struct Jitter {
    /// Of brightness, contrast and saturation.
    factors: [f64; 3],
    hue: f64,
}

impl Jitter {
    fn check(&self) -> Result<(), String> {
        match self.factors.iter().find(|factor| !(0.0..=1.0).contains(*factor)) {
            Some(bad) => Err(format!("brightness, contrast and saturation are 0 to 1, not {bad}")),
            None if !(0.0..=0.5).contains(&self.hue) => Err(format!("hue is 0 to 0.5, not {}", self.hue)),
            None => Ok(()),
        }
    }

    /// `[B, 3, H, W]`, 0 to 1, to the same. What is drawn depends on the seed and on each row alone.
    fn apply(&self, rgb: &Tensor, rows: &Tensor, seed: Seed) -> Tensor {
        let seed = seed.stream("jitter");
        let [brightness, contrast, saturation] = self.factors;
        let mut rgb = rgb.shallow_clone();
        if brightness > 0.0 {
            rgb = (rgb * around(seed.stream("brightness"), rows, 1.0, brightness)).clamp(0.0, 1.0);
        }
        if contrast > 0.0 {
            let mean = grey(&rgb).mean_dim([1_i64, 2, 3].as_slice(), true, Kind::Float);
            rgb = blend(&rgb, &mean, &around(seed.stream("contrast"), rows, 1.0, contrast));
        }
        if saturation > 0.0 {
            rgb = blend(&rgb, &grey(&rgb), &around(seed.stream("saturation"), rows, 1.0, saturation));
        }
        if self.hue > 0.0 {
            rgb = turn_hue(&rgb, &around(seed.stream("hue"), rows, 0.0, self.hue));
        }
        rgb
    }
}

/// A number for each row, `[B, 1, 1, 1]`, uniform between `centre` − `width` and `centre` + `width`.
fn around(seed: Seed, rows: &Tensor, centre: f64, width: f64) -> Tensor {
    let unit = seed.draw_rows(rows).to_kind(Kind::Double) / (1_u64 << 62) as f64;
    (unit * (2.0 * width) + (centre - width)).to_kind(Kind::Float).view([-1, 1, 1, 1])
}

fn grey(rgb: &Tensor) -> Tensor {
    rgb.narrow(1, 0, 1) * 0.2989 + rgb.narrow(1, 1, 1) * 0.587 + rgb.narrow(1, 2, 1) * 0.114
}

/// `rgb` as far from `other` as the factor says.
fn blend(rgb: &Tensor, other: &Tensor, factor: &Tensor) -> Tensor {
    (other + (rgb - other) * factor).clamp(0.0, 1.0)
}

/// Turns the hue of `rgb` (`[B, 3, H, W]`, 0 to 1) by shares of the circle (`[B, 1, 1, 1]`), in hue, saturation and value.
fn turn_hue(rgb: &Tensor, turn: &Tensor) -> Tensor {
    let (value, _) = rgb.max_dim(1, true);
    let (least, _) = rgb.min_dim(1, true);
    let chroma = &value - least;
    let divisor = chroma.where_self(&chroma.gt(0.0), &chroma.ones_like());
    let (r, g, b) = (rgb.narrow(1, 0, 1), rgb.narrow(1, 1, 1), rgb.narrow(1, 2, 1));
    // Sixths of the circle, from the channel that is largest.
    let from_blue = (&r - &g) / &divisor + 4.0;
    let from_green = ((&b - &r) / &divisor + 2.0).where_self(&g.eq_tensor(&value), &from_blue);
    let hue = ((&g - &b) / &divisor).where_self(&r.eq_tensor(&value), &from_green) + turn * 6.0;
    // The inverse: value − chroma · max(0, min(k, 4 − k, 1)) with k = (n + hue) mod 6, n = 5, 3, 1 for red, green, blue.
    let channels = [5.0, 3.0, 1.0].map(|n| {
        let k = (&hue + n).remainder(6.0);
        &value - &chroma * k.minimum(&(4.0 - &k)).clamp(0.0, 1.0)
    });
    Tensor::cat(&channels, 1)
}

#[cfg(test)]
mod tests {
    use approx::assert_abs_diff_eq;

    use super::*;

    const CPU: Device = Device::Cpu;

    fn image(size: [i64; 2]) -> Modality {
        Modality { name: "image".into(), shape: [3, size[0], size[1]], mean: vec![0.5; 3], std: vec![0.25; 3] }
    }

    /// The view that these steps make of images of that size.
    fn view(steps: &str, size: [i64; 2]) -> Result<Pipeline> {
        let config: ViewConfig = toml::from_str(&format!("steps = {steps}")).unwrap();
        let depth = Modality { name: "depth".into(), shape: [1, size[0], size[1]], mean: vec![0.5], std: vec![0.25] };
        let views = ViewConfigs::from_iter([("mine".to_owned(), config)]);
        Ok(pipelines(&[image(size), depth], &views, CPU)?.pop().unwrap())
    }

    /// One row of pixels, red green blue each.
    fn pixels(colours: &[[u8; 3]]) -> Tensor {
        Tensor::from_slice(&colours.concat()).view([1, 1, colours.len() as i64, 3])
    }

    fn apply(pipeline: &Pipeline, bytes: &Tensor, draw: Option<Seed>) -> Vec<Vec<f64>> {
        let out = pipeline.apply(bytes, &Tensor::arange(bytes.size()[0], (Kind::Int64, CPU)), draw);
        let [channels, height, width] = pipeline.info.shape;
        assert_eq!(out.size(), [bytes.size()[0], channels, height, width]);
        (0..channels)
            .map(|c| Vec::try_from(out.select(1, c).contiguous().view(-1).to_kind(Kind::Double)).unwrap())
            .collect()
    }

    #[test]
    fn lab_has_the_published_values() {
        // Red, green, blue, yellow, cyan, magenta, white, grey, black; values as published by Lindbloom's calculator.
        let colours = [
            [255, 0, 0],
            [0, 255, 0],
            [0, 0, 255],
            [255, 255, 0],
            [0, 255, 255],
            [255, 0, 255],
            [255, 255, 255],
            [128, 128, 128],
            [0, 0, 0],
        ];
        let published = [
            [53.2408, 80.0925, 67.2032],
            [87.7347, -86.1827, 83.1793],
            [32.2970, 79.1875, -107.8602],
            [97.1393, -21.5537, 94.4780],
            [91.1132, -48.0875, -14.1312],
            [60.3242, 98.2343, -60.8249],
            [100.0, 0.0, 0.0],
            [53.5850, 0.0, 0.0],
            [0.0, 0.0, 0.0],
        ];
        let lab = apply(&view("[{ kind = 'lab' }]", [1, 9]).unwrap(), &pixels(&colours), None);
        for (i, expected) in published.iter().enumerate() {
            for (channel, expected) in expected.iter().enumerate() {
                assert_abs_diff_eq!(lab[channel][i], *expected, epsilon = 2e-4);
            }
        }
        let luminance = apply(&view("[{ kind = 'luminance' }]", [1, 9]).unwrap(), &pixels(&colours), None);
        let ab = apply(&view("[{ kind = 'ab' }]", [1, 9]).unwrap(), &pixels(&colours), None);
        assert_eq!([&luminance[0], &ab[0], &ab[1]], [&lab[0], &lab[1], &lab[2]]);
    }

    #[test]
    fn lab_equals_the_formula_in_float64_on_every_grey_and_random_colours() {
        let mut rng = Seed::new(2).rng();
        let mut colours: Vec<[u8; 3]> = (0..=255).map(|grey| [grey; 3]).collect();
        colours.extend((0..2000).map(|_| [0; 3].map(|_: u8| rng.below(256) as u8)));
        let lab = apply(&view("[{ kind = 'lab' }]", [1, colours.len() as i64]).unwrap(), &pixels(&colours), None);
        for (i, colour) in colours.iter().enumerate() {
            let linear = colour.map(|byte| {
                let c = f64::from(byte) / 255.0;
                if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
            });
            let f = XYZ.map(|row| {
                let white: f64 = row.iter().sum();
                let t = row.iter().zip(linear).map(|(m, c)| m * c).sum::<f64>() / white;
                if t > (6.0_f64 / 29.0).powi(3) { t.cbrt() } else { t / (3.0 * (6.0_f64 / 29.0).powi(2)) + 4.0 / 29.0 }
            });
            let exact = [116.0 * f[1] - 16.0, 500.0 * (f[0] - f[1]), 200.0 * (f[1] - f[2])];
            for channel in 0..3 {
                assert_abs_diff_eq!(lab[channel][i], exact[channel], epsilon = 2e-4);
            }
        }
    }

    #[test]
    fn a_view_is_its_steps_in_order() {
        let bytes = pixels(&[[0, 51, 255], [255, 102, 0]]);
        let plain = apply(&view("[]", [1, 2]).unwrap(), &bytes, None);
        assert_eq!(
            plain.concat().iter().map(|v| (v * 1e6).round() / 1e6).collect::<Vec<_>>(),
            [0.0, 1.0, 0.2, 0.4, 1.0, 0.0]
        );
        let steps = "[{ kind = 'luminance' }, { kind = 'normalise', mean = [50.0], std = [25.0] }]";
        let normalised = apply(&view(steps, [1, 2]).unwrap(), &bytes, None);
        let luminance = apply(&view("[{ kind = 'luminance' }]", [1, 2]).unwrap(), &bytes, None);
        for (value, raw) in normalised[0].iter().zip(&luminance[0]) {
            assert_abs_diff_eq!(*value, (raw - 50.0) / 25.0, epsilon = 1e-6);
        }
        // Halving averages two pixels under a triangle of four: with antialiasing, 3/8 of the nearer, 1/8 of the farther.
        let row = pixels(&[[0; 3], [80; 3], [160; 3], [240; 3]]);
        let half = apply(&view("[{ kind = 'resize', size = [1, 2] }]", [1, 4]).unwrap(), &row, None);
        let by_hand = (3.0 * 0.0 + 3.0 * 80.0 + 160.0) / 7.0 / 255.0;
        assert_abs_diff_eq!(half[0][0], by_hand, epsilon = 1e-6);
    }

    #[test]
    fn jitter_is_a_function_of_the_row_and_off_in_evaluation() {
        let steps = "[{ kind = 'jitter', brightness = 0.4, contrast = 0.4, saturation = 0.4, hue = 0.1 }]";
        let pipeline = view(steps, [4, 4]).unwrap();
        let mut rng = Seed::new(1).rng();
        let bytes: Vec<u8> = (0..6 * 48).map(|_| rng.below(256) as u8).collect();
        let bytes = Tensor::from_slice(&bytes).view([6, 4, 4, 3]);
        let rows = Tensor::from_slice(&[5_i64, 9, 2, 7, 0, 1]);
        let seed = Some(Seed::new(8));
        let all = pipeline.apply(&bytes, &rows, seed);
        let one = pipeline.apply(&bytes.narrow(0, 3, 1), &rows.narrow(0, 3, 1), seed);
        assert_eq!(one.get(0), all.get(3));
        assert!(all.min().double_value(&[]) >= 0.0 && all.max().double_value(&[]) <= 1.0);
        assert_ne!(all, pipeline.apply(&bytes, &rows, Some(Seed::new(9))));
        let plain = view("[]", [4, 4]).unwrap().apply(&bytes, &rows, None);
        assert_eq!(pipeline.apply(&bytes, &rows, None), plain);
    }

    #[test]
    fn a_third_of_the_circle_turns_red_to_green() {
        fn turned(rgb: &Tensor, share: f32) -> Tensor {
            turn_hue(rgb, &Tensor::from_slice(&[share]).view([1, 1, 1, 1]))
        }

        let colours = pixels(&[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90], [200, 100, 50]]);
        let rgb = view("[]", [1, 5]).unwrap().apply(&colours, &Tensor::from_slice(&[0_i64]), None);
        let third = turned(&rgb, 1.0 / 3.0);
        let expected = rgb.index_select(1, &Tensor::from_slice(&[2_i64, 0, 1]));
        assert!((third - expected).abs().max().double_value(&[]) < 1e-5);
        for share in [0.0, 1.0, -1.0] {
            assert!((turned(&rgb, share) - &rgb).abs().max().double_value(&[]) < 1e-5);
        }
    }

    #[test]
    fn steps_that_do_not_fit_are_refused() {
        fn error(steps: &str) -> String {
            view(steps, [4, 4]).unwrap_err().to_string()
        }

        assert_eq!(
            error("[{ kind = 'normalise', mean = [0, 0, 0], std = [1, 1, 1] }, { kind = 'lab' }]"),
            "view `mine`: `lab` must come before `normalise` and other colours"
        );
        assert_eq!(
            error("[{ kind = 'ab' }, { kind = 'jitter', hue = 0.1 }]"),
            "view `mine`: `jitter` needs 3 channels (red, green, blue), but gets 2"
        );
        assert_eq!(
            error("[{ kind = 'normalise', mean = [0], std = [1] }]"),
            "view `mine`: mean must have a value for each of 3 channels, not 1"
        );
        assert_eq!(error("[{ kind = 'jitter', hue = 0.7 }]"), "view `mine`: hue is 0 to 0.5, not 0.7");
        assert_eq!(
            error("[{ kind = 'resize', size = [0, 4] }]"),
            "view `mine`: a size is 1 to 8192 pixels, not [0, 4]"
        );
        let views =
            ViewConfigs::from_iter([("x".to_owned(), ViewConfig { from: Some("night".into()), steps: vec![] })]);
        let message = pipelines(&[image([2, 2])], &views, CPU).unwrap_err().to_string();
        assert_eq!(message, "view `x`: the data have no `night`; they have image");
    }
}
