//! `gilt store | publish | pull | promote | rollback | revoke | history | diff | verify`.

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum StoreCommand {}

impl StoreCommand {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        match self {}
    }
}
