//! `gilt inspect`.

use super::TemplateArgs;
use crate::cli::{Context, Failure};
use clap::Args;

/// Shows every image of the template as gilt understands it: includes and profiles merged,
/// variables filled, defaults written out. Sensitive values are shown as ***.
#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    template: TemplateArgs,
}

impl InspectArgs {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        let resolved = self.template.specs()?;
        let images: Vec<_> = resolved.builds.iter().map(|build| build.to_json()).collect();
        println!("{:#}", serde_json::json!({ "images": images }));
        Ok(())
    }
}
