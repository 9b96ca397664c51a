//! Copying a match within the output.

/// Copies `len` bytes from `offset` before `pos` to `pos`, one after the other in effect. The caller
/// has checked `1 <= offset <= pos` and `len <= output.len() - pos`; bytes after the match may be
/// written too, which have not been decoded yet.
#[inline(always)]
pub(crate) fn copy_match(output: &mut [u8], pos: usize, offset: usize, len: usize) {
    const STEP: usize = 16;
    let src = pos - offset;
    if offset >= STEP && output.len() - pos >= len + STEP {
        let Some((done, todo)) = output.split_at_mut_checked(pos) else { return };
        // The first step reads only what is done: offset >= STEP.
        let Some(first) = done.get(src..).and_then(|s| s.first_chunk::<STEP>()) else { return };
        let Some(place) = todo.first_chunk_mut::<STEP>() else { return };
        *place = *first;
        let mut at = STEP;
        while at < len {
            let Some(from) = output.get(src + at..).and_then(|s| s.first_chunk::<STEP>()) else {
                return;
            };
            let block = *from;
            let Some(to) = output.get_mut(pos + at..).and_then(|s| s.first_chunk_mut::<STEP>())
            else {
                return;
            };
            *to = block;
            at += STEP;
        }
    } else {
        copy_near(output, pos, offset, len);
    }
}

#[inline(never)]
fn copy_near(output: &mut [u8], pos: usize, offset: usize, len: usize) {
    let src = pos - offset;
    if offset == 1 {
        let byte = output[src];
        output[pos..pos + len].fill(byte);
    } else if offset >= len {
        output.copy_within(src..src + len, pos);
    } else if len <= 32 {
        for at in 0..len {
            output[pos + at] = output[src + at];
        }
    } else {
        // Double the period as it is written.
        let mut done = 0;
        let mut period = offset;
        while done < len {
            let count = period.min(len - done);
            output.copy_within(src..src + count, pos + done);
            done += count;
            period += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::copy_match;

    #[test]
    fn copies_are_those_of_a_byte_loop() {
        for offset in 1..40 {
            for len in 1..90 {
                for slack in [0, 1, 15, 16, 17, 40] {
                    let mut expected: Vec<u8> = (0..40).collect();
                    for i in 0..len {
                        expected.push(expected[40 - offset + i]);
                    }
                    let mut output: Vec<u8> = (0..40).collect();
                    output.resize(40 + len + slack, 0xaa);
                    copy_match(&mut output, 40, offset, len);
                    assert_eq!(output[..40 + len], expected[..], "{offset} {len} {slack}");
                }
            }
        }
    }
}
