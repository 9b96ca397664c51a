//! LZNT1 (\[MS-XCA\] 2.5), decoding only: compressed attributes of NTFS.
//!
//! ```text
//! chunk   u16 header: bits 0..11 its size - 3, bits 12..14 are 3, bit 15: compressed
//!         compressed: groups of a flag byte and eight items; flag bit 0 a literal byte, 1 a match of
//!         u16: offset - 1 above, length - 3 below; the border moves as the chunk's output grows
//! ```
//! A chunk gives at most 4096 bytes; a header of 0 ends the data.

use crate::Error;
use crate::copy::copy_match;

const NAME: &str = "LZNT1";
const CHUNK: usize = 4096;

/// Decompresses chunks into `output` until the input or the room ends or a zero header stands;
/// answers how many bytes were produced. NTFS fills the rest of a compression unit with zeros.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<usize, Error> {
    let mut at = 0;
    let mut produced = 0;
    while produced < output.len() {
        let Some(header) = input.get(at..).and_then(|rest| rest.first_chunk::<2>()) else { break };
        let header = u16::from_le_bytes(*header);
        if header == 0 {
            break;
        }
        at += 2;
        let len = usize::from(header & 0xfff) + 1;
        let Some(chunk) = input.get(at..at + len) else {
            return Err(Error::Corrupt {
                codec: NAME,
                at: at - 2,
                what: "chunk size",
                found: len as u64,
                limit: (input.len() - at) as u64,
            });
        };
        let room = (output.len() - produced).min(CHUNK);
        let target = &mut output[produced..produced + room];
        produced += if header & 0x8000 == 0 {
            let count = len.min(room);
            target[..count].copy_from_slice(&chunk[..count]);
            count
        } else {
            decompress_chunk(chunk, at, target)?
        };
        at += len;
        // A chunk before the last stands for 4096 bytes; what it does not give is zero.
        let partial = produced % CHUNK;
        if partial != 0 && input.get(at..at + 2).is_some_and(|next| next != [0, 0]) {
            let fill = (CHUNK - partial).min(output.len() - produced);
            output[produced..produced + fill].fill(0);
            produced += fill;
        }
    }
    Ok(produced)
}

/// Decodes one compressed chunk that begins at byte `base` of the input.
fn decompress_chunk(chunk: &[u8], base: usize, output: &mut [u8]) -> Result<usize, Error> {
    let mut at = 0;
    let mut pos = 0;
    while at < chunk.len() {
        let mut flags = chunk[at];
        at += 1;
        for _ in 0..8 {
            if at >= chunk.len() || pos >= output.len() {
                return Ok(pos);
            }
            if flags & 1 == 0 {
                output[pos] = chunk[at];
                pos += 1;
                at += 1;
            } else {
                let Some(bytes) = chunk[at..].first_chunk::<2>() else {
                    return Err(Error::Truncated {
                        codec: NAME,
                        input_bytes: base + chunk.len(),
                        produced: pos,
                        wanted: output.len(),
                    });
                };
                let item = usize::from(u16::from_le_bytes(*bytes));
                // Bits of the length: 12, less one for each doubling of the output beyond 16.
                let len_bits = if pos <= 16 { 12 } else { 15 - (pos - 1).ilog2() };
                let len = (item & ((1 << len_bits) - 1)) + 3;
                let offset = (item >> len_bits) + 1;
                if offset > pos {
                    return Err(Error::Corrupt {
                        codec: NAME,
                        at: base + at,
                        what: "match offset",
                        found: offset as u64,
                        limit: pos as u64,
                    });
                }
                if pos + len > CHUNK {
                    return Err(Error::Corrupt {
                        codec: NAME,
                        at: base + at,
                        what: "match length",
                        found: len as u64,
                        limit: (CHUNK - pos) as u64,
                    });
                }
                let len = len.min(output.len() - pos);
                copy_match(output, pos, offset, len);
                pos += len;
                at += 2;
            }
            flags >>= 1;
        }
    }
    Ok(pos)
}
