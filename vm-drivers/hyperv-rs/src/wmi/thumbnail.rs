//! The screen: `GetVirtualSystemThumbnailImage` gives RGB565, little endian, without header.
//!
//! ```text
//! byte 1     byte 0
//! rrrrrggg   gggbbbbb      5, 6, 5 bits; each widened so that all ones become 255
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A cap on what is believed: 4096 x 4096 pixels.
const MAX_SIDE: u32 = 4096;

/// The host's answer, as it crosses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThumbnailAnswer {
    pub width: u32,
    pub height: u32,
    /// Base64.
    pub rgb565: String,
}

/// A picture in rows from the top, three bytes a pixel: what a PNG of eight bits RGB is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    pub width: u32,
    pub height: u32,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Screenshot {
    pub fn from_rgb565(width: u32, height: u32, raw: &[u8]) -> Result<Self> {
        let invalid = |reason: String| Error::Invalid { what: "screenshot", reason };
        if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(invalid(format!("{width} x {height} pixels")));
        }
        let expected = (width * height * 2) as usize;
        if raw.len() != expected {
            return Err(invalid(format!(
                "{} bytes instead of {expected} for {width} x {height}",
                raw.len()
            )));
        }
        let mut rgb = Vec::with_capacity(expected / 2 * 3);
        for pixel in raw.chunks_exact(2) {
            let pixel = u16::from_le_bytes([pixel[0], pixel[1]]);
            let widen = |value: u16, bits: u32| {
                let max = (1u32 << bits) - 1;
                ((u32::from(value) * 255 + max / 2) / max) as u8
            };
            rgb.extend([widen(pixel >> 11, 5), widen((pixel >> 5) & 63, 6), widen(pixel & 31, 5)]);
        }
        Ok(Self { width, height, rgb })
    }
}

impl ThumbnailAnswer {
    pub fn screenshot(&self) -> Result<Screenshot> {
        let raw = STANDARD
            .decode(&self.rgb565)
            .map_err(|e| Error::Invalid { what: "screenshot", reason: e.to_string() })?;
        Screenshot::from_rgb565(self.width, self.height, &raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pure_colours_stay_pure() {
        let raw: Vec<u8> = [0xf800u16, 0x07e0, 0x001f, 0xffff, 0, 0x8410]
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect();
        let shot = Screenshot::from_rgb565(3, 2, &raw).unwrap();
        assert_eq!(&shot.rgb[..12], [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]);
        assert_eq!(&shot.rgb[12..], [0, 0, 0, 132, 130, 132]);
    }

    #[test]
    fn a_picture_of_the_wrong_length_is_refused() {
        assert!(Screenshot::from_rgb565(2, 2, &[0; 7]).is_err());
        assert!(Screenshot::from_rgb565(0, 2, &[]).is_err());
        assert!(Screenshot::from_rgb565(u32::MAX, u32::MAX, &[]).is_err());
        let hostile = ThumbnailAnswer { width: 1, height: 1, rgb565: "!!".into() };
        assert!(hostile.screenshot().is_err());
    }
}
