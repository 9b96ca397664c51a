//! Near-optimal parsing: the cheapest way through a block under estimated prices.
//!
//! ```text
//! segment (up to 32 KiB)   matches of every position are found once
//!   cheap lazy parse       first counts of symbols, in pieces of 4 KiB
//!   pieces -> blocks       neighbours are joined while that saves bits
//!   block                  prices from counts; cheapest path, forwards; counts of that path; again
//! ```
//! Every place of the path knows the recent offsets of the cheapest way to it.

use super::block::{Counts, Sequence, slot_of};
use super::encode::Shared;
use super::prices::{BIT, Prices, entropy};
use super::{LONG_HEADER, MAX_MATCH, MIN_MATCH, OFFSET_BIAS};
use crate::bits::BitWriter;
use crate::matching::{Effort, HashChain, Position, Trees, Window, unpack_match};

const SEGMENT: usize = 32 << 10;
const PIECE: usize = 4 << 10;
const PIECES: usize = SEGMENT / PIECE;
/// Nodes of a segment, its end, and padding to a power of two.
const NODES: usize = 2 * SEGMENT;

/// How a level parses.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) effort: Effort,
    /// Cheapest paths computed for each block.
    pub(super) rounds: u32,
    /// A match of this length is taken without weighing its parts.
    pub(super) take_len: u32,
}

/// Where matches come from.
pub(super) enum Finder<P, const B: usize, const SLOTS: usize> {
    Chain(HashChain<P, B, SLOTS>),
    Trees(Trees<P, B, SLOTS>),
}

/// The best way to a place: its price and its last step.
#[derive(Clone, Copy)]
struct Node {
    price: u32,
    /// Length << 22 | value, the value as in [`Sequence`]; length 1 is a literal.
    step: u32,
}

const STEP_LEN: u32 = 22;

/// Three recent offsets of 21 bits, the first lowest.
#[derive(Clone, Copy)]
struct Queue(u64);

impl Queue {
    const BITS: u32 = 21;
    const ONE: u64 = (1 << Self::BITS) - 1;

    fn new(recent: [u32; 3]) -> Self {
        let [a, b, c] = recent.map(u64::from);
        Queue(a | b << Self::BITS | c << (2 * Self::BITS))
    }

    #[inline(always)]
    fn offsets(self) -> [u32; 3] {
        [
            (self.0 & Self::ONE) as u32,
            (self.0 >> Self::BITS & Self::ONE) as u32,
            (self.0 >> (2 * Self::BITS) & Self::ONE) as u32,
        ]
    }

    /// After a match of `value`.
    #[inline(always)]
    fn after(self, value: u32) -> Self {
        let [a, b, c] = self.offsets();
        Queue::new(match value {
            0 => return self,
            1 => [b, a, c],
            2 => [c, b, a],
            _ => [value - OFFSET_BIAS, a, b],
        })
    }
}

pub(super) struct Parser<P, const B: usize, const SLOTS: usize> {
    plan: Plan,
    finder: Finder<P, B, SLOTS>,
    /// Matches of all positions of the segment, and where those of each begin.
    matches: Vec<u32>,
    starts: Vec<u32>,
    nodes: Box<[Node; NODES]>,
    queues: Box<[Queue; NODES]>,
    prices: Prices,
    pieces: Vec<Piece>,
    path: Vec<Sequence>,
}

struct Piece {
    bytes: usize,
    counts: Counts,
    bits: u64,
}

impl<P: Position, const B: usize, const SLOTS: usize> Parser<P, B, SLOTS> {
    pub(super) fn new(plan: Plan, finder: Finder<P, B, SLOTS>) -> Self {
        Parser {
            plan,
            finder,
            matches: Vec::with_capacity(SEGMENT * 6),
            starts: Vec::with_capacity(SEGMENT + 1),
            nodes: crate::matching::boxed_array(Node { price: 0, step: 0 }),
            queues: crate::matching::boxed_array(Queue(0)),
            prices: Prices::new(),
            pieces: (0..PIECES)
                .map(|_| Piece { bytes: 0, counts: Counts::new(), bits: 0 })
                .collect(),
            path: Vec::with_capacity(SEGMENT / 2),
        }
    }

