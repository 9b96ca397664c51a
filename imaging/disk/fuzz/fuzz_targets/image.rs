//! An image of any format, after a byte that says which is tried. VHDX, whose tables lie far apart, has a
//! target of its own.
#![no_main]

use gilt_disk::{Format, OpenOptions, extent_list, open_with};
use std::io::Write;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((which, bytes)) = data.split_first() else { return };
    let format = [None, Some(Format::Qcow2), Some(Format::Vhdx), Some(Format::Vhd)][usize::from(which % 4)];
    let Ok(mut file) = tempfile::NamedTempFile::new_in("/dev/shm") else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    // Backing images would be files of this host: names with a slash are not followed far.
    let options = OpenOptions { format, allow_in_use: true, ..OpenOptions::default() };
    let Ok(disk) = open_with(file.path(), &options) else { return };
    let reader = disk.reader();
    let len = reader.len_bytes();
    let mut buf = [0; 8192];
    for at in [0, 4096, 65_536, len / 2, len.saturating_sub(8192)] {
        let part = len.saturating_sub(at).min(8192) as usize;
        let _ = reader.read_at(at, &mut buf[..part]);
    }
    let _ = extent_list(&*reader, 0..len.min(16 << 20));
});
