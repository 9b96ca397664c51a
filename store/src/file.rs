//! A stored file, put together again: as a stream of any range of it.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use crate::blobs::{self, AtHand, Blobs};
use crate::digest::BlobId;
use crate::encoding::Encoding;
use crate::error::Error;
use crate::error::Result;
use crate::index::Location;
use crate::ingest::Content;
use crate::pack;
use crate::recipe::{Kind, Made, Piece, Places, Recipe, Segment};
use crate::store::{Store, Tighten};

/// Neighbours in a pack are read together up to this: far away, where each request costs time, and
/// near, where what was just read is best still in the processor's cache when it is written.
const RUN_FAR: u64 = 8 << 20;
const RUN_NEAR: u64 = 1 << 20;
/// Reads under way at once.
const AHEAD_FAR: usize = 4;
const AHEAD_NEAR: usize = 2;

/// A file of a version, open for reading.
#[derive(Clone)]
pub struct StoredFile {
    pub content: Content,
    blobs: Blobs,
    recipe: Arc<Recipe>,
    pieces: Arc<Vec<Piece>>,
    places: Arc<Places>,
    tighten: Option<Tighten>,
}

impl std::fmt::Debug for StoredFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredFile").field("content", &self.content).finish_non_exhaustive()
    }
}

impl Store {
    pub async fn file(&self, content: &Content) -> Result<StoredFile> {
        let recipe = recipe(&self.blobs, content).await?;
        Ok(StoredFile {
            content: *content,
            blobs: self.blobs.clone(),
            pieces: Arc::new(recipe.pieces()),
            places: Arc::new(recipe.places()),
            recipe: Arc::new(recipe),
            tighten: self.options.tighten.clone(),
        })
    }

    /// All of a small file, such as an SBOM or a log.
    pub async fn read(&self, content: &Content) -> Result<Vec<u8>> {
        let file = self.file(content).await?;
        let mut stream = std::pin::pin!(file.stream(0..content.size));
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await {
            all.extend_from_slice(&bytes?);
        }
        Ok(all)
    }
}

pub(crate) async fn recipe(blobs: &Blobs, content: &Content) -> Result<Recipe> {
    match &content.recipe {
        Some(id) => {
            let bytes = blobs.fetch_kept(id).await?;
            let recipe = Recipe::decode(&format!("recipe {}", id.digest), &bytes)?;
            if recipe.size != content.size {
                let what = format!("is of {} bytes, the file has {}", recipe.size, content.size);
                return Err(crate::Error::corrupt(format!("recipe {}", id.digest), what));
            }
            Ok(recipe)
        }
        None => {
            let (kind, pieces) = (Kind::Other, vec![content.id()]);
            let part = crate::recipe::Part { kind, pieces, loose: None };
            Ok(Recipe { size: content.size, parts: vec![part] })
        }
    }
}

/// What is done to get the next bytes of the file.
enum Step {
    /// Pieces that lie one after the other in one pack, as they are.
    Run(Vec<(Piece, Location)>),
    One(Piece),
}

impl Step {
    fn range(&self) -> Range<u64> {
        match self {
            Self::One(piece) => piece.offset..piece.end(),
            Self::Run(run) => {
                let start = run.first().map_or(0, |(piece, _)| piece.offset);
                let end = run.last().map_or(0, |(piece, _)| piece.end());
                start..end
            }
        }
    }
}

/// How the bytes are read.
pub(crate) struct Reading {
    pub hand: Arc<dyn AtHand>,
    /// Check each piece against its id. Not needed by who checks the digest of the whole file.
    pub check: bool,
}

impl StoredFile {
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// What the parts of the file are, as the publisher said.
    pub fn segments(&self) -> Vec<Segment> {
        let mut offset = 0;
        let part = |part: &crate::recipe::Part| {
            let len = part.len();
            offset += len;
            Segment { offset: offset - len, len, kind: part.kind }
        };
        self.recipe.parts.iter().map(part).collect()
    }