    /// Finds the matches of the segment from `start` to `end` in a chunk that ends at `chunk_end`.
    fn collect(
        &mut self,
        window: &Window<B>,
        start: usize,
        end: usize,
        chunk_end: usize,
        max_offset: u32,
    ) {
        self.matches.clear();
        self.starts.clear();
        self.starts.push(0);
        let effort = self.plan.effort;
        let take_len = self.plan.take_len;
        let mut pos = start;
        match &mut self.finder {
            Finder::Chain(chain) => {
                while pos < end {
                    let len = chain.collect(
                        window,
                        pos,
                        chunk_end,
                        MAX_MATCH,
                        max_offset,
                        effort,
                        &mut self.matches,
                    );
                    pos += 1;
                    self.starts.push(self.matches.len() as u32);
                    if len >= take_len {
                        let skip = (len as usize - 1).min(end - pos);
                        chain.skip(window, pos, skip, chunk_end);
                        pos += skip;
                        self.starts.resize(self.starts.len() + skip, self.matches.len() as u32);
                    }
                }
            }
            Finder::Trees(trees) => {
                while pos < end {
                    let len = trees.insert::<true>(
                        window,
                        pos,
                        chunk_end,
                        MAX_MATCH,
                        max_offset,
                        effort,
                        &mut self.matches,
                    );
                    pos += 1;
                    self.starts.push(self.matches.len() as u32);
                    if len >= take_len {
                        let skip = (len as usize - 1).min(end - pos);
                        for at in pos..pos + skip {
                            trees.insert::<false>(
                                window,
                                at,
                                chunk_end,
                                MAX_MATCH,
                                max_offset,
                                effort,
                                &mut self.matches,
                            );
                        }
                        pos += skip;
                        self.starts.resize(self.starts.len() + skip, self.matches.len() as u32);
                    }
                }
            }
        }
    }

    /// A quick parse for first counts, piece by piece. Answers how many pieces there are.
    fn first_counts(
        &mut self,
        window: &Window<B>,
        start: usize,
        end: usize,
        mut recent: [u32; 3],
    ) -> usize {
        let mut pos = start;
        let mut count = 0;
        while pos < end {
            let piece = &mut self.pieces[count];
            count += 1;
            piece.counts.clear();
            let begin = pos;
            let piece_end = (begin + PIECE).min(end);
            while pos < piece_end {
                let (len, value) = self.first_match(window, start, pos, end, &recent);
                if len < 2 {
                    self.pieces[count - 1].counts.literal(window.byte(pos));
                    pos += 1;
                    continue;
                }
                recent = Queue::new(recent).after(value).offsets();
                self.pieces[count - 1].counts.matched(&Sequence::new(0, len, value));
                pos += len as usize;
            }
            let piece = &mut self.pieces[count - 1];
            piece.bytes = pos - begin;
            piece.bits = bits_of(&piece.counts);
        }
        count
    }

    /// A good match at `pos`, or length 0.
    #[inline(always)]
    fn first_match(
        &self,
        window: &Window<B>,
        start: usize,
        pos: usize,
        end: usize,
        recent: &[u32; 3],
    ) -> (u32, u32) {
        let at = pos - start;
        let max_len = (end - pos).min(MAX_MATCH as usize);
        let mut best = (0u32, 0u32);
        let here = window.u32(pos);
        for (index, &offset) in recent.iter().enumerate() {
            if offset as usize <= pos && (window.u32(pos - offset as usize) ^ here) & 0xff_ffff == 0
            {
                let len = window.common(pos, pos - offset as usize, 3, max_len) as u32;
                if len > best.0 && len as usize <= max_len {
                    best = (len, index as u32);
                }
            }
        }
        let (from, to) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        if let Some(&packed) = self.matches[from..to].last() {
            let (len, offset) = unpack_match(packed);
            let len = len.min(max_len as u32);
            if len > best.0 + 1 && (len > 3 || offset < 2048) && (len > 2 || offset < 64) {
                best = (len, offset + OFFSET_BIAS);
            }
        }
        best
    }

