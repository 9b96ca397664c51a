//! Writing LZX blocks: codes from counts, their lengths, the items.

use super::{
    ALIGNED_SYMBOLS, BLOCK_ALIGNED, BLOCK_VERBATIM, DEFAULT_BLOCK_BYTES, LENGTH_SYMBOLS, LITERALS,
    LONG_HEADER, MAX_MAIN_SYMBOLS, MIN_MATCH, OFFSET_BIAS, PRETREE_SYMBOLS, SLOT_BITS,
};
use crate::bits::BitWriter;
use crate::huffman::{CodeBuilder, canonical_codewords};
use crate::matching::View;

const MAX_LEN: u32 = 16;
const MAX_ALIGNED_LEN: u32 = 7;
const MAX_PRETREE_LEN: u32 = 15;

/// Some literals, then a match. The last of a block may have no match (`len` 0).
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub(super) literals: u32,
    /// Recent offset 0, 1, 2, or offset + 2.
    pub(super) value: u32,
    pub(super) len: u16,
    pub(super) slot: u8,
}

impl Sequence {
    pub(super) fn new(literals: u32, len: u32, value: u32) -> Self {
        Sequence { literals, value, len: len as u16, slot: slot_of(value) as u8 }
    }
}

/// The slot of a recent offset's number or of offset + 2.
#[inline(always)]
pub(super) fn slot_of(value: u32) -> u32 {
    if value < 4 {
        return value;
    }
    let log2 = value.ilog2();
    if log2 >= 18 {
        // From 262144 on, every slot has 17 bits.
        return 34 + (value >> 17);
    }
    2 * log2 + (value >> (log2 - 1) & 1)
}

/// How often each symbol occurs in a block.
#[derive(Clone)]
pub(super) struct Counts {
    pub(super) main: [u32; MAX_MAIN_SYMBOLS],
    pub(super) length: [u32; LENGTH_SYMBOLS],
    pub(super) aligned: [u32; ALIGNED_SYMBOLS],
}

impl Counts {
    pub(super) fn new() -> Self {
        Counts {
            main: [0; MAX_MAIN_SYMBOLS],
            length: [0; LENGTH_SYMBOLS],
            aligned: [0; ALIGNED_SYMBOLS],
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Counts::new();
    }

    pub(super) fn add(&mut self, other: &Counts) {
        let pairs = (self.main.iter_mut().zip(&other.main))
            .chain(self.length.iter_mut().zip(&other.length))
            .chain(self.aligned.iter_mut().zip(&other.aligned));
        for (count, more) in pairs {
            *count += more;
        }
    }

    #[inline(always)]
    pub(super) fn literal(&mut self, byte: u8) {
        self.main[usize::from(byte)] += 1;
    }

    #[inline(always)]
    pub(super) fn matched(&mut self, sequence: &Sequence) {
        let header = (u32::from(sequence.len) - MIN_MATCH).min(LONG_HEADER);
        self.main[LITERALS + (usize::from(sequence.slot) << 3 | header as usize)] += 1;
        if header == LONG_HEADER {
            self.length[usize::from(sequence.len) - 9] += 1;
        }
        if sequence.slot >= 8 {
            self.aligned[sequence.value as usize & 7] += 1;
        }
    }
}

/// Lengths of the codewords of a block.
#[derive(Clone)]
pub(super) struct Lens {
    pub(super) main: [u8; MAX_MAIN_SYMBOLS],
    pub(super) length: [u8; LENGTH_SYMBOLS],
    pub(super) aligned: [u8; ALIGNED_SYMBOLS],
}

impl Lens {
    pub(super) fn new() -> Self {
        Lens {
            main: [0; MAX_MAIN_SYMBOLS],
            length: [0; LENGTH_SYMBOLS],
            aligned: [0; ALIGNED_SYMBOLS],
        }
    }
}

/// Makes codes and writes blocks, keeping the lengths of the block before.
pub(super) struct BlockWriter {
    main_symbols: usize,
    wide_sizes: bool,
    builder: CodeBuilder,
    previous: Lens,
    pub(super) lens: Lens,
    /// Codeword << 5 | length, for each symbol.
    main: [u32; MAX_MAIN_SYMBOLS],
    length: [u32; LENGTH_SYMBOLS],
    aligned: [u32; ALIGNED_SYMBOLS],
    codewords: [u16; MAX_MAIN_SYMBOLS],
    /// Symbols of the code of lengths, with the value of their extra bits.
    runs: Vec<(u8, u8)>,
}

impl BlockWriter {
    pub(super) fn new(main_symbols: usize, wide_sizes: bool) -> Self {
        BlockWriter {
            main_symbols,
            wide_sizes,
            builder: CodeBuilder::new(),
            previous: Lens::new(),
            lens: Lens::new(),
            main: [0; MAX_MAIN_SYMBOLS],
            length: [0; LENGTH_SYMBOLS],
            aligned: [0; ALIGNED_SYMBOLS],
            codewords: [0; MAX_MAIN_SYMBOLS],
            runs: Vec::with_capacity(MAX_MAIN_SYMBOLS),
        }
    }

