//! The cause that logs of a Windows name, once they were copied from its disk.

use gilt_windows::diagnosis::{FOLDERS, Finding, classify};
use std::fs;
use std::path::Path;

/// The logs that hold errors, first.
const NAMES: &[&str] = &["setuperr.log", "setupact.log", "CBS.log", "dism.log"];
/// The evidence has the end of each log only.
const MAX_BYTES: u64 = 8 << 20;

/// One line of cause and cure from the logs below `guest`, the evidence's folder for them.
pub fn cause(guest: &Path) -> Option<Finding> {
    NAMES.iter().find_map(|name| {
        FOLDERS.iter().find_map(|folder| {
            let (root, below) = match folder.strip_suffix("/UnattendGC") {
                Some(root) => (root, "UnattendGC"),
                None => (*folder, ""),
            };
            let path = guest.join(root.replace('/', "-")).join(below).join(name);
            let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MAX_BYTES);
            let text = if small { fs::read_to_string(&path).ok()? } else { return None };
            classify(&text)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_errors_is_asked_before_the_log_of_acts() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("Windows-System32-Sysprep-Panther");
        fs::create_dir_all(&folder).unwrap();
        assert_eq!(cause(dir.path()), None);
        fs::write(folder.join("setupact.log"), "Error 0xC004D307\n").unwrap();
        assert_eq!(cause(dir.path()).unwrap().cause, "the licence cannot be rearmed any more");
        fs::write(folder.join("setuperr.log"), "Error ValidateBitLockerState 0x80310039\n")
            .unwrap();
        assert!(cause(dir.path()).unwrap().cause.contains("encrypted"));
        let gc = dir.path().join("Windows-Panther/UnattendGC");
        fs::create_dir_all(&gc).unwrap();
        fs::write(gc.join("setuperr.log"), "all is well\n").unwrap();
        assert!(cause(dir.path()).unwrap().cause.contains("encrypted"));
    }
}
