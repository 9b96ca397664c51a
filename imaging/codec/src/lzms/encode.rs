//! LZMS encoding: lazy parsing over hash chains. Delta matches are read, not written.

use super::addresses::Targets;
use super::model::{AdaptiveCode, Decision, Recent};
use super::{
    KIND_STATES, LENGTH_INTERVAL, LENGTH_SLOTS, LENGTH_SYMBOLS, LITERAL_INTERVAL, LITERAL_SYMBOLS,
    MAIN_STATES, MATCH_STATES, OFFSET_INTERVAL, OFFSET_SLOTS, Slot, offset_symbols, slot_of,
};
use crate::Level;
use crate::huffman::{CodeBuilder, canonical_codewords};

pub(crate) struct Encoder {
    search: Search,
    /// The chunk, with x86 addresses made absolute.
    data: Vec<u8>,
    chain: Chain,
    targets: Targets,
    builder: CodeBuilder,
    literals: Code,
    lengths: Code,
    offsets: Code,
    front: Vec<u16>,
    back: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Search {
    depth: u32,
    nice_len: usize,
}

/// A match and the bits it saves, about.
#[derive(Clone, Copy)]
struct Choice {
    len: usize,
    from: From,
    score: i32,
}

#[derive(Clone, Copy)]
enum From {
    Recent(usize),
    Offset(u32),
}

const NOTHING: Choice = Choice { len: 0, from: From::Recent(0), score: 0 };
/// Bits that a byte costs as a literal, about.
const BYTE: i32 = 6;
/// Longer matches are cut: nothing is gained by more.
const MAX_LEN: usize = 1 << 24;

impl Encoder {
    pub(crate) fn new(level: Level) -> Self {
        Encoder {
            search: match level {
                Level::Fast => Search { depth: 12, nice_len: 64 },
                Level::Default => Search { depth: 64, nice_len: 256 },
                Level::Max => Search { depth: 512, nice_len: 2048 },
            },
            data: Vec::new(),
            chain: Chain::new(),
            targets: Targets::new(),
            builder: CodeBuilder::new(),
            literals: Code::new(LITERAL_INTERVAL),
            lengths: Code::new(LENGTH_INTERVAL),
            offsets: Code::new(OFFSET_INTERVAL),
            front: Vec::new(),
            back: Vec::new(),
        }
    }

    /// Writes to `out` and answers how many bytes, if they had room.
    pub(crate) fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        self.data.clear();
        self.data.extend_from_slice(input);
        self.targets.translate(&mut self.data);
        self.chain.reset(self.data.len());
        self.literals.reset(LITERAL_SYMBOLS, &mut self.builder);
        self.lengths.reset(LENGTH_SYMBOLS, &mut self.builder);
        self.offsets.reset(offset_symbols(input.len()), &mut self.builder);
        self.front.clear();
        self.back.clear();
        self.items(out.len() / 2)?;

        let words = self.front.iter().chain(self.back.iter().rev());
        let places = out.as_chunks_mut::<2>().0;
        let count = self.front.len() + self.back.len();
        for (place, word) in places.get_mut(..count)?.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        Some(count * 2)
    }

    /// Codes all items; gives up when more than `max_words` are needed.
    fn items(&mut self, max_words: usize) -> Option<()> {
        let Encoder { search, data, chain, builder, literals, lengths, offsets, .. } = self;
        let data = &data[..];
        let mut front = RangeWriter::new(&mut self.front);
        let mut back = BackWriter::new(&mut self.back);
        let mut is_match = Decision::<MAIN_STATES>::new();
        let mut is_delta = Decision::<MATCH_STATES>::new();
        let mut decisions = [const { Decision::<KIND_STATES>::new() }; 3];
        let mut queue = Recent::new([1u32, 2, 3, 4]);
        let mut waits = false;

        let mut pos = 0;
        let mut ahead: Option<Choice> = None;
        while pos < data.len() {
            let best = match ahead.take() {
                Some(choice) => choice,
                None => choose(data, pos, chain, *search, &queue, waits),
            };
            // Wait if the next position has something better. After a literal no offset waits.
            if best.len > 0 && best.len < search.nice_len && pos + 1 < data.len() {
                let next = choose(data, pos + 1, chain, *search, &queue, false);
                if next.score > best.score + 2 {
                    front.code(&mut is_match, 0);
                    literals.put(usize::from(data[pos]), &mut back, builder);
                    waits = false;
                    pos += 1;
                    ahead = Some(next);
                    continue;
                }
            }
            if best.len == 0 {
                front.code(&mut is_match, 0);
                literals.put(usize::from(data[pos]), &mut back, builder);
                waits = false;
                pos += 1;
            } else {
                front.code(&mut is_match, 1);
                front.code(&mut is_delta, 0);
                let [is_recent, not_first, not_second] = &mut decisions;
                match best.from {
                    From::Offset(offset) => {
                        front.code(is_recent, 0);
                        offsets.put_value(&OFFSET_SLOTS, offset, &mut back, builder);
                        queue.push(offset);
                    }
                    From::Recent(index) => {
                        front.code(is_recent, 1);
                        front.code(not_first, u32::from(index > 0));
                        if index > 0 {
                            front.code(not_second, u32::from(index > 1));
                        }
                        queue.take(index, waits);
                    }
                }
                lengths.put_value(&LENGTH_SLOTS, best.len as u32, &mut back, builder);
                waits = true;
                chain.insert_to(data, pos + best.len);
                pos += best.len;
            }
            if front.words.len() + back.words.len() > max_words {
                return None;
            }
        }
        front.finish();
        back.finish();
        Some(())
    }
}

