//! What a guest shows: pictures, and whether two of them are alike.

use std::path::Path;

use crate::error::{Error, Result};

/// No screen of a guest is larger; a header that says so is wrong.
const MAX_SIDE: u32 = 16_384;

/// A picture of a screen, 24 bits per pixel.
#[derive(Clone, PartialEq, Eq)]
pub struct Screen {
    pub width: u32,
    pub height: u32,
    /// Red, green, blue; rows from the top.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Screen({}x{})", self.width, self.height)
    }
}

/// A part of a screen, in pixels from the top left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

/// A picture boiled down to 64 bits: which of 8 x 8 areas are brighter than their neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScreenHash(pub u64);

impl ScreenHash {
    /// In how many of 64 places two pictures differ.
    pub fn distance(self, other: ScreenHash) -> u32 {
        (self.0 ^ other.0).count_ones()
    }
}

impl std::fmt::Display for ScreenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for ScreenHash {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.len() != 16 {
            return Err(malformed("screen hash", "it must be 16 hexadecimal digits"));
        }
        u64::from_str_radix(text, 16)
            .map(ScreenHash)
            .map_err(|e| malformed("screen hash", &e.to_string()))
    }
}

fn malformed(what: &str, reason: &str) -> Error {
    Error::Malformed { what: what.into(), reason: reason.into() }
}

