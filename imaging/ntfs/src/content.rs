//! Where the bytes of each stream are, and readers of them.

use std::io::{self, Read};
use std::ops::Range;

use gilt_wim::tree::ContentId;

use crate::Limits;
use crate::error::{Error, Place, Result, bad_data};
use crate::runs::{Cursor, Device, Run};
use crate::wof::{Algorithm, WofReader};

/// The bytes of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// The file it belongs to.
    pub record: u64,
    pub len: u64,
    /// Bytes beyond this one were never written and read as zeros.
    pub valid: u64,
    pub layout: Layout,
}

#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// A range of [`Contents::resident`].
    Resident(Range<usize>),
    /// A range of [`Contents::runs`].
    Plain {
        runs: Range<usize>,
    },
    Lznt1 {
        runs: Range<usize>,
        unit_clusters: u64,
    },
    Wof {
        algorithm: Algorithm,
        packed: ContentId,
    },
    /// Ciphertext; never delivered as contents.
    Encrypted {
        runs: Range<usize>,
    },
}

/// All streams of a volume. Runs and resident bytes lie in two long vectors, not in one
/// allocation each.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    list: Vec<Content>,
    pub runs: Vec<Run>,
    resident: Vec<u8>,
}

/// The lengths of the three vectors, to go back to.
#[derive(Clone, Copy)]
pub(crate) struct Mark(usize, usize, usize);

impl Contents {
    pub fn push(&mut self, content: Content, limits: &Limits) -> Result<ContentId> {
        if self.list.len() as u64 >= limits.records.saturating_mul(4) {
            return Err(Error::TooLarge {
                what: "streams",
                limit: limits.records.saturating_mul(4),
            });
        }
        self.list.push(content);
        Ok(ContentId(self.list.len() as u64 - 1))
    }

    pub fn replace(&mut self, id: ContentId, content: Content) {
        if let Some(place) = usize::try_from(id.0).ok().and_then(|i| self.list.get_mut(i)) {
            *place = content;
        }
    }

    pub fn get(&self, id: ContentId) -> Option<&Content> {
        self.list.get(usize::try_from(id.0).ok()?)
    }

    pub fn keep(&mut self, bytes: &[u8], limits: &Limits) -> Result<Range<usize>> {
        let start = self.resident.len();
        if (start + bytes.len()) as u64 > limits.memory_bytes {
            return Err(Error::TooLarge {
                what: "bytes of small files",
                limit: limits.memory_bytes,
            });
        }
        self.resident.extend_from_slice(bytes);
        Ok(start..self.resident.len())
    }

    /// The runs that were appended since there were `from`.
    pub fn runs_from(&self, from: usize, limits: &Limits) -> Result<Range<usize>> {
        let limit = limits.memory_bytes / size_of::<Run>() as u64;
        if self.runs.len() as u64 > limit {
            return Err(Error::TooLarge { what: "fragments", limit });
        }
        Ok(from..self.runs.len())
    }

    pub fn mark(&self) -> Mark {
        Mark(self.list.len(), self.runs.len(), self.resident.len())
    }

    pub fn back_to(&mut self, mark: Mark) {
        self.list.truncate(mark.0);
        self.runs.truncate(mark.1);
        self.resident.truncate(mark.2);
    }

    pub fn resident(&self, range: &Range<usize>) -> &[u8] {
        self.resident.get(range.clone()).unwrap_or(&[])
    }

    pub fn runs(&self, range: &Range<usize>) -> &[Run] {
        self.runs.get(range.clone()).unwrap_or(&[])
    }

    /// Opens a stream as its real contents.
    pub fn open<'a>(
        &'a self,
        device: &'a Device,
        id: ContentId,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        let content = self.get(id).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        match &content.layout {
            Layout::Resident(_) | Layout::Plain { .. } => {
                Ok(Box::new(RawReader::new(self, device, content)))
            }
            Layout::Lznt1 { runs, unit_clusters } => {
                Ok(Box::new(Lznt1Reader::new(device, content, self.runs(runs), *unit_clusters)))
            }
            Layout::Wof { algorithm, packed } => {
                let packed =
                    self.get(*packed).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                if !matches!(packed.layout, Layout::Resident(_) | Layout::Plain { .. }) {
                    return Err(bad_data(
                        Place::Stream { number: content.record, offset: 0 },
                        "WofCompressedData is itself compressed or encrypted",
                    ));
                }
                let raw = RawReader::new(self, device, packed);
                Ok(Box::new(WofReader::new(raw, content.record, content.len, *algorithm)?))
            }
            Layout::Encrypted { .. } => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("file record {}: contents are encrypted by EFS", content.record),
            )),
        }
    }
}

/// A stream that is stored as it is.
pub(crate) struct RawReader<'a> {
    device: &'a Device,
    bytes: Bytes<'a>,
    len: u64,
    valid: u64,
    at: u64,
    cursor: Cursor,
}

