//! XPRESS decoding.

use super::{HEADER_BYTES, MIN_MATCH, NAME, SYMBOLS};
use crate::Error;
use crate::bits::BitReader;
use crate::copy::copy_match;
use crate::huffman::{DecodeTable, ENTRY_INVALID};

pub(crate) struct Decoder {
    table: DecodeTable<11, 8192>,
    lens: [u8; SYMBOLS],
    sorted: [u16; 1024],
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Decoder { table: DecodeTable::new(), lens: [0; SYMBOLS], sorted: [0; 1024] }
    }

    pub(crate) fn decompress(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        let truncated = |produced, wanted| Error::Truncated {
            codec: NAME,
            input_bytes: input.len(),
            produced,
            wanted,
        };
        let Some(header) = input.first_chunk::<HEADER_BYTES>() else {
            return Err(truncated(0, output.len()));
        };
        for (pair, byte) in self.lens.as_chunks_mut::<2>().0.iter_mut().zip(header) {
            *pair = [byte & 15, byte >> 4];
        }
        self.table.build(&self.lens, &mut self.sorted, |symbol| symbol).map_err(|_| {
            Error::Code { codec: NAME, at: 0, what: "the codeword lengths use too many codewords" }
        })?;

        let mut reader = BitReader::new(input, HEADER_BYTES);
        let table = &self.table;
        let end = output.len();
        let mut pos = 0;
        while pos < end {
            reader.refill();
            let mut entry = table.lookup(reader.peek());
            let mut symbol = entry >> 8;
            // Two symbols of at most 15 bits fit in one load.
            if symbol < 256 {
                reader.consume(entry & 0x1f);
                output[pos] = symbol as u8;
                pos += 1;
                if pos == end {
                    break;
                }
                entry = table.lookup(reader.peek());
                symbol = entry >> 8;
                if symbol < 256 {
                    reader.consume(entry & 0x1f);
                    output[pos] = symbol as u8;
                    pos += 1;
                    continue;
                }
            }
            if symbol == ENTRY_INVALID {
                return Err(if reader.overrun() {
                    truncated(pos, end)
                } else {
                    Error::Code { codec: NAME, at: reader.byte_pos(), what: "unused codeword" }
                });
            }
            reader.consume(entry & 0x1f);
            let mut len = symbol & 15;
            if len == 15 {
                let [more] = reader.read_bytes_between::<1>();
                len = if more == 255 {
                    u32::from(u16::from_le_bytes(reader.read_bytes_after::<2>()))
                } else {
                    15 + u32::from(more)
                };
                if len < 15 {
                    return Err(Error::Corrupt {
                        codec: NAME,
                        at: reader.byte_pos(),
                        what: "wide match length below",
                        found: u64::from(len),
                        limit: 15,
                    });
                }
            }
            let len = (len + MIN_MATCH) as usize;
            reader.refill();
            let log2 = (symbol >> 4) & 15;
            let offset = (1 << log2 | reader.take(log2)) as usize;
            if len > end - pos {
                return Err(Error::Corrupt {
                    codec: NAME,
                    at: reader.byte_pos(),
                    what: "match length",
                    found: len as u64,
                    limit: (end - pos) as u64,
                });
            }
            if offset > pos {
                return Err(Error::Corrupt {
                    codec: NAME,
                    at: reader.byte_pos(),
                    what: "match offset",
                    found: offset as u64,
                    limit: pos as u64,
                });
            }
            copy_match(output, pos, offset, len);
            pos += len;
        }
        if reader.overrun() {
            return Err(truncated(end, end));
        }
        Ok(())
    }
}
