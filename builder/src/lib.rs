//! gilt: builds golden images in layers. The library is the pipeline; the binary is its CLI.
#![cfg_attr(not(windows), forbid(unsafe_code))]

pub mod checkpoint;
pub mod cli;
pub mod content_hash;
pub mod event;
pub mod evidence;
pub mod fetch;
pub mod home;
pub mod image_store;
pub mod layer;
pub mod lock;
pub mod pipeline;
pub mod plan;
pub mod stage;
pub mod template;

/// Now, as gilt writes times: RFC 3339 with seconds, UTC.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A new id for a build: when it began, and something no other build has.
pub fn new_id() -> String {
    let time = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    format!("{time}-{:08x}", rand::random::<u32>())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
