//! XPRESS encoding: matches by hash chains, each compared with what the next position offers.

use super::{END_OF_DATA, HEADER_BYTES, MAX_CODEWORD_LEN, MIN_MATCH, SYMBOLS};
use crate::Level;
use crate::huffman::{CodeBuilder, canonical_codewords};
use crate::matching::{Effort, HashChain, Window};

/// Twice the largest chunk.
const B: usize = 128 << 10;

/// Some literals, then a match. The last of a chunk has no match (`len` 0).
#[derive(Clone, Copy)]
struct Sequence {
    literals: u32,
    len: u32,
    offset: u32,
}

pub(crate) struct Encoder {
    level: Level,
    window: Window<B>,
    chain: HashChain<u16, B, { 1 << 15 }>,
    sequences: Vec<Sequence>,
    counts: [u32; SYMBOLS],
    lens: [u8; SYMBOLS],
    codewords: [u16; SYMBOLS],
    builder: CodeBuilder,
}

impl Encoder {
    pub(crate) fn new(level: Level) -> Self {
        Encoder {
            level,
            window: Window::new(),
            chain: HashChain::new(),
            sequences: Vec::with_capacity(B / 2 / 3 + 2),
            counts: [0; SYMBOLS],
            lens: [0; SYMBOLS],
            codewords: [0; SYMBOLS],
            builder: CodeBuilder::new(),
        }
    }

    /// Writes to `out` and answers how many bytes, if they had room.
    pub(crate) fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        if out.len() <= HEADER_BYTES {
            return None;
        }
        self.window.load(input);
        self.chain.reset();
        self.sequences.clear();
        self.counts = [0; SYMBOLS];
        match self.level {
            Level::Fast => self.parse(input.len(), Effort { depth: 8, nice_len: 32 }, false),
            Level::Default => self.parse(input.len(), Effort { depth: 10, nice_len: 48 }, true),
            Level::Max => self.parse(input.len(), Effort { depth: 200, nice_len: 512 }, true),
        }
        self.counts[END_OF_DATA] += 1;
        self.builder.lengths(&self.counts, MAX_CODEWORD_LEN, &mut self.lens);
        canonical_codewords(&self.lens, &mut self.codewords);
        self.write(out)
    }

    /// Chooses literals and matches.
    fn parse(&mut self, end: usize, effort: Effort, twice: bool) {
        let Encoder { window, chain, counts, sequences, .. } = self;
        let window = window.view();
        let mut chain = chain.at(window, 0);
        let max_offset = u32::from(u16::MAX);
        let max_len = u32::MAX;
        let mut pos = 0;
        let mut literals = 0;
        while pos < end {
            let mut found = chain.longest(window, pos, end, 2, max_len, max_offset, effort);
            if found.offset == 0 || (found.len == 3 && found.offset >= 4096) {
                counts[usize::from(window.byte(pos))] += 1;
                literals += 1;
                pos += 1;
                continue;
            }
            // Wait as long as the next positions have something better.
            let mut inserted = pos + 1;
            while found.len < effort.nice_len && inserted < end {
                let less = Effort { depth: effort.depth / 2 + 1, ..effort };
                let next =
                    chain.longest(window, inserted, end, found.len - 1, max_len, max_offset, less);
                inserted += 1;
                if next.offset != 0
                    && 4 * (next.len as i32 - found.len as i32)
                        + (found.offset.ilog2() as i32 - next.offset.ilog2() as i32)
                        > 2
                {
                    counts[usize::from(window.byte(pos))] += 1;
                    literals += 1;
                    pos += 1;
                    found = next;
                    continue;
                }
                if !twice || inserted >= end {
                    break;
                }
                let less = Effort { depth: effort.depth / 4 + 1, ..effort };
                let next =
                    chain.longest(window, inserted, end, found.len, max_len, max_offset, less);
                inserted += 1;
                if next.offset != 0
                    && 4 * (next.len as i32 - found.len as i32)
                        + (found.offset.ilog2() as i32 - next.offset.ilog2() as i32)
                        > 6
                {
                    for _ in 0..2 {
                        counts[usize::from(window.byte(pos))] += 1;
                        pos += 1;
                    }
                    literals += 2;
                    found = next;
                    continue;
                }
                break;
            }
            counts[symbol_of(found.len, found.offset)] += 1;
            sequences.push(Sequence { literals, len: found.len, offset: found.offset });
            literals = 0;
            pos += found.len as usize;
            chain.skip(window, inserted, pos.saturating_sub(inserted), end);
        }
        sequences.push(Sequence { literals, len: 0, offset: 0 });
    }

    fn write(&self, out: &mut [u8]) -> Option<usize> {
        let (header, body) = out.split_at_mut(HEADER_BYTES);
        for (byte, pair) in header.iter_mut().zip(self.lens.as_chunks::<2>().0) {
            *byte = pair[0] | pair[1] << 4;
        }
        let window = self.window.view();
        let mut writer = Writer::new(body);
        let mut pos = 0;
        for sequence in &self.sequences {
            for _ in 0..sequence.literals {
                let symbol = usize::from(window.byte(pos));
                writer.put(u32::from(self.codewords[symbol]), u32::from(self.lens[symbol]));
                pos += 1;
            }
            if sequence.len == 0 {
                break;
            }
            let symbol = symbol_of(sequence.len, sequence.offset);
            writer.put(u32::from(self.codewords[symbol]), u32::from(self.lens[symbol]));
            let long = sequence.len - MIN_MATCH;
            if long >= 15 + 255 {
                writer.put_byte(255);
                let [low, high] = (long as u16).to_le_bytes();
                writer.put_byte(low);
                writer.put_byte(high);
            } else if long >= 15 {
                writer.put_byte((long - 15) as u8);
            }
            let log2 = sequence.offset.ilog2();
            writer.put(sequence.offset - (1 << log2), log2);
            pos += sequence.len as usize;
        }
        writer.put(u32::from(self.codewords[END_OF_DATA]), u32::from(self.lens[END_OF_DATA]));
        writer.finish().map(|len| len + HEADER_BYTES)
    }
}

#[inline(always)]
fn symbol_of(len: u32, offset: u32) -> usize {
    256 + (offset.ilog2() << 4 | (len - MIN_MATCH).min(15)) as usize
}

/// Bits in words whose places are fixed two words ahead, because that is where a reader that holds
/// 16 bits looks for a byte.
struct Writer<'a> {
    out: &'a mut [u8],
    word: usize,
    word_after: usize,
    next: usize,
    buf: u32,
    bits: u32,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut [u8]) -> Self {
        Writer { out, word: 0, word_after: 2, next: 4, buf: 0, bits: 0 }
    }

    /// Adds at most 15 bits.
    #[inline(always)]
    fn put(&mut self, value: u32, count: u32) {
        self.buf = self.buf << count | value;
        self.bits += count;
        if self.bits > 16 {
            self.bits -= 16;
            self.store((self.buf >> self.bits) as u16);
        }
    }

    #[inline(always)]
    fn store(&mut self, word: u16) {
        if let Some(place) = self.out.get_mut(self.word..self.word + 2) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.word = self.word_after;
        self.word_after = self.next;
        self.next += 2;
    }

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        if let Some(place) = self.out.get_mut(self.next) {
            *place = byte;
        }
        self.next += 1;
    }

    fn finish(mut self) -> Option<usize> {
        let len = self.next;
        self.store((self.buf << (16 - self.bits)) as u16);
        self.store(0);
        (len <= self.out.len()).then_some(len)
    }
}
