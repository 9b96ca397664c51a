//! Finds the partition to capture by what is on it.

use crate::error::{CaptureError, Result};
use crate::lookup::TreeView;
use crate::volume::{FileSystem, VolumeReader, open_volume};
use gilt_disk::{BlockRead, Disk, PartitionTable, partitions, type_guid};
use gilt_wim::tree::Tree;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartitionChoice {
    /// The largest one with an operating system.
    #[default]
    Auto,
    /// As counted by the partition table, from 1. 0 is the whole disk without a table.
    Number(u32),
}

/// What is on a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeKind {
    Readable(FileSystem),
    /// What it is, and where there is one, the way out.
    Other(&'static str),
}

impl std::fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Readable(system) => f.write_str(system.name()),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// One partition, for people.
#[derive(Clone, Debug)]
pub struct PartitionReport {
    /// 0 for a disk without a table.
    pub number: u32,
    pub start: u64,
    pub len_bytes: u64,
    pub description: String,
    pub kind: VolumeKind,
    pub label: Option<String>,
}

/// The volume that was chosen, with its metadata read.
pub struct FoundVolume {
    pub number: u32,
    pub start: u64,
    pub len_bytes: u64,
    pub sector_bytes: u32,
    pub reader: Box<dyn VolumeReader>,
    pub tree: Tree,
}

impl FoundVolume {
    pub fn view(&self) -> TreeView<'_> {
        TreeView {
            tree: &self.tree,
            contents: self.reader.contents(),
            ignores_case: self.reader.file_system().ignores_case(),
        }
    }
}

struct Candidate {
    number: u32,
    start: u64,
    len_bytes: u64,
    description: String,
    bytes: Arc<dyn BlockRead>,
    kind: VolumeKind,
}

/// What is on each partition of `disk`, and the table when there is one.
pub fn survey(disk: &Disk) -> Result<(Option<PartitionTable>, Vec<PartitionReport>)> {
    let (table, candidates) = candidates(disk)?;
    let reports = candidates
        .into_iter()
        .map(|candidate| PartitionReport {
            label: match candidate.kind {
                VolumeKind::Readable(_) => {
                    open_volume(candidate.bytes).ok().flatten().map(|volume| volume.label())
                }
                VolumeKind::Other(_) => None,
            }
            .filter(|label| !label.is_empty()),
            number: candidate.number,
            start: candidate.start,
            len_bytes: candidate.len_bytes,
            description: candidate.description,
            kind: candidate.kind,
        })
        .collect();
    Ok((table, reports))
}

fn candidates(disk: &Disk) -> Result<(Option<PartitionTable>, Vec<Candidate>)> {
    let reader = disk.reader();
    let table = match partitions(&*reader) {
        Ok(table) => table,
        Err(error @ gilt_disk::DiskError::NoPartitionTable { .. }) => {
            let kind = probe(&*reader)?;
            // A bare file system is a disk of its own; anything else has nothing to offer.
            if kind == VolumeKind::Other(UNKNOWN) {
                return Err(error.into());
            }
            let whole = Candidate {
                number: 0,
                start: 0,
                len_bytes: reader.len_bytes(),
                description: "whole disk".into(),
                bytes: reader,
                kind,
            };
            return Ok((None, vec![whole]));
        }
        Err(other) => return Err(other.into()),
    };
    let mut list = Vec::new();
    for partition in &table.partitions {
        let bytes: Arc<dyn BlockRead> = Arc::new(partition.open(&reader)?);
        let kind = match partition.type_guid() {
            Some(type_guid::LDM_DATA | type_guid::LDM_METADATA) => {
                VolumeKind::Other("part of a Windows dynamic disk, which is not read")
            }
            Some(type_guid::STORAGE_SPACES) => {
                VolumeKind::Other("part of Storage Spaces, which are not read")
            }
            _ => probe(&*bytes)?,
        };
        list.push(Candidate {
            number: partition.number,
            start: partition.start,
            len_bytes: partition.len_bytes,
            description: partition.describe(),
            bytes,
            kind,
        });
    }
    Ok((Some(table), list))
}

const UNKNOWN: &str = "of no known kind";

