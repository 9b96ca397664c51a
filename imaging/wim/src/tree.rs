//! The one model of a file tree. A directory, a WIM image or a file system in a disk image fills
//! it; the WIM writer, the extractor and `diff` consume it.
//!
//! ```text
//! Tree ── nodes[0] is the root directory
//!   Node ── what NTFS calls a file record and Unix an inode: attributes, times, streams
//!     Entry ── a name in a directory, pointing at a node; two entries with one node = hard link
//!     Stream ── bytes of a node: unnamed (the contents), or named (alternate data stream)
//! ```
//! A tree holds no file contents. Each [`Stream`] carries a [`ContentId`] that only the
//! [`ContentSource`] the tree came with can open.

use std::io::{self, Read};

/// Index of a node in [`Tree::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// Index of a security descriptor in [`Tree::security`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecurityId(pub u32);

/// Names some bytes inside one [`ContentSource`]; means nothing to any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentId(pub u64);

/// SHA-1 of a stream: the identity of contents in a WIM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha1(pub [u8; 20]);

impl Sha1 {
    /// What a WIM writes for "no contents"; not the SHA-1 of anything known.
    pub const ZERO: Self = Self([0; 20]);

    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl std::fmt::Display for Sha1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// 100 ns ticks since 1601-01-01 UTC (Windows FILETIME).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileTime(pub u64);

impl FileTime {
    /// Ticks between 1601-01-01 and 1970-01-01.
    const UNIX_EPOCH: i128 = 116_444_736_000_000_000;

    /// From seconds and nanoseconds since 1970; clamped to what a FILETIME can hold.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        let ticks = i128::from(seconds) * 10_000_000 + i128::from(nanos / 100) + Self::UNIX_EPOCH;
        Self(u64::try_from(ticks.clamp(0, i128::from(u64::MAX))).unwrap_or(u64::MAX))
    }

    /// To seconds and nanoseconds (0..1e9) since 1970.
    pub fn to_unix(self) -> (i64, u32) {
        let ticks = i128::from(self.0) - Self::UNIX_EPOCH;
        let seconds = ticks.div_euclid(10_000_000);
        let nanos = ticks.rem_euclid(10_000_000) * 100;
        (i64::try_from(seconds).unwrap_or(i64::MAX), u32::try_from(nanos).unwrap_or(0))
    }
}

/// A file name as Windows keeps it: UTF-16 code units, unpaired surrogates allowed.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub Box<[u16]>);

impl Name {
    pub fn from_utf16(units: &[u16]) -> Self {
        Self(units.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For people: unpaired surrogates become U+FFFD.
    pub fn to_display(&self) -> String {
        String::from_utf16_lossy(&self.0)
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.encode_utf16().collect())
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_display())
    }
}

/// `FILE_ATTRIBUTE_*` bits ([MS-FSCC] 2.6).
pub mod attribute {
    pub const READONLY: u32 = 0x1;
    pub const HIDDEN: u32 = 0x2;
    pub const SYSTEM: u32 = 0x4;
    pub const DIRECTORY: u32 = 0x10;
    pub const ARCHIVE: u32 = 0x20;
    pub const NORMAL: u32 = 0x80;
    pub const SPARSE_FILE: u32 = 0x200;
    pub const REPARSE_POINT: u32 = 0x400;
    pub const COMPRESSED: u32 = 0x800;
    pub const NOT_CONTENT_INDEXED: u32 = 0x2000;
    pub const ENCRYPTED: u32 = 0x4000;
}

/// `IO_REPARSE_TAG_*` values ([MS-FSCC] 2.1.2.1).
pub mod reparse_tag {
    pub const SYMLINK: u32 = 0xA000_000C;
    pub const MOUNT_POINT: u32 = 0xA000_0003;
    pub const WOF: u32 = 0x8000_0017;
    pub const DEDUP: u32 = 0x8000_0013;
}

