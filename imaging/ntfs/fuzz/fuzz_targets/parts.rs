//! Single structures: a file record with its run lists, an attribute list, `$SDS`, an EA list, the
//! restart pages of the log. The first byte chooses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gilt_ntfs::fuzzing::part(data));
