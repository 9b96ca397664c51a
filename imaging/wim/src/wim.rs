//! An open WIM: its tables, its images, its contents.

use crate::blob::{BlobEntry, BlobTable};
use crate::codec::Compression;
use crate::error::{Error, IoContext, Result};
use crate::header::{HEADER_BYTES, Header, ResourceHeader, hex, resource_flag};
use crate::info::ImageInfo;
use crate::metadata::{Resolve, read_tree};
use crate::read_at::ReadAt;
use crate::resource::{Backing, Layout, ResourceReader};
use crate::split::part_path;
use crate::tree::{ContentId, ContentSource, Sha1, Tree};
use crate::xml::{self, Element};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// An open WIM, cheap to clone. Everything but opening reads on demand, from many threads.
#[derive(Clone)]
pub struct Wim {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    header: Header,
    pub(crate) files: Vec<Arc<Backing>>,
    pub(crate) blobs: Vec<Blob>,
    /// Made when first asked for: listing names needs none.
    by_sha1: OnceLock<HashMap<Sha1, u32>>,
    pub(crate) solids: Vec<Solid>,
    images: Vec<BlobEntry>,
    xml_bytes: Vec<u8>,
    xml: Element,
}

/// Some contents and where they are.
#[derive(Clone, Copy)]
pub(crate) struct Blob {
    pub sha1: Sha1,
    pub references: u32,
    pub place: Place,
    pub size_bytes: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// A resource of its own.
    Whole { file: u16, resource: ResourceHeader },
    /// Bytes from `start` of a solid resource.
    Solid { solid: u32, start: u64 },
}

/// A solid resource; its chunk table is read when first needed.
pub(crate) struct Solid {
    pub file: u16,
    pub resource: ResourceHeader,
    pub size_bytes: u64,
    layout: OnceLock<Layout>,
}

impl Solid {
    pub fn layout(&self, backing: &Backing) -> Result<&Layout> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout = Layout::read(backing, &self.resource)?;
        Ok(self.layout.get_or_init(|| layout))
    }
}

/// A resource as the blob table has it: what a store packs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResourceInfo {
    pub sha1: Sha1,
    /// Which of the files given (0 but for split sets and references).
    pub file: usize,
    /// Offset in that file, bytes taken there, and bytes when read. For contents in a solid
    /// resource the offset is within its unpacked bytes and nothing is stored of their own.
    pub offset: u64,
    pub stored_bytes: u64,
    pub size_bytes: u64,
    /// [`resource_flag`] bits.
    pub flags: u8,
    pub references: u32,
}

impl ResourceInfo {
    pub fn is_metadata(&self) -> bool {
        self.flags & resource_flag::METADATA != 0
    }

    pub fn is_solid(&self) -> bool {
        self.flags & resource_flag::SOLID != 0
    }

    pub fn is_compressed(&self) -> bool {
        self.flags & resource_flag::COMPRESSED != 0
    }
}

/// Tables larger than this are refused: 20 million entries.
const MAX_TABLE_BYTES: u64 = 1 << 30;

