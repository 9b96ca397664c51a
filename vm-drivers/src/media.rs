//! Small media made in memory: the disc an installer finds its answers on.
//!
//! ISO 9660 with Joliet and Rock Ridge names, so that Windows, Linux and firmware all see the
//! same file names. The same contents give the same bytes.

use std::path::Path;

use hadris_fs::{Content, NoClock, Node, Tree};
use hadris_iso::{IsoId, IsoOptions};

use crate::error::{Error, Result};

/// ISO 9660 volume names have 32 characters, Joliet's 16.
const MAX_LABEL: usize = 16;

/// A disc to be written.
#[derive(Clone, Debug, Default)]
pub struct AnswerMedium {
    label: String,
    files: Vec<(String, Vec<u8>)>,
}

fn broken(reason: impl std::fmt::Display) -> Error {
    Error::Malformed { what: "answer medium".into(), reason: reason.to_string() }
}

impl AnswerMedium {
    /// The label is what guests look for: capital letters, digits and `_`, at most 16.
    pub fn new(label: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if label.is_empty() || label.len() > MAX_LABEL || !label.chars().all(plain) {
            return Err(broken(format!(
                "label {label:?} is not 1 to {MAX_LABEL} of A-Z, 0-9 and _"
            )));
        }
        Ok(Self { label: label.into(), files: Vec::new() })
    }

    /// Adds a file; `/` in the name makes folders.
    pub fn file(mut self, name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.into(), contents.into()));
        self
    }

    /// Writes the disc; refuses to overwrite.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut tree = Tree::new();
        for (name, contents) in &self.files {
            let name = name.trim_start_matches('/');
            if name.split('/').any(|part| matches!(part, "" | "." | "..") || part.len() > 64) {
                return Err(broken(format!("{name:?} cannot be a file's name")));
            }
            tree.insert(name, Node::file(Content::bytes(contents.clone())))
                .map_err(|e| broken(format!("{name}: {e}")))?;
        }
        let options = IsoOptions::default()
            .with_id(IsoId::Volume, &self.label)
            .with_joliet()
            .with_rock_ridge()
            .with_time(NoClock::TIME);
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(Error::io("create", path))?;
        let device = hadris_storage::host::FileDevice::new(file).map_err(broken)?;
        let report = hadris_iso::sync::write(device, &tree, &options).map_err(broken)?;
        match report.warnings().first() {
            Some(warning) => Err(broken(warning)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn tool(program: &str, args: &[&str], path: &Path) -> Vec<u8> {
        let out = Command::new(program)
            .args(args)
            .arg(path)
            .output()
            .unwrap_or_else(|e| panic!("needs {program}: run ci/setup ({e})"));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    #[test]
    #[cfg_attr(windows, ignore = "needs isoinfo, xorriso and blkid")]
    fn every_reader_finds_label_names_and_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let long = "a-name that is rather Long.config.xml";
        let medium = AnswerMedium::new("GILTCFG")
            .unwrap()
            .file("autounattend.xml", "<unattend/>")
            .file("answer.env", "HOSTNAME=x\n")
            .file(format!("sub/folder/{long}"), vec![7u8; 5000])
            .file("empty", "");
        let path = dir.path().join("a.iso");
        medium.write(&path).unwrap();

        let text = String::from_utf8(tool("isoinfo", &["-d", "-i"], &path)).unwrap();
        assert!(text.contains("Volume id: GILTCFG"), "{text}");
        assert!(text.contains("Joliet with UCS level 3 found"), "{text}");
        assert!(text.contains("Rock Ridge signatures version 1 found"), "{text}");
        for flag in ["-J", "-R"] {
            let list = String::from_utf8(tool("isoinfo", &[flag, "-f", "-i"], &path)).unwrap();
            let mut names: Vec<&str> = list.lines().collect();
            names.sort_unstable();
            let long = format!("/sub/folder/{long}");
            assert_eq!(
                names,
                ["/answer.env", "/autounattend.xml", "/empty", "/sub", "/sub/folder", &long],
                "{flag}"
            );
        }
        // 7-Zip reads every byte by itself.
        let out = dir.path().join("out");
        let into = format!("-o{}", out.display());
        tool("7z", &["x", "-y", &into], &path);
        assert_eq!(std::fs::read(out.join("answer.env")).unwrap(), b"HOSTNAME=x\n");
        assert_eq!(std::fs::read(out.join("sub/folder").join(long)).unwrap(), [7u8; 5000]);
        assert_eq!(std::fs::read(out.join("empty")).unwrap(), b"");

        let again = dir.path().join("b.iso");
        medium.write(&again).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap(), "reproducible");
        assert!(medium.write(&path).is_err(), "nothing is overwritten");
    }

    #[test]
    fn labels_and_names_that_some_guest_could_not_read_are_refused() {
        for label in ["", "gilt", "A B", "ABCDEFGHIJKLMNOPQ"] {
            assert!(AnswerMedium::new(label).is_err(), "{label}");
        }
        let dir = tempfile::tempdir().unwrap();
        for name in ["../x", "a//b", "."] {
            let medium = AnswerMedium::new("A").unwrap().file(name, "");
            assert!(medium.write(&dir.path().join("x.iso")).is_err(), "{name}");
        }
    }
}
