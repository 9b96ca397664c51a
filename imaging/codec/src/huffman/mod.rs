//! Canonical Huffman codes: shorter codewords first, equal lengths in order of the symbols.

mod build;
mod table;

pub(crate) use build::{CodeBuilder, canonical_codewords};
pub(crate) use table::{DecodeTable, ENTRY_INVALID};
