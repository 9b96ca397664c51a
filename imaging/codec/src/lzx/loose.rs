//! LZX chunks taken apart into what was decided and what was copied, and put together again bit for
//! bit. A little change in the contents changes every bit of a chunk behind it; of these streams it
//! changes a little.
//!
//! ```text
//! codes     per block: kind u8 (bit 7: the size has its short form), size u24, aligned: 8 lengths,
//!           then three times: 20 lengths of the code of lengths, its symbols u8 (17..19: and their
//!           extra bits u8)
//!           per chunk: count u8 of the bytes that follow its last bit; they are literals
//! steps     per match: literals before it u8 (255: so many, and no match), length - 2 u8,
//!           value (recent offset's number, or offset + 2): u16, with chunks above 32 KiB u24
//! literals  the bytes themselves
//! ```

use super::block::slot_of;
use super::{
    ALIGNED_SYMBOLS, BLOCK_ALIGNED, BLOCK_VERBATIM, DEFAULT_BLOCK_BYTES, LENGTH_SYMBOLS, LITERALS,
    LONG_HEADER, MAX_MAIN_SYMBOLS, MIN_MATCH, NAME, PRETREE_SYMBOLS, SLOT_BASE, SLOT_BITS,
    slot_count,
};
use crate::Error;
use crate::bits::{BitReader, BitWriter};
use crate::huffman::{DecodeTable, ENTRY_INVALID, canonical_codewords};
use crate::loose::{Streams, Taken};

const SHORT_SIZE: u8 = 0x80;

/// One code of a block: its lengths, to read or to write by.
struct Code<const N: usize> {
    lens: [u8; N],
    words: [u16; N],
    table: DecodeTable<11, 8192>,
}

impl<const N: usize> Code<N> {
    fn new() -> Self {
        Code { lens: [0; N], words: [0; N], table: DecodeTable::new() }
    }

    /// After the lengths changed. Also what is written is checked to be a code.
    fn make(&mut self, at: usize) -> Result<(), Error> {
        self.table
            .build(&self.lens, &mut [0; 1024], |symbol| symbol)
            .map_err(|_| bad(at, "a code has too many codewords"))?;
        canonical_codewords(&self.lens, &mut self.words);
        Ok(())
    }

    fn read(&self, reader: &mut BitReader<'_>) -> Result<u32, Error> {
        reader.refill();
        let entry = self.table.lookup(reader.peek());
        if entry >> 8 == ENTRY_INVALID {
            return Err(bad(reader.byte_pos(), "unused codeword"));
        }
        reader.consume(entry & 0x1f);
        Ok(entry >> 8)
    }

    fn write(&self, writer: &mut BitWriter<'_>, symbol: u32) -> Result<(), Error> {
        let at = symbol as usize;
        match (self.words.get(at), self.lens.get(at)) {
            (Some(&word), Some(&len)) if len > 0 => {
                writer.put(u32::from(word), u32::from(len));
                writer.flush();
                Ok(())
            }
            _ => Err(bad(0, "a symbol without a codeword")),
        }
    }
}

fn bad(at: usize, what: &'static str) -> Error {
    Error::Code { codec: NAME, at, what }
}

/// Takes chunks apart and puts them together.
pub(crate) struct Loose {
    max_bytes: usize,
    main_symbols: usize,
    wide: bool,
    main: Code<MAX_MAIN_SYMBOLS>,
    length: Code<LENGTH_SYMBOLS>,
    aligned: Code<ALIGNED_SYMBOLS>,
    pretree: Code<PRETREE_SYMBOLS>,
    room: Vec<u8>,
}

impl Loose {
    pub(crate) fn new(chunk_bytes: u32) -> Self {
        Loose {
            max_bytes: chunk_bytes as usize,
            main_symbols: LITERALS + 8 * slot_count(chunk_bytes),
            wide: chunk_bytes > 32768,
            main: Code::new(),
            length: Code::new(),
            aligned: Code::new(),
            pretree: Code::new(),
            room: Vec::new(),
        }
    }

    fn start(&mut self) {
        self.main.lens.fill(0);
        self.length.lens.fill(0);
    }

    /// Appends the streams of one chunk. They are not checked against `input` here.
    pub(crate) fn take_apart(
        &mut self,
        input: &[u8],
        chunk_bytes: usize,
        out: &mut Streams,
    ) -> Result<(), Error> {
        self.start();
        let mut reader = BitReader::new(input, 0);
        let mut pos = 0;
        while pos < chunk_bytes {
            let kind = reader.read(3);
            let short = reader.read(1) == 1;
            let size = if short {
                DEFAULT_BLOCK_BYTES
            } else {
                reader.read(if self.wide { 24 } else { 16 })
            };
            // Blocks that are not compressed are rare and gain nothing here.
            if !matches!(kind, BLOCK_VERBATIM | BLOCK_ALIGNED)
                || size == 0
                || size as usize > chunk_bytes - pos
            {
                return Err(bad(reader.byte_pos(), "a block that is not taken apart"));
            }
            out.codes.push(kind as u8 | if short { SHORT_SIZE } else { 0 });
            out.codes.extend_from_slice(&size.to_le_bytes()[..3]);
            if kind == BLOCK_ALIGNED {
                for len in &mut self.aligned.lens {
                    *len = reader.read(3) as u8;
                }
                out.codes.extend_from_slice(&self.aligned.lens);
                self.aligned.make(reader.byte_pos())?;
            }
            for part in 0..3 {
                self.read_lens(&mut reader, part, &mut out.codes)?;
            }
            self.main.make(reader.byte_pos())?;
            self.length.make(reader.byte_pos())?;
            pos += size as usize;
            self.read_steps(&mut reader, kind == BLOCK_ALIGNED, size as usize, out)?;
            if reader.overrun() {
                return Err(bad(input.len(), "it ends early"));
            }
        }
        Ok(())
    }