    /// For a new chunk.
    pub(super) fn reset(&mut self) {
        self.previous = Lens::new();
        self.lens = Lens::new();
    }

    /// Makes the codes for `counts`.
    pub(super) fn make_codes(&mut self, counts: &Counts) {
        let main = self.main_symbols;
        self.builder.lengths(&counts.main[..main], MAX_LEN, &mut self.lens.main[..main]);
        self.builder.lengths(&counts.length, MAX_LEN, &mut self.lens.length);
        self.builder.lengths(&counts.aligned, MAX_ALIGNED_LEN, &mut self.lens.aligned);
    }

    /// Writes the block of `sequences`, whose bytes begin at `start`, with the codes made for
    /// `counts`.
    pub(super) fn write<const B: usize>(
        &mut self,
        writer: &mut BitWriter<'_>,
        window: View<'_, B>,
        start: usize,
        bytes: usize,
        sequences: &[Sequence],
        counts: &Counts,
    ) {
        let with_code: u32 = (counts.aligned.iter().zip(&self.lens.aligned))
            .map(|(&count, &len)| count * u32::from(len))
            .sum();
        let plain: u32 = counts.aligned.iter().map(|count| count * 3).sum();
        let aligned = with_code + 3 * ALIGNED_SYMBOLS as u32 + 1 < plain;

        writer.put(if aligned { BLOCK_ALIGNED } else { BLOCK_VERBATIM }, 3);
        if bytes == DEFAULT_BLOCK_BYTES as usize {
            writer.put(1, 1);
        } else if self.wide_sizes {
            writer.put(bytes as u32, 25);
        } else {
            writer.put(bytes as u32, 17);
        }
        writer.flush();
        if aligned {
            for &len in &self.lens.aligned {
                writer.put(u32::from(len), 3);
            }
            writer.flush();
        }
        let main = self.main_symbols;
        for (lens, previous) in [
            (&self.lens.main[..LITERALS], &self.previous.main[..LITERALS]),
            (&self.lens.main[LITERALS..main], &self.previous.main[LITERALS..main]),
            (&self.lens.length[..], &self.previous.length[..]),
        ] {
            write_lens(writer, &mut self.builder, &mut self.runs, lens, previous);
        }
        pack(&self.lens.main, &mut self.codewords, &mut self.main);
        pack(&self.lens.length, &mut self.codewords, &mut self.length);
        pack(&self.lens.aligned, &mut self.codewords, &mut self.aligned);
        if aligned {
            self.write_items::<B, true>(writer, window, start, sequences);
        } else {
            self.write_items::<B, false>(writer, window, start, sequences);
        }
        self.previous.main = self.lens.main;
        self.previous.length = self.lens.length;
    }

