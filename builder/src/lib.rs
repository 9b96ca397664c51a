//! gilt: builds golden images in layers. The library is the pipeline; the binary is its CLI.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod cli;
pub mod event;
pub mod home;
