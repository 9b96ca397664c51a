//! Key-value pairs: `Msvm_KvpExchangeDataItem` as the XML of an embedded instance.
//!
//! The guest writes the items, so nothing about them is believed: sizes are capped, entities other than
//! XML's five and numbers are errors, and there is no DTD.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A name has at most 255, a value 1023 characters of UTF-16 (the registry's side of the exchange);
/// the XML around them, with each character as an entity, stays below this.
const MAX_ITEM: usize = 64 << 10;
/// More items than any guest has.
const MAX_ITEMS: usize = 4096;
const MAX_NAME: usize = 255;
const MAX_DATA: usize = 1023;

/// A pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub name: String,
    pub data: String,
}

impl Item {
    /// A pair within the limits of the exchange.
    pub fn new(name: &str, data: &str) -> Result<Self> {
        let long = |text: &str, max| text.encode_utf16().count() > max;
        let control =
            |c: char| (c.is_control() && !matches!(c, '\t' | '\n' | '\r')) || c == '\u{fffe}';
        if name.is_empty() || long(name, MAX_NAME) || long(data, MAX_DATA) {
            return Err(invalid(format!(
                "{name:.40}: a name has 1 to 255 characters, a value up to 1023"
            )));
        }
        if name.chars().chain(data.chars()).any(|c| control(c) || c == '\u{ffff}') {
            return Err(invalid(format!("{name:.40}: XML cannot carry a character of it")));
        }
        Ok(Self { name: name.into(), data: data.into() })
    }
}

/// What the host answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvpAnswer {
    /// What the integration services tell by themselves.
    pub intrinsic: Vec<String>,
    /// What the guest wrote under `HKLM\SOFTWARE\Microsoft\Virtual Machine\Auto` and `…\Guest`.
    pub guest: Vec<String>,
}

impl KvpAnswer {
    pub fn intrinsic(&self) -> Result<Vec<Item>> {
        parse_all(&self.intrinsic)
    }

    pub fn guest(&self) -> Result<Vec<Item>> {
        parse_all(&self.guest)
    }
}

fn parse_all(items: &[String]) -> Result<Vec<Item>> {
    if items.len() > MAX_ITEMS {
        return Err(invalid(format!("{} items", items.len())));
    }
    items.iter().filter(|xml| !xml.trim().is_empty()).map(|xml| parse_item(xml)).collect()
}

