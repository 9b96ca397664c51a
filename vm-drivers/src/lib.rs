//! Reference machines: the `VmDriver` trait, its drivers, and the ways into a guest.
