//! Forms that ntfs-3g does not write by itself, cut into a volume by hand; wimlib reads the result
//! too, so what we cut is sound.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gilt_ntfs_volumes::{Recipe, make};
use sha1::{Digest, Sha1};
use support::{facts_of, facts_of_wimlib, hex, open};

/// A file record of 1024 bytes, without its fixups.
struct Record {
    at: u64,
    bytes: Vec<u8>,
}

impl Record {
    fn read(image: &File, at: u64) -> Self {
        let mut bytes = vec![0; 1024];
        image.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(&bytes[..4], b"FILE");
        let array = Self::array(&bytes);
        for i in 0..2 {
            let tail = (i + 1) * 512 - 2;
            bytes.copy_within(array + 2 + i * 2..array + 4 + i * 2, tail);
        }
        Self { at, bytes }
    }

    fn array(bytes: &[u8]) -> usize {
        usize::from(u16::from_le_bytes([bytes[4], bytes[5]]))
    }

    fn write(mut self, image: &File) {
        let array = Self::array(&self.bytes);
        for i in 0..2 {
            let tail = (i + 1) * 512 - 2;
            self.bytes.copy_within(tail..tail + 2, array + 2 + i * 2);
            self.bytes.copy_within(array..array + 2, tail);
        }
        image.write_all_at(&self.bytes, self.at).unwrap();
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    /// Type, start and length of every attribute.
    fn attributes(&self) -> Vec<(u32, usize, usize)> {
        let mut all = Vec::new();
        let mut at = usize::from(u16::from_le_bytes([self.bytes[0x14], self.bytes[0x15]]));
        while self.u32(at) != u32::MAX {
            let len = self.u32(at + 4) as usize;
            all.push((self.u32(at), at, len));
            at += len;
        }
        all
    }

    fn attribute(&self, kind: u32) -> Vec<u8> {
        let (_, at, len) =
            *self.attributes().iter().find(|(found, ..)| *found == kind).expect("the attribute");
        self.bytes[at..at + len].to_vec()
    }

    /// Replaces all attributes.
    fn set_attributes(&mut self, attributes: &[Vec<u8>]) {
        let mut at = usize::from(u16::from_le_bytes([self.bytes[0x14], self.bytes[0x15]]));
        for attribute in attributes {
            self.bytes[at..at + attribute.len()].copy_from_slice(attribute);
            at += attribute.len();
        }
        self.bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        self.bytes[at + 4..].fill(0);
        let used = (at + 8) as u32;
        self.bytes[0x18..0x1C].copy_from_slice(&used.to_le_bytes());
    }
}

fn mft_at(image: &File) -> u64 {
    let mut lcn = [0; 8];
    image.read_exact_at(&mut lcn, 0x30).unwrap();
    u64::from_le_bytes(lcn) * 4096
}

/// A piece of a mapped attribute, with the sizes only in the first.
fn piece(of: &[u8], id: u16, first_vcn: u64, end_vcn: u64, lcn: u64) -> Vec<u8> {
    let mut out = of[..0x40].to_vec();
    out[0x0E..0x10].copy_from_slice(&id.to_le_bytes());
    out[0x10..0x18].copy_from_slice(&first_vcn.to_le_bytes());
    out[0x18..0x20].copy_from_slice(&(end_vcn - 1).to_le_bytes());
    out[0x20..0x22].copy_from_slice(&0x40u16.to_le_bytes());
    if first_vcn > 0 {
        out[0x28..0x40].fill(0);
    }
    out.push(0x44);
    out.extend_from_slice(&((end_vcn - first_vcn) as u32).to_le_bytes());
    out.extend_from_slice(&(lcn as u32).to_le_bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(8), 0);
    let len = out.len() as u32;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out
}

/// Runs of a run list, as (lcn, clusters).
fn runs(attribute: &[u8]) -> Vec<(u64, u64)> {
    let mut at = usize::from(u16::from_le_bytes([attribute[0x20], attribute[0x21]]));
    let mut lcn = 0i64;
    let mut all = Vec::new();
    while attribute[at] != 0 {
        let (len_bytes, delta_bytes) =
            (usize::from(attribute[at] & 15), usize::from(attribute[at] >> 4));
        let number = |bytes: &[u8]| {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xFF } else { 0u8 }; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            i64::from_le_bytes(wide)
        };
        let len = number(&attribute[at + 1..at + 1 + len_bytes]);
        lcn += number(&attribute[at + 1 + len_bytes..at + 1 + len_bytes + delta_bytes]);
        all.push((lcn as u64, len as u64));
        at += 1 + len_bytes + delta_bytes;
    }
    all
}

fn list_line(kind: u32, first_vcn: u64, record: u64, sequence: u16, id: u16) -> Vec<u8> {
    let mut line = kind.to_le_bytes().to_vec();
    line.extend_from_slice(&0x20u16.to_le_bytes());
    line.extend_from_slice(&[0, 0x1A]);
    line.extend_from_slice(&first_vcn.to_le_bytes());
    line.extend_from_slice(&(record | u64::from(sequence) << 48).to_le_bytes());
    line.extend_from_slice(&id.to_le_bytes());
    line.resize(0x20, 0);
    line
}

fn resident(kind: u32, id: u16, value: &[u8]) -> Vec<u8> {
    let mut out = kind.to_le_bytes().to_vec();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[0, 0, 0x18, 0, 0, 0]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(&0x18u16.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(8), 0);
    let len = out.len() as u32;
    out[4..8].copy_from_slice(&len.to_le_bytes());
    out
}

