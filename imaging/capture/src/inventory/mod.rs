//! What is installed in a tree: the operating system and its packages.

mod cyclonedx;
mod linux;
mod windows;

use crate::error::Result;
use crate::lookup::TreeView;
use crate::windows::WindowsInventory;
use serde::{Deserialize, Serialize};

/// Made from a tree alone; no program of the image is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    pub system: OperatingSystem,
    /// Sorted by kind, name, architecture.
    pub packages: Vec<Package>,
    /// Kernel versions with a bootable image.
    pub kernels: Vec<String>,
    /// All that is known of a Windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Box<WindowsInventory>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// `debian`, `ubuntu`; `windows`.
    pub id: String,
    /// `12`; build and revision for Windows: `26100.2314`.
    pub version: String,
    /// For people: `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// As Debian names it (`amd64`); empty when it cannot be told.
    pub architecture: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    #[serde(default, skip_serializing_if = "Kind::is_package")]
    pub kind: Kind,
    pub name: String,
    pub architecture: String,
    pub version: String,
    /// Source package where it differs from the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
}

/// What a package is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Of the system's own package manager.
    #[default]
    Package,
    /// Of Windows: installed by its servicing.
    Update,
    /// An AppX package that every user gets.
    App,
    Driver,
    Program,
}

impl Kind {
    fn is_package(&self) -> bool {
        *self == Self::Package
    }
}

/// Reads what a tree has installed. `None` when it holds no operating system we know.
pub fn inventory(view: TreeView<'_>) -> Result<Option<Inventory>> {
    match linux::inventory(view)? {
        Some(found) => Ok(Some(found)),
        None => windows::inventory(view),
    }
}
