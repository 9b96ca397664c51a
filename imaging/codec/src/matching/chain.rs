//! Hash chains: for every position the one before it with the same hash of four bytes, and a table
//! of the last position with the same hash of three.

use super::{Effort, Found, Position, View, boxed_array, pack_match};

/// Match finder for chunks of up to `B / 2` bytes, `1 << BITS` chains.
pub(crate) struct HashChain<P, const B: usize, const SLOTS: usize> {
    head2: Box<[P; SLOTS2]>,
    head3: Box<[P; SLOTS3]>,
    head4: Box<[P; SLOTS]>,
    next: Box<[P; B]>,
}

/// The tables of a [`HashChain`] by direct references, for one chunk or part of it.
pub(crate) struct Chains<'a, P, const B: usize, const SLOTS: usize> {
    head2: &'a mut [P; SLOTS2],
    head3: &'a mut [P; SLOTS3],
    head4: &'a mut [P; SLOTS],
    next: &'a mut [P; B],
    /// Hashes of the position to be inserted next, computed one position ahead so that the
    /// tables' lines are on their way.
    hash3: usize,
    hash4: usize,
}

const BITS2: u32 = 12;
const SLOTS2: usize = 1 << BITS2;
const BITS3: u32 = 13;
const SLOTS3: usize = 1 << BITS3;

impl<P: Position, const B: usize, const SLOTS: usize> HashChain<P, B, SLOTS> {
    pub(crate) fn new() -> Self {
        const { assert!(SLOTS.is_power_of_two()) };
        HashChain {
            head2: boxed_array(P::NONE),
            head3: boxed_array(P::NONE),
            head4: boxed_array(P::NONE),
            next: boxed_array(P::NONE),
        }
    }

    /// Forgets everything, for a new chunk.
    pub(crate) fn reset(&mut self) {
        self.head2.fill(P::NONE);
        self.head3.fill(P::NONE);
        self.head4.fill(P::NONE);
    }

