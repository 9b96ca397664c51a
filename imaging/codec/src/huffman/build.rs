//! Codeword lengths from counts of symbols.
//!
//! Lengths are those of Huffman's algorithm (computed in place, after Moffat and Katajainen), and
//! where one is over the limit, the deepest leaves are moved up at the cost of the shallower ones.
//! Ties go by symbol, so that LZMS, whose two sides both build codes, agrees with other programs.

/// Buffers for making codes of up to 1024 symbols.
pub(crate) struct CodeBuilder {
    /// `count << 10 | symbol`, then weights, parents and depths in turn.
    work: Vec<u32>,
    keys: Vec<u64>,
}

const SYMBOL_BITS: u32 = 10;
const LIMIT_MAX: usize = 16;

impl CodeBuilder {
    pub(crate) fn new() -> Self {
        CodeBuilder { work: Vec::with_capacity(1024), keys: Vec::with_capacity(1024) }
    }

    /// Sets `lens` for the symbols counted in `counts`, none longer than `limit` (at most 16).
    /// Symbols that do not occur get 0; a lone symbol gets a codeword of one bit, and so does a
    /// second that does not occur, because decoders exist that want complete codes.
    pub(crate) fn lengths(&mut self, counts: &[u32], limit: u32, lens: &mut [u8]) {
        lens.fill(0);
        self.keys.clear();
        self.keys.extend(
            counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
                .map(|(symbol, &count)| u64::from(count) << SYMBOL_BITS | symbol as u64),
        );
        let n = self.keys.len();
        if n < 2 {
            if let Some(&key) = self.keys.first() {
                let symbol = key as usize & ((1 << SYMBOL_BITS) - 1);
                lens[symbol] = 1;
                if let Some(partner) = lens.get_mut(usize::from(symbol == 0)) {
                    *partner = 1;
                }
            }
            return;
        }
        self.keys.sort_unstable();
        self.work.clear();
        self.work.extend(self.keys.iter().map(|key| (key >> SYMBOL_BITS) as u32));
        let per_length = depths(&mut self.work, limit as usize);
        // The rarest symbols take the longest codewords.
        let mut keys = self.keys.iter();
        for len in (1..=limit as usize).rev() {
            for key in keys.by_ref().take(per_length[len] as usize) {
                lens[*key as usize & ((1 << SYMBOL_BITS) - 1)] = len as u8;
            }
        }
    }
}

/// Turns ascending weights into how many leaves have each depth, none deeper than `limit`.
fn depths(a: &mut [u32], limit: usize) -> [u32; LIMIT_MAX + 1] {
    let n = a.len();
    // Combine the two lightest, of the leaves and of the inner nodes already made; `a[k]` of a
    // combined node becomes the index of its parent.
    let (mut leaf, mut root) = (0, 0);
    for next in 0..n - 1 {
        let mut weight = 0u32;
        for _ in 0..2 {
            if leaf < n && (root >= next || a[leaf] <= a[root]) {
                weight += a[leaf];
                leaf += 1;
            } else {
                weight += a[root];
                a[root] = next as u32;
                root += 1;
            }
        }
        a[next] = weight;
    }
    // Depths of inner nodes, from the root downwards; count the leaves that hang between.
    let mut per_length = [0u32; LIMIT_MAX + 1];
    a[n - 2] = 0;
    for next in (0..n - 2).rev() {
        a[next] = a[a[next] as usize] + 1;
    }
    let mut inner_left = n - 1;
    let mut available = 1u32;
    let mut depth = 0u32;
    let mut overflow_units = 0u64;
    while available > 0 {
        let mut inner = 0u32;
        while inner_left > 0 && a[inner_left - 1] == depth {
            inner += 1;
            inner_left -= 1;
        }
        let leaves = available - inner;
        if (depth as usize) <= limit {
            per_length[depth as usize] += leaves;
        } else {
            per_length[limit] += leaves;
        }
        overflow_units += u64::from(depth as usize > limit && leaves > 0);
        available = inner * 2;
        depth += 1;
    }
    if overflow_units > 0 {
        limit_depths(&mut per_length, limit);
    }
    per_length
}

