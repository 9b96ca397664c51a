//! Which libvirt is meant: `libvirt[:URI]`.
//!
//! ```text
//!   qemu:///session                  this host, unprivileged: the default of ordinary users
//!   qemu:///system                   this host, the system's daemon: the default of root
//!   qemu+unix:///session?socket=…    this host, another socket
//!   qemu+ssh://user@host:22/system   another host
//!   …#network=NAME                   a network of libvirt instead of QEMU's user-mode one
//!   …#pool=NAME                      on another host: the storage pool for a machine's files
//! ```
//! What stands before `#` goes to libvirt as it is.

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As libvirt takes it.
    pub uri: String,
    /// `None` where the hypervisor is on this host.
    pub remote: Option<Remote>,
    /// A network of libvirt.
    pub network: Option<String>,
    pub pool: Option<String>,
}

/// The other host, as `ssh` is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub host: String,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub key_file: Option<String>,
    /// `no_verify=1`: the host's key is not checked, as libvirt itself is told.
    pub trust_any_key: bool,
}

impl Address {
    /// `None` takes `LIBVIRT_DEFAULT_URI`, else the usual place of this user.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let given = text.map(str::to_owned).or_else(|| {
            std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|uri| !uri.trim().is_empty())
        });
        let text = given.unwrap_or_else(|| {
            let root = rustix::process::geteuid().is_root();
            if root { "qemu:///system".into() } else { "qemu:///session".into() }
        });
        let wrong = |why: String| Error::NoSuchDriver { asked: format!("libvirt:{text}"), why };
        let (uri, options) = text.split_once('#').unwrap_or((&text, ""));
        let mut address = Address { uri: uri.into(), remote: None, network: None, pool: None };
        for option in options.split('&').filter(|o| !o.is_empty()) {
            let value = |v: &str| Some(v.to_owned()).filter(|v| !v.is_empty());
            match option.split_once('=') {
                Some(("network", name)) => address.network = value(name),
                Some(("pool", name)) => address.pool = value(name),
                _ => {
                    return Err(wrong(format!(
                        "behind # are network=NAME and pool=NAME, not {option:?}"
                    )));
                }
            }
        }
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| wrong("it is no URI".into()))?;
        let (driver, transport) = scheme.split_once('+').unwrap_or((scheme, ""));
        if driver != "qemu" {
            return Err(wrong(format!("gilt drives QEMU through libvirt, not {driver:?}")));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !["system", "session"].contains(&path) {
            return Err(wrong("its path must be /system or /session".into()));
        }
        if authority.is_empty() {
            return Ok(address);
        }
        if !["ssh", "libssh", "libssh2"].contains(&transport) {
            return Err(wrong(
                "another host is reached by qemu+ssh://: the ways into a guest need the tunnel"
                    .into(),
            ));
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        // `[::1]:22` has its colons in brackets.
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let number = port.parse().map_err(|_| wrong(format!("{port:?} is no port")))?;
                (host, Some(number))
            }
            _ => (host, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = |text: &str| !text.is_empty() && !text.starts_with('-');
        if !plain(host) || user.as_deref().is_some_and(|user| !plain(user)) {
            return Err(wrong("its host or user cannot be one".into()));
        }
        let mut remote =
            Remote { host: host.into(), user, port, key_file: None, trust_any_key: false };
        for part in query.split('&') {
            match part.split_once('=') {
                Some(("keyfile", path)) => remote.key_file = Some(path.into()),
                Some(("no_verify", "1")) => remote.trust_any_key = true,
                _ => {}
            }
        }
        address.remote = Some(remote);
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_its_own_and_options_are_told_apart() {
        let here = Address::parse(Some("qemu+unix:///session?socket=/x/y#network=lab")).unwrap();
        assert_eq!(here.uri, "qemu+unix:///session?socket=/x/y");
        assert_eq!((here.remote, here.network.as_deref()), (None, Some("lab")));
        let there = Address::parse(Some("qemu+ssh://me@[::1]:2222/system?keyfile=/k&no_verify=1"));
        let there = there.unwrap().remote.unwrap();
        assert_eq!((there.host.as_str(), there.port), ("::1", Some(2222)));
        assert_eq!(there.user.as_deref(), Some("me"));
        assert_eq!((there.key_file.as_deref(), there.trust_any_key), (Some("/k"), true));
    }

    #[test]
    fn what_cannot_be_driven_is_refused_with_the_reason() {
        let refused = |uri: &str| Address::parse(Some(uri)).unwrap_err().to_string();
        assert!(refused("xen:///system").contains("not \"xen\""));
        assert!(refused("qemu+tcp://host/system").contains("qemu+ssh"));
        assert!(refused("qemu:///other").contains("/system or /session"));
        assert!(refused("qemu:///system#net=x").contains("network=NAME"));
        assert!(refused("qemu+ssh://-oProxyCommand=x/system").contains("cannot be one"));
        assert!(refused("session").contains("no URI"));
    }
}