enum Bytes<'a> {
    Resident(&'a [u8]),
    Mapped(&'a [Run]),
}

impl<'a> RawReader<'a> {
    pub fn new(contents: &'a Contents, device: &'a Device, content: &Content) -> Self {
        let bytes = match &content.layout {
            Layout::Resident(range) => Bytes::Resident(contents.resident(range)),
            Layout::Plain { runs } => Bytes::Mapped(contents.runs(runs)),
            _ => Bytes::Mapped(&[]),
        };
        Self {
            device,
            bytes,
            len: content.len,
            valid: content.valid,
            at: 0,
            cursor: Cursor::default(),
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buf` from `offset`; past the end is an error.
    pub fn read_at(&mut self, offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        self.at = offset;
        while !buf.is_empty() {
            match self.read(buf)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }
}

impl Read for RawReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let mut n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if n == 0 {
            return Ok(0);
        }
        let until_valid = self.valid.saturating_sub(self.at);
        if until_valid == 0 {
            buf[..n].fill(0);
            self.at += n as u64;
            return Ok(n);
        }
        n = usize::try_from(until_valid).unwrap_or(usize::MAX).min(n);
        match self.bytes {
            Bytes::Resident(bytes) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX);
                let bytes = bytes.get(start..).unwrap_or(&[]);
                n = n.min(bytes.len());
                buf[..n].copy_from_slice(&bytes[..n]);
            }
            Bytes::Mapped(runs) => {
                self.cursor.read(self.device, runs, self.at, &mut buf[..n])?;
            }
        }
        self.at += n as u64;
        Ok(n)
    }
}

/// A stream in LZNT1 units: a unit whose clusters are all there is stored as it is, one without
/// any is zeros, and one with some and a hole after them is packed.
struct Lznt1Reader<'a> {
    device: &'a Device,
    runs: &'a [Run],
    record: u64,
    len: u64,
    valid: u64,
    unit_clusters: u64,
    at: u64,
    count: Cursor,
    cursor: Cursor,
    packed: Vec<u8>,
    unit: Vec<u8>,
    unit_at: usize,
}

impl<'a> Lznt1Reader<'a> {
    fn new(device: &'a Device, content: &Content, runs: &'a [Run], unit_clusters: u64) -> Self {
        Self {
            device,
            runs,
            record: content.record,
            len: content.len,
            valid: content.valid,
            unit_clusters,
            at: 0,
            count: Cursor::default(),
            cursor: Cursor::default(),
            packed: Vec::new(),
            unit: Vec::new(),
            unit_at: 0,
        }
    }

    /// Stored bytes of the unit at `start`; `None` if a hole precedes stored clusters.
    fn stored_bytes(&mut self, start: u64, unit_bytes: u64) -> Option<u64> {
        let cluster = self.device.geometry.cluster();
        let mut stored = 0;
        let mut offset = start;
        let mut hole = false;
        while offset < start + unit_bytes {
            let Some(span) = self.count.span(self.runs, cluster, offset) else { break };
            let len = span.len.min(start + unit_bytes - offset);
            match span.at {
                Some(_) if hole => return None,
                Some(_) => stored += len,
                None => hole = true,
            }
            offset += len;
        }
        Some(stored)
    }

    fn fill(&mut self) -> io::Result<()> {
        let place = Place::Stream { number: self.record, offset: self.at };
        let unit_bytes = self.unit_clusters * self.device.geometry.cluster();
        let full = usize::try_from(unit_bytes.min(self.len - self.at)).unwrap_or(0);
        self.unit.clear();
        self.unit_at = 0;
        let stored = self
            .stored_bytes(self.at, unit_bytes)
            .ok_or_else(|| bad_data(place, "compression unit begins with a hole"))?;
        let mut unit = std::mem::take(&mut self.unit);
        unit.resize(full, 0);
        if stored == unit_bytes {
            self.cursor.read(self.device, self.runs, self.at, &mut unit)?;
        } else if stored > 0 {
            self.packed.resize(stored as usize, 0);
            self.cursor.read(self.device, self.runs, self.at, &mut self.packed)?;
            gilt_codec::lznt1::decompress(&self.packed, &mut unit)
                .map_err(|_| bad_data(place, "compression unit is damaged"))?;
        }
        if self.at + full as u64 > self.valid {
            let keep = usize::try_from(self.valid.saturating_sub(self.at)).unwrap_or(0);
            unit[keep..].fill(0);
        }
        self.unit = unit;
        self.at += full as u64;
        Ok(())
    }
}

impl Read for Lznt1Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.unit_at == self.unit.len() {
            if self.at >= self.len || buf.is_empty() {
                return Ok(0);
            }
            self.fill()?;
        }
        let n = buf.len().min(self.unit.len() - self.unit_at);
        buf[..n].copy_from_slice(&self.unit[self.unit_at..self.unit_at + n]);
        self.unit_at += n;
        Ok(n)
    }
}
