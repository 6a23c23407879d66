//! One image file: decoding, and cutting a window out of it at another size.

use std::io::Cursor;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The most pixels that an image may have: what a damaged header asks for must not become an allocation.
const MOST_PIXELS: usize = 1 << 28;

/// What is said of colour where it is not wanted.
const COLOUR: &str = "the file has colour, expected grey";

/// A decoded image: bytes in the order `[H, W, C]`.
#[derive(Debug)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// 3: red, green and blue; 1: grey.
    pub channels: usize,
    /// `[H, W, C]`
    pub bytes: Vec<u8>,
}

/// A window of a picture, in pixels; fractions are allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Of the upper left corner.
    pub left: f64,
    /// Of the upper left corner.
    pub top: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

impl Picture {
    /// Decodes a JPEG or PNG file, told apart by their first bytes, to 1 or 3 channels.
    ///
    /// An alpha channel is dropped, 16 bits of a colour become 8, grey becomes three equal channels. Colour does not become
    /// grey, and grey of 16 bits, which measures something on a scale of its own, does not become 8.
    ///
    /// # Errors
    /// If the file is neither, is truncated or damaged, or has colour or 16 bits where grey is wanted.
    pub fn decode(file: &[u8], channels: usize) -> Result<Self, String> {
        match file {
            [0xff, 0xd8, ..] => jpeg(file, channels),
            [0x89, b'P', b'N', b'G', ..] if channels == 1 => {
                let image = Png::read(file, png::Transformations::EXPAND)?;
                if image.is_measure() {
                    return Err("16 bits a pixel: `full_scale` says which value of them is full scale".to_owned());
                }
                image.picture(1)
            }
            [0x89, b'P', b'N', b'G', ..] => {
                let image = Png::read(file, png::Transformations::EXPAND)?;
                if image.is_measure() {
                    return Err("grey of 16 bits a pixel: make 8 of them, by the scale that the values have".to_owned());
                }
                image.with_8_bits().picture(channels)
            }
            [] => Err("the file is empty".to_owned()),
            _ => Err("neither a JPEG nor a PNG file".to_owned()),
        }
    }

    /// Decodes a grey PNG file of 16 bits: `full_scale` and all values above it become 255, the others their share of it,
    /// rounded.
    ///
    /// # Errors
    /// If the file is no such PNG file, or is damaged.
    pub fn decode_measure(file: &[u8], full_scale: u16) -> Result<Self, String> {
        let mut image = Png::read(file, png::Transformations::IDENTITY)?;
        if image.depth != png::BitDepth::Sixteen {
            return Err(format!("{} bits a pixel, but `full_scale` is for those of 16", image.depth as u8));
        }
        if !image.is_measure() {
            return Err(COLOUR.to_owned());
        }
        let full = u32::from(full_scale);
        let values = image.bytes.chunks_exact(2).map(|pixel| u32::from(u16::from_be_bytes([pixel[0], pixel[1]])));
        image.bytes = values.map(|value| ((255 * value.min(full) + full / 2) / full) as u8).collect();
        image.depth = png::BitDepth::Eight;
        image.picture(1)
    }

    /// Decodes a PNG file whose pixels are numbers: grey values, or places in a palette.
    ///
    /// # Errors
    /// If the file is no such PNG file, or is damaged.
    pub fn decode_numbers(file: &[u8]) -> Result<Self, String> {
        Png::read(file, png::Transformations::IDENTITY)?.picture(1)
    }

    /// `window` at the size `[H, W]`, mirrored if asked for, into `out`: bytes in the order `[H, W, C]`.
    ///
    /// A window of that size at whole pixels is copied; any other is interpolated bilinearly, with antialiasing where it
    /// shrinks.
    ///
    /// # Errors
    /// If the window is not inside the picture.
    pub fn cut(&self, window: Window, [height, width]: [usize; 2], flip: bool, out: &mut [u8]) -> Result<(), String> {
        let Window { left, top, .. } = window;
        let exact = [left, top, window.width - width as f64, window.height - height as f64];
        if exact[2..] == [0.0, 0.0] && exact.iter().all(|x| x.fract() == 0.0) {
            self.copy(left as usize, top as usize, [height, width], out);
        } else {
            self.scale(window, [height, width], out)?;
        }
        if flip {
            for row in out.chunks_exact_mut(width * self.channels) {
                mirror(row, self.channels);
            }
        }
        Ok(())
    }