    /// The lengths of one part: literals, matches, length symbols.
    fn lens(&mut self, part: usize) -> &mut [u8] {
        let (literals, rest) = self.main.lens.split_at_mut(LITERALS);
        match part {
            0 => literals,
            1 => &mut rest[..self.main_symbols - LITERALS],
            _ => &mut self.length.lens,
        }
    }

    fn read_lens(
        &mut self,
        reader: &mut BitReader<'_>,
        part: usize,
        codes: &mut Vec<u8>,
    ) -> Result<(), Error> {
        for len in &mut self.pretree.lens {
            *len = reader.read(4) as u8;
        }
        codes.extend_from_slice(&self.pretree.lens);
        self.pretree.make(reader.byte_pos())?;
        let mut runs = Runs::default();
        let total = self.lens(part).len();
        while runs.at < total {
            let symbol = self.pretree.read(reader)?;
            codes.push(symbol as u8);
            let extra = reader.read(extra_bits(symbol));
            if symbol > 16 {
                codes.push(extra as u8);
            }
            if !runs.apply(symbol, extra, self.lens(part)) {
                return Err(bad(reader.byte_pos(), "a run of codeword lengths"));
            }
        }
        Ok(())
    }

    fn read_steps(
        &mut self,
        reader: &mut BitReader<'_>,
        aligned: bool,
        mut left: usize,
        out: &mut Streams,
    ) -> Result<(), Error> {
        let mut literals = 0u8;
        while left > 0 {
            let symbol = self.main.read(reader)?;
            if symbol < LITERALS as u32 {
                out.literals.push(symbol as u8);
                literals += 1;
                left -= 1;
                if literals == u8::MAX {
                    out.steps.push(literals);
                    literals = 0;
                }
                continue;
            }
            let header = (symbol - LITERALS as u32) & 7;
            let slot = ((symbol - LITERALS as u32) >> 3) as usize;
            let mut len = header + MIN_MATCH;
            if header == LONG_HEADER {
                len += self.length.read(reader)?;
            }
            let (Some(&base), Some(&bits)) = (SLOT_BASE.get(slot), SLOT_BITS.get(slot)) else {
                return Err(bad(reader.byte_pos(), "slot"));
            };
            let bits = u32::from(bits);
            let extra = if aligned && bits >= 3 {
                let high = reader.read(bits - 3);
                high << 3 | self.aligned.read(reader)?
            } else {
                reader.read(bits)
            };
            let value = base + extra;
            out.steps.push(literals);
            literals = 0;
            out.steps.push((len - MIN_MATCH) as u8);
            out.steps.extend_from_slice(&value.to_le_bytes()[..self.value_bytes()]);
            left = left
                .checked_sub(len as usize)
                .ok_or_else(|| bad(reader.byte_pos(), "a match beyond its block"))?;
        }
        // A block that ends in literals has them after its last match.
        if literals > 0 {
            out.steps.push(literals);
        }
        Ok(())
    }

    fn value_bytes(&self) -> usize {
        if self.wide { 3 } else { 2 }
    }

    /// Writes one chunk of `chunk_bytes` from the streams.
    pub(crate) fn put_together(
        &mut self,
        from: &mut Taken<'_>,
        chunk_bytes: usize,
    ) -> Result<Vec<u8>, Error> {
        if chunk_bytes > self.max_bytes {
            return Err(bad(0, "contents longer than a chunk"));
        }
        self.start();
        // A chunk is not stored compressed when that is no gain; what is longer is not a chunk's.
        let mut room = std::mem::take(&mut self.room);
        room.resize(chunk_bytes + 64, 0);
        let mut writer = BitWriter::new(&mut room);
        let mut pos = 0;
        while pos < chunk_bytes {
            let [kind, size @ ..] = from.codes::<4>()?;
            let size = u32::from_le_bytes([size[0], size[1], size[2], 0]);
            let short = kind & SHORT_SIZE != 0;
            let kind = u32::from(kind & !SHORT_SIZE);
            if !matches!(kind, BLOCK_VERBATIM | BLOCK_ALIGNED)
                || size == 0
                || size as usize > chunk_bytes - pos
                || short && size != DEFAULT_BLOCK_BYTES
            {
                return Err(bad(0, "a block"));
            }
            writer.put(kind, 3);
            if short {
                writer.put(1, 1);
            } else if self.wide {
                writer.put(size, 25);
            } else {
                writer.put(size & 0xffff, 17);
            }
            writer.flush();
            if kind == BLOCK_ALIGNED {
                self.aligned.lens = from.codes()?;
                for &len in &self.aligned.lens {
                    writer.put(u32::from(len & 7), 3);
                }
                writer.flush();
                self.aligned.make(0)?;
            }
            for part in 0..3 {
                self.write_lens(&mut writer, part, from)?;
            }
            self.main.make(0)?;
            self.length.make(0)?;
            pos += size as usize;
            self.write_steps(&mut writer, kind == BLOCK_ALIGNED, size as usize, from)?;
            if writer.is_full() {
                return Err(bad(0, "a chunk longer than its contents"));
            }
        }
        let len = writer.finish().ok_or_else(|| bad(0, "a chunk longer than its contents"))?;
        let chunk = room[..len].to_vec();
        self.room = room;
        Ok(chunk)
    }