impl Screen {
    /// Reads a binary PPM (`P6`, 8 bits), which is what QEMU dumps.
    pub fn from_ppm(bytes: &[u8]) -> Result<Self> {
        let bad = |reason: &str| malformed("screen dump", reason);
        let mut at = 0;
        let mut fields = [0u32; 3];
        if !bytes.starts_with(b"P6") {
            return Err(bad("it is no PPM"));
        }
        at += 2;
        for field in &mut fields {
            while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
                at += 1;
            }
            let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            *field = std::str::from_utf8(&bytes[at..at + digits])
                .ok()
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| bad("a number is missing"))?;
            at += digits;
        }
        let [width, height, depth] = fields;
        if depth != 255 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(bad(&format!("{width}x{height} with {depth} shades")));
        }
        let length = width as usize * height as usize * 3;
        let rgb = bytes.get(at + 1..at + 1 + length).ok_or_else(|| bad("it is cut short"))?;
        Ok(Self { width, height, rgb: rgb.to_vec() })
    }

    /// A PPM or PNG, as its first bytes say.
    pub fn from_picture(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"\x89PNG") {
            Self::from_png(bytes, "screenshot")
        } else {
            Self::from_ppm(bytes)
        }
    }

    /// Reads an 8-bit PNG, grey or colour.
    pub fn read_png(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        Self::from_png(&bytes, &path.display().to_string())
    }

    fn from_png(bytes: &[u8], name: &str) -> Result<Self> {
        let bad = |e: &dyn std::fmt::Display| malformed(name, &e.to_string());
        let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
        decoder.set_transformations(
            png::Transformations::normalize_to_color8() | png::Transformations::STRIP_16,
        );
        let mut reader = decoder.read_info().map_err(|e| bad(&e))?;
        let (width, height) = (reader.info().width, reader.info().height);
        if width > MAX_SIDE || height > MAX_SIDE {
            return Err(bad(&format!("{width}x{height} is no screen")));
        }
        let size = reader.output_buffer_size().ok_or_else(|| bad(&"it is too large"))?;
        let mut pixels = vec![0; size];
        let frame = reader.next_frame(&mut pixels).map_err(|e| bad(&e))?;
        pixels.truncate(frame.buffer_size());
        let samples = frame.color_type.samples();
        let rgb = pixels
            .chunks_exact(samples)
            .flat_map(|p| if samples >= 3 { [p[0], p[1], p[2]] } else { [p[0]; 3] })
            .collect();
        Ok(Self { width, height, rgb })
    }

    pub fn to_png(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let bad = |e: png::EncodingError| malformed("screenshot", &e.to_string());
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header().map_err(bad)?;
        writer.write_image_data(&self.rgb).map_err(bad)?;
        writer.finish().map_err(bad)?;
        Ok(bytes)
    }

    pub fn write_png(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.to_png()?).map_err(Error::io("write", path))
    }

    /// The part of the picture inside `region`, which may stick out of it.
    pub fn crop(&self, region: Region) -> Screen {
        let left = region.left.min(self.width);
        let top = region.top.min(self.height);
        let width = region.width.min(self.width - left);
        let height = region.height.min(self.height - top);
        let mut rgb = Vec::with_capacity(width as usize * height as usize * 3);
        for row in top..top + height {
            let begin = (row as usize * self.width as usize + left as usize) * 3;
            rgb.extend_from_slice(&self.rgb[begin..begin + width as usize * 3]);
        }
        Screen { width, height, rgb }
    }

    /// A difference hash: robust against a blinking cursor and small changes of shade.
    pub fn hash(&self) -> ScreenHash {
        let grey = self.areas(9, 8);
        let mut bits = 0;
        for row in grey.chunks_exact(9) {
            for pair in row.windows(2) {
                bits = bits << 1 | u64::from(pair[0] > pair[1]);
            }
        }
        ScreenHash(bits)
    }

    /// 0 for the same picture, 1 for black against white; pictures of other sizes are scaled.
    pub fn difference(&self, other: &Screen) -> f64 {
        const ACROSS: u32 = 64;
        const DOWN: u32 = 48;
        let (a, b) = (self.areas(ACROSS, DOWN), other.areas(ACROSS, DOWN));
        let sum: u64 = a.iter().zip(&b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        sum as f64 / (f64::from(ACROSS * DOWN) * 255.0)
    }

    /// Whether nothing is shown: one shade all over.
    pub fn is_blank(&self) -> bool {
        match self.rgb.get(..3) {
            Some(first) => self.rgb.chunks_exact(3).all(|p| p == first),
            None => true,
        }
    }

    /// Average brightness of `across` x `down` areas.
    fn areas(&self, across: u32, down: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity((across * down) as usize);
        let span = |i: u32, parts: u32, size: u32| {
            let begin = u64::from(i) * u64::from(size) / u64::from(parts);
            let end = u64::from(i + 1) * u64::from(size) / u64::from(parts);
            begin as usize..(end.max(begin + 1).min(u64::from(size))) as usize
        };
        for row in 0..down {
            for column in 0..across {
                let (mut sum, mut count) = (0u64, 0u64);
                for y in span(row, down, self.height) {
                    for x in span(column, across, self.width) {
                        let at = (y * self.width as usize + x) * 3;
                        if let Some([r, g, b]) = self.rgb.get(at..at + 3) {
                            // Rec. 601 weights.
                            sum +=
                                (299 * u64::from(*r) + 587 * u64::from(*g) + 114 * u64::from(*b))
                                    / 1000;
                            count += 1;
                        }
                    }
                }
                out.push((sum / count.max(1)) as u8);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(shade: impl Fn(u32, u32) -> u8) -> Screen {
        let (width, height) = (80, 60);
        let rgb = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .flat_map(|(x, y)| [shade(x, y); 3])
            .collect();
        Screen { width, height, rgb }
    }

    #[test]
    fn png_and_ppm_keep_every_pixel() {
        let screen = picture(|x, y| ((x * 3) ^ y) as u8);
        let mut ppm = b"P6\n80 60\n255\n".to_vec();
        ppm.extend_from_slice(&screen.rgb);
        assert_eq!(Screen::from_ppm(&ppm).unwrap(), screen);
        assert!(Screen::from_ppm(&ppm[..ppm.len() - 1]).is_err());
        assert!(Screen::from_ppm(b"P6\n99999 99999\n255\n").is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.png");
        screen.write_png(&path).unwrap();
        assert_eq!(Screen::read_png(&path).unwrap(), screen);
    }

    #[test]
    fn a_cursor_is_no_other_picture_but_a_menu_is() {
        let menu = picture(|x, y| if x > 20 && x < 60 && y > 10 && y < 50 { 200 } else { 10 });
        let mut cursor = menu.clone();
        cursor.rgb[..6].fill(255);
        assert!(menu.hash().distance(cursor.hash()) <= 2);
        assert!(menu.difference(&cursor) < 0.01);
        let other = picture(|x, _| (x * 3) as u8);
        assert!(menu.hash().distance(other.hash()) > 10);
        assert!(menu.difference(&other) > 0.1);
        assert!(picture(|_, _| 7).is_blank() && !menu.is_blank());
    }

    #[test]
    fn cropping_beyond_the_edge_gives_what_is_there() {
        let screen = picture(|x, y| (x + y) as u8);
        let part = screen.crop(Region { left: 78, top: 58, width: 10, height: 10 });
        assert_eq!((part.width, part.height), (2, 2));
        assert_eq!(part.rgb[0], 136);
        assert_eq!(screen.crop(Region { left: 500, top: 0, width: 1, height: 1 }).width, 0);
    }
}
