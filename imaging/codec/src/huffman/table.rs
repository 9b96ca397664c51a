//! Decoding by table: the next `BITS` bits pick an entry; longer codewords go on in a second table.
//!
//! ```text
//! entry   payload (24 bits) << 8 | length        a symbol; length counts all bits of the codeword
//!         index << 8 | 0x80 | bits               go on with `bits` more bits at `index`
//! ```

/// The payload of bit patterns that are no codeword (their length reads as 0).
pub(crate) const ENTRY_INVALID: u32 = 0xff_ffff;

const LINK: u32 = 0x80;
const MAX_LEN: usize = 16;

/// Why no table could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadCode;

/// A table of `SIZE` entries (a power of two), of which `1 << BITS` are the first stage.
pub(crate) struct DecodeTable<const BITS: u32, const SIZE: usize> {
    entries: Box<[u32; SIZE]>,
}

impl<const BITS: u32, const SIZE: usize> DecodeTable<BITS, SIZE> {
    pub(crate) fn new() -> Self {
        const { assert!(SIZE.is_power_of_two() && SIZE >= 1 << BITS) };
        let entries = vec![ENTRY_INVALID << 8; SIZE].into_boxed_slice();
        // The length is SIZE by construction.
        DecodeTable { entries: entries.try_into().unwrap_or_else(|_| Box::new([0; SIZE])) }
    }

    /// Makes the table for codeword lengths `lens`; `payload` (below 1 << 24) is stored for each
    /// symbol. A code may leave bit patterns unused, but not use one twice.
    pub(crate) fn build(
        &mut self,
        lens: &[u8],
        sorted: &mut [u16; 1024],
        payload: impl Fn(u32) -> u32,
    ) -> Result<(), BadCode> {
        let mut count = [0u32; MAX_LEN + 1];
        for &len in lens {
            *count.get_mut(usize::from(len)).ok_or(BadCode)? += 1;
        }
        let mut start = [0u32; MAX_LEN + 2];
        let mut space = 1i64 << MAX_LEN;
        let mut max_len = 0u32;
        for len in 1..=MAX_LEN {
            start[len + 1] = start[len] + count[len];
            space -= i64::from(count[len]) << (MAX_LEN - len);
            if count[len] > 0 {
                max_len = len as u32;
            }
        }
        if space < 0 {
            return Err(BadCode);
        }
        let used = start[MAX_LEN + 1] as usize;
        let mut next = start;
        for (symbol, &len) in lens.iter().enumerate() {
            if len > 0 {
                let at = &mut next[usize::from(len)];
                sorted[*at as usize & 1023] = symbol as u16;
                *at += 1;
            }
        }

        let mut at = 0usize;
        let mut filled = 0usize;
        // Direct entries, in order of the codewords.
        for len in 1..=BITS.min(max_len) {
            let span = 1usize << (BITS - len);
            for _ in 0..count[len as usize] {
                let entry = payload(u32::from(sorted[at & 1023])) << 8 | len;
                at += 1;
                self.entries[filled..filled + span].fill(entry);
                filled += span;
            }
        }
        if at < used {
            // Codewords longer than BITS: one second-stage table for each first part.
            let more = max_len - BITS;
            let mut base = 1usize << BITS;
            let mut in_base = 0usize;
            for len in BITS + 1..=max_len {
                let span = 1usize << (max_len - len);
                for _ in 0..count[len as usize] {
                    if in_base == 0 {
                        if base + (1 << more) > SIZE {
                            return Err(BadCode);
                        }
                        self.entries[filled] = (base as u32) << 8 | LINK | more;
                        filled += 1;
                    }
                    let entry = payload(u32::from(sorted[at & 1023])) << 8 | len;
                    at += 1;
                    self.entries[base + in_base..base + in_base + span].fill(entry);
                    in_base += span;
                    if in_base == 1 << more {
                        base += in_base;
                        in_base = 0;
                    }
                }
            }
            if in_base > 0 {
                self.entries[base + in_base..base + (1 << more)].fill(ENTRY_INVALID << 8);
            }
        }
        self.entries[filled..1 << BITS].fill(ENTRY_INVALID << 8);
        Ok(())
    }

    /// The entry for the left-justified bits: its payload is `entry >> 8`, the bits to consume are
    /// `entry & 0x1f`.
    #[inline(always)]
    pub(crate) fn lookup(&self, bits: u64) -> u32 {
        let entry = self.entries[(bits >> (64 - BITS)) as usize];
        if entry & LINK == 0 {
            return entry;
        }
        let index = (entry >> 8) as usize + (bits << BITS >> 1 >> (63 - (entry & 0x1f))) as usize;
        self.entries[index & (SIZE - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codeword_is_found_in_both_stages() {
        // Lengths 1, 2, ..., 14, 15, 15.
        let lens: Vec<u8> = (1..=15).chain([15]).collect();
        let mut table = DecodeTable::<4, 65536>::new();
        table.build(&lens, &mut [0; 1024], |s| s).unwrap();
        let mut code = 0u64;
        for (symbol, &len) in lens.iter().enumerate() {
            let bits = code << (64 - u32::from(len));
            assert_eq!(table.lookup(bits) >> 8, symbol as u32);
            assert_eq!(table.lookup(bits) & 0x1f, u32::from(len));
            code = (code + 1) << lens.get(symbol + 1).map_or(0, |next| next - len);
        }
    }

    #[test]
    fn an_oversubscribed_code_is_refused_and_an_incomplete_one_has_invalid_entries() {
        let mut table = DecodeTable::<4, 16>::new();
        assert_eq!(table.build(&[1, 1, 1], &mut [0; 1024], |s| s), Err(BadCode));
        table.build(&[2, 2], &mut [0; 1024], |s| s).unwrap();
        assert_eq!(table.lookup(1 << 63) >> 8, ENTRY_INVALID);
        assert_eq!(table.lookup(0) >> 8, 0);
    }
}
