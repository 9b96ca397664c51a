//! Switches, NAT, adapters.

use std::net::Ipv4Addr;

use super::{Call, Module};
use crate::{name::SwitchName, script::Value};

/// What a switch joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchKind {
    /// The host and the machines.
    Internal,
    /// The machines alone.
    Private,
    /// The outside, by this adapter of the host, which keeps using it.
    External { adapter: String },
}

/// `New-VMSwitch`, with our mark in its notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSwitch {
    pub name: SwitchName,
    pub kind: SwitchKind,
    pub notes: String,
}

impl NewSwitch {
    pub fn call(&self) -> Call {
        let new = |set| Call::new("New-VMSwitch", set).with("Name", self.name.as_str());
        let call = match &self.kind {
            SwitchKind::Internal => new("SwitchType").with("SwitchType", Value::Word("Internal")),
            SwitchKind::Private => new("SwitchType").with("SwitchType", Value::Word("Private")),
            SwitchKind::External { adapter } => new("NetAdapterName")
                .with("NetAdapterName", adapter.as_str())
                .with("AllowManagementOS", true),
        };
        call.with("Notes", self.notes.as_str())
    }
}

/// `Get-VMSwitch`: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetSwitches;

impl GetSwitches {
    pub fn call(&self) -> Call {
        Call::new("Get-VMSwitch", "Name")
    }
}

/// `Remove-VMSwitch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveSwitch {
    pub name: SwitchName,
}

impl RemoveSwitch {
    pub fn call(&self) -> Call {
        Call::new("Remove-VMSwitch", "Name").with("Name", self.name.as_str()).switch("Force")
    }
}

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    pub network: Ipv4Addr,
    /// 0..=32.
    pub length: u8,
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

/// `New-NetIPAddress` on the host's end of a switch, `vEthernet (<switch>)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIpAddress {
    pub switch: SwitchName,
    pub address: Ipv4Addr,
    pub prefix_length: u8,
}

impl NewIpAddress {
    pub fn call(&self) -> Call {
        Call::new("New-NetIPAddress", "(default)")
            .module(Module::NetTcpIp)
            .with("InterfaceAlias", format!("vEthernet ({})", self.switch))
            .with("IPAddress", self.address.to_string())
            .with("PrefixLength", u32::from(self.prefix_length))
    }
}

/// `New-NetNat`: one for each host, and no DHCP comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNat {
    pub name: String,
    pub prefix: Prefix,
}

impl NewNat {
    pub fn call(&self) -> Call {
        Call::new("New-NetNat", "(default)")
            .module(Module::NetNat)
            .with("Name", self.name.as_str())
            .with("InternalIPInterfaceAddressPrefix", self.prefix.to_string())
    }
}

/// `Get-NetNat`: all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetNat;

impl GetNat {
    pub fn call(&self) -> Call {
        Call::new("Get-NetNat", "(default)").module(Module::NetNat)
    }
}

/// `Remove-NetNat`, without asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveNat {
    pub name: String,
}

impl RemoveNat {
    pub fn call(&self) -> Call {
        Call::new("Remove-NetNat", "Query (cdxml)")
            .module(Module::NetNat)
            .with("Name", self.name.as_str())
            .with("Confirm", Value::Expression(crate::script::Expression::SwitchOff))
    }
}

/// `Get-VMNetworkAdapter`: all of the machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetNetworkAdapters;

impl GetNetworkAdapters {
    pub fn call(&self) -> Call {
        Call::on_machine("Get-VMNetworkAdapter")
    }
}
