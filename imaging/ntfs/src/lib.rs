//! NTFS, read whole: one sequential pass over $MFT gives a `gilt_wim::tree::Tree`.
#![forbid(unsafe_code)]
