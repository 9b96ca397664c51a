//! What `virsh event --all --loop` prints, line by line.
//!
//! ```text
//!   event 'lifecycle' for domain 'gilt-x': Stopped Shutdown
//!   event 'reboot' for domain 'gilt-x'
//!   event 'io-error-reason' for domain 'gilt-x': /x/disk.qcow2 (virtio-disk0) pause due to enospc
//!   event 'tray-change' for domain 'gilt-x' disk scsi0-0-0-24: opened
//! ```

/// One line, as far as we act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The domain exists, paused.
    Created,
    Resumed,
    Suspended,
    /// The guest asked for its power to be cut, or the reset stands for it.
    ShuttingDown {
        by_guest: bool,
    },
    Stopped(Stopped),
    Panicked,
    Rebooted,
    DiskError {
        disk: String,
        disk_full: bool,
        stops: bool,
        reason: String,
    },
    Tray {
        device: String,
        open: bool,
    },
    /// Nothing we act on; the words are for the log.
    Other(String),
}

/// Why a domain is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    PoweredOff,
    Destroyed,
    Crashed,
    /// The words of libvirt.
    Otherwise(String),
}

/// `None` for an empty line.
pub fn parse(line: &str) -> Option<Line> {
    let line = line.trim();
    if line.is_empty() {
        return None;
    }
    Some(understood(line).unwrap_or_else(|| Line::Other(line.to_owned())))
}

fn understood(line: &str) -> Option<Line> {
    if line.starts_with("Domain ") && line.contains(" created from ") {
        return Some(Line::Created);
    }
    let (kind, rest) = line.strip_prefix("event '")?.split_once("' for domain '")?;
    // Our domains have no quote in their names.
    let (_, rest) = rest.split_once('\'')?;
    let told = rest.strip_prefix(": ");
    match kind {
        "lifecycle" => lifecycle(told?),
        "reboot" => Some(Line::Rebooted),
        "io-error-reason" => {
            let (disk, rest) = told?.rsplit_once(") ")?;
            let (action, reason) = rest.split_once(" due to ").unwrap_or((rest, ""));
            Some(Line::DiskError {
                disk: disk.rsplit_once(" (").map_or(disk, |(path, _)| path).to_owned(),
                disk_full: reason.trim() == "enospc",
                stops: action == "pause",
                reason: reason.trim().to_owned(),
            })
        }
        "tray-change" => {
            let (device, state) = rest.strip_prefix(" disk ")?.rsplit_once(": ")?;
            Some(Line::Tray { device: device.into(), open: state == "opened" })
        }
        _ => None,
    }
}

fn lifecycle(told: &str) -> Option<Line> {
    let (event, detail) = told.split_once(' ').unwrap_or((told, ""));
    Some(match event {
        "Resumed" => Line::Resumed,
        "Suspended" => Line::Suspended,
        "Shutdown" => Line::ShuttingDown { by_guest: detail.contains("guest request") },
        "Crashed" => Line::Panicked,
        "Stopped" => Line::Stopped(match detail {
            "Shutdown" => Stopped::PoweredOff,
            "Destroyed" => Stopped::Destroyed,
            "Crashed" => Stopped::Crashed,
            other => Stopped::Otherwise(other.to_owned()),
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libvirt_9_are_understood() {
        let cases = [
            ("Domain 'gilt-t' created from t.xml", Line::Created),
            ("event 'lifecycle' for domain 'gilt-t': Resumed Unpaused", Line::Resumed),
            (
                "event 'lifecycle' for domain 'gilt-t': Shutdown Finished after guest request",
                Line::ShuttingDown { by_guest: true },
            ),
            (
                "event 'lifecycle' for domain 'gilt-t': Stopped Shutdown",
                Line::Stopped(Stopped::PoweredOff),
            ),
            (
                "event 'lifecycle' for domain 'gilt-t': Stopped Failed",
                Line::Stopped(Stopped::Otherwise("Failed".into())),
            ),
            ("event 'lifecycle' for domain 'gilt-t': Crashed Panicked", Line::Panicked),
            ("event 'reboot' for domain 'gilt-t'", Line::Rebooted),
            (
                "event 'io-error-reason' for domain 'gilt-t': /a (b)/d (virtio-disk0) pause due to enospc",
                Line::DiskError {
                    disk: "/a (b)/d".into(),
                    disk_full: true,
                    stops: true,
                    reason: "enospc".into(),
                },
            ),
            (
                "event 'tray-change' for domain 'gilt-t' disk scsi0-0-0-0: opened",
                Line::Tray { device: "scsi0-0-0-0".into(), open: true },
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line), Some(expected), "{line}");
        }
        assert_eq!(parse("  "), None);
    }

    #[test]
    fn what_is_not_understood_is_kept_and_nothing_is_guessed() {
        for line in [
            "event 'lifecycle' for domain 'x': Teleported Somewhere",
            "event 'lifecycle' for domain 'x'",
            "event 'io-error-reason' for domain 'x': ",
            "event '",
            "events received: 3",
        ] {
            assert_eq!(parse(line), Some(Line::Other(line.trim().into())), "{line}");
        }
    }
}
