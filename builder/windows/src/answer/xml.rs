//! The little XML that answer files need: elements, attributes, text.

use quick_xml::events::Event;
use quick_xml::reader::Reader;

/// Answer files of users are small; what is larger is none.
pub const MAX_BYTES: usize = 4 << 20;
/// The deepest setting of the documentation lies 10 below the root.
const MAX_DEPTH: usize = 32;
const MAX_ELEMENTS: usize = 100_000;

/// One element; either text or children, as in all answer files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
    /// Line and column of the source, from 1; zero for what gilt made.
    pub at: (u32, u32),
}

/// Why a text is no answer file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {what}")]
pub struct XmlError {
    pub line: u32,
    pub column: u32,
    pub what: String,
}

impl Element {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    pub fn text(name: &str, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::new(name) }
    }

    pub fn with(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    pub fn with_all(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    pub fn leaf(self, name: &str, text: impl Into<String>) -> Self {
        self.with(Element::text(name, text))
    }

    /// An item of a list: `wcm:action="add"`.
    pub fn item(name: &str) -> Self {
        let mut element = Self::new(name);
        element.attributes.push(("wcm:action".into(), "add".into()));
        element
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element at a path of names, from this one down.
    pub fn find(&self, path: &[&str]) -> Option<&Element> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    pub(super) fn error(&self, what: impl Into<String>) -> XmlError {
        XmlError { line: self.at.0, column: self.at.1, what: what.into() }
    }

    /// The document, indented by two, lines ended by LF.
    pub fn document(&self) -> String {
        let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        out.push_str(&indent);
        out.push('<');
        out.push_str(&self.name);
        for (name, value) in &self.attributes {
            out.push_str(&format!(" {name}=\"{}\"", escape(value)));
        }
        if self.children.is_empty() {
            if self.text.is_empty() {
                out.push_str(&format!("></{}>\n", self.name));
            } else {
                out.push_str(&format!(">{}</{}>\n", escape(&self.text), self.name));
            }
            return;
        }
        out.push_str(">\n");
        for child in &self.children {
            child.write(out, depth + 1);
        }
        out.push_str(&format!("{indent}</{}>\n", self.name));
    }
}

/// Characters XML has no way to write are dropped: Setup would reject the whole file.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(c))),
            c if u32::from(c) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
    out
}

/// Reads a document; its root element.
pub fn parse(text: &str) -> Result<Element, XmlError> {
    if text.len() > MAX_BYTES {
        let what = format!("larger than {MAX_BYTES} bytes; that is no answer file");
        return Err(XmlError { line: 1, column: 1, what });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut count = 0;
    loop {
        let start = usize::try_from(reader.buffer_position()).unwrap_or(text.len());
        let at = place(text, start);
        let fail = |what: String| XmlError { line: at.0, column: at.1, what };
        let event = reader.read_event().map_err(|error| {
            let at = place(text, usize::try_from(reader.error_position()).unwrap_or(start));
            XmlError { line: at.0, column: at.1, what: error.to_string() }
        })?;
        let (element, ends) = match event {
            Event::Start(tag) => (Some(begin(&tag, at)?), false),
            Event::Empty(tag) => (Some(begin(&tag, at)?), true),
            Event::End(_) => (None, true),
            Event::Text(piece) => {
                let piece = piece.as_ref();
                match open.last_mut() {
                    Some(last) => last.text.push_str(piece),
                    None if piece.trim().is_empty() => {}
                    None => return Err(fail("text outside of the root element".into())),
                }
                continue;
            }
            Event::CData(piece) => {
                let piece = piece.as_ref();
                if let Some(last) = open.last_mut() {
                    last.text.push_str(piece);
                }
                continue;
            }
            Event::GeneralRef(name) => {
                let c = match name.resolve_char_ref() {
                    Ok(Some(c)) => c,
                    Ok(None) => match name.as_ref() {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        _ => return Err(fail("an entity answer files do not know".into())),
                    },
                    Err(error) => return Err(fail(error.to_string())),
                };
                if let Some(last) = open.last_mut() {
                    last.text.push(c);
                }
                continue;
            }
            Event::DocType(_) => return Err(fail("an answer file has no DOCTYPE".into())),
            Event::Eof => return Err(fail("the document ends inside an element".into())),
            _ => continue,
        };
        if let Some(element) = element {
            count += 1;
            if open.len() >= MAX_DEPTH || count > MAX_ELEMENTS {
                return Err(fail("nested too deep, or too many elements".into()));
            }
            open.push(element);
        }
        if !ends {
            continue;
        }
        let Some(mut done) = open.pop() else {
            return Err(fail("an end without a beginning".into()));
        };
        if !done.children.is_empty() {
            if !done.text.trim().is_empty() {
                return Err(done.error(format!("`{}` has text beside its elements", done.name)));
            }
            done.text.clear();
        }
        match open.last_mut() {
            Some(parent) => parent.children.push(done),
            None => return Ok(done),
        }
    }
}

fn begin(tag: &quick_xml::events::BytesStart<'_>, at: (u32, u32)) -> Result<Element, XmlError> {
    let fail = |what: String| XmlError { line: at.0, column: at.1, what };
    let name = tag.name().as_ref().to_owned();
    let mut element = Element { name, at, ..Element::default() };
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(|error| fail(error.to_string()))?;
        let value = quick_xml::escape::unescape(&attribute.value)
            .map_err(|error| fail(error.to_string()))?;
        element.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(element)
}

/// Line and column of a byte of `text`, both from 1.
fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(before.len() - start + 1).unwrap_or(u32::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let element = Element::new("a")
            .leaf("b", "x < y & \"z\" > 'q'\r\n\ttab")
            .with(Element::item("c").leaf("d", ""))
            .leaf("e", "ü");
        let mut back = parse(&element.document()).unwrap();
        fn forget(element: &mut Element) {
            element.at = (0, 0);
            element.children.iter_mut().for_each(forget);
        }
        forget(&mut back);
        assert_eq!(back, element);
    }

    #[test]
    fn what_is_broken_is_told_with_its_place() {
        for (text, place) in [
            ("<a>\n  <b>x</c>\n</a>", "2:"),
            ("<a>", "1:4"),
            ("<!DOCTYPE a [<!ENTITY e \"x\">]><a>&e;</a>", "1:1"),
            ("<a>&nosuch;</a>", "1:4"),
            ("<a>x<b/></a>", "1:1"),
            ("", "1:1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.starts_with(place), "{text}: {error}");
        }
        assert!(parse(&"<a>".repeat(100)).is_err());
    }
}
