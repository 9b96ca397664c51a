//! The context of decoding: where complaints go, and where files are.

use super::diagnostic::Diagnostic;
use super::expression::ExpressionError;
use super::fields::{MapReader, nearest_hint};
use super::node::{Entry, Node, Value};
use super::span::{Position, Sources, Span};
use super::text::Text;
use std::path::{Path, PathBuf};

pub struct Cx<'a> {
    pub sources: &'a Sources,
    pub problems: Vec<Diagnostic>,
}

impl<'a> Cx<'a> {
    pub fn new(sources: &'a Sources) -> Self {
        Self { sources, problems: Vec::new() }
    }

    pub fn error(&mut self, at: Span, message: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at, self.sources));
    }

    pub fn error_hint(&mut self, at: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at, self.sources).hint(hint));
    }

    pub fn warn_hint(&mut self, at: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::warning(message).at(at, self.sources).hint(hint));
    }

    /// Adds a complaint, once.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.problems.contains(&diagnostic) {
            self.problems.push(diagnostic);
        }
    }

    pub fn expression_error(&mut self, at: Span, error: ExpressionError) {
        let at = self.sources.find_within(at, &error.part);
        self.push(Diagnostic::error(error.message).at(at, self.sources).hint_opt(error.hint));
    }

    /// `node` is not what is needed. Silent for a value that is unknown.
    pub fn expected(&mut self, node: &Node, what: &str) {
        if !matches!(node.value, Value::Unknown) {
            let at = if matches!(node.value, Value::Scalar(_)) {
                node.span
            } else {
                self.start_of(node.span)
            };
            self.error(at, format!("expected {what}, found {}", node.kind()));
        }
    }

    /// The first line of a span: enough to show where a long map begins.
    pub fn start_of(&self, span: Span) -> Span {
        let end = Position { column: span.start.column + 1, ..span.start };
        if span.end.line == span.start.line { span } else { Span { end, ..span } }
    }

    /// A single value that is known now; None after a complaint.
    pub fn known(&mut self, node: &Node, what: &str) -> Option<String> {
        let Value::Scalar(scalar) = &node.value else {
            self.expected(node, what);
            return None;
        };
        self.known_text(&scalar.text, node.span)
    }

    /// The text, if it does not wait for a running build and shows no secret.
    pub fn known_text(&mut self, text: &Text, at: Span) -> Option<String> {
        if let Some(name) = text.first_runtime() {
            let written = format!("${{build.{}}}", name.as_str());
            let at = self.sources.find_within(at, &written);
            self.error(
                at,
                format!("`{written}` is known only while building and cannot stand here"),
            );
            return None;
        }
        if text.is_sensitive() {
            self.error_hint(
                at,
                "a sensitive value cannot stand here, as it would be shown",
                "use it in scripts, environments and answer files, or make the variable not sensitive",
            );
            return None;
        }
        text.known()
    }

    pub fn word(&mut self, node: &Node) -> Option<String> {
        self.known(node, "a word")
    }

    pub fn unknown_word(&mut self, node: &Node, word: &str, known: &[&str]) {
        let hint = match super::fields::nearest(word, known) {
            Some(_) => nearest_hint(word, known),
            None => format!("one of: {}", known.join(", ")),
        };
        self.error_hint(
            node.span,
            format!("`{word}` is none of the values that may stand here"),
            hint,
        );
    }

    pub fn not_exactly_one(
        &mut self,
        reader: &MapReader<'_>,
        keys: &[&str],
        given: &[(&'static str, &Entry)],
    ) {
        let what = reader.what();
        let list: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        let list = list.join(", ");
        match given {
            [(first, _), (_, second), ..] => {
                let message =
                    format!("`{first}` and `{}` exclude each other in {what}", second.key);
                self.error(second.key_span, message);
            }
            _ => {
                let at = self.start_of(reader.node().span);
                // A map whose only key is a misspelt one gets the better complaint from `finish`.
                let unknown_only = reader.node().as_map().is_some_and(|map| {
                    map.entries
                        .iter()
                        .any(|entry| super::fields::nearest(&entry.key, keys).is_some())
                });
                if !unknown_only {
                    self.error(at, format!("{what} needs one of {list}"));
                }
            }
        }
    }

    /// A path as written in a file, relative to the folder of that file.
    pub fn path(&self, written: &str, at: Span) -> PathBuf {
        let path = Path::new(written);
        if path.is_absolute() {
            return path.to_owned();
        }
        super::load::normal(&self.sources.folder(at.file).join(path))
    }

    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == super::diagnostic::Severity::Error)
    }
}
