//! One pass over `$MFT`.
//!
//! ```text
//! for each record   free, extension      -> kept aside or skipped
//!                   complete in itself    -> assembled at once
//!                   with attribute list   -> put off until all extensions were seen
//! ```
//! Directory indexes are never read: every name says in which directory it is.

use std::collections::HashMap;

use gilt_wim::tree::{FileTime, Name, Node};

use crate::content::Contents;
use crate::error::{Error, Fault, Result};
use crate::file::{Found, Piece};
use crate::mft::{ListLine, Mft, list_bytes, list_lines, lost_record, open_record};
use crate::record::{Attribute, Body, FileRef, Header, kind};
use crate::runs::{Cursor, Device, decode};
use crate::special::SpecialKind;
use crate::volume::{Damage, Limits, Note, NoteKind, Notes, Stamp};

/// Extension records held in memory between being seen and being needed; beyond it they are read
/// again.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Records below this one are the file system's own, but for the root.
pub(crate) const FIRST_USER_RECORD: u64 = 24;
pub(crate) const ROOT_RECORD: u64 = 5;

/// A name and where it leads.
#[derive(Debug)]
pub(crate) struct Link {
    pub child: u32,
    pub parent: FileRef,
    pub name: Name,
    pub short_name: Name,
}

/// Whose descriptor a file has.
#[derive(Clone, Debug)]
pub(crate) enum SecurityKey {
    None,
    Shared(u32),
    Own(Box<[u8]>),
}

