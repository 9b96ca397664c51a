//! The parts of LZMS that adapt, the same for both directions.

use super::MAX_CODEWORD_LEN;
use crate::huffman::CodeBuilder;

/// How often a decision was 0, of the last 64.
#[derive(Clone, Copy)]
pub(super) struct Probability {
    zeros: u32,
    recent: u64,
}

impl Probability {
    pub(super) const START: Probability = Probability { zeros: 48, recent: 0x5555_5555 };

    /// Of 64, never none and never all.
    #[inline(always)]
    pub(super) fn of_zero(self) -> u32 {
        self.zeros.clamp(1, 63)
    }

    #[inline(always)]
    pub(super) fn update(&mut self, bit: u32) {
        self.zeros = self.zeros + (self.recent >> 63) as u32 - bit;
        self.recent = self.recent << 1 | u64::from(bit);
    }
}

/// A decision: probabilities by the last decisions of its kind.
pub(super) struct Decision<const STATES: usize> {
    state: usize,
    pub(super) probabilities: [Probability; STATES],
}

impl<const STATES: usize> Decision<STATES> {
    pub(super) const fn new() -> Self {
        Decision { state: 0, probabilities: [Probability::START; STATES] }
    }

    #[inline(always)]
    pub(super) fn current(&mut self) -> &mut Probability {
        &mut self.probabilities[self.state & (STATES - 1)]
    }

    #[inline(always)]
    pub(super) fn record(&mut self, bit: u32) {
        self.current().update(bit);
        self.state = (self.state << 1 | bit as usize) & (STATES - 1);
    }
}

/// Counts of symbols and the lengths of the code made from them.
pub(super) struct AdaptiveCode {
    counts: Vec<u32>,
    pub(super) lens: Vec<u8>,
    interval: u32,
    left: u32,
}

impl AdaptiveCode {
    pub(super) fn new(interval: u32) -> Self {
        AdaptiveCode { counts: Vec::new(), lens: Vec::new(), interval, left: 0 }
    }

    /// Begins with `symbols` equally frequent ones.
    pub(super) fn reset(&mut self, symbols: usize, builder: &mut CodeBuilder) {
        self.counts.clear();
        self.counts.resize(symbols, 1);
        self.lens.clear();
        self.lens.resize(symbols, 0);
        self.make(builder);
    }

    fn make(&mut self, builder: &mut CodeBuilder) {
        builder.lengths(&self.counts, MAX_CODEWORD_LEN, &mut self.lens);
        for count in &mut self.counts {
            *count = (*count >> 1) + 1;
        }
        self.left = self.interval;
    }

    /// Counts a symbol. True when that made a new code.
    #[inline(always)]
    pub(super) fn record(&mut self, symbol: usize, builder: &mut CodeBuilder) -> bool {
        self.counts[symbol] += 1;
        self.left -= 1;
        if self.left == 0 {
            self.make(builder);
            return true;
        }
        false
    }
}

/// Recently used offsets. The one used by the item just before is not yet among them.
#[derive(Clone)]
pub(super) struct Recent<T> {
    /// Newest first; one more than can be used, because the newest may be waiting.
    entries: [T; 4],
}

impl<T: Copy> Recent<T> {
    pub(super) fn new(entries: [T; 4]) -> Self {
        Recent { entries }
    }

    pub(super) fn push(&mut self, entry: T) {
        let [a, b, c, _] = self.entries;
        self.entries = [entry, a, b, c];
    }

    /// Entry `index` (0 to 2) of those available.
    pub(super) fn get(&self, index: usize, waiting: bool) -> T {
        self.entries[(index + usize::from(waiting)) & 3]
    }

    /// Uses entry `index` (0 to 2) of those available and makes it the newest. `waiting` says that
    /// the item before used this queue.
    pub(super) fn take(&mut self, index: usize, waiting: bool) -> T {
        let at = (index + usize::from(waiting)) & 3;
        self.entries[..=at].rotate_right(1);
        self.entries[0]
    }
}
