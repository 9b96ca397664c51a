//! Files whose contents are not in the volume as plain data, and what to do about them.

use gilt_wim::tree::{NodeId, reparse_tag};

/// Why the bytes on disk are not the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialKind {
    /// EFS: the bytes are ciphertext, the key is in a user's certificate.
    Encrypted,
    /// Data deduplication: the bytes are in the chunk store under System Volume Information.
    Deduplicated,
    /// OneDrive and other sync providers: the bytes may be in the cloud.
    Cloud,
    /// Windows container layers and projected file systems: the bytes are in another layer.
    Layered,
    /// WIMBoot: the bytes are in a WIM file.
    WimBacked,
    /// Hierarchical storage, single-instance store, storage sync: the bytes were moved away.
    Migrated,
}

impl SpecialKind {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Encrypted => "is encrypted by EFS",
            Self::Deduplicated => "is deduplicated by the file server role",
            Self::Cloud => "is a placeholder of a cloud provider",
            Self::Layered => "belongs to a container layer or a projected file system",
            Self::WimBacked => "is backed by a WIM file (WIMBoot)",
            Self::Migrated => "was moved to other storage",
        }
    }

    pub(crate) fn way_out(self) -> &'static str {
        match self {
            Self::Encrypted => {
                "decrypt with `cipher /d /s:FOLDER` in the machine, exclude the file, or have \
                 encrypted files left out"
            }
            Self::Deduplicated => {
                "run `Start-DedupJob -Type Unoptimization` in the machine, exclude the file, or \
                 have such files kept as bare reparse points"
            }
            Self::Cloud => {
                "sign the account out and remove its folder, exclude the file, or have such files \
                 kept as bare reparse points"
            }
            Self::Layered | Self::WimBacked | Self::Migrated => {
                "bring the contents back to this volume, exclude the file, or have such files kept \
                 as bare reparse points"
            }
        }
    }
}

/// A file found special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    pub node: NodeId,
    pub kind: SpecialKind,
}

/// What a capture does with special files. Nothing here can make their contents appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialPolicy {
    /// EFS files cannot be kept: their keys are not in their contents.
    pub encrypted: Encrypted,
    pub elsewhere: Elsewhere,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encrypted {
    #[default]
    Refuse,
    LeaveOut,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elsewhere {
    #[default]
    Refuse,
    /// The reparse point and whatever bytes are on the volume, as they are.
    KeepRaw,
    LeaveOut,
}

/// What the tag of a reparse point tells of the file's contents ([MS-FSCC] 2.1.2.1). Tags that
/// are complete in themselves (links, sockets, app execution aliases) and unknown ones give none.
pub(crate) fn classify(tag: u32) -> Option<SpecialKind> {
    /// `IO_REPARSE_TAG_CLOUD` to `_CLOUD_F` differ in the third hex digit.
    const CLOUD_MASK: u32 = 0xFFFF_0FFF;
    match tag {
        reparse_tag::DEDUP => Some(SpecialKind::Deduplicated),
        0x8000_0021 => Some(SpecialKind::Cloud),
        _ if tag & CLOUD_MASK == 0x9000_001A => Some(SpecialKind::Cloud),
        // WCI, WCI_1, WCI_LINK, WCI_LINK_1, WCI_TOMBSTONE, PROJFS, PROJFS_TOMBSTONE, UNHANDLED
        0x8000_0018 | 0x9000_1018 | 0xA000_0027 | 0xA000_1027 | 0xA000_001F | 0x9000_001C
        | 0xA000_0022 | 0x8000_0020 => Some(SpecialKind::Layered),
        0x8000_0008 => Some(SpecialKind::WimBacked),
        // HSM, HSM2, SIS, DFM, STORAGE_SYNC, STORAGE_SYNC_FOLDER
        0xC000_0004 | 0x8000_0006 | 0x8000_0007 | 0x8000_0016 | 0x8000_001E | 0x9000_0027 => {
            Some(SpecialKind::Migrated)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sixteen_cloud_tags_are_known_and_links_are_not_special() {
        for digit in 0..16 {
            assert_eq!(classify(0x9000_001A | digit << 12), Some(SpecialKind::Cloud));
        }
        for tag in [reparse_tag::SYMLINK, reparse_tag::MOUNT_POINT, 0x8000_001B, 0xA000_001D] {
            assert_eq!(classify(tag), None);
        }
    }
}
