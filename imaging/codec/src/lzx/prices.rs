//! What symbols cost, in 1/64 bits, from how often they occur.

use super::block::Counts;
use super::optimal::{NODE_LEN, NODE_PRICE};
use super::{LITERALS, LONG_HEADER, MAX_MATCH, MAX_SLOTS, SLOT_BITS};

/// One bit.
pub(super) const BIT: u32 = 64;

/// `log2(1 + i / 256)` in 1/64, found by squaring.
const FRACTIONS: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut x: u64 = ((256 + i) as u64) << 22;
        let mut bits = 0;
        let mut step = 0;
        while step < 7 {
            x = (x * x) >> 30;
            bits <<= 1;
            if x >= 1 << 31 {
                x >>= 1;
                bits |= 1;
            }
            step += 1;
        }
        // Seven bits, rounded to six; never up to a whole.
        let rounded = (bits as u32).div_ceil(2) as u8;
        table[i] = if rounded > 63 { 63 } else { rounded };
        i += 1;
    }
    table
};

/// `log2(x)` in 1/64; of 0 as of 1.
#[inline(always)]
pub(super) fn log2(x: u32) -> u32 {
    let x = x | u32::from(x == 0);
    let whole = x.ilog2();
    let fraction = (x << (31 - whole)) >> 23 & 0xff;
    whole * BIT + u32::from(FRACTIONS[fraction as usize])
}

/// Bits that `counts` take with the code made for them, without that code.
pub(super) fn entropy(counts: &[u32]) -> (u64, u32) {
    let mut total = 0u32;
    let mut used = 0u32;
    let mut sum = 0u64;
    for &count in counts {
        total += count;
        used += u32::from(count > 0);
        sum += u64::from(count) * u64::from(log2(count));
    }
    ((u64::from(total) * u64::from(log2(total))).saturating_sub(sum), used)
}

/// The price of every symbol, as what is added to a [`Node`](super::optimal): the price in the upper
/// half, in the lower the length where the symbol says it.
#[derive(Clone)]
pub(super) struct Prices {
    pub(super) literal: [u64; LITERALS],
    /// By slot and length header, with the extra bits.
    pub(super) matched: [[u64; 8]; 64],
    /// By length: of the length symbol, 0 where there is none.
    pub(super) len: [u64; MAX_MATCH as usize + 1],
    /// By the last three bits of an offset in slots of three and more extra bits.
    pub(super) aligned: [u64; 8],
}

fn step(price: u32, len: usize) -> u64 {
    u64::from(price) << NODE_PRICE | (len as u64) << NODE_LEN
}

impl Prices {
    pub(super) fn new() -> Self {
        Prices {
            literal: [0; LITERALS],
            matched: [[0; 8]; 64],
            len: [0; MAX_MATCH as usize + 1],
            aligned: [0; 8],
        }
    }

    /// Sets the prices for a block in which symbols are expected to be as frequent as in `counts`.
    pub(super) fn set(&mut self, counts: &Counts, slots: usize) {
        let used = &counts.main[..LITERALS + 8 * slots];
        let total: u32 = used.iter().sum::<u32>();
        let whole = log2(total.max(1));
        // What did not occur is taken to be rarer than what did once.
        let most = whole + 2 * BIT;
        let price = |count: u32, whole: u32, none: u32| {
            if count == 0 { none } else { (whole.saturating_sub(log2(count))).max(BIT / 2) }
        };
        for (price_of, &count) in self.literal.iter_mut().zip(used) {
            *price_of = step(price(count, whole, most), 1);
        }
        // Which last three bits are frequent pays only if the aligned code is worth its lengths.
        let total: u32 = counts.aligned.iter().sum();
        let (aligned_bits, _) = entropy(&counts.aligned);
        if aligned_bits + u64::from(28 * BIT) < u64::from(total) * u64::from(3 * BIT) {
            let whole = log2(total.max(1));
            for (price_of, &count) in self.aligned.iter_mut().zip(&counts.aligned) {
                *price_of = step(price(count, whole, 7 * BIT).min(7 * BIT), 0);
            }
        } else {
            self.aligned = [step(3 * BIT, 0); 8];
        }
        for slot in 0..slots.min(MAX_SLOTS) {
            let bits = u32::from(SLOT_BITS[slot]);
            // The last three bits are priced with the aligned code.
            let extra = if slot >= 8 { bits - 3 } else { bits } * BIT;
            for header in 0..=LONG_HEADER as usize {
                let count = used[LITERALS + slot * 8 + header];
                let len = if header == LONG_HEADER as usize { 0 } else { header + 2 };
                self.matched[slot][header] = step(price(count, whole, most) + extra, len);
            }
        }
        let total: u32 = counts.length.iter().sum();
        let whole = log2(total.max(1));
        let none = whole + 2 * BIT;
        let none = none.min(14 * BIT);
        for ((price_of, &count), len) in self.len[9..].iter_mut().zip(&counts.length).zip(9..) {
            *price_of = step(price(count, whole, none), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_a_sixty_fourth() {
        for x in 1..100_000u32 {
            let exact = f64::from(x).log2() * 64.0;
            assert!((f64::from(log2(x)) - exact).abs() < 1.5, "{x}");
        }
    }

    #[test]
    fn entropy_of_equal_counts_is_their_logarithm() {
        assert_eq!(entropy(&[10; 16]), (160 * 4 * 64, 16));
        assert_eq!(entropy(&[0, 7, 0]), (0, 1));
    }
}
