//! What a powered-off Windows says of itself: files and registry hives, read from a tree.
//!
//! ```text
//! Tree + contents ─ hives (SOFTWARE, SYSTEM; logs applied in memory)
//!     ├─ image_properties   what the WIM's XML says of the image
//!     ├─ inventory          updates, features, apps, drivers, programs
//!     └─ generalization     proof that sysprep did its work; secrets left behind
//! ```
//! All are functions of the tree alone; nothing of the image is run.

mod generalized;
mod hives;
mod inf;
mod inventory;
mod properties;
mod secrets;

use std::io;

pub use generalized::{Check, Evidence, Generalization, Verdict, generalization};
pub use hives::Hives;
pub use inf::{DriverInf, parse_inf};
pub use inventory::{
    CbsPackage, CbsState, Driver, Feature, PendingServicing, Program, Release, WindowsInventory,
    inventory,
};
pub use properties::{ImageProperties, describe_windows, image_properties, language_of_lcid};
pub use secrets::{Secret, secrets};

#[derive(Debug, thiserror::Error)]
pub enum WindowsError {
    #[error("{path}: {source}")]
    Read { path: String, source: io::Error },

    #[error("{path}: {source}")]
    Hive { path: String, source: gilt_hive::Error },
}

pub type Result<T, E = WindowsError> = std::result::Result<T, E>;
