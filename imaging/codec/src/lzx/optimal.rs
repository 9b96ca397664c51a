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
use super::lazy::{Choice, best_recent};
use super::prices::Prices;
use super::split::Pieces;
use super::{LONG_HEADER, MAX_MATCH, MIN_MATCH, OFFSET_BIAS};
use crate::bits::BitWriter;
use crate::matching::{Effort, Found, HashChain, Position, Trees, View, unpack_match};

const SEGMENT: usize = 32 << 10;
const PIECE: usize = 4 << 10;
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

/// The best way to a place: price << 32 | length << 22 | value of its last step, the value as in
/// [`Sequence`]; length 1 and value 0 is a literal. The least of two nodes is the better way.
type Node = u64;

pub(super) const NODE_PRICE: u32 = 32;
pub(super) const NODE_LEN: u32 = 22;
const UNREACHED: Node = u64::MAX;

#[inline(always)]
fn step_of(node: Node) -> (usize, u32) {
    ((node as u32 >> NODE_LEN) as usize, node as u32 & ((1 << NODE_LEN) - 1))
}

/// Three recent offsets of 21 bits, the first lowest.
#[derive(Clone, Copy)]
struct Queue(u64);

impl Queue {
    const BITS: u32 = 21;
    const ONE: u64 = (1 << Self::BITS) - 1;

    fn new(recent: [u32; 3]) -> Self {
        let [a, b, c] = recent;
        Queue(u64::from(a) | u64::from(b) << Self::BITS | u64::from(c) << (2 * Self::BITS))
    }

    #[inline(always)]
    fn offset(self, index: u32) -> u32 {
        (self.0 >> (index * Self::BITS) & Self::ONE) as u32
    }

    fn offsets(self) -> [u32; 3] {
        [self.offset(0), self.offset(1), self.offset(2)]
    }

    /// After a match of `value`; after a literal if that is 0.
    #[inline(always)]
    fn after(self, value: u32) -> Self {
        // A recent offset changes places with the first; a new one moves all.
        let shift = (value & 3) * Self::BITS;
        let differ = (self.0 ^ self.0 >> shift) & Self::ONE;
        let swapped = self.0 ^ (differ | differ << shift);
        let offset = u64::from(value.wrapping_sub(OFFSET_BIAS));
        let pushed = (self.0 << Self::BITS | offset) & (u64::MAX >> 1);
        Queue(if value > 2 { pushed } else { swapped })
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
    path: Vec<Sequence>,
}

impl<P: Position, const B: usize, const SLOTS: usize> Parser<P, B, SLOTS> {
    pub(super) fn new(plan: Plan, finder: Finder<P, B, SLOTS>) -> Self {
        Parser {
            plan,
            finder,
            matches: Vec::with_capacity(SEGMENT * 6),
            starts: Vec::with_capacity(SEGMENT + 1),
            nodes: crate::matching::boxed_array(0),
            queues: crate::matching::boxed_array(Queue(0)),
            prices: Prices::new(),
            path: Vec::with_capacity(SEGMENT / 2),
        }
    }

