//! Which address reaches the guest: integration services first, then what the guest tells by key-value
//! pairs. Both are the guest's word, so only addresses come out of it.

use std::net::{IpAddr, Ipv4Addr};

use super::kvp::Item;
use crate::reply::Adapter;

/// Who told an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `Get-VMNetworkAdapter`.
    Adapter,
    /// `NetworkAddressIPv4` and `NetworkAddressIPv6`.
    KeyValue,
    /// `RDPAddressIPv4` and `RDPAddressIPv6`.
    RemoteDesktop,
}

/// An address of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    pub source: Source,
}

/// Whether a host can reach it: not loopback, unspecified, multicast, nor a self-assigned address,
/// which a guest has while it waits for DHCP (a NAT switch has none).
pub fn is_useful(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_link_local()
                || v4 == Ipv4Addr::BROADCAST)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local())
        }
    }
}

/// Useful addresses, IPv4 before IPv6, in the order of the sources; each once.
pub fn find_addresses(adapters: &[Adapter], intrinsic: &[Item]) -> Vec<Address> {
    let mut told: Vec<(Source, &str)> = Vec::new();
    for adapter in adapters {
        told.extend(adapter.addresses.iter().map(|text| (Source::Adapter, text.as_str())));
    }
    for (source, v4, v6) in [
        (Source::KeyValue, "NetworkAddressIPv4", "NetworkAddressIPv6"),
        (Source::RemoteDesktop, "RDPAddressIPv4", "RDPAddressIPv6"),
    ] {
        for item in intrinsic.iter().filter(|item| item.name == v4 || item.name == v6) {
            told.extend(item.data.split(';').map(|text| (source, text)));
        }
    }
    let mut found: Vec<Address> = Vec::new();
    for (source, text) in told {
        let bare = text.trim().split('%').next().unwrap_or_default();
        if let Ok(ip) = bare.parse::<IpAddr>()
            && is_useful(ip)
            && !found.iter().any(|address| address.ip == ip)
        {
            found.push(Address { ip, source });
        }
    }
    found.sort_by_key(|address| address.ip.is_ipv6());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(addresses: &[&str]) -> Adapter {
        Adapter {
            mac: "00155D000001".into(),
            switch: "s".into(),
            addresses: addresses.iter().map(|s| s.to_string()).collect(),
        }
    }

    #[test]
    fn ipv4_of_the_adapter_comes_first_and_each_address_once() {
        let items = [Item { name: "NetworkAddressIPv4".into(), data: "10.0.0.9;10.0.0.5".into() }];
        let found = find_addresses(&[adapter(&["fd00::5", "10.0.0.5"])], &items);
        let ips: Vec<String> = found.iter().map(|a| a.ip.to_string()).collect();
        assert_eq!(ips, ["10.0.0.5", "10.0.0.9", "fd00::5"]);
        assert_eq!(found[1].source, Source::KeyValue);
    }

    #[test]
    fn a_self_assigned_address_or_junk_is_no_address() {
        let items =
            [Item { name: "RDPAddressIPv4".into(), data: ";169.254.3.4;127.0.0.1;$(x)".into() }];
        assert!(
            find_addresses(&[adapter(&["169.254.1.1", "fe80::1%4", "0.0.0.0"])], &items).is_empty()
        );
    }
}