#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// `nodes[0]` is the root, a directory. Every other node is reachable from it.
    pub nodes: Vec<Node>,
    /// Distinct self-relative security descriptors.
    pub security: Vec<Box<[u8]>>,
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    pub created: FileTime,
    pub accessed: FileTime,
    pub modified: FileTime,
    pub security: Option<SecurityId>,
    /// Unnamed stream (at most one, none for directories) and named ones. Not the reparse data.
    pub streams: Vec<Stream>,
    /// Children, for directories only. Any order; names are distinct code unit for code unit.
    pub entries: Vec<Entry>,
    /// What few files have.
    pub extra: Option<Box<Extra>>,
}

/// Rare attributes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    pub reparse: Option<Reparse>,
    /// NTFS object id: 16 bytes, or 64 with the birth ids.
    pub object_id: Option<Box<[u8]>>,
    /// Owner, mode and device number of a Unix file.
    pub unix: Option<UnixData>,
    /// Linux extended attributes (`user.x`, `security.capability`, `system.posix_acl_access`).
    pub xattrs: Vec<Xattr>,
    /// NTFS extended attributes as one `FILE_FULL_EA_INFORMATION` list.
    pub eas: Option<Box<[u8]>>,
    /// Tagged items this version does not know, kept as they were.
    pub unknown: Vec<TaggedItem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reparse {
    pub tag: u32,
    /// The second half of the dentry's reparse field: 0, or 1 for "not fixed" (`rp_flags`).
    pub flags: u16,
    /// What follows the tag and length of a `REPARSE_DATA_BUFFER`.
    pub data: Box<[u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixData {
    pub uid: u32,
    pub gid: u32,
    /// `st_mode`: type and permission bits.
    pub mode: u32,
    /// Linux `makedev` form; 0 but for device nodes.
    pub rdev: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedItem {
    pub tag: u32,
    pub data: Box<[u8]>,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Name,
    /// The DOS 8.3 name, or empty.
    pub short_name: Name,
    pub node: NodeId,
}

#[derive(Clone, Debug)]
pub struct Stream {
    /// `None` for the contents proper.
    pub name: Option<Name>,
    pub len_bytes: u64,
    pub content: ContentId,
}

/// The sum of sizes as a file claims them. What is more than `u64::MAX` is a lie and stays there.
pub fn total_bytes(sizes: impl IntoIterator<Item = u64>) -> u64 {
    sizes.into_iter().fold(0, u64::saturating_add)
}

impl Node {
    /// Bytes of all its streams, as the tree claims them.
    pub fn streams_bytes(&self) -> u64 {
        total_bytes(self.streams.iter().map(|stream| stream.len_bytes))
    }

    pub fn is_directory(&self) -> bool {
        self.attributes & attribute::DIRECTORY != 0
    }

    pub fn reparse(&self) -> Option<&Reparse> {
        self.extra.as_ref()?.reparse.as_ref()
    }

    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_with(Box::default)
    }
}

impl Tree {
    pub const ROOT: NodeId = NodeId(0);

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

/// Opens the bytes behind the streams of one tree. Reads from many threads at once.
pub trait ContentSource: Send + Sync {
    /// The bytes of `id` from its start. A source that delivers fewer or more bytes than the
    /// stream's `len_bytes` has changed underneath; the reader of it reports that as an error.
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>>;

    /// Where the bytes lie, for reading in disk order; equal where order does not matter.
    fn position(&self, _id: ContentId) -> u64 {
        0
    }

    /// The hash, where the source knows it without reading (an existing WIM does).
    fn known_sha1(&self, _id: ContentId) -> Option<Sha1> {
        None
    }

    /// The hash of contents that these were likely made from. Where a lender has those, its compressed
    /// chunks are taken for the chunks that are still the same.
    fn earlier_sha1(&self, _id: ContentId) -> Option<Sha1> {
        None
    }
}