    /// The tables, to go on at `pos`.
    #[inline(always)]
    pub(crate) fn at(&mut self, window: View<'_, B>, pos: usize) -> Chains<'_, P, B, SLOTS> {
        let mut chains = Chains {
            head2: &mut self.head2,
            head3: &mut self.head3,
            head4: &mut self.head4,
            next: &mut self.next,
            hash3: 0,
            hash4: 0,
        };
        chains.hash_ahead(window, pos);
        chains
    }
}

impl<P: Position, const B: usize, const SLOTS: usize> Chains<'_, P, B, SLOTS> {
    #[inline(always)]
    fn hash_ahead(&mut self, window: View<'_, B>, pos: usize) {
        let bytes = window.u32(pos);
        self.hash3 = ((bytes & 0xff_ffff).wrapping_mul(0x1e35_a7bd) >> (32 - BITS3)) as usize;
        self.hash4 = (bytes.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS.trailing_zeros())) as usize;
    }

    /// Inserts `pos`, of which at least five bytes are left, and answers what the tables held.
    #[inline(always)]
    fn insert(&mut self, window: View<'_, B>, pos: usize) -> (P, P) {
        let (h3, h4) = (self.hash3 & (SLOTS3 - 1), self.hash4 & (SLOTS - 1));
        let (near3, near4) = (self.head3[h3], self.head4[h4]);
        self.head3[h3] = P::new(pos);
        self.head4[h4] = P::new(pos);
        self.next[pos & View::<B>::MASK] = near4;
        self.hash_ahead(window, pos + 1);
        (near3, near4)
    }

    /// Inserts the `count` positions from `pos` on, as far as the data (`end`) allows.
    #[inline(always)]
    pub(crate) fn skip(&mut self, window: View<'_, B>, pos: usize, count: usize, end: usize) {
        let last = (pos + count).min(end.saturating_sub(4));
        for at in pos..last {
            self.insert(window, at);
        }
    }

    /// Inserts `pos` and looks for a match longer than `best_len` (at least 2), at an offset up to
    /// `max_offset`. Answers `best_len` with offset 0 when there is none.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined into its callers")]
    pub(crate) fn longest(
        &mut self,
        window: View<'_, B>,
        pos: usize,
        end: usize,
        best_len: u32,
        max_len: u32,
        max_offset: u32,
        effort: Effort,
    ) -> Found {
        let mut best = Found { len: best_len, offset: 0 };
        if end - pos < 5 {
            return best;
        }
        let max_len = (max_len as usize).min(end - pos);
        let nice_len = (effort.nice_len as usize).min(max_len);
        let lowest = pos.saturating_sub(max_offset as usize);
        let (near3, mut candidate) = self.insert(window, pos);
        let here = window.u32(pos);

        if best.len < 3 && near3 != P::NONE && near3.index() >= lowest {
            let at = near3.index();
            if (window.u32(at) ^ here) & 0xff_ffff == 0 {
                best = Found { len: 3, offset: (pos - at) as u32 };
            }
        }
        if best.len as usize >= max_len {
            return best;
        }
        let mut depth = effort.depth;
        let mut best_len = best.len as usize;
        // The four bytes that a longer match must have at its end.
        let mut tail = if best_len >= 4 { window.u32(pos + best_len - 3) } else { here };
        let mut tail_at = if best_len >= 4 { best_len - 3 } else { 0 };
        while candidate != P::NONE {
            let at = candidate.index();
            if at < lowest {
                break;
            }
            if window.u32(at + tail_at) == tail && window.u32(at) == here {
                let len = window.common(pos, at, 4, max_len);
                if len > best_len {
                    best = Found { len: len as u32, offset: (pos - at) as u32 };
                    best_len = len;
                    if len >= nice_len {
                        break;
                    }
                    tail_at = len - 3;
                    tail = window.u32(pos + tail_at);
                }
            }
            depth -= 1;
            if depth == 0 {
                break;
            }
            candidate = self.next[at & View::<B>::MASK];
        }
        best
    }

    /// Inserts `pos` and adds its matches of at least two bytes to `matches`, each longer than the
    /// one before and as near as that length allows; `carried` is a match known to be there (length 0
    /// for none). Answers the longest.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined into its one caller")]
    pub(crate) fn collect(
        &mut self,
        window: View<'_, B>,
        pos: usize,
        end: usize,
        max_len: u32,
        max_offset: u32,
        effort: Effort,
        carried: Found,
        matches: &mut Vec<u32>,
    ) -> Found {
        let mut best = Found { len: 0, offset: 0 };
        if end - pos < 5 {
            return best;
        }
        let max_len = (max_len as usize).min(end - pos);
        let nice_len = (effort.nice_len as usize).min(max_len);
        let lowest = pos.saturating_sub(max_offset as usize);
        let here = window.u32(pos);
        let h2 = ((here & 0xffff).wrapping_mul(0x9e37_79b1) >> (32 - BITS2)) as usize;
        let near2 = std::mem::replace(&mut self.head2[h2 & (SLOTS2 - 1)], P::new(pos));
        let (near3, mut candidate) = self.insert(window, pos);

        let is_match = |near: P, mask: u32| {
            near != P::NONE
                && near.index() >= lowest
                && (window.u32(near.index()) ^ here) & mask == 0
        };
        if near2 != near3 && is_match(near2, 0xffff) {
            best = Found { len: 2, offset: (pos - near2.index()) as u32 };
            matches.push(pack_match(2, best.offset as usize));
        }
        if is_match(near3, 0xff_ffff) {
            best = Found { len: 3, offset: (pos - near3.index()) as u32 };
            matches.push(pack_match(3, best.offset as usize));
        }
        let mut depth = effort.depth;
        let mut tail = here;
        let mut tail_at = 0;
        while candidate != P::NONE {
            let at = candidate.index();
            if at < lowest {
                break;
            }
            if window.u32(at + tail_at) == tail && window.u32(at) == here {
                let len = window.common(pos, at, 4, max_len);
                if len > best.len as usize {
                    best = Found { len: len as u32, offset: (pos - at) as u32 };
                    matches.push(pack_match(len, pos - at));
                    if len >= nice_len {
                        break;
                    }
                    tail_at = len - 3;
                    tail = window.u32(pos + tail_at);
                }
            }
            depth -= 1;
            if depth == 0 {
                break;
            }
            candidate = self.next[at & View::<B>::MASK];
        }
        if carried.len > best.len {
            best = carried;
            matches.push(pack_match(carried.len as usize, carried.offset as usize));
        }
        best
    }
}