    #[inline(never)]
    fn write_items<const B: usize, const ALIGNED: bool>(
        &self,
        writer: &mut BitWriter<'_>,
        window: View<'_, B>,
        start: usize,
        sequences: &[Sequence],
    ) {
        let mut pos = start;
        for sequence in sequences {
            let literals_end = pos + sequence.literals as usize;
            while pos + 1 < literals_end {
                let first = self.main[usize::from(window.byte(pos))];
                let second = self.main[usize::from(window.byte(pos + 1))];
                writer.put(first >> 5, first & 31);
                writer.put(second >> 5, second & 31);
                writer.flush();
                pos += 2;
            }
            if pos < literals_end {
                let one = self.main[usize::from(window.byte(pos))];
                writer.put(one >> 5, one & 31);
                writer.flush();
                pos += 1;
            }
            if sequence.len == 0 {
                continue;
            }
            let len = u32::from(sequence.len);
            let slot = usize::from(sequence.slot) & 63;
            let header = (len - MIN_MATCH).min(LONG_HEADER);
            let code = self.main[LITERALS + (slot << 3 | header as usize) % (8 * super::MAX_SLOTS)];
            writer.put(code >> 5, code & 31);
            if header == LONG_HEADER {
                let code = self.length[(len as usize - 9).min(LENGTH_SYMBOLS - 1)];
                writer.put(code >> 5, code & 31);
            }
            writer.flush();
            if slot > 3 {
                let bits = EXTRA_BITS[slot];
                let extra = sequence.value & ((1 << bits) - 1);
                if ALIGNED && bits >= 3 {
                    writer.put(extra >> 3, bits - 3);
                    let code = self.aligned[extra as usize & 7];
                    writer.put(code >> 5, code & 31);
                } else {
                    writer.put(extra, bits);
                }
                writer.flush();
            }
            pos += sequence.len as usize;
        }
    }
}

/// `SLOT_BITS`, padded to a power of two. Bases of slots are multiples of their size, so extra bits
/// are the low bits of the value.
const EXTRA_BITS: [u32; 64] = {
    let mut bits = [0; 64];
    let mut slot = 0;
    while slot < super::MAX_SLOTS {
        assert!(super::SLOT_BASE[slot] & ((1 << SLOT_BITS[slot]) - 1) == 0);
        bits[slot] = SLOT_BITS[slot] as u32;
        slot += 1;
    }
    bits
};

/// Largest offset the slots of a window reach.
pub(super) fn max_offset(window_bytes: u32) -> u32 {
    super::SLOT_BASE[super::slot_count(window_bytes)] - 1 - OFFSET_BIAS
}

fn pack(lens: &[u8], codewords: &mut [u16], packed: &mut [u32]) {
    canonical_codewords(lens, codewords);
    for ((packed, &codeword), &len) in packed.iter_mut().zip(&*codewords).zip(lens) {
        *packed = u32::from(codeword) << 5 | u32::from(len);
    }
}

/// Writes `lens` as differences to `previous`, behind a code for them.
fn write_lens(
    writer: &mut BitWriter<'_>,
    builder: &mut CodeBuilder,
    runs: &mut Vec<(u8, u8)>,
    lens: &[u8],
    previous: &[u8],
) {
    runs.clear();
    let mut counts = [0u32; PRETREE_SYMBOLS];
    let mut push = |symbol: u8, extra: u8| {
        counts[usize::from(symbol)] += 1;
        runs.push((symbol, extra));
    };
    let difference = |at: usize| (previous[at] + 17 - lens[at]) % 17;
    let mut at = 0;
    while at < lens.len() {
        let len = lens[at];
        let mut run = lens[at..].iter().take_while(|&&other| other == len).count();
        if len == 0 {
            while run >= 20 {
                let take = run.min(51);
                push(18, (take - 20) as u8);
                run -= take;
                at += take;
            }
            if run >= 4 {
                let take = run.min(19);
                push(17, (take - 4) as u8);
                run -= take;
                at += take;
            }
        } else {
            while run >= 4 {
                let take = run.min(5);
                push(19, (take - 4) as u8);
                push(difference(at), 0);
                run -= take;
                at += take;
            }
        }
        for _ in 0..run {
            push(difference(at), 0);
            at += 1;
        }
    }
    let mut pretree_lens = [0u8; PRETREE_SYMBOLS];
    let mut codewords = [0u16; PRETREE_SYMBOLS];
    builder.lengths(&counts, MAX_PRETREE_LEN, &mut pretree_lens);
    canonical_codewords(&pretree_lens, &mut codewords);
    for &len in &pretree_lens {
        writer.put(u32::from(len), 4);
        writer.flush();
    }
    for &(symbol, extra) in &*runs {
        let symbol = usize::from(symbol);
        writer.put(u32::from(codewords[symbol]), u32::from(pretree_lens[symbol]));
        let bits = match symbol {
            17 => 4,
            18 => 5,
            19 => 1,
            _ => 0,
        };
        writer.put(u32::from(extra), bits);
        writer.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lzx::{MAX_SLOTS, SLOT_BASE};

    #[test]
    fn the_slot_of_a_value_is_the_last_whose_base_is_not_above() {
        for slot in 0..MAX_SLOTS {
            for value in [SLOT_BASE[slot], SLOT_BASE[slot + 1] - 1] {
                assert_eq!(slot_of(value), slot as u32, "{value}");
            }
        }
    }
}
