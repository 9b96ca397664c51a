//! Lazy parsing: the best match here, unless one of the next two positions has a better.
//!
//! Matches are compared by the bits they save: a literal costs about as much as a byte of a match
//! saves, an offset costs its logarithm, a recent offset costs little.

use super::block::{Counts, Sequence};
use super::encode::Shared;
use super::{MAX_MATCH, OFFSET_BIAS};
use crate::bits::BitWriter;
use crate::matching::{Chains, Effort, HashChain, Position, View};

/// A segment's sequences are kept until its blocks are known.
const SEGMENT: usize = 32 << 10;
const PIECE: usize = 16 << 10;

/// Bits that a byte costs as a literal, about.
const BYTE: i32 = 6;

/// A match, and what it saves.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) len: u32,
    /// Recent offset 0, 1, 2, or offset + 2.
    pub(super) value: u32,
    /// Bits saved.
    pub(super) score: i32,
}

impl Choice {
    /// A match with an offset that is not a recent one.
    #[inline(always)]
    pub(super) fn new_offset(len: u32, offset: u32) -> Self {
        let score = len as i32 * BYTE - 7 - offset.ilog2() as i32;
        Choice { len, value: offset + OFFSET_BIAS, score }
    }
}

const NOTHING: Choice = Choice { len: 0, value: 0, score: 0 };

pub(super) fn compress<P: Position, const B: usize, const SLOTS: usize>(
    core: &mut Shared<B>,
    chain: &mut HashChain<P, B, SLOTS>,
    end: usize,
    writer: &mut BitWriter<'_>,
) {
    let effort = Effort { depth: 10, nice_len: 64 };
    chain.reset();
    let mut recent = [1u32; 3];
    let Shared { window, sequences, pieces, blocks, max_offset, .. } = core;
    let window = window.view();
    let mut pos = 0;
    while pos < end && !writer.is_full() {
        let segment = pos;
        let segment_end = (segment + SEGMENT).min(end);
        sequences.clear();
        pieces.clear();
        while pos < segment_end {
            let begin = pos;
            let before = sequences.len();
            pieces.add(|counts| {
                let limits = Limits {
                    piece_end: (begin + PIECE).min(end),
                    end,
                    max_offset: *max_offset,
                    effort,
                };
                pos = parse(window, chain, sequences, counts, &mut recent, begin, limits);
                (pos - begin, sequences.len() - before)
            });
        }
        pieces.join();
        let mut start = segment;
        let mut rest = &sequences[..];
        for block in pieces.as_slice() {
            let (these, after) = rest.split_at(block.sequences);
            rest = after;
            blocks.make_codes(&block.counts);
            blocks.write(writer, window, start, block.bytes, these, &block.counts);
            start += block.bytes;
        }
    }
}

/// Where to stop, and how long to search.
#[derive(Clone, Copy)]
struct Limits {
    /// No sequence begins there or later.
    piece_end: usize,
    /// The chunk's end.
    end: usize,
    max_offset: u32,
    effort: Effort,
}

/// The best match at `pos` with a recent offset.
#[inline(always)]
pub(super) fn best_recent<const B: usize>(
    window: View<'_, B>,
    pos: usize,
    max_len: usize,
    recent: &[u32; 3],
) -> Choice {
    let mut best = NOTHING;
    let here = window.u32(pos);
    for (index, &offset) in recent.iter().enumerate() {
        let offset = offset as usize;
        if offset > pos {
            continue;
        }
        let differ = window.u32(pos - offset) ^ here;
        if differ & 0xffff != 0 {
            continue;
        }
        let len = if differ & 0xff_ffff != 0 {
            2
        } else if differ != 0 {
            3
        } else {
            window.common(pos, pos - offset, 4, max_len)
        }
        .min(max_len) as u32;
        let score = len as i32 * BYTE - 5 - index as i32;
        if len >= 2 && score > best.score {
            best = Choice { len, value: index as u32, score };
        }
    }
    best
}

/// The match at `pos` that saves most; of explicit offsets only those longer than `than`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined into its three callers")]
fn look<P: Position, const B: usize, const SLOTS: usize>(
    window: View<'_, B>,
    chain: &mut Chains<'_, P, B, SLOTS>,
    pos: usize,
    end: usize,
    than: u32,
    max_offset: u32,
    effort: Effort,
    recent: &[u32; 3],
) -> Choice {
    let max_len = (end - pos).min(MAX_MATCH as usize);
    let mut best = best_recent(window, pos, max_len, recent);
    let least = best.len.max(than).max(2);
    let found = chain.longest(window, pos, end, least, MAX_MATCH, max_offset, effort);
    if found.offset != 0 {
        let choice = Choice::new_offset(found.len, found.offset);
        if choice.score > best.score {
            best = choice;
        }
    }
    best
}

/// Chooses from `start` to the end of a piece or a little further; answers where it came to.
#[inline(never)]
fn parse<P: Position, const B: usize, const SLOTS: usize>(
    window: View<'_, B>,
    chain: &mut HashChain<P, B, SLOTS>,
    sequences: &mut Vec<Sequence>,
    counts: &mut Counts,
    recent: &mut [u32; 3],
    start: usize,
    limits: Limits,
) -> usize {
    let Limits { piece_end, end, max_offset, effort } = limits;
    let mut chain = chain.at(window, start);
    let mut pos = start;
    let mut literals = 0u32;

    while pos < piece_end {
        let mut best = look(
            window,
            &mut chain,
            pos,
            end,
            2,
            max_offset,
            Effort { depth: effort.depth, ..effort },
            recent,
        );
        if best.score <= 0 {
            counts.literal(window.byte(pos));
            literals += 1;
            pos += 1;
            continue;
        }
        let mut inserted = pos + 1;
        while best.len < 24 && inserted < end {
            let next = look(
                window,
                &mut chain,
                inserted,
                end,
                best.len - 1,
                max_offset,
                Effort { depth: effort.depth / 2, ..effort },
                recent,
            );
            inserted += 1;
            if next.score > best.score + 2 {
                counts.literal(window.byte(pos));
                literals += 1;
                pos += 1;
                best = next;
                continue;
            }
            if inserted >= end || best.len >= 12 {
                break;
            }
            let next = look(
                window,
                &mut chain,
                inserted,
                end,
                best.len,
                max_offset,
                Effort { depth: effort.depth / 4, ..effort },
                recent,
            );
            inserted += 1;
            if next.score > best.score + 4 {
                counts.literal(window.byte(pos));
                counts.literal(window.byte(pos + 1));
                literals += 2;
                pos += 2;
                best = next;
                continue;
            }
            break;
        }
        match best.value {
            0 => {}
            1 => recent.swap(0, 1),
            2 => recent.swap(0, 2),
            value => *recent = [value - OFFSET_BIAS, recent[0], recent[1]],
        }
        let sequence = Sequence::new(literals, best.len, best.value);
        counts.matched(&sequence);
        sequences.push(sequence);
        literals = 0;
        pos += best.len as usize;
        chain.skip(window, inserted, pos.saturating_sub(inserted), end);
    }
    if literals > 0 {
        sequences.push(Sequence { literals, value: 0, len: 0, slot: 0 });
    }
    pos
}
