//! The two hives that describe an installation.

use gilt_hive::{Dirty, Hive, Key};

use super::{Result, WindowsError};
use crate::lookup::TreeView;

const CONFIG: &str = r"\Windows\System32\config";
/// SOFTWARE of a long-used server; COMPONENTS, the largest of all, is not read.
const MAX_HIVE_BYTES: u64 = 1 << 30;
const MAX_LOG_BYTES: u64 = 256 << 20;

/// SOFTWARE and SYSTEM of an installed Windows.
#[derive(Debug)]
pub struct Hives {
    pub software: Hive,
    pub system: Hive,
    /// `ControlSet001`, or whichever the system would start with.
    control_set: String,
}

impl Hives {
    /// `None` where the tree holds no Windows. A dirty hive is completed from its logs; one that
    /// cannot be is an error.
    pub fn open(view: TreeView<'_>) -> Result<Option<Self>> {
        Self::open_with(view, Dirty::Refuse)
    }

    /// The same, with a choice for hives that no log completes.
    pub fn open_with(view: TreeView<'_>, dirty: Dirty) -> Result<Option<Self>> {
        let (Some(software), Some(system)) =
            (open_hive(view, "SOFTWARE", dirty)?, open_hive(view, "SYSTEM", dirty)?)
        else {
            return Ok(None);
        };
        let control_set = control_set(&system).map_err(in_hive("SYSTEM"))?;
        Ok(Some(Self { software, system, control_set }))
    }

    /// A key of SOFTWARE.
    pub(super) fn software_key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.software.key(path).map_err(in_hive("SOFTWARE"))
    }

    /// A key of SYSTEM.
    pub(super) fn system_key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.system.key(path).map_err(in_hive("SYSTEM"))
    }

    /// A key below the current control set.
    pub(super) fn control_key(&self, path: &str) -> Result<Option<Key<'_>>> {
        self.system_key(&format!(r"{}\{path}", self.control_set))
    }
}

pub(super) fn in_hive(name: &str) -> impl Fn(gilt_hive::Error) -> WindowsError {
    move |source| WindowsError::Hive { path: format!(r"{CONFIG}\{name}"), source }
}

fn control_set(system: &Hive) -> gilt_hive::Result<String> {
    let select = system.key("Select")?;
    let current = match select {
        Some(select) => select.dword("Current")?,
        None => None,
    };
    Ok(format!("ControlSet{:03}", current.unwrap_or(1)))
}

fn open_hive(view: TreeView<'_>, name: &str, dirty: Dirty) -> Result<Option<Hive>> {
    let path = format!(r"{CONFIG}\{name}");
    let Some(bytes) = read(view, &path, MAX_HIVE_BYTES)? else { return Ok(None) };
    let mut logs = Vec::new();
    for suffix in [".LOG1", ".LOG2", ".LOG"] {
        if let Some(log) = read(view, &format!("{path}{suffix}"), MAX_LOG_BYTES)?
            && !log.is_empty()
        {
            logs.push(log);
        }
    }
    Hive::open(bytes, &logs, dirty).map(Some).map_err(in_hive(name))
}

pub(super) fn read(view: TreeView<'_>, path: &str, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    view.read(path, max_bytes)
        .map_err(|source| WindowsError::Read { path: path.to_owned(), source })
}
