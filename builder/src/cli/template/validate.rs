//! `gilt validate`.

use super::TemplateArgs;
use crate::cli::{Context, Exit, Failure};
use crate::template::{Diagnostic, Diagnostics, ResolveOptions, Severity, Template};
use clap::Args;

/// Checks the template, what it includes, and the layers it names, without reading media and
/// scripts. Without --profile, every profile is checked too.
#[derive(Args)]
pub struct ValidateArgs {
    #[command(flatten)]
    template: TemplateArgs,
}

impl ValidateArgs {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let path = &self.template.template;
        let (images, problems) = match self.check() {
            Ok((images, warnings)) => (images, warnings),
            Err(Diagnostics(problems)) => (Vec::new(), problems),
        };
        let valid = !problems.iter().any(|problem| problem.severity == Severity::Error);
        if context.json {
            let report = serde_json::json!({
                "template": path,
                "valid": valid,
                "images": images,
                "problems": problems,
            });
            println!("{report:#}");
            return match valid {
                true => Ok(()),
                false => Err(Failure::new(
                    Exit::Usage,
                    anyhow::anyhow!("{} is not valid", path.display()),
                )),
            };
        }
        if !valid {
            return Err(super::wrong(path, &Diagnostics(problems)));
        }
        super::print_problems(&problems);
        println!("{} is valid: {}", path.display(), images.join(", "));
        Ok(())
    }

    /// Names of the images, and warnings.
    fn check(&self) -> Result<(Vec<String>, Vec<Diagnostic>), Diagnostics> {
        let (template, _) = self.template.load()?;
        let options = self.template.options();
        let resolved = template.resolve(&options)?;
        let images = resolved.builds.iter().map(|build| build.name.clone()).collect();
        let mut warnings = resolved.warnings;
        if options.profiles.is_empty() {
            for problem in profiles(&template, &options)? {
                if !warnings.contains(&problem) {
                    warnings.push(problem);
                }
            }
        }
        Ok((images, warnings))
    }
}

fn profiles(template: &Template, options: &ResolveOptions) -> Result<Vec<Diagnostic>, Diagnostics> {
    let mut warnings = Vec::new();
    for name in template.profile_names() {
        let options = ResolveOptions {
            profiles: vec![name.to_owned()],
            // Another profile may have other images.
            only: Vec::new(),
            except: Vec::new(),
            ..options.clone()
        };
        let resolved = template.resolve(&options).map_err(|Diagnostics(mut problems)| {
            for problem in &mut problems {
                problem.message.push_str(&format!(" (with --profile {name})"));
            }
            Diagnostics(problems)
        })?;
        warnings.extend(resolved.warnings);
    }
    Ok(warnings)
}
