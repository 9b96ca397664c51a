//! Translation of x86 addresses: in what looks like code, relative addresses become absolute ones.
//!
//! Code is recognized by its targets: when an instruction refers to an address (its low 16 bits) to
//! which another in the last 65,535 bytes referred, the bytes after it are taken for code, and
//! addresses there are translated. Both directions see the absolute address, so both decide alike.

/// Two references to one address at most this far apart mean code.
const SAME_TARGET_BYTES: i32 = 65535;
/// Bytes after recognized code in which addresses are translated; half of it for calls.
const CODE_BYTES: i32 = 1023;
/// Instructions are not looked for in the last bytes of a chunk.
const TAIL: usize = 16;

/// The last reference to each address, reusable.
pub(super) struct Targets {
    last: Box<[i32; 65536]>,
}

impl Targets {
    pub(super) fn new() -> Self {
        Targets { last: crate::matching::boxed_array(0) }
    }

    /// Makes addresses absolute.
    pub(super) fn translate(&mut self, data: &mut [u8]) {
        self.each(data, true);
    }

    /// Makes addresses relative again.
    pub(super) fn restore(&mut self, data: &mut [u8]) {
        self.each(data, false);
    }

    #[inline(always)]
    fn each(&mut self, data: &mut [u8], translating: bool) {
        let Some(end) = data.len().checked_sub(TAIL).filter(|&end| end > 1) else { return };
        self.last.fill(-SAME_TARGET_BYTES - 1);
        let mut code_at = -CODE_BYTES - 1;
        // The first byte never begins an instruction.
        let mut pos = 1;
        while pos < end {
            let Some(&[b0, b1, b2, ..]) = data[pos..].first_chunk::<8>() else { return };
            // How long the opcode is, and how far code reaches for it.
            let (opcode, reach) = match b0 {
                0x48 if b1 == 0x8b && (b2 == 0x05 || b2 == 0x0d) => (3, CODE_BYTES),
                0x48 | 0x4c if b1 == 0x8d && b2 & 7 == 5 => (3, CODE_BYTES),
                0xe8 => (1, CODE_BYTES / 2),
                0xe9 => {
                    pos += 5;
                    continue;
                }
                0xf0 if b1 == 0x83 && b2 == 0x05 => (3, CODE_BYTES),
                0xff if b1 == 0x15 => (2, CODE_BYTES),
                _ => {
                    pos += 1;
                    continue;
                }
            };
            let Some(bytes) = data[pos + opcode..].first_chunk_mut::<4>() else { return };
            let mut relative = u32::from_le_bytes(*bytes);
            let at = pos as i32;
            if at - code_at <= reach {
                if translating {
                    *bytes = relative.wrapping_add(pos as u32).to_le_bytes();
                } else {
                    relative = relative.wrapping_sub(pos as u32);
                    *bytes = relative.to_le_bytes();
                }
            }
            // Counted from the instruction's begin, whatever the operand is relative to.
            let target = usize::from((relative as u16).wrapping_add(pos as u16));
            let last = at + opcode as i32 + 3;
            if last - self.last[target] <= SAME_TARGET_BYTES {
                code_at = last;
            }
            self.last[target] = last;
            pos += opcode + 4;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restoring_undoes_translating() {
        let mut state = 7u32;
        let mut data = Vec::new();
        while data.len() < 100_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 28 {
                0..=3 => data.extend_from_slice(&[0xe8, (state >> 20) as u8 & 3, 0, 0, 0]),
                4 => data.extend_from_slice(&[0x48, 0x8b, 0x05]),
                5 => data.extend_from_slice(&[0xff, 0x15]),
                6 => data.push(0xe9),
                _ => data.push((state >> 16) as u8),
            }
        }
        let mut targets = Targets::new();
        let mut changed = 0;
        for len in [0, 15, 16, 17, 18, 19, 40, 1000, 100_000] {
            let mut copy = data[..len].to_vec();
            targets.translate(&mut copy);
            changed += usize::from(copy != data[..len]);
            targets.restore(&mut copy);
            assert_eq!(copy, data[..len], "{len}");
        }
        assert!(changed > 0);
    }
}
