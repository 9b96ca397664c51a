//! LZX encoding: from a chunk to its blocks.

use super::block::{BlockWriter, Counts, Sequence, max_offset};
use super::optimal::{self, Finder, Parser, Plan};
use super::split::Pieces;
use super::{LITERALS, calls, lazy, slot_count};
use crate::Level;
use crate::bits::BitWriter;
use crate::matching::{Effort, HashChain, Position, Trees, Window};

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
    parser: Parse<P, B, SLOTS>,
    shared: Shared<B>,
}

enum Parse<P, const B: usize, const SLOTS: usize> {
    Lazy(HashChain<P, B, SLOTS>),
    Optimal(Box<Parser<P, B, SLOTS>>),
}

/// What every way of parsing uses.
pub(super) struct Shared<const B: usize> {
    pub(super) slots: usize,
    pub(super) max_offset: u32,
    pub(super) window: Window<B>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) counts: Counts,
    pub(super) pieces: Pieces,
    pub(super) blocks: BlockWriter,
}

impl<P: Position, const B: usize, const SLOTS: usize> Core<P, B, SLOTS> {
    fn new(chunk_bytes: u32, level: Level) -> Self {
        let slots = slot_count(chunk_bytes);
        let parser = match level {
            Level::Fast => Parse::Lazy(HashChain::new()),
            Level::Default => Parse::Optimal(Box::new(Parser::new(
                Plan { effort: Effort { depth: 12, nice_len: 32 }, rounds: 1, take_len: 32 },
                Finder::Chain(HashChain::new()),
            ))),
            Level::Max => Parse::Optimal(Box::new(Parser::new(
                Plan { effort: Effort { depth: 100, nice_len: 257 }, rounds: 2, take_len: 257 },
                Finder::Trees(Trees::new()),
            ))),
        };
        Core {
            parser,
            shared: Shared {
                slots,
                max_offset: max_offset(chunk_bytes),
                window: Window::new(),
                sequences: Vec::with_capacity(chunk_bytes as usize / 2 + 2),
                counts: Counts::new(),
                pieces: Pieces::new(),
                blocks: BlockWriter::new(LITERALS + 8 * slots, chunk_bytes > 32 << 10),
            },
        }
    }

    fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Option<usize> {
        let Core { parser, shared } = self;
        shared.window.load(input);
        calls::translate(shared.window.data_mut(input.len()));
        shared.blocks.reset();
        let mut writer = BitWriter::new(out);
        match parser {
            Parse::Lazy(chain) => lazy::compress(shared, chain, input.len(), &mut writer),
            Parse::Optimal(parser) => {
                optimal::compress(shared, parser, input.len(), &mut writer);
            }
        }
        writer.finish()
    }
}
