//! `gilt wim …`: one file per verb.

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum WimCommand {}

impl WimCommand {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        match self {}
    }
}
