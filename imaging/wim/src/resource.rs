//! Reading one resource: raw, chunked, solid or pipable.
//!
//! ```text
//! chunked   [offset of chunk 1..n: n-1 × u32, or u64 above 4 GiB] [chunk 0] [chunk 1] …
//! solid     [size u64] [chunk size u32] [format u32] [stored size × n u32] [chunk 0] …
//! pipable   ([stored size u32] [chunk])… [chunk table, as above]
//! ```
//! A chunk as long stored as unpacked is stored raw.

use crate::codec::{Compression, DecompressorPool};
use crate::error::{Error, IoContext, Result};
use crate::header::{ResourceHeader, u32_at, u64_at};
use crate::read_at::ReadAt;
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

/// One file of a WIM (there are more in a split set, or with the base of a delta).
pub(crate) struct Backing {
    pub reader: Arc<dyn ReadAt>,
    pub len_bytes: u64,
    pub compression: Compression,
    pub chunk_bytes: u32,
    pub pipable: bool,
    pub decompressors: DecompressorPool,
    /// The chunks of solid resources unpacked last.
    solid_chunks: Mutex<Vec<SolidChunk>>,
}

struct SolidChunk {
    resource_at: u64,
    index: u64,
    bytes: Arc<[u8]>,
}

/// Unpacked solid chunks kept per file; two, because neighbours share files.
const KEPT_SOLID_CHUNKS: usize = 2;
/// Bytes read from the file at a time while streaming.
const WINDOW_BYTES: usize = 256 * 1024;
/// Metadata or XML above this is taken for an attack (100,000 entries take about 20 MB).
pub(crate) const MAX_WHOLE_BYTES: u64 = 768 << 20;

impl Backing {
    pub fn new(
        reader: Arc<dyn ReadAt>,
        len_bytes: u64,
        compression: Compression,
        chunk_bytes: u32,
        pipable: bool,
    ) -> Self {
        Self {
            reader,
            len_bytes,
            compression,
            chunk_bytes,
            pipable,
            decompressors: DecompressorPool::default(),
            solid_chunks: Mutex::default(),
        }
    }

    pub fn read_exact(&self, buf: &mut [u8], at: u64) -> Result<()> {
        self.reader.read_exact_at(buf, at).doing(|| format!("read {} bytes at {at:#x}", buf.len()))
    }
}

/// How the bytes of a resource are laid out, read from its head.
#[derive(Clone)]
pub(crate) struct Layout {
    pub compression: Compression,
    pub chunk_bytes: u32,
    pub size_bytes: u64,
    /// File offset where each chunk starts, and where the last ends. For pipable resources each
    /// chunk is followed by the 4-byte head of the next.
    chunks: Arc<[u64]>,
    /// Bytes before each chunk that belong to it (pipable: 4).
    head_bytes: u64,
}

impl Layout {
    /// Reads the chunk table of `resource`. Not for resources stored raw.
    pub fn read(backing: &Backing, resource: &ResourceHeader) -> Result<Self> {
        resource.check_within(backing.len_bytes, "resource")?;
        if resource.is_solid() {
            return Self::read_solid(backing, resource);
        }
        let at = resource.offset;
        let size_bytes = resource.size_bytes;
        let chunk_bytes = backing.chunk_bytes;
        if backing.compression == Compression::None {
            return Err(Error::corrupt(
                at,
                "resource flags",
                "compressed",
                "none: the header names no compression",
            ));
        }
        let count = size_bytes.div_ceil(u64::from(chunk_bytes));
        let entry_bytes: u64 = if size_bytes > u64::from(u32::MAX) { 8 } else { 4 };
        let head_bytes = if backing.pipable { 4 } else { 0 };
        let table_bytes = count.saturating_sub(1).saturating_mul(entry_bytes);
        let heads = count.saturating_mul(head_bytes);
        // Each chunk takes a byte at least, so the table is bounded by what the file really has.
        if table_bytes.saturating_add(count).saturating_add(heads) > resource.stored_bytes {
            return Err(Error::corrupt(
                at,
                "chunk table",
                format!("{count} chunks in {} bytes", resource.stored_bytes),
                format!("at least {table_bytes} bytes of table and {count} of chunks"),
            ));
        }
        let (table_at, first) = if backing.pipable {
            (at + resource.stored_bytes - table_bytes, at + head_bytes)
        } else {
            (at, at + table_bytes)
        };
        let end = if backing.pipable { table_at } else { at + resource.stored_bytes };
        let mut table = vec![0; usize_of(table_bytes, at, "chunk table")?];
        backing.read_exact(&mut table, table_at)?;
        let mut chunks = Vec::with_capacity(usize_of(count + 1, at, "chunk table")?);
        chunks.push(first);
        for index in 1..count {
            let entry_at = ((index - 1) * entry_bytes) as usize;
            let relative = if entry_bytes == 8 {
                u64_at(&table, entry_at)
            } else {
                u64::from(u32_at(&table, entry_at))
            };
            // The table of a pipable resource does not count the heads of the chunks.
            let start = first.saturating_add(relative).saturating_add(index * head_bytes);
            let previous = chunks[chunks.len() - 1];
            if start <= previous + head_bytes || start >= end {
                return Err(Error::corrupt(
                    table_at + entry_at as u64,
                    "chunk offset",
                    relative,
                    format!("more than {} and less than {}", previous - first, end - first),
                ));
            }
            chunks.push(start);
        }
        chunks.push(end + head_bytes);
        Ok(Self {
            compression: backing.compression,
            chunk_bytes,
            size_bytes,
            chunks: chunks.into(),
            head_bytes,
        })
    }

