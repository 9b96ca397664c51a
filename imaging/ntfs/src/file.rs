//! One file out of its attributes: a [`Node`], its names, its streams.

use gilt_wim::tree::{ContentId, FileTime, Name, Node, Reparse, Stream, attribute, reparse_tag};

use crate::content::{Content, Layout};
use crate::error::{Fault, Result};
use crate::raw::{is_ascii_name, u16_at, u32_at, u64_at, utf16};
use crate::record::{Attribute, Body, FileRef, Header, flag, kind};
use crate::runs::{Cursor, decode};
use crate::scan::Scanner;
use crate::special::{SpecialKind, classify};
use crate::wof;

/// Values we take whole into memory: reparse data (16 KiB by definition), EAs (64 KiB),
/// descriptors (64 KiB), each with room.
const MAX_VALUE_BYTES: u64 = 256 << 10;
/// Windows uses units of 16 clusters of at most 64 KiB.
const MAX_UNIT_BYTES: u64 = 4 << 20;
/// `FILE_ATTRIBUTE_*` bits; what is above is NTFS' own.
const FILE_ATTRIBUTES: u32 = 0x00FF_FFFF;

/// An attribute and the record it was found in.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub segment: u64,
    pub attribute: Attribute<'a>,
}

impl Piece<'_> {
    fn fault(&self, what: &'static str) -> crate::Error {
        Fault::new(self.attribute.at, what).in_record(self.segment)
    }
}

/// A file as found, not yet in the tree.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub node: Node,
    /// From `$STANDARD_INFORMATION`; 0 when the file carries its own descriptor.
    pub security_id: u32,
    pub own_security: Option<Box<[u8]>>,
    pub names: Vec<FoundName>,
    pub usn: u64,
    pub changed: FileTime,
    pub case_sensitive: bool,
    pub special: Option<SpecialKind>,
}

#[derive(Debug)]
pub(crate) struct FoundName {
    pub parent: FileRef,
    pub name: Name,
    pub short_name: Name,
    /// Of the Win32 namespace, whose DOS name is a name of its own.
    wants_short_name: bool,
}

/// `$FILE_NAME` namespaces.
const POSIX: u8 = 0;
const WIN32: u8 = 1;
const DOS: u8 = 2;
const WIN32_AND_DOS: u8 = 3;

