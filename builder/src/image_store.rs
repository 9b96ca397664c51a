//! Where the store, its keys and its state are on this host, and what the parts of a WIM are to
//! the store, which itself knows nothing of WIMs.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gilt_codec::{Codec, Decompressor};
use gilt_store::{Kind, OpenOptions, ResourceInfo, Segment, Segments, StoredFile, TableLayout};
use gilt_wim::{Compression, Header, ReadAt, ResourceHeader, Wim};

/// A folder of the user: `$XDG_x/gilt`, else the usual one below the home folder.
fn folder(xdg: &str, usual: &str) -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var(xdg)
        .or_else(|| var("LOCALAPPDATA"))
        .or_else(|| var("HOME").map(|home| home.join(usual)))
        .map(|folder| folder.join("gilt"))
}

/// The store that is used when none is named: a folder of the user, made on first use.
pub fn default_url() -> Option<String> {
    Some(folder("XDG_DATA_HOME", ".local/share")?.join("store").display().to_string())
}

/// Keys in the user's config folder, state and cache in theirs.
pub fn options() -> OpenOptions {
    let config = folder("XDG_CONFIG_HOME", ".config").unwrap_or_else(|| PathBuf::from(".gilt"));
    let state = folder("XDG_STATE_HOME", ".local/state");
    let cache = folder("XDG_CACHE_HOME", ".cache").map(|cache| cache.join("store"));
    let mut options = OpenOptions::new(&config, state, cache);
    options.tighten =
        Some(Arc::new(|loose| gilt_wim::loose::tighten(loose).map_err(io::Error::other)));
    options
}

/// The parts of a WIM; of any other file nothing is known.
pub fn segments(path: &Path) -> gilt_wim::Result<Box<dyn Segments>> {
    let mut magic = [0; 8];
    let is_wim = std::fs::File::open(path)
        .and_then(|file| file.read_exact_at(&mut magic, 0))
        .is_ok_and(|()| magic == *b"MSWIM\0\0\0");
    if !is_wim {
        return Ok(Box::new(gilt_store::Opaque));
    }
    Ok(Box::new(WimSegments::of(&Wim::open(path)?)))
}

/// Record of a WIM's table of resources: size and flags 8, offset 8, unpacked size 8, part 2,
/// references 4, SHA-1 20.
const TABLE: TableLayout = TableLayout { record_len: 50, offset_at: 8, key_at: 30 };

/// Where the resources, the metadata and the table of a WIM are.
pub struct WimSegments {
    segments: Vec<Segment>,
    compression: Compression,
    chunk_bytes: u32,
    /// Bytes of the contents of compressed metadata, by offset in the file.
    metadata: HashMap<u64, u64>,
}

/// How the stored bytes of a resource are read: codec in the low byte, then the exponent of the
/// chunk size. 0: as they are.
fn form(header: &Header, compressed: bool) -> u32 {
    let codec = match header.compression {
        Compression::None => 0,
        Compression::Xpress => 1,
        Compression::Lzx => 2,
        Compression::Lzms => 3,
    };
    if compressed { codec | header.chunk_bytes.trailing_zeros() << 8 } else { 0 }
}

impl WimSegments {
    pub fn of(wim: &Wim) -> Self {
        let header = wim.header();
        let mut segments = Vec::new();
        let mut metadata = HashMap::new();
        for resource in wim.resources() {
            // Contents inside a solid resource have no bytes of their own.
            if resource.is_solid() || resource.stored_bytes == 0 || resource.file != 0 {
                continue;
            }
            let kind = if resource.is_metadata() {
                if resource.is_compressed() {
                    metadata.insert(resource.offset, resource.size_bytes);
                }
                Kind::Metadata
            } else {
                Kind::Resource(ResourceInfo {
                    sha1: resource.sha1.0,
                    content_size: resource.size_bytes,
                    form: form(header, resource.is_compressed()),
                })
            };
            segments.push(Segment { offset: resource.offset, len: resource.stored_bytes, kind });
        }
        let mut other = |resource: &ResourceHeader, kind| {
            let (offset, len) = (resource.offset, resource.stored_bytes);
            segments.push(Segment { offset, len, kind });
        };
        let table = &header.blob_table;
        other(table, if table.is_compressed() { Kind::Other } else { Kind::Table(TABLE) });
        other(&header.xml, Kind::Other);
        other(&header.integrity, Kind::Other);
        segments.retain(|segment| segment.len > 0);
        segments.sort_by_key(|segment| segment.offset);
        // A damaged table may name bytes twice; what is left is stored as it is.
        let mut end = 0;
        segments.retain(|segment| {
            let free = segment.offset >= end;
            if free {
                end = segment.offset.saturating_add(segment.len);
            }
            free
        });
        let (compression, chunk_bytes) = (header.compression, header.chunk_bytes);
        Self { segments, compression, chunk_bytes, metadata }
    }
}

