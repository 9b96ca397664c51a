//! `gilt lock`.

use super::TemplateArgs;
use crate::cli::{Context, Exit, Failure};
use crate::lock::Lock;
use clap::Args;

/// Records the digest of everything the template's images are made of: media, scripts, folders,
/// layers, included files. Commit the file; `gilt build --locked` refuses anything else.
#[derive(Args)]
pub struct LockArgs {
    #[command(flatten)]
    template: TemplateArgs,
    /// Change nothing; fail if the lock file is out of date
    #[arg(long)]
    check: bool,
}

impl LockArgs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let path = Lock::path_for(&self.template.template);
        let invalid = |error: crate::lock::LockError| Failure::new(Exit::Usage, error);
        let before = Lock::load(&path).map_err(invalid)?.unwrap_or_default();
        let mut digests = super::digests().fetch_to(super::home()?.inputs());
        let resolved = self.template.resolve_with(None, &mut digests)?;
        let mut lock = before.clone();
        let problems = lock.record(&self.template.template, &resolved.builds, &mut digests);
        if !problems.is_empty() {
            return Err(super::wrong(
                &self.template.template,
                &crate::template::Diagnostics(problems),
            ));
        }
        let changes = lock.changes_since(&before);
        if context.json {
            println!("{:#}", serde_json::json!({ "path": path, "changes": changes }));
        } else {
            for change in &changes {
                println!("{change}");
            }
        }
        if changes.is_empty() && path.exists() {
            if !context.json {
                println!("{} is up to date", path.display());
            }
            return Ok(());
        }
        if self.check {
            return Err(Failure::new(
                Exit::Corrupt,
                anyhow::anyhow!("{} is out of date", path.display()),
            )
            .hint(format!("run `gilt lock {}`", self.template.template.display())));
        }
        lock.save(&path)?;
        if !context.json {
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}
