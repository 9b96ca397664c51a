//! Ports of this host that lead to a guest.

use std::net::{IpAddr, SocketAddr, TcpListener};

use crate::{
    error::{Error, Result},
    spec::MachineSpec,
};

/// How often a port that was free and then was not is chosen anew.
pub(crate) const TRIES: u32 = 5;

/// QEMU's words for a port that somebody was quicker to take.
pub(crate) fn is_clash(reason: &str) -> bool {
    reason.contains("Could not set up host forwarding rule")
        || reason.contains("Address already in use")
}

/// The error for the first port the spec asks for by number.
pub(crate) fn fixed(spec: &MachineSpec) -> Option<Error> {
    let forwards = spec.network.iter().flat_map(|n| &n.forwards);
    let mut asked = forwards
        .filter_map(|f| f.host_port.map(|port| Error::PortTaken { address: f.host_address, port }));
    asked.next()
}

pub(crate) fn free(address: IpAddr) -> Result<u16> {
    TcpListener::bind((address, 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(Error::io("find a free port of", address.to_string()))
}

/// A host port for each forward. Between here and the hypervisor's own bind it may be taken; then
/// it says so and the start is tried again.
pub(crate) fn choose(spec: &MachineSpec) -> Result<Vec<(u16, SocketAddr)>> {
    let forwards = spec.network.iter().flat_map(|n| &n.forwards);
    // All are held until all are chosen, so that none is chosen twice.
    let mut held = Vec::new();
    for forward in forwards {
        let address = forward.host_address;
        let listener = TcpListener::bind((address, forward.host_port.unwrap_or(0))).map_err(
            |e| match forward.host_port {
                Some(port) if e.kind() == std::io::ErrorKind::AddrInUse => {
                    Error::PortTaken { address, port }
                }
                _ => Error::io("listen on", address.to_string())(e),
            },
        )?;
        let at = listener.local_addr().map_err(Error::io("listen on", address.to_string()))?;
        held.push((forward.guest_port, at, listener));
    }
    Ok(held.into_iter().map(|(guest, at, _)| (guest, at)).collect())
}
