//! Versions of images held once: blobs, versions, channels, signatures, retention.
#![forbid(unsafe_code)]
