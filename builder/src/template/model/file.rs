//! Files and folders a template names: scripts, media, inputs.

use crate::content_hash::{ContentHash, ContentHasher, Digest};
use crate::template::cx::Cx;
use crate::template::fields::{Field, FieldShape, MapReader, Need, Shape, StructShape, choices};
use crate::template::node::{Node, Value};
use crate::template::span::Span;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

choices! {
    /// A file, or a folder with all that is in it.
    pub enum FileKind {
        /// One file.
        File = "file",
        /// A folder; its digest covers the sorted relative paths and the contents.
        Dir = "dir",
    }
}

/// Where the bytes of an input are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// Already joined with the folder of the file it was written in.
    Path(PathBuf),
    Url(String),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

/// A file or folder that goes into a build; its bytes are part of a key.
#[derive(Clone, Debug)]
pub struct FileRef {
    pub location: Location,
    /// What its digest must be, if the template says so.
    pub sha256: Option<Digest>,
    pub kind: FileKind,
    /// Where it was written, for errors.
    pub span: Span,
}

impl PartialEq for FileRef {
    fn eq(&self, other: &Self) -> bool {
        (&self.location, self.sha256, self.kind) == (&other.location, other.sha256, other.kind)
    }
}

impl FileRef {
    /// The last part of the path or address.
    pub fn file_name(&self) -> String {
        match &self.location {
            Location::Path(path) => path.file_name().map_or_else(
                || path.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            ),
            Location::Url(url) => {
                let path = url.split(['?', '#']).next().unwrap_or(url);
                path.trim_end_matches('/').rsplit('/').next().unwrap_or(path).to_owned()
            }
        }
    }

    /// The path, where it is not an address.
    pub fn path(&self) -> Option<&Path> {
        match &self.location {
            Location::Path(path) => Some(path),
            Location::Url(_) => None,
        }
    }

    fn fields() -> Vec<FieldShape> {
        const PLACES: &[&str] = &["path", "url"];
        let field = |key, doc, shape, need| FieldShape { key, doc, shape, need, keyed: false };
        vec![
            field(
                "path",
                "Path, relative to the file it is written in.",
                Shape::Text,
                Need::OneOf(PLACES),
            ),
            field(
                "url",
                "Address to fetch it from; needs `sha256` or a lock file.",
                Shape::Text,
                Need::OneOf(PLACES),
            ),
            field("sha256", "What its digest must be.", Digest::shape(), Need::Optional(None)),
            field(
                "kind",
                "A file, or a folder with all that is in it.",
                FileKind::shape(),
                Need::Optional(Some(json!("file"))),
            ),
        ]
    }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://", "file://"].iter().any(|scheme| text.starts_with(scheme))
}

fn location(written: &str, span: Span, cx: &mut Cx) -> Option<Location> {
    if written.is_empty() {
        cx.error(span, "the path is empty");
        return None;
    }
    if is_url(written) {
        return Some(Location::Url(written.to_owned()));
    }
    if let Some((scheme, _)) = written.split_once("://") {
        cx.error_hint(
            span,
            format!("gilt cannot fetch `{scheme}://`"),
            "use a path, http:// or https://",
        );
        return None;
    }
    Some(Location::Path(cx.path(written, span)))
}

/// What a lock file says of an address.
fn locked(location: &Location, cx: &Cx) -> Option<Digest> {
    match location {
        Location::Url(url) => cx.sources.url_digest(url),
        Location::Path(_) => None,
    }
}

impl ContentHash for FileRef {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        self.kind.content_hash(hasher);
        hasher.file(&self.file_name(), self);
    }
}

impl Field for FileRef {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        if let Value::Scalar(_) = node.value {
            let written = cx.known(node, "a path")?;
            let location = location(&written, node.span, cx)?;
            let sha256 = locked(&location, cx);
            return Some(Self { location, sha256, kind: FileKind::File, span: node.span });
        }
        let mut reader = MapReader::new(node, "a file", cx)?;
        let places = ["path", "url"];
        let given: Vec<_> =
            places.iter().filter_map(|key| reader.entry(key).map(|entry| (*key, entry))).collect();
        let sha256 = reader.optional("sha256", cx, || None);
        let kind = reader.optional("kind", cx, || FileKind::File);
        let place = match given.as_slice() {
            [(_, entry)] => cx
                .known(&entry.node, "a path or address")
                .and_then(|written| location(&written, entry.node.span, cx))
                .map(|location| (location, entry.node.span)),
            _ => {
                cx.not_exactly_one(&reader, &places, &given);
                None
            }
        };
        reader.finish(&["path", "url", "sha256", "kind"], cx);
        let (location, span) = place?;
        if let (Location::Url(_), Some(FileKind::Dir)) = (&location, kind) {
            cx.error(span, "a folder cannot be fetched from an address");
            return None;
        }
        let sha256 = sha256?.or_else(|| locked(&location, cx));
        Some(Self { location, sha256, kind: kind?, span })
    }

    fn shape() -> Shape {
        let map = StructShape {
            name: "File",
            doc: "A file or folder that goes into a build, with the digest it must have.",
            fields: Self::fields,
        };
        Shape::Either(vec![
            Shape::Form { words: "path or address", example: "scripts/install.sh" },
            Shape::Struct(map),
        ])
    }

    fn to_json(&self) -> Json {
        let mut map = serde_json::Map::new();
        match &self.location {
            Location::Path(path) => map.insert("path".into(), path.display().to_string().into()),
            Location::Url(url) => map.insert("url".into(), url.as_str().into()),
        };
        if let Some(digest) = self.sha256 {
            map.insert("sha256".into(), digest.to_json());
        }
        if self.kind == FileKind::Dir {
            map.insert("kind".into(), "dir".into());
        }
        Json::Object(map)
    }
}

/// The installer's medium or the disk a build begins from: its name is not part of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Medium(pub FileRef);

impl ContentHash for Medium {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.file("medium", &self.0);
    }
}

impl Field for Medium {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let file = FileRef::decode(node, cx)?;
        if file.kind == FileKind::Dir {
            cx.error(node.span, "a medium is a file, not a folder");
            return None;
        }
        Some(Self(file))
    }

    fn shape() -> Shape {
        FileRef::shape()
    }

    fn to_json(&self) -> Json {
        self.0.to_json()
    }
}

/// A folder with all that is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Folder(pub FileRef);

impl ContentHash for Folder {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        self.0.content_hash(hasher);
    }
}

impl Field for Folder {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let file = FileRef::decode(node, cx)?;
        if let Location::Url(_) = file.location {
            cx.error(node.span, "a folder cannot be fetched from an address");
            return None;
        }
        Some(Self(FileRef { kind: FileKind::Dir, ..file }))
    }

    fn shape() -> Shape {
        Shape::Form { words: "path of a folder", example: "http" }
    }

    fn to_json(&self) -> Json {
        self.0.to_json()
    }
}