/// Lengthens the shortest-loss codewords until the code fits.
fn limit_depths(per_length: &mut [u32; LIMIT_MAX + 1], limit: usize) {
    let mut used: u64 = (1..=limit).map(|len| u64::from(per_length[len]) << (limit - len)).sum();
    let full = 1u64 << limit;
    while used > full {
        // Push one codeword of the longest length below the limit down by one.
        let Some(len) = (1..limit).rev().find(|&len| per_length[len] > 0) else { return };
        per_length[len] -= 1;
        per_length[len + 1] += 1;
        used -= 1 << (limit - len - 1);
    }
    // Spend what is left over on the longest codewords.
    for len in (2..=limit).rev() {
        let unit = 1u64 << (limit - len);
        while per_length[len] > 0 && used + unit <= full {
            per_length[len] -= 1;
            per_length[len - 1] += 1;
            used += unit;
        }
    }
}

/// The codewords for `lens`, right-justified.
pub(crate) fn canonical_codewords(lens: &[u8], codewords: &mut [u16]) {
    let mut next = [0u32; LIMIT_MAX + 2];
    for &len in lens {
        next[usize::from(len) + 1] += 1;
    }
    next[1] = 0;
    // next[len] becomes the first codeword of that length.
    let mut first = 0u32;
    for len in 1..=LIMIT_MAX {
        let count = next[len + 1];
        first <<= 1;
        next[len] = first;
        first += count;
    }
    for (codeword, &len) in codewords.iter_mut().zip(lens) {
        let place = &mut next[usize::from(len)];
        *codeword = *place as u16;
        *place += u32::from(len > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kraft(lens: &[u8]) -> f64 {
        lens.iter().filter(|l| **l > 0).map(|&l| 0.5f64.powi(i32::from(l))).sum()
    }

    #[test]
    fn lengths_are_complete_and_within_the_limit() {
        let mut builder = CodeBuilder::new();
        let mut fibonacci = vec![1u32, 1];
        for i in 2..30 {
            fibonacci.push(fibonacci[i - 1] + fibonacci[i - 2]);
        }
        for limit in [7u32, 12, 15, 16] {
            let mut lens = vec![0; fibonacci.len()];
            builder.lengths(&fibonacci, limit, &mut lens);
            assert!(lens.iter().all(|&l| l >= 1 && u32::from(l) <= limit), "{lens:?}");
            assert_eq!(kraft(&lens), 1.0, "{lens:?}");
        }
    }

    #[test]
    fn lengths_are_optimal_for_a_known_case() {
        let mut lens = [0; 6];
        CodeBuilder::new().lengths(&[45, 13, 12, 16, 9, 5], 16, &mut lens);
        assert_eq!(lens, [1, 3, 3, 3, 4, 4]);
    }

    #[test]
    fn lone_symbols_get_a_partner() {
        let mut lens = [0; 4];
        CodeBuilder::new().lengths(&[0, 0, 9, 0], 15, &mut lens);
        assert_eq!(lens, [1, 0, 1, 0]);
        CodeBuilder::new().lengths(&[9, 0, 0, 0], 15, &mut lens);
        assert_eq!(lens, [1, 1, 0, 0]);
        CodeBuilder::new().lengths(&[0, 0, 0, 0], 15, &mut lens);
        assert_eq!(lens, [0, 0, 0, 0]);
    }

    #[test]
    fn codewords_count_up_within_a_length() {
        let mut codewords = [0; 5];
        canonical_codewords(&[2, 0, 1, 3, 3], &mut codewords);
        assert_eq!(codewords, [0b10, 0, 0b0, 0b110, 0b111]);
    }
}
