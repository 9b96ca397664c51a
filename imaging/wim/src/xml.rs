//! The XML of a WIM: what programs show of its images. UTF-16LE with a byte order mark.
//!
//! Parsed into elements; the known ones have typed accessors in [`ImageInfo`](crate::ImageInfo),
//! the rest stays as it was. XML that is missing or not well formed does not make a WIM
//! unreadable: what could be understood of it is kept.

use quick_xml::escape::{escape, resolve_predefined_entity, unescape};
use quick_xml::events::{BytesStart, Event};

/// An element with its text and children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    /// Text directly inside, without surrounding white space.
    pub text: String,
    pub children: Vec<Element>,
}

/// Elements deeper than this are dropped.
const MAX_DEPTH: usize = 64;

impl Element {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub fn with_text(name: &str, text: impl Into<String>) -> Self {
        Self { name: name.to_owned(), text: text.into(), ..Self::default() }
    }

    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at `path` (`WINDOWS/VERSION/BUILD`).
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('/').try_fold(self, |element, name| element.child(name))
    }

    /// The text at `path`, if it is not empty.
    pub fn text_at(&self, path: &str) -> Option<&str> {
        self.at(path).map(|element| element.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Sets the text at `path`, making the elements that lead there.
    pub fn set(&mut self, path: &str, text: impl Into<String>) {
        let mut element = self;
        for name in path.split('/') {
            let at = match element.children.iter().position(|child| child.name == name) {
                Some(at) => at,
                None => {
                    element.children.push(Self::new(name));
                    element.children.len() - 1
                }
            };
            element = &mut element.children[at];
        }
        element.text = text.into();
    }

    pub fn remove(&mut self, name: &str) {
        self.children.retain(|child| child.name != name);
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The text of a WIM's XML resource: UTF-16 by its mark or its look, or UTF-8.
pub fn decode_text(bytes: &[u8]) -> String {
    let units = |bytes: &[u8], big: bool| {
        let units: Vec<u16> = bytes
            .chunks_exact(2)
            .map(|pair| {
                let pair = [pair[0], pair[1]];
                if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
            })
            .collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => units(rest, false),
        [0xfe, 0xff, rest @ ..] => units(rest, true),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        [b'<', 0, ..] => units(bytes, false),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The root element; an empty `WIM` if there is none. Stops at the first fault and keeps what
/// came before.
pub fn parse(text: &str) -> Element {
    let mut reader = quick_xml::Reader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().check_end_names = false;
    let mut stack: Vec<Element> = Vec::new();
    let mut root: Option<Element> = None;
    let mut dropped = 0usize;
    let close = |stack: &mut Vec<Element>, root: &mut Option<Element>| {
        if let Some(mut done) = stack.pop() {
            done.text = done.text.trim().to_owned();
            match stack.last_mut() {
                Some(parent) => parent.children.push(done),
                None => {
                    root.get_or_insert(done);
                }
            }
        }
    };
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                if dropped > 0 || stack.len() >= MAX_DEPTH {
                    dropped += 1;
                } else {
                    stack.push(element_of(&start));
                }
            }
            Ok(Event::Empty(start)) => {
                if dropped == 0 && stack.len() < MAX_DEPTH {
                    stack.push(element_of(&start));
                    close(&mut stack, &mut root);
                }
            }
            Ok(Event::End(_)) => {
                if dropped > 0 {
                    dropped -= 1;
                } else {
                    close(&mut stack, &mut root);
                }
            }
            Ok(Event::Text(piece)) if dropped == 0 => {
                if let Some(top) = stack.last_mut() {
                    top.text.push_str(&piece);
                }
            }
            Ok(Event::GeneralRef(reference)) if dropped == 0 => {
                if let Some(top) = stack.last_mut() {
                    match (reference.resolve_char_ref(), resolve_predefined_entity(&reference)) {
                        (Ok(Some(char)), _) => top.text.push(char),
                        (_, Some(text)) => top.text.push_str(text),
                        _ => {}
                    }
                }
            }
            Ok(Event::CData(piece)) if dropped == 0 => {
                if let Some(top) = stack.last_mut() {
                    top.text.push_str(&piece);
                }
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(_) => {}
        }
    }
    while !stack.is_empty() {
        close(&mut stack, &mut root);
    }
    root.unwrap_or_else(|| Element::new("WIM"))
}

fn element_of(start: &BytesStart<'_>) -> Element {
    let name = start.name().as_ref().to_owned();
    let attributes = start
        .attributes()
        .with_checks(false)
        .flatten()
        .map(|attribute| {
            let value = unescape(&attribute.value)
                .map_or_else(|_| attribute.value.to_string(), |value| value.into_owned());
            (attribute.key.as_ref().to_owned(), value)
        })
        .collect();
    Element { name, attributes, ..Element::default() }
}

/// UTF-16LE with its mark, no declaration, no white space: as Microsoft's tools write it.
pub fn encode(root: &Element) -> Vec<u8> {
    let mut text = String::new();
    write_element(root, &mut text);
    let mut out = vec![0xff, 0xfe];
    out.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    out
}

/// Recursive: the parser bounds the depth.
fn write_element(element: &Element, out: &mut String) {
    out.push('<');
    out.push_str(&element.name);
    for (key, value) in &element.attributes {
        out.push(' ');
        out.push_str(key);
        out.push_str("=\"");
        out.push_str(&escape(printable(value)));
        out.push('"');
    }
    out.push('>');
    out.push_str(&escape(printable(&element.text)));
    for child in &element.children {
        write_element(child, out);
    }
    out.push_str("</");
    out.push_str(&element.name);
    out.push('>');
}

/// Without the characters XML 1.0 cannot hold.
fn printable(text: &str) -> String {
    text.chars().filter(|c| *c >= ' ' || matches!(c, '\t' | '\n' | '\r')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_markup_and_references_comes_back() {
        let mut root = Element::new("WIM");
        let mut image = Element::with_text("IMAGE", "");
        image.attributes.push(("INDEX".into(), "1 & \"<".into()));
        image.set("NAME", "a <b> & 'c' \u{1f600}");
        root.children.push(image);
        assert_eq!(parse(&decode_text(&encode(&root))), root);
    }

    #[test]
    fn broken_xml_keeps_what_came_before_the_fault() {
        let root = parse("<WIM><IMAGE INDEX=\"1\"><NAME>one</NAME><OOPS");
        assert_eq!(root.text_at("IMAGE/NAME"), Some("one"));
        assert_eq!(parse("").name, "WIM");
        assert_eq!(parse("&&&<<<").name, "WIM");
    }

    #[test]
    fn deep_nesting_does_not_overflow_the_stack() {
        let text = "<a>".repeat(100_000);
        parse(&text);
    }
}