    /// Finds the matches of the segment from `start` to `end` in a chunk that ends at `chunk_end`.
    #[inline(never)]
    fn collect(
        &mut self,
        window: View<'_, B>,
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
                let mut chain = chain.at(window, start);
                let mut carried = Found { len: 0, offset: 0 };
                while pos < end {
                    // Within a long match a better one is rare.
                    let shift = u32::from(carried.len >= 16) + u32::from(carried.len >= 8);
                    let found = chain.collect(
                        window,
                        pos,
                        chunk_end,
                        MAX_MATCH,
                        max_offset,
                        Effort { depth: (effort.depth >> shift).max(1), ..effort },
                        carried,
                        &mut self.matches,
                    );
                    let len = found.len;
                    carried = Found { len: len.saturating_sub(1), ..found };
                    pos += 1;
                    self.starts.push(self.matches.len() as u32);
                    if len >= take_len {
                        let skip = (len as usize - 1).min(end - pos);
                        carried.len = 0;
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

    /// A quick parse for first counts, piece by piece.
    #[inline(never)]
    fn first_counts(
        &self,
        window: View<'_, B>,
        start: usize,
        end: usize,
        mut recent: [u32; 3],
        pieces: &mut Pieces,
    ) {
        let mut pos = start;
        let mut ahead = None;
        pieces.clear();
        while pos < end {
            let begin = pos;
            let piece_end = (begin + PIECE).min(end);
            pieces.add(|counts| {
                while pos < piece_end {
                    let best = match ahead.take() {
                        Some(choice) => choice,
                        None => self.first_match(window, start, pos, end, &recent),
                    };
                    if best.len >= 2 && best.len < 24 && pos + 1 < end {
                        let next = self.first_match(window, start, pos + 1, end, &recent);
                        if next.score > best.score + 2 {
                            counts.literal(window.byte(pos));
                            pos += 1;
                            ahead = Some(next);
                            continue;
                        }
                    }
                    if best.len < 2 {
                        counts.literal(window.byte(pos));
                        pos += 1;
                        continue;
                    }
                    recent = Queue::new(recent).after(best.value).offsets();
                    counts.matched(&Sequence::new(0, best.len, best.value));
                    pos += best.len as usize;
                }
                (pos - begin, 0)
            });
        }
    }

    /// The match at `pos` that saves most, of the recent ones and the longest new one.
    #[inline(always)]
    fn first_match(
        &self,
        window: View<'_, B>,
        start: usize,
        pos: usize,
        end: usize,
        recent: &[u32; 3],
    ) -> Choice {
        let at = pos - start;
        let max_len = (end - pos).min(MAX_MATCH as usize);
        let mut best = best_recent(window, pos, max_len, recent);
        let (from, to) = (self.starts[at] as usize, self.starts[at + 1] as usize);
        if let Some(&packed) = self.matches[from..to].last() {
            let (len, offset) = unpack_match(packed);
            let choice = Choice::new_offset(len.min(max_len as u32), offset);
            if choice.score > best.score {
                best = choice;
            }
        }
        best
    }

    /// Finds the cheapest way from `start`, `bytes` far, and leaves it in `self.path`.
    #[inline(never)]
    fn cheapest_path(
        &mut self,
        window: View<'_, B>,
        segment: usize,
        start: usize,
        bytes: usize,
        recent: [u32; 3],
        counts: &mut Counts,
    ) -> [u32; 3] {
        let nodes = &mut *self.nodes;
        let queues = &mut *self.queues;
        let prices = &self.prices;
        let take_len = self.plan.take_len as usize;
        nodes[..=bytes + 8].fill(UNREACHED);
        nodes[0] = 0;
        queues[0] = Queue::new(recent);
        let mut at = 0;
        while at < bytes {
            let pos = start + at;
            let node = nodes[at & (NODES - 1)];
            let (step_len, step_value) = step_of(node);
            let queue = queues[at.wrapping_sub(step_len) & (NODES - 1)].after(step_value);
            queues[at & (NODES - 1)] = queue;
            // What a step adds to: the price alone.
            let base = node >> NODE_PRICE << NODE_PRICE;
            let max_len = (bytes - at).min(MAX_MATCH as usize);
            let ahead = &mut nodes[at & (NODES - 1)..];
            let ahead = &mut ahead[..=MAX_MATCH as usize];

            // A literal.
            ahead[1] = ahead[1].min(base + prices.literal[usize::from(window.byte(pos))]);
            if max_len < 2 {
                break;
            }
            // The recent offsets.
            let here = window.u64(pos);
            let mut longest_recent = 0;
            for index in 0..3 {
                let offset = queue.offset(index) as usize;
                if offset > pos {
                    continue;
                }
                let differ = window.u64(pos - offset) ^ here;
                if differ & 0xffff != 0 {
                    continue;
                }
                let len = if differ != 0 {
                    ((differ.trailing_zeros() >> 3) as usize).min(max_len)
                } else {
                    window.common(pos, pos - offset, 8, max_len)
                };
                relax(ahead, prices, base + u64::from(index), index as usize, 2, len);
                longest_recent = longest_recent.max(len);
            }
            if longest_recent >= take_len {
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
                let aligned = if slot >= 8 { prices.aligned[value as usize & 7] } else { 0 };
                relax(ahead, prices, base + aligned + u64::from(value), slot, least, len);
                least = len + 1;
            }
            if least > take_len {
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
            let (len, value) = step_of(nodes[at & (NODES - 1)]);
            let len = len.max(1);
            at = at.saturating_sub(len);
            if len == 1 {
                counts.literal(window.byte(start + at));
                literals += 1;
                continue;
            }
            // Literals met so far follow this match.
            close_run(path, literals, &mut tail);
            literals = 0;
            let sequence = Sequence::new(0, len as u32, value);
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

/// Offers matches with the lengths from 2 to `most` to the nodes ahead; `base` is the price of the
/// way up to here and the value. Those up to 8 without a branch, because their number is hard to
/// foresee: what is too long is offered at a price that nothing else exceeds.
#[inline(always)]
fn relax(ahead: &mut [Node], prices: &Prices, base: u64, slot: usize, least: usize, most: usize) {
    let row = &prices.matched[slot & 63];
    let too_long = &TOO_LONG[most.min(8) & 15];
    if let Some(near) = ahead.get_mut(2..).and_then(|rest| rest.first_chunk_mut::<7>()) {
        for ((node, price), too_long) in near.iter_mut().zip(row).zip(too_long) {
            *node = (*node).min((base + price) | too_long);
        }
    }
    let first = least.max(MIN_MATCH as usize + LONG_HEADER as usize);
    if first > most {
        return;
    }
    let base = base + row[LONG_HEADER as usize];
    let nodes = &mut ahead[first..=most];
    let lens = &prices.len[first..=most];
    for (node, len) in nodes.iter_mut().zip(lens) {
        *node = (*node).min(base + len);
    }
}

/// By the longest length up to 8: a high bit for the lengths (from 2) beyond it.
const TOO_LONG: [[u64; 7]; 16] = {
    let mut table = [[1 << 63; 7]; 16];
    let mut most = 2;
    while most <= 8 {
        let mut len = 2;
        while len <= most {
            table[most][len - 2] = 0;
            len += 1;
        }
        most += 1;
    }
    table
};

pub(super) fn compress<P: Position, const B: usize, const SLOTS: usize>(
    core: &mut Shared<B>,
    parser: &mut Parser<P, B, SLOTS>,
    end: usize,
    writer: &mut BitWriter<'_>,
) {
    match &mut parser.finder {
        Finder::Chain(chain) => chain.reset(),
        Finder::Trees(trees) => trees.reset(),
    }
    let mut recent = [1u32; 3];
    let mut segment = 0;
    let window = core.window.view();
    while segment < end && !writer.is_full() {
        let segment_end = (segment + SEGMENT).min(end);
        parser.collect(window, segment, segment_end, end, core.max_offset);
        parser.first_counts(window, segment, segment_end, recent, &mut core.pieces);
        core.pieces.join();
        let mut start = segment;
        for block in core.pieces.as_slice() {
            let bytes = block.bytes;
            core.counts.clone_from(&block.counts);
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
