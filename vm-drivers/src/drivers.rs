//! The drivers this build of gilt has. A driver is a folder of its own and one line here.
//!
//! ```text
//!   --driver NAME[:ADDRESS]  ──▶  DRIVERS  ──▶  DriverEntry::open  ──▶  VmDriver
//! ```

use std::{path::PathBuf, sync::Arc};

use crate::{
    driver::VmDriver,
    error::{Error, Result},
};

/// Every driver of this build.
pub const DRIVERS: &[&DriverEntry] = &[
    #[cfg(unix)]
    &crate::qemu::DRIVER,
    #[cfg(unix)]
    &crate::libvirt::DRIVER,
    &crate::hyperv::DRIVER,
];

/// What a driver's folder gives to the registry.
pub struct DriverEntry {
    /// What stands before the colon of `--driver NAME[:ADDRESS]`.
    pub name: &'static str,
    /// What may stand behind the colon, for help; `None` where nothing may.
    pub address: Option<&'static str>,
    /// One line for people who choose.
    pub about: &'static str,
    /// Makes the driver. Starts nothing and connects to nothing yet.
    pub open: fn(&DriverSetup) -> Result<Arc<dyn VmDriver>>,
}

/// What a driver is made with.
#[derive(Clone, Debug)]
pub struct DriverSetup {
    /// What stood behind the colon: for `hyperv://host` it is `//host`.
    pub address: Option<String>,
    /// For what the driver wants to remember of this host.
    pub cache_dir: PathBuf,
}

/// The driver `NAME` or `NAME:ADDRESS` stands for.
pub fn open(text: &str, cache_dir: impl Into<PathBuf>) -> Result<Arc<dyn VmDriver>> {
    let (name, address) = match text.split_once(':') {
        Some((name, address)) => (name, Some(address).filter(|a| !a.is_empty())),
        None => (text, None),
    };
    let entry = DRIVERS.iter().find(|d| d.name == name).ok_or_else(|| Error::NoSuchDriver {
        asked: text.into(),
        why: "no driver has that name".into(),
    })?;
    if address.is_some() && entry.address.is_none() {
        return Err(Error::NoSuchDriver {
            asked: text.into(),
            why: format!("{name} takes no address"),
        });
    }
    (entry.open)(&DriverSetup { address: address.map(Into::into), cache_dir: cache_dir.into() })
}

/// `qemu, libvirt[:URI]`: what may be asked for.
pub fn choices() -> String {
    let each = DRIVERS.iter().map(|d| match d.address {
        Some(address) => format!("{}[:{address}]", d.name),
        None => d.name.to_owned(),
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_driver_and_an_address_for_one_without_are_refused() {
        let refused = |text: &str| open(text, "/nowhere").unwrap_err().to_string();
        assert_eq!(refused("xen:///x"), "there is no driver \"xen:///x\": no driver has that name");
        if cfg!(unix) {
            assert!(refused("qemu:host").contains("takes no address"));
            assert_eq!(open("qemu", "/nowhere").unwrap().name(), "qemu");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<_> = DRIVERS.iter().map(|d| d.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DRIVERS.len());
        assert!(names.iter().all(|name| !name.contains(':')));
    }
}
