//! One declaration for each map of the language: from it come the Rust type, the decoder with its
//! errors, the part of a layer's key, the JSON Schema and the reference page.
//!
//! ```ignore
//! fields! {
//!     /// The machine to build on.
//!     pub struct Machine {
//!         /// Virtual CPUs.
//!         run cpus: u32 = 2,             // `run`: how it is built; never part of a key
//!         /// Firmware.
//!         key firmware: Firmware = Firmware::Uefi,   // `key`: what is built; part of keys
//!     }
//! }
//! ```
//!
//! A field without a default is required. `flat` takes a [`Group`]: keys of the same map of which
//! exactly one is given (`script` or `inline`). `as "type"` names a key that Rust cannot.

use super::cx::Cx;
use super::node::{Entry, Map, Node, Value};
use crate::content_hash::ContentHash;
use serde_json::Value as Json;

/// A type that a template can hold.
pub trait Field: ContentHash + Sized {
    /// The value of `node`, or None after a complaint was made.
    fn decode(node: &Node, cx: &mut Cx) -> Option<Self>;
    /// What may be written, for the schema and the reference.
    fn shape() -> Shape;
    /// The value as it would be written, with secrets blotted out.
    fn to_json(&self) -> Json;
}

/// Keys of a map of which exactly one is given.
pub trait Group: ContentHash + Sized {
    fn decode_group(reader: &mut MapReader<'_>, cx: &mut Cx) -> Option<Self>;
    fn choices() -> Vec<FieldShape>;
    fn to_entry(&self) -> (&'static str, Json);
}

/// What may be written at some place.
#[derive(Clone)]
pub enum Shape {
    /// Any text; `${…}` is filled in it.
    Text,
    Bool,
    Integer {
        min: i128,
        max: i128,
    },
    /// Text of a certain form, with words and an example for the reference.
    Form {
        words: &'static str,
        example: &'static str,
    },
    Choice(Vec<(&'static str, &'static str)>),
    List(Box<Shape>),
    Map(Box<Shape>),
    Struct(StructShape),
    Either(Vec<Shape>),
    /// Anything; checked elsewhere.
    Any,
}

/// A map with fixed keys. `fields` is a function, as a type may hold itself.
#[derive(Clone, Copy)]
pub struct StructShape {
    pub name: &'static str,
    pub doc: &'static str,
    pub fields: fn() -> Vec<FieldShape>,
}

/// One key of a map.
#[derive(Clone)]
pub struct FieldShape {
    pub key: &'static str,
    pub doc: &'static str,
    pub shape: Shape,
    pub need: Need,
    /// Part of a layer's key.
    pub keyed: bool,
}

#[derive(Clone, PartialEq)]
pub enum Need {
    Required,
    /// With the default, if it can be written down.
    Optional(Option<Json>),
    /// Exactly one key of the group with this number is given.
    OneOf(&'static [&'static str]),
}

/// Takes the keys of a map one by one; what is left at the end is unknown.
pub struct MapReader<'a> {
    what: &'static str,
    map: &'a Map,
    node: &'a Node,
    taken: Vec<&'static str>,
}

static EMPTY: Map = Map { entries: Vec::new() };

impl<'a> MapReader<'a> {
    /// None after a complaint that `node` is not a map. Nothing at all is an empty map.
    pub fn new(node: &'a Node, what: &'static str, cx: &mut Cx) -> Option<Self> {
        let map = match &node.value {
            Value::Map(map) => map,
            Value::Unknown => return None,
            _ if node.is_null() => &EMPTY,
            _ => {
                cx.expected(node, "a map");
                return None;
            }
        };
        Some(Self { what, map, node, taken: Vec::new() })
    }

    pub fn node(&self) -> &'a Node {
        self.node
    }

    pub fn what(&self) -> &'static str {
        self.what
    }

    pub fn entry(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.taken.push(key);
        self.map.get(key)
    }

    pub fn required<T: Field>(&mut self, key: &'static str, cx: &mut Cx) -> Option<T> {
        match self.entry(key) {
            Some(entry) if !entry.node.is_null() => T::decode(&entry.node, cx),
            Some(entry) => {
                cx.error(entry.key_span, format!("`{key}` has no value"));
                None
            }
            None => {
                // A key that looks like the missing one is named by `finish`.
                let message = format!("`{key}` is missing in {}", self.what);
                cx.error(cx.start_of(self.node.span), message);
                None
            }
        }
    }

    /// The key's value, or the default where it is absent or null.
    pub fn optional<T: Field>(
        &mut self,
        key: &'static str,
        cx: &mut Cx,
        default: impl FnOnce() -> T,
    ) -> Option<T> {
        match self.entry(key) {
            Some(entry) if !entry.node.is_null() => T::decode(&entry.node, cx),
            _ => Some(default()),
        }
    }

    /// Complains of every key that was not taken, with the nearest known one.
    pub fn finish(self, known: &[&'static str], cx: &mut Cx) {
        for entry in &self.map.entries {
            if !self.taken.contains(&entry.key.as_str()) {
                let hint = nearest_hint(&entry.key, known);
                let message = format!("unknown key `{}` in {}", entry.key, self.what);
                cx.error_hint(entry.key_span, message, hint);
            }
        }
    }
}

