//! A reader of UDF 1.02 as Microsoft's media have it: one partition, plain files, sectors of 2048
//! bytes (ECMA-167, OSTA UDF 1.02).
//!
//! ```text
//! sector 256  anchor ─▶ volume descriptors: partition (start), logical volume (file set)
//! file set ─▶ root's file entry ─▶ directory: identifiers ─▶ file entries ─▶ extents
//! ```

use super::SECTOR;
use std::io::{self, Read, Seek, SeekFrom};

/// Volume descriptors are a handful.
const MAX_DESCRIPTORS: u64 = 64;
/// A folder of an install medium has some thousand entries.
const MAX_FOLDER_BYTES: u64 = 16 << 20;
const MAX_EXTENTS: usize = 65_536;

#[derive(Debug, thiserror::Error)]
pub enum UdfError {
    #[error("cannot read the medium: {0}")]
    Io(#[from] io::Error),
    /// No UDF at all: plain ISO 9660, or something else.
    #[error("the medium holds no UDF file system")]
    NotUdf,
    #[error("the medium is damaged at sector {sector}: {what}")]
    Corrupt { sector: u64, what: &'static str },
}

/// A file's bytes on the disc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdfFile {
    pub len_bytes: u64,
    pub is_folder: bool,
    /// First byte on the disc and length; in order.
    extents: Vec<(u64, u64)>,
    /// Small files may lie in their entry.
    inside: Option<Vec<u8>>,
}

impl UdfFile {
    /// Where the file lies, if it lies in one piece: the first byte on the disc.
    pub fn start(&self) -> Option<u64> {
        let (first, _) = *self.extents.first()?;
        let mut next = first;
        for (start, len) in &self.extents {
            if *start != next {
                return None;
            }
            next = start.checked_add(*len)?;
        }
        (next - first >= self.len_bytes).then_some(first)
    }
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_folder: bool,
    /// Sector of its file entry, within the partition.
    block: u32,
}

/// An opened medium.
#[derive(Debug)]
pub struct Udf<R> {
    disc: R,
    len_bytes: u64,
    /// First sector of the partition.
    partition: u64,
    root: u32,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The kind of a descriptor, if its checksum holds.
fn tag(bytes: &[u8]) -> Option<u16> {
    let head = bytes.get(..16)?;
    let sum = head.iter().enumerate().filter(|(at, _)| *at != 4);
    let sum = sum.fold(0u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    (sum == head[4]).then(|| u16::from_le_bytes([head[0], head[1]]))
}

impl<R: Read + Seek> Udf<R> {
    pub fn open(mut disc: R) -> Result<Self, UdfError> {
        let len_bytes = disc.seek(SeekFrom::End(0))?;
        let mut udf = Self { disc, len_bytes, partition: 0, root: 0 };
        let anchor = match udf.sector(256) {
            Ok(anchor) if tag(&anchor) == Some(2) => anchor,
            Err(UdfError::Io(error)) => return Err(error.into()),
            _ => return Err(UdfError::NotUdf),
        };
        let bad = |sector, what| UdfError::Corrupt { sector, what };
        let extent = (u32_at(&anchor, 16), u32_at(&anchor, 20));
        let (Some(len), Some(start)) = extent else { return Err(bad(256, "the anchor is cut")) };
        let (mut partition, mut file_set) = (None, None);
        for at in 0..u64::from(len).div_ceil(SECTOR).min(MAX_DESCRIPTORS) {
            let sector = u64::from(start) + at;
            let bytes = udf.sector(sector)?;
            match tag(&bytes) {
                Some(5) => partition = u32_at(&bytes, 188),
                Some(6) => {
                    if u32_at(&bytes, 212) != Some(2048) {
                        return Err(bad(sector, "blocks that are not 2048 bytes long"));
                    }
                    file_set = u32_at(&bytes, 252);
                }
                Some(8) => break,
                _ => {}
            }
        }
        udf.partition = u64::from(partition.ok_or_else(|| bad(256, "no partition"))?);
        let file_set = file_set.ok_or_else(|| bad(256, "no logical volume"))?;
        let bytes = udf.sector(udf.partition + u64::from(file_set))?;
        if tag(&bytes) != Some(256) {
            return Err(bad(udf.partition + u64::from(file_set), "no file set"));
        }
        udf.root = u32_at(&bytes, 404).unwrap_or(0);
        Ok(udf)
    }

    /// The medium itself again.
    pub fn into_disc(self) -> R {
        self.disc
    }

    fn sector(&mut self, sector: u64) -> Result<Vec<u8>, UdfError> {
        let end = sector.checked_add(1).and_then(|end| end.checked_mul(SECTOR));
        if end.is_none_or(|end| end > self.len_bytes) {
            return Err(UdfError::Corrupt { sector, what: "it lies behind the end of the medium" });
        }
        self.disc.seek(SeekFrom::Start(sector * SECTOR))?;
        let mut bytes = vec![0; 2048];
        self.disc.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn entry(&mut self, block: u32) -> Result<UdfFile, UdfError> {
        let sector = self.partition + u64::from(block);
        let bytes = self.sector(sector)?;
        let bad = |what| UdfError::Corrupt { sector, what };
        let base = match tag(&bytes) {
            Some(261) => 176,
            Some(266) => 216,
            _ => return Err(bad("no file entry")),
        };
        let cut = || bad("a file entry that is cut");
        let len_bytes = u64_at(&bytes, 56).ok_or_else(cut)?;
        let attributes = u32_at(&bytes, base - 8).ok_or_else(cut)? as usize;
        let descriptors = u32_at(&bytes, base - 4).ok_or_else(cut)? as usize;
        let start = base.checked_add(attributes).ok_or_else(cut)?;
        let end = start.checked_add(descriptors).ok_or_else(cut)?;
        let area = bytes.get(start..end).ok_or_else(cut)?;
        let is_folder = bytes[27] == 4;
        let mut file = UdfFile { len_bytes, is_folder, extents: Vec::new(), inside: None };
        let step = match bytes[34] & 7 {
            0 => 8,
            1 => 16,
            3 => {
                file.inside = Some(area.to_vec());
                if len_bytes > area.len() as u64 {
                    return Err(bad("a file longer than its entry"));
                }
                return Ok(file);
            }
            _ => return Err(bad("an unknown kind of allocation")),
        };
        let mut left = len_bytes;
        for piece in area.chunks_exact(step) {
            let raw = u32_at(piece, 0).ok_or_else(cut)?;
            let (kind, len) = (raw >> 30, u64::from(raw & 0x3FFF_FFFF));
            if len == 0 || left == 0 {
                break;
            }
            if kind != 0 {
                return Err(bad("an extent that is not written"));
            }
            let block = u64::from(u32_at(piece, 4).ok_or_else(cut)?);
            let from = (self.partition + block) * SECTOR;
            let len = len.min(left);
            if from.checked_add(len).is_none_or(|end| end > self.len_bytes) {
                return Err(bad("an extent behind the end of the medium"));
            }
            if file.extents.len() >= MAX_EXTENTS {
                return Err(bad("too many extents"));
            }
            file.extents.push((from, len));
            left -= len;
        }
        if left > 0 {
            return Err(bad("extents that do not reach the end of the file"));
        }
        Ok(file)
    }

    /// All of a small file.
    pub fn read(&mut self, file: &UdfFile, max_bytes: u64) -> Result<Vec<u8>, UdfError> {
        if file.len_bytes > max_bytes {
            return Err(UdfError::Corrupt { sector: 0, what: "a file larger than it may be" });
        }
        let mut bytes = Vec::new();
        self.reader(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A file's bytes, to be read and sought in.
    pub fn reader<'a>(&'a mut self, file: &UdfFile) -> FileReader<'a, R> {
        FileReader { disc: &mut self.disc, file: file.clone(), at: 0 }
    }

    fn folder(&mut self, file: &UdfFile) -> Result<Vec<Entry>, UdfError> {
        let bytes = self.read(file, MAX_FOLDER_BYTES)?;
        let mut entries = Vec::new();
        let mut rest = bytes.as_slice();
        let bad = UdfError::Corrupt { sector: 0, what: "a folder with a damaged entry" };
        while rest.len() >= 38 {
            if tag(rest) != Some(257) {
                return Err(bad);
            }
            let flags = rest[18];
            let name_len = usize::from(rest[19]);
            let use_len = usize::from(u16_at(rest, 36).unwrap_or(0));
            let whole = (38 + use_len + name_len).div_ceil(4) * 4;
            let name = rest.get(38 + use_len..38 + use_len + name_len);
            let (Some(name), Some(block)) = (name, u32_at(rest, 24)) else { return Err(bad) };
            // Neither deleted nor the folder above.
            if flags & 0b1100 == 0 {
                entries.push(Entry { name: name_of(name), is_folder: flags & 2 != 0, block });
            }
            rest = rest.get(whole..).unwrap_or(&[]);
        }
        Ok(entries)
    }

    /// What is in a folder; `None` where there is none. `/` parts names, case is ignored.
    pub fn list(&mut self, path: &str) -> Result<Option<Vec<Entry>>, UdfError> {
        match self.find(path)? {
            Some(file) if file.is_folder => self.folder(&file).map(Some),
            _ => Ok(None),
        }
    }

    /// The entry of one name of `list`.
    pub fn file(&mut self, entry: &Entry) -> Result<UdfFile, UdfError> {
        self.entry(entry.block)
    }

    /// A file or folder by its path.
    pub fn find(&mut self, path: &str) -> Result<Option<UdfFile>, UdfError> {
        let mut file = self.entry(self.root)?;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if !file.is_folder {
                return Ok(None);
            }
            let entries = self.folder(&file)?;
            let found = entries.into_iter().find(|entry| entry.name.eq_ignore_ascii_case(part));
            let Some(found) = found else { return Ok(None) };
            file = self.entry(found.block)?;
        }
        Ok(Some(file))
    }
}

/// OSTA compressed Unicode: one or two bytes a character.
fn name_of(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((8, rest)) => rest.iter().map(|byte| char::from(*byte)).collect(),
        Some((16, rest)) => {
            let units = rest.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect()
        }
        _ => String::new(),
    }
}

/// Reads one file.
#[derive(Debug)]
pub struct FileReader<'a, R> {
    disc: &'a mut R,
    file: UdfFile,
    at: u64,
}

impl<R: Read + Seek> Read for FileReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len_bytes.saturating_sub(self.at);
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        if let Some(inside) = &self.file.inside {
            let at = usize::try_from(self.at).unwrap_or(usize::MAX);
            let piece = inside.get(at..).unwrap_or(&[]);
            let count = want.min(piece.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            self.at += count as u64;
            return Ok(count);
        }
        let mut skipped = 0;
        for (start, len) in &self.file.extents {
            let within = self.at - skipped;
            if within < *len {
                let count = want.min(usize::try_from(len - within).unwrap_or(usize::MAX));
                self.disc.seek(SeekFrom::Start(start + within))?;
                let count = self.disc.read(&mut buffer[..count])?;
                self.at += count as u64;
                return Ok(count);
            }
            skipped += len;
        }
        Ok(0)
    }
}

impl<R: Read + Seek> Seek for FileReader<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.file.len_bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