pub(crate) struct Scanner<'a> {
    pub device: &'a Device,
    pub mft: &'a Mft,
    pub limits: &'a Limits,
    damage: Damage,
    pub contents: Contents,
    pub notes: Notes,
    pub nodes: Vec<Node>,
    pub stamps: Vec<Stamp>,
    pub security: Vec<SecurityKey>,
    pub links: Vec<Link>,
    pub specials: Vec<(u32, SpecialKind)>,
    /// Extension records of files that have any, by node.
    pub segments: HashMap<u32, Box<[u64]>>,
    deferred: Vec<u64>,
    kept: HashMap<u64, Box<[u8]>>,
    kept_bytes: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(device: &'a Device, mft: &'a Mft, limits: &'a Limits, damage: Damage) -> Self {
        Self {
            device,
            mft,
            limits,
            damage,
            contents: Contents::default(),
            notes: Notes::default(),
            nodes: Vec::new(),
            stamps: Vec::new(),
            security: Vec::new(),
            links: Vec::new(),
            specials: Vec::new(),
            segments: HashMap::new(),
            deferred: Vec::new(),
            kept: HashMap::new(),
            kept_bytes: 0,
        }
    }

    pub fn run(&mut self) -> Result<()> {
        let (mft, device) = (self.mft, self.device);
        let bitmap =
            self.system_value(0, kind::BITMAP, &[], self.limits.memory_bytes)?.unwrap_or_default();
        mft.for_each(device, |number, record| {
            if let Err(error) = self.record(number, record, &bitmap) {
                self.damaged(number, error)?;
            }
            Ok(())
        })?;
        for number in std::mem::take(&mut self.deferred) {
            let mark = self.contents.mark();
            if let Err(error) = self.deferred(number) {
                self.contents.back_to(mark);
                self.damaged(number, error)?;
            }
        }
        self.kept = HashMap::new();
        Ok(())
    }

    /// Damage ends the scan, or is noted, as told.
    pub fn damaged(&mut self, number: u64, error: Error) -> Result<()> {
        match (self.damage, error) {
            (Damage::Note, Error::Corrupt { what, .. }) => {
                self.notes.add(Note { record: number, kind: NoteKind::Damaged(what), name: None })
            }
            (_, error) => Err(error),
        }
    }

    fn record(&mut self, number: u64, record: &mut [u8], bitmap: &[u8]) -> Result<()> {
        if record.get(..4) != Some(b"FILE") {
            let allocated = usize::try_from(number / 8)
                .ok()
                .and_then(|byte| bitmap.get(byte))
                .is_some_and(|byte| byte & (1 << (number % 8)) != 0);
            return if allocated { Err(lost_record(number)) } else { Ok(()) };
        }
        // The flags lie where no fixup does: free records need not be undone.
        if record[0x16] & 1 == 0 {
            return Ok(());
        }
        let in_record = |fault: Fault| fault.in_record(number);
        let header = open_record(record, number).map_err(in_record)?;
        if header.is_extension() {
            self.keep(number, record);
            return Ok(());
        }
        if number < FIRST_USER_RECORD && number != ROOT_RECORD {
            return Ok(());
        }
        let mut pieces = Vec::with_capacity(8);
        for attribute in header.attributes(record) {
            let attribute = attribute.map_err(in_record)?;
            if attribute.kind == kind::ATTRIBUTE_LIST {
                self.keep(number, record);
                self.deferred.push(number);
                return Ok(());
            }
            pieces.push(Piece { segment: number, attribute });
        }
        sort(&mut pieces);
        let mark = self.contents.mark();
        let found = self.assemble(&header, number, &pieces).inspect_err(|_| {
            self.contents.back_to(mark);
        })?;
        self.accept(number, &header, header.lsn, found)?;
        Ok(())
    }

    fn keep(&mut self, number: u64, record: &[u8]) {
        if self.kept_bytes + record.len() <= MAX_KEPT_BYTES {
            self.kept_bytes += record.len();
            self.kept.insert(number, record.into());
        }
    }

    fn deferred(&mut self, number: u64) -> Result<()> {
        let loaded = self.load(number)?;
        let pieces = loaded.pieces()?;
        let found = self.assemble(&loaded.base().header, number, &pieces)?;
        let lsn = loaded.segments.iter().map(|segment| segment.header.lsn).max().unwrap_or(0);
        let slot = self.accept(number, &loaded.base().header, lsn, found)?;
        if loaded.segments.len() > 1 {
            let numbers = loaded.segments[1..].iter().map(|segment| segment.number).collect();
            self.segments.insert(slot, numbers);
        }
        Ok(())
    }

    /// Takes a file in; gives its place in `nodes`.
    fn accept(&mut self, number: u64, header: &Header, lsn: u64, found: Found) -> Result<u32> {
        let limit = self.limits.records;
        let slot = u32::try_from(self.nodes.len())
            .ok()
            .filter(|&slot| u64::from(slot) < limit)
            .ok_or(Error::TooLarge { what: "files", limit })?;
        let file = FileRef { record: number, sequence: header.sequence };
        if found.case_sensitive && header.directory {
            self.notes.add(Note {
                record: number,
                kind: NoteKind::CaseSensitiveDirectory,
                name: found.names.first().map(|name| name.name.clone()),
            })?;
        }
        for name in found.names {
            self.links.push(Link {
                child: slot,
                parent: name.parent,
                name: name.name,
                short_name: name.short_name,
            });
        }
        if let Some(kind) = found.special {
            self.specials.push((slot, kind));
        }
        self.security.push(match (found.security_id, found.own_security) {
            (0, Some(own)) => SecurityKey::Own(own),
            (0, None) => SecurityKey::None,
            (id, _) => SecurityKey::Shared(id),
        });
        self.stamps.push(Stamp { file, lsn, usn: found.usn, changed: found.changed });
        self.nodes.push(found.node);
        Ok(slot)
    }

    /// The bytes of one attribute of a file of the file system's own, if it has it.
    pub fn system_value(
        &self,
        number: u64,
        kind: u32,
        name: &[u8],
        max_bytes: u64,
    ) -> Result<Option<Vec<u8>>> {
        let loaded = self.load(number)?;
        let mut pieces = loaded.pieces()?;
        pieces.retain(|piece| piece.attribute.kind == kind && piece.attribute.name == name);
        if pieces.is_empty() { Ok(None) } else { self.value(&pieces, max_bytes).map(Some) }
    }

    /// The first bytes of an unnamed attribute, at most `max_bytes`.
    pub fn system_head(&self, number: u64, kind: u32, max_bytes: usize) -> Result<Option<Vec<u8>>> {
        let loaded = self.load(number)?;
        let mut pieces = loaded.pieces()?;
        pieces.retain(|piece| piece.attribute.kind == kind && piece.attribute.name.is_empty());
        let Some(first) = pieces.first() else { return Ok(None) };
        match &first.attribute.body {
            Body::Resident(value) => Ok(Some(value[..value.len().min(max_bytes)].to_vec())),
            Body::Mapped(mapping) => {
                let in_segment = |fault: Fault| fault.in_record(first.segment);
                let mut runs = Vec::new();
                decode(mapping, &self.device.geometry, &mut runs, 0).map_err(in_segment)?;
                let stored = (mapping.end_vcn - mapping.first_vcn) * self.device.geometry.cluster();
                let len = mapping.valid.min(mapping.len).min(stored).min(max_bytes as u64);
                let mut head = vec![0; len as usize];
                Cursor::default()
                    .read(self.device, &runs, 0, &mut head)
                    .map_err(|source| Error::Read { at: 0, source })?;
                Ok(Some(head))
            }
        }
    }

    /// Reads a file's base record and the extension records its list names.
    pub fn load(&self, number: u64) -> Result<Loaded> {
        let base = self.segment(number)?;
        let in_base = |fault: Fault| fault.in_record(number);
        if !base.header.in_use || base.header.is_extension() {
            return Err(in_base(Fault::new(0x16, "record is free or an extension")));
        }
        let mut list = None;
        for attribute in base.header.attributes(&base.bytes) {
            let attribute = attribute.map_err(in_base)?;
            if attribute.kind == kind::ATTRIBUTE_LIST {
                list = Some(list_bytes(self.device, number, &attribute)?);
            }
        }
        let mut loaded = Loaded { segments: vec![base], list };
        let lines = match &loaded.list {
            Some(list) => list_lines(list).map_err(in_base)?,
            None => return Ok(loaded),
        };
        let mut wanted: Vec<FileRef> = lines.iter().map(|line| line.segment).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let sequence = loaded.base().header.sequence;
        for file in wanted.into_iter().filter(|file| file.record != number) {
            let segment = self.segment(file.record)?;
            let header = &segment.header;
            let belongs = header.base == FileRef { record: number, sequence };
            if !header.in_use || !belongs || header.sequence != file.sequence {
                let fault = Fault::new(0x20, "record is not the extension its file says it is");
                return Err(fault.in_record(file.record));
            }
            loaded.segments.push(segment);
        }
        Ok(loaded)
    }

    fn segment(&self, number: u64) -> Result<Segment> {
        if let Some(bytes) = self.kept.get(&number) {
            // Kept records are fixed up already.
            let header = Header::parse(bytes, number).map_err(|fault| fault.in_record(number))?;
            return Ok(Segment { number, header, bytes: bytes.clone() });
        }
        let mut bytes = vec![0; self.device.geometry.record_bytes as usize];
        let header = self.mft.read(self.device, number, &mut bytes)?;
        Ok(Segment { number, header, bytes: bytes.into() })
    }
}

