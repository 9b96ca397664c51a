//! Disk image to WIM, and WIM to disk.
#![forbid(unsafe_code)]