impl Scanner<'_> {
    /// `pieces` are sorted by type, name and first VCN.
    pub(crate) fn assemble(
        &mut self,
        header: &Header,
        base: u64,
        pieces: &[Piece<'_>],
    ) -> Result<Found> {
        let mut found = Found::default();
        let mut has_information = false;
        let mut reparse = None;
        let mut packed = None;
        let mut dos_names = Vec::new();
        let mut encrypted = false;
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let same = |piece: &&Piece<'_>| {
                piece.attribute.kind == first.attribute.kind
                    && piece.attribute.name == first.attribute.name
            };
            let count = rest.iter().take_while(same).count();
            let (group, others) = rest.split_at(count);
            rest = others;
            match first.attribute.kind {
                kind::STANDARD_INFORMATION => {
                    has_information = true;
                    standard_information(first, &mut found)?;
                }
                kind::FILE_NAME => {
                    for piece in group {
                        file_name(piece, &mut found.names, &mut dos_names)?;
                    }
                }
                kind::OBJECT_ID => {
                    let value = self.value(group, MAX_VALUE_BYTES)?;
                    if value.len() < 16 {
                        return Err(first.fault("object id is shorter than 16 bytes"));
                    }
                    let value = value.get(..64).unwrap_or(&value[..16]);
                    found.node.extra_mut().object_id = Some(value.into());
                }
                kind::SECURITY_DESCRIPTOR => {
                    found.own_security =
                        Some(self.value(group, MAX_VALUE_BYTES)?.into_boxed_slice());
                }
                kind::REPARSE_POINT => {
                    reparse = Some((self.value(group, MAX_VALUE_BYTES)?, *first))
                }
                kind::EA => {
                    let value = self.value(group, MAX_VALUE_BYTES)?;
                    let list = ea_list(&value)
                        .ok_or_else(|| first.fault("extended attributes are damaged"))?;
                    if !list.is_empty() {
                        found.node.extra_mut().eas = Some(list);
                    }
                }
                kind::DATA => {
                    encrypted |= first.attribute.flags & flag::ENCRYPTED != 0;
                    self.data(header, base, group, &mut found, &mut packed)?;
                }
                _ => {}
            }
        }
        if !has_information {
            return Err(Fault::new(0x14, "file has no standard information").in_record(base));
        }
        match_dos_names(&mut found.names, dos_names);

        found.node.attributes &= FILE_ATTRIBUTES & !(attribute::DIRECTORY | attribute::NORMAL);
        if header.directory {
            found.node.attributes |= attribute::DIRECTORY;
        }
        if let Some((value, piece)) = reparse {
            self.reparse(&mut found, &value, &piece, packed)?;
        } else if packed.is_some() {
            return Err(
                Fault::new(0, "WofCompressedData without its reparse point").in_record(base)
            );
        }
        if encrypted {
            found.special = Some(SpecialKind::Encrypted);
        }
        if found.node.attributes == 0 {
            found.node.attributes = attribute::NORMAL;
        }
        Ok(found)
    }

    /// The bytes of an attribute, wherever they are.
    pub(crate) fn value(&self, group: &[Piece<'_>], max_bytes: u64) -> Result<Vec<u8>> {
        let first = &group[0];
        match &first.attribute.body {
            Body::Resident(value) if group.len() == 1 => Ok(value.to_vec()),
            Body::Resident(_) => Err(first.fault("attribute is there twice")),
            Body::Mapped(mapping) => {
                if mapping.len > max_bytes {
                    return Err(first.fault("value is longer than its kind may be"));
                }
                let mut runs = Vec::new();
                decode_all(group, self, &mut runs, 0)?;
                let valid = mapping.valid.min(mapping.len);
                let stored: u64 = runs.iter().map(|run| run.clusters).sum();
                if valid > stored.saturating_mul(self.device.geometry.cluster()) {
                    return Err(first.fault("value is longer than its clusters"));
                }
                let mut value = vec![0; mapping.len as usize];
                let valid = valid as usize;
                Cursor::default()
                    .read(self.device, &runs, 0, &mut value[..valid])
                    .map_err(|_| first.fault("value lies outside its clusters"))?;
                Ok(value)
            }
        }
    }

    fn data(
        &mut self,
        header: &Header,
        base: u64,
        group: &[Piece<'_>],
        found: &mut Found,
        packed: &mut Option<ContentId>,
    ) -> Result<()> {
        let name = group[0].attribute.name;
        if header.directory && name.is_empty() {
            return Ok(());
        }
        let content = self.content(base, group)?;
        let len_bytes = content.len;
        let id = self.contents.push(content, self.limits)?;
        if is_ascii_name(name, wof::STREAM_NAME) {
            *packed = Some(id);
            return Ok(());
        }
        let name = (!name.is_empty()).then(|| Name(utf16(name)));
        found.node.streams.push(Stream { name, len_bytes, content: id });
        Ok(())
    }

    /// Where the bytes of a `$DATA` attribute are.
    fn content(&mut self, base: u64, group: &[Piece<'_>]) -> Result<Content> {
        let first = &group[0];
        let mapping = match &first.attribute.body {
            Body::Resident(value) => {
                if group.len() > 1 {
                    return Err(first.fault("stream is there twice"));
                }
                let bytes = self.contents.keep(value, self.limits)?;
                return Ok(Content {
                    record: base,
                    len: value.len() as u64,
                    valid: value.len() as u64,
                    layout: Layout::Resident(bytes),
                });
            }
            Body::Mapped(mapping) => mapping,
        };
        if mapping.len > self.limits.stream_bytes {
            return Err(first.fault("stream is longer than the limit for one stream"));
        }
        let from = self.contents.runs.len();
        let clusters = {
            let mut runs = std::mem::take(&mut self.contents.runs);
            let result = decode_all(group, self, &mut runs, from);
            self.contents.runs = runs;
            result?
        };
        let valid = mapping.valid.min(mapping.len);
        let covered = clusters.saturating_mul(self.device.geometry.cluster());
        let flags = first.attribute.flags;
        // The sparse stream of a file under system compression is never read; another one whose
        // holes end early is met when it is.
        if valid > covered && flags & flag::SPARSE == 0 {
            return Err(first.fault("stream is longer than its clusters"));
        }
        let runs = self.contents.runs_from(from, self.limits)?;
        let layout = if flags & flag::ENCRYPTED != 0 {
            Layout::Encrypted { runs }
        } else {
            match flags & flag::COMPRESSION_MASK {
                0 => Layout::Plain { runs },
                flag::LZNT1 => {
                    let unit = 1u64.checked_shl(mapping.unit_log2.into()).unwrap_or(u64::MAX);
                    let unit_bytes = unit.saturating_mul(self.device.geometry.cluster());
                    if mapping.unit_log2 == 0 || unit_bytes > MAX_UNIT_BYTES {
                        return Err(first.fault("compression unit is none or too large"));
                    }
                    Layout::Lznt1 { runs, unit_clusters: unit }
                }
                _ => return Err(first.fault("unknown compression of a stream")),
            }
        };
        Ok(Content { record: base, len: mapping.len, valid, layout })
    }

    /// Turns a reparse point into what the file really is.
    fn reparse(
        &mut self,
        found: &mut Found,
        value: &[u8],
        piece: &Piece<'_>,
        packed: Option<ContentId>,
    ) -> Result<()> {
        let tag = u32_at(value, 0).ok_or_else(|| piece.fault("reparse point is cut"))?;
        let data = value.get(8..).ok_or_else(|| piece.fault("reparse point is cut"))?;
        if tag == reparse_tag::WOF {
            match wof::provider(data) {
                Some(wof::Provider::File(algorithm)) => {
                    return self.unpack_wof(found, piece, packed, algorithm);
                }
                Some(wof::Provider::Wim) => found.special = Some(SpecialKind::WimBacked),
                None => return Err(piece.fault("unknown form of system compression")),
            }
        } else {
            found.special = classify(tag);
        }
        if packed.is_some() {
            return Err(piece.fault("WofCompressedData under another reparse point"));
        }
        found.node.attributes |= attribute::REPARSE_POINT;
        // Every link has empty contents on NTFS; in a WIM the reparse data is its only stream.
        found.node.streams.retain(|stream| stream.name.is_some() || stream.len_bytes > 0);
        found.node.extra_mut().reparse = Some(Reparse {
            tag,
            // Targets are as the file system has them: nobody has fixed them up.
            flags: 1,
            data: data.into(),
        });
        Ok(())
    }

    /// A file under system compression is its real contents, without the machinery.
    fn unpack_wof(
        &mut self,
        found: &mut Found,
        piece: &Piece<'_>,
        packed: Option<ContentId>,
        algorithm: wof::Algorithm,
    ) -> Result<()> {
        let stream = found
            .node
            .streams
            .iter_mut()
            .find(|stream| stream.name.is_none())
            .ok_or_else(|| piece.fault("system-compressed file has no size"))?;
        let record = self.contents.get(stream.content).map_or(0, |content| content.record);
        let layout = match packed {
            Some(packed) => Layout::Wof { algorithm, packed },
            None if stream.len_bytes == 0 => Layout::Resident(0..0),
            None => return Err(piece.fault("system-compressed file has no WofCompressedData")),
        };
        let len = stream.len_bytes;
        self.contents.replace(stream.content, Content { record, len, valid: len, layout });
        found.node.attributes &= !(attribute::SPARSE_FILE | attribute::REPARSE_POINT);
        Ok(())
    }
}

/// Decodes the pieces of one attribute, which must follow one another. Gives the cluster count.
fn decode_all(
    group: &[Piece<'_>],
    scanner: &Scanner<'_>,
    runs: &mut Vec<crate::runs::Run>,
    from: usize,
) -> Result<u64> {
    let mut end = 0;
    for piece in group {
        let Body::Mapped(mapping) = &piece.attribute.body else {
            return Err(piece.fault("attribute is both resident and mapped"));
        };
        if mapping.first_vcn != end {
            return Err(piece.fault("pieces of the run list have a gap or overlap"));
        }
        decode(mapping, &scanner.device.geometry, runs, from)
            .map_err(|fault| fault.in_record(piece.segment))?;
        end = mapping.end_vcn;
    }
    Ok(end)
}

/// ```text
/// u64 created, modified, record changed, accessed   u32 attributes, max versions, version, class
/// since NTFS 3.0: u32 owner, u32 security id, u64 quota, u64 USN
/// ```
fn standard_information(piece: &Piece<'_>, found: &mut Found) -> Result<()> {
    let value = piece.attribute.resident().map_err(|fault| fault.in_record(piece.segment))?;
    if value.len() < 0x30 {
        return Err(piece.fault("standard information is cut"));
    }
    let time = |at| FileTime(u64_at(value, at).unwrap_or(0));
    found.node.created = time(0);
    found.node.modified = time(8);
    found.changed = time(16);
    found.node.accessed = time(24);
    found.node.attributes = u32_at(value, 0x20).unwrap_or(0);
    // Max versions 0 with version 1 marks a case-sensitive directory (field reports only).
    found.case_sensitive = u32_at(value, 0x24) == Some(0) && u32_at(value, 0x28) == Some(1);
    found.security_id = u32_at(value, 0x34).unwrap_or(0);
    found.usn = u64_at(value, 0x40).unwrap_or(0);
    Ok(())
}

/// `u64 parent ... 0x40 u8 length, u8 namespace, name`
fn file_name(
    piece: &Piece<'_>,
    names: &mut Vec<FoundName>,
    dos_names: &mut Vec<FoundName>,
) -> Result<()> {
    let value = piece.attribute.resident().map_err(|fault| fault.in_record(piece.segment))?;
    let parent = u64_at(value, 0).ok_or_else(|| piece.fault("file name is cut"))?;
    let units = value.get(0x40).copied().map_or(0, usize::from);
    let namespace = value.get(0x41).copied().unwrap_or(0);
    let name = value.get(0x42..0x42 + units * 2).ok_or_else(|| piece.fault("file name is cut"))?;
    let name = FoundName {
        parent: FileRef::from_raw(parent),
        name: Name(utf16(name)),
        short_name: Name::default(),
        wants_short_name: namespace == WIN32,
    };
    match namespace {
        DOS => dos_names.push(name),
        POSIX | WIN32 | WIN32_AND_DOS => names.push(name),
        _ => return Err(piece.fault("unknown namespace of a file name")),
    }
    Ok(())
}

/// A DOS name belongs to the Win32 name in the same directory.
fn match_dos_names(names: &mut [FoundName], dos_names: Vec<FoundName>) {
    for dos in dos_names {
        let long = names.iter_mut().find(|n| n.parent == dos.parent && n.wants_short_name);
        if let Some(long) = long {
            long.short_name = dos.name;
            long.wants_short_name = false;
        }
    }
}

/// From the form on disk, where every entry gives its own length, to that of
/// `FILE_FULL_EA_INFORMATION`, where the last one gives 0.
///
/// ```text
/// u32 offset of the next entry, u8 flags, u8 name length, u16 value length, name, NUL, value
/// ```
pub(crate) fn ea_list(value: &[u8]) -> Option<Box<[u8]>> {
    let mut out: Vec<u8> = Vec::with_capacity(value.len());
    let mut last = None;
    let mut at = 0;
    while at + 8 <= value.len() {
        let next = u32_at(value, at)? as usize;
        let name_len = usize::from(value[at + 5]);
        let value_len = usize::from(u16_at(value, at + 6)?);
        let body = value.get(at + 4..at + 8 + name_len + 1 + value_len)?;
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(body);
        if let Some(previous) = last.replace(start) {
            let distance = u32::try_from(start - previous).ok()?;
            out[previous..previous + 4].copy_from_slice(&distance.to_le_bytes());
        }
        if next == 0 {
            break;
        }
        if next < 8 + name_len + 1 + value_len {
            return None;
        }
        at += next;
        if at < value.len() {
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
    Some(out.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ea(next: u32, name: &str, value: &[u8]) -> Vec<u8> {
        let mut bytes = next.to_le_bytes().to_vec();
        bytes.push(0);
        bytes.push(name.len() as u8);
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(value);
        bytes
    }

    #[test]
    fn eas_take_the_form_of_the_windows_call() {
        let mut disk = ea(16, "ABC", b"xyz1");
        assert_eq!(disk.len(), 16);
        disk.extend(ea(20, "D", b"0123456"));
        disk.resize(36, 0);
        let list = ea_list(&disk).unwrap();
        assert_eq!(u32_at(&list, 0), Some(16));
        assert_eq!(u32_at(&list, 16), Some(0), "the last entry ends the list");
        assert_eq!(&list[16 + 10..16 + 17], b"0123456");
        assert_eq!(ea_list(&disk[..20]).as_deref().map(|l| l.len()), Some(16));
        assert_eq!(ea_list(&disk[..30]), None, "an entry that is cut is damage");
    }

    #[test]
    fn a_dos_name_joins_the_long_name_of_its_directory() {
        let name = |parent, text: &str| FoundName {
            parent: FileRef { record: parent, sequence: 1 },
            name: text.into(),
            short_name: Name::default(),
            wants_short_name: text != "posix",
        };
        let mut names = vec![name(7, "posix"), name(7, "long name here"), name(8, "other")];
        match_dos_names(&mut names, vec![name(8, "OTHER~1"), name(7, "LONGNA~1")]);
        assert_eq!(names[0].short_name, Name::default());
        assert_eq!(names[1].short_name, "LONGNA~1".into());
        assert_eq!(names[2].short_name, "OTHER~1".into());
    }
}
