//! Data of several kinds, the same on every run.

/// A small generator of numbers (PCG).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let x = (((self.0 >> 18) ^ self.0) >> 27) as u32;
        x.rotate_right((self.0 >> 59) as u32)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((u64::from(self.next()) * limit as u64) >> 32) as usize
    }
}

pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

/// Words of a small vocabulary.
pub fn text(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let words: Vec<Vec<u8>> = (0..400)
        .map(|_| {
            let len = 2 + random.below(9);
            (0..len).map(|_| b'a' + random.below(26).min(random.below(26)) as u8).collect()
        })
        .collect();
    let mut data = Vec::with_capacity(len + 16);
    while data.len() < len {
        data.extend_from_slice(&words[random.below(400).min(random.below(400))]);
        data.push(if random.below(12) == 0 { b'\n' } else { b' ' });
    }
    data.truncate(len);
    data
}

/// Something like x86 code: calls of a few targets, operands near zero, repeated instructions.
pub fn code(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut data: Vec<u8> = Vec::with_capacity(len + 16);
    let targets: Vec<u32> = (0..40).map(|_| random.below(len.max(1)) as u32).collect();
    while data.len() < len {
        match random.below(12) {
            0..=2 => {
                let target = targets[random.below(40)];
                let next = data.len() as u32 + 5;
                data.push(if random.below(8) == 0 { 0xe9 } else { 0xe8 });
                data.extend_from_slice(&target.wrapping_sub(next).to_le_bytes());
            }
            3 => {
                let op: &[u8] = [
                    &b"\x48\x8b\x05"[..],
                    b"\x48\x8d\x0d",
                    b"\x4c\x8d\x05",
                    b"\xff\x15",
                    b"\xf0\x83\x05",
                    b"\x48\x8b\x0d",
                ][random.below(6)];
                let target = targets[random.below(40)];
                let next = data.len() as u32 + op.len() as u32 + 4;
                data.extend_from_slice(op);
                data.extend_from_slice(&target.wrapping_sub(next).to_le_bytes());
            }
            4 => data.extend_from_slice(&[0xe8, random.next() as u8, 0xff, 0xff, 0xff]),
            5 => data.extend_from_slice(&[0xe8; 3]),
            6 => data.extend_from_slice(&random.next().to_le_bytes()),
            _ => {
                const OPS: [&[u8]; 6] = [
                    b"\x55\x48\x89\xe5",
                    b"\xc3",
                    b"\x90\x90",
                    b"\x31\xc0",
                    b"\x5d\xc3",
                    b"\x85\xc0\x74",
                ];
                data.extend_from_slice(OPS[random.below(6)]);
            }
        }
    }
    data.truncate(len);
    data
}

/// Tables of records: counters and few flags, which delta matches are for.
pub fn records(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut data = Vec::with_capacity(len + 16);
    let mut counter = random.next();
    while data.len() < len {
        counter = counter.wrapping_add(16 + (random.below(10) == 0) as u32 * 48);
        data.extend_from_slice(&counter.to_le_bytes());
        data.extend_from_slice(&(random.below(3) as u32).to_le_bytes());
        data.extend_from_slice(&(counter >> 4).to_le_bytes());
    }
    data.truncate(len);
    data
}

/// Runs of one byte, of all lengths.
pub fn runs(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut data = Vec::with_capacity(len);
    while data.len() < len {
        let count = 1 << random.below(12);
        let count = count + random.below(count);
        data.resize((data.len() + count).min(len), random.next() as u8);
    }
    data
}

/// A few parts of each kind, so that statistics change within a chunk.
pub fn mixture(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut data = Vec::with_capacity(len);
    while data.len() < len {
        let part = 1 + random.below(9000);
        let seed = u64::from(random.next());
        data.extend_from_slice(&match random.below(7) {
            0 => noise(part, seed),
            1 => text(part, seed),
            2 => code(part, seed),
            3 => records(part, seed),
            4 => runs(part, seed),
            5 => vec![0; part],
            _ if data.is_empty() => vec![1],
            _ => {
                let begin = random.below(data.len());
                data[begin..].iter().copied().take(part).collect()
            }
        });
    }
    data.truncate(len);
    data
}

/// Named data for chunks of `chunk` bytes: several chunks and a last one that is not full.
#[allow(dead_code, reason = "not every test uses it")]
pub fn all(chunk: usize) -> Vec<(&'static str, Vec<u8>)> {
    let len = (chunk * 5 / 2).min(chunk + 700_000) + 77;
    vec![
        ("zeros", vec![0; len]),
        ("text", text(len, 1)),
        ("code", code(len, 2)),
        ("records", records(len, 3)),
        ("runs", runs(len, 4)),
        ("mixture", mixture(len, 5)),
        ("another mixture", mixture(len, 6)),
        ("noise in the middle", [text(chunk, 7), noise(chunk, 8), text(chunk / 3, 9)].concat()),
    ]
}
