//! Values: name, type, bytes; read as text or numbers on demand.

use std::borrow::Cow;

use crate::cell::{NONE, cell, corrupt, name, u16_at, u32_at};
use crate::error::{Error, Result};

/// Bytes of one segment of a large value.
const SEGMENT_BYTES: usize = 16344;
const RESIDENT: u32 = 1 << 31;

/// `REG_*` types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    None,
    String,
    ExpandString,
    Binary,
    Dword,
    DwordBigEndian,
    Link,
    MultiString,
    Qword,
    /// Resource lists, property store types and whatever else programs put there.
    Other(u32),
}

impl Kind {
    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::String,
            2 => Self::ExpandString,
            3 => Self::Binary,
            4 => Self::Dword,
            5 => Self::DwordBigEndian,
            6 => Self::Link,
            7 => Self::MultiString,
            11 => Self::Qword,
            other => Self::Other(other),
        }
    }

    pub fn number(self) -> u32 {
        match self {
            Self::None => 0,
            Self::String => 1,
            Self::ExpandString => 2,
            Self::Binary => 3,
            Self::Dword => 4,
            Self::DwordBigEndian => 5,
            Self::Link => 6,
            Self::MultiString => 7,
            Self::Qword => 11,
            Self::Other(number) => number,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value<'h> {
    name: String,
    kind: Kind,
    bytes: Cow<'h, [u8]>,
}

impl<'h> Value<'h> {
    /// ```text
    /// "vk"  0x02 u16 name length  0x04 u32 length (high bit: data is the offset field itself)
    /// 0x08 u32 data  0x0C u32 type  0x10 u16 flags (1: Latin-1 name)  0x14 name
    /// ```
    pub(crate) fn parse(bins: &'h [u8], offset: u32, minor: u32) -> Result<Self> {
        let vk = cell(bins, offset)?;
        let cut = || corrupt(offset, "value is cut");
        if vk.get(..2) != Some(b"vk") {
            return Err(corrupt(offset, "not a value"));
        }
        let name_len = usize::from(u16_at(vk, 2).ok_or_else(cut)?);
        let length = u32_at(vk, 4).ok_or_else(cut)?;
        let data = u32_at(vk, 8).ok_or_else(cut)?;
        let kind = Kind::from_number(u32_at(vk, 12).ok_or_else(cut)?);
        let latin = u16_at(vk, 16).ok_or_else(cut)? & 1 != 0;
        let name_bytes = vk.get(20..20 + name_len).ok_or_else(cut)?;
        let bytes = if length & RESIDENT != 0 {
            let len = ((length & !RESIDENT) as usize).min(4);
            Cow::Borrowed(&vk[8..8 + len])
        } else if length == 0 || data == NONE {
            Cow::Borrowed(&[][..])
        } else {
            data_of(bins, data, length as usize, minor)?
        };
        Ok(Self { name: name(name_bytes, latin), kind, bytes })
    }

    /// Empty for the default value of a key.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn wrong(&self, wanted: &'static str) -> Error {
        Error::WrongType { name: self.name.clone(), found: self.kind.number(), wanted }
    }

    fn units(&self) -> Vec<u16> {
        self.bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }

    /// A string, up to its first NUL. Environment variables are not expanded.
    pub fn text(&self) -> Result<String> {
        match self.kind {
            Kind::String | Kind::ExpandString | Kind::Link => {
                let units = self.units();
                let end = units.iter().position(|&unit| unit == 0).unwrap_or(units.len());
                Ok(String::from_utf16_lossy(&units[..end]))
            }
            _ => Err(self.wrong("a string")),
        }
    }

    pub fn texts(&self) -> Result<Vec<String>> {
        match self.kind {
            Kind::MultiString => {
                let units = self.units();
                let mut all: Vec<String> =
                    units.split(|&unit| unit == 0).map(String::from_utf16_lossy).collect();
                // The list ends with an empty string.
                while all.last().is_some_and(String::is_empty) {
                    all.pop();
                }
                Ok(all)
            }
            _ => self.text().map(|text| vec![text]),
        }
    }

    pub fn dword(&self) -> Result<u32> {
        let four: Option<[u8; 4]> = self.bytes.get(..4).and_then(|bytes| bytes.try_into().ok());
        match (self.kind, four) {
            (Kind::Dword, Some(bytes)) => Ok(u32::from_le_bytes(bytes)),
            (Kind::DwordBigEndian, Some(bytes)) => Ok(u32::from_be_bytes(bytes)),
            _ => Err(self.wrong("a 32-bit number")),
        }
    }

    pub fn qword(&self) -> Result<u64> {
        let eight: Option<[u8; 8]> = self.bytes.get(..8).and_then(|bytes| bytes.try_into().ok());
        match (self.kind, eight) {
            (Kind::Qword, Some(bytes)) => Ok(u64::from_le_bytes(bytes)),
            _ => self.dword().map(u64::from).map_err(|_| self.wrong("a 64-bit number")),
        }
    }
}

/// Data of a value that is not in the value itself. Above 16344 bytes and since version 1.4 it is
/// in segments: `"db", u16 count, u32 list of offsets`.
fn data_of(bins: &[u8], offset: u32, len: usize, minor: u32) -> Result<Cow<'_, [u8]>> {
    let data = cell(bins, offset)?;
    let cut = || corrupt(offset, "data of a value is cut");
    if len <= SEGMENT_BYTES || minor < 4 || data.get(..2) != Some(b"db") {
        return data.get(..len).map(Cow::Borrowed).ok_or_else(cut);
    }
    let count = usize::from(u16_at(data, 2).ok_or_else(cut)?);
    let list = cell(bins, u32_at(data, 4).ok_or_else(cut)?)?;
    // Segments are real bytes of the hive; a claim of more is refused before memory is taken.
    if len > bins.len() || count != len.div_ceil(SEGMENT_BYTES) {
        return Err(cut());
    }
    let mut out = Vec::with_capacity(len);
    for i in 0..count {
        let segment = cell(bins, u32_at(list, i * 4).ok_or_else(cut)?)?;
        let wanted = (len - out.len()).min(SEGMENT_BYTES);
        out.extend_from_slice(segment.get(..wanted).ok_or_else(cut)?);
    }
    Ok(Cow::Owned(out))
}
