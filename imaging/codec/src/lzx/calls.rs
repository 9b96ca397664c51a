//! Translation of x86 calls: the operand of each byte E8 becomes the absolute target, so that calls
//! of one function look alike.

/// The size the format pretends a file has.
const FILE_BYTES: i32 = 12_000_000;
/// Calls that begin in the last bytes of a chunk stay as they are.
const TAIL: usize = 10;
const OPCODE: u8 = 0xe8;

/// Translates relative to absolute, in place. True when something was changed.
pub(super) fn translate(data: &mut [u8]) -> bool {
    let mut changed = false;
    each_call(data, |pos, operand| {
        if operand < -pos || operand >= FILE_BYTES {
            return None;
        }
        changed = true;
        Some(if operand < FILE_BYTES - pos { operand + pos } else { operand - FILE_BYTES })
    });
    changed
}

/// Translates absolute to relative, in place.
pub(super) fn restore(data: &mut [u8]) {
    each_call(data, |pos, operand| {
        if operand >= 0 {
            (operand < FILE_BYTES).then(|| operand - pos)
        } else {
            (operand >= -pos).then(|| operand + FILE_BYTES)
        }
    });
}

#[inline(always)]
fn each_call(data: &mut [u8], mut change: impl FnMut(i32, i32) -> Option<i32>) {
    let Some(end) = data.len().checked_sub(TAIL) else { return };
    let mut pos = 0;
    while pos < end {
        // Skip eight bytes at once while none is the opcode.
        while let Some(eight) = data[pos..].first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight) ^ 0xe8e8_e8e8_e8e8_e8e8;
            let zero = word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080;
            if zero != 0 {
                pos += (zero.trailing_zeros() >> 3) as usize;
                break;
            }
            pos += 8;
        }
        if pos >= end {
            return;
        }
        if data[pos] != OPCODE {
            pos += 1;
            continue;
        }
        let Some(bytes) = data[pos + 1..].first_chunk_mut::<4>() else { return };
        if let Some(operand) = change(pos as i32, i32::from_le_bytes(*bytes)) {
            *bytes = operand.to_le_bytes();
        }
        pos += 5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restoring_undoes_translating() {
        let mut data = vec![0u8; 4096];
        let mut state = 1u32;
        for byte in &mut data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = match state >> 29 {
                0 | 1 => OPCODE,
                2 => 0xff,
                3..=5 => 0,
                _ => (state >> 16) as u8,
            };
        }
        for len in [0, 1, 9, 10, 11, 12, 100, 4096] {
            let mut copy = data[..len].to_vec();
            let changed = translate(&mut copy);
            assert_eq!(changed, copy != data[..len]);
            restore(&mut copy);
            assert_eq!(copy, data[..len], "{len}");
        }
    }

    #[test]
    fn the_operand_becomes_the_target_and_the_tail_stays() {
        let mut data = [0u8; 24];
        data[4] = OPCODE;
        data[5] = 16;
        data[14] = OPCODE;
        data[15] = 16;
        translate(&mut data);
        assert_eq!((data[5], data[15]), (20, 16));
    }
}