fn make_small(dir: &Path) -> std::path::PathBuf {
    let image = dir.join("volume.img");
    make(&image, &Recipe { files: 200, bytes: 2 << 20, seed: 8, ..Recipe::small() }).unwrap();
    image
}

/// Clusters of `$MFT` that stay described by its own record.
const FIRST_CLUSTERS: u64 = 16;

#[test]
fn an_mft_whose_own_record_has_an_attribute_list_is_read_whole() {
    // Record 15 is in use and empty in every fresh volume; 40 is free, among those of users.
    for extension in [15, 40] {
        split_mft(extension);
    }
}

fn split_mft(extension_number: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = make_small(dir.path());
    let before = facts_of(&open(&path).unwrap());

    // The other record becomes the extension that holds the rest of $MFT.
    let image = File::options().read(true).write(true).open(&path).unwrap();
    let mft = mft_at(&image);
    let mut first = Record::read(&image, mft);
    let data = first.attribute(0x80);
    let all = runs(&data);
    assert_eq!(all.len(), 1, "a fresh $MFT lies in one piece");
    let (lcn, clusters) = all[0];
    let mut extension = Record::read(&image, mft + extension_number * 1024);
    let sequence = u16::from_le_bytes([extension.bytes[0x10], extension.bytes[0x11]]);
    let own = u16::from_le_bytes([first.bytes[0x10], first.bytes[0x11]]);
    let ids: Vec<(u32, u16)> = first
        .attributes()
        .iter()
        .map(|&(kind, at, _)| {
            (kind, u16::from_le_bytes([first.bytes[at + 14], first.bytes[at + 15]]))
        })
        .collect();
    let data_id = ids.iter().find(|(kind, _)| *kind == 0x80).unwrap().1;
    let mut list = Vec::new();
    for &(kind, id) in &ids {
        list.extend(list_line(kind, 0, 0, own, id));
        if kind == 0x80 {
            list.extend(list_line(0x80, FIRST_CLUSTERS, extension_number, sequence, 0));
        }
    }
    let mut attributes = Vec::new();
    for (kind, at, len) in first.attributes() {
        if kind == 0x30 {
            attributes.push(resident(0x20, 90, &list));
        }
        attributes.push(match kind {
            0x80 => piece(&data, data_id, 0, FIRST_CLUSTERS, lcn),
            _ => first.bytes[at..at + len].to_vec(),
        });
    }
    first.set_attributes(&attributes);
    first.bytes[0x28..0x2A].copy_from_slice(&100u16.to_le_bytes());
    let rest = piece(&data, 0, FIRST_CLUSTERS, clusters, lcn + FIRST_CLUSTERS);
    extension.set_attributes(&[rest]);
    extension.bytes[0x16..0x18].copy_from_slice(&1u16.to_le_bytes());
    extension.bytes[0x20..0x28].copy_from_slice(&(u64::from(own) << 48).to_le_bytes());
    // ntfs-3g compares the first records with their mirror.
    let mut lcn = [0; 8];
    image.read_exact_at(&mut lcn, 0x38).unwrap();
    let mirror = u64::from_le_bytes(lcn) * 4096;
    Record { at: mirror, bytes: first.bytes.clone() }.write(&image);
    first.write(&image);
    extension.write(&image);

    let after = facts_of(&open(&path).unwrap());
    assert_eq!(before, after);
    let theirs = facts_of_wimlib(&path, dir.path());
    assert_eq!(after.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
}

#[test]
fn bytes_that_were_never_written_read_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let path = make_small(dir.path());
    let (name, record, len) = {
        let volume = open(&path).unwrap();
        let facts = facts_of(&volume);
        let (name, facts) = facts
            .iter()
            .find(|(name, facts)| {
                name.starts_with("/Program Files/")
                    && facts.streams.get("").is_some_and(|s| s.1 > 20_000)
            })
            .expect("a file with clusters");
        let node = volume.lookup(name).unwrap();
        (name.clone(), volume.record_extents(node)[0].offset, facts.streams[""].1)
    };
    let image = File::options().read(true).write(true).open(&path).unwrap();
    let valid = 10_001u64;
    let mut expected = support::contents(&open(&path).unwrap(), &name);
    expected[valid as usize..].fill(0);
    let mut file = Record::read(&image, record);
    let (_, at, _) = *file.attributes().iter().find(|(kind, ..)| *kind == 0x80).unwrap();
    file.bytes[at + 0x38..at + 0x40].copy_from_slice(&valid.to_le_bytes());
    file.write(&image);

    let sha1 = hex(&Sha1::digest(&expected));
    assert_eq!(facts_of(&open(&path).unwrap())[&name].streams[""], (sha1.clone(), len));
    assert_eq!(facts_of_wimlib(&path, dir.path())[&name].streams[""], (sha1, len));
}

#[test]
fn a_record_in_place_of_another_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = make_small(dir.path());
    let image = File::options().read(true).write(true).open(&path).unwrap();
    let mft = mft_at(&image);
    let record = Record::read(&image, mft + 70 * 1024);
    Record { at: mft + 71 * 1024, ..record }.write(&image);
    let error = open(&path).unwrap_err().to_string();
    assert!(
        error.contains("file record 71") && error.contains("another record's number"),
        "{error}"
    );
}
