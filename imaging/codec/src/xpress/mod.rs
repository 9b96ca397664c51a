//! XPRESS with Huffman codes (\[MS-XCA\] 2.1, 2.2), one block for a chunk.
//!
//! ```text
//! 256 bytes     length of the codewords of 512 symbols, 4 bits each, the even symbol low
//! bit stream    words of 16 bits; bytes of long lengths lie between the words
//!
//! symbol 0..255      a literal
//! symbol 256 + ol    match: o = log2 of its offset, l = its length - 3; with l = 15 a byte follows
//!                    (length - 18), with that 255 two bytes (length - 3); then o bits of the offset
//! symbol 256         at the end of the data: nothing more (readers exist that want it)
//! ```

mod decode;
mod encode;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

const SYMBOLS: usize = 512;
const HEADER_BYTES: usize = SYMBOLS / 2;
const MAX_CODEWORD_LEN: u32 = 15;
const END_OF_DATA: usize = 256;
const MIN_MATCH: u32 = 3;
const NAME: &str = "XPRESS";
