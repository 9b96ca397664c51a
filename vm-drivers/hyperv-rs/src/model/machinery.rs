//! What a model may stand before: something that really does what the model has allowed, so that a
//! server which plays a host has disks with bytes and machines with guests.

use super::{Disk, ModelMachine};
use crate::{
    cmdlet::{Slot, VhdType},
    name::{HostPath, VmId},
    wmi::Keys,
};

/// Carries out. Every method is called after the model's rules have allowed it; an `Err` becomes the
/// cmdlet's failure.
pub trait Machinery: Send + std::fmt::Debug {
    fn make_disk(&mut self, disk: &Disk) -> Result<(), String>;
    fn convert_disk(&mut self, from: &Disk, to: &HostPath, kind: VhdType) -> Result<(), String>;
    fn remove_file(&mut self, path: &str);
    fn start(&mut self, machine: &ModelMachine) -> Result<(), String>;
    /// Cuts the power.
    fn cut(&mut self, id: &VmId);
    /// Asks the guest to shut down, and does not wait for it.
    fn shut_down(&mut self, id: &VmId) -> Result<(), String>;
    fn reset(&mut self, id: &VmId) -> Result<(), String>;
    fn is_running(&mut self, id: &VmId) -> bool;
    fn press(&mut self, id: &VmId, keys: &Keys) -> Result<(), String>;
    /// RGB565, little endian.
    fn screen(&mut self, id: &VmId, width: u16, height: u16) -> Result<Vec<u8>, String>;
    fn change_medium(&mut self, id: &VmId, slot: Slot, path: Option<&str>) -> Result<(), String>;
    /// What the guest's services tell.
    fn addresses(&mut self, id: &VmId) -> Vec<String>;
}
