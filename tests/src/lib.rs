//! End-to-end tests with real machines.