    /// Joins neighbouring pieces where that is cheaper. Answers how many are left.
    fn join_pieces(&mut self, mut count: usize) -> usize {
        let mut joined = Counts::new();
        let mut at = 0;
        while at + 1 < count {
            let (a, b) = (&self.pieces[at], &self.pieces[at + 1]);
            joined.clone_from(&a.counts);
            joined.add(&b.counts);
            let bits = bits_of(&joined);
            if bits <= a.bits + b.bits {
                let bytes = b.bytes;
                let piece = &mut self.pieces[at];
                piece.bytes += bytes;
                piece.bits = bits;
                piece.counts.clone_from(&joined);
                self.pieces[at + 1..count].rotate_left(1);
                count -= 1;
                at = at.saturating_sub(1);
            } else {
                at += 1;
            }
        }
        count
    }

    /// Finds the cheapest way from `start`, `bytes` far, and leaves it in `self.path`.
    fn cheapest_path(
        &mut self,
        window: &Window<B>,
        segment: usize,
        start: usize,
        bytes: usize,
        recent: [u32; 3],
        counts: &mut Counts,
    ) -> [u32; 3] {
        let nodes = &mut *self.nodes;
        let queues = &mut *self.queues;
        let prices = &self.prices;
        nodes[..=bytes].fill(Node { price: u32::MAX, step: 0 });
        nodes[0].price = 0;
        queues[0] = Queue::new(recent);
        let mut at = 0;
        while at < bytes {
            let pos = start + at;
            let Node { price: here_price, step } = nodes[at & (NODES - 1)];
            if at > 0 {
                let before = queues[at.wrapping_sub((step >> STEP_LEN) as usize) & (NODES - 1)];
                queues[at & (NODES - 1)] = if step >> STEP_LEN == 1 {
                    before
                } else {
                    before.after(step & ((1 << STEP_LEN) - 1))
                };
            }
            let queue = queues[at & (NODES - 1)];
            let max_len = (bytes - at).min(MAX_MATCH as usize);
            let ahead = &mut nodes[at & (NODES - 1)..];
            let ahead = &mut ahead[..=max_len];

            // A literal.
            let price = here_price + prices.literal[usize::from(window.byte(pos))];
            if price < ahead[1].price {
                ahead[1] = Node { price, step: 1 << STEP_LEN };
            }
            if max_len < 2 {
                break;
            }
            // The recent offsets.
            let here = window.u32(pos);
            let mut longest_recent = 0;
            for (index, offset) in queue.offsets().into_iter().enumerate() {
                let offset = offset as usize;
                if offset > pos {
                    continue;
                }
                let differ = window.u32(pos - offset) ^ here;
                if differ & 0xffff != 0 {
                    continue;
                }
                let len = if differ != 0 {
                    ((differ.trailing_zeros() >> 3) as usize).min(max_len)
                } else {
                    window.common(pos, pos - offset, 4, max_len)
                };
                relax(ahead, prices, here_price, index as u32, index, 2, len);
                longest_recent = longest_recent.max(len);
            }
            if longest_recent >= self.plan.take_len as usize {
                at += longest_recent;
                continue;
            }
            // New offsets: for each length the nearest.
            let index = pos - segment;
            let (from, to) = (self.starts[index] as usize, self.starts[index + 1] as usize);
            let mut least = 2;
            for &packed in &self.matches[from..to] {
                let (len, offset) = unpack_match(packed);
                let len = (len as usize).min(max_len);
                let value = offset + OFFSET_BIAS;
                let slot = slot_of(value) as usize;
                let base = if slot >= 8 {
                    here_price + prices.aligned[value as usize & 7]
                } else {
                    here_price
                };
                relax(ahead, prices, base, value, slot, least, len);
                least = len + 1;
            }
            if least > self.plan.take_len as usize {
                at += least - 1;
                continue;
            }
            at += 1;
        }

        // From the end back to the start.
        let path = &mut self.path;
        path.clear();
        counts.clear();
        let mut at = bytes;
        let mut literals = 0u32;
        let mut tail = true;
        while at > 0 {
            let step = nodes[at & (NODES - 1)].step;
            let len = (step >> STEP_LEN).max(1);
            at = at.saturating_sub(len as usize);
            if len == 1 {
                counts.literal(window.byte(start + at));
                literals += 1;
                continue;
            }
            // Literals met so far follow this match.
            close_run(path, literals, &mut tail);
            literals = 0;
            let sequence = Sequence::new(0, len, step & ((1 << STEP_LEN) - 1));
            counts.matched(&sequence);
            path.push(sequence);
        }
        close_run(path, literals, &mut tail);
        path.reverse();
        let mut queue = Queue::new(recent);
        for sequence in &*path {
            if sequence.len > 0 {
                queue = queue.after(sequence.value);
            }
        }
        queue.offsets()
    }
}

