//! Finding `$MFT` and reading it from start to end.

use crate::boot::Geometry;
use crate::error::{Error, Fault, Place, Result};
use crate::raw::{u16_at, u32_at, u64_at};
use crate::record::{Attribute, Body, FileRef, Header, fix_up, kind};
use crate::runs::{Cursor, Device, Run, decode};

/// How much of `$MFT` is read at once.
const BATCH_BYTES: usize = 1 << 20;
/// An attribute list larger than this is damage: 256 KiB is what NTFS itself allows.
const MAX_LIST_BYTES: u64 = 256 << 10;

/// Where the file records lie.
#[derive(Clone, Debug)]
pub(crate) struct Mft {
    pub runs: Vec<Run>,
    /// Records that were ever formatted.
    pub records: u64,
}

/// One line of an `$ATTRIBUTE_LIST`: which record holds a piece of which attribute.
///
/// ```text
/// u32 type, u16 length, u8 name length, u8 name offset, u64 first VCN, u64 record, u16 id
/// ```
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListLine<'a> {
    pub kind: u32,
    pub name: &'a [u8],
    pub first_vcn: u64,
    pub segment: FileRef,
    pub id: u16,
}

/// Reads the lines of an attribute list.
pub(crate) fn list_lines(list: &[u8]) -> std::result::Result<Vec<ListLine<'_>>, Fault> {
    let mut lines = Vec::with_capacity(list.len() / 32);
    let mut at = 0;
    while at + 4 <= list.len() {
        let fault = Fault::new(at, "attribute list is damaged");
        let Some(kind) = u32_at(list, at).filter(|&kind| kind != 0 && kind != kind::END) else {
            break;
        };
        let length = usize::from(u16_at(list, at + 4).ok_or(fault)?);
        if length < 0x1A {
            return Err(fault);
        }
        let line = list.get(at..at + length).ok_or(fault)?;
        let name_at = usize::from(line[7]);
        let name = match usize::from(line[6]) * 2 {
            0 => &[][..],
            len => line.get(name_at..name_at + len).ok_or(fault)?,
        };
        lines.push(ListLine {
            kind,
            name,
            first_vcn: u64_at(line, 8).ok_or(fault)?,
            segment: FileRef::from_raw(u64_at(line, 0x10).ok_or(fault)?),
            id: u16_at(line, 0x18).ok_or(fault)?,
        });
        at += length;
    }
    Ok(lines)
}

/// The bytes of the attribute list of record `number`, resident or not.
pub(crate) fn list_bytes(
    device: &Device,
    number: u64,
    attribute: &Attribute<'_>,
) -> Result<Vec<u8>> {
    let in_record = |fault: Fault| fault.in_record(number);
    match &attribute.body {
        Body::Resident(value) => Ok(value.to_vec()),
        Body::Mapped(mapping) => {
            let stored = mapping.end_vcn * device.geometry.cluster();
            if mapping.len > MAX_LIST_BYTES || mapping.first_vcn != 0 || mapping.len > stored {
                return Err(in_record(Fault::new(attribute.at, "attribute list is too long")));
            }
            let mut runs = Vec::new();
            decode(mapping, &device.geometry, &mut runs, 0).map_err(in_record)?;
            let mut bytes = vec![0; mapping.len as usize];
            Cursor::default()
                .read(device, &runs, 0, &mut bytes)
                .map_err(|source| Error::Read { at: 0, source })?;
            Ok(bytes)
        }
    }
}

impl Mft {
    /// From record 0, following its attribute list where it has one.
    pub fn locate(device: &Device) -> Result<Self> {
        let geometry = &device.geometry;
        let size = geometry.record_bytes as usize;
        let mut first = vec![0; size];
        device.read(geometry.mft_lcn * geometry.cluster(), &mut first)?;
        let in_first = |fault: Fault| fault.in_record(0);
        let header = open_record(&mut first, 0).map_err(in_first)?;
        if !header.in_use || header.is_extension() {
            return Err(in_first(Fault::new(0x16, "$MFT's own record is not in use")));
        }

        let mut mft = Self { runs: Vec::new(), records: 0 };
        let mut end_vcn = 0;
        let mut valid = None;
        let mut list = None;
        for attribute in header.attributes(&first) {
            let attribute = attribute.map_err(in_first)?;
            match (attribute.kind, &attribute.body) {
                (kind::ATTRIBUTE_LIST, _) => {
                    list = Some(list_bytes(device, 0, &attribute)?);
                }
                (kind::DATA, Body::Mapped(mapping))
                    if attribute.name.is_empty() && mapping.first_vcn == 0 && valid.is_none() =>
                {
                    decode(mapping, geometry, &mut mft.runs, 0).map_err(in_first)?;
                    end_vcn = mapping.end_vcn;
                    valid = Some(mapping.valid.min(mapping.len));
                }
                _ => {}
            }
        }
        let valid = valid.ok_or_else(|| in_first(Fault::new(0, "$MFT has no data attribute")))?;
        mft.records = (end_vcn * geometry.cluster()).min(valid) / u64::from(geometry.record_bytes);

        if let Some(list) = list {
            let mut pieces: Vec<_> = list_lines(&list)
                .map_err(in_first)?
                .into_iter()
                .filter(|line| line.kind == kind::DATA && line.name.is_empty())
                .filter(|line| line.first_vcn > 0)
                .collect();
            pieces.sort_by_key(|line| line.first_vcn);
            for line in pieces {
                // A later piece is described in a record that the pieces before it reach.
                end_vcn = mft.append_piece(device, line, end_vcn)?;
                mft.records =
                    (end_vcn * geometry.cluster()).min(valid) / u64::from(geometry.record_bytes);
            }
        }
        if end_vcn * geometry.cluster() < valid {
            return Err(in_first(Fault::new(0, "$MFT is longer than its clusters")));
        }
        mft.refuse_overlap()?;
        Ok(mft)
    }

