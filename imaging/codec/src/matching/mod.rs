//! Finding earlier occurrences of the bytes at a position.
//!
//! The data of a chunk lies at the start of an array twice its size. Positions are masked to the
//! first half, so that no read needs a check: bytes after the data are what an earlier chunk left,
//! or zeros, and every length found is cut to what is left of the data.

mod chain;
mod tree;

pub(crate) use chain::{Chains, HashChain};
pub(crate) use tree::Trees;

/// How long to search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Candidates to look at.
    pub(crate) depth: u32,
    /// A match of this length is taken at once.
    pub(crate) nice_len: u32,
}

/// A found match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) len: u32,
    pub(crate) offset: u32,
}

/// A match in 32 bits: lengths to 511, offsets to 4 MiB.
#[inline(always)]
pub(crate) fn pack_match(len: usize, offset: usize) -> u32 {
    (len as u32) << 23 | offset as u32
}

/// Length and offset of a packed match.
#[inline(always)]
pub(crate) fn unpack_match(packed: u32) -> (u32, u32) {
    (packed >> 23, packed & 0x7f_ffff)
}

/// A position as tables hold it; `NONE` is no position.
pub(crate) trait Position: Copy + Eq {
    const NONE: Self;
    fn new(pos: usize) -> Self;
    fn index(self) -> usize;
}

impl Position for u16 {
    const NONE: u16 = u16::MAX;
    #[inline(always)]
    fn new(pos: usize) -> u16 {
        pos as u16
    }
    #[inline(always)]
    fn index(self) -> usize {
        usize::from(self)
    }
}

impl Position for u32 {
    const NONE: u32 = u32::MAX;
    #[inline(always)]
    fn new(pos: usize) -> u32 {
        pos as u32
    }
    #[inline(always)]
    fn index(self) -> usize {
        self as usize
    }
}

/// A chunk's bytes in an array of `B`, twice the largest chunk.
pub(crate) struct Window<const B: usize> {
    bytes: Box<[u8; B]>,
}

impl<const B: usize> Window<B> {
    pub(crate) fn new() -> Self {
        const { assert!(B.is_power_of_two() && B >= 4096) };
        Window { bytes: boxed_array(0) }
    }

    /// Takes the data of a chunk, at most `B / 2` bytes.
    pub(crate) fn load(&mut self, data: &[u8]) {
        self.bytes[..data.len()].copy_from_slice(data);
        // What follows must not depend on earlier chunks where lengths are compared before they
        // are cut; it does not change results, but keep it the same anyway.
        let end = (data.len() + 512).min(B);
        self.bytes[data.len()..end].fill(0);
    }

    pub(crate) fn data_mut(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[..len]
    }

    pub(crate) fn view(&self) -> View<'_, B> {
        View { bytes: &self.bytes }
    }
}

/// A reference to a window's array, held directly: a pointer kept in a register.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, const B: usize> {
    bytes: &'a [u8; B],
}

impl<const B: usize> View<'_, B> {
    pub(crate) const MASK: usize = B / 2 - 1;

    #[inline(always)]
    pub(crate) fn byte(self, pos: usize) -> u8 {
        self.bytes[pos & Self::MASK]
    }

    #[inline(always)]
    pub(crate) fn u32(self, pos: usize) -> u32 {
        let pos = pos & Self::MASK;
        let b = &self.bytes[pos..pos + 4];
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }

    #[inline(always)]
    pub(crate) fn u64(self, pos: usize) -> u64 {
        let pos = pos & Self::MASK;
        let b = &self.bytes[pos..pos + 8];
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }

    /// How many bytes are the same at `a` and `b`, from `known` on, up to `max`.
    #[inline(always)]
    pub(crate) fn common(self, a: usize, b: usize, known: usize, max: usize) -> usize {
        let mut len = known;
        while len < max {
            let differ = self.u64(a + len) ^ self.u64(b + len);
            if differ != 0 {
                return (len + (differ.trailing_zeros() >> 3) as usize).min(max);
            }
            len += 8;
        }
        max
    }
}

/// An array too large for the stack.
pub(crate) fn boxed_array<T: Copy, const N: usize>(value: T) -> Box<[T; N]> {
    match vec![value; N].into_boxed_slice().try_into() {
        Ok(array) => array,
        // The vector has N elements.
        Err(_) => unreachable!(),
    }
}
