//! LZMS decoding.

use super::addresses::Targets;
use super::model::{AdaptiveCode, Decision, Recent};
use super::{
    KIND_STATES, LENGTH_INTERVAL, LENGTH_SLOTS, LENGTH_SYMBOLS, LITERAL_INTERVAL, LITERAL_SYMBOLS,
    MAIN_STATES, MATCH_STATES, NAME, OFFSET_INTERVAL, OFFSET_SLOTS, POWER_INTERVAL, POWER_SYMBOLS,
    Slot, offset_symbols,
};
use crate::Error;
use crate::copy::copy_match;
use crate::huffman::{CodeBuilder, DecodeTable};

pub(crate) struct Decoder {
    targets: Targets,
    tools: Tools,
    literals: Code,
    lengths: Code,
    offsets: Code,
    delta_offsets: Code,
    delta_powers: Code,
}

/// What is needed to make codes.
struct Tools {
    builder: CodeBuilder,
    sorted: [u16; 1024],
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Decoder {
            targets: Targets::new(),
            tools: Tools { builder: CodeBuilder::new(), sorted: [0; 1024] },
            literals: Code::new(LITERAL_INTERVAL),
            lengths: Code::new(LENGTH_INTERVAL),
            offsets: Code::new(OFFSET_INTERVAL),
            delta_offsets: Code::new(OFFSET_INTERVAL),
            delta_powers: Code::new(POWER_INTERVAL),
        }
    }

    pub(crate) fn decompress(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        if output.is_empty() {
            return Ok(());
        }
        if !input.len().is_multiple_of(2) {
            return Err(Error::Corrupt {
                codec: NAME,
                at: input.len() - 1,
                what: "byte count beyond whole words",
                found: 1,
                limit: 0,
            });
        }
        let tools = &mut self.tools;
        let offset_symbols = offset_symbols(output.len());
        self.literals.reset(LITERAL_SYMBOLS, tools);
        self.lengths.reset(LENGTH_SYMBOLS, tools);
        self.offsets.reset(offset_symbols, tools);
        self.delta_offsets.reset(offset_symbols, tools);
        self.delta_powers.reset(POWER_SYMBOLS, tools);
        self.items(input, output)?;
        self.targets.restore(output);
        Ok(())
    }

    fn items(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        let tools = &mut self.tools;
        let mut front = RangeReader::new(input);
        let mut back = BackReader::new(input);
        let mut is_match = Decision::<MAIN_STATES>::new();
        let mut is_delta = Decision::<MATCH_STATES>::new();
        let mut lz_recent = [const { Decision::<KIND_STATES>::new() }; 3];
        let mut delta_recent = [const { Decision::<KIND_STATES>::new() }; 3];
        let mut lz_queue = Recent::new([1u32, 2, 3, 4]);
        let mut delta_queue = Recent::new([(0u32, 1u32), (0, 2), (0, 3), (0, 4)]);
        let (mut lz_waits, mut delta_waits) = (false, false);

        let end = output.len();
        let mut pos = 0;
        while pos < end {
            if front.overrun() || back.overrun() {
                return Err(Error::Truncated {
                    codec: NAME,
                    input_bytes: input.len(),
                    produced: pos,
                    wanted: end,
                });
            }
            if front.decide(&mut is_match) == 0 {
                output[pos] = self.literals.symbol(&mut back, tools)? as u8;
                pos += 1;
                (lz_waits, delta_waits) = (false, false);
            } else if front.decide(&mut is_delta) == 0 {
                let offset = match recent_index(&mut front, &mut lz_recent) {
                    Some(index) => lz_queue.take(index, lz_waits),
                    None => {
                        let offset = self.offsets.value(&OFFSET_SLOTS, &mut back, tools)?;
                        lz_queue.push(offset);
                        offset
                    }
                };
                (lz_waits, delta_waits) = (true, false);
                let len = self.lengths.value(&LENGTH_SLOTS, &mut back, tools)? as usize;
                let offset = offset as usize;
                check("match length", len, end - pos, &back)?;
                check("match offset", offset, pos, &back)?;
                copy_match(output, pos, offset, len);
                pos += len;
            } else {
                let (power, raw) = match recent_index(&mut front, &mut delta_recent) {
                    Some(index) => delta_queue.take(index, delta_waits),
                    None => {
                        let power = self.delta_powers.symbol(&mut back, tools)?;
                        let raw = self.delta_offsets.value(&OFFSET_SLOTS, &mut back, tools)?;
                        delta_queue.push((power, raw));
                        (power, raw)
                    }
                };
                (lz_waits, delta_waits) = (false, true);
                let len = self.lengths.value(&LENGTH_SLOTS, &mut back, tools)? as usize;
                let span = 1usize << power;
                let offset = (raw as usize) << power;
                check("delta match length", len, end - pos, &back)?;
                check("delta match reach", offset + span, pos, &back)?;
                for at in pos..pos + len {
                    output[at] = output[at - offset]
                        .wrapping_add(output[at - span])
                        .wrapping_sub(output[at - offset - span]);
                }
                pos += len;
            }
        }
        Ok(())
    }
}

fn check(what: &'static str, found: usize, limit: usize, back: &BackReader) -> Result<(), Error> {
    if found <= limit {
        return Ok(());
    }
    Err(Error::Corrupt {
        codec: NAME,
        at: back.byte_pos(),
        what,
        found: found as u64,
        limit: limit as u64,
    })
}

