//! A hive of any bytes, with a log of any bytes: the first two bytes tell how long the log at the
//! end is.
#![no_main]

use gilt_hive::{Dirty, Hive};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first_chunk::<2>() else { return };
    let log_len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
    let (file, log) = rest.split_at(rest.len() - log_len);
    let Ok(hive) = Hive::open(file.to_vec(), &[log.to_vec()], Dirty::Read) else { return };
    let _ = hive.walk(|_, key| {
        let _ = (key.class_name(), key.last_written());
        for value in key.values()? {
            let _ = (value.text(), value.texts(), value.dword(), value.qword());
        }
        Ok(())
    });
    let _ = hive.key(r"Microsoft\Windows NT\CurrentVersion");
});
