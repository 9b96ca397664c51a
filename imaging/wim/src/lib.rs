//! WIM engine: read, write, verify and transform Windows Imaging files, in safe Rust.
#![forbid(unsafe_code)]

pub mod tree;