fn invalid(reason: String) -> Error {
    Error::Invalid { what: "key-value item", reason }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(out, "&#{};", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// The embedded instance for `AddKvpItems`; source 0 is the host.
pub fn emit_item(item: &Item) -> String {
    let property = |name: &str, kind: &str, value: &str| {
        format!(
            r#"<PROPERTY NAME="{name}" TYPE="{kind}"><VALUE>{}</VALUE></PROPERTY>"#,
            escape(value)
        )
    };
    format!(
        r#"<INSTANCE CLASSNAME="Msvm_KvpExchangeDataItem">{}{}{}</INSTANCE>"#,
        property("Name", "string", &item.name),
        property("Data", "string", &item.data),
        property("Source", "uint16", "0")
    )
}

fn unescape(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let end =
            rest.find(';').filter(|end| *end <= 10).ok_or_else(|| invalid("a bare &".into()))?;
        let entity = &rest[..end];
        rest = &rest[end + 1..];
        let number = match entity.strip_prefix('#') {
            Some(hex) if hex.starts_with(['x', 'X']) => u32::from_str_radix(&hex[1..], 16).ok(),
            Some(decimal) => decimal.parse().ok(),
            None => None,
        };
        out.push(match (entity, number) {
            ("amp", _) => '&',
            ("lt", _) => '<',
            ("gt", _) => '>',
            ("quot", _) => '"',
            ("apos", _) => '\'',
            (_, Some(number)) => {
                char::from_u32(number).ok_or_else(|| invalid(format!("character {number:#x}")))?
            }
            _ => return Err(invalid(format!("entity {entity:?}"))),
        });
    }
    out.push_str(rest);
    Ok(out)
}

/// Reads one item. Other properties, their order and blanks do not matter.
pub fn parse_item(xml: &str) -> Result<Item> {
    if xml.len() > MAX_ITEM {
        return Err(invalid(format!("{} bytes", xml.len())));
    }
    if xml.contains("<!") {
        return Err(invalid("a declaration, comment or CDATA".into()));
    }
    let (mut name, mut data) = (None, None);
    let mut rest = xml;
    while let Some(at) = rest.find("<PROPERTY ") {
        rest = &rest[at + "<PROPERTY ".len()..];
        let tag_end = rest.find('>').ok_or_else(|| invalid("a tag without end".into()))?;
        let tag = &rest[..tag_end];
        let body = &rest[tag_end + 1..];
        if tag.ends_with('/') {
            rest = body;
            continue;
        }
        let close =
            body.find("</PROPERTY>").ok_or_else(|| invalid("a property without end".into()))?;
        let inner = &body[..close];
        rest = &body[close + "</PROPERTY>".len()..];
        let slot = match attribute(tag, "NAME") {
            Some("Name") => &mut name,
            Some("Data") => &mut data,
            _ => continue,
        };
        if slot.is_some() {
            return Err(invalid("a property twice".into()));
        }
        *slot = Some(value(inner)?);
    }
    let name = name.ok_or_else(|| invalid("no name".into()))?;
    Ok(Item { name, data: data.unwrap_or_default() })
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = tag.trim_start();
    loop {
        let (key, after) = rest.split_once('=')?;
        let quote = after.trim_start().chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let after = &after.trim_start()[1..];
        let (text, next) = after.split_once(quote)?;
        if key.trim() == name {
            return Some(text);
        }
        rest = next;
    }
}

/// The text of the one `VALUE` in a property; none and an empty element are an empty text.
fn value(inner: &str) -> Result<String> {
    let inner = inner.trim();
    if inner.is_empty() || matches!(inner, "<VALUE/>" | "<VALUE />") {
        return Ok(String::new());
    }
    let text = inner
        .strip_prefix("<VALUE>")
        .and_then(|rest| rest.strip_suffix("</VALUE>"))
        .ok_or_else(|| invalid("a property without value".into()))?;
    if text.contains('<') {
        return Err(invalid("an element inside a value".into()));
    }
    unescape(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_as_hyper_v_writes_it_is_read() {
        let xml = "<INSTANCE CLASSNAME=\"Msvm_KvpExchangeDataItem\"><PROPERTY NAME=\"Caption\" PROPAGATED=\"true\" \
            TYPE=\"string\"></PROPERTY><PROPERTY NAME=\"Data\" TYPE=\"string\"><VALUE>10.0.0.5;192.168.1.2</VALUE>\
            </PROPERTY><PROPERTY NAME=\"Description\" TYPE=\"string\"/><PROPERTY NAME=\"Name\" TYPE=\"string\">\
            <VALUE>NetworkAddressIPv4</VALUE></PROPERTY><PROPERTY NAME=\"Source\" TYPE=\"uint16\"><VALUE>2</VALUE>\
            </PROPERTY></INSTANCE>";
        let item = parse_item(xml).unwrap();
        assert_eq!(
            (item.name.as_str(), item.data.as_str()),
            ("NetworkAddressIPv4", "10.0.0.5;192.168.1.2")
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        for data in ["", "a&b<c>\"d'", "]]>", "zeile\r\nzwei\t", "日本 😀", "</VALUE></PROPERTY>"]
        {
            let item = Item::new("gilt.done", data).unwrap();
            assert_eq!(parse_item(&emit_item(&item)).unwrap(), item);
        }
        assert!(Item::new("x", "\0").is_err());
        assert!(Item::new("x", &"a".repeat(1024)).is_err());
    }

    #[test]
    fn hostile_items_are_errors() {
        let wrap = |data: &str| {
            format!(
                "<PROPERTY NAME=\"Name\"><VALUE>x</VALUE></PROPERTY><PROPERTY NAME=\"Data\">{data}</PROPERTY>"
            )
        };
        for bad in [
            "<VALUE>&lol;</VALUE>",
            "<VALUE>&#xD800;</VALUE>",
            "<VALUE>&</VALUE>",
            "<VALUE><b/></VALUE>",
            "<VALUE>&#99999999999;</VALUE>",
            "<VALUE>",
        ] {
            assert!(parse_item(&wrap(bad)).is_err(), "{bad}");
        }
        assert!(parse_item("<!DOCTYPE a [<!ENTITY x 'y'>]>").is_err());
        assert!(parse_item("").is_err());
        assert!(parse_item("<PROPERTY NAME=\"Name\"").is_err());
        assert!(parse_item(&"x".repeat(MAX_ITEM + 1)).is_err());
        let twice = "<PROPERTY NAME=\"Name\"><VALUE>x</VALUE></PROPERTY>".repeat(2);
        assert!(parse_item(&twice).is_err());
    }

    #[test]
    fn cut_and_changed_items_never_panic() {
        let xml = emit_item(&Item::new("Näme", "a&b😀").unwrap());
        for at in (0..xml.len()).filter(|at| xml.is_char_boundary(*at)) {
            let _ = parse_item(&xml[..at]);
            let _ = parse_item(&xml[at..]);
            for c in ['<', '>', '&', '"', 'é'] {
                let _ = parse_item(&format!("{}{c}{}", &xml[..at], &xml[at..]));
            }
        }
    }
}
