//! Bytes that look like those of an installed system, the same for the same seed.

/// A small generator; quality does not matter, sameness does.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// `0..limit`; 0 for 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { (self.next_u64() >> 11) % limit }
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

const WORDS: &[&str] = &[
    "registry",
    "component",
    "manifest",
    "assembly",
    "version",
    "neutral",
    "amd64",
    "Microsoft",
    "Windows",
    "security",
    "policy",
    "driver",
    "install",
    "package",
    "identity",
    "language",
    "public",
    "token",
    "processor",
    "architecture",
    "culture",
    "resource",
    "string",
    "table",
    "<file name=\"",
    "\" hash=\"",
    "\"/>\r\n",
    "0x00000000",
    "KERNEL32.dll",
    "GetProcAddress",
];

/// A quarter text, half program code (words, tables, padding), a quarter incompressible.
pub fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let kind = rng.below(4);
    while out.len() < len {
        match kind {
            0 => {
                out.extend_from_slice(WORDS[rng.below(WORDS.len() as u64) as usize].as_bytes());
                out.push(b' ');
            }
            1 | 2 => match rng.below(8) {
                0 => out.extend_from_slice(WORDS[rng.below(30) as usize].as_bytes()),
                1 => out.resize(out.len() + 16, 0),
                2 | 3 => {
                    let base = rng.below(1 << 20) as u32;
                    for i in 0..4 {
                        out.extend_from_slice(&(base + i * 8).to_le_bytes());
                    }
                }
                4 => {
                    out.extend_from_slice(&[0x48, 0x8B, 0x05, rng.next_u64() as u8, 0, 0, 0, 0xE8])
                }
                _ => out.extend_from_slice(&rng.next_u64().to_le_bytes()),
            },
            _ => out.extend_from_slice(&rng.next_u64().to_le_bytes()),
        }
    }
    out.truncate(len);
    out
}
