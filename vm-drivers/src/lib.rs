//! Reference machines: the [`VmDriver`] and [`Vm`] traits, the drivers behind them, and the ways
//! into a guest.
//!
//! ```text
//!  MachineSpec ──start──▶ Vm ──┬─ send_keys, screenshot, serial, change_medium
//!      ▲                       ├─ checkpoint: frozen disks (+ memory) without a reboot
//!      │  SavedState           └─ exit_watch: powered off | reset | panicked | died
//!      └──────────resume──────────┘
//! ```
//!
//! **Invariant:** nothing here knows of templates, layers or images.
//! **Invariant:** a machine ends with the value that stands for it, and with this process.

pub mod boot_command;
pub mod conformance;
mod cpio;
mod driver;
pub mod drivers;
#[cfg(unix)]
mod ending;
mod error;
#[cfg(feature = "testing")]
pub mod fake;
pub mod guest;
pub mod hyperv;
pub mod keys;
#[cfg(unix)]
mod libvirt;
pub mod media;
#[cfg(unix)]
mod ports;
pub mod process;
#[cfg(unix)]
pub mod qemu;
pub mod registry;
pub mod screen;
pub mod serial;
mod spec;
pub mod testing;

pub use driver::*;
pub use error::{Error, Result};
pub use spec::*;
