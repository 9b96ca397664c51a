//! Text of a template after expansion: what is known now, and what only a running build knows.

use crate::content_hash::{ContentHash, ContentHasher, Digest};
use std::fmt;

/// What only a running build knows; written `${build.NAME}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuntimeName {
    /// The public half of the key made for this build, as one line of `authorized_keys`.
    SshPublicKey,
    /// The address of the build's file server as the guest sees it: `http://10.0.2.2:PORT`.
    Http,
    /// The name of the image that is built.
    Name,
    /// The id of this build, new each time.
    Id,
    /// The account gilt logs in with.
    Username,
    /// A password made for this build, for guests that cannot log in by key.
    Password,
}

impl RuntimeName {
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::SshPublicKey, "ssh_public_key"),
        (Self::Http, "http"),
        (Self::Name, "name"),
        (Self::Id, "id"),
        (Self::Username, "username"),
        (Self::Password, "password"),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SshPublicKey => "ssh_public_key",
            Self::Http => "http",
            Self::Name => "name",
            Self::Id => "id",
            Self::Username => "username",
            Self::Password => "password",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, text)| *text == name).map(|(value, _)| *value)
    }
}

/// The values for [`Text::expand`].
#[derive(Clone)]
pub struct RuntimeValues {
    pub ssh_public_key: String,
    pub http: String,
    pub name: String,
    pub id: String,
    pub username: String,
    pub password: String,
}

impl RuntimeValues {
    fn get(&self, name: RuntimeName) -> &str {
        match name {
            RuntimeName::SshPublicKey => &self.ssh_public_key,
            RuntimeName::Http => &self.http,
            RuntimeName::Name => &self.name,
            RuntimeName::Id => &self.id,
            RuntimeName::Username => &self.username,
            RuntimeName::Password => &self.password,
        }
    }
}

/// A text made of literal parts, values with the name they came by, secrets, and places that a
/// running build fills.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(String),
    /// The value of a sensitive variable. Never shown; keys hold its digest.
    Secret(String),
    Runtime(RuntimeName),
    /// `origin` says where the value came from: `variable hostname`, `parameter packages`;
    /// `digest` is that of its whole value, of which this may be one item.
    Reference {
        origin: String,
        digest: Digest,
        text: Text,
    },
}

impl Text {
    pub fn literal(text: impl Into<String>) -> Self {
        Self { pieces: vec![Piece::Literal(text.into())] }
    }

    pub(crate) fn secret(text: impl Into<String>) -> Self {
        Self { pieces: vec![Piece::Secret(text.into())] }
    }

    pub(crate) fn reference(origin: impl Into<String>, digest: Digest, text: Self) -> Self {
        Self { pieces: vec![Piece::Reference { origin: origin.into(), digest, text }] }
    }

    /// The digest of what the text is, wherever its parts came from. Secrets go in as digests.
    pub(crate) fn value_digest(&self) -> Digest {
        let mut hasher = ContentHasher::new();
        let mut literal = String::new();
        self.walk(&mut |piece| match piece {
            Piece::Literal(text) => literal.push_str(text),
            Piece::Secret(value) => {
                hasher.leaf("text", std::mem::take(&mut literal).as_bytes());
                hasher.leaf("secret", &Digest::of(value.as_bytes()).0);
            }
            Piece::Runtime(name) => {
                hasher.leaf("text", std::mem::take(&mut literal).as_bytes());
                hasher.leaf("runtime", name.as_str().as_bytes());
            }
            Piece::Reference { .. } => {}
        });
        hasher.leaf("text", literal.as_bytes());
        hasher.digest()
    }

    pub(crate) fn push(&mut self, piece: Piece) {
        if let (Piece::Literal(new), Some(Piece::Literal(last))) = (&piece, self.pieces.last_mut())
        {
            last.push_str(new);
        } else {
            self.pieces.push(piece);
        }
    }

    pub(crate) fn append(&mut self, other: Self) {
        for piece in other.pieces {
            self.push(piece);
        }
    }

    /// Items joined by `separator`.
    pub(crate) fn join(items: &[Self], separator: &str) -> Self {
        let mut joined = Self::default();
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                joined.push(Piece::Literal(separator.to_owned()));
            }
            joined.append(item.clone());
        }
        joined
    }

    /// The whole text, with `values` in the places of `${build.…}`.
    pub fn expand(&self, values: &RuntimeValues) -> String {
        let mut out = String::new();
        self.walk(&mut |piece| match piece {
            Piece::Literal(text) | Piece::Secret(text) => out.push_str(text),
            Piece::Runtime(name) => out.push_str(values.get(*name)),
            Piece::Reference { .. } => {}
        });
        out
    }

    /// The whole text, if no part of it waits for a running build.
    pub fn known(&self) -> Option<String> {
        let mut out = Some(String::new());
        self.walk(&mut |piece| match (piece, &mut out) {
            (Piece::Literal(text) | Piece::Secret(text), Some(out)) => out.push_str(text),
            (Piece::Runtime(_), _) => out = None,
            _ => {}
        });
        out
    }

    /// The text as it may be shown: secrets as `***`, runtime places as they were written.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        self.walk(&mut |piece| match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Secret(_) => out.push_str("***"),
            Piece::Runtime(name) => {
                out.push_str("${build.");
                out.push_str(name.as_str());
                out.push('}');
            }
            Piece::Reference { .. } => {}
        });
        out
    }

    /// The first place that waits for a running build.
    pub fn first_runtime(&self) -> Option<RuntimeName> {
        let mut found = None;
        self.walk(&mut |piece| {
            if let (Piece::Runtime(name), None) = (piece, found) {
                found = Some(*name);
            }
        });
        found
    }

    /// Whether it has a place for `name`.
    pub fn mentions(&self, name: RuntimeName) -> bool {
        let mut found = false;
        self.walk(&mut |piece| found |= matches!(piece, Piece::Runtime(other) if *other == name));
        found
    }

    /// Part of it is a sensitive variable's value.
    pub fn is_sensitive(&self) -> bool {
        let mut found = false;
        self.walk(&mut |piece| found |= matches!(piece, Piece::Secret(_)));
        found
    }

    pub fn is_empty(&self) -> bool {
        let mut empty = true;
        self.walk(&mut |piece| match piece {
            Piece::Literal(text) | Piece::Secret(text) => empty &= text.is_empty(),
            Piece::Runtime(_) => empty = false,
            Piece::Reference { .. } => {}
        });
        empty
    }

    fn walk(&self, visit: &mut impl FnMut(&Piece)) {
        fn go(text: &Text, visit: &mut dyn FnMut(&Piece)) {
            for piece in &text.pieces {
                visit(piece);
                if let Piece::Reference { text, .. } = piece {
                    go(text, visit);
                }
            }
        }
        go(self, visit);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown(), f)
    }
}

impl ContentHash for Text {
    fn content_hash(&self, hasher: &mut ContentHasher) {
        hasher.frame("pieces", self.pieces.len());
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => hasher.leaf("text", text.as_bytes()),
                Piece::Secret(value) => {
                    hasher.leaf("secret", &Digest::of(value.as_bytes()).0);
                }
                Piece::Runtime(name) => hasher.leaf("runtime", name.as_str().as_bytes()),
                Piece::Reference { origin, digest, .. } => hasher.reference(origin, *digest),
            }
        }
    }
}
