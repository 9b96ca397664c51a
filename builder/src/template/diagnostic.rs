//! What is wrong with a template, in the shape a person wants: file, line, column, the line itself
//! with a mark under it, and the way out.

use super::span::{Position, Sources, Span};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// One complaint. It carries its own snippet, so it outlives the files it speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    pub at: Option<Place>,
    pub hint: Option<String>,
}

/// Where a complaint points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub path: PathBuf,
    pub start: Position,
    pub end: Position,
    /// The text of the first line of the place.
    pub line_text: String,
}

impl Diagnostic {
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), at: None, hint: None }
    }

    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    pub fn at(mut self, span: Span, sources: &Sources) -> Self {
        self.at = Some(Place {
            path: sources.path(span.file).to_owned(),
            start: span.start,
            end: span.end,
            line_text: sources.line(span.file, span.start.line).to_owned(),
        });
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn hint_opt(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}", self.message)?;
        if let Some(place) = &self.at {
            let Place { path, start, end, line_text } = place;
            let number = start.line.to_string();
            let pad = " ".repeat(number.len());
            let text = line_text.replace('\t', " ");
            let room = text.chars().count().saturating_sub(start.column as usize - 1);
            let marked = if end.line == start.line {
                end.column.saturating_sub(start.column)
            } else {
                u32::MAX
            };
            let marks = "^".repeat((marked as usize).min(room).max(1));
            let before = " ".repeat(start.column as usize - 1);
            write!(f, "\n{pad}--> {}:{}:{}", path.display(), start.line, start.column)?;
            write!(f, "\n{pad} |\n{number} | {}\n{pad} | {before}{marks}", text.trim_end())?;
            if let Some(hint) = &self.hint {
                write!(f, "\n{pad} = hint: {hint}")?;
            }
        } else if let Some(hint) = &self.hint {
            write!(f, "\n  = hint: {hint}")?;
        }
        Ok(())
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("severity", &self.severity)?;
        map.serialize_entry("message", &self.message)?;
        if let Some(place) = &self.at {
            map.serialize_entry("path", &place.path)?;
            map.serialize_entry("line", &place.start.line)?;
            map.serialize_entry("column", &place.start.column)?;
            map.serialize_entry("end_line", &place.end.line)?;
            map.serialize_entry("end_column", &place.end.column)?;
        }
        if let Some(hint) = &self.hint {
            map.serialize_entry("hint", hint)?;
        }
        map.end()
    }
}

/// One or more complaints: the template is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
