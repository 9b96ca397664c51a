//! Where blocks end: a chunk is counted in pieces, and neighbours are joined while that saves bits.

use super::block::Counts;
use super::prices::{BIT, entropy};

/// A part of a chunk that will be a block, alone or with its neighbours.
pub(super) struct Piece {
    pub(super) bytes: usize,
    /// Sequences that begin in it, where they are kept.
    pub(super) sequences: usize,
    pub(super) counts: Counts,
    bits: u64,
}

/// The pieces of a segment.
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    used: usize,
    joined: Counts,
}

impl Pieces {
    pub(super) fn new() -> Self {
        Pieces { pieces: Vec::new(), used: 0, joined: Counts::new() }
    }

    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    pub(super) fn as_slice(&self) -> &[Piece] {
        &self.pieces[..self.used]
    }

    /// Adds a piece: `count` fills in its counts and answers its bytes and sequences.
    pub(super) fn add(&mut self, count: impl FnOnce(&mut Counts) -> (usize, usize)) {
        if self.used == self.pieces.len() {
            self.pieces.push(Piece { bytes: 0, sequences: 0, counts: Counts::new(), bits: 0 });
        }
        let piece = &mut self.pieces[self.used];
        self.used += 1;
        piece.counts.clear();
        (piece.bytes, piece.sequences) = count(&mut piece.counts);
        piece.bits = bits_of(&piece.counts);
    }

    /// Joins neighbours where that is cheaper.
    pub(super) fn join(&mut self) {
        let mut at = 0;
        while at + 1 < self.used {
            let (a, b) = (&self.pieces[at], &self.pieces[at + 1]);
            self.joined.clone_from(&a.counts);
            self.joined.add(&b.counts);
            let bits = bits_of(&self.joined);
            if bits > a.bits + b.bits {
                at += 1;
                continue;
            }
            let (bytes, sequences) = (b.bytes, b.sequences);
            let piece = &mut self.pieces[at];
            piece.bytes += bytes;
            piece.sequences += sequences;
            piece.bits = bits;
            piece.counts.clone_from(&self.joined);
            self.pieces[at + 1..self.used].rotate_left(1);
            self.used -= 1;
            at = at.saturating_sub(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_pieces_are_joined_and_unlike_ones_are_not() {
        let mut pieces = Pieces::new();
        for kind in [0u8, 0, 100, 100, 100] {
            pieces.add(|counts| {
                for i in 0..4000u32 {
                    counts.literal(kind + (i % 64) as u8);
                }
                (4000, 1)
            });
        }
        pieces.join();
        let bytes: Vec<usize> = pieces.as_slice().iter().map(|piece| piece.bytes).collect();
        assert_eq!(bytes, [8000, 12000]);
        assert_eq!(pieces.as_slice()[1].sequences, 3);
    }
}