impl Wim {
    /// Opens a WIM. Of a split set, name the first part: the others are looked for beside it,
    /// and contents of parts that are not there are missing when they are read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let wim = Self::open_with(path, &[] as &[&Path])?;
        let header = wim.header();
        if header.part != 1 || header.parts == 1 {
            return Ok(wim);
        }
        let others: Vec<PathBuf> = (2..=header.parts)
            .map(|number| part_path(path, number))
            .filter(|part| part.is_file())
            .collect();
        Self::open_with(path, &others)
    }

    /// Opens `path` with the other parts of a split set, or the files a delta refers to.
    pub fn open_with(path: impl AsRef<Path>, others: &[impl AsRef<Path>]) -> Result<Self> {
        let open =
            |path: &Path| -> Result<Arc<dyn ReadAt>> { Ok(Arc::new(File::open(path).at(path)?)) };
        let others = others.iter().map(|path| open(path.as_ref())).collect::<Result<Vec<_>>>()?;
        Self::from_readers(open(path.as_ref())?, others)
    }

    pub fn from_reader(reader: Arc<dyn ReadAt>) -> Result<Self> {
        Self::from_readers(reader, Vec::new())
    }

    /// `others` only lend contents; their images do not count.
    pub fn from_readers(reader: Arc<dyn ReadAt>, others: Vec<Arc<dyn ReadAt>>) -> Result<Self> {
        let (header, backing) = open_file(reader)?;
        let table = read_table(&backing, &header)?;
        let mut inner = Inner {
            xml_bytes: Vec::new(),
            xml: Element::new("WIM"),
            images: table.images.clone(),
            header,
            files: vec![backing],
            blobs: Vec::new(),
            by_sha1: OnceLock::new(),
            solids: Vec::new(),
        };
        inner.add_contents(0, table)?;
        inner.read_xml()?;
        inner.check_images()?;
        for other in others {
            let (header, backing) = open_file(other)?;
            if header.parts > 1 && inner.header.parts > 1 && header.guid != inner.header.guid {
                return Err(Error::Options(format!(
                    "part {} of {} belongs to another split set",
                    header.part, header.parts
                )));
            }
            let table = read_table(&backing, &header)?;
            let file = u16::try_from(inner.files.len())
                .map_err(|_| Error::Options("more than 65,535 files given".into()))?;
            inner.files.push(backing);
            inner.add_contents(file, table)?;
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn header(&self) -> &Header {
        &self.inner.header
    }

    pub fn compression(&self) -> Compression {
        self.inner.header.compression
    }

    /// Length of the (first) file.
    pub fn file_bytes(&self) -> u64 {
        self.inner.files[0].len_bytes
    }

    /// Number of images. Their metadata is in this file, but for the later parts of a split set.
    pub fn image_count(&self) -> u32 {
        self.inner.images.len() as u32
    }

    /// What the XML says of each image, in order; empty where it says nothing.
    pub fn images(&self) -> Vec<ImageInfo> {
        (1..=self.image_count()).map(|index| self.image_info(index)).collect()
    }

    pub(crate) fn image_info(&self, index: u32) -> ImageInfo {
        let text = index.to_string();
        let elements = self.inner.xml.children.iter().filter(|child| child.name == "IMAGE");
        let found =
            elements.clone().find(|image| image.attribute("INDEX") == Some(&text)).or_else(|| {
                // XML without numbers: go by position.
                elements
                    .clone()
                    .filter(|image| image.attribute("INDEX").is_none())
                    .nth(index as usize - 1)
            });
        found.map_or_else(ImageInfo::default, |xml| ImageInfo { xml: xml.clone() })
    }

    /// The parsed XML.
    pub fn xml(&self) -> &Element {
        &self.inner.xml
    }

    /// The XML as it is in the file.
    pub fn xml_bytes(&self) -> &[u8] {
        &self.inner.xml_bytes
    }

    /// The image a name or a number means.
    pub fn find_image(&self, which: &str) -> Option<u32> {
        if let Ok(index) = which.parse::<u32>()
            && (1..=self.image_count()).contains(&index)
        {
            return Some(index);
        }
        (1..=self.image_count()).find(|index| self.image_info(*index).name() == Some(which))
    }

    /// Every resource: contents in table order, then the metadata of each image.
    pub fn resources(&self) -> impl Iterator<Item = ResourceInfo> + '_ {
        let contents = self.inner.blobs.iter().map(|blob| self.inner.resource_info(blob));
        let images = self.inner.images.iter().map(|entry| ResourceInfo {
            sha1: entry.sha1,
            file: 0,
            offset: entry.resource.offset,
            stored_bytes: entry.resource.stored_bytes,
            size_bytes: entry.resource.size_bytes,
            flags: entry.resource.flags,
            references: entry.references,
        });
        contents.chain(images)
    }

    /// The resource that holds these contents.
    pub fn find(&self, sha1: Sha1) -> Option<ResourceInfo> {
        let blob = &self.inner.blobs[self.inner.blob_index(sha1)? as usize];
        Some(self.inner.resource_info(blob))
    }

    /// The contents with this SHA-1, unpacked, not hashed again.
    pub fn open_contents(&self, sha1: Sha1) -> Result<Box<dyn Read + Send + '_>> {
        match self.inner.blob_index(sha1) {
            Some(index) => Ok(Box::new(self.inner.open_blob(index)?)),
            None => Err(Error::MissingResource { sha1 }),
        }
    }

    /// The metadata resource of image `index` (1-based), unpacked.
    pub fn metadata(&self, index: u32) -> Result<Vec<u8>> {
        let count = self.image_count();
        let entry = (index as usize)
            .checked_sub(1)
            .and_then(|index| self.inner.images.get(index))
            .ok_or(Error::NoSuchImage { index, count })?;
        let bytes =
            ResourceReader::open(self.inner.files[0].clone(), &entry.resource)?.read_rest()?;
        let found = crate::hash::sha1(&bytes);
        if found != entry.sha1 {
            return Err(Error::HashMismatch {
                at: entry.resource.offset,
                size_bytes: bytes.len() as u64,
                found,
                expected: entry.sha1,
            });
        }
        Ok(bytes)
    }

    /// The tree of image `index` (1-based), and what opens its contents.
    pub fn load_tree(&self, index: u32) -> Result<(Tree, WimContents)> {
        self.load(index, true)
    }

    /// The same without the data of reparse points, so no contents are read at all: for listing.
    /// The reparse points have their tag and no data.
    pub fn load_outline(&self, index: u32) -> Result<(Tree, WimContents)> {
        self.load(index, false)
    }

    /// Names, attributes and times, with streams of no length and no data of reparse points: the
    /// fastest there is.
    pub fn load_names(&self, index: u32) -> Result<Tree> {
        struct Nothing;
        impl Resolve for Nothing {
            fn content(&mut self, _: Sha1) -> (ContentId, u64) {
                (EMPTY, 0)
            }

            fn reparse_data(&mut self, _: Sha1) -> Result<Box<[u8]>> {
                Ok(Box::default())
            }
        }
        read_tree(&self.metadata(index)?, &mut Nothing)
    }

    fn load(&self, index: u32, reparse_data: bool) -> Result<(Tree, WimContents)> {
        let bytes = self.metadata(index)?;
        let mut resolver = Resolver {
            inner: &self.inner,
            reparse_data,
            missing: Vec::new(),
            seen: HashMap::new(),
        };
        let tree = read_tree(&bytes, &mut resolver)?;
        let missing = resolver.missing;
        Ok((tree, WimContents { inner: self.inner.clone(), missing }))
    }

    /// Bytes of file number `file` as they are: what [`ResourceInfo`] points at.
    pub fn read_stored(&self, file: usize, buf: &mut [u8], at: u64) -> Result<()> {
        match self.inner.files.get(file) {
            Some(backing) => backing.read_exact(buf, at),
            None => Err(Error::Options(format!("there is no file {file}"))),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl std::fmt::Debug for Wim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wim").field("header", self.header()).finish_non_exhaustive()
    }
}

