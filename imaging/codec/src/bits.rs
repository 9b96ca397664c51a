//! Bit streams made of 16-bit little-endian words, the first bit in the highest place: what
//! XPRESS and LZX share.
//!
//! ```text
//! bytes   b0 b1 | b2 b3 | ...
//! words   b1b0    b3b2            bit 15 of a word comes first
//! ```

/// Reads bits. Past the end it reads zeros and [`BitReader::overrun`] becomes true.
pub(crate) struct BitReader<'a> {
    input: &'a [u8],
    /// Next byte to load.
    pos: usize,
    /// Loaded bits, left-justified; the rest is zero.
    buf: u64,
    /// Count of loaded bits.
    bits: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(input: &'a [u8], pos: usize) -> Self {
        BitReader { input, pos, buf: 0, bits: 0 }
    }

    /// Loads until at least 33 bits are there.
    #[inline(always)]
    pub(crate) fn refill(&mut self) {
        if self.bits <= 32 {
            match self.input.get(self.pos..).and_then(|rest| rest.first_chunk::<4>()) {
                Some(bytes) => {
                    let pair = u32::from_le_bytes(*bytes).rotate_left(16);
                    self.buf |= u64::from(pair) << (32 - self.bits);
                    self.bits += 32;
                    self.pos += 4;
                }
                None => self.refill_at_end(),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_at_end(&mut self) {
        while self.bits <= 32 {
            let word = match self.input.get(self.pos..).and_then(|rest| rest.first_chunk::<2>()) {
                Some(bytes) => u16::from_le_bytes(*bytes),
                None => 0,
            };
            self.buf |= u64::from(word) << (48 - self.bits);
            self.bits += 16;
            self.pos += 2;
        }
    }

    /// The loaded bits, left-justified.
    #[inline(always)]
    pub(crate) fn peek(&self) -> u64 {
        self.buf
    }

    /// Drops `count` loaded bits; `count` is at most 63 and at most what is loaded.
    #[inline(always)]
    pub(crate) fn consume(&mut self, count: u32) {
        self.buf <<= count & 63;
        self.bits = self.bits.wrapping_sub(count);
    }

    /// Takes `count` loaded bits, at most 31.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: u32) -> u32 {
        // Two shifts, because a shift by 64 for count 0 is none.
        let value = (self.buf >> 1 >> (63 - (count & 63))) as u32;
        self.consume(count);
        value
    }

    /// Loads and takes `count` bits, at most 31.
    #[inline]
    pub(crate) fn read(&mut self, count: u32) -> u32 {
        self.refill();
        self.take(count)
    }

    /// Byte offset of the next unread bit.
    pub(crate) fn byte_pos(&self) -> usize {
        (self.pos * 8).saturating_sub(self.bits as usize) / 8
    }

    /// True when bits beyond the end of the input have been consumed.
    pub(crate) fn overrun(&self) -> bool {
        self.pos * 8 > self.input.len() * 8 + self.bits as usize
    }

    /// Gives back whole words so that only `keep` bits (1 to 31) stay loaded.
    #[inline]
    fn unload(&mut self, keep: u32) {
        let back = self.bits - keep;
        self.pos -= back as usize / 8;
        self.bits = keep;
        self.buf = self.buf >> (64 - keep) << (64 - keep);
    }

    /// XPRESS puts whole bytes between the words: at the place a decoder stands that always holds
    /// at least 16 bits and loads one word at a time. Reads `N` of them; zeros past the end.
    #[inline]
    pub(crate) fn read_bytes_between<const N: usize>(&mut self) -> [u8; N] {
        self.refill();
        self.unload(16 + (self.bits & 15));
        self.read_bytes_after()
    }

    /// Reads `N` bytes more at the place where [`BitReader::read_bytes_between`] has just read.
    #[inline]
    pub(crate) fn read_bytes_after<const N: usize>(&mut self) -> [u8; N] {
        let pos = self.pos;
        self.pos += N;
        match self.input.get(pos..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(bytes) => *bytes,
            None => [0; N],
        }
    }

    /// LZX, before an uncompressed block: drops the rest of this word, or a whole word when none is
    /// begun, and answers the byte position after it.
    pub(crate) fn align_for_bytes(&mut self) -> usize {
        self.refill();
        let partial = self.bits & 15;
        let drop = if partial == 0 { 16 } else { partial };
        self.consume(drop);
        let pos = self.pos - self.bits as usize / 8;
        self.bits = 0;
        self.buf = 0;
        self.pos = pos;
        pos
    }

    /// Goes on at byte `pos`, with nothing loaded.
    pub(crate) fn restart(&mut self, pos: usize) {
        self.pos = pos;
        self.bits = 0;
        self.buf = 0;
    }
}

/// Writes bits. When the room ends it goes on counting and [`BitWriter::finish`] answers `None`.
pub(crate) struct BitWriter<'a> {
    out: &'a mut [u8],
    pos: usize,
    buf: u64,
    bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        BitWriter { out, pos: 0, buf: 0, bits: 0 }
    }

    /// Adds the low `count` bits of `value`, whose other bits are zero. At most 32 bits may be added
    /// between two calls of [`BitWriter::flush`].
    #[inline(always)]
    pub(crate) fn put(&mut self, value: u32, count: u32) {
        self.buf = (self.buf << count) | u64::from(value);
        self.bits += count;
    }

    /// Stores what is complete.
    #[inline(always)]
    pub(crate) fn flush(&mut self) {
        if self.bits >= 32 {
            self.bits -= 32;
            let pair = (self.buf >> self.bits) as u32;
            if let Some(place) = self.out.get_mut(self.pos..self.pos + 4) {
                place.copy_from_slice(&pair.rotate_left(16).to_le_bytes());
            } else if let Some(place) = self.out.get_mut(self.pos..self.pos + 2) {
                place.copy_from_slice(&((pair >> 16) as u16).to_le_bytes());
            }
            self.pos += 4;
        }
    }

    /// True when more was written than there is room for.
    pub(crate) fn is_full(&self) -> bool {
        self.pos > self.out.len()
    }

    /// Pads to a whole word and answers the count of bytes written, if they had room.
    pub(crate) fn finish(mut self) -> Option<usize> {
        self.flush();
        self.pad_word(self.bits.wrapping_neg() & 15);
        (self.pos <= self.out.len()).then_some(self.pos)
    }

    fn pad_word(&mut self, pad: u32) {
        self.put(0, pad);
        self.flush();
        if self.bits >= 16 {
            self.bits -= 16;
            let word = (self.buf >> self.bits) as u16;
            if let Some(place) = self.out.get_mut(self.pos..self.pos + 2) {
                place.copy_from_slice(&word.to_le_bytes());
            }
            self.pos += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = [0u8; 64];
        let mut writer = BitWriter::new(&mut out);
        let fields: Vec<(u32, u32)> =
            (0..40u32).map(|i| (i * 7919 % (1 << (i % 12)), i % 12)).collect();
        for &(value, count) in &fields {
            writer.put(value, count);
            writer.flush();
        }
        let len = writer.finish().unwrap();
        let total: u32 = fields.iter().map(|f| f.1).sum();
        assert_eq!(len, total.div_ceil(16) as usize * 2);
        let mut reader = BitReader::new(&out[..len], 0);
        for &(value, count) in &fields {
            assert_eq!(reader.read(count), value);
        }
        assert!(!reader.overrun());
        reader.read(31);
        assert!(reader.overrun());
    }

    #[test]
    fn too_little_room_is_noticed() {
        let mut out = [0u8; 6];
        let mut writer = BitWriter::new(&mut out);
        for _ in 0..7 {
            writer.put(0x1f, 7);
            writer.flush();
        }
        assert_eq!(writer.finish(), None);
    }
}