    fn copy(&self, left: usize, top: usize, [_, width]: [usize; 2], out: &mut [u8]) {
        let (row, pixel) = (width * self.channels, self.channels);
        for (y, target) in out.chunks_exact_mut(row).enumerate() {
            target.copy_from_slice(&self.bytes[((top + y) * self.width + left) * pixel..][..row]);
        }
    }

    fn scale(&self, window: Window, [height, width]: [usize; 2], out: &mut [u8]) -> Result<(), String> {
        let kind = if self.channels == 3 { PixelType::U8x3 } else { PixelType::U8 };
        let source = ImageRef::new(self.width as u32, self.height as u32, &self.bytes, kind);
        let target = Image::from_slice_u8(width as u32, height as u32, out, kind);
        let (source, mut target) = (source.map_err(|e| e.to_string())?, target.map_err(|e| e.to_string())?);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(
            window.left,
            window.top,
            window.width,
            window.height,
        );
        Resizer::new().resize(&source, &mut target, &options).map_err(|e| e.to_string())
    }
}

fn mirror(row: &mut [u8], channels: usize) {
    let pixels = row.len() / channels;
    for x in 0..pixels / 2 {
        for c in 0..channels {
            row.swap(x * channels + c, (pixels - 1 - x) * channels + c);
        }
    }
}

fn jpeg(file: &[u8], channels: usize) -> Result<Picture, String> {
    if !has_end(file) {
        return Err("not a sound JPEG file: truncated".to_owned());
    }
    let space = if channels == 3 { ColorSpace::RGB } else { ColorSpace::Luma };
    let options = DecoderOptions::new_fast().jpeg_set_out_colorspace(space);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(file), options);
    decoder.decode_headers().map_err(|e| format!("not a sound JPEG file: {e}"))?;
    if channels == 1 && decoder.input_colorspace().is_some_and(|space| space != ColorSpace::Luma) {
        return Err(COLOUR.to_owned());
    }
    let bytes = decoder.decode().map_err(|e| format!("not a sound JPEG file: {e}"))?;
    let info = decoder.info().ok_or("not a sound JPEG file: no header")?;
    Picture { width: info.width.into(), height: info.height.into(), channels, bytes }.checked()
}

/// Whether the marker of the end follows the last scan. Decoders make up what a truncated file lacks. Within a scan the
/// two bytes cannot occur, and a preview, which has an end of its own, comes before it.
fn has_end(file: &[u8]) -> bool {
    let scan = file.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap_or_default();
    file[scan..].windows(2).any(|pair| pair == [0xff, 0xd9])
}

/// A PNG file as it is decoded.
struct Png {
    color: png::ColorType,
    depth: png::BitDepth,
    width: usize,
    height: usize,
    /// `[H, W, C]`; two for each value of 16 bits, the higher first.
    bytes: Vec<u8>,
}

fn unsound(error: png::DecodingError) -> String {
    format!("not a sound PNG file: {error}")
}

impl Png {
    fn read(file: &[u8], how: png::Transformations) -> Result<Self, String> {
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: 4 * MOST_PIXELS });
        decoder.set_transformations(how);
        let mut reader = decoder.read_info().map_err(unsound)?;
        let (color, depth) = reader.output_color_type();
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        if width.saturating_mul(height) > MOST_PIXELS {
            return Err(format!("{width} × {height} pixels are too many"));
        }
        let mut bytes = vec![0; reader.output_buffer_size().ok_or("too many pixels")?];
        reader.next_frame(&mut bytes).map_err(unsound)?;
        reader.finish().map_err(unsound)?;
        Ok(Png { color, depth, width, height, bytes })
    }

    /// Whether it is grey of 16 bits: numbers with a scale of their own.
    fn is_measure(&self) -> bool {
        let is_grey = matches!(self.color, png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha);
        is_grey && self.depth == png::BitDepth::Sixteen
    }

    /// The higher of two bytes.
    fn with_8_bits(mut self) -> Self {
        if self.depth == png::BitDepth::Sixteen {
            self.bytes = self.bytes.chunks_exact(2).map(|value| value[0]).collect();
            self.depth = png::BitDepth::Eight;
        }
        self
    }

    fn picture(self, channels: usize) -> Result<Picture, String> {
        let Png { color, depth, width, height, bytes } = self;
        use png::ColorType::{Grayscale, GrayscaleAlpha, Indexed, Rgb, Rgba};
        if channels == 1 && matches!(color, Rgb | Rgba) {
            return Err(COLOUR.to_owned());
        }
        if depth != png::BitDepth::Eight {
            return Err(format!("{} bits a pixel, expected 8", depth as u8));
        }
        let bytes = match (color, channels) {
            (Grayscale | Indexed, 1) | (Rgb, 3) => bytes,
            (GrayscaleAlpha, 1) => bytes.chunks_exact(2).map(|pixel| pixel[0]).collect(),
            (Rgba, 3) => bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            (Grayscale, 3) => bytes.iter().flat_map(|grey| [*grey; 3]).collect(),
            (GrayscaleAlpha, 3) => bytes.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
            _ => return Err(COLOUR.to_owned()),
        };
        Picture { width, height, channels, bytes }.checked()
    }
}