fn open_file(reader: Arc<dyn ReadAt>) -> Result<(Header, Arc<Backing>)> {
    let len_bytes = reader.len().doing(|| "length of the WIM".into())?;
    if len_bytes < HEADER_BYTES as u64 {
        return Err(Error::corrupt(0, "file", format!("{len_bytes} bytes"), "208 at least"));
    }
    let mut bytes = [0; HEADER_BYTES];
    reader.read_exact_at(&mut bytes, 0).doing(|| "read the header".into())?;
    let mut header = Header::parse(&bytes)?;
    if header.pipable && header.blob_table.stored_bytes == 0 {
        // Written in one pass: the header with the tables is the last thing in the file.
        let at = len_bytes - HEADER_BYTES as u64;
        reader.read_exact_at(&mut bytes, at).doing(|| "read the header at the end".into())?;
        let last = Header::parse(&bytes)?;
        if last.guid != header.guid {
            let (found, expected) = (hex(&last.guid), hex(&header.guid));
            return Err(Error::corrupt(at + 24, "GUID of the header at the end", found, expected));
        }
        header = last;
    }
    let backing =
        Backing::new(reader, len_bytes, header.compression, header.chunk_bytes, header.pipable);
    Ok((header, Arc::new(backing)))
}

fn read_table(backing: &Arc<Backing>, header: &Header) -> Result<BlobTable> {
    let resource = &header.blob_table;
    if resource.size_bytes > MAX_TABLE_BYTES {
        return Err(Error::corrupt(
            48,
            "size of the blob table",
            resource.size_bytes,
            format!("{MAX_TABLE_BYTES} at most"),
        ));
    }
    if resource.stored_bytes == 0 && resource.size_bytes == 0 {
        return Ok(BlobTable::default());
    }
    let bytes = ResourceReader::open(backing.clone(), resource)?.read_rest()?;
    BlobTable::parse(&bytes, resource.offset, header.part)
}

