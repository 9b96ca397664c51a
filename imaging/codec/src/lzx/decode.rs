//! LZX decoding.

use super::{
    ALIGNED_SYMBOLS, BLOCK_ALIGNED, BLOCK_UNCOMPRESSED, BLOCK_VERBATIM, DEFAULT_BLOCK_BYTES,
    LENGTH_SYMBOLS, LITERALS, LONG_HEADER, MAX_MAIN_SYMBOLS, MIN_MATCH, NAME, OFFSET_BIAS,
    PRETREE_SYMBOLS, SLOT_BASE, SLOT_BITS, calls, slot_count,
};
use crate::Error;
use crate::bits::BitReader;
use crate::copy::copy_match;
use crate::huffman::{DecodeTable, ENTRY_INVALID};

pub(crate) struct Decoder {
    main_symbols: usize,
    wide_sizes: bool,
    main: DecodeTable<11, 8192>,
    length: DecodeTable<10, 8192>,
    aligned: DecodeTable<7, 128>,
    pretree: DecodeTable<7, 8192>,
    main_lens: [u8; MAX_MAIN_SYMBOLS],
    length_lens: [u8; LENGTH_SYMBOLS],
    sorted: [u16; 1024],
}

impl Decoder {
    pub(crate) fn new(chunk_bytes: u32) -> Self {
        Decoder {
            main_symbols: LITERALS + 8 * slot_count(chunk_bytes),
            wide_sizes: chunk_bytes > 32768,
            main: DecodeTable::new(),
            length: DecodeTable::new(),
            aligned: DecodeTable::new(),
            pretree: DecodeTable::new(),
            main_lens: [0; MAX_MAIN_SYMBOLS],
            length_lens: [0; LENGTH_SYMBOLS],
            sorted: [0; 1024],
        }
    }

    pub(crate) fn decompress(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        self.main_lens.fill(0);
        self.length_lens.fill(0);
        let mut reader = BitReader::new(input, 0);
        let mut recent = [1u32; 3];
        let mut pos = 0;
        while pos < output.len() {
            let block = self.block(input, &mut reader, &mut recent, output, pos);
            // A fault found in bits that are not there is a fault of the end.
            if reader.overrun() {
                return Err(Error::Truncated {
                    codec: NAME,
                    input_bytes: input.len(),
                    produced: pos,
                    wanted: output.len(),
                });
            }
            pos = block?;
        }
        calls::restore(output);
        Ok(())
    }

    /// Decodes the block whose output begins at `start`; answers where it ends.
    fn block(
        &mut self,
        input: &[u8],
        reader: &mut BitReader<'_>,
        recent: &mut [u32; 3],
        output: &mut [u8],
        start: usize,
    ) -> Result<usize, Error> {
        let kind = reader.read(3);
        let size = if reader.read(1) == 1 {
            DEFAULT_BLOCK_BYTES
        } else if self.wide_sizes {
            reader.read(24)
        } else {
            reader.read(16)
        } as usize;
        let room = output.len() - start;
        if size == 0 || size > room {
            return Err(Error::Corrupt {
                codec: NAME,
                at: reader.byte_pos(),
                what: "block size",
                found: size as u64,
                limit: room as u64,
            });
        }
        let end = start + size;
        match kind {
            BLOCK_VERBATIM => {
                self.read_codes(reader)?;
                self.sequences::<false>(reader, recent, &mut output[..end], start)?;
            }
            BLOCK_ALIGNED => {
                let mut lens = [0; ALIGNED_SYMBOLS];
                for len in &mut lens {
                    *len = reader.read(3) as u8;
                }
                self.aligned
                    .build(&lens, &mut self.sorted, |symbol| symbol)
                    .map_err(|_| bad_code(reader, "the aligned code has too many codewords"))?;
                self.read_codes(reader)?;
                self.sequences::<true>(reader, recent, &mut output[..end], start)?;
            }
            BLOCK_UNCOMPRESSED => {
                let at = reader.align_for_bytes();
                let words = input.get(at..).and_then(|rest| rest.first_chunk::<12>());
                let bytes = input.get(at + 12..).and_then(|rest| rest.get(..size));
                let (Some(words), Some(bytes)) = (words, bytes) else {
                    return Err(Error::Truncated {
                        codec: NAME,
                        input_bytes: input.len(),
                        produced: start,
                        wanted: output.len(),
                    });
                };
                for (offset, word) in recent.iter_mut().zip(words.as_chunks::<4>().0) {
                    *offset = u32::from_le_bytes(*word);
                }
                output[start..end].copy_from_slice(bytes);
                // The padding of the last block may be missing.
                reader.restart((at + 12 + size + (size & 1)).min(input.len()));
            }
            _ => {
                return Err(Error::Corrupt {
                    codec: NAME,
                    at: reader.byte_pos(),
                    what: "block type",
                    found: u64::from(kind),
                    limit: u64::from(BLOCK_UNCOMPRESSED),
                });
            }
        }
        Ok(end)
    }

    fn read_codes(&mut self, reader: &mut BitReader<'_>) -> Result<(), Error> {
        let (literals, matches) = self.main_lens[..self.main_symbols].split_at_mut(LITERALS);
        for lens in [literals, matches, &mut self.length_lens[..]] {
            read_lens(reader, &mut self.pretree, &mut self.sorted, lens)?;
        }
        self.main
            .build(&self.main_lens[..self.main_symbols], &mut self.sorted, |symbol| symbol)
            .map_err(|_| bad_code(reader, "the main code has too many codewords"))?;
        self.length
            .build(&self.length_lens, &mut self.sorted, |symbol| symbol)
            .map_err(|_| bad_code(reader, "the length code has too many codewords"))
    }

