//! Install media: what is on them, and the question "press any key" they ask.

mod boot;
mod udf;

pub use boot::{BootError, NoPrompt, no_prompt};
pub use udf::{Entry, Udf, UdfError, UdfFile};

/// Bytes of a sector of all these discs.
pub const SECTOR: u64 = 2048;
