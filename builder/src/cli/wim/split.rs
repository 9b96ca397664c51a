use super::failed;
use super::interrupt::Watched;
use super::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{SplitOptions, split};
use serde_json::json;
use std::path::PathBuf;

#[derive(Args)]
pub struct Split {
    /// The WIM to split
    file: PathBuf,
    /// Largest size of a part: bytes, or with KiB, MiB, GiB
    #[arg(long, value_parser = parse_size)]
    size: u64,
    /// The first part [default: FILE with the ending swm]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Append an integrity table to each part
    #[arg(long)]
    integrity: bool,
    /// Do not wait for the disk before the parts appear
    #[arg(long)]
    no_sync: bool,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("unknown unit {other:?}: KiB, MiB, GiB, kB, MB or GB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("{text:?} is not a size"))?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0).ok_or_else(|| "0 or too large".into())
}

impl Split {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let target = Target { path: self.file.clone(), image: None };
        let wim = target.open(&References { refs: Vec::new() })?;
        let first = self.output.clone().unwrap_or_else(|| self.file.with_extension("swm"));
        if first == self.file {
            return Err(Failure::usage("the first part would replace the WIM: give --output"));
        }
        let options = SplitOptions {
            part_bytes: self.size,
            integrity: self.integrity,
            threads: gilt_wim::default_threads(),
            sync: !self.no_sync,
        };
        let watched = Watched::new(context, "splitting");
        let parts = split(&wim, &first, &options, &watched)
            .map_err(|error| failed(self.file.display(), error))?;
        drop(watched);
        if context.json {
            println!("{}", json!({ "parts": parts }));
        } else {
            parts.iter().for_each(|part| println!("{}", part.display()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4GiB"), Ok(4 << 30));
        assert_eq!(parse_size("700MB"), Ok(700_000_000));
        assert_eq!(parse_size("123"), Ok(123));
        assert!(parse_size("4 parsecs").is_err());
        assert!(parse_size("0").is_err());
    }
}
