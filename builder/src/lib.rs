//! gilt: builds golden images in layers. The library is the pipeline; the binary is its CLI.
#![forbid(unsafe_code)]

pub mod cli;