/// "did you mean …", or all that is known where nothing is near and there are few.
pub fn nearest_hint(written: &str, known: &[&str]) -> String {
    match nearest(written, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "there is none".to_owned(),
        None => {
            let list: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
            format!("known: {}", list.join(", "))
        }
    }
}

/// The known word most like `written`, if one is like it at all.
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |word: &str| word.to_lowercase().replace(['_', ' '], "-");
    let written = plain(written);
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&written, &plain(known)), *known))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= (known.len().max(written.len()) / 3).max(1))
        .map(|(_, known)| known)
}

macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}
pub(crate) use key_name;

macro_rules! read_field {
    (flat $reader:ident $cx:ident [$($key:tt)*] $ty:ty) => {
        <$ty as $crate::template::fields::Group>::decode_group(&mut $reader, $cx)
    };
    ($mode:ident $reader:ident $cx:ident [$($key:tt)*] $ty:ty) => {
        $reader.required::<$ty>($crate::template::fields::key_name!($($key)*), $cx)
    };
    ($mode:ident $reader:ident $cx:ident [$($key:tt)*] $ty:ty, $default:expr) => {
        $reader.optional::<$ty>($crate::template::fields::key_name!($($key)*), $cx, || $default)
    };
}
pub(crate) use read_field;

macro_rules! field_shapes {
    ($list:ident flat [$($key:tt)*] $doc:expr, $ty:ty) => {
        $list.extend(<$ty as $crate::template::fields::Group>::choices())
    };
    ($list:ident $mode:ident [$($key:tt)*] $doc:expr, $ty:ty $(, $default:expr)?) => {
        $list.push($crate::template::fields::FieldShape {
            key: $crate::template::fields::key_name!($($key)*),
            doc: $doc,
            shape: <$ty as $crate::template::fields::Field>::shape(),
            need: $crate::template::fields::field_need!($ty $(, $default)?),
            keyed: stringify!($mode).as_bytes()[0] == b'k',
        })
    };
}
pub(crate) use field_shapes;

macro_rules! field_need {
    ($ty:ty) => {
        $crate::template::fields::Need::Required
    };
    ($ty:ty, $default:expr) => {{
        let default: $ty = $default;
        let json = $crate::template::fields::Field::to_json(&default);
        $crate::template::fields::Need::Optional((!json.is_null()).then_some(json))
    }};
}
pub(crate) use field_need;

macro_rules! hash_field {
    (run $self:ident $hasher:ident $field:ident [$($key:tt)*]) => {};
    (key $self:ident $hasher:ident $field:ident [$($key:tt)*]) => {
        $hasher.leaf("field", $crate::template::fields::key_name!($($key)*).as_bytes());
        $crate::content_hash::ContentHash::content_hash(&$self.$field, $hasher);
    };
    (flat $self:ident $hasher:ident $field:ident [$($key:tt)*]) => {
        $crate::content_hash::ContentHash::content_hash(&$self.$field, $hasher);
    };
}
pub(crate) use hash_field;

macro_rules! json_field {
    (flat $self:ident $map:ident $field:ident [$($key:tt)*]) => {
        let (key, value) = $crate::template::fields::Group::to_entry(&$self.$field);
        $map.insert(key.to_owned(), value);
    };
    ($mode:ident $self:ident $map:ident $field:ident [$($key:tt)*]) => {
        let value = $crate::template::fields::Field::to_json(&$self.$field);
        if !value.is_null() {
            let key = $crate::template::fields::key_name!($($key)*);
            $map.insert(key.to_owned(), value);
        }
    };
}
pub(crate) use json_field;

