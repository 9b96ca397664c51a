//! Names that are safe to put into a cmdlet: no wildcard, no control character, nothing relative.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Hyper-V's own limit of a machine's display name.
const MAX_NAME: usize = 100;
/// `MAX_PATH` less the terminator: what the VHD cmdlets take without the long-path prefix.
const MAX_PATH: usize = 259;
/// Characters which PowerShell reads as a pattern in `-Name` and `-Path`.
const WILDCARDS: [char; 4] = ['*', '?', '[', ']'];

fn refuse(what: &'static str, value: &str, reason: &str) -> Error {
    Error::BadName { what, value: value.chars().take(120).collect(), reason: reason.to_owned() }
}

fn check_name(what: &'static str, name: &str) -> Result<()> {
    if name.is_empty() || name.trim() != name {
        return Err(refuse(what, name, "it is empty or has blanks at its ends"));
    }
    if name.encode_utf16().count() > MAX_NAME {
        return Err(refuse(what, name, "it is longer than 100 characters"));
    }
    let bad = |c: char| WILDCARDS.contains(&c) || c.is_control() || r#"\/:"<>|`"#.contains(c);
    match name.chars().find(|c| bad(*c)) {
        Some(c) => Err(refuse(what, name, &format!("it contains {c:?}"))),
        None => Ok(()),
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// The display name of a machine. Hyper-V lets two machines have the same one.
    VmName
}
text_type! {
    /// The name of a virtual switch.
    SwitchName
}
text_type! {
    /// The id of a machine: a GUID in upper case without braces, as `Msvm_ComputerSystem.Name` has it.
    VmId
}
text_type! {
    /// An absolute path on the host, `C:\…` or `\\server\share\…`.
    HostPath
}
text_type! {
    /// Who made a thing: the first line of its notes is `gilt-owner:<owner>`.
    Owner
}

impl VmName {
    pub fn new(name: &str) -> Result<Self> {
        check_name("machine name", name)?;
        Ok(Self(name.to_owned()))
    }
}

impl SwitchName {
    pub fn new(name: &str) -> Result<Self> {
        check_name("switch name", name)?;
        Ok(Self(name.to_owned()))
    }
}

impl VmId {
    pub fn new(id: &str) -> Result<Self> {
        let bare = id.strip_prefix('{').and_then(|s| s.strip_suffix('}')).unwrap_or(id);
        let groups: Vec<&str> = bare.split('-').collect();
        let shape = groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12]);
        if !shape || !groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(refuse("machine id", id, "it is not a GUID"));
        }
        Ok(Self(bare.to_ascii_uppercase()))
    }
}

impl<'de> Deserialize<'de> for VmId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        VmId::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

impl HostPath {
    pub fn new(path: &str) -> Result<Self> {
        let what = "path on the host";
        let bytes = path.as_bytes();
        let drive = bytes.len() > 3 && bytes[0].is_ascii_alphabetic() && &bytes[1..3] == b":\\";
        let rest = if drive {
            &path[3..]
        } else if let Some(rest) = path.strip_prefix(r"\\") {
            if rest.split('\\').filter(|part| !part.is_empty()).count() < 3 {
                return Err(refuse(what, path, "a share needs \\\\server\\share\\file"));
            }
            rest
        } else {
            return Err(refuse(what, path, "it is not absolute (C:\\… or \\\\server\\share\\…)"));
        };
        if path.encode_utf16().count() > MAX_PATH {
            return Err(refuse(what, path, "it is longer than 259 characters"));
        }
        let bad = |c: char| WILDCARDS.contains(&c) || c.is_control() || r#"/:"<>|"#.contains(c);
        if let Some(c) = rest.chars().find(|c| bad(*c)) {
            return Err(refuse(what, path, &format!("it contains {c:?}")));
        }
        for part in rest.split('\\') {
            if part.is_empty() || part.ends_with([' ', '.']) {
                return Err(refuse(what, path, "a part of it is empty or ends in a blank or dot"));
            }
        }
        Ok(Self(path.to_owned()))
    }

    /// On a share: a session without delegated credentials cannot open it (the second hop).
    pub fn is_share(&self) -> bool {
        self.0.starts_with(r"\\")
    }

    /// The part behind the last dot of the file's name, in lower case.
    pub fn extension(&self) -> Option<String> {
        let file = self.0.rsplit('\\').next()?;
        file.rsplit_once('.').map(|(_, ext)| ext.to_ascii_lowercase())
    }

    /// The folder this is in; `None` for what lies at the root of a drive.
    pub fn parent(&self) -> Option<Self> {
        let (folder, _) = self.0.rsplit_once('\\')?;
        Self::new(folder).ok()
    }

    /// A file or folder inside this folder.
    pub fn join(&self, part: &str) -> Result<Self> {
        Self::new(&format!("{}\\{part}", self.0))
    }

    /// Windows compares paths without case; this is the form to compare.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl Owner {
    pub fn new(owner: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if owner.is_empty() || owner.len() > 64 || !owner.chars().all(plain) {
            return Err(refuse("owner", owner, "it must be 1 to 64 of A-Z a-z 0-9 - _ ."));
        }
        Ok(Self(owner.to_owned()))
    }

    /// The line which marks what we made.
    pub fn tag(&self) -> String {
        format!("gilt-owner:{}", self.0)
    }

    /// Whose notes these are, if some gilt's.
    pub fn of_notes(notes: &str) -> Option<Self> {
        Self::new(notes.lines().next()?.trim_end().strip_prefix("gilt-owner:")?).ok()
    }

    /// Whether notes begin with our line.
    pub fn owns(&self, notes: &str) -> bool {
        notes.lines().next().is_some_and(|line| line.trim_end() == self.tag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_never_a_name() {
        for bad in ["*", "web?", "a[1]", "", " x", "a\nb", "a\\b"] {
            assert!(VmName::new(bad).is_err(), "{bad:?}");
        }
        assert!(VmName::new("Büro 'Süd' $x").is_ok());
    }

    #[test]
    fn a_path_is_absolute_and_literal() {
        for bad in ["x.vhdx", "C:x", r"C:\", r"C:\a\\b", r"C:\a*.vhdx", r"\\srv\share", r"C:\a. \b"]
        {
            assert!(HostPath::new(bad).is_err(), "{bad:?}");
        }
        let share = HostPath::new(r"\\srv\share\Win 11.ISO").unwrap();
        assert!(share.is_share());
        assert_eq!(share.extension().as_deref(), Some("iso"));
    }

    #[test]
    fn an_id_is_a_guid_with_or_without_braces() {
        let id = VmId::new("{2a34b1c2-fd73-4043-8a5b-dd2159bc743f}").unwrap();
        assert_eq!(id.as_str(), "2A34B1C2-FD73-4043-8A5B-DD2159BC743F");
        assert!(VmId::new("2a34b1c2-fd73-4043-8a5b-dd2159bc743f' or 1=1").is_err());
    }

    #[test]
    fn only_the_first_line_of_the_notes_tells_the_owner() {
        let owner = Owner::new("build-7").unwrap();
        assert!(owner.owns("gilt-owner:build-7\r\nanything"));
        assert!(!owner.owns("gilt-owner:build-77"));
        assert!(!owner.owns("mine\ngilt-owner:build-7"));
    }
}
