//! Registry hives, read only.
#![forbid(unsafe_code)]