    fn read_solid(backing: &Backing, resource: &ResourceHeader) -> Result<Self> {
        let at = resource.offset;
        if resource.stored_bytes < 16 {
            return Err(Error::corrupt(at, "solid resource", resource.stored_bytes, "16 at least"));
        }
        let mut head = [0; 16];
        backing.read_exact(&mut head, at)?;
        let size_bytes = u64_at(&head, 0);
        let chunk_bytes = u32_at(&head, 8);
        let format = u32_at(&head, 12);
        let compression = Compression::from_solid_format(format)
            .ok_or_else(|| Error::corrupt(at + 12, "solid format", format, "0 to 3"))?;
        compression.check_chunk_bytes(chunk_bytes).map_err(|expected| {
            Error::corrupt(at + 8, "solid chunk size", chunk_bytes, expected)
        })?;
        let count = size_bytes.div_ceil(u64::from(chunk_bytes));
        let table_bytes = count.saturating_mul(4);
        let room = resource.stored_bytes - 16;
        if table_bytes.saturating_add(count) > room {
            return Err(Error::corrupt(
                at,
                "solid chunk table",
                format!("{count} chunks in {room} bytes"),
                "5 bytes per chunk at least",
            ));
        }
        let mut table = vec![0; usize_of(table_bytes, at, "solid chunk table")?];
        backing.read_exact(&mut table, at + 16)?;
        let end = at + resource.stored_bytes;
        let mut chunks = Vec::with_capacity(table.len() / 4 + 1);
        let mut start = at + 16 + table_bytes;
        chunks.push(start);
        for (index, entry) in table.chunks_exact(4).enumerate() {
            let stored = u64::from(u32_at(entry, 0));
            start = start.saturating_add(stored);
            if stored == 0 || start > end {
                return Err(Error::corrupt(
                    at + 16 + 4 * index as u64,
                    "solid chunk size",
                    stored,
                    "1 at least, and to end within the resource",
                ));
            }
            chunks.push(start);
        }
        Ok(Self { compression, chunk_bytes, size_bytes, chunks: chunks.into(), head_bytes: 0 })
    }

    /// Where chunk `index` lies in the file, and how long it is unpacked.
    fn chunk(&self, index: u64) -> (u64, usize, usize) {
        let start = self.chunks[index as usize];
        let stored = self.chunks[index as usize + 1] - self.head_bytes - start;
        let unpacked =
            u64::from(self.chunk_bytes).min(self.size_bytes - index * u64::from(self.chunk_bytes));
        // A chunk never exceeds `chunk_bytes`, checked when it is read.
        (start, usize::try_from(stored).unwrap_or(usize::MAX), unpacked as usize)
    }

    /// Reads chunk `index`, as it is stored and unpacked. Not for solid resources.
    pub fn read_chunk(
        &self,
        backing: &Backing,
        index: u64,
        stored: &mut Vec<u8>,
        unpacked: &mut Vec<u8>,
    ) -> Result<()> {
        if index + 1 >= self.chunks.len() as u64 {
            let count = self.chunks.len() as u64 - 1;
            return Err(Error::corrupt(self.chunks[0], "chunk", index, format!("below {count}")));
        }
        let (start, stored_bytes, unpacked_bytes) = self.chunk(index);
        if stored_bytes > unpacked_bytes {
            let most = format!("{unpacked_bytes} at most");
            return Err(Error::corrupt(start, "stored size of a chunk", stored_bytes, most));
        }
        stored.resize(stored_bytes, 0);
        backing.read_exact(stored, start)?;
        unpacked.resize(unpacked_bytes, 0);
        unpack(backing, self.compression, self.chunk_bytes, start, stored, unpacked)
    }
}

