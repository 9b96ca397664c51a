//! `gilt capture | disk | inventory | apply`: disks in, WIMs out, and back.

use super::{Context, Failure};
use clap::Subcommand;

#[derive(Subcommand)]
pub enum CaptureCommand {}

impl CaptureCommand {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        match self {}
    }
}
