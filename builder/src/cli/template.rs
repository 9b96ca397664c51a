//! `gilt validate | plan | fmt | schema | lock | layers`: what needs no machine.

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum TemplateCommand {}

impl TemplateCommand {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        match self {}
    }
}