    fn write_lens(
        &mut self,
        writer: &mut BitWriter<'_>,
        part: usize,
        from: &mut Taken<'_>,
    ) -> Result<(), Error> {
        self.pretree.lens = from.codes()?;
        for len in &mut self.pretree.lens {
            *len &= 15;
            writer.put(u32::from(*len), 4);
            writer.flush();
        }
        self.pretree.make(0)?;
        let mut runs = Runs::default();
        let total = self.lens(part).len();
        while runs.at < total {
            let [symbol] = from.codes()?;
            let symbol = u32::from(symbol);
            self.pretree.write(writer, symbol)?;
            let bits = extra_bits(symbol);
            let mut extra = 0;
            if symbol > 16 {
                let [value] = from.codes()?;
                extra = u32::from(value) & ((1 << bits) - 1);
                writer.put(extra, bits);
                writer.flush();
            }
            if !runs.apply(symbol, extra, self.lens(part)) {
                return Err(bad(0, "a run of codeword lengths"));
            }
        }
        Ok(())
    }

    fn write_steps(
        &mut self,
        writer: &mut BitWriter<'_>,
        aligned: bool,
        mut left: usize,
        from: &mut Taken<'_>,
    ) -> Result<(), Error> {
        let beyond = || bad(0, "a step beyond its block");
        while left > 0 {
            let [literals] = from.steps()?;
            left = left.checked_sub(usize::from(literals)).ok_or_else(beyond)?;
            for &byte in from.literals(usize::from(literals))? {
                self.main.write(writer, u32::from(byte))?;
            }
            if left == 0 || literals == u8::MAX {
                continue;
            }
            let [len] = from.steps()?;
            let len = u32::from(len) + MIN_MATCH;
            let value = if self.wide {
                let [a, b, c] = from.steps()?;
                u32::from_le_bytes([a, b, c, 0])
            } else {
                u32::from(u16::from_le_bytes(from.steps()?))
            };
            let slot = slot_of(value);
            let Some(&bits) = SLOT_BITS.get(slot as usize) else {
                return Err(bad(0, "an offset no slot has"));
            };
            let bits = u32::from(bits);
            let header = (len - MIN_MATCH).min(LONG_HEADER);
            self.main.write(writer, LITERALS as u32 + (slot << 3 | header))?;
            if header == LONG_HEADER {
                self.length.write(writer, len - MIN_MATCH - LONG_HEADER)?;
            }
            let extra = value & ((1 << bits) - 1);
            if aligned && bits >= 3 {
                writer.put(extra >> 3, bits - 3);
                writer.flush();
                self.aligned.write(writer, extra & 7)?;
            } else {
                writer.put(extra, bits);
                writer.flush();
            }
            left = left.checked_sub(len as usize).ok_or_else(beyond)?;
        }
        Ok(())
    }
}

fn extra_bits(symbol: u32) -> u32 {
    match symbol {
        17 => 4,
        18 => 5,
        19 => 1,
        _ => 0,
    }
}

/// Symbols of the code of lengths, as they change the lengths of the block before.
#[derive(Default)]
struct Runs {
    at: usize,
    /// Of a run of one length, whose symbol comes next.
    run: usize,
}

impl Runs {
    /// False: not possible here.
    fn apply(&mut self, symbol: u32, extra: u32, lens: &mut [u8]) -> bool {
        let (run, value) = match (symbol, self.run) {
            (17, 0) => (4 + extra as usize, 0),
            (18, 0) => (20 + extra as usize, 0),
            (19, 0) => {
                self.run = 4 + extra as usize;
                return true;
            }
            (0..=16, run) => {
                let Some(&before) = lens.get(self.at) else { return false };
                (run.max(1), (u32::from(before) + 17 - symbol) % 17)
            }
            _ => return false,
        };
        self.run = 0;
        let Some(part) = lens.get_mut(self.at..self.at + run) else { return false };
        part.fill(value as u8);
        self.at += run;
        true
    }
}
