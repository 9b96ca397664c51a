//! `gilt fmt`.

use crate::cli::{Context, Exit, Failure};
use crate::template::layout;
use clap::Args;
use std::path::PathBuf;

/// Tidies the layout of template and layer files: trailing blanks, tabs at the end, blank lines in a
/// row, line ends, the order of a template's top keys. Comments stay where they are; what the
/// file means never changes.
#[derive(Args)]
pub struct FmtArgs {
    /// Files to tidy
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; fail if a file is not tidy
    #[arg(long)]
    check: bool,
}

impl FmtArgs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let mut untidy = Vec::new();
        for path in &self.files {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(
                    Exit::Usage,
                    anyhow::anyhow!("cannot read {}: {error}", path.display()),
                )
            })?;
            let tidy =
                layout::tidy(path, &text).map_err(|problems| super::wrong(path, &problems))?;
            if tidy == text {
                continue;
            }
            untidy.push(path.clone());
            if !self.check {
                crate::home::write_atomically(path, tidy.as_bytes())?;
            }
        }
        if context.json {
            println!("{:#}", serde_json::json!({ "untidy": untidy }));
        } else {
            for path in &untidy {
                println!("{}", path.display());
            }
        }
        if self.check && !untidy.is_empty() {
            return Err(Failure::new(
                Exit::Usage,
                anyhow::anyhow!("{} of {} files are not tidy", untidy.len(), self.files.len()),
            )
            .hint("run `gilt fmt` on them"));
        }
        Ok(())
    }
}
