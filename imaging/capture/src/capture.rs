//! One disk, one partition, one WIM.

use crate::error::{CaptureError, Result};
use crate::exclude::{ExcludeRules, Excluded};
use crate::index::{self, Index, Known, Stamps, WithKnown, index_path};
use crate::inventory::{Inventory, inventory};
use crate::lookup::TreeView;
use crate::partition::{FoundVolume, PartitionChoice, find_volume};
use crate::volume::FileSystem;
use crate::windows::describe_windows;
use gilt_disk::{Disk, OpenOptions, open_with};
use gilt_ntfs::SpecialPolicy;
use gilt_wim::tree::{ContentSource, Sha1, Tree};
use gilt_wim::{ImageInfo, ImageSource, Progress, Wim, WriteOptions, Written, create};
use std::collections::HashSet;
use std::io::Read;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub struct CaptureRequest<'a> {
    /// An image of any format we read, of a machine that is off.
    pub disk: &'a Path,
    pub open: OpenOptions,
    pub partition: PartitionChoice,
    /// `None`: what is usual for the system found.
    pub exclude: Option<ExcludeRules>,
    pub out: &'a Path,
    /// NAME and what else is known of the image.
    pub info: ImageInfo,
    /// Compression, threads, lenders.
    pub write: WriteOptions,
    pub progress: &'a dyn Progress,
}

impl<'a> CaptureRequest<'a> {
    /// A full capture with the usual exclusions.
    pub fn new(disk: &'a Path, out: &'a Path, name: &str, progress: &'a dyn Progress) -> Self {
        Self {
            disk,
            open: OpenOptions::default(),
            partition: PartitionChoice::Auto,
            exclude: None,
            out,
            info: ImageInfo::named(name),
            write: WriteOptions::default(),
            progress,
        }
    }
}

/// What a capture may take from an earlier one and leave for a later one; and what it does with files
/// whose contents are not on the volume.
#[derive(Clone, Debug, Default)]
pub struct CaptureOptions {
    /// An earlier capture of a disk that this one is built over. Its index, which lies beside it, tells
    /// what need not be read; its resources are copied.
    pub previous: Option<PathBuf>,
    /// Write an index beside the WIM for the next capture.
    pub write_index: bool,
    /// Read everything all the same, and fail when the index was wrong.
    pub verify_incremental: bool,
    pub specials: SpecialPolicy,
}

/// What was captured.
#[derive(Clone, Debug)]
pub struct Captured {
    pub wim: PathBuf,
    pub written: Written,
    pub info: ImageInfo,
    pub partition: u32,
    pub file_system: FileSystem,
    pub label: String,
    /// Of a Linux.
    pub inventory: Option<Inventory>,
    pub excluded: Excluded,
    /// What the file system has that a WIM cannot say, and the like.
    pub notes: Vec<String>,
    pub incremental: Incremental,
    /// The index for the next capture, where one was written.
    pub index: Option<PathBuf>,
}

/// What an earlier capture spared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incremental {
    NotAsked,
    /// The index did not fit; everything was read.
    Ignored {
        reason: String,
    },
    Used {
        /// Bytes of files that were not read.
        known_bytes: u64,
        /// Bytes of the volume written since.
        changed_bytes: u64,
        /// Files read again to prove the index, all found right.
        verified_files: usize,
    },
}

/// Captures the file system of a powered-off machine into a new WIM of one image.
pub fn capture(request: &CaptureRequest<'_>) -> Result<Captured> {
    capture_with(request, &CaptureOptions::default())
}

