//! Whose a domain is: an element of gilt's own in the domain's metadata. What has none is never
//! touched, and neither is what another host or a living gilt made.

use quick_xml::{Reader, events::Event};
use sha2::{Digest, Sha256};

use super::{
    virsh::{Virsh, is_gone},
    xml::{Element, el},
};
use crate::{
    error::{Error, Result},
    registry::{self, ProcessMark},
};

/// Names the element; libvirt keeps one for each such name.
pub const NAMESPACE: &str = "https://github.com/gilt-images/gilt/machine/1";

/// The process that made a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// A digest that tells hosts apart.
    pub host: String,
    /// Which boot of that host: its id without dashes.
    pub boot: String,
    pub pid: u32,
    /// When the process started, in the host's clock ticks.
    pub started: u64,
}

impl Owner {
    /// This process.
    pub fn this_process() -> Self {
        let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(b"gilt host ");
        hash.update(id.trim());
        let pid = std::process::id();
        Self {
            host: hex::encode(&hash.finalize()[..8]),
            boot: registry::host_boot_id().replace('-', ""),
            pid,
            started: registry::mark(pid).map_or(0, |mark| mark.started),
        }
    }

    pub fn element(&self) -> Element {
        el("gilt:machine")
            .attr("xmlns:gilt", NAMESPACE)
            .attr("host", &self.host)
            .attr("boot", &self.boot)
            .attr("pid", self.pid)
            .attr("started", self.started)
    }

    /// Reads what `virsh metadata` prints; `None` for anything that is not exactly ours.
    pub fn parse(xml: &str) -> Option<Self> {
        let mut reader = Reader::from_str(xml);
        let element = loop {
            match reader.read_event().ok()? {
                Event::Empty(element) | Event::Start(element) => break element,
                Event::Eof => return None,
                _ => {}
            }
        };
        if element.local_name().as_ref() != "machine" {
            return None;
        }
        let value = |name: &str| {
            let attribute = element.try_get_attribute(name).ok()??;
            Some(attribute.value.into_owned())
        };
        Some(Self {
            host: value("host")?,
            boot: value("boot")?,
            pid: value("pid")?.parse().ok()?,
            started: value("started")?.parse().ok()?,
        })
    }

    /// Whether that process is provably gone, seen from this one's host.
    pub fn is_gone_for(&self, this: &Owner) -> bool {
        if self.host != this.host {
            return false;
        }
        self.boot != this.boot
            || !registry::is_alive(ProcessMark { pid: self.pid, started: self.started })
    }
}

/// Ends the domains of gilts of this host that were killed, and says which those were.
pub async fn clean_up(virsh: &Virsh) -> Result<Vec<String>> {
    let this = Owner::this_process();
    let mut ended = Vec::new();
    for uuid in virsh.run(&["list", "--all", "--uuid"]).await?.split_ascii_whitespace() {
        let Some(owner) = owner_of(virsh, uuid).await? else { continue };
        if !owner.is_gone_for(&this) {
            continue;
        }
        match virsh.run(&["destroy", uuid]).await {
            Ok(_) => ended.push(format!("domain {uuid} of process {}", owner.pid)),
            // libvirt was about to end it by itself, or another gilt was first.
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

async fn owner_of(virsh: &Virsh, uuid: &str) -> Result<Option<Owner>> {
    match virsh.run(&["metadata", uuid, "--uri", NAMESPACE]).await {
        Ok(xml) => Ok(Owner::parse(&xml)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(Error::Monitor { reason, .. }) if reason.contains("metadata not found") => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written() {
        let owner = Owner::this_process();
        let xml = owner.element().to_xml().unwrap();
        assert_eq!(Owner::parse(&xml), Some(owner.clone()));
        // libvirt prints it without its prefix.
        let plain = xml.replace("gilt:machine", "machine").replace(":gilt", "");
        assert_eq!(Owner::parse(&plain), Some(owner));
    }

    #[test]
    fn what_is_not_ours_is_nobodys() {
        for xml in ["", "<machine/>", "<machine host='a' boot='b' pid='x' started='1'/>", "<a", "&"]
        {
            assert_eq!(Owner::parse(xml), None, "{xml}");
        }
    }

    #[test]
    fn only_the_dead_of_this_host_are_gone() {
        let this = Owner::this_process();
        assert!(!this.is_gone_for(&this), "this process lives");
        assert!(Owner { started: 1, ..this.clone() }.is_gone_for(&this), "another had its number");
        assert!(Owner { boot: "earlier".into(), ..this.clone() }.is_gone_for(&this));
        let elsewhere = Owner { host: "other".into(), started: 1, ..this.clone() };
        assert!(!elsewhere.is_gone_for(&this), "what another host runs cannot be known here");
    }
}
