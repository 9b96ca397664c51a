//! ext4 and FAT volumes as a `gilt_wim::tree::Tree`.
#![forbid(unsafe_code)]