/// Gives a run of literals to the match that follows it (the last pushed), or to the block's end.
fn close_run(path: &mut Vec<Sequence>, literals: u32, tail: &mut bool) {
    if *tail {
        *tail = false;
        if literals > 0 {
            path.push(Sequence { literals, value: 0, len: 0, slot: 0 });
        }
    } else if let Some(last) = path.last_mut() {
        last.literals = literals;
    }
}

/// Offers matches of `value` with the lengths from `least` to `most` to the nodes ahead.
#[inline(always)]
fn relax(
    ahead: &mut [Node],
    prices: &Prices,
    base: u32,
    value: u32,
    slot: usize,
    least: usize,
    most: usize,
) {
    let row = &prices.matched[slot & 63];
    let short_end = most.min(MIN_MATCH as usize + LONG_HEADER as usize - 1);
    for len in least..=short_end {
        let price = base + row[(len - MIN_MATCH as usize) & 7];
        let node = &mut ahead[len];
        if price < node.price {
            *node = Node { price, step: (len as u32) << STEP_LEN | value };
        }
    }
    let first = least.max(MIN_MATCH as usize + LONG_HEADER as usize);
    if first > most {
        return;
    }
    let base = base + row[LONG_HEADER as usize];
    let lens = &prices.len[first..=most];
    for ((node, extra), len) in ahead[first..=most].iter_mut().zip(lens).zip(first as u32..) {
        let price = base + extra;
        if price < node.price {
            *node = Node { price, step: len << STEP_LEN | value };
        }
    }
}

/// Bits of a block of `counts`, with its codes.
fn bits_of(counts: &Counts) -> u64 {
    let (main, main_used) = entropy(&counts.main);
    let (length, length_used) = entropy(&counts.length);
    // A used symbol takes some bits in the lists of lengths.
    main + length + u64::from(BIT) * (120 + 4 * u64::from(main_used + length_used))
}

pub(super) fn compress<P: Position, const B: usize, const SLOTS: usize>(
    core: &mut Shared<B>,
    parser: &mut Parser<P, B, SLOTS>,
    end: usize,
    writer: &mut BitWriter<'_>,
) {
    match &mut parser.finder {
        Finder::Chain(chain) => chain.reset(&core.window),
        Finder::Trees(trees) => trees.reset(),
    }
    let mut recent = [1u32; 3];
    let mut segment = 0;
    let window = &core.window;
    while segment < end && !writer.is_full() {
        let segment_end = (segment + SEGMENT).min(end);
        parser.collect(window, segment, segment_end, end, core.max_offset);
        let pieces = parser.first_counts(window, segment, segment_end, recent);
        let blocks = parser.join_pieces(pieces);
        let mut start = segment;
        for block in 0..blocks {
            let bytes = parser.pieces[block].bytes;
            core.counts.clone_from(&parser.pieces[block].counts);
            let mut after = recent;
            for _ in 0..parser.plan.rounds {
                parser.prices.set(&core.counts, core.slots);
                after =
                    parser.cheapest_path(window, segment, start, bytes, recent, &mut core.counts);
            }
            recent = after;
            core.blocks.make_codes(&core.counts);
            core.blocks.write(writer, window, start, bytes, &parser.path, &core.counts);
            start += bytes;
        }
        segment = segment_end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_moves_what_is_used_to_the_front() {
        let queue = Queue::new([10, 20, 2_097_149]);
        assert_eq!(queue.after(0).offsets(), [10, 20, 2_097_149]);
        assert_eq!(queue.after(1).offsets(), [20, 10, 2_097_149]);
        assert_eq!(queue.after(2).offsets(), [2_097_149, 20, 10]);
        assert_eq!(queue.after(7 + OFFSET_BIAS).offsets(), [7, 10, 20]);
    }
}
