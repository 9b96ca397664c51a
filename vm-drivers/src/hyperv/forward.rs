//! Ports of this host that lead to a guest, by whatever address its integration services tell.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hyperv_rs::host::MachineRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use super::host::{Host, SHORT};
use crate::{
    error::{Error, Result},
    spec::MachineSpec,
};

/// A guest that has no address yet is asked no more often.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Ports that are taken before there is a machine, so that a port in use is told early.
pub(super) struct Listeners {
    listeners: Vec<(u16, TcpListener)>,
}

impl Listeners {
    pub(super) async fn bind(spec: &MachineSpec) -> Result<Self> {
        let mut listeners = Vec::new();
        for forward in spec.network.iter().flat_map(|network| &network.forwards) {
            let at = SocketAddr::new(forward.host_address, forward.host_port.unwrap_or(0));
            let listener = TcpListener::bind(at).await.map_err(|error| {
                match (error.kind(), forward.host_port) {
                    (std::io::ErrorKind::AddrInUse, Some(port)) => {
                        Error::PortTaken { address: forward.host_address, port }
                    }
                    _ => Error::io("listen on", at.to_string())(error),
                }
            })?;
            listeners.push((forward.guest_port, listener));
        }
        Ok(Self { listeners })
    }

    /// Serves them until the value that comes back is dropped.
    pub(super) fn serve(self, host: Arc<Host>, machine: MachineRef) -> Result<Forwards> {
        let guest = Arc::new(Guest { host, machine, told: Mutex::default() });
        let mut forwards = Forwards { ports: Vec::new(), tasks: Vec::new() };
        for (guest_port, listener) in self.listeners {
            let at = listener.local_addr().map_err(Error::io("listen on", "127.0.0.1"))?;
            forwards.ports.push((guest_port, at));
            forwards.tasks.push(tokio::spawn(serve(listener, guest_port, guest.clone())));
        }
        Ok(forwards)
    }
}

#[derive(Debug)]
pub(super) struct Forwards {
    /// Guest port, and where it is reached here.
    pub(super) ports: Vec<(u16, SocketAddr)>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Forwards {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What is known of where a guest is.
#[derive(Default)]
struct Told {
    address: Option<IpAddr>,
    asked: Option<Instant>,
}

struct Guest {
    host: Arc<Host>,
    machine: MachineRef,
    told: Mutex<Told>,
}

impl Guest {
    async fn address(&self) -> Option<IpAddr> {
        let mut told = self.told.lock().await;
        let lately = told.asked.is_some_and(|at| at.elapsed() < ASK_EVERY);
        if told.address.is_none() && !lately {
            told.asked = Some(Instant::now());
            match self.host.ask(self.machine.addresses(), SHORT).await {
                Ok(Ok(found)) => told.address = found.first().map(|address| address.ip),
                Ok(Err(error)) => tracing::debug!(%error, "no address of the guest"),
                Err(error) => tracing::debug!(%error, "no address of the guest"),
            }
        }
        told.address
    }

    /// The address led nowhere: the guest may have another by now.
    async fn forget(&self) {
        self.told.lock().await.address = None;
    }
}

async fn serve(listener: TcpListener, port: u16, guest: Arc<Guest>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connect(stream, port, guest.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a forwarded port accepts no more");
                return;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// A connection that cannot be made is closed at once: whoever waits for the guest tries again.
async fn connect(mut stream: TcpStream, port: u16, guest: Arc<Guest>) {
    let Some(address) = guest.address().await else { return };
    match guest.host.shell.dial(SocketAddr::new(address, port)).await {
        Ok(mut far) => {
            // Either end may close.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
        }
        Err(error) => {
            tracing::debug!(%error, "the guest was not reached");
            guest.forget().await;
        }
    }
}
