//! The 208 bytes at the start of a WIM, and the 24-byte resource headers in it.
//!
//! ```text
//!   0 magic[8]      8 header_size u32  12 version u32    16 flags u32    20 chunk_size u32
//!  24 guid[16]     40 part u16         42 parts u16      44 image_count u32
//!  48 blob table   72 XML              96 boot metadata (resource headers)
//! 120 boot_index u32                  124 integrity (resource header)  148 zero[60]
//! ```

use crate::codec::Compression;
use crate::error::{Error, Result};

pub const HEADER_BYTES: usize = 208;
pub(crate) const MAGIC: &[u8; 8] = b"MSWIM\0\0\0";
/// wimlib's pipable variant: the same parts in another order.
pub(crate) const MAGIC_PIPABLE: &[u8; 8] = b"WLPWM\0\0\0";
pub const VERSION_NORMAL: u32 = 0x10d00;
/// Files with solid resources (ESD).
pub const VERSION_SOLID: u32 = 0xe00;

/// Bits of the header's flags.
pub mod header_flag {
    pub const COMPRESSION: u32 = 0x2;
    pub const READONLY: u32 = 0x4;
    pub const SPANNED: u32 = 0x8;
    pub const RESOURCE_ONLY: u32 = 0x10;
    pub const METADATA_ONLY: u32 = 0x20;
    pub const WRITE_IN_PROGRESS: u32 = 0x40;
    pub const RP_FIX: u32 = 0x80;
    pub const XPRESS: u32 = 0x20000;
    pub const LZX: u32 = 0x40000;
    pub const LZMS: u32 = 0x80000;
    pub const XPRESS_2: u32 = 0x20_0000;
}

/// Bits of a resource header's flags.
pub mod resource_flag {
    pub const FREE: u8 = 0x1;
    pub const METADATA: u8 = 0x2;
    pub const COMPRESSED: u8 = 0x4;
    pub const SPANNED: u8 = 0x8;
    pub const SOLID: u8 = 0x10;
}

/// Where a resource lies in its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceHeader {
    pub offset: u64,
    /// Bytes it takes in the file; 56 bits.
    pub stored_bytes: u64,
    /// Bytes it has when read.
    pub size_bytes: u64,
    /// [`resource_flag`] bits.
    pub flags: u8,
}

/// The largest size a resource header can hold.
pub(crate) const MAX_STORED: u64 = (1 << 56) - 1;

impl ResourceHeader {
    pub(crate) fn parse(bytes: &[u8; 24]) -> Self {
        Self {
            stored_bytes: u64_at(bytes, 0) & MAX_STORED,
            flags: bytes[7],
            offset: u64_at(bytes, 8),
            size_bytes: u64_at(bytes, 16),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut out = [0; 24];
        let first = (self.stored_bytes & MAX_STORED) | (u64::from(self.flags) << 56);
        out[..8].copy_from_slice(&first.to_le_bytes());
        out[8..16].copy_from_slice(&self.offset.to_le_bytes());
        out[16..].copy_from_slice(&self.size_bytes.to_le_bytes());
        out
    }

    pub fn is_compressed(&self) -> bool {
        self.flags & resource_flag::COMPRESSED != 0
    }

    pub fn is_solid(&self) -> bool {
        self.flags & resource_flag::SOLID != 0
    }

    /// Fails unless the resource lies within a file of `file_bytes`.
    pub(crate) fn check_within(&self, file_bytes: u64, what: &'static str) -> Result<()> {
        match self.offset.checked_add(self.stored_bytes) {
            Some(end) if end <= file_bytes => Ok(()),
            _ => Err(Error::corrupt(
                self.offset,
                what,
                format!("{} bytes there", self.stored_bytes),
                format!("to end within the file's {file_bytes} bytes"),
            )),
        }
    }
}

/// The checked header of a WIM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    /// [`header_flag`] bits.
    pub flags: u32,
    pub compression: Compression,
    /// Uncompressed bytes of a chunk; 0 or anything where nothing is compressed.
    pub chunk_bytes: u32,
    pub guid: [u8; 16],
    /// 1-based number of this part, of `parts`.
    pub part: u16,
    pub parts: u16,
    pub image_count: u32,
    pub blob_table: ResourceHeader,
    pub xml: ResourceHeader,
    pub boot_metadata: ResourceHeader,
    /// 1-based; 0 means none.
    pub boot_index: u32,
    pub integrity: ResourceHeader,
    /// wimlib's pipable layout.
    pub pipable: bool,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let magic = &bytes[..8];
        let pipable = magic == MAGIC_PIPABLE;
        if magic != MAGIC && !pipable {
            return Err(Error::corrupt(0, "magic", hex(magic), "MSWIM, the start of a WIM file"));
        }
        let header_bytes = u32_at(bytes, 8);
        if header_bytes as usize != HEADER_BYTES {
            return Err(Error::corrupt(8, "header size", header_bytes, HEADER_BYTES));
        }
        let version = u32_at(bytes, 12);
        if version != VERSION_NORMAL && version != VERSION_SOLID {
            return Err(Error::unsupported(format!(
                "WIM version {version:#x} (known: {VERSION_NORMAL:#x} and {VERSION_SOLID:#x})"
            )));
        }
        let flags = u32_at(bytes, 16);
        let chunk_bytes = u32_at(bytes, 20);
        let compression = Compression::from_header(flags)?;
        if compression != Compression::None {
            compression
                .check_chunk_bytes(chunk_bytes)
                .map_err(|expected| Error::corrupt(20, "chunk size", chunk_bytes, expected))?;
        }
        let (part, parts) = (u16_at(bytes, 40), u16_at(bytes, 42));
        if part == 0 || part > parts {
            return Err(Error::corrupt(40, "part number", part, format!("1 to {parts}")));
        }
        let image_count = u32_at(bytes, 44);
        let boot_index = u32_at(bytes, 120);
        Ok(Self {
            version,
            flags,
            compression,
            chunk_bytes,
            guid: array_at(bytes, 24),
            part,
            parts,
            image_count,
            blob_table: ResourceHeader::parse(&array_at(bytes, 48)),
            xml: ResourceHeader::parse(&array_at(bytes, 72)),
            boot_metadata: ResourceHeader::parse(&array_at(bytes, 96)),
            boot_index,
            integrity: ResourceHeader::parse(&array_at(bytes, 124)),
            pipable,
        })
    }

    pub(crate) fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, if self.pipable { MAGIC_PIPABLE } else { MAGIC });
        put(8, &(HEADER_BYTES as u32).to_le_bytes());
        put(12, &self.version.to_le_bytes());
        put(16, &self.flags.to_le_bytes());
        put(20, &self.chunk_bytes.to_le_bytes());
        put(24, &self.guid);
        put(40, &self.part.to_le_bytes());
        put(42, &self.parts.to_le_bytes());
        put(44, &self.image_count.to_le_bytes());
        put(48, &self.blob_table.to_bytes());
        put(72, &self.xml.to_bytes());
        put(96, &self.boot_metadata.to_bytes());
        put(120, &self.boot_index.to_le_bytes());
        put(124, &self.integrity.to_bytes());
        out
    }
}

/// `N` bytes at `at`; the caller knows they are there.
#[inline]
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_header_keeps_56_bits_of_size_apart_from_flags() {
        let header = ResourceHeader {
            offset: 0x1234_5678_9abc_def0,
            stored_bytes: MAX_STORED,
            size_bytes: u64::MAX,
            flags: 0x15,
        };
        assert_eq!(ResourceHeader::parse(&header.to_bytes()), header);
    }
}
