//! Binary trees: the earlier positions with the same hash of four bytes, sorted by what follows them.
//! Walking down to a position's own place meets the longest matches; the position becomes the root.

use super::{Effort, Position, View, boxed_array, pack_match};

const BITS2: u32 = 12;
const BITS3: u32 = 14;
const SLOTS2: usize = 1 << BITS2;
const SLOTS3: usize = 1 << BITS3;

/// Match finder for chunks of up to `B / 2` bytes, `SLOTS` trees.
pub(crate) struct Trees<P, const B: usize, const SLOTS: usize> {
    head2: Box<[P; SLOTS2]>,
    head3: Box<[P; SLOTS3]>,
    head4: Box<[P; SLOTS]>,
    /// For position `p` the roots of the lesser (`2p`) and the greater (`2p + 1`) positions.
    children: Box<[P; B]>,
}

impl<P: Position, const B: usize, const SLOTS: usize> Trees<P, B, SLOTS> {
    /// Children of a position: two for each of `B / 2`.
    const CHILD_MASK: usize = B - 1;

    pub(crate) fn new() -> Self {
        Trees {
            head2: boxed_array(P::NONE),
            head3: boxed_array(P::NONE),
            head4: boxed_array(P::NONE),
            children: boxed_array(P::NONE),
        }
    }

    /// Forgets everything, for a new chunk.
    pub(crate) fn reset(&mut self) {
        self.head2.fill(P::NONE);
        self.head3.fill(P::NONE);
        self.head4.fill(P::NONE);
    }

    /// Inserts `pos` and, when `COLLECT`, adds its matches of at least two bytes to `matches`, each
    /// longer than the one before and as near as that length allows. Answers the longest length.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined into its callers")]
    pub(crate) fn insert<const COLLECT: bool>(
        &mut self,
        window: View<'_, B>,
        pos: usize,
        end: usize,
        max_len: u32,
        max_offset: u32,
        effort: Effort,
        matches: &mut Vec<u32>,
    ) -> u32 {
        if end - pos < 5 {
            return 0;
        }
        let max_len = (max_len as usize).min(end - pos);
        let nice_len = (effort.nice_len as usize).min(max_len);
        let lowest = pos.saturating_sub(max_offset as usize);
        let here = window.u32(pos);
        let h2 = ((here & 0xffff).wrapping_mul(0x9e37_79b1) >> (32 - BITS2)) as usize;
        let h3 = ((here & 0xff_ffff).wrapping_mul(0x1e35_a7bd) >> (32 - BITS3)) as usize;
        let h4 = (here.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS.trailing_zeros())) as usize
            & (SLOTS - 1);
        let near2 = std::mem::replace(&mut self.head2[h2 & (SLOTS2 - 1)], P::new(pos));
        let near3 = std::mem::replace(&mut self.head3[h3 & (SLOTS3 - 1)], P::new(pos));
        let mut candidate = std::mem::replace(&mut self.head4[h4], P::new(pos));

        let mut best = 0;
        if COLLECT {
            if near3 != P::NONE
                && near3.index() >= lowest
                && (window.u32(near3.index()) ^ here) & 0xff_ffff == 0
            {
                if near2 != near3
                    && near2 != P::NONE
                    && (window.u32(near2.index()) ^ here) & 0xffff == 0
                {
                    matches.push(pack_match(2, pos - near2.index()));
                }
                matches.push(pack_match(3, pos - near3.index()));
                best = 3;
            } else if near2 != P::NONE
                && near2.index() >= lowest
                && (window.u32(near2.index()) ^ here) & 0xffff == 0
            {
                matches.push(pack_match(2, pos - near2.index()));
                best = 2;
            }
        }
        let mut longest = best.max(3);

        let mut less = 2 * pos;
        let mut greater = 2 * pos + 1;
        let (mut less_len, mut greater_len) = (0, 0);
        let mut depth = effort.depth;
        loop {
            if candidate == P::NONE || depth == 0 || candidate.index() < lowest {
                self.children[less & Self::CHILD_MASK] = P::NONE;
                self.children[greater & Self::CHILD_MASK] = P::NONE;
                return best as u32;
            }
            depth -= 1;
            let at = candidate.index();
            let known = usize::min(less_len, greater_len);
            let len = window.common(pos, at, known, max_len);
            if len > longest {
                longest = len;
                if COLLECT {
                    matches.push(pack_match(len, pos - at));
                    best = len;
                }
            }
            if len >= nice_len {
                self.children[less & Self::CHILD_MASK] = self.children[(2 * at) & Self::CHILD_MASK];
                self.children[greater & Self::CHILD_MASK] =
                    self.children[(2 * at + 1) & Self::CHILD_MASK];
                return best as u32;
            }
            if window.byte(at + len) < window.byte(pos + len) {
                self.children[less & Self::CHILD_MASK] = candidate;
                less = 2 * at + 1;
                candidate = self.children[less & Self::CHILD_MASK];
                less_len = len;
            } else {
                self.children[greater & Self::CHILD_MASK] = candidate;
                greater = 2 * at;
                candidate = self.children[greater & Self::CHILD_MASK];
                greater_len = len;
            }
        }
    }
}