/// What begins with which bytes.
fn probe(disk: &dyn BlockRead) -> Result<VolumeKind> {
    let len = disk.len_bytes().min(128 << 10);
    let mut head = vec![0; len as usize];
    let read = disk.read_at(0, &mut head);
    read.map_err(CaptureError::io("disk"))?;
    let at = |offset: usize, magic: &[u8]| {
        head.get(offset..offset + magic.len()).is_some_and(|found| found == magic)
    };
    let other = VolumeKind::Other;
    Ok(if at(0x438, &[0x53, 0xEF]) {
        VolumeKind::Readable(FileSystem::Ext4)
    } else if at(3, b"-FVE-FS-") {
        other("encrypted by BitLocker; decrypt it in the machine first (manage-bde -off)")
    } else if at(3, b"ReFS") {
        other("ReFS, which is not read")
    } else if at(3, b"NTFS    ") {
        VolumeKind::Readable(FileSystem::Ntfs)
    } else if at(3, b"EXFAT   ") {
        other("exFAT, which is not read")
    } else if at(82, b"FAT32") || at(54, b"FAT1") {
        VolumeKind::Readable(FileSystem::Fat)
    } else if at(0, b"LUKS\xba\xbe") {
        other("encrypted by LUKS, which is not read")
    } else if at(512, b"LABELONE") || at(0x218, b"LVM2 001") {
        other("a physical volume of LVM, which is not read")
    } else if at(0, b"XFSB") {
        other("XFS, which is not read")
    } else if at(0x1_0040, b"_BHRfS_M") {
        other("btrfs, which is not read")
    } else if at(4086, b"SWAPSPACE2") {
        other("Linux swap space")
    } else {
        other(UNKNOWN)
    })
}

fn describe(candidates: &[Candidate]) -> String {
    let one = |c: &Candidate| format!("{} ({}, {} MiB)", c.number, c.kind, c.len_bytes >> 20);
    let all: Vec<_> = candidates.iter().map(one).collect();
    if all.is_empty() { "no partitions".into() } else { all.join(", ") }
}

/// Opens the chosen partition and reads its metadata.
pub fn find_volume(disk: &Disk, choice: PartitionChoice) -> Result<FoundVolume> {
    let (table, mut list) = candidates(disk)?;
    let sector_bytes = table.map_or(disk.reader().sector_bytes(), |table| table.sector_bytes);
    match choice {
        PartitionChoice::Number(number) => {
            let told = describe(&list);
            let found = list.into_iter().find(|candidate| candidate.number == number);
            let candidate = found.ok_or(CaptureError::NoPartition { number, partitions: told })?;
            let kind = candidate.kind.clone();
            open(candidate, sector_bytes)?
                .ok_or_else(|| CaptureError::NotReadable { number, what: kind.to_string() })
        }
        PartitionChoice::Auto => {
            let told = describe(&list);
            list.sort_by_key(|candidate| std::cmp::Reverse(candidate.len_bytes));
            let mut failed = None;
            for candidate in list {
                if !matches!(candidate.kind, VolumeKind::Readable(_)) {
                    continue;
                }
                match open(candidate, sector_bytes) {
                    Ok(Some(volume)) if has_system(&volume) => return Ok(volume),
                    Ok(_) => {}
                    // The largest volume that cannot be read is the likeliest cause.
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
            Err(failed.unwrap_or(CaptureError::NoSystem { partitions: told }))
        }
    }
}

fn open(candidate: Candidate, sector_bytes: u32) -> Result<Option<FoundVolume>> {
    let Some(mut reader) = open_volume(candidate.bytes)? else { return Ok(None) };
    let tree = reader.tree()?;
    Ok(Some(FoundVolume {
        number: candidate.number,
        start: candidate.start,
        len_bytes: candidate.len_bytes,
        sector_bytes,
        reader,
        tree,
    }))
}

fn has_system(volume: &FoundVolume) -> bool {
    let view = volume.view();
    match volume.reader.file_system() {
        FileSystem::Ntfs => view.is_directory("/Windows/System32"),
        FileSystem::Fat => false,
        FileSystem::Ext4 => {
            view.find_link("/etc/os-release").is_some()
                || view.find("/usr/lib/os-release").is_some()
        }
    }
}
