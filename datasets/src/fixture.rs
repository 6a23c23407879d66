//! Pictures and folders for tests.

use std::fs;
use std::path::Path;

/// A smooth picture of `[H, W, C]`: JPEG keeps it nearly.
pub fn smooth([height, width]: [usize; 2], channels: usize, salt: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for y in 0..height {
        for x in 0..width {
            bytes.extend((0..channels).map(|c| (40 + 3 * x + 2 * y + 20 * c + 7 * salt) as u8 % 200));
        }
    }
    bytes
}

/// A PNG file.
pub fn png(size: [usize; 2], color: png::ColorType, bytes: &[u8]) -> Vec<u8> {
    encode(size, color, png::BitDepth::Eight, bytes)
}

/// A PNG file of values of 16 bits, the higher byte first.
pub fn png_of_16_bits(size: [usize; 2], color: png::ColorType, bytes: &[u8]) -> Vec<u8> {
    encode(size, color, png::BitDepth::Sixteen, bytes)
}

fn encode([height, width]: [usize; 2], color: png::ColorType, depth: png::BitDepth, bytes: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette((0..=255).flat_map(|i| [i, 255 - i, 7]).collect::<Vec<u8>>());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(bytes).unwrap();
    writer.finish().unwrap();
    file
}

/// A PNG file in colour.
pub fn rgb_png(size: [usize; 2], salt: usize) -> Vec<u8> {
    png(size, png::ColorType::Rgb, &smooth(size, 3, salt))
}

/// A PNG file in grey.
pub fn grey_png(size: [usize; 2], salt: usize) -> Vec<u8> {
    png(size, png::ColorType::Grayscale, &smooth(size, 1, salt))
}

/// A JPEG file of the highest quality, in colour or grey.
pub fn jpeg([height, width]: [usize; 2], channels: usize, salt: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let color = if channels == 3 { jpeg_encoder::ColorType::Rgb } else { jpeg_encoder::ColorType::Luma };
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 100);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
    encoder.encode(&smooth([height, width], channels, salt), width as u16, height as u16, color).unwrap();
    file
}

/// Writes a file and the folders above it.
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}