/// Which recent offset a match uses, if not a new one.
#[inline(always)]
fn recent_index(
    front: &mut RangeReader<'_>,
    decisions: &mut [Decision<KIND_STATES>; 3],
) -> Option<usize> {
    let [is_recent, not_first, not_second] = decisions;
    if front.decide(is_recent) == 0 {
        None
    } else if front.decide(not_first) == 0 {
        Some(0)
    } else if front.decide(not_second) == 0 {
        Some(1)
    } else {
        Some(2)
    }
}

/// Decisions from the front of the chunk.
struct RangeReader<'a> {
    input: &'a [u8],
    pos: usize,
    range: u32,
    code: u32,
}

impl<'a> RangeReader<'a> {
    fn new(input: &'a [u8]) -> Self {
        let mut reader = RangeReader { input, pos: 0, range: u32::MAX, code: 0 };
        reader.code = reader.word() << 16;
        reader.code |= reader.word();
        reader
    }

    #[inline(always)]
    fn word(&mut self) -> u32 {
        let word = match self.input.get(self.pos..).and_then(|rest| rest.first_chunk::<2>()) {
            Some(bytes) => u32::from(u16::from_le_bytes(*bytes)),
            None => 0,
        };
        self.pos += 2;
        word
    }

    /// True when it has gone far beyond the end, which only happens to corrupt data.
    fn overrun(&self) -> bool {
        self.pos > self.input.len() + 4
    }

    #[inline(always)]
    fn decide<const STATES: usize>(&mut self, decision: &mut Decision<STATES>) -> u32 {
        if self.range <= 0xffff {
            self.range <<= 16;
            self.code = self.code << 16 | self.word();
        }
        let bound = (self.range >> 6) * decision.current().of_zero();
        let bit = u32::from(self.code >= bound);
        if bit == 0 {
            self.range = bound;
        } else {
            self.range -= bound;
            self.code -= bound;
        }
        decision.record(bit);
        bit
    }
}

/// Codewords from the end of the chunk.
struct BackReader<'a> {
    input: &'a [u8],
    /// Bytes before the next word to load.
    left: usize,
    buf: u64,
    bits: u32,
    missing: usize,
}

impl<'a> BackReader<'a> {
    fn new(input: &'a [u8]) -> Self {
        BackReader { input, left: input.len(), buf: 0, bits: 0, missing: 0 }
    }

    /// Loads until at least 33 bits are there.
    #[inline(always)]
    fn refill(&mut self) {
        while self.bits <= 48 {
            let word = match self.input.get(..self.left).and_then(|rest| rest.last_chunk::<2>()) {
                Some(bytes) => {
                    self.left -= 2;
                    u16::from_le_bytes(*bytes)
                }
                None => {
                    self.missing += 2;
                    0
                }
            };
            self.buf |= u64::from(word) << (48 - self.bits);
            self.bits += 16;
        }
    }

    #[inline(always)]
    fn consume(&mut self, count: u32) {
        self.buf <<= count & 63;
        self.bits -= count;
    }

    #[inline(always)]
    fn take(&mut self, count: u32) -> u32 {
        let value = (self.buf >> 1 >> (63 - (count & 63))) as u32;
        self.consume(count);
        value
    }

    fn overrun(&self) -> bool {
        self.missing * 8 > self.bits as usize
    }

    fn byte_pos(&self) -> usize {
        self.left
    }
}

/// An adaptive code with its table.
struct Code {
    adaptive: AdaptiveCode,
    table: DecodeTable<10, 8192>,
}

impl Code {
    fn new(interval: u32) -> Self {
        Code { adaptive: AdaptiveCode::new(interval), table: DecodeTable::new() }
    }

    fn reset(&mut self, symbols: usize, tools: &mut Tools) {
        self.adaptive.reset(symbols, &mut tools.builder);
        self.make_table(tools);
    }

    #[inline(never)]
    fn make_table(&mut self, tools: &mut Tools) {
        // Lengths that the builder makes are a code.
        let built = self.table.build(&self.adaptive.lens, &mut tools.sorted, |symbol| symbol);
        debug_assert!(built.is_ok());
    }

    /// Reads a symbol; at least 33 bits are loaded afterwards, less those of the symbol.
    #[inline(always)]
    fn symbol(&mut self, back: &mut BackReader<'_>, tools: &mut Tools) -> Result<u32, Error> {
        back.refill();
        let entry = self.table.lookup(back.peek());
        let symbol = entry >> 8;
        if symbol as usize >= self.adaptive.lens.len() {
            return Err(Error::Code { codec: NAME, at: back.byte_pos(), what: "unused codeword" });
        }
        back.consume(entry & 0x1f);
        if self.adaptive.record(symbol as usize, &mut tools.builder) {
            self.make_table(tools);
        }
        Ok(symbol)
    }

    /// Reads a symbol and the extra bits of its slot.
    #[inline(always)]
    fn value(
        &mut self,
        slots: &[Slot],
        back: &mut BackReader<'_>,
        tools: &mut Tools,
    ) -> Result<u32, Error> {
        let symbol = self.symbol(back, tools)?;
        let slot = slots[symbol as usize];
        Ok(slot.base + back.take(slot.bits))
    }
}

impl BackReader<'_> {
    #[inline(always)]
    fn peek(&self) -> u64 {
        self.buf
    }
}
