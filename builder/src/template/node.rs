//! The tree between YAML and types: every node knows where it was written.
//!
//! Scalars stay text until a field asks for a type, so `0644`, `1.10`, `no` and `2026-11-22` mean
//! what the field says, not what YAML guesses.

use super::span::Span;
use super::text::Text;

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Value,
    /// A list item whose `when` is false: checked like the others, then left out.
    pub skipped: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Map),
    /// A value that could not be worked out; its complaint has been made.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    pub text: Text,
    /// Written without quotes, so `null`, `~` and nothing at all mean "absent".
    pub plain: bool,
    /// Where the whole scalar is a reference to a list: its items.
    pub items: Option<Vec<Text>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Map {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    pub fn new(span: Span, value: Value) -> Self {
        Self { span, value, skipped: false }
    }

    pub fn scalar(span: Span, text: Text, plain: bool) -> Self {
        Self::new(span, Value::Scalar(Scalar { text, plain, items: None }))
    }

    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar(Scalar { text, plain: true, items: None }) => {
                text.known().is_some_and(|text| matches!(text.as_str(), "" | "~" | "null"))
            }
            _ => false,
        }
    }

    /// What it is, in the words of an error.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Unknown => "an unknown value",
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }
}

impl Map {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.remove(index))
    }

    /// Lays `over` on this map: maps are merged key by key and deep, all else is replaced.
    pub fn merge(&mut self, over: Self) {
        for entry in over.entries {
            match self.entries.iter_mut().find(|mine| mine.key == entry.key) {
                None => self.entries.push(entry),
                Some(mine) => match (&mut mine.node.value, entry.node.value) {
                    (Value::Map(mine), Value::Map(theirs)) => mine.merge(theirs),
                    (_, value) => {
                        mine.key_span = entry.key_span;
                        mine.node = Node { value, ..entry.node };
                    }
                },
            }
        }
    }
}