/// A map with fixed keys. See the module's page.
macro_rules! fields {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident = $what:literal $(, short $short:path)? $(, check $check:path)? {
            $( $(#[doc = $fdoc:literal])* $mode:ident $field:ident $(as $key:literal)? : $ty:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $( $(#[doc = $fdoc])* pub $field: $ty, )* }

        impl $name {
            /// Every key that may be given.
            pub fn field_shapes() -> Vec<$crate::template::fields::FieldShape> {
                #[allow(unused_mut)]
                let mut list = Vec::new();
                $( $crate::template::fields::field_shapes!(
                    list $mode [$field $($key)?] concat!($($fdoc, "\n"),*), $ty $(, $default)?
                ); )*
                list
            }
        }

        impl $crate::template::fields::Field for $name {
            fn decode(
                node: &$crate::template::node::Node,
                cx: &mut $crate::template::cx::Cx,
            ) -> Option<Self> {
                $( if let Some(value) = $short(node, cx) { return value; } )?
                #[allow(unused_mut)]
                let mut reader = $crate::template::fields::MapReader::new(node, $what, cx)?;
                $( let $field = $crate::template::fields::read_field!(
                    $mode reader cx [$field $($key)?] $ty $(, $default)?
                ); )*
                let known: Vec<&str> = Self::field_shapes().iter().map(|field| field.key).collect();
                reader.finish(&known, cx);
                let value = Self { $($field: $field?),* };
                $( $check(&value, node, cx); )?
                Some(value)
            }

            fn shape() -> $crate::template::fields::Shape {
                let shape =
                    $crate::template::fields::Shape::Struct($crate::template::fields::StructShape {
                        name: stringify!($name),
                        doc: concat!($($doc, "\n"),*),
                        fields: Self::field_shapes,
                    });
                $(
                    let _ = $short;
                    let text = $crate::template::fields::Shape::Text;
                    let shape = $crate::template::fields::Shape::Either(vec![text, shape]);
                )?
                shape
            }

            fn to_json(&self) -> serde_json::Value {
                #[allow(unused_mut)]
                let mut map = serde_json::Map::new();
                $( $crate::template::fields::json_field!($mode self map $field [$field $($key)?]); )*
                serde_json::Value::Object(map)
            }
        }

        impl $crate::content_hash::ContentHash for $name {
            #[allow(unused_variables)]
            fn content_hash(&self, hasher: &mut $crate::content_hash::ContentHasher) {
                hasher.leaf("struct", stringify!($name).as_bytes());
                $( $crate::template::fields::hash_field!($mode self hasher $field [$field $($key)?]); )*
                hasher.frame("end", 0);
            }
        }
    };
}
pub(crate) use fields;

/// An enum of which each variant is a key of a map; exactly one is given.
macro_rules! one_key {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[doc = $vdoc:literal])* $variant:ident($key:literal, $ty:ty), )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name { $( $(#[doc = $vdoc])* $variant($ty), )* }

        impl $name {
            pub const KEYS: &'static [&'static str] = &[$($key),*];

            /// The key this was written under.
            pub fn key(&self) -> &'static str {
                match self { $( Self::$variant(_) => $key, )* }
            }
        }

        impl $crate::template::fields::Group for $name {
            fn decode_group(
                reader: &mut $crate::template::fields::MapReader<'_>,
                cx: &mut $crate::template::cx::Cx,
            ) -> Option<Self> {
                let given: Vec<_> = Self::KEYS
                    .iter()
                    .filter_map(|key| reader.entry(key).map(|entry| (*key, entry)))
                    .collect();
                let &[(key, entry)] = given.as_slice() else {
                    cx.not_exactly_one(reader, Self::KEYS, &given);
                    return None;
                };
                match key {
                    $( $key => <$ty as $crate::template::fields::Field>::decode(&entry.node, cx)
                        .map(Self::$variant), )*
                    _ => None,
                }
            }

            fn choices() -> Vec<$crate::template::fields::FieldShape> {
                vec![ $( $crate::template::fields::FieldShape {
                    key: $key,
                    doc: concat!($($vdoc, "\n"),*),
                    shape: <$ty as $crate::template::fields::Field>::shape(),
                    need: $crate::template::fields::Need::OneOf(Self::KEYS),
                    keyed: true,
                }, )* ]
            }

            fn to_entry(&self) -> (&'static str, serde_json::Value) {
                match self {
                    $( Self::$variant(value) => {
                        ($key, $crate::template::fields::Field::to_json(value))
                    } )*
                }
            }
        }

        impl $crate::content_hash::ContentHash for $name {
            fn content_hash(&self, hasher: &mut $crate::content_hash::ContentHasher) {
                match self {
                    $( Self::$variant(value) => {
                        hasher.leaf("one", $key.as_bytes());
                        $crate::content_hash::ContentHash::content_hash(value, hasher);
                    } )*
                }
            }
        }
    };
}
pub(crate) use one_key;

/// An enum of words.
macro_rules! choices {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[doc = $vdoc])* $variant, )* }

        impl $name {
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl $crate::template::fields::Field for $name {
            fn decode(
                node: &$crate::template::node::Node,
                cx: &mut $crate::template::cx::Cx,
            ) -> Option<Self> {
                let word = cx.word(node)?;
                match word.as_str() {
                    $( $word => Some(Self::$variant), )*
                    _ => {
                        cx.unknown_word(node, &word, Self::WORDS);
                        None
                    }
                }
            }

            fn shape() -> $crate::template::fields::Shape {
                $crate::template::fields::Shape::Choice(
                    vec![$( ($word, concat!($($vdoc, "\n"),*)), )*]
                )
            }

            fn to_json(&self) -> serde_json::Value {
                self.as_str().into()
            }
        }

        impl $crate::content_hash::ContentHash for $name {
            fn content_hash(&self, hasher: &mut $crate::content_hash::ContentHasher) {
                hasher.leaf("word", self.as_str().as_bytes());
            }
        }
    };
}
pub(crate) use choices;