impl Inner {
    fn add_contents(&mut self, file: u16, table: BlobTable) -> Result<()> {
        let file_bytes = self.files[usize::from(file)].len_bytes;
        self.blobs.reserve(table.blobs.len());
        for entry in table.blobs {
            entry.resource.check_within(file_bytes, "resource")?;
            if !entry.resource.is_compressed()
                && entry.resource.stored_bytes != entry.resource.size_bytes
            {
                return Err(Error::corrupt(
                    entry.resource.offset,
                    "stored size of an uncompressed resource",
                    entry.resource.stored_bytes,
                    entry.resource.size_bytes,
                ));
            }
            self.add_blob(Blob {
                sha1: entry.sha1,
                references: entry.references,
                place: Place::Whole { file, resource: entry.resource },
                size_bytes: entry.resource.size_bytes,
            });
        }
        for run in table.solids {
            let first = self.solids.len();
            for resource in run.resources {
                resource.check_within(file_bytes, "solid resource")?;
                let layout_size = solid_size(&self.files[usize::from(file)], &resource)?;
                self.solids.push(Solid {
                    file,
                    resource,
                    size_bytes: layout_size,
                    layout: OnceLock::new(),
                });
            }
            for entry in run.blobs {
                // Offsets count through all solid resources of the run.
                let mut start = entry.resource.offset;
                let size_bytes = entry.resource.stored_bytes;
                let found = self.solids[first..].iter().position(|solid| {
                    if start < solid.size_bytes {
                        return true;
                    }
                    start -= solid.size_bytes;
                    false
                });
                let place = found.map(|index| first + index).filter(|index| {
                    start
                        .checked_add(size_bytes)
                        .is_some_and(|end| end <= self.solids[*index].size_bytes)
                });
                let Some(index) = place else {
                    return Err(Error::corrupt(
                        entry.resource.offset,
                        "blob in a solid resource",
                        format!("{size_bytes} bytes from there"),
                        "to lie within one",
                    ));
                };
                self.add_blob(Blob {
                    sha1: entry.sha1,
                    references: entry.references,
                    place: Place::Solid { solid: index as u32, start },
                    size_bytes,
                });
            }
        }
        Ok(())
    }

    fn add_blob(&mut self, blob: Blob) {
        self.blobs.push(blob);
    }

    /// Missing or unreadable XML leaves the images without names, no more.
    fn read_xml(&mut self) -> Result<()> {
        let resource = self.header.xml;
        if resource.stored_bytes == 0 {
            return Ok(());
        }
        let read = ResourceReader::open(self.files[0].clone(), &resource)
            .and_then(ResourceReader::read_rest);
        match read {
            Ok(bytes) => {
                self.xml = xml::parse(&xml::decode_text(&bytes));
                self.xml_bytes = bytes;
                Ok(())
            }
            Err(error) if error.is_corruption() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn check_images(&self) -> Result<()> {
        let (header, found) = (&self.header, self.images.len());
        // Later parts of a split set know the count but hold no metadata.
        let expected = if header.part > 1 { 0 } else { header.image_count as usize };
        if found != expected {
            return Err(Error::corrupt(
                44,
                "image count",
                expected,
                format!("{found}, the metadata resources in the blob table"),
            ));
        }
        if header.boot_index > header.image_count {
            return Err(Error::corrupt(120, "boot index", header.boot_index, header.image_count));
        }
        Ok(())
    }

    fn resource_info(&self, blob: &Blob) -> ResourceInfo {
        let (file, offset, stored_bytes, flags) = match blob.place {
            Place::Whole { file, resource } => {
                (file, resource.offset, resource.stored_bytes, resource.flags)
            }
            Place::Solid { solid, start } => {
                let solid = &self.solids[solid as usize];
                (solid.file, start, 0, solid.resource.flags)
            }
        };
        ResourceInfo {
            sha1: blob.sha1,
            file: usize::from(file),
            offset,
            stored_bytes,
            size_bytes: blob.size_bytes,
            flags,
            references: blob.references,
        }
    }

    /// The number of the first blob with this SHA-1.
    fn blob_index(&self, sha1: Sha1) -> Option<u32> {
        let map = self.by_sha1.get_or_init(|| {
            let mut map = HashMap::with_capacity(self.blobs.len());
            for (index, blob) in self.blobs.iter().enumerate() {
                map.entry(blob.sha1).or_insert(index as u32);
            }
            map
        });
        map.get(&sha1).copied()
    }

    pub(crate) fn find_blob(&self, sha1: Sha1) -> Option<&Blob> {
        self.blob_index(sha1).map(|index| &self.blobs[index as usize])
    }

    /// The metadata resource of image `number`, counted from 0.
    pub(crate) fn image_resource(&self, number: usize) -> Option<(&Arc<Backing>, ResourceHeader)> {
        Some((self.files.first()?, self.images.get(number)?.resource))
    }

    pub(crate) fn open_blob(&self, index: u32) -> Result<ResourceReader> {
        let blob = &self.blobs[index as usize];
        match blob.place {
            Place::Whole { file, resource } => {
                ResourceReader::open(self.files[usize::from(file)].clone(), &resource)
            }
            Place::Solid { solid, start } => {
                let solid = &self.solids[solid as usize];
                let backing = &self.files[usize::from(solid.file)];
                let layout = solid.layout(backing)?.clone();
                let at = solid.resource.offset;
                ResourceReader::open_solid(backing.clone(), at, layout, start, blob.size_bytes)
            }
        }
    }

    /// Where a blob lies, for reading in file order.
    pub(crate) fn blob_position(&self, index: u32) -> u64 {
        match self.blobs.get(index as usize).map(|blob| blob.place) {
            Some(Place::Whole { file, resource }) => u64::from(file) << 48 | resource.offset,
            // Solid resources after one another, above everything else of their file.
            Some(Place::Solid { solid, start }) => {
                u64::from(self.solids[solid as usize].file) << 48
                    | 1 << 47
                    | u64::from(solid.min(0x7f)) << 40
                    | start & 0xff_ffff_ffff
            }
            None => u64::MAX,
        }
    }
}

/// The unpacked size of a solid resource, from its head.
fn solid_size(backing: &Backing, resource: &ResourceHeader) -> Result<u64> {
    if resource.stored_bytes < 16 {
        return Err(Error::corrupt(
            resource.offset,
            "solid resource",
            format!("{} bytes", resource.stored_bytes),
            "16 at least",
        ));
    }
    let mut size = [0; 8];
    backing.read_exact(&mut size, resource.offset)?;
    Ok(u64::from_le_bytes(size))
}

struct Resolver<'a> {
    inner: &'a Inner,
    reparse_data: bool,
    missing: Vec<Sha1>,
    seen: HashMap<Sha1, ContentId>,
}

/// The id of contents of no bytes.
const EMPTY: ContentId = ContentId(u64::MAX);

impl Resolve for Resolver<'_> {
    fn content(&mut self, sha1: Sha1) -> (ContentId, u64) {
        if sha1.is_zero() {
            return (EMPTY, 0);
        }
        match self.inner.blob_index(sha1) {
            Some(index) => {
                let size = self.inner.blobs[index as usize].size_bytes;
                (ContentId(u64::from(index)), size)
            }
            None => {
                let missing = &mut self.missing;
                let id = *self.seen.entry(sha1).or_insert_with(|| {
                    missing.push(sha1);
                    ContentId((self.inner.blobs.len() + missing.len() - 1) as u64)
                });
                (id, 0)
            }
        }
    }

