//! The Windows structures that ntfs-3g takes through extended attributes.

use anyhow::{Context, Result};
use gilt_codec::{Codec, Compressor, Level};

/// A self-relative descriptor: owner, group, and `aces` entries for made-up accounts.
pub fn security_descriptor(owner: u32, aces: u32) -> Vec<u8> {
    let sid = |rid: u32| {
        let mut sid = vec![1, 5, 0, 0, 0, 0, 0, 5];
        for part in [21, 1_000_001, 1_000_002, 1_000_003, rid] {
            sid.extend_from_slice(&u32::to_le_bytes(part));
        }
        sid
    };
    let owner_sid = sid(owner);
    let sid_len = owner_sid.len();
    let ace_len = 8 + sid_len;
    let acl_len = 8 + ace_len * aces as usize;
    let dacl_at = 20;
    let owner_at = dacl_at + acl_len;
    let mut sd = vec![1, 0, 0x04, 0x80];
    for field in [owner_at, owner_at + sid_len, 0, dacl_at] {
        sd.extend_from_slice(&(field as u32).to_le_bytes());
    }
    sd.extend_from_slice(&[2, 0]);
    sd.extend_from_slice(&(acl_len as u16).to_le_bytes());
    sd.extend_from_slice(&(aces as u16).to_le_bytes());
    sd.extend_from_slice(&[0, 0]);
    for ace in 0..aces {
        sd.extend_from_slice(&[0, 3]);
        sd.extend_from_slice(&(ace_len as u16).to_le_bytes());
        sd.extend_from_slice(&0x001F_01FFu32.to_le_bytes());
        sd.extend_from_slice(&sid(1000 + ace));
    }
    sd.extend_from_slice(&owner_sid);
    sd.extend_from_slice(&sid(513));
    sd
}

fn reparse(tag: u32, data: &[u8]) -> Vec<u8> {
    let mut out = tag.to_le_bytes().to_vec();
    out.extend_from_slice(&(data.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(data);
    out
}

pub fn other_reparse(tag: u32, data: &[u8]) -> Vec<u8> {
    // Tags without the Microsoft bit carry a GUID that the length does not count.
    if tag & 0x8000_0000 != 0 {
        return reparse(tag, data);
    }
    let mut out = reparse(tag, data);
    out.splice(8..8, *b"a made-up guid..");
    out
}

fn names(substitute: &str, print: &str, flags: Option<u32>) -> Vec<u8> {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let (substitute, print) = (utf16(substitute), utf16(print));
    let mut out = Vec::new();
    // Names are NUL-terminated where Windows makes junctions; lengths do not count the NUL.
    let print_at = substitute.len() + 2;
    for field in [0, substitute.len(), print_at, print.len()] {
        out.extend_from_slice(&(field as u16).to_le_bytes());
    }
    if let Some(flags) = flags {
        out.extend_from_slice(&flags.to_le_bytes());
    }
    out.extend_from_slice(&substitute);
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&print);
    out.extend_from_slice(&[0, 0]);
    out
}

pub fn symlink(target: &str, relative: bool) -> Vec<u8> {
    let substitute = if relative { target.to_owned() } else { format!(r"\??\{target}") };
    reparse(0xA000_000C, &names(&substitute, target, Some(u32::from(relative))))
}

pub fn junction(target: &str) -> Vec<u8> {
    reparse(0xA000_0003, &names(&format!(r"\??\{target}"), target, None))
}

/// One EA in the form on disk.
pub fn ea(name: &str, value: &[u8]) -> Vec<u8> {
    let len = (8 + name.len() + 1 + value.len()).next_multiple_of(4);
    let mut out = (len as u32).to_le_bytes().to_vec();
    out.push(0);
    out.push(name.len() as u8);
    out.extend_from_slice(&(value.len() as u16).to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    out.extend_from_slice(value);
    out.resize(len, 0);
    out
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wof {
    Xpress4k,
    Lzx32k,
    Xpress8k,
    Xpress16k,
}

impl Wof {
    pub const ALL: [Self; 4] = [Self::Xpress4k, Self::Lzx32k, Self::Xpress8k, Self::Xpress16k];

    fn number(self) -> u32 {
        match self {
            Self::Xpress4k => 0,
            Self::Lzx32k => 1,
            Self::Xpress8k => 2,
            Self::Xpress16k => 3,
        }
    }

    fn chunk_bytes(self) -> usize {
        match self {
            Self::Xpress4k => 4096,
            Self::Lzx32k => 32768,
            Self::Xpress8k => 8192,
            Self::Xpress16k => 16384,
        }
    }

    pub fn reparse_point(self) -> Vec<u8> {
        let fields = [1u32, 2, 1, self.number()];
        reparse(0x8000_0017, &fields.iter().flat_map(|f| f.to_le_bytes()).collect::<Vec<_>>())
    }

    /// The `WofCompressedData` of `contents`.
    pub fn pack(self, contents: &[u8]) -> Result<Vec<u8>> {
        let codec = if self == Self::Lzx32k { Codec::Lzx } else { Codec::Xpress };
        let mut compressor = Compressor::new(codec, self.chunk_bytes() as u32, Level::Default)
            .context("making a compressor")?;
        let mut packed = Vec::new();
        let mut ends = Vec::new();
        let mut chunk_out = Vec::new();
        for chunk in contents.chunks(self.chunk_bytes()) {
            let smaller = compressor.compress(chunk, &mut chunk_out);
            packed.extend_from_slice(if smaller { &chunk_out } else { chunk });
            ends.push(packed.len() as u32);
        }
        ends.pop();
        let mut out: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        out.extend_from_slice(&packed);
        Ok(out)
    }
}
