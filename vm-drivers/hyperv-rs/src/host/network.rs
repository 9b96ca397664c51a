//! Switches and NAT.

use std::net::Ipv4Addr;

use super::{Operation, quiet};
use crate::{
    cmdlet::*,
    error::{Error, Result},
    name::{Owner, SwitchName},
    reply::{Nat, Shape, Switch},
    script::{Script, Step},
};

/// A switch marked as ours in its notes.
pub fn create_switch(owner: &Owner, name: &SwitchName, kind: SwitchKind) -> Operation<()> {
    let new = NewSwitch { name: name.clone(), kind, notes: owner.tag() };
    quiet("create switch", Script::new(vec![Step::SwitchIsFree(name.clone()), new.into()]))
}

pub fn remove_switch(owner: &Owner, name: &SwitchName) -> Operation<()> {
    let ours = Step::SwitchIsOurs { name: name.clone(), owner: owner.clone() };
    quiet("remove switch", Script::new(vec![ours, RemoveSwitch { name: name.clone() }.into()]))
}

pub fn list_switches() -> Operation<Vec<Switch>> {
    let script = Script::new(vec![Step::Ask { cmdlet: GetSwitches.into(), shape: Shape::Switch }]);
    Operation::new("list switches", script, |results| results.value())
}

pub fn list_nats() -> Operation<Vec<Nat>> {
    let script = Script::new(vec![Step::Ask { cmdlet: GetNat.into(), shape: Shape::Nat }]);
    Operation::new("list NAT networks", script, |results| results.value())
}

/// The name of the owner's NAT network: it has no notes to mark.
fn nat_name(owner: &Owner) -> String {
    format!("gilt-{owner}")
}

/// NAT behind an internal switch of ours. The host takes the gateway's address; guests need static ones,
/// as there is no DHCP. A host has one such network only.
pub fn create_nat(
    owner: &Owner,
    switch: &SwitchName,
    prefix: Prefix,
    gateway: Ipv4Addr,
) -> Result<Operation<()>> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.length)).unwrap_or(0);
    let inside = u32::from(gateway) & mask == u32::from(prefix.network);
    if !(8..=30).contains(&prefix.length) || !inside || gateway == prefix.network {
        let reason = format!(
            "{gateway} is no gateway of {prefix} (/8 to /30, first address of the network)"
        );
        return Err(Error::Invalid { what: "NAT", reason });
    }
    let script = Script::new(vec![
        Step::SwitchIsOurs { name: switch.clone(), owner: owner.clone() },
        NewIpAddress { switch: switch.clone(), address: gateway, prefix_length: prefix.length }
            .into(),
        NewNat { name: nat_name(owner), prefix }.into(),
    ]);
    Ok(quiet("create NAT", script))
}

pub fn remove_nat(owner: &Owner) -> Operation<()> {
    quiet("remove NAT", Script::new(vec![RemoveNat { name: nat_name(owner) }.into()]))
}
