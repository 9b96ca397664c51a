//! One file record: fixups, header, attributes.
//!
//! ```text
//! record  0x00 "FILE"  0x04 u16 fixup offset, 0x06 u16 fixup count  0x08 u64 LSN
//!         0x10 u16 sequence  0x14 u16 first attribute  0x16 u16 flags  0x18 u32 used bytes
//!         0x20 u64 base record reference  0x2C u32 own number
//! attribute  0x00 u32 type, 0x04 u32 length, 0x08 u8 non-resident, 0x09 u8 name length,
//!            0x0A u16 name offset, 0x0C u16 flags, 0x0E u16 id
//!   resident      0x10 u32 value length, 0x14 u16 value offset
//!   non-resident  0x10 u64 first VCN, 0x18 u64 last VCN, 0x20 u16 runs offset,
//!                 0x22 u8 log2 of the compression unit, 0x28/0x30/0x38 u64 allocated, size, valid
//! ```

use crate::boot::STRIDE;
use crate::error::Fault;
use crate::raw::{u16_at, u32_at, u64_at};

/// Attribute types.
pub(crate) mod kind {
    pub const STANDARD_INFORMATION: u32 = 0x10;
    pub const ATTRIBUTE_LIST: u32 = 0x20;
    pub const FILE_NAME: u32 = 0x30;
    pub const OBJECT_ID: u32 = 0x40;
    pub const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub const VOLUME_NAME: u32 = 0x60;
    pub const VOLUME_INFORMATION: u32 = 0x70;
    pub const DATA: u32 = 0x80;
    pub const INDEX_ROOT: u32 = 0x90;
    pub const INDEX_ALLOCATION: u32 = 0xA0;
    pub const BITMAP: u32 = 0xB0;
    pub const REPARSE_POINT: u32 = 0xC0;
    pub const EA: u32 = 0xE0;
    pub const END: u32 = 0xFFFF_FFFF;
}

/// Attribute header flags.
pub(crate) mod flag {
    pub const COMPRESSION_MASK: u16 = 0x00FF;
    pub const LZNT1: u16 = 0x0001;
    pub const SPARSE: u16 = 0x8000;
    pub const ENCRYPTED: u16 = 0x4000;
}

/// Keeps VCN times the largest cluster below 2^63.
const MAX_VCN: u64 = 1 << 42;

const IN_USE: u16 = 0x1;
const DIRECTORY: u16 = 0x2;

/// A file reference: which record, and which use of that record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileRef {
    pub record: u64,
    pub sequence: u16,
}

impl FileRef {
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self { record: raw & 0xFFFF_FFFF_FFFF, sequence: (raw >> 48) as u16 }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub in_use: bool,
    pub directory: bool,
    pub sequence: u16,
    pub lsn: u64,
    /// Zero for a base record; extensions of `$MFT` have record 0 here, with its sequence.
    pub base: FileRef,
    first_attribute: usize,
    used: usize,
}

/// Puts back the two bytes at the end of every 512 that the update sequence replaced.
pub(crate) fn fix_up(block: &mut [u8]) -> Result<(), Fault> {
    let start = usize::from(u16_at(block, 4).unwrap_or(0));
    let count = usize::from(u16_at(block, 6).unwrap_or(0));
    let strides = block.len() / STRIDE;
    if count != strides + 1 || start < 8 || start % 2 != 0 || start + 2 * count > STRIDE - 2 {
        return Err(Fault::new(4, "update sequence array does not fit the block"));
    }
    let check = [block[start], block[start + 1]];
    for i in 0..strides {
        let tail = (i + 1) * STRIDE - 2;
        if block[tail..tail + 2] != check {
            return Err(Fault::new(tail, "torn write: update sequence number differs"));
        }
        let saved = start + 2 * (i + 1);
        block.copy_within(saved..saved + 2, tail);
    }
    Ok(())
}

impl Header {
    /// Of a record that is fixed up; `number` is where it was found.
    pub fn parse(record: &[u8], number: u64) -> Result<Self, Fault> {
        let short = Fault::new(0, "record is too short");
        let flags = u16_at(record, 0x16).ok_or(short)?;
        let first_attribute = usize::from(u16_at(record, 0x14).ok_or(short)?);
        let used = u32_at(record, 0x18).ok_or(short)? as usize;
        let header = Self {
            in_use: flags & IN_USE != 0,
            directory: flags & DIRECTORY != 0,
            sequence: u16_at(record, 0x10).ok_or(short)?,
            lsn: u64_at(record, 8).ok_or(short)?,
            base: FileRef::from_raw(u64_at(record, 0x20).ok_or(short)?),
            first_attribute,
            used,
        };
        if !header.in_use {
            return Ok(header);
        }
        if used > record.len() {
            return Err(Fault::new(0x18, "used size exceeds the record"));
        }
        if first_attribute < 0x2A || first_attribute % 8 != 0 || first_attribute + 4 > used {
            return Err(Fault::new(0x14, "first attribute lies outside the record"));
        }
        // NTFS 3.0 and older have no own number; there the fixup array starts at 0x2A.
        if u16_at(record, 4).unwrap_or(0) >= 0x30
            && u64::from(u32_at(record, 0x2C).unwrap_or(0)) != number & 0xFFFF_FFFF
        {
            return Err(Fault::new(0x2C, "record carries another record's number"));
        }
        Ok(header)
    }