    /// The bytes of a range of the file, each piece checked before it is handed out.
    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        self.stream_with(range, Reading { hand: Arc::new(()), check: true })
    }

    pub(crate) fn stream_with(
        &self,
        range: Range<u64>,
        reading: Reading,
    ) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let end = range.end.min(self.content.size);
        let range = range.start.min(end)..end;
        let this = self.clone();
        let near = self.blobs.backend().is_local();
        let ahead = if near { AHEAD_NEAR } else { AHEAD_FAR };
        let reading = Arc::new(reading);
        let planned = {
            let (this, reading, range) = (this.clone(), reading.clone(), range.clone());
            futures::stream::once(async move { this.plan(&range, &*reading.hand).await })
        };
        planned
            .flat_map(|plan| match plan {
                Ok(steps) => futures::stream::iter(steps.into_iter().map(Ok)).left_stream(),
                Err(error) => futures::stream::iter([Err(error)]).right_stream(),
            })
            .map(move |step| {
                let (this, reading, range) = (this.clone(), reading.clone(), range.clone());
                async move {
                    let step = step?;
                    let at = step.range();
                    let bytes = this.step(step, &reading).await?;
                    let from = range.start.saturating_sub(at.start).min(bytes.len() as u64);
                    let to = range.end.saturating_sub(at.start).min(bytes.len() as u64);
                    Ok(bytes.slice(from as usize..to as usize))
                }
            })
            .buffered(ahead)
    }

    async fn plan(&self, range: &Range<u64>, hand: &dyn AtHand) -> Result<Vec<Step>> {
        let first = self.pieces.partition_point(|p| p.end() <= range.start);
        let last = self.pieces.partition_point(|p| p.offset < range.end);
        let longest = if self.blobs.backend().is_local() { RUN_NEAR } else { RUN_FAR };
        let mut steps: Vec<Step> = Vec::new();
        for piece in self.pieces.get(first..last).unwrap_or_default() {
            if hand.has(&piece.id) {
                steps.push(Step::One(*piece));
                continue;
            }
            let location = self.blobs.locate(&piece.id).await?;
            if location.packed.encoding != Encoding::Raw || !piece.as_it_is() {
                steps.push(Step::One(*piece));
                continue;
            }
            if let Some(Step::Run(run)) = steps.last_mut()
                && let (Some((head, _)), Some((_, before))) = (run.first(), run.last())
                && before.pack == location.pack
                && before.packed.offset + before.packed.stored == location.packed.offset
                && piece.end() - head.offset <= longest
            {
                run.push((*piece, location));
            } else {
                steps.push(Step::Run(vec![(*piece, location)]));
            }
        }
        Ok(steps)
    }

    async fn step(&self, step: Step, reading: &Reading) -> Result<Bytes> {
        match step {
            Step::One(piece) => self.piece(&piece, &*reading.hand).await,
            Step::Run(run) => match self.run(&run, reading.check).await {
                // Repacked since the plan was made.
                Err(error) if error.is_not_found() => {
                    let mut all = Vec::new();
                    for (piece, _) in &run {
                        all.extend_from_slice(&self.piece(piece, &*reading.hand).await?);
                    }
                    Ok(all.into())
                }
                other => other,
            },
        }
    }

    async fn run(&self, run: &[(Piece, Location)], check: bool) -> Result<Bytes> {
        let (Some((_, first)), Some((_, last))) = (run.first(), run.last()) else {
            return Ok(Bytes::new());
        };
        let range = first.packed.offset..last.packed.offset + last.packed.stored;
        let bytes = self.blobs.pack_range(&first.pack, range).await?;
        if check {
            let mut rest = bytes.clone();
            for (_, location) in run {
                let stored = rest.split_to(rest.len().min(location.packed.stored as usize));
                blobs::decode(location, &stored, None)?;
            }
        }
        Ok(bytes)
    }

    /// One piece as it is in the file.
    async fn piece(&self, piece: &Piece, hand: &dyn AtHand) -> Result<Bytes> {
        if piece.as_it_is() {
            return self.blobs.fetch(&piece.id, hand).await;
        }
        // The next version's is a delta of this one, and the file does not hold it.
        let bytes = self.blobs.fetch_kept(&piece.id).await?;
        let mut filled = bytes.to_vec();
        match &piece.made {
            Made::AsItIs => {}
            Made::Table(layout) => layout.fill(&mut filled, &self.places),
            Made::Loose => filled = self.tighten(piece, &filled)?,
        }
        Ok(filled.into())
    }

    fn tighten(&self, piece: &Piece, loose: &[u8]) -> Result<Vec<u8>> {
        let Some(tighten) = &self.tighten else {
            let why = "it is kept in a form that only a program that knows its format can undo";
            return Err(Error::refused(format!("reading blob {}", piece.id.digest), why));
        };
        let bad = |what: String| Error::corrupt(format!("blob {}", piece.id.digest), what);
        let bytes = tighten(loose).map_err(|error| bad(error.to_string()))?;
        if bytes.len() as u64 != piece.len {
            return Err(bad(format!("gave {} bytes of {}", bytes.len(), piece.len)));
        }
        Ok(bytes)
    }

    /// Reads and checks every piece of the file; the error says which pack is damaged, and where.
    pub(crate) async fn check_pieces(&self) -> Result<()> {
        let mut checked = std::collections::HashSet::<BlobId>::new();
        for piece in self.pieces.iter() {
            if checked.insert(piece.id) {
                self.blobs.fetch(&piece.id, &()).await?;
            }
        }
        Ok(())
    }
}

impl Blobs {
    pub(crate) async fn pack_range(
        &self,
        pack: &crate::Digest,
        range: Range<u64>,
    ) -> Result<Bytes> {
        self.backend().get_range(&pack::key(pack), range).await
    }
}
