//! Why a chunk could not be decoded, or a codec not be made.

/// Errors of codecs. Positions are byte offsets in the compressed chunk: where the decoder was
/// when it saw the fault, rounded down to the byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that the format does not allow there.
    #[error("{codec} data is corrupt at byte {at:#x}: {what} is {found}, allowed is up to {limit}")]
    Corrupt {
        /// Format being decoded.
        codec: &'static str,
        /// Byte offset in the compressed chunk.
        at: usize,
        /// The field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The largest value allowed there.
        limit: u64,
    },
    /// The lengths of a Huffman code do not make a code, or the data uses a codeword it lacks.
    #[error("{codec} data is corrupt at byte {at:#x}: {what}")]
    Code {
        /// Format being decoded.
        codec: &'static str,
        /// Byte offset in the compressed chunk.
        at: usize,
        /// Which code, and what is wrong with it.
        what: &'static str,
    },
    /// The compressed bytes end before the output is full.
    #[error("{codec} data ends early: {input_bytes} bytes gave {produced} of {wanted} bytes")]
    Truncated {
        /// Format being decoded.
        codec: &'static str,
        /// Length of the compressed chunk.
        input_bytes: usize,
        /// Bytes decoded when the input ran out.
        produced: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// The codec has no such chunk size.
    #[error("{codec} has no chunks of {chunk_bytes} bytes: a power of two from {min} to {max}")]
    ChunkSize {
        /// The codec.
        codec: &'static str,
        /// The chunk size asked for.
        chunk_bytes: u32,
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
    },
    /// A chunk has no loose form, or bytes are not one.
    #[error("not the loose form of a chunk")]
    Loose,
    /// More output asked for than a chunk holds.
    #[error("output of {output_bytes} bytes is longer than a chunk of {chunk_bytes}")]
    OutputSize {
        /// Bytes asked for.
        output_bytes: usize,
        /// The chunk size of this decompressor.
        chunk_bytes: u32,
    },
}
