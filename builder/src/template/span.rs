//! Where something was written: files, positions, spans.

use crate::content_hash::Digest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file that was read for a template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u32);

/// 1-based line and column, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// A piece of a file, from `start` up to but without `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub file: FileId,
    pub start: Position,
    pub end: Position,
}

/// Every file that was read, with its text, so that an error can show the line.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<SourceFile>,
    /// What a lock file says of addresses.
    url_digests: BTreeMap<String, Digest>,
}

#[derive(Clone, Debug)]
struct SourceFile {
    path: PathBuf,
    text: String,
}

impl Sources {
    pub fn add(&mut self, path: &Path, text: String) -> FileId {
        let id = FileId(u32::try_from(self.files.len()).unwrap_or(u32::MAX));
        self.files.push(SourceFile { path: path.to_owned(), text });
        id
    }

    pub fn set_url_digests(&mut self, digests: BTreeMap<String, Digest>) {
        self.url_digests = digests;
    }

    pub fn url_digest(&self, url: &str) -> Option<Digest> {
        self.url_digests.get(url).copied()
    }

    pub fn path(&self, file: FileId) -> &Path {
        self.get(file).map_or(Path::new(""), |file| &file.path)
    }

    pub fn text(&self, file: FileId) -> &str {
        self.get(file).map_or("", |file| &file.text)
    }

    /// Every file that was read, in the order of reading.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The folder that relative paths written in `file` are relative to.
    pub fn folder(&self, file: FileId) -> &Path {
        match self.path(file).parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("."),
        }
    }

    /// `path:line` of the start of a span, for logs.
    pub fn location(&self, span: Span) -> String {
        format!("{}:{}", self.path(span.file).display(), span.start.line)
    }

    /// One line's text, without its end.
    pub fn line(&self, file: FileId, line: u32) -> &str {
        let index = (line as usize).saturating_sub(1);
        self.text(file).lines().nth(index).unwrap_or("")
    }

    /// The first place of `needle` inside `span`, or `span` itself where it is not found literally
    /// (a value with escapes, or one that came through an alias).
    pub fn find_within(&self, span: Span, needle: &str) -> Span {
        let lines = self.text(span.file).lines().enumerate();
        let first = (span.start.line as usize).saturating_sub(1);
        let last = (span.end.line as usize).max(first + 1);
        for (index, line) in lines.skip(first).take(last - first) {
            let from = if index == first { span.start.column as usize - 1 } else { 0 };
            let start_byte = line.char_indices().nth(from).map_or(line.len(), |(at, _)| at);
            if let Some(at) = line[start_byte..].find(needle) {
                let column = from + line[start_byte..start_byte + at].chars().count() + 1;
                let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let start = Position { line: number(index + 1), column: number(column) };
                let width = number(needle.chars().count());
                let end = Position { column: start.column.saturating_add(width), ..start };
                return Span { file: span.file, start, end };
            }
        }
        span
    }

    fn get(&self, file: FileId) -> Option<&SourceFile> {
        self.files.get(file.0 as usize)
    }
}
