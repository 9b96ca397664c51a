//! Disk images and partition tables as random-access bytes.
#![forbid(unsafe_code)]