    fn reparse_data(&mut self, sha1: Sha1) -> Result<Box<[u8]>> {
        /// NTFS allows 16 KiB.
        const MAX_REPARSE_BYTES: u64 = 64 * 1024;
        if !self.reparse_data {
            // Only to note what is missing.
            self.content(sha1);
            return Ok(Box::default());
        }
        let index = self.inner.blob_index(sha1).ok_or(Error::MissingResource { sha1 })?;
        let size = self.inner.blobs[index as usize].size_bytes;
        if size > MAX_REPARSE_BYTES {
            return Err(Error::unsupported(format!("reparse data of {size} bytes (limit 64 KiB)")));
        }
        Ok(self.inner.open_blob(index)?.read_rest()?.into())
    }
}

/// Opens the contents of a tree that [`Wim::load_tree`] gave.
#[derive(Clone)]
pub struct WimContents {
    inner: Arc<Inner>,
    /// SHA-1s that are in none of the files; ids after those of the blobs.
    missing: Vec<Sha1>,
}

impl WimContents {
    /// Contents the tree names but no file given holds (a delta without its base).
    pub fn missing(&self) -> &[Sha1] {
        &self.missing
    }
}

impl ContentSource for WimContents {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        if id == EMPTY {
            return Ok(Box::new(io::empty()));
        }
        match u32::try_from(id.0).ok().filter(|index| (*index as usize) < self.inner.blobs.len()) {
            Some(index) => Ok(Box::new(self.inner.open_blob(index)?)),
            None => {
                let sha1 = self.known_sha1(id).unwrap_or(Sha1::ZERO);
                Err(io::Error::new(io::ErrorKind::NotFound, Error::MissingResource { sha1 }))
            }
        }
    }

    fn position(&self, id: ContentId) -> u64 {
        u32::try_from(id.0).map_or(u64::MAX, |index| self.inner.blob_position(index))
    }

    fn known_sha1(&self, id: ContentId) -> Option<Sha1> {
        if id == EMPTY {
            return Some(Sha1::ZERO);
        }
        let index = usize::try_from(id.0).ok()?;
        match self.inner.blobs.get(index) {
            Some(blob) => Some(blob.sha1),
            None => self.missing.get(index - self.inner.blobs.len()).copied(),
        }
    }
}
