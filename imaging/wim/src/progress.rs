//! How long work tells where it is, and is told to stop.

/// Watches a piece of work. Called from many threads.
pub trait Progress: Sync {
    /// The work will be about this many bytes. May be called again with a better figure.
    fn total_bytes(&self, _bytes: u64) {}

    /// So many more bytes are done.
    fn advance_bytes(&self, _bytes: u64) {}

    /// True stops the work with [`Error::Cancelled`](crate::Error::Cancelled); what it wrote so
    /// far goes away.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Nobody watches.
impl Progress for () {}