fn usize_of(value: u64, at: u64, what: &'static str) -> Result<usize> {
    usize::try_from(value)
        .ok()
        .filter(|bytes| *bytes as u64 <= MAX_WHOLE_BYTES)
        .ok_or_else(|| Error::corrupt(at, what, format!("{value} bytes"), "less than 768 MiB"))
}

/// Unpacks the chunk at `start`, whose stored bytes are `stored`, to exactly `out`.
fn unpack(
    backing: &Backing,
    compression: Compression,
    chunk_bytes: u32,
    start: u64,
    stored: &[u8],
    out: &mut [u8],
) -> Result<()> {
    if stored.len() == out.len() {
        out.copy_from_slice(stored);
        return Ok(());
    }
    let Some(codec) = compression.codec() else {
        return Err(Error::corrupt(start, "uncompressed chunk", stored.len(), out.len()));
    };
    if stored.len() > out.len() {
        return Err(Error::corrupt(
            start,
            "stored size of a chunk",
            stored.len(),
            format!("{} at most", out.len()),
        ));
    }
    let mut decompressor = backing.decompressors.take(codec, chunk_bytes)?;
    let done = decompressor.decompress(stored, out);
    backing.decompressors.give(codec, chunk_bytes, decompressor);
    done.map_err(|error| {
        Error::corrupt(
            start,
            "compressed chunk",
            error,
            format!("{} bytes to unpack to {} ({})", stored.len(), out.len(), compression.name()),
        )
    })
}

/// The bytes of a resource, or of a part of one, in order.
pub(crate) struct ResourceReader {
    backing: Arc<Backing>,
    body: Body,
    /// Position within the unpacked resource, and where the part wanted ends.
    position: u64,
    end: u64,
}

enum Body {
    Raw { at: u64 },
    Chunked { layout: Layout, chunk: Option<u64>, bytes: Vec<u8>, window: Window },
    Solid { resource_at: u64, layout: Layout, chunk: Option<(u64, Arc<[u8]>)> },
}

/// A piece of the file read ahead, so that small chunks do not cost a system call each.
#[derive(Default)]
struct Window {
    at: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn get(&mut self, backing: &Backing, start: u64, stored: usize, end: u64) -> Result<&[u8]> {
        let held = self.at..self.at + self.bytes.len() as u64;
        if !(held.contains(&start) && start + stored as u64 <= held.end) {
            let ahead = usize::try_from(end - start).unwrap_or(usize::MAX).min(WINDOW_BYTES);
            self.bytes.resize(ahead.max(stored), 0);
            self.at = start;
            backing.read_exact(&mut self.bytes, start)?;
        }
        let from = (start - self.at) as usize;
        Ok(&self.bytes[from..from + stored])
    }
}

impl ResourceReader {
    /// Opens the whole of a resource that is not solid.
    pub fn open(backing: Arc<Backing>, resource: &ResourceHeader) -> Result<Self> {
        let body = if resource.is_compressed() {
            Body::Chunked {
                layout: Layout::read(&backing, resource)?,
                chunk: None,
                bytes: Vec::new(),
                window: Window::default(),
            }
        } else {
            resource.check_within(backing.len_bytes, "resource")?;
            if resource.stored_bytes != resource.size_bytes {
                return Err(Error::corrupt(
                    resource.offset,
                    "stored size of an uncompressed resource",
                    resource.stored_bytes,
                    resource.size_bytes,
                ));
            }
            Body::Raw { at: resource.offset }
        };
        Ok(Self { backing, body, position: 0, end: resource.size_bytes })
    }

    /// Opens `len` bytes from `start` of the unpacked solid resource whose layout is given.
    pub fn open_solid(
        backing: Arc<Backing>,
        resource_at: u64,
        layout: Layout,
        start: u64,
        len: u64,
    ) -> Result<Self> {
        match start.checked_add(len) {
            Some(end) if end <= layout.size_bytes => Ok(Self {
                backing,
                body: Body::Solid { resource_at, layout, chunk: None },
                position: start,
                end,
            }),
            _ => Err(Error::corrupt(
                resource_at,
                "blob in a solid resource",
                format!("{len} bytes from {start}"),
                format!("to end within {} bytes", layout.size_bytes),
            )),
        }
    }

