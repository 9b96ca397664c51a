//! YAML text -> [`Node`] tree, with positions.
//!
//! Built on the events of `saphyr-parser`. What YAML can and a template should not is refused
//! here: several documents, keys that are not text, a key twice, tags, merge keys.

use super::diagnostic::Diagnostic;
use super::node::{Entry, Map, Node, Value};
use super::span::{FileId, Position, Sources, Span};
use super::text::Text;
use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;

/// Deeper than any template is; keeps the passes over the tree from running out of stack.
const MAX_DEPTH: usize = 48;
/// More than any template has; an alias of an alias of an alias ends here.
const MAX_NODES: usize = 200_000;

/// The tree of `file`. Complaints are added to `problems`; None where there is nothing to go on with.
pub fn parse(file: FileId, sources: &Sources, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let text = sources.text(file);
    let mut builder = Builder {
        file,
        sources,
        problems,
        stack: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        nodes: 0,
    };
    let mut parser = Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut documents = 0;
    loop {
        match parser.next_event() {
            None => break,
            Some(Err(error)) => {
                let mark = *error.marker();
                let at = builder.span(mark, mark);
                builder.syntax_error(at, error.info());
                return None;
            }
            Some(Ok((event, span))) => {
                let at = builder.span(span.start, span.end);
                match event {
                    Event::StreamEnd => break,
                    Event::DocumentStart(_) => {
                        documents += 1;
                        if documents > 1 {
                            builder.error(
                                at,
                                "a template is one YAML document, here a second one begins",
                            );
                            return None;
                        }
                    }
                    event => {
                        if !builder.event(event, at) {
                            return None;
                        }
                    }
                }
            }
        }
    }
    if builder.root.is_none() {
        let start = Position { line: 1, column: 1 };
        builder.error(Span { file, start, end: start }, "the file is empty");
    }
    builder.root
}

struct Builder<'a> {
    file: FileId,
    sources: &'a Sources,
    problems: &'a mut Vec<Diagnostic>,
    stack: Vec<Open>,
    /// Finished nodes that have an anchor, with the number of nodes in each.
    anchors: HashMap<usize, (Node, usize)>,
    root: Option<Node>,
    nodes: usize,
}

/// A list or map that has not ended yet.
struct Open {
    span: Span,
    anchor: usize,
    nodes_before: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map { map: Map, key: Option<(String, Span)> },
}

impl Builder<'_> {
    fn span(&self, start: saphyr_parser::Marker, end: saphyr_parser::Marker) -> Span {
        let position = |mark: saphyr_parser::Marker| Position {
            line: u32::try_from(mark.line()).unwrap_or(u32::MAX).max(1),
            column: u32::try_from(mark.col()).unwrap_or(u32::MAX).saturating_add(1),
        };
        Span { file: self.file, start: position(start), end: position(end) }
    }

    fn error(&mut self, at: Span, message: &str) {
        self.problems.push(Diagnostic::error(message).at(at, self.sources));
    }

    fn syntax_error(&mut self, at: Span, info: &str) {
        let line = self.sources.line(at.file, at.start.line);
        let after = self.sources.line(at.file, at.start.line + 1);
        let before = self.sources.line(at.file, at.start.line.saturating_sub(1));
        let hint = if [line, before].iter().any(|line| braces_unquoted(line)) {
            Some("put values that hold ${…} in quotes where they stand inside { } or [ ]")
        } else if [line, after].iter().any(|line| line.contains('\t')) {
            Some("YAML is indented with spaces; here is a tab")
        } else if line.contains(": ") && line.matches(": ").count() > 1 {
            Some("put a value that holds `: ` in quotes")
        } else {
            None
        };
        let diagnostic = Diagnostic::error(format!("not valid YAML: {info}"))
            .at(at, self.sources)
            .hint_opt(hint.map(str::to_owned));
        self.problems.push(diagnostic);
    }

    /// False: give up, the complaint is made.
    fn event(&mut self, event: Event<'_>, at: Span) -> bool {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.scalar(text, style, anchor, at)
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.open(anchor, at, Kind::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.open(anchor, at, Kind::Map { map: Map::default(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(at),
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                None => {
                    self.error(at, "this alias stands inside what it refers to");
                    false
                }
                Some((node, nodes)) => {
                    let (node, nodes) = (node.clone(), *nodes);
                    self.nodes += nodes;
                    self.place(node)
                }
            },
            _ => true,
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Span) {
        if let Some(tag) = tag {
            let message = format!("templates have no YAML tags, here is `{tag}`");
            self.error(at, &message);
        }
    }

    fn scalar(&mut self, text: Cow<'_, str>, style: ScalarStyle, anchor: usize, at: Span) -> bool {
        let plain = style == ScalarStyle::Plain;
        if let Some(Open { kind: Kind::Map { key: key @ None, .. }, .. }) = self.stack.last_mut() {
            *key = Some((text.clone().into_owned(), at));
            if plain && text == "<<" {
                let diagnostic = Diagnostic::error("templates have no YAML merge keys")
                    .at(at, self.sources)
                    .hint("put what is shared in a file of its own and `include:` it");
                self.problems.push(diagnostic);
            }
            return true;
        }
        let node = Node::scalar(at, Text::literal(text), plain);
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), 1));
        }
        self.place(node)
    }

    fn open(&mut self, anchor: usize, span: Span, kind: Kind) -> bool {
        if let Some(Open { kind: Kind::Map { key: None, .. }, .. }) = self.stack.last() {
            self.error(span, "a key must be text");
            return false;
        }
        if self.stack.len() >= MAX_DEPTH {
            self.error(span, "lists and maps are nested too deeply");
            return false;
        }
        self.stack.push(Open { span, anchor, nodes_before: self.nodes, kind });
        true
    }

    fn close(&mut self, at: Span) -> bool {
        let Some(open) = self.stack.pop() else { return true };
        let value = match open.kind {
            Kind::List(items) => Value::List(items),
            Kind::Map { map, .. } => Value::Map(map),
        };
        let node = Node::new(Span { end: at.end, ..open.span }, value);
        if open.anchor != 0 {
            let nodes = self.nodes - open.nodes_before + 1;
            self.anchors.insert(open.anchor, (node.clone(), nodes));
        }
        self.place(node)
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node) -> bool {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            self.error(node.span, "too many values");
            return false;
        }
        match self.stack.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Kind::List(items)) => items.push(node),
            Some(Kind::Map { map, key }) => {
                let Some((name, key_span)) = key.take() else {
                    self.error(node.span, "a key must be text");
                    return false;
                };
                if let Some(first) = map.get(&name) {
                    let line = first.key_span.start.line;
                    let message = format!("`{name}` is given twice, first in line {line}");
                    self.error(key_span, &message);
                } else {
                    map.entries.push(Entry { key: name, key_span, node });
                }
            }
        }
        true
    }
}

/// `${` stands in the line inside { } or [ ] and outside quotes.
fn braces_unquoted(line: &str) -> bool {
    let mut quote = None;
    let mut depth = 0;
    let mut previous = ' ';
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') if previous == '$' && depth > 0 => return true,
            (None, '{' | '[') => depth += 1,
            (None, '}' | ']') => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    false
}
