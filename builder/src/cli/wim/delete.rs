use super::target::{References, Target};
use super::write::{WriteArgs, report};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::{WriteOptions, delete};

#[derive(Args)]
pub struct Delete {
    /// The image to remove, as FILE:INDEX or FILE:NAME
    target: Target,
    #[command(flatten)]
    write: WriteArgs,
}

impl Delete {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let wim = self.target.open(&References { refs: Vec::new() })?;
        if self.target.image.is_none() {
            return Err(Failure::usage("say which image to delete, as FILE:INDEX"));
        }
        let index = self.target.index(&wim)?;
        let options = self.write.apply(WriteOptions::like(&wim));
        report(context, &self.target.path, "rewriting", |progress| {
            delete(&self.target.path, &wim, index, &options, progress)
        })
    }
}
