//! Firmware: boot order, Secure Boot, vTPM.

use super::{Call, GetDvds, GetHardDisks, GetNetworkAdapters, Slot};
use crate::script::Value;

/// Which keys Secure Boot trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBootTemplate {
    /// Windows alone.
    MicrosoftWindows,
    /// The certificate authority under which Linux loaders are signed.
    MicrosoftUefiCertificateAuthority,
}

impl SecureBootTemplate {
    pub fn word(self) -> &'static str {
        match self {
            Self::MicrosoftWindows => "MicrosoftWindows",
            Self::MicrosoftUefiCertificateAuthority => "MicrosoftUEFICertificateAuthority",
        }
    }
}

/// A device to boot from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootDevice {
    HardDisk(Slot),
    Dvd(Slot),
    /// The machine's network adapters.
    Network,
}

impl BootDevice {
    fn value(self) -> Value {
        Value::from(match self {
            BootDevice::HardDisk(slot) => GetHardDisks { slot: Some(slot) }.call(),
            BootDevice::Dvd(slot) => GetDvds { slot: Some(slot) }.call(),
            BootDevice::Network => GetNetworkAdapters.call(),
        })
    }
}

/// `Set-VMFirmware` (Gen2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetFirmware {
    /// `Some(None)` switches Secure Boot off.
    pub secure_boot: Option<Option<SecureBootTemplate>>,
    /// Replaces the whole order.
    pub boot_order: Vec<BootDevice>,
    pub first_boot_device: Option<BootDevice>,
    /// Stay in the firmware when nothing boots, rather than to try again and again.
    pub pause_after_boot_failure: Option<bool>,
}

fn on_off(on: bool) -> Value {
    Value::Word(if on { "On" } else { "Off" })
}

impl SetFirmware {
    pub fn call(&self) -> Call {
        let mut call = Call::on_machine("Set-VMFirmware");
        if let Some(template) = self.secure_boot {
            call = call.with("EnableSecureBoot", on_off(template.is_some())).with_some(
                "SecureBootTemplate",
                template.map(|template| Value::Word(template.word())),
            );
        }
        if !self.boot_order.is_empty() {
            let order = self.boot_order.iter().map(|device| device.value()).collect();
            call = call.with("BootOrder", Value::List(order));
        }
        call.with_some("FirstBootDevice", self.first_boot_device.map(BootDevice::value))
            .with_some("PauseAfterBootFailure", self.pause_after_boot_failure.map(on_off))
    }
}

/// `Get-VMFirmware` (Gen2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetFirmware;

impl GetFirmware {
    pub fn call(&self) -> Call {
        Call::on_machine("Get-VMFirmware")
    }
}

/// A class of devices a Gen1 machine boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BiosDevice {
    Cd,
    Ide,
    LegacyNetworkAdapter,
    Floppy,
}

/// `Set-VMBios` (Gen1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetBios {
    pub startup_order: Vec<BiosDevice>,
}

impl SetBios {
    pub fn call(&self) -> Call {
        let word = |device: &BiosDevice| {
            Value::Word(match device {
                BiosDevice::Cd => "CD",
                BiosDevice::Ide => "IDE",
                BiosDevice::LegacyNetworkAdapter => "LegacyNetworkAdapter",
                BiosDevice::Floppy => "Floppy",
            })
        };
        Call::on_machine("Set-VMBios")
            .with("StartupOrder", Value::List(self.startup_order.iter().map(word).collect()))
    }
}

/// `Set-VMKeyProtector -NewLocalKeyProtector`: before `EnableTpm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKeyProtector;

impl SetKeyProtector {
    pub fn call(&self) -> Call {
        Call::on_machine("Set-VMKeyProtector").switch("NewLocalKeyProtector")
    }
}

/// `Enable-VMTPM` (Gen2), after `SetKeyProtector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnableTpm;

impl EnableTpm {
    pub fn call(&self) -> Call {
        Call::on_machine("Enable-VMTPM")
    }
}
