//! Run lists: which clusters hold a stream.

use std::io;
use std::sync::Arc;

use gilt_disk::BlockRead;

use crate::boot::Geometry;
use crate::error::{Error, Fault, Result};
use crate::record::Mapping;

/// Clusters that follow one another on disk, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// [`HOLE`] for clusters that are not stored and read as zeros.
    pub lcn: u64,
    pub clusters: u64,
}

pub(crate) const HOLE: u64 = u64::MAX;

impl Run {
    pub fn is_hole(&self) -> bool {
        self.lcn == HOLE
    }
}

/// Appends the runs of one piece to `out`, joining what lies together. `from` is where the stream
/// begins in `out`: runs before it belong to others.
///
/// ```text
/// u8: low half = bytes of the length, high half = bytes of the signed LCN delta (0 = hole)
/// length, delta ... ; ends with a zero byte or when the piece is full
/// ```
pub(crate) fn decode(
    piece: &Mapping<'_>,
    geometry: &Geometry,
    out: &mut Vec<Run>,
    from: usize,
) -> std::result::Result<(), Fault> {
    let bytes = piece.runs;
    let mut at = 0;
    let mut lcn: i64 = 0;
    let mut left = piece.end_vcn - piece.first_vcn;
    while left > 0 {
        let fault = |what| Fault::new(piece.runs_at + at, what);
        let head = *bytes.get(at).ok_or(fault("run list ends before its last VCN"))?;
        let (len_bytes, delta_bytes) = (usize::from(head & 15), usize::from(head >> 4));
        if len_bytes == 0 || len_bytes > 8 || delta_bytes > 8 {
            return Err(fault("run list ends before its last VCN or is damaged"));
        }
        let len_field = bytes.get(at + 1..at + 1 + len_bytes).ok_or(fault("run is cut"))?;
        let delta_at = at + 1 + len_bytes;
        let delta_field = bytes.get(delta_at..delta_at + delta_bytes).ok_or(fault("run is cut"))?;
        let clusters = u64::try_from(signed(len_field)).unwrap_or(0);
        if clusters == 0 || clusters > left {
            return Err(fault("run length is zero or passes the last VCN"));
        }
        let start = if delta_bytes == 0 {
            HOLE
        } else {
            lcn = lcn.checked_add(signed(delta_field)).ok_or(fault("run start overflows"))?;
            let start = u64::try_from(lcn).map_err(|_| fault("run starts before the volume"))?;
            if start.checked_add(clusters).is_none_or(|end| end > geometry.clusters) {
                return Err(fault("run lies beyond the end of the volume"));
            }
            start
        };
        push(out, from, Run { lcn: start, clusters });
        left -= clusters;
        at = delta_at + delta_bytes;
    }
    Ok(())
}

fn push(out: &mut Vec<Run>, from: usize, run: Run) {
    if out.len() > from
        && let Some(last) = out.last_mut()
    {
        let joined = match (last.is_hole(), run.is_hole()) {
            (true, true) => true,
            (false, false) => last.lcn + last.clusters == run.lcn,
            _ => false,
        };
        if joined {
            last.clusters += run.clusters;
            return;
        }
    }
    out.push(run);
}

/// Little-endian two's complement of 0 to 8 bytes.
fn signed(field: &[u8]) -> i64 {
    let negative = field.last().is_some_and(|&b| b & 0x80 != 0);
    let mut bytes = [if negative { 0xFF } else { 0 }; 8];
    bytes[..field.len()].copy_from_slice(field);
    i64::from_le_bytes(bytes)
}

/// The volume's bytes and sizes; shared by all readers of it.
#[derive(Clone)]
pub(crate) struct Device {
    pub disk: Arc<dyn BlockRead>,
    pub geometry: Geometry,
}

impl Device {
    pub fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        self.disk.read_at(at, buf).map_err(|source| Error::Read { at, source })
    }
}

/// A place in a run list that moves forward cheaply.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    index: usize,
    /// Stream offset in bytes of the run at `index`.
    start: u64,
}

/// Bytes from `offset` that come from one place.
pub(crate) struct Span {
    /// Byte offset in the volume; `None` in a hole.
    pub at: Option<u64>,
    pub len: u64,
}

impl Cursor {
    /// What lies at `offset`, or `None` past the last run.
    pub fn span(&mut self, runs: &[Run], cluster: u64, offset: u64) -> Option<Span> {
        if offset < self.start {
            *self = Self::default();
        }
        loop {
            let run = runs.get(self.index)?;
            let bytes = run.clusters.saturating_mul(cluster);
            let skip = offset - self.start;
            if skip < bytes {
                let at = (!run.is_hole()).then(|| run.lcn * cluster + skip);
                return Some(Span { at, len: bytes - skip });
            }
            self.start += bytes;
            self.index += 1;
        }
    }

    /// Fills `buf` from the stream; holes read as zeros.
    pub fn read(
        &mut self,
        device: &Device,
        runs: &[Run],
        mut offset: u64,
        mut buf: &mut [u8],
    ) -> io::Result<()> {
        while !buf.is_empty() {
            let span = self
                .span(runs, device.geometry.cluster(), offset)
                .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let n = usize::try_from(span.len).unwrap_or(usize::MAX).min(buf.len());
            let (now, rest) = buf.split_at_mut(n);
            match span.at {
                Some(at) => device.disk.read_at(at, now)?,
                None => now.fill(0),
            }
            buf = rest;
            offset += n as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry {
            sector_bytes: 512,
            cluster_bytes: 4096,
            record_bytes: 1024,
            clusters: 1000,
            mft_lcn: 4,
            serial: 0,
        }
    }

    fn runs(bytes: &[u8], clusters: u64) -> std::result::Result<Vec<Run>, Fault> {
        let mut out = Vec::new();
        let piece = Mapping {
            first_vcn: 0,
            end_vcn: clusters,
            unit_log2: 0,
            len: 0,
            valid: 0,
            runs: bytes,
            runs_at: 0,
        };
        decode(&piece, &geometry(), &mut out, 0)?;
        Ok(out)
    }

    #[test]
    fn deltas_are_signed_and_neighbours_join() {
        let got = runs(&[0x11, 2, 100, 0x11, 3, 2, 0x01, 5, 0x11, 1, 0x9C, 0], 11).unwrap();
        assert_eq!(
            got,
            [
                Run { lcn: 100, clusters: 5 },
                Run { lcn: HOLE, clusters: 5 },
                Run { lcn: 2, clusters: 1 }
            ]
        );
    }

    #[test]
    fn damage_is_located() {
        assert_eq!(runs(&[0x11, 2, 100, 0], 3).unwrap_err().at, 3, "ends early");
        assert_eq!(runs(&[0x11, 9, 100], 3).unwrap_err().at, 0, "too long");
        assert_eq!(runs(&[0x11, 1, 0x80], 1).unwrap_err().at, 0, "before the volume");
        assert_eq!(runs(&[0x21, 1, 0xE8, 0x03], 1).unwrap_err().at, 0, "beyond the volume");
        assert_eq!(runs(&[0x88, 1], 1).unwrap_err().at, 0, "cut");
        assert_eq!(runs(&[0x11, 0, 1], 1).unwrap_err().at, 0, "zero length");
        let mut huge = vec![0x81u8, 1];
        huge.extend(i64::MAX.to_le_bytes());
        assert!(runs(&huge, 1).is_err());
    }
}