    /// Reads what is left into one vector. It grows with what is really there.
    pub fn read_rest(mut self) -> Result<Vec<u8>> {
        let wanted = self.end - self.position;
        if wanted > MAX_WHOLE_BYTES {
            return Err(Error::unsupported(format!(
                "a metadata or XML resource of {wanted} bytes (limit {MAX_WHOLE_BYTES})"
            )));
        }
        let mut out = Vec::with_capacity(wanted.min(1 << 20) as usize);
        let mut filled = 0;
        while self.position < self.end {
            let step = (self.end - self.position).min(1 << 20) as usize;
            out.resize(filled + step, 0);
            let n = self.read_some(&mut out[filled..])?;
            filled += n;
            out.truncate(filled);
        }
        Ok(out)
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = self.end - self.position;
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if want == 0 {
            return Ok(0);
        }
        let n = match &mut self.body {
            Body::Raw { at } => {
                let at = *at + self.position;
                self.backing.read_exact(&mut buf[..want], at)?;
                want
            }
            Body::Chunked { layout, chunk, bytes, window } => {
                let index = self.position / u64::from(layout.chunk_bytes);
                let within = (self.position % u64::from(layout.chunk_bytes)) as usize;
                let (start, stored, unpacked) = layout.chunk(index);
                if *chunk != Some(index) {
                    let end = layout.chunks[layout.chunks.len() - 1] - layout.head_bytes;
                    if stored > unpacked {
                        return Err(Error::corrupt(
                            start,
                            "stored size of a chunk",
                            stored,
                            format!("{unpacked} at most"),
                        ));
                    }
                    let packed = window.get(&self.backing, start, stored, end)?;
                    let (codec, size) = (layout.compression, layout.chunk_bytes);
                    if within == 0 && want >= unpacked {
                        let out = &mut buf[..unpacked];
                        unpack(&self.backing, codec, size, start, packed, out)?;
                        self.position += unpacked as u64;
                        return Ok(unpacked);
                    }
                    *chunk = None;
                    bytes.resize(unpacked, 0);
                    unpack(&self.backing, codec, size, start, packed, bytes)?;
                    *chunk = Some(index);
                }
                let n = want.min(bytes.len() - within);
                buf[..n].copy_from_slice(&bytes[within..within + n]);
                n
            }
            Body::Solid { resource_at, layout, chunk } => {
                let index = self.position / u64::from(layout.chunk_bytes);
                let within = (self.position % u64::from(layout.chunk_bytes)) as usize;
                if chunk.as_ref().is_none_or(|(held, _)| *held != index) {
                    let bytes = solid_chunk(&self.backing, *resource_at, layout, index)?;
                    *chunk = Some((index, bytes));
                }
                let bytes = chunk.as_ref().map_or(&[][..], |(_, bytes)| bytes);
                let n = want.min(bytes.len() - within);
                buf[..n].copy_from_slice(&bytes[within..within + n]);
                n
            }
        };
        self.position += n as u64;
        Ok(n)
    }
}

impl Read for ResourceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(self.read_some(buf)?)
    }
}

/// Chunk `index` of a solid resource, from the last ones kept if it is there.
pub(crate) fn solid_chunk(
    backing: &Backing,
    resource_at: u64,
    layout: &Layout,
    index: u64,
) -> Result<Arc<[u8]>> {
    let mut kept = backing.solid_chunks.lock().unwrap_or_else(|poison| poison.into_inner());
    if let Some(found) = kept.iter().position(|c| c.resource_at == resource_at && c.index == index)
    {
        let chunk = kept.remove(found);
        let bytes = chunk.bytes.clone();
        kept.push(chunk);
        return Ok(bytes);
    }
    // Unpacked under the lock on purpose: two threads that need the same 64 MiB chunk must not
    // unpack it twice. Verifying unpacks different chunks in parallel through `unpack_solid`.
    let bytes = unpack_solid(backing, layout, index)?;
    if kept.len() >= KEPT_SOLID_CHUNKS {
        kept.remove(0);
    }
    kept.push(SolidChunk { resource_at, index, bytes: bytes.clone() });
    Ok(bytes)
}

/// Unpacks chunk `index` of a solid resource.
pub(crate) fn unpack_solid(backing: &Backing, layout: &Layout, index: u64) -> Result<Arc<[u8]>> {
    let (start, stored, unpacked) = layout.chunk(index);
    if stored > unpacked {
        return Err(Error::corrupt(
            start,
            "stored size of a solid chunk",
            stored,
            format!("{unpacked} at most"),
        ));
    }
    let mut packed = vec![0; stored];
    backing.read_exact(&mut packed, start)?;
    let mut bytes = vec![0; unpacked];
    unpack(backing, layout.compression, layout.chunk_bytes, start, &packed, &mut bytes)?;
    Ok(bytes.into())
}