/// The match at `pos` that saves most.
fn choose(
    data: &[u8],
    pos: usize,
    chain: &mut Chain,
    search: Search,
    queue: &Recent<u32>,
    waits: bool,
) -> Choice {
    let mut best = NOTHING;
    for index in 0..3 {
        let offset = queue.get(index, waits) as usize;
        if offset <= pos {
            let len = common(data, pos - offset, pos);
            let score = len as i32 * BYTE - 8 - index as i32;
            if len >= 2 && score > best.score {
                best = Choice { len, from: From::Recent(index), score };
            }
        }
    }
    chain.insert_to(data, pos);
    let (len, offset) = chain.longest(data, pos, best.len.max(2), search);
    if offset > 0 {
        let score = (len.min(1 << 20) as i32) * BYTE - 13 - offset.ilog2() as i32;
        if score > best.score {
            best = Choice { len, from: From::Offset(offset), score };
        }
    }
    best
}

/// How many bytes are the same at `a` and at `b`, which is behind `a`.
#[inline(always)]
fn common(data: &[u8], a: usize, b: usize) -> usize {
    let max = (data.len() - b).min(MAX_LEN);
    let (old, new) = (&data[a..a + max], &data[b..b + max]);
    let mut len = 0;
    while let (Some(x), Some(y)) = (old[len..].first_chunk::<8>(), new[len..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return len + (differ.trailing_zeros() >> 3) as usize;
        }
        len += 8;
    }
    while len < max && old[len] == new[len] {
        len += 1;
    }
    len
}

/// Hash chains over a chunk of any size.
struct Chain {
    heads: Vec<u32>,
    heads3: Vec<u32>,
    next: Vec<u32>,
    bits: u32,
    /// All positions before it are in the tables.
    inserted: usize,
}

const NONE: u32 = u32::MAX;
const BITS3: u32 = 15;

impl Chain {
    fn new() -> Self {
        Chain { heads: Vec::new(), heads3: Vec::new(), next: Vec::new(), bits: 0, inserted: 0 }
    }

    fn reset(&mut self, len: usize) {
        // About one chain for each position, within 4 MiB.
        self.bits = len.max(1).ilog2().clamp(15, 20);
        self.heads.clear();
        self.heads.resize(1 << self.bits, NONE);
        self.heads3.clear();
        self.heads3.resize(1 << BITS3, NONE);
        if self.next.len() < len {
            self.next.resize(len, NONE);
        }
        self.inserted = 0;
    }

    #[inline(always)]
    fn hashes(&self, bytes: u32) -> (usize, usize) {
        let four = (bytes.wrapping_mul(0x9e37_79b1) >> (32 - self.bits)) as usize;
        let three = ((bytes & 0xff_ffff).wrapping_mul(0x1e35_a7bd) >> (32 - BITS3)) as usize;
        (four, three)
    }

    /// Inserts the positions before `pos`.
    fn insert_to(&mut self, data: &[u8], pos: usize) {
        while self.inserted < pos {
            let at = self.inserted;
            self.inserted += 1;
            let Some(bytes) = data[at..].first_chunk::<4>() else { continue };
            let (four, three) = self.hashes(u32::from_le_bytes(*bytes));
            self.next[at] = self.heads[four];
            self.heads[four] = at as u32;
            self.heads3[three] = at as u32;
        }
    }

