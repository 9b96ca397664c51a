//! What can go wrong in a store. A variant exists where a caller acts differently.

use std::path::PathBuf;

use crate::gates::GateResult;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or the server said no; nothing was damaged by it. Running again is safe.
    #[error("{doing} {object}: {source}")]
    Backend { doing: &'static str, object: String, source: object_store::Error },

    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },

    #[error("there is no store at {url}")]
    NotAStore { url: String },

    /// The probe caught the backend breaking a promise the store is built on.
    #[error("the backend at {url} breaks a promise the store needs, {promise}: {seen}")]
    BackendLies { url: String, promise: &'static str, seen: String },

    /// Bytes are not what a digest or a format says: damaged, or tampered with.
    #[error("{object} is damaged{}: {what}", at.map(|at| format!(" at {at:#x}")).unwrap_or_default())]
    Corrupt { object: String, at: Option<u64>, what: String },

    #[error("{object}: signature refused: {why}")]
    Signature { object: String, why: String },

    /// A log shows less than this client has already seen.
    #[error(
        "{log} went back in time: this client has seen entry {seen}, the store now shows {found}"
    )]
    Replayed { log: String, seen: u64, found: u64 },

    #[error("the store at {url} is not the one known here: expected {known}, found {found}")]
    Identity { url: String, known: String, found: String },

    #[error("{log}: its head expired at {at}; whoever serves this store may be holding news back")]
    Expired { log: String, at: jiff::Timestamp },

    #[error("{what} does not exist")]
    NotFound { what: String },

    #[error("{image}@{version} was not promoted to {to}: {}", list_failures(gates))]
    Gates { image: String, version: u64, to: String, gates: Vec<GateResult> },

    #[error("{image}@{version} is revoked: {why}")]
    Revoked { image: String, version: u64, why: String },

    /// Asked for something the rules of the store forbid.
    #[error("{what}: {why}")]
    Refused { what: String, why: String },

    #[error("gave up on {what}: lost {attempts} races for it")]
    Raced { what: String, attempts: u32 },

    #[error("no signing key at hand has the role {role} in this store")]
    NoKey { role: String },

    #[error(
        "two contents with the SHA-1 {sha1}: the store holds {known} and was given {given}; \
         one of them is forged"
    )]
    Sha1Collision { sha1: String, known: String, given: String },

    #[error("{what} is not valid: {why}")]
    Invalid { what: String, why: String },

    #[error("cancelled")]
    Cancelled,
}

fn list_failures(gates: &[GateResult]) -> String {
    let failed: Vec<_> =
        gates.iter().filter(|g| !g.passed).map(|g| format!("{} ({})", g.gate, g.detail)).collect();
    failed.join("; ")
}

impl Error {
    pub(crate) fn corrupt(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), at: None, what: what.into() }
    }

    pub(crate) fn corrupt_at(object: impl Into<String>, at: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { object: object.into(), at: Some(at), what: what.into() }
    }

    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Self {
        Self::Io { doing, path: path.into(), source }
    }

    pub(crate) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), why: why.into() }
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::NotFound { what: what.into() }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Backend { source: object_store::Error::NotFound { .. }, .. }
        )
    }
}
