//! Initial RAM file systems: the `newc` form of cpio, written in memory
//! (format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Parents come before what is in them.
#[derive(Debug, Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    next_inode: u32,
}

impl Cpio {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn directory(&mut self, path: &str, mode: u32) -> &mut Self {
        self.entry(path, DIRECTORY | mode, (0, 0), b"")
    }

    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> &mut Self {
        self.entry(path, FILE | mode, (0, 0), contents)
    }

    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    pub fn character_device(&mut self, path: &str, mode: u32, number: (u32, u32)) -> &mut Self {
        self.entry(path, CHARACTER_DEVICE | mode, number, b"")
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> &mut Self {
        self.next_inode += 1;
        // An initrd of 4 GiB would not fit the guests it is for.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_length = path.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        for field in [
            self.next_inode,
            mode,
            0, // uid
            0, // gid
            1, // links
            0, // time
            length,
            0,
            0, // the archive's own device
            device.0,
            device.1,
            name_length,
            0, // check, unused in this form
        ] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    #[cfg_attr(windows, ignore = "needs busybox")]
    fn cpio_itself_unpacks_what_we_pack() {
        let mut cpio = Cpio::new();
        cpio.directory("a", 0o755).file("a/odd", 0o640, b"12345").symlink("l", "a/odd");
        let archive = cpio.finish();
        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("busybox")
            .args(["cpio", "-id"])
            .current_dir(dir.path())
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("needs busybox: run ci/setup");
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("l")).unwrap(), b"12345");
    }
}
