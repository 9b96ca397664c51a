//! The loose form of compressed chunks: contents that differ a little have loose forms that differ a
//! little, while the chunks themselves differ all over. Made to store one version of something as the
//! difference to another, although both came compressed: the chunks come back bit for bit.
//!
//! Known for LZX only; what cannot be taken apart is an error, and then is best kept as it is.

use crate::{Codec, Error, lzx};

/// The parts of any number of chunks, one after the other. What differs in them differs in its own
/// way, so they are apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Lengths of codewords.
    pub codes: Vec<u8>,
    /// Lengths and offsets of matches, and how many literals are between them.
    pub steps: Vec<u8>,
    /// Bytes that no match gives.
    pub literals: Vec<u8>,
}

impl Streams {
    /// To read them from their beginning.
    pub fn taken(&self) -> Taken<'_> {
        Taken { codes: &self.codes, steps: &self.steps, literals: &self.literals }
    }

    fn truncate(&mut self, lens: [usize; 3]) {
        self.codes.truncate(lens[0]);
        self.steps.truncate(lens[1]);
        self.literals.truncate(lens[2]);
    }
}

/// What of [`Streams`] is not used yet.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    codes: &'a [u8],
    steps: &'a [u8],
    literals: &'a [u8],
}

impl<'a> Taken<'a> {
    /// Over the three streams.
    pub fn new(codes: &'a [u8], steps: &'a [u8], literals: &'a [u8]) -> Self {
        Taken { codes, steps, literals }
    }

    /// True when all is used.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty() && self.steps.is_empty() && self.literals.is_empty()
    }

    /// The next literals: for who keeps bytes of another sort among them.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        self.literals(len)
    }

    pub(crate) fn codes<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (first, rest) = self.codes.split_first_chunk::<N>().ok_or(Error::Loose)?;
        self.codes = rest;
        Ok(*first)
    }

    pub(crate) fn steps<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (first, rest) = self.steps.split_first_chunk::<N>().ok_or(Error::Loose)?;
        self.steps = rest;
        Ok(*first)
    }

    pub(crate) fn literals(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (first, rest) = self.literals.split_at_checked(len).ok_or(Error::Loose)?;
        self.literals = rest;
        Ok(first)
    }
}

/// Takes chunks of one codec apart and puts them together again. Reusable and `Send`.
pub struct Loosener {
    inner: Box<lzx::Loose>,
}

impl Loosener {
    /// For chunks of at most `chunk_bytes`. `None`: there is no loose form of this codec.
    pub fn new(codec: Codec, chunk_bytes: u32) -> Result<Option<Self>, Error> {
        codec.check_chunk_bytes(chunk_bytes)?;
        Ok((codec == Codec::Lzx)
            .then(|| Loosener { inner: Box::new(lzx::Loose::new(chunk_bytes)) }))
    }

    /// Appends the loose form of `chunk`, which holds `content_bytes` of contents. An error appends
    /// nothing; no error means that [`Loosener::tighten`] gives exactly these bytes.
    pub fn loosen(
        &mut self,
        chunk: &[u8],
        content_bytes: usize,
        out: &mut Streams,
    ) -> Result<(), Error> {
        let before = [out.codes.len(), out.steps.len(), out.literals.len()];
        let taken = self.inner.take_apart(chunk, content_bytes, out).and_then(|()| {
            let mut from = Taken {
                codes: &out.codes[before[0]..],
                steps: &out.steps[before[1]..],
                literals: &out.literals[before[2]..],
            };
            self.inner.put_together(&mut from, content_bytes)
        });
        // Encoders differ in how many bytes they leave behind the last bit.
        let tail = taken.and_then(|again| {
            let tail = chunk.strip_prefix(&again[..]).ok_or(Error::Loose)?;
            Ok((u8::try_from(tail.len()).map_err(|_| Error::Loose)?, tail))
        });
        match tail {
            Ok((len, tail)) => {
                out.codes.push(len);
                out.literals.extend_from_slice(tail);
                Ok(())
            }
            Err(error) => {
                out.truncate(before);
                Err(error)
            }
        }
    }

    /// The next chunk of the streams, bit for bit as it was. Any streams are acceptable: what is not
    /// valid is an error, in time bounded by their length.
    pub fn tighten(
        &mut self,
        from: &mut Taken<'_>,
        content_bytes: usize,
    ) -> Result<Vec<u8>, Error> {
        let mut chunk = self.inner.put_together(from, content_bytes)?;
        let [tail] = from.codes()?;
        chunk.extend_from_slice(from.literals(usize::from(tail))?);
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compressor, Level};

