//! System compression ("CompactOS", Windows Overlay Filter): a sparse file with a reparse point
//! and its contents, packed, in the stream `WofCompressedData`.
//!
//! ```text
//! reparse data  u32 version 1, u32 provider (1 WIM, 2 file), u32 version 1, u32 algorithm
//! stream        (chunks - 1) offsets of u32, or u64 above 4 GiB, counted from the table's end;
//!               then the chunks; one as long as its data is stored as it is
//! ```

use std::io::{self, Read};

use gilt_codec::{Codec, Decompressor};

use crate::content::RawReader;
use crate::error::{Place, bad_data};
use crate::raw::u32_at;

pub(crate) const STREAM_NAME: &str = "WofCompressedData";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Algorithm {
    Xpress4k,
    Lzx32k,
    Xpress8k,
    Xpress16k,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    Wim,
    File(Algorithm),
}

/// Who serves the file; `None` for what no documented version writes.
pub(crate) fn provider(data: &[u8]) -> Option<Provider> {
    if u32_at(data, 0)? != 1 {
        return None;
    }
    match (u32_at(data, 4)?, u32_at(data, 8)) {
        (1, _) => Some(Provider::Wim),
        (2, Some(1)) => Some(Provider::File(match u32_at(data, 12)? {
            0 => Algorithm::Xpress4k,
            1 => Algorithm::Lzx32k,
            2 => Algorithm::Xpress8k,
            3 => Algorithm::Xpress16k,
            _ => return None,
        })),
        _ => None,
    }
}

impl Algorithm {
    pub fn chunk_bytes(self) -> u32 {
        match self {
            Self::Xpress4k => 4 << 10,
            Self::Xpress8k => 8 << 10,
            Self::Xpress16k => 16 << 10,
            Self::Lzx32k => 32 << 10,
        }
    }

    fn codec(self) -> Codec {
        match self {
            Self::Lzx32k => Codec::Lzx,
            _ => Codec::Xpress,
        }
    }
}

/// Table entries read at once.
const TABLE_WINDOW: usize = 4096;

/// The contents, chunk after chunk.
pub(crate) struct WofReader<'a> {
    packed: RawReader<'a>,
    record: u64,
    /// Bytes of the contents.
    len: u64,
    chunk_bytes: u32,
    chunks: u64,
    wide: bool,
    /// Offset of the first chunk in the packed stream.
    base: u64,
    decompressor: Decompressor,
    /// Ends of chunks `window_first ..`.
    window: Vec<u64>,
    window_first: u64,
    next_chunk: u64,
    /// Start of the next chunk, from `base`.
    next_offset: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    output_at: usize,
}

impl<'a> WofReader<'a> {
    pub fn new(
        packed: RawReader<'a>,
        record: u64,
        len: u64,
        algorithm: Algorithm,
    ) -> io::Result<Self> {
        let chunk_bytes = algorithm.chunk_bytes();
        let decompressor =
            Decompressor::new(algorithm.codec(), chunk_bytes).map_err(io::Error::other)?;
        let chunks = len.div_ceil(u64::from(chunk_bytes));
        let wide = len > u64::from(u32::MAX);
        let base = chunks.saturating_sub(1) * if wide { 8 } else { 4 };
        if base > packed.len() {
            return Err(bad_data(
                Place::Stream { number: record, offset: 0 },
                "WofCompressedData is shorter than its chunk table",
            ));
        }
        Ok(Self {
            packed,
            record,
            len,
            chunk_bytes,
            chunks,
            wide,
            base,
            decompressor,
            window: Vec::new(),
            window_first: 0,
            next_chunk: 0,
            next_offset: 0,
            input: Vec::new(),
            output: Vec::new(),
            output_at: 0,
        })
    }

    /// Offset from `base` where `chunk` ends.
    fn chunk_end(&mut self, chunk: u64) -> io::Result<u64> {
        if chunk + 1 == self.chunks {
            return Ok(self.packed.len() - self.base);
        }
        if chunk >= self.window_first + self.window.len() as u64 {
            let width = if self.wide { 8 } else { 4 };
            let count = (self.chunks - 1 - chunk).min(TABLE_WINDOW as u64) as usize;
            let mut bytes = vec![0; count * width];
            self.packed.read_at(chunk * width as u64, &mut bytes)?;
            self.window = bytes
                .chunks_exact(width)
                .map(|entry| {
                    let mut wide = [0; 8];
                    wide[..width].copy_from_slice(entry);
                    u64::from_le_bytes(wide)
                })
                .collect();
            self.window_first = chunk;
        }
        Ok(self.window[(chunk - self.window_first) as usize])
    }

    fn fill(&mut self) -> io::Result<()> {
        let chunk = self.next_chunk;
        let at = chunk * u64::from(self.chunk_bytes);
        let place = Place::Stream { number: self.record, offset: at };
        let full = u64::from(self.chunk_bytes).min(self.len - at) as usize;
        let start = self.next_offset;
        let end = self.chunk_end(chunk)?;
        let stored = end
            .checked_sub(start)
            .filter(|&stored| stored > 0 && stored <= full as u64)
            .filter(|_| end <= self.packed.len() - self.base)
            .ok_or_else(|| bad_data(place, "chunk of system compression has an impossible size"))?
            as usize;
        self.output_at = 0;
        self.output.resize(full, 0);
        if stored == full {
            self.packed.read_at(self.base + start, &mut self.output)?;
        } else {
            self.input.resize(stored, 0);
            self.packed.read_at(self.base + start, &mut self.input)?;
            if self.decompressor.decompress(&self.input, &mut self.output).is_err() {
                self.output.clear();
                return Err(bad_data(place, "chunk of system compression is damaged"));
            }
        }
        self.next_chunk += 1;
        self.next_offset = end;
        Ok(())
    }
}

impl Read for WofReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.output_at == self.output.len() {
            if self.next_chunk == self.chunks || buf.is_empty() {
                return Ok(0);
            }
            self.fill()?;
        }
        let n = buf.len().min(self.output.len() - self.output_at);
        buf[..n].copy_from_slice(&self.output[self.output_at..self.output_at + n]);
        self.output_at += n;
        Ok(n)
    }
}
