use super::failed;
use super::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{ChangeKind, Side, diff};
use serde_json::json;
use std::io::Write;

#[derive(Args)]
pub struct Diff {
    /// The older image, as FILE, FILE:INDEX or FILE:NAME
    old: Target,
    /// The newer image
    new: Target,
    #[command(flatten)]
    references: References,
}

impl Diff {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let load = |target: &Target| {
            let wim = target.open(&self.references)?;
            let index = target.index(&wim)?;
            wim.load_tree(index).map_err(|error| failed(target.path.display(), error))
        };
        let (old, new) = (load(&self.old)?, load(&self.new)?);
        let changes =
            diff(Side { tree: &old.0, contents: &old.1 }, Side { tree: &new.0, contents: &new.1 })
                .map_err(|error| failed("diff", error))?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for change in changes {
            let reasons: Vec<&str> = change.reasons.iter().map(|reason| reason.name()).collect();
            let (word, sign) = match change.kind {
                ChangeKind::Added => ("added", '+'),
                ChangeKind::Removed => ("removed", '-'),
                ChangeKind::Changed => ("changed", '~'),
            };
            let done = if context.json {
                let line = json!({ "path": change.path, "change": word, "reasons": reasons });
                writeln!(out, "{line}")
            } else if reasons.is_empty() {
                writeln!(out, "{sign} {}", change.path)
            } else {
                writeln!(out, "{sign} {} ({})", change.path, reasons.join(", "))
            };
            match done {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                done => done?,
            }
        }
        Ok(out.flush()?)
    }
}