    /// The longest match at `pos` of more than `than` bytes (at least 2), or offset 0.
    fn longest(&self, data: &[u8], pos: usize, than: usize, search: Search) -> (usize, u32) {
        let mut best = (than, 0u32);
        let Some(bytes) = data[pos..].first_chunk::<4>() else { return best };
        let here = u32::from_le_bytes(*bytes);
        let (four, three) = self.hashes(here);
        let near = self.heads3[three];
        if than < 3 && near != NONE {
            let at = near as usize;
            if data[at..at + 3] == bytes[..3] && pos - at < 1 << 16 {
                best = (3, (pos - at) as u32);
            }
        }
        let mut candidate = self.heads[four];
        let mut depth = search.depth;
        while candidate != NONE && depth > 0 {
            depth -= 1;
            let at = candidate as usize;
            // A longer match has the same byte at the best one's end.
            if pos + best.0 < data.len()
                && data[at + best.0] == data[pos + best.0]
                && data[at..].first_chunk::<4>() == Some(bytes)
            {
                let len = common(data, at, pos);
                if len > best.0 {
                    best = (len, (pos - at) as u32);
                    if len >= search.nice_len {
                        break;
                    }
                }
            }
            candidate = self.next[at];
        }
        best
    }
}

/// Decisions, from the front of the chunk.
struct RangeWriter<'a> {
    words: &'a mut Vec<u16>,
    low: u64,
    range: u32,
    /// The last word, which a carry may still change, and how many words of all ones follow it.
    held: Option<u16>,
    ones: usize,
}

impl<'a> RangeWriter<'a> {
    fn new(words: &'a mut Vec<u16>) -> Self {
        RangeWriter { words, low: 0, range: u32::MAX, held: None, ones: 0 }
    }

    #[inline(always)]
    fn code<const STATES: usize>(&mut self, decision: &mut Decision<STATES>, bit: u32) {
        let bound = (self.range >> 6) * decision.current().of_zero();
        if bit == 0 {
            self.range = bound;
        } else {
            self.low += u64::from(bound);
            self.range -= bound;
        }
        decision.record(bit);
        if self.range <= 0xffff {
            self.range <<= 16;
            self.shift();
        }
    }

    fn shift(&mut self) {
        let top = (self.low >> 16) as u32;
        if top != 0xffff {
            let carry = (top >> 16) as u16;
            if let Some(held) = self.held {
                self.words.push(held.wrapping_add(carry));
            }
            let ones = self.words.len() + self.ones;
            self.words.resize(ones, 0xffff_u16.wrapping_add(carry));
            self.ones = 0;
            self.held = Some(top as u16);
        } else if self.held.is_none() {
            // The first word cannot carry: nothing is before it.
            self.held = Some(0xffff);
        } else {
            self.ones += 1;
        }
        self.low = (self.low & 0xffff) << 16;
    }

    fn finish(&mut self) {
        for _ in 0..3 {
            self.shift();
        }
    }
}

/// Codewords and extra bits, in words that are put from the end of the chunk backwards.
struct BackWriter<'a> {
    words: &'a mut Vec<u16>,
    buf: u64,
    bits: u32,
}

impl<'a> BackWriter<'a> {
    fn new(words: &'a mut Vec<u16>) -> Self {
        BackWriter { words, buf: 0, bits: 0 }
    }

    /// Adds the low `count` bits of `value`, at most 32.
    #[inline(always)]
    fn put(&mut self, value: u32, count: u32) {
        self.buf = self.buf << count | u64::from(value);
        self.bits += count;
        while self.bits >= 16 {
            self.bits -= 16;
            self.words.push((self.buf >> self.bits) as u16);
        }
    }

    fn finish(&mut self) {
        let pad = self.bits.wrapping_neg() & 15;
        self.put(0, pad);
    }
}

/// An adaptive code with its codewords.
struct Code {
    adaptive: AdaptiveCode,
    codewords: Vec<u16>,
}

impl Code {
    fn new(interval: u32) -> Self {
        Code { adaptive: AdaptiveCode::new(interval), codewords: Vec::new() }
    }

    fn reset(&mut self, symbols: usize, builder: &mut CodeBuilder) {
        self.adaptive.reset(symbols, builder);
        self.codewords.clear();
        self.codewords.resize(symbols, 0);
        canonical_codewords(&self.adaptive.lens, &mut self.codewords);
    }

    #[inline(always)]
    fn put(&mut self, symbol: usize, back: &mut BackWriter<'_>, builder: &mut CodeBuilder) {
        back.put(u32::from(self.codewords[symbol]), u32::from(self.adaptive.lens[symbol]));
        if self.adaptive.record(symbol, builder) {
            canonical_codewords(&self.adaptive.lens, &mut self.codewords);
        }
    }

    #[inline(always)]
    fn put_value(
        &mut self,
        slots: &[Slot],
        value: u32,
        back: &mut BackWriter<'_>,
        builder: &mut CodeBuilder,
    ) {
        let symbol = slot_of(slots, value);
        self.put(symbol, back, builder);
        let slot = slots[symbol];
        back.put(value - slot.base, slot.bits);
    }
}
