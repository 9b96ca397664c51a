//! The single values of the language: numbers with units, dates, digests, lists, maps.

use super::cx::Cx;
use super::fields::{Field, Shape};
use super::node::{Node, Scalar, Value};
use super::text::Text;
use crate::content_hash::{ContentHash, ContentHasher, Digest};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::Duration;

impl Field for Text {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        match &node.value {
            Value::Scalar(scalar) => Some(scalar.text.clone()),
            _ => {
                cx.expected(node, "text");
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Text
    }

    fn to_json(&self) -> Json {
        self.shown().into()
    }
}

impl Field for String {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        cx.known(node, "text")
    }

    fn shape() -> Shape {
        Shape::Text
    }

    fn to_json(&self) -> Json {
        self.as_str().into()
    }
}

impl Field for bool {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let word = cx.known(node, "true or false")?;
        match word.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                let hint = match word.to_lowercase().as_str() {
                    "yes" | "on" | "1" => "write `true`",
                    "no" | "off" | "0" => "write `false`",
                    _ => "write `true` or `false`",
                };
                cx.error_hint(node.span, format!("`{word}` is neither true nor false"), hint);
                None
            }
        }
    }

    fn shape() -> Shape {
        Shape::Bool
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

macro_rules! integer_fields {
    ($($ty:ty),*) => { $(
        impl Field for $ty {
            fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
                let word = cx.known(node, "a whole number")?;
                let value: Option<Self> = word.parse().ok();
                if value.is_none() {
                    let message = match word.parse::<i128>() {
                        Ok(_) => format!("`{word}` is out of range: {} to {}", <$ty>::MIN, <$ty>::MAX),
                        Err(_) => format!("`{word}` is not a whole number"),
                    };
                    cx.error(node.span, message);
                }
                value
            }

            fn shape() -> Shape {
                Shape::Integer { min: i128::from(<$ty>::MIN), max: i128::from(<$ty>::MAX) }
            }

            fn to_json(&self) -> Json {
                (*self).into()
            }
        }
    )* };
}
integer_fields!(u16, u32, u64, i32, i64);

/// A number of bytes, written with a unit: `512MiB`, `4GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 13] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("t", 1 << 40),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("b", 1),
];

impl ByteSize {
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Reads `4GiB`, `1.5G` (as in QEMU, `G` is `GiB`), `100MB`. The error is for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_lowercase();
        let Some((unit, factor)) = UNITS.iter().find(|(unit, _)| lower.ends_with(unit)) else {
            return Err(match lower.parse::<f64>() {
                Ok(_) => format!("`{text}` has no unit; write {text}MiB or {text}GiB"),
                Err(_) => format!("`{text}` is not a size; a size is like 512MiB or 4GiB"),
            });
        };
        let number = lower[..lower.len() - unit.len()].trim();
        let wrong = || format!("`{text}` is not a size; a size is like 512MiB or 4GiB");
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || !(whole.to_owned() + fraction).bytes().all(|b| b.is_ascii_digit()) {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let mut bytes = whole.checked_mul(*factor).ok_or_else(wrong)?;
        if !fraction.is_empty() && fraction.len() <= 6 {
            let digits: u64 = fraction.parse().map_err(|_| wrong())?;
            let scale = 10u64.pow(u32::try_from(fraction.len()).unwrap_or(0));
            let part = u128::from(digits) * u128::from(*factor) / u128::from(scale);
            bytes = u64::try_from(part)
                .ok()
                .and_then(|part| bytes.checked_add(part))
                .ok_or_else(wrong)?;
        } else if !fraction.is_empty() {
            return Err(wrong());
        }
        Ok(Self(bytes))
    }
}

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (unit, factor) in
            [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return f.pad(&format!("{}{unit}", self.0 / factor));
            }
        }
        f.pad(&format!("{}B", self.0))
    }
}

impl ContentHash for ByteSize {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        self.0.content_hash(hasher);
    }
}

/// Decodes text of a certain form; the error is for people.
fn parsed<T>(
    node: &Node,
    cx: &mut Cx,
    what: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<T> {
    let word = cx.known(node, what)?;
    match parse(&word) {
        Ok(value) => Some(value),
        Err(message) => {
            cx.error(node.span, message);
            None
        }
    }
}

impl Field for ByteSize {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, "a size", Self::parse)
    }

    fn shape() -> Shape {
        Shape::Form { words: "size", example: "4GiB" }
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

/// Reads `90s`, `10m`, `1h30m`, `250ms`, `30d`. The error is for people.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; a duration is like 90s, 10m, 1h30m or 30d");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    if rest.bytes().all(|b| b.is_ascii_digit()) && rest != "0" {
        return Err(format!("`{text}` has no unit; write {text}s or {text}m"));
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest[..letters].trim() {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let count = u32::try_from(count).map_err(|_| wrong())?;
        total =
            unit.checked_mul(count).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    Ok(total)
}

/// As it would be written: `1h30m`.
pub fn show_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, length) in
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
    {
        if millis >= length {
            out.push_str(&format!("{}{unit}", millis / length));
            millis %= length;
        }
    }
    out
}

impl ContentHash for Duration {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.leaf("nanos", &self.as_nanos().to_le_bytes());
    }
}

impl Field for Duration {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, "a duration", parse_duration)
    }

    fn shape() -> Shape {
        Shape::Form { words: "duration", example: "10m" }
    }

    fn to_json(&self) -> Json {
        show_duration(*self).into()
    }
}

