//! LZX encoding: from a chunk to its blocks.

use super::block::{BlockWriter, Counts, Sequence, max_offset};
use super::{LITERALS, calls, lazy, slot_count};
use crate::Level;
use crate::bits::BitWriter;
use crate::matching::{HashChain, Position, Window};

/// An encoder for chunks of 32 KiB, or for any larger.
pub(crate) enum Encoder {
    Small(Core<u16, { 64 << 10 }, { 1 << 15 }>),
    Large(Core<u32, { 4 << 20 }, { 1 << 17 }>),
}

impl Encoder {
    pub(crate) fn new(chunk_bytes: u32, level: Level) -> Self {
        if chunk_bytes <= 32 << 10 {
            Encoder::Small(Core::new(chunk_bytes, level))
        } else {
            Encoder::Large(Core::new(chunk_bytes, level))
        }
    }

    /// Writes to `out` and answers how many bytes, if they had room.
    pub(crate) fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        match self {
            Encoder::Small(core) => core.compress(input, out),
            Encoder::Large(core) => core.compress(input, out),
        }
    }
}

pub(crate) struct Core<P, const B: usize, const SLOTS: usize> {
    level: Level,
    pub(super) max_offset: u32,
    pub(super) window: Window<B>,
    pub(super) chain: HashChain<P, B, SLOTS>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) counts: Counts,
    pub(super) blocks: BlockWriter,
}

impl<P: Position, const B: usize, const SLOTS: usize> Core<P, B, SLOTS> {
    fn new(chunk_bytes: u32, level: Level) -> Self {
        Core {
            level,
            max_offset: max_offset(chunk_bytes),
            window: Window::new(),
            chain: HashChain::new(),
            sequences: Vec::with_capacity(chunk_bytes as usize / 2 + 2),
            counts: Counts::new(),
            blocks: BlockWriter::new(
                LITERALS + 8 * slot_count(chunk_bytes),
                chunk_bytes > 32 << 10,
            ),
        }
    }

    fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        self.window.load(input);
        calls::translate(self.window.data_mut(input.len()));
        self.blocks.reset();
        let mut writer = BitWriter::new(out);
        match self.level {
            Level::Fast | Level::Default | Level::Max => {
                lazy::compress(self, input.len(), &mut writer)
            }
        }
        writer.finish()
    }
}
