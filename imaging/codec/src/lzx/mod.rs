//! LZX (\[MS-PATCH\], CAB SDK) as in WIM and WOF files: every chunk by itself, the window as large
//! as the chunk, calls translated as if the file had 12,000,000 bytes.
//!
//! ```text
//! block   3 bits: 1 verbatim, 2 aligned, 3 uncompressed
//!         1 bit: 32768 bytes; else 16 bits of size (24 with windows of 64 KiB and more)
//!   aligned        8 lengths of 3 bits of the aligned offset code
//!   both           lengths of the main code (256 literals, then the rest), lengths of the length
//!                  code, each as differences to the block before, behind a small code of their own
//!                  symbols; for a match: 256 + slot * 8 + min(len - 2, 7)
//!                  length symbol (len - 9), extra bits of the offset, of which the last three by the
//!                  aligned code where there are three
//!   uncompressed   padding to a word, three recent offsets of 32 bits, bytes, padding to a word
//! ```

mod block;
mod calls;
mod decode;
mod encode;
mod lazy;
mod loose;
mod optimal;
mod prices;
mod split;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;
pub(crate) use loose::Loose;

const NAME: &str = "LZX";

const MIN_MATCH: u32 = 2;
const MAX_MATCH: u32 = 257;
/// Length headers 0..6 say the length; 7 has a length symbol.
const LONG_HEADER: u32 = 7;
const LENGTH_SYMBOLS: usize = 249;
const ALIGNED_SYMBOLS: usize = 8;
const PRETREE_SYMBOLS: usize = 20;
const LITERALS: usize = 256;
/// Of a window of 2 MiB.
const MAX_SLOTS: usize = 50;
const MAX_MAIN_SYMBOLS: usize = LITERALS + 8 * MAX_SLOTS;

const BLOCK_VERBATIM: u32 = 1;
const BLOCK_ALIGNED: u32 = 2;
const BLOCK_UNCOMPRESSED: u32 = 3;
const DEFAULT_BLOCK_BYTES: u32 = 32768;

/// Slots 0, 1, 2 are the recent offsets; others hold offset + 2.
const OFFSET_BIAS: u32 = 2;

/// Extra bits of each slot.
const SLOT_BITS: [u8; MAX_SLOTS] = {
    let mut bits = [0; MAX_SLOTS];
    let mut slot = 4;
    while slot < MAX_SLOTS {
        bits[slot] = if slot < 36 { (slot / 2 - 1) as u8 } else { 17 };
        slot += 1;
    }
    bits
};

/// First value (offset + 2) of each slot, and the end of the last.
const SLOT_BASE: [u32; MAX_SLOTS + 1] = {
    let mut base = [0; MAX_SLOTS + 1];
    let mut slot = 0;
    while slot < MAX_SLOTS {
        base[slot + 1] = base[slot] + (1 << SLOT_BITS[slot]);
        slot += 1;
    }
    base
};

/// How many slots a window has: as many as reach its size.
fn slot_count(window_bytes: u32) -> usize {
    SLOT_BASE.iter().position(|&base| base >= window_bytes).unwrap_or(MAX_SLOTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_published_table() {
        assert_eq!(SLOT_BASE[..10], [0, 1, 2, 3, 4, 6, 8, 12, 16, 24]);
        assert_eq!(SLOT_BASE[30], 32768);
        assert_eq!(SLOT_BASE[36], 262_144);
        assert_eq!(SLOT_BASE[50], 2_097_152);
        let counts: Vec<usize> = (15..=21).map(|order| slot_count(1 << order)).collect();
        assert_eq!(counts, [30, 32, 34, 36, 38, 42, 50]);
    }
}
