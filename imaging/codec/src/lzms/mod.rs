//! LZMS, as files of Windows 8 and later have it (WIM chunks and solid resources).
//!
//! Two streams share the chunk, both of 16-bit little-endian words: from its front a range-coded one
//! with the decisions, from its end, backwards, the codewords and their extra bits.
//!
//! ```text
//! item      0 literal | 1 match                       decision of 16 states
//! match     0 LZ | 1 delta                            32 states
//! LZ        0 new offset | 1 recent one               64 states
//!           recent: 0 first | 1 0 second | 1 1 third  64 states each
//! delta     the same, for (power, offset); out[i] = out[i - offset] + out[i - span]
//!           - out[i - offset - span], span = 1 << power, offset counted in spans
//! ```
//! A state is the last decisions of its kind. Codes adapt: they are made anew from counts after a
//! number of symbols, and counts are halved then. A used offset is available as a recent one only
//! from the item after the next on. At the end, relative x86 addresses are restored.

mod addresses;
mod decode;
mod encode;
mod model;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;

const NAME: &str = "LZMS";

const MAIN_STATES: usize = 16;
const MATCH_STATES: usize = 32;
const KIND_STATES: usize = 64;
const LENGTH_SYMBOLS: usize = 54;
const POWER_SYMBOLS: usize = 8;
const MAX_OFFSET_SYMBOLS: usize = 799;
const LITERAL_SYMBOLS: usize = 256;
const MAX_CODEWORD_LEN: u32 = 15;

/// Symbols after which a code is made anew.
const LITERAL_INTERVAL: u32 = 1024;
const OFFSET_INTERVAL: u32 = 1024;
const LENGTH_INTERVAL: u32 = 512;
const POWER_INTERVAL: u32 = 512;

/// How many slots of offsets have 0, 1, 2, ... extra bits.
const OFFSET_RUNS: [u8; 31] = [
    8, 0, 9, 7, 10, 15, 15, 20, 20, 30, 33, 40, 42, 45, 60, 73, 80, 85, 95, 105, 6, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 1,
];

/// The same for lengths.
const LENGTH_RUNS: [u8; 31] =
    [26, 4, 6, 4, 5, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// A range of values that share a symbol.
#[derive(Clone, Copy)]
struct Slot {
    base: u32,
    bits: u32,
}

const fn slots<const N: usize>(runs: &[u8; 31]) -> [Slot; N] {
    let mut slots = [Slot { base: 0, bits: 0 }; N];
    let mut base = 1;
    let mut at = 0;
    let mut bits = 0;
    while bits < 31 {
        let mut left = runs[bits];
        while left > 0 {
            slots[at] = Slot { base, bits: bits as u32 };
            base += 1 << bits;
            at += 1;
            left -= 1;
        }
        bits += 1;
    }
    assert!(at == N);
    slots
}

static OFFSET_SLOTS: [Slot; MAX_OFFSET_SYMBOLS] = slots(&OFFSET_RUNS);
static LENGTH_SLOTS: [Slot; LENGTH_SYMBOLS] = slots(&LENGTH_RUNS);

/// The slot that holds `value` (1 or more).
fn slot_of(slots: &[Slot], value: u32) -> usize {
    slots.partition_point(|slot| slot.base <= value) - 1
}

/// How many symbols the offset codes of a chunk have.
fn offset_symbols(chunk_len: usize) -> usize {
    match u32::try_from(chunk_len).unwrap_or(u32::MAX) {
        0 | 1 => 0,
        len => slot_of(&OFFSET_SLOTS, len - 1) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_cover_all_values_without_a_gap() {
        for slots in [&OFFSET_SLOTS[..], &LENGTH_SLOTS[..]] {
            for pair in slots.windows(2) {
                assert_eq!(pair[0].base + (1 << pair[0].bits), pair[1].base);
            }
        }
        assert_eq!(LENGTH_SLOTS[53].base, 0x108ab);
        assert_eq!(slot_of(&OFFSET_SLOTS, 8), 7);
        assert_eq!(slot_of(&OFFSET_SLOTS, 9), 8);
        assert_eq!(slot_of(&OFFSET_SLOTS, 12), 8);
    }
}
