//! XPRESS, LZX and LZMS, one chunk at a time: the codecs of WIM resources and of WOF files,
//! and LZNT1, the compression of NTFS attributes.
//!
//! A chunk is compressed and decompressed alone; nothing carries over from one to the next. A
//! [`Compressor`] and a [`Decompressor`] keep their tables between calls, so make one for each
//! thread and use it for many chunks.
//!
//! The same input, codec, chunk size and level give the same bytes, on every machine.
//!
//! Formats: XPRESS with Huffman codes is \[MS-XCA\] 2.1 and 2.2; LZX is \[MS-PATCH\] and the CAB
//! SDK, in the form WIM files have it; LZMS has no published text and is known by its files.
#![forbid(unsafe_code)]

mod bits;
mod copy;
mod error;
mod huffman;
pub mod loose;
mod lzms;
pub mod lznt1;
mod lzx;
mod matching;
mod xpress;

pub use error::Error;

/// A compression format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// LZ77 and one Huffman code: fast, chunks of 4 KiB to 64 KiB.
    Xpress,
    /// LZ77, three Huffman codes, repeated offsets: chunks of 32 KiB (to 2 MiB; Microsoft's tools
    /// read 32 KiB only).
    Lzx,
    /// LZ77 and delta matches, adaptive codes and a range coder: chunks of 32 KiB to 1 GiB.
    Lzms,
}

impl Codec {
    /// The name used in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Xpress => "XPRESS",
            Codec::Lzx => "LZX",
            Codec::Lzms => "LZMS",
        }
    }

    /// Smallest and largest chunk, in bytes. A chunk size is a power of two between them.
    pub const fn chunk_bytes_range(self) -> (u32, u32) {
        match self {
            Codec::Xpress => (4 << 10, 64 << 10),
            Codec::Lzx => (32 << 10, 2 << 20),
            Codec::Lzms => (32 << 10, 1 << 30),
        }
    }

    fn check_chunk_bytes(self, chunk_bytes: u32) -> Result<(), Error> {
        let (min, max) = self.chunk_bytes_range();
        if chunk_bytes.is_power_of_two() && (min..=max).contains(&chunk_bytes) {
            Ok(())
        } else {
            Err(Error::ChunkSize { codec: self.name(), chunk_bytes, min, max })
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How much work a compressor spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// The first good match, looked at once more at the next position.
    Fast,
    /// Cheapest way through each block under estimated costs.
    Default,
    /// The same, with more matches and more rounds.
    Max,
}

/// Compresses chunks of one codec. Reusable, `Send`, and allocates nothing per call once `out`
/// has grown.
pub struct Compressor {
    chunk_bytes: u32,
    inner: Encoder,
}

enum Encoder {
    Xpress(Box<xpress::Encoder>),
    Lzx(Box<lzx::Encoder>),
    Lzms(Box<lzms::Encoder>),
}

impl Compressor {
    /// A compressor for chunks of at most `chunk_bytes`.
    pub fn new(codec: Codec, chunk_bytes: u32, level: Level) -> Result<Self, Error> {
        codec.check_chunk_bytes(chunk_bytes)?;
        let inner = match codec {
            Codec::Xpress => Encoder::Xpress(Box::new(xpress::Encoder::new(level))),
            Codec::Lzx => Encoder::Lzx(Box::new(lzx::Encoder::new(chunk_bytes, level))),
            Codec::Lzms => Encoder::Lzms(Box::new(lzms::Encoder::new(level))),
        };
        Ok(Compressor { chunk_bytes, inner })
    }

    /// Replaces what is in `out` by the compressed form of `input`. False when that would not be
    /// smaller than `input` (then `out` is empty and the chunk is to be stored as it is), or when
    /// `input` is longer than a chunk.
    pub fn compress(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        if input.len() < 2 || input.len() > self.chunk_bytes as usize {
            return false;
        }
        // A result of the same size is no gain: the last byte is never available.
        out.resize(input.len() - 1, 0);
        let written = match &mut self.inner {
            Encoder::Xpress(encoder) => encoder.compress(input, out),
            Encoder::Lzx(encoder) => encoder.compress(input, out),
            Encoder::Lzms(encoder) => encoder.compress(input, out),
        };
        out.truncate(written.unwrap_or(0));
        written.is_some()
    }
}

/// Decompresses chunks of one codec. Reusable and `Send`.
pub struct Decompressor {
    chunk_bytes: u32,
    inner: Decoder,
}

enum Decoder {
    Xpress(Box<xpress::Decoder>),
    Lzx(Box<lzx::Decoder>),
    Lzms(Box<lzms::Decoder>),
}

impl Decompressor {
    /// A decompressor for chunks of at most `chunk_bytes`.
    pub fn new(codec: Codec, chunk_bytes: u32) -> Result<Self, Error> {
        codec.check_chunk_bytes(chunk_bytes)?;
        let inner = match codec {
            Codec::Xpress => Decoder::Xpress(Box::new(xpress::Decoder::new())),
            Codec::Lzx => Decoder::Lzx(Box::new(lzx::Decoder::new(chunk_bytes))),
            Codec::Lzms => Decoder::Lzms(Box::new(lzms::Decoder::new())),
        };
        Ok(Decompressor { chunk_bytes, inner })
    }

    /// Fills `output`, whose length is the chunk's size before compression, from `input`.
    ///
    /// Any bytes are acceptable as `input`: what is not valid is an error, in time bounded by the
    /// two lengths. After an error `output` holds whatever had been decoded.
    pub fn decompress(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        if output.len() > self.chunk_bytes as usize {
            return Err(Error::OutputSize {
                output_bytes: output.len(),
                chunk_bytes: self.chunk_bytes,
            });
        }
        match &mut self.inner {
            Decoder::Xpress(decoder) => decoder.decompress(input, output),
            Decoder::Lzx(decoder) => decoder.decompress(input, output),
            Decoder::Lzms(decoder) => decoder.decompress(input, output),
        }
    }
}