    /// Decodes literals and matches until `output` is full.
    #[inline(never)]
    fn sequences<const ALIGNED: bool>(
        &self,
        reader: &mut BitReader<'_>,
        recent: &mut [u32; 3],
        output: &mut [u8],
        start: usize,
    ) -> Result<(), Error> {
        let end = output.len();
        let mut pos = start;
        let [mut r0, mut r1, mut r2] = *recent;
        while pos < end {
            reader.refill();
            let mut entry = self.main.lookup(reader.peek());
            let mut symbol = entry >> 8;
            // Two symbols of at most 16 bits fit in one load.
            if symbol < LITERALS as u32 {
                reader.consume(entry & 0x1f);
                output[pos] = symbol as u8;
                pos += 1;
                if pos == end {
                    break;
                }
                entry = self.main.lookup(reader.peek());
                symbol = entry >> 8;
                if symbol < LITERALS as u32 {
                    reader.consume(entry & 0x1f);
                    output[pos] = symbol as u8;
                    pos += 1;
                    continue;
                }
            }
            if symbol == ENTRY_INVALID {
                return Err(bad_code(reader, "unused codeword of the main code"));
            }
            reader.consume(entry & 0x1f);
            reader.refill();
            let header = symbol & 7;
            let slot = ((symbol - LITERALS as u32) >> 3) as usize;
            let mut len = header + MIN_MATCH;
            if header == LONG_HEADER {
                let entry = self.length.lookup(reader.peek());
                if entry >> 8 == ENTRY_INVALID {
                    return Err(bad_code(reader, "unused codeword of the length code"));
                }
                reader.consume(entry & 0x1f);
                reader.refill();
                len += entry >> 8;
            }
            let len = len as usize;
            let offset = if slot > 2 {
                // Slots are below MAX_SLOTS: the code has no more symbols.
                let slot = slot & 63;
                let (base, bits) = SLOTS[slot];
                let mut value = base;
                if ALIGNED && bits >= 3 {
                    value += reader.take(bits - 3) << 3;
                    let entry = self.aligned.lookup(reader.peek());
                    if entry >> 8 == ENTRY_INVALID {
                        return Err(bad_code(reader, "unused codeword of the aligned code"));
                    }
                    reader.consume(entry & 0x1f);
                    value += entry >> 8;
                } else {
                    value += reader.take(bits);
                }
                r2 = r1;
                r1 = r0;
                r0 = value;
                value
            } else if slot == 0 {
                r0
            } else if slot == 1 {
                std::mem::swap(&mut r0, &mut r1);
                r0
            } else {
                std::mem::swap(&mut r0, &mut r2);
                r0
            } as usize;
            if len > end - pos {
                return Err(Error::Corrupt {
                    codec: NAME,
                    at: reader.byte_pos(),
                    what: "match length",
                    found: len as u64,
                    limit: (end - pos) as u64,
                });
            }
            if offset > pos || offset == 0 {
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
        *recent = [r0, r1, r2];
        Ok(())
    }
}

/// First offset and extra bits of each slot, padded to a power of two.
const SLOTS: [(u32, u32); 64] = {
    let mut slots = [(0, 0); 64];
    let mut slot = 3;
    while slot < super::MAX_SLOTS {
        slots[slot] = (SLOT_BASE[slot] - OFFSET_BIAS, SLOT_BITS[slot] as u32);
        slot += 1;
    }
    slots
};

fn bad_code(reader: &BitReader<'_>, what: &'static str) -> Error {
    Error::Code { codec: NAME, at: reader.byte_pos(), what }
}

/// Reads codeword lengths as differences to those in `lens`.
fn read_lens(
    reader: &mut BitReader<'_>,
    pretree: &mut DecodeTable<7, 8192>,
    sorted: &mut [u16; 1024],
    lens: &mut [u8],
) -> Result<(), Error> {
    let mut pretree_lens = [0u8; PRETREE_SYMBOLS];
    for len in &mut pretree_lens {
        *len = reader.read(4) as u8;
    }
    pretree
        .build(&pretree_lens, sorted, |symbol| symbol)
        .map_err(|_| bad_code(reader, "the code of lengths has too many codewords"))?;
    let unused = "unused codeword of the code of lengths";
    let symbol_of = |reader: &mut BitReader<'_>| {
        reader.refill();
        let entry = pretree.lookup(reader.peek());
        reader.consume(entry & 0x1f);
        entry >> 8
    };
    let mut at = 0;
    while at < lens.len() {
        let symbol = symbol_of(reader);
        let (run, value) = match symbol {
            0..=16 => (1, (u32::from(lens[at]) + 17 - symbol) % 17),
            17 => (4 + reader.read(4), 0),
            18 => (20 + reader.read(5), 0),
            19 => {
                let run = 4 + reader.read(1);
                let symbol = symbol_of(reader);
                if symbol > 16 {
                    return Err(bad_code(reader, "a run of lengths within a run"));
                }
                (run, (u32::from(lens[at]) + 17 - symbol) % 17)
            }
            _ => return Err(bad_code(reader, unused)),
        };
        let run = run as usize;
        let room = lens.len() - at;
        let Some(part) = lens.get_mut(at..at + run) else {
            return Err(Error::Corrupt {
                codec: NAME,
                at: reader.byte_pos(),
                what: "run of codeword lengths",
                found: run as u64,
                limit: room as u64,
            });
        };
        part.fill(value as u8);
        at += run;
    }
    Ok(())
}
