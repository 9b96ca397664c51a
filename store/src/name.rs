//! Names of images and channels, and how a version is asked for: `IMAGE`, `IMAGE@17`, `IMAGE:prod`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The channel that follows the newest version that is neither revoked nor deleted.
pub const LATEST: &str = "latest";

const MAX_LEN: usize = 100;

/// Names become folder names and object keys, so they keep to what is safe everywhere.
pub(crate) fn check(what: &str, name: &str) -> Result<()> {
    let ok = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_LEN {
        let why = format!("want 1 to {MAX_LEN} characters");
        return Err(Error::invalid(format!("{what} {name:?}"), why));
    }
    if !bytes.iter().copied().all(ok) || !bytes[0].is_ascii_alphanumeric() {
        let why =
            "want lower-case letters, digits, '.', '_' and '-', beginning with a letter or digit";
        return Err(Error::invalid(format!("{what} {name:?}"), why));
    }
    Ok(())
}

/// What a person names on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub image: String,
    pub pick: Pick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// `IMAGE`: the channel `latest`.
    Latest,
    /// `IMAGE@17`
    Version(u64),
    /// `IMAGE:prod`
    Channel(String),
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (image, pick) = if let Some((image, version)) = text.split_once('@') {
            let version = version.parse().ok().filter(|&v| v > 0).ok_or_else(|| {
                Error::invalid(
                    format!("version in {text:?}"),
                    "want a number from 1, as in image@17",
                )
            })?;
            (image, Pick::Version(version))
        } else if let Some((image, channel)) = text.split_once(':') {
            check("channel", channel)?;
            (image, Pick::Channel(channel.to_owned()))
        } else {
            (text, Pick::Latest)
        };
        check("image", image)?;
        Ok(Self { image: image.to_owned(), pick })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pick {
            Pick::Latest => write!(f, "{}:{LATEST}", self.image),
            Pick::Version(version) => write!(f, "{}@{version}", self.image),
            Pick::Channel(channel) => write!(f, "{}:{channel}", self.image),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_written() {
        for text in ["a@1", "win11-ent_x64:prod", "debian-12.thin:latest"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for text in ["", "A", "../x", "a@0", "a@x", "a:", "a:../b", "-a", "a b"] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was taken");
        }
    }
}
