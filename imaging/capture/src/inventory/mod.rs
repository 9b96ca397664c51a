//! What is installed in a tree: the operating system and its packages.

mod cyclonedx;
mod linux;

use crate::error::Result;
use crate::lookup::TreeView;
use serde::{Deserialize, Serialize};

/// Made from a tree alone; no program of the image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub system: OperatingSystem,
    /// Sorted by name, then architecture.
    pub packages: Vec<Package>,
    /// Kernel versions with a bootable image.
    pub kernels: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// `debian`, `ubuntu`; `windows`.
    pub id: String,
    /// `12`; the build for Windows.
    pub version: String,
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// As Debian names it (`amd64`); empty when it cannot be told.
    pub architecture: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    pub name: String,
    pub architecture: String,
    pub version: String,
    /// Source package where it differs from the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
}

/// Reads what a tree has installed. `None` when it holds no operating system we know.
pub fn inventory(view: TreeView<'_>) -> Result<Option<Inventory>> {
    linux::inventory(view)
}