pub fn capture_with(request: &CaptureRequest<'_>, options: &CaptureOptions) -> Result<Captured> {
    let disk = open_with(request.disk, &request.open)?;
    let (found, earlier) = std::thread::scope(|scope| {
        let earlier = options.previous.as_ref();
        let earlier = earlier.map(|wim| scope.spawn(|| Earlier::open(wim)));
        let found = find_volume(&disk, request.partition);
        (found, earlier.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))))
    });
    let (mut found, earlier) = (found?, earlier.transpose()?);
    let file_system = found.reader.file_system();
    let default_rules;
    let rules = match &request.exclude {
        Some(rules) => rules,
        None => {
            default_rules = ExcludeRules::usual_for(file_system);
            &default_rules
        }
    };
    let ignores_case = file_system.ignores_case();
    let whole = std::mem::take(&mut found.tree);
    let (tree, excluded) = rules.apply(&whole, ignores_case, &HashSet::new());
    let captured = |id| excluded.keeps(id);
    let left_out = found.reader.judge_specials(&whole, options.specials, &captured)?;
    let (tree, excluded) = match left_out.is_empty() {
        true => (tree, excluded),
        false => rules.apply(&whole, ignores_case, &left_out.into_iter().collect()),
    };
    drop(whole);
    let contents = found.reader.contents();
    let view = TreeView { tree: &tree, contents, ignores_case };
    let inventory = inventory(view)?;
    let mut info = request.info.clone();
    if file_system == FileSystem::Ntfs {
        describe_windows(view, &mut info)?;
    }

    let mut write = request.write.clone();
    let (known, mut incremental) = match earlier {
        Some(earlier) => earlier.known(request, &disk, &found, &tree, &mut write),
        None => (Known::default(), Incremental::NotAsked),
    };
    let mixed = WithKnown { contents, known: &known };
    if options.verify_incremental && matches!(incremental, Incremental::Used { .. }) {
        let files = verify_known(contents, &known, write.threads, request.progress)?;
        if let Incremental::Used { verified_files, .. } = &mut incremental {
            *verified_files = files;
        }
    }
    let image = ImageSource { tree: &tree, contents: &mixed, info: info.clone() };
    // The WIM gets its name only when the source is proved to have been one state of the disk.
    let partial = Partial::beside(request.out);
    // A snapshot inside an image shares its file with what came after it: no layers to compare.
    let with_index = options.write_index && request.open.snapshot.is_none();
    let (written, stamps) = std::thread::scope(|scope| {
        let reader = &*found.reader;
        let stamps = with_index.then(|| scope.spawn(|| Stamps::of(reader, &tree)));
        let written = create(&partial.0, &[image], &write, request.progress);
        let stamps = stamps.map(|thread| thread.join().unwrap_or_else(|p| resume_unwind(p)));
        (written, stamps)
    });
    let written = written?;
    if let Some(path) = disk.changed_file()? {
        return Err(CaptureError::Changed { path });
    }
    let index = index_path(request.out);
    // An older index of that name is not this WIM's.
    let _ = std::fs::remove_file(&index);
    partial.publish(request.out)?;
    if let (Some(hashes), Some(stamps)) = (written.hashes.first(), stamps) {
        let stamps = stamps.map_err(CaptureError::io(request.disk))?;
        index::write(&index, &disk, &found, &stamps, hashes, written.guid)?;
    }
    Ok(Captured {
        wim: request.out.to_owned(),
        info: written.images.first().cloned().unwrap_or(info),
        partition: found.number,
        file_system,
        label: found.reader.label(),
        notes: found.reader.notes(),
        written,
        inventory,
        excluded,
        incremental,
        index: with_index.then_some(index),
    })
}

/// An earlier capture, and its index or why it cannot be used.
struct Earlier {
    wim: Wim,
    index: std::result::Result<Index, String>,
}

impl Earlier {
    fn open(wim: &Path) -> Result<Self> {
        Ok(Self { wim: Wim::open(wim)?, index: Index::read(&index_path(wim)) })
    }

    /// What the index knows; the WIM becomes a lender.
    fn known(
        self,
        request: &CaptureRequest<'_>,
        disk: &Disk,
        found: &FoundVolume,
        tree: &Tree,
        write: &mut WriteOptions,
    ) -> (Known, Incremental) {
        let fitted = match request.open.snapshot {
            Some(_) => Err("a snapshot inside an image cannot be compared by layers".into()),
            None => self.index.and_then(|index| index.fit(disk, found, tree, &self.wim)),
        };
        write.lenders.push(self.wim);
        match fitted {
            Ok(known) => {
                let used = Incremental::Used {
                    known_bytes: known.known_bytes,
                    changed_bytes: known.changed_bytes,
                    verified_files: 0,
                };
                (known, used)
            }
            Err(reason) => (Known::default(), Incremental::Ignored { reason }),
        }
    }
}

/// Reads every known content and compares its hash; returns how many.
fn verify_known(
    contents: &dyn ContentSource,
    known: &Known,
    threads: usize,
    progress: &dyn Progress,
) -> Result<usize> {
    let mut list: Vec<_> = known.sha1s.iter().collect();
    list.sort_by_key(|(id, _)| (contents.position(**id), **id));
    let next = AtomicUsize::new(0);
    let wrong: Mutex<Option<CaptureError>> = Mutex::new(None);
    let fail = |error| {
        wrong.lock().unwrap_or_else(|poison| poison.into_inner()).get_or_insert(error);
        next.store(list.len(), Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, 64) {
            scope.spawn(|| {
                while let Some((id, expected)) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if progress.is_cancelled() {
                        return fail(gilt_wim::Error::Cancelled.into());
                    }
                    match contents.open(**id).and_then(sha1_of) {
                        Ok(got) if got == **expected => {}
                        Ok(_) => return fail(CaptureError::IndexWrong { content: id.0 }),
                        Err(source) => {
                            let path = format!("contents {}", id.0);
                            return fail(CaptureError::File { path, source });
                        }
                    }
                }
            });
        }
    });
    match wrong.into_inner().unwrap_or_else(|poison| poison.into_inner()) {
        Some(error) => Err(error),
        None => Ok(list.len()),
    }
}

fn sha1_of(mut reader: Box<dyn Read + Send + '_>) -> std::io::Result<Sha1> {
    use sha1::Digest;
    let mut hash = sha1::Sha1::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buf)? {
            0 => return Ok(Sha1(hash.finalize().into())),
            len => hash.update(&buf[..len]),
        }
    }
}

/// A file that goes away unless it is published.
struct Partial(PathBuf);

impl Partial {
    fn beside(out: &Path) -> Self {
        let mut name = std::ffi::OsString::from(".");
        name.push(out.file_name().unwrap_or("image.wim".as_ref()));
        name.push(format!(".capture-{}", std::process::id()));
        Self(out.with_file_name(name))
    }

    fn publish(self, out: &Path) -> Result<()> {
        std::fs::rename(&self.0, out).map_err(CaptureError::io(out))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Published, it is no longer there.
        let _ = std::fs::remove_file(&self.0);
    }
}
