//! How the resources of a WIM are compressed, and what each program accepts.

use crate::error::{Error, Result};
use crate::header::header_flag;
pub use gilt_codec::Level;
use gilt_codec::{Codec, Decompressor};
use std::sync::Mutex;

/// What Microsoft's tools read for XPRESS and LZX.
pub const DEFAULT_CHUNK_BYTES: u32 = 32 * 1024;
/// Largest chunk any codec of a WIM may have.
const MAX_CHUNK_BYTES: u32 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    /// LZ77 + Huffman of [MS-XCA]: fast.
    Xpress,
    /// What `install.wim` is made of.
    Lzx,
    /// What ESD files are made of.
    Lzms,
}

impl Compression {
    pub(crate) fn from_header(flags: u32) -> Result<Self> {
        if flags & header_flag::COMPRESSION == 0 {
            return Ok(Self::None);
        }
        let known = [
            (header_flag::XPRESS, Self::Xpress),
            (header_flag::XPRESS_2, Self::Xpress),
            (header_flag::LZX, Self::Lzx),
            (header_flag::LZMS, Self::Lzms),
        ];
        let mut found = known.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, which)| *which);
        match (found.next(), found.next()) {
            (Some(which), None) => Ok(which),
            _ => Err(Error::corrupt(16, "flags", format!("{flags:#x}"), "one compression type")),
        }
    }

    pub(crate) fn header_flags(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Xpress => header_flag::COMPRESSION | header_flag::XPRESS,
            Self::Lzx => header_flag::COMPRESSION | header_flag::LZX,
            Self::Lzms => header_flag::COMPRESSION | header_flag::LZMS,
        }
    }

    /// The number in the head of a solid resource.
    pub(crate) fn from_solid_format(format: u32) -> Option<Self> {
        [Self::None, Self::Xpress, Self::Lzx, Self::Lzms].get(format as usize).copied()
    }

    pub(crate) fn solid_format(self) -> u32 {
        self as u32
    }

    /// The chunk sizes any program writes; `Err` says what was expected.
    pub(crate) fn check_chunk_bytes(self, chunk_bytes: u32) -> Result<(), &'static str> {
        let (range, expected) = match self {
            Self::None => (1..=MAX_CHUNK_BYTES, "a power of two up to 1 GiB"),
            Self::Xpress => (4096..=65536, "a power of two from 4 KiB to 64 KiB for XPRESS"),
            Self::Lzx => (32768..=1 << 21, "a power of two from 32 KiB to 2 MiB for LZX"),
            Self::Lzms => (32768..=MAX_CHUNK_BYTES, "a power of two from 32 KiB to 1 GiB for LZMS"),
        };
        if range.contains(&chunk_bytes) && chunk_bytes.is_power_of_two() {
            Ok(())
        } else {
            Err(expected)
        }
    }

    pub(crate) fn codec(self) -> Option<Codec> {
        match self {
            Self::None => None,
            Self::Xpress => Some(Codec::Xpress),
            Self::Lzx => Some(Codec::Lzx),
            Self::Lzms => Some(Codec::Lzms),
        }
    }

    /// What to take where nothing else is asked for.
    pub fn default_chunk_bytes(self) -> u32 {
        match self {
            Self::Lzms => 128 * 1024,
            _ => DEFAULT_CHUNK_BYTES,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Xpress => "xpress",
            Self::Lzx => "lzx",
            Self::Lzms => "lzms",
        }
    }
}

impl std::str::FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "none" => Ok(Self::None),
            "xpress" => Ok(Self::Xpress),
            "lzx" => Ok(Self::Lzx),
            "lzms" => Ok(Self::Lzms),
            _ => Err(Error::Options(format!("compression {text}: none, xpress, lzx or lzms"))),
        }
    }
}

/// Decompressors kept for the next reader of the same codec and chunk size.
#[derive(Default)]
pub(crate) struct DecompressorPool(Mutex<Vec<(Codec, u32, Decompressor)>>);

/// More than this many idle ones are dropped.
const IDLE_DECOMPRESSORS: usize = 32;

impl DecompressorPool {
    pub fn take(&self, codec: Codec, chunk_bytes: u32) -> Result<Decompressor> {
        let mut idle = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(at) = idle.iter().position(|(c, bytes, _)| *c == codec && *bytes == chunk_bytes)
        {
            return Ok(idle.swap_remove(at).2);
        }
        drop(idle);
        Decompressor::new(codec, chunk_bytes).map_err(|error| Error::unsupported(error.to_string()))
    }

    pub fn give(&self, codec: Codec, chunk_bytes: u32, decompressor: Decompressor) {
        let mut idle = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        if idle.len() < IDLE_DECOMPRESSORS {
            idle.push((codec, chunk_bytes, decompressor));
        }
    }
}
