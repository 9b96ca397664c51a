//! `FILE[:IMAGE]` and the files that complete it.

use super::failed;
use crate::cli::Failure;
use clap::Args;
use gilt_wim::Wim;
use std::path::PathBuf;

/// A WIM, and perhaps an image in it by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub path: PathBuf,
    pub image: Option<String>,
}

impl std::str::FromStr for Target {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let whole = || Self { path: text.into(), image: None };
        if std::path::Path::new(text).exists() {
            return Ok(whole());
        }
        Ok(match text.rsplit_once(':') {
            // A lone letter before the colon is a drive of Windows.
            Some((path, image)) if path.len() > 1 && !image.is_empty() => {
                Self { path: path.into(), image: Some(image.to_owned()) }
            }
            _ => whole(),
        })
    }
}

/// Files besides the WIM itself.
#[derive(Args)]
pub struct References {
    /// Another part of the set, or the base of a delta; may be given several times
    #[arg(long = "ref", value_name = "FILE")]
    pub refs: Vec<PathBuf>,
}

impl Target {
    pub fn open(&self, references: &References) -> Result<Wim, Failure> {
        let opened = if references.refs.is_empty() {
            Wim::open(&self.path)
        } else {
            Wim::open_with(&self.path, &references.refs)
        };
        opened.map_err(|error| failed(self.path.display(), error))
    }

    /// The image meant: the one named, or the only one.
    pub fn index(&self, wim: &Wim) -> Result<u32, Failure> {
        let path = self.path.display();
        match &self.image {
            Some(which) => wim.find_image(which).ok_or_else(|| {
                Failure::usage(format!(
                    "{path}: there is no image {which:?} among the {}",
                    wim.image_count()
                ))
                .hint(format!("`gilt wim info {path}` lists them"))
            }),
            None if wim.image_count() == 1 => Ok(1),
            None => Err(Failure::usage(format!(
                "{path} has {} images: say which, as {path}:1",
                wim.image_count()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn the_image_follows_the_last_colon() {
        assert_eq!(parse("a.wim").image, None);
        assert_eq!(parse("a.wim:2").image.as_deref(), Some("2"));
        assert_eq!(parse("C:\\a.wim").image, None);
        assert_eq!(parse("C:\\a.wim:Windows 11").image.as_deref(), Some("Windows 11"));
    }
}