pub(crate) struct Segment {
    number: u64,
    header: Header,
    bytes: Box<[u8]>,
}

/// A file's records; the base one first.
pub(crate) struct Loaded {
    segments: Vec<Segment>,
    list: Option<Vec<u8>>,
}

impl Loaded {
    fn base(&self) -> &Segment {
        &self.segments[0]
    }

    /// The attributes that count, sorted. Where there is a list, only what it names does.
    pub fn pieces(&self) -> Result<Vec<Piece<'_>>> {
        let number = self.base().number;
        let mut lines = match &self.list {
            Some(list) => Some(list_lines(list).map_err(|fault| fault.in_record(number))?),
            None => None,
        };
        let key = |line: &ListLine<'_>| (line.segment.record, line.id);
        if let Some(lines) = &mut lines {
            lines.sort_by_key(key);
            if lines.windows(2).any(|pair| key(&pair[0]) == key(&pair[1])) {
                let fault = Fault::new(0, "attribute list names an attribute twice");
                return Err(fault.in_record(number));
            }
        }
        let mut pieces = Vec::new();
        let mut named = 0;
        for segment in &self.segments {
            for attribute in segment.header.attributes(&segment.bytes) {
                let attribute = attribute.map_err(|fault| fault.in_record(segment.number))?;
                if attribute.kind == kind::ATTRIBUTE_LIST {
                    continue;
                }
                if let Some(lines) = &lines {
                    let wanted = (segment.number, attribute.id);
                    let Ok(i) = lines.binary_search_by_key(&wanted, key) else { continue };
                    if !agrees(&lines[i], &attribute) {
                        let fault = Fault::new(attribute.at, "attribute differs from its list");
                        return Err(fault.in_record(segment.number));
                    }
                    named += 1;
                }
                pieces.push(Piece { segment: segment.number, attribute });
            }
        }
        if lines.is_some_and(|lines| {
            lines.iter().filter(|l| l.kind != kind::ATTRIBUTE_LIST).count() != named
        }) {
            return Err(Fault::new(0, "an attribute of the list is missing").in_record(number));
        }
        sort(&mut pieces);
        Ok(pieces)
    }
}

fn agrees(line: &ListLine<'_>, attribute: &Attribute<'_>) -> bool {
    line.kind == attribute.kind
        && line.name == attribute.name
        && line.first_vcn == attribute.first_vcn()
}

fn sort(pieces: &mut [Piece<'_>]) {
    pieces.sort_by(|a, b| {
        let key = |piece: &Piece<'_>| (piece.attribute.kind, piece.attribute.first_vcn());
        let (a_key, b_key) = (key(a), key(b));
        a_key
            .0
            .cmp(&b_key.0)
            .then_with(|| a.attribute.name.cmp(b.attribute.name))
            .then(a_key.1.cmp(&b_key.1))
    });
}

/// When a file's record last changed.
impl Stamp {
    pub(crate) fn none() -> Self {
        Self { file: FileRef::default(), lsn: 0, usn: 0, changed: FileTime(0) }
    }
}