    /// Whether the record belongs to a file that begins in another one.
    pub fn is_extension(&self) -> bool {
        self.base != FileRef::default()
    }

    pub fn attributes<'a>(&self, record: &'a [u8]) -> Attributes<'a> {
        Attributes { record: &record[..self.used], at: self.first_attribute }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub kind: u32,
    /// UTF-16LE bytes.
    pub name: &'a [u8],
    pub flags: u16,
    pub id: u16,
    /// Where in the record it starts.
    pub at: usize,
    pub body: Body<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    Resident(&'a [u8]),
    Mapped(Mapping<'a>),
}

/// The header of a non-resident attribute, or of one piece of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping<'a> {
    pub first_vcn: u64,
    /// One past the last VCN.
    pub end_vcn: u64,
    pub unit_log2: u8,
    pub len: u64,
    pub valid: u64,
    pub runs: &'a [u8],
    /// Where in the record the run list starts.
    pub runs_at: usize,
}

impl<'a> Attribute<'a> {
    pub fn first_vcn(&self) -> u64 {
        match &self.body {
            Body::Resident(_) => 0,
            Body::Mapped(mapping) => mapping.first_vcn,
        }
    }

    pub fn resident(&self) -> Result<&'a [u8], Fault> {
        match self.body {
            Body::Resident(value) => Ok(value),
            Body::Mapped(_) => Err(Fault::new(self.at, "attribute must be resident and is not")),
        }
    }
}

pub(crate) struct Attributes<'a> {
    record: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    fn parse(&mut self) -> Result<Option<Attribute<'a>>, Fault> {
        let at = self.at;
        let fault = |what| Fault::new(at, what);
        let kind = u32_at(self.record, at).ok_or(fault("attributes have no end mark"))?;
        if kind == kind::END {
            return Ok(None);
        }
        let length = u32_at(self.record, at + 4).ok_or(fault("attribute header is cut"))? as usize;
        if length < 24 || !length.is_multiple_of(8) || length > self.record.len() - at {
            return Err(fault("attribute length leaves the record"));
        }
        let bytes = &self.record[at..at + length];
        let name_at = usize::from(u16_at(bytes, 10).unwrap_or(0));
        let name = match usize::from(bytes[9]) * 2 {
            // Not `&[]`, whose pointer leads nowhere: comparing two of those faults inside the
            // processor, which took half the time of a scan.
            0 => &bytes[..0],
            len => bytes.get(name_at..name_at + len).ok_or(fault("attribute name leaves it"))?,
        };
        let body = match bytes[8] {
            0 => {
                let len = u32_at(bytes, 16).unwrap_or(0) as usize;
                let start = usize::from(u16_at(bytes, 20).unwrap_or(0));
                let value = start
                    .checked_add(len)
                    .and_then(|end| bytes.get(start..end))
                    .ok_or(fault("resident value leaves its attribute"))?;
                Body::Resident(value)
            }
            1 => Body::Mapped(mapping(bytes, at)?),
            _ => return Err(fault("attribute is neither resident nor mapped")),
        };
        self.at += length;
        Ok(Some(Attribute {
            kind,
            name,
            flags: u16_at(bytes, 12).unwrap_or(0),
            id: u16_at(bytes, 14).unwrap_or(0),
            at,
            body,
        }))
    }
}

fn mapping(bytes: &[u8], at: usize) -> Result<Mapping<'_>, Fault> {
    if bytes.len() < 64 {
        return Err(Fault::new(at, "non-resident attribute header is cut"));
    }
    let field = |offset| u64_at(bytes, offset).unwrap_or(0);
    let runs_at = usize::from(u16_at(bytes, 0x20).unwrap_or(0));
    let runs = bytes
        .get(runs_at..)
        .filter(|_| runs_at >= 64)
        .ok_or(Fault::new(at + 0x20, "run list leaves its attribute"))?;
    let first_vcn = field(0x10);
    // An empty attribute has -1 as its last VCN.
    let end_vcn = field(0x18).wrapping_add(1);
    if end_vcn < first_vcn || end_vcn > MAX_VCN {
        return Err(Fault::new(at + 0x18, "last VCN lies before the first"));
    }
    Ok(Mapping {
        first_vcn,
        end_vcn,
        unit_log2: bytes[0x22],
        len: field(0x30),
        valid: field(0x38),
        runs,
        runs_at: at + runs_at,
    })
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == usize::MAX {
            return None;
        }
        let item = self.parse().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.at = usize::MAX;
        }
        item
    }
}