impl Segments for WimSegments {
    fn segments(&self) -> Vec<Segment> {
        self.segments.clone()
    }

    fn loosen(&self, segment: &Segment, stored: &[u8]) -> Option<Vec<u8>> {
        let content_bytes = *self.metadata.get(&segment.offset)?;
        gilt_wim::loose::loosen(stored, content_bytes, self.compression, self.chunk_bytes)
    }

    fn content_digest(&self, stored: &[u8], info: &ResourceInfo) -> Option<io::Result<[u8; 32]>> {
        use sha2::{Digest, Sha256};
        Some(unpack(stored, info).map(|contents| Sha256::digest(contents).into()))
    }
}

/// The contents of a resource: a table of chunk offsets, then the chunks.
fn unpack(stored: &[u8], info: &ResourceInfo) -> io::Result<Vec<u8>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let codec = match info.form & 0xff {
        0 => return Ok(stored.to_vec()),
        1 => Codec::Xpress,
        2 => Codec::Lzx,
        3 => Codec::Lzms,
        _ => return Err(bad("a form of resource that is not known")),
    };
    let chunk = 1u32.checked_shl(info.form >> 8).ok_or_else(|| bad("chunk size"))?;
    let mut decompressor =
        Decompressor::new(codec, chunk).map_err(|error| bad(&error.to_string()))?;
    let size = usize::try_from(info.content_size).map_err(|_| bad("too large for this host"))?;
    let width = if info.content_size > u64::from(u32::MAX) { 8 } else { 4 };
    let chunk = chunk as usize;
    let count = size.div_ceil(chunk);
    let table_len =
        count.saturating_sub(1).checked_mul(width).ok_or_else(|| bad("too many chunks"))?;
    let table = stored.get(..table_len).ok_or_else(|| bad("its chunk table is cut short"))?;
    let data = &stored[table_len..];
    let start = |n: usize| -> Option<usize> {
        let Some(n) = n.checked_sub(1) else { return Some(0) };
        if n + 1 == count {
            return Some(data.len());
        }
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(table.get(n * width..(n + 1) * width)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let mut contents = vec![0; size];
    for (n, output) in contents.chunks_mut(chunk).enumerate() {
        let range = start(n).zip(start(n + 1)).map(|(from, to)| from..to);
        let packed =
            range.and_then(|range| data.get(range)).ok_or_else(|| bad("a chunk offset"))?;
        if packed.len() == output.len() {
            output.copy_from_slice(packed);
        } else {
            decompressor.decompress(packed, output).map_err(|error| bad(&error.to_string()))?;
        }
    }
    Ok(contents)
}

/// A stored file as random access, for the WIM reader: only what is looked at is fetched.
pub struct StoredReader {
    file: StoredFile,
    runtime: tokio::runtime::Handle,
}

impl StoredReader {
    /// To be read from threads that are not the runtime's own.
    pub fn over(file: StoredFile, runtime: tokio::runtime::Handle) -> Arc<dyn ReadAt> {
        Arc::new(Self { file, runtime })
    }
}

impl ReadAt for StoredReader {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.content.size)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        use futures::StreamExt;
        let end = self.file.content.size.min(offset.saturating_add(buf.len() as u64));
        let file = &self.file;
        self.runtime.block_on(async {
            let mut stream = std::pin::pin!(file.stream(offset..end));
            let mut filled = 0;
            while let Some(bytes) = stream.next().await {
                let bytes = bytes.map_err(io::Error::other)?;
                let into = buf.get_mut(filled..filled + bytes.len());
                into.ok_or_else(|| io::Error::other("more bytes than asked for"))?
                    .copy_from_slice(&bytes);
                filled += bytes.len();
            }
            Ok(filled)
        })
    }
}
