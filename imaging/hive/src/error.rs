//! What can go wrong when a hive is read, with the place.

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("not a registry hive: {0}")]
    NotAHive(&'static str),

    /// Offsets count from the start of the hive file.
    #[error("damaged hive: byte {at:#x}: {what}")]
    Corrupt { at: u64, what: &'static str },

    /// The sequences differ and no log fits.
    #[error(
        "the hive was not completely written (sequences {primary} and {secondary}) and none of \
         {logs} logs completes it: start the machine and shut it down cleanly"
    )]
    Dirty { primary: u32, secondary: u32, logs: usize },

    #[error("value {name} has type {found}, not {wanted}")]
    WrongType { name: String, found: u32, wanted: &'static str },
}

pub type Result<T> = std::result::Result<T, Error>;