impl Picture {
    fn checked(self) -> Result<Self, String> {
        let expected = self.width * self.height * self.channels;
        if self.bytes.len() == expected && expected > 0 {
            return Ok(self);
        }
        Err(format!("{} × {} pixels decoded to {} bytes", self.width, self.height, self.bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{grey_png, jpeg, png, png_of_16_bits, rgb_png, smooth};

    const SIZE: [usize; 2] = [24, 32];

    #[test]
    fn png_is_exact_in_every_form() {
        let colour = Picture::decode(&rgb_png(SIZE, 1), 3).unwrap();
        assert_eq!((colour.width, colour.height, colour.bytes), (32, 24, smooth(SIZE, 3, 1)));
        let grey = smooth(SIZE, 1, 2);
        assert_eq!(Picture::decode(&grey_png(SIZE, 2), 1).unwrap().bytes, grey);
        let tripled: Vec<u8> = grey.iter().flat_map(|g| [*g; 3]).collect();
        assert_eq!(Picture::decode(&grey_png(SIZE, 2), 3).unwrap().bytes, tripled);
        let with_alpha: Vec<u8> = smooth(SIZE, 3, 1).chunks(3).flat_map(|p| [p[0], p[1], p[2], 77]).collect();
        let file = png(SIZE, png::ColorType::Rgba, &with_alpha);
        assert_eq!(Picture::decode(&file, 3).unwrap().bytes, smooth(SIZE, 3, 1));
        // A palette is colour where colours are wanted, and numbers where numbers are.
        let file = png(SIZE, png::ColorType::Indexed, &grey);
        assert_eq!(Picture::decode_numbers(&file).unwrap().bytes, grey);
        let colours: Vec<u8> = grey.iter().flat_map(|i| [*i, 255 - i, 7]).collect();
        assert_eq!(Picture::decode(&file, 3).unwrap().bytes, colours);
        let error = Picture::decode(&rgb_png(SIZE, 1), 1).unwrap_err();
        assert_eq!(error, "the file has colour, expected grey");
    }

    #[test]
    fn sixteen_bits_are_measured_by_their_full_scale() {
        let values: [u16; 6] = [0, 19, 20, 5000, 10_000, 65_535];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        let file = png_of_16_bits([2, 3], png::ColorType::Grayscale, &bytes);
        // 255 · 19 / 10 000 = 0.4845, 255 · 20 / 10 000 = 0.51.
        assert_eq!(Picture::decode_measure(&file, 10_000).unwrap().bytes, [0, 0, 1, 128, 255, 255]);
        assert_eq!(Picture::decode_measure(&file, 65_535).unwrap().bytes, [0, 0, 0, 19, 39, 255]);
        assert_eq!(
            Picture::decode(&file, 1).unwrap_err(),
            "16 bits a pixel: `full_scale` says which value of them is full scale"
        );
        assert_eq!(Picture::decode_numbers(&file).unwrap_err(), "16 bits a pixel, expected 8");
        assert_eq!(
            Picture::decode_measure(&grey_png(SIZE, 2), 10_000).unwrap_err(),
            "8 bits a pixel, but `full_scale` is for those of 16"
        );
        assert_eq!(
            Picture::decode(&file, 3).unwrap_err(),
            "grey of 16 bits a pixel: make 8 of them, by the scale that the values have"
        );
        let colour = png_of_16_bits([1, 1], png::ColorType::Rgb, &bytes[6..]);
        assert_eq!(Picture::decode(&colour, 1).unwrap_err(), "the file has colour, expected grey");
        assert_eq!(Picture::decode_measure(&colour, 10_000).unwrap_err(), "the file has colour, expected grey");
        assert_eq!(Picture::decode(&colour, 3).unwrap().bytes, [5000, 10_000, 65_535].map(|v: u16| (v >> 8) as u8));
    }

    #[test]
    fn jpeg_is_near() {
        for channels in [1, 3] {
            let picture = Picture::decode(&jpeg(SIZE, channels, 3), channels).unwrap();
            assert_eq!((picture.width, picture.height), (32, 24));
            let far = picture.bytes.iter().zip(smooth(SIZE, channels, 3)).filter(|(a, b)| a.abs_diff(*b) > 12).count();
            assert!(far * 20 < picture.bytes.len(), "{far} of {} bytes", picture.bytes.len());
        }
        let grey = Picture::decode(&jpeg(SIZE, 1, 3), 3).unwrap();
        assert!(grey.bytes.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
        assert_eq!(Picture::decode(&jpeg(SIZE, 3, 3), 1).unwrap_err(), "the file has colour, expected grey");
    }

    #[test]
    fn every_truncation_is_noticed() {
        for file in [jpeg(SIZE, 3, 5), rgb_png(SIZE, 5)] {
            for length in 0..file.len() {
                assert!(Picture::decode(&file[..length], 3).is_err(), "{length} of {} bytes decode", file.len());
            }
            Picture::decode(&file, 3).unwrap();
        }
        assert_eq!(Picture::decode(b"", 3).unwrap_err(), "the file is empty");
        assert_eq!(Picture::decode(b"GIF89a", 3).unwrap_err(), "neither a JPEG nor a PNG file");
    }

    #[test]
    fn damaged_files_come_back() {
        let mut rng = limbeck::seed::Seed::new(6).rng();
        for file in [jpeg(SIZE, 3, 5), rgb_png(SIZE, 5), grey_png(SIZE, 5)] {
            for _ in 0..300 {
                let mut file = file.clone();
                for _ in 0..3 {
                    let place = rng.below(file.len() as u64) as usize;
                    file[place] = rng.below(256) as u8;
                }
                // An error or a picture, never a panic.
                let _ = (Picture::decode(&file, 3).is_ok(), Picture::decode_numbers(&file).is_ok());
            }
        }
    }

    fn window(left: f64, top: f64, width: f64, height: f64) -> Window {
        Window { left, top, width, height }
    }

    #[test]
    fn a_window_of_its_own_size_is_copied_and_mirrored() {
        let picture = Picture::decode(&rgb_png(SIZE, 1), 3).unwrap();
        let mut out = vec![0; 3 * 5 * 4];
        for flip in [false, true] {
            picture.cut(window(7.0, 9.0, 4.0, 5.0), [5, 4], flip, &mut out).unwrap();
            for (i, byte) in out.iter().enumerate() {
                let (y, x, c) = (i / 12, i / 3 % 4, i % 3);
                let x = if flip { 3 - x } else { x };
                assert_eq!(*byte, picture.bytes[((9 + y) * 32 + 7 + x) * 3 + c]);
            }
        }
        assert!(picture.cut(window(30.5, 0.0, 4.0, 5.0), [5, 4], false, &mut out).is_err());
    }

    #[test]
    fn scaling_is_bilinear_with_antialiasing() {
        // A ramp of 10 a pixel stays a ramp: at half size 20 a pixel, sampled at pixel centres, edges aside.
        let bytes: Vec<u8> = (0..16).flat_map(|_| (0..16).map(|x| 10 * x)).collect();
        let ramp = Picture { width: 16, height: 16, channels: 1, bytes };
        let mut out = vec![0; 64];
        ramp.cut(window(0.0, 0.0, 16.0, 16.0), [8, 8], false, &mut out).unwrap();
        for row in out.chunks(8) {
            assert_eq!(row[1..7], [25, 45, 65, 85, 105, 125]);
        }
        ramp.cut(window(4.0, 4.0, 4.0, 4.0), [8, 8], false, &mut out).unwrap();
        for row in out.chunks(8) {
            for (x, value) in row.iter().enumerate().take(7).skip(1) {
                let exact = 10.0 * (4.0 + (x as f64 + 0.5) / 2.0 - 0.5);
                assert!((f64::from(*value) - exact).abs() <= 0.5, "{row:?}");
            }
        }
    }
}
