//! Which host, and where on it: `hyperv://[user@]host[:port][/C:/folder][?option=value&…]`.
//!
//! | option | meaning |
//! |---|---|
//! | `switch` | the virtual switch machines are joined to; without it, Windows' own `Default Switch` |
//! | `poll` | how often a machine's state is asked for, in milliseconds; 2000 |
//! | `key` | file of the private key for SSH; else `GILT_HYPERV_KEY`, else `~/.ssh/id_ed25519` |
//! | `host-key` | the host's key as `ssh-keyscan` tells it (`ssh-ed25519 AAAA…`), instead of `known_hosts` |
//!
//! `hyperv` alone is this very host, on Windows.

use std::{path::PathBuf, time::Duration};

use hyperv_rs::{HostPath, SwitchName};

use crate::error::{Error, Result};

/// Where on the host gilt keeps disks, media and machines, unless told otherwise.
const DEFAULT_FOLDER: &str = r"C:\ProgramData\gilt";
const DEFAULT_SWITCH: &str = "Default Switch";

/// A host to drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `None`: this host.
    pub remote: Option<Remote>,
    pub folder: HostPath,
    pub switch: SwitchName,
    pub poll: Option<Duration>,
}

/// A host behind SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub user: String,
    pub host: String,
    pub port: u16,
    pub key: Option<PathBuf>,
    /// A line in OpenSSH's form.
    pub host_key: Option<String>,
}

fn wrong(asked: &str, why: impl std::fmt::Display) -> Error {
    Error::Malformed { what: format!("the address hyperv:{asked}"), reason: why.to_string() }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Address {
    /// Reads what stands behind `hyperv:`; nothing there is this host.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let asked = text.unwrap_or_default();
        let rest = asked.strip_prefix("//").unwrap_or(asked);
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, folder) = place.split_once('/').unwrap_or((place, ""));
        let name = |error: hyperv_rs::Error| wrong(asked, error);
        let mut address = Address {
            remote: None,
            folder: HostPath::new(DEFAULT_FOLDER).map_err(name)?,
            switch: SwitchName::new(DEFAULT_SWITCH).map_err(name)?,
            poll: None,
        };
        if !folder.is_empty() {
            let folder =
                percent_decoded(folder).ok_or_else(|| wrong(asked, "the folder cannot be read"))?;
            address.folder = HostPath::new(&folder.replace('/', "\\")).map_err(name)?;
        }
        if !authority.is_empty() {
            let (user, at) = match authority.rsplit_once('@') {
                Some((user, at)) => (user.to_owned(), at),
                None => ("Administrator".to_owned(), authority),
            };
            let (host, port) = match at.rsplit_once(':') {
                Some((host, port)) => {
                    (host, port.parse().map_err(|_| wrong(asked, "the port is no number"))?)
                }
                None => (at, 22),
            };
            if host.is_empty() || user.is_empty() {
                return Err(wrong(asked, "the host or user is empty"));
            }
            if user.contains(':') {
                return Err(wrong(asked, "a password does not belong into an address; use a key"));
            }
            let host = host.to_owned();
            address.remote = Some(Remote { user, host, port, key: None, host_key: None });
        }
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let value = percent_decoded(value)
                .filter(|value| !value.is_empty())
                .ok_or_else(|| wrong(asked, format!("{key} has no value that can be read")))?;
            match (key, &mut address.remote) {
                ("switch", _) => address.switch = SwitchName::new(&value).map_err(name)?,
                ("poll", _) => {
                    let time = value.parse().ok().filter(|ms| (100..=60_000).contains(ms));
                    let time = time.ok_or_else(|| wrong(asked, "poll is 100 to 60000"))?;
                    address.poll = Some(Duration::from_millis(time));
                }
                ("key", Some(remote)) => remote.key = Some(value.into()),
                ("host-key", Some(remote)) => remote.host_key = Some(value),
                ("key" | "host-key", None) => {
                    return Err(wrong(asked, format!("{key} is for a remote host")));
                }
                _ => return Err(wrong(asked, format!("there is no option {key}"))),
            }
        }
        Ok(address)
    }

    /// For people.
    pub fn place(&self) -> String {
        match &self.remote {
            Some(remote) => format!("{}@{}:{}", remote.user, remote.host, remote.port),
            None => "this host".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_host_folder_and_switch() {
        let address = Address::parse(Some(
            "//ci@hv1:2222/D:/Golden%20Images?switch=Lab%20NAT&host-key=ssh-ed25519%20AAAA",
        ))
        .unwrap();
        let remote = address.remote.as_ref().unwrap();
        assert_eq!((remote.host.as_str(), remote.port), ("hv1", 2222));
        assert_eq!(remote.host_key.as_deref(), Some("ssh-ed25519 AAAA"));
        assert_eq!(address.folder.as_str(), r"D:\Golden Images");
        assert_eq!(address.switch.as_str(), "Lab NAT");
        assert_eq!(address.place(), "ci@hv1:2222");
        let own = Address::parse(None).unwrap();
        assert_eq!((own.remote, own.folder.as_str()), (None, DEFAULT_FOLDER));
        let short = Address::parse(Some("//hv1")).unwrap();
        assert_eq!(short.remote.unwrap().user, "Administrator");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in [
            "//ci:secret@hv1",
            "//hv1:port",
            "//@hv1",
            "//hv1/relative",
            "//hv1?colour=red",
            "//hv1?poll=5",
            "?key=/a",
            "//hv1?switch=%zz",
            "//hv1/C:/a*b",
        ] {
            assert!(Address::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
