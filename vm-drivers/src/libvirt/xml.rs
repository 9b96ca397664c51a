//! XML as a small tree, written by quick-xml: no text is ever pasted into markup.

use std::borrow::Cow;

use quick_xml::{
    Writer,
    events::{BytesEnd, BytesStart, BytesText, Event},
};

/// An element with its attributes and what is in it.
#[derive(Clone, Debug)]
pub struct Element {
    name: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Element>,
    text: Option<String>,
}

pub fn el(name: &'static str) -> Element {
    Element { name, attributes: Vec::new(), children: Vec::new(), text: None }
}

impl Element {
    pub fn attr(mut self, name: &'static str, value: impl ToString) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    pub fn child(mut self, child: Element) -> Self {
        self.children.push(child);
        self
    }

    pub fn children(mut self, children: impl IntoIterator<Item = Element>) -> Self {
        self.children.extend(children);
        self
    }

    pub fn text(mut self, text: impl ToString) -> Self {
        self.text = Some(text.to_string());
        self
    }

    /// The text of the document, or the first value XML 1.0 has no way to write.
    pub fn to_xml(&self) -> Result<String, String> {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        self.write(&mut writer)?;
        String::from_utf8(writer.into_inner()).map_err(|e| e.to_string())
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) -> Result<(), String> {
        let failed = |e: std::io::Error| e.to_string();
        let mut start = BytesStart::new(self.name);
        for (name, value) in &self.attributes {
            start.push_attribute((*name, expressible(value)?.as_ref()));
        }
        if self.children.is_empty() && self.text.is_none() {
            return writer.write_event(Event::Empty(start)).map_err(failed);
        }
        writer.write_event(Event::Start(start)).map_err(failed)?;
        if let Some(text) = &self.text {
            let text = expressible(text)?;
            writer.write_event(Event::Text(BytesText::new(&text))).map_err(failed)?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.write_event(Event::End(BytesEnd::new(self.name))).map_err(failed)
    }
}

/// Control characters have no form in XML 1.0; line breaks and tabs in attributes would come out as
/// spaces. Nothing we write needs any of them.
fn expressible(text: &str) -> Result<Cow<'_, str>, String> {
    match text.chars().find(|c| c.is_control() || ['\u{fffe}', '\u{ffff}'].contains(c)) {
        Some(_) => Err(text.escape_debug().to_string()),
        None => Ok(Cow::Borrowed(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_escaped() {
        let tree =
            el("a").attr("path", "/x/<&'\">/y").child(el("b").text("1 < 2 & \"3\"")).child(el("c"));
        assert_eq!(
            tree.to_xml().unwrap(),
            "<a path=\"/x/&lt;&amp;&apos;&quot;&gt;/y\">\n  <b>1 &lt; 2 &amp; &quot;3&quot;</b>\n  <c/>\n</a>"
        );
    }

    #[test]
    fn what_xml_cannot_hold_is_refused() {
        assert_eq!(el("a").attr("b", "x\u{1}y").to_xml().unwrap_err(), "x\\u{1}y");
        assert!(el("a").text("x\ny").to_xml().is_err());
    }
}
