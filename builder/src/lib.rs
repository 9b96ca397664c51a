//! gilt: builds golden images in layers. The library is the pipeline; the binary is its CLI.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod cli;
pub mod content_hash;
pub mod event;
pub mod home;
pub mod layer;
pub mod lock;
pub mod plan;
pub mod template;
