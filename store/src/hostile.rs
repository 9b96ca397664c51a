//! Every reader of bytes that come from a store, for fuzzing: none may panic or take memory out of
//! proportion, whatever it is given. What the bytes mean is thrown away.

use std::collections::HashSet;

use bytes::Bytes;

use crate::channel::Assignment;
use crate::digest::BlobId;
use crate::encoding::{self, Encoding};
use crate::guard::{Pin, Trash};
use crate::index::{Contents, Index, IndexSet};
use crate::life::Change;
use crate::log::Entry;
use crate::manifest::Manifest;
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::{Digest, dsse, keys, pack};

const OBJECT: &str = "object";

/// A pack: its table, and each blob in it.
pub fn pack(bytes: &[u8]) {
    let Ok(table) = pack::parse(OBJECT, bytes) else { return };
    for packed in table {
        let from = packed.offset as usize;
        let stored = &bytes[from..from + packed.stored as usize];
        let _ = encoding::decode(&packed.id, packed.encoding, stored, None, OBJECT, packed.offset);
    }
}

/// An index object: all that it says, and what is looked up in it.
pub fn index(bytes: &[u8]) {
    let Ok(index) = Index::parse(OBJECT, Bytes::copy_from_slice(bytes)) else { return };
    let _ = index.stored();
    let _ = index.resources();
    let Ok(contents) = Contents::of(&index) else { return };
    let ids: Vec<BlobId> = contents.blobs.keys().copied().collect();
    let set = IndexSet { parts: vec![(Digest::of(bytes), index)] };
    for id in ids {
        let _ = set.find(&id, &HashSet::new());
        let _ = set.depth(&id, &HashSet::new());
    }
    let _ = contents.encode();
}

/// The contents of an index object, before they are compressed.
pub fn index_contents(bytes: &[u8]) {
    if let Ok(object) = Index::wrap(bytes) {
        index(&object);
    }
}

/// A recipe, and what a file of it would be made of.
pub fn recipe(bytes: &[u8]) {
    let Ok(recipe) = Recipe::decode(OBJECT, bytes) else { return };
    let (pieces, places) = (recipe.pieces(), recipe.places());
    let mut records = vec![0xff; 200];
    for piece in pieces {
        if let crate::recipe::Made::Table(layout) = piece.made {
            layout.fill(&mut records, &places);
            layout.strip(&mut records, &places);
        }
    }
}

/// A signed record: a manifest, a channel's entry, a change of a version's life, a policy.
pub fn record(bytes: &[u8]) {
    let Ok(sealed) = dsse::open(OBJECT, bytes) else { return };
    let _ = sealed.unverified::<Entry<Assignment>>();
    let _ = sealed.unverified::<Entry<Change>>();
    if let Ok(entry) = sealed.unverified::<Entry<Policy>>() {
        let _ = entry.body.check();
    }
    if let Ok(statement) = sealed.unverified::<serde_json::Value>() {
        let _ = Manifest::from_statement(OBJECT, &statement);
    }
}

/// What is inside a signed record, as if its signature were right.
pub fn payload(bytes: &[u8]) {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    if let Ok(sealed) = dsse::seal("type", &value, "key", &key) {
        record(&sealed);
    }
}

/// What keeps publishing and gc apart, and a public key.
pub fn unsigned(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Pin>(bytes);
    let _ = serde_json::from_slice::<Trash>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = keys::parse_public(text);
        let _ = text.parse::<crate::Reference>();
    }
}

/// Stored bytes of a blob of `size` bytes, alone and as a delta.
pub fn blob(stored: &[u8], base: &[u8], size: u64) {
    let id = BlobId { digest: Digest([0; 32]), size };
    for encoding in [Encoding::Raw, Encoding::Zstd, Encoding::Delta] {
        let _ = encoding::decode(&id, encoding, stored, Some(base), OBJECT, 0);
    }
}