/// A day: `2026-11-22`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub jiff::civil::Date);

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl ContentHash for Date {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.leaf("date", self.to_string().as_bytes());
    }
}

impl Field for Date {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, "a date", |text| {
            text.parse()
                .map(Self)
                .map_err(|_| format!("`{text}` is not a day; a day is like 2026-11-22"))
        })
    }

    fn shape() -> Shape {
        Shape::Form { words: "date", example: "2026-11-22" }
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

impl ContentHash for Digest {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.leaf("sha256", &self.0);
    }
}

impl Field for Digest {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, "a SHA-256 digest", |text| {
            text.parse().map_err(|error: crate::content_hash::NotADigest| error.to_string())
        })
    }

    fn shape() -> Shape {
        Shape::Form { words: "SHA-256 digest", example: "64 hexadecimal digits" }
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

/// Permissions of a file: octal, `0644`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl ContentHash for FileMode {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        self.0.content_hash(hasher);
    }
}

impl Field for FileMode {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        parsed(node, cx, "a file mode", |text| match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            _ => Err(format!("`{text}` is not a file mode; a mode is octal, like 0644")),
        })
    }

    fn shape() -> Shape {
        Shape::Form { words: "file mode", example: "0644" }
    }

    fn to_json(&self) -> Json {
        format!("{:04o}", self.0).into()
    }
}

impl<T: Field> Field for Option<T> {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        if node.is_null() { Some(None) } else { T::decode(node, cx).map(Some) }
    }

    fn shape() -> Shape {
        T::shape()
    }

    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, Field::to_json)
    }
}

impl<T: Field> Field for Vec<T> {
    /// A list; or one reference to a list, also as an item of a list. Items whose `when` is false are checked and left out.
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let spread;
        let items = match &node.value {
            Value::List(items) => items,
            Value::Scalar(scalar) if scalar.items.is_some() => {
                let texts = scalar.items.iter().flatten().cloned();
                spread = texts.map(|text| Node::scalar(node.span, text, false)).collect();
                &spread
            }
            _ => {
                cx.expected(node, "a list");
                return None;
            }
        };
        let mut values = Some(Self::new());
        let mut flat = Vec::new();
        for item in items {
            match &item.value {
                // A reference to a list among the items stands for that list's items.
                Value::Scalar(Scalar { items: Some(texts), .. }) => {
                    let texts = texts.iter().cloned();
                    flat.extend(texts.map(|text| Node::scalar(item.span, text, false)));
                }
                _ => flat.push(item.clone()),
            }
        }
        for item in &flat {
            match T::decode(item, cx) {
                Some(_) if item.skipped => {}
                Some(value) => {
                    if let Some(values) = &mut values {
                        values.push(value);
                    }
                }
                None => values = None,
            }
        }
        values
    }

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn to_json(&self) -> Json {
        if self.is_empty() { Json::Null } else { self.iter().map(Field::to_json).collect() }
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let Value::Map(map) = &node.value else {
            cx.expected(node, "a map");
            return None;
        };
        let mut values = Some(Self::new());
        for entry in &map.entries {
            match (T::decode(&entry.node, cx), &mut values) {
                (Some(value), Some(values)) => {
                    values.insert(entry.key.clone(), value);
                }
                (Some(_), None) => {}
                (None, _) => values = None,
            }
        }
        values
    }

    fn shape() -> Shape {
        Shape::Map(Box::new(T::shape()))
    }

    fn to_json(&self) -> Json {
        if self.is_empty() {
            return Json::Null;
        }
        Json::Object(self.iter().map(|(name, value)| (name.clone(), value.to_json())).collect())
    }
}

/// A part of the tree kept as written, decoded later by who knows its types.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw(pub Node);

impl ContentHash for Raw {
    /// Never part of a key: what it is decoded to is.
    fn content_hash(&self, _: &mut ContentHasher) {}
}

impl Field for Raw {
    fn decode(node: &Node, _: &mut Cx) -> Option<Self> {
        Some(Self(node.clone()))
    }

    fn shape() -> Shape {
        Shape::Any
    }

    fn to_json(&self) -> Json {
        fn json(node: &Node) -> Json {
            match &node.value {
                Value::Scalar(scalar) => match &scalar.items {
                    Some(items) => items.iter().map(|item| Json::from(item.shown())).collect(),
                    None => scalar.text.shown().into(),
                },
                Value::List(items) => items.iter().map(json).collect(),
                Value::Map(map) => {
                    map.entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect()
                }
                Value::Unknown => Json::Null,
            }
        }
        json(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_are_exact() {
        assert_eq!(ByteSize::parse("4GiB"), Ok(ByteSize::gib(4)));
        assert_eq!(ByteSize::parse("1.5g"), Ok(ByteSize(3 << 29)));
        assert_eq!(ByteSize::parse("10 MB"), Ok(ByteSize(10_000_000)));
        for wrong in
            ["4", "GiB", "-1G", "1e3M", "99999999999999T", "1..5G", ".5G", "1.12345678G", ""]
        {
            assert!(ByteSize::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            ByteSize::parse("1024").unwrap_err(),
            "`1024` has no unit; write 1024MiB or 1024GiB"
        );
        for size in [ByteSize(1), ByteSize(1 << 20), ByteSize::gib(3), ByteSize(1_000_000)] {
            assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
        }
    }

    #[test]
    fn durations_need_units_and_read_back() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "10x", "m", "1h30", "-5s", "99999999999999999999s", "1h 30 m x"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        for text in ["90s", "250ms", "1d2h3m4s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }
}