    fn append_piece(&mut self, device: &Device, line: ListLine<'_>, end_vcn: u64) -> Result<u64> {
        let number = line.segment.record;
        let mut record = vec![0; device.geometry.record_bytes as usize];
        let header = self.read(device, number, &mut record)?;
        let in_segment = |fault: Fault| fault.in_record(number);
        if !header.in_use || header.base.record != 0 || header.sequence != line.segment.sequence {
            return Err(in_segment(Fault::new(0x20, "record is not the extension of $MFT")));
        }
        for attribute in header.attributes(&record) {
            let attribute = attribute.map_err(in_segment)?;
            if attribute.kind == kind::DATA
                && attribute.name.is_empty()
                && let Body::Mapped(mapping) = &attribute.body
                && mapping.first_vcn == line.first_vcn
            {
                if mapping.first_vcn != end_vcn {
                    return Err(in_segment(Fault::new(attribute.at, "$MFT's pieces have a gap")));
                }
                decode(mapping, &device.geometry, &mut self.runs, 0).map_err(in_segment)?;
                return Ok(mapping.end_vcn);
            }
        }
        Err(in_segment(Fault::new(0, "the piece of $MFT listed here is missing")))
    }

    /// Clusters that serve twice would let a small image claim any number of records.
    fn refuse_overlap(&self) -> Result<()> {
        let fault = |what| Err(Fault::new(0, what).in_record(0));
        if self.runs.iter().any(Run::is_hole) {
            return fault("$MFT has a hole");
        }
        let mut sorted = self.runs.clone();
        sorted.sort_by_key(|run| run.lcn);
        if sorted.windows(2).any(|pair| pair[0].lcn + pair[0].clusters > pair[1].lcn) {
            return fault("$MFT uses clusters twice");
        }
        Ok(())
    }

    /// Reads and opens one record.
    pub fn read(&self, device: &Device, number: u64, record: &mut [u8]) -> Result<Header> {
        if number >= self.records {
            return Err(Fault::new(0, "record lies beyond the end of $MFT").in_record(number));
        }
        let offset = number * record.len() as u64;
        Cursor::default()
            .read(device, &self.runs, offset, record)
            .map_err(|source| Error::Read { at: offset, source })?;
        open_record(record, number).map_err(|fault| fault.in_record(number))
    }

    /// Shows every record in order: its number and its bytes as they lie on disk.
    pub fn for_each(
        &self,
        device: &Device,
        mut each: impl FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let size = device.geometry.record_bytes as usize;
        let per_batch = (BATCH_BYTES / size).max(1) as u64;
        let mut batch = vec![0; per_batch as usize * size];
        let mut cursor = Cursor::default();
        let mut number = 0;
        while number < self.records {
            let count = per_batch.min(self.records - number);
            let bytes = &mut batch[..count as usize * size];
            let offset = number * size as u64;
            cursor
                .read(device, &self.runs, offset, bytes)
                .map_err(|source| Error::Read { at: offset, source })?;
            for (i, record) in (0..count).zip(bytes.chunks_exact_mut(size)) {
                each(number + i, record)?;
            }
            number += count;
        }
        Ok(())
    }

    /// Byte offset in the volume of a record.
    pub fn position(&self, geometry: &Geometry, number: u64) -> Option<u64> {
        let offset = number.checked_mul(u64::from(geometry.record_bytes))?;
        Cursor::default().span(&self.runs, geometry.cluster(), offset)?.at
    }
}

/// Checks the magic, undoes the fixups, reads the header.
pub(crate) fn open_record(record: &mut [u8], number: u64) -> std::result::Result<Header, Fault> {
    match record.get(..4) {
        Some(b"FILE") => {}
        Some(b"BAAD") => return Err(Fault::new(0, "record is marked BAAD by an earlier failure")),
        _ => return Err(Fault::new(0, "not a file record")),
    }
    fix_up(record)?;
    Header::parse(record, number)
}

/// `Place` for errors about the MFT bitmap.
pub(crate) fn lost_record(number: u64) -> Error {
    Error::Corrupt {
        place: Place::Record { number, offset: 0 },
        what: "record is allocated but holds no file record",
    }
}