    /// Text with repetitions near and far, and some noise.
    fn contents(len: usize, seed: u32) -> Vec<u8> {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        let mut out = Vec::with_capacity(len + 40);
        while out.len() < len {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 29 == 0 || out.len() < 100 {
                out.extend_from_slice(&state.to_le_bytes());
            } else {
                let from = (state >> 8) as usize % (out.len() - 40);
                let part = out[from..from + 3 + (state >> 27) as usize].to_vec();
                out.extend_from_slice(&part);
            }
        }
        out.truncate(len);
        out
    }

    #[test]
    fn chunks_come_back_bit_for_bit() {
        for (chunk_bytes, lens) in
            [(32768u32, [32768, 20_000, 700]), (1 << 18, [262_144, 90_000, 40_000])]
        {
            let mut loosener = Loosener::new(Codec::Lzx, chunk_bytes).unwrap().unwrap();
            for level in [Level::Fast, Level::Default, Level::Max] {
                let mut compressor = Compressor::new(Codec::Lzx, chunk_bytes, level).unwrap();
                let mut streams = Streams::default();
                let mut chunks = Vec::new();
                for (n, len) in lens.into_iter().enumerate() {
                    let mut chunk = Vec::new();
                    assert!(compressor.compress(&contents(len, n as u32), &mut chunk));
                    // Bytes behind the end are kept too.
                    chunk.extend_from_slice(&[0, 9][..n.min(2)]);
                    loosener.loosen(&chunk, len, &mut streams).unwrap();
                    chunks.push((chunk, len));
                }
                let mut taken = streams.taken();
                for (chunk, len) in chunks {
                    assert_eq!(loosener.tighten(&mut taken, len).unwrap(), chunk);
                }
                assert!(taken.is_empty());
            }
        }
    }

    #[test]
    fn a_changed_byte_changes_little() {
        let mut before = contents(32768, 5);
        let mut compressor = Compressor::new(Codec::Lzx, 32768, Level::Fast).unwrap();
        let mut loosener = Loosener::new(Codec::Lzx, 32768).unwrap().unwrap();
        let mut loose = |contents: &[u8]| {
            let (mut chunk, mut streams) = (Vec::new(), Streams::default());
            assert!(compressor.compress(contents, &mut chunk));
            loosener.loosen(&chunk, contents.len(), &mut streams).unwrap();
            streams
        };
        let one = loose(&before);
        before[31_000] ^= 0x55;
        let other = loose(&before);
        // What is the same from the front, and from the back.
        let same = |a: &[u8], b: &[u8]| {
            let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            let back = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
            front + back
        };
        assert!(same(&one.literals, &other.literals) + 100 > one.literals.len());
        assert!(same(&one.steps, &other.steps) + 200 > one.steps.len());
    }

    #[test]
    fn damaged_streams_and_chunks_are_errors_not_panics() {
        let contents = contents(5000, 3);
        let mut chunk = Vec::new();
        let mut compressor = Compressor::new(Codec::Lzx, 32768, Level::Default).unwrap();
        assert!(compressor.compress(&contents, &mut chunk));
        let mut loosener = Loosener::new(Codec::Lzx, 32768).unwrap().unwrap();
        let mut whole = Streams::default();
        loosener.loosen(&chunk, contents.len(), &mut whole).unwrap();
        for bit in 0..chunk.len() * 8 {
            let mut damaged = chunk.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut streams = Streams::default();
            match loosener.loosen(&damaged, contents.len(), &mut streams) {
                Ok(()) => {
                    let again = loosener.tighten(&mut streams.taken(), contents.len()).unwrap();
                    assert_eq!(again, damaged);
                }
                Err(_) => assert_eq!(streams, Streams::default()),
            }
        }
        for at in 0..whole.codes.len() {
            let mut streams = whole.clone();
            streams.codes[at] ^= 0xff;
            // Whatever it gives, it ends.
            let _ = loosener.tighten(&mut streams.taken(), contents.len());
        }
        for len in 0..whole.steps.len() {
            let taken = &mut Taken::new(&whole.codes, &whole.steps[..len], &whole.literals);
            assert!(loosener.tighten(taken, contents.len()).is_err());
        }
    }
}
