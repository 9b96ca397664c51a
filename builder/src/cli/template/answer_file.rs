//! `gilt answer-file`.

use super::TemplateArgs;
use crate::cli::{Context, Failure};
use crate::stage::windows::install::answer_file;
use crate::template::RuntimeValues;
use crate::template::model::{Guest, WindowsSetup};
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum AnswerFileCommand {
    /// Print the answer file Windows Setup gets, without its secrets
    Show(ShowArgs),
}

impl AnswerFileCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Show(args) => args.run(context),
        }
    }
}

/// Prints `Autounattend.xml` of every image of the template, with the template's own settings laid
/// over it and checked. Passwords and keys are shown as <hidden>; those of the build's account
/// are made anew for each build.
#[derive(Args)]
pub struct ShowArgs {
    #[command(flatten)]
    template: TemplateArgs,
}

impl ShowArgs {
    fn run(self, _context: &Context) -> Result<(), Failure> {
        let resolved = self.template.specs()?;
        for spec in &resolved.builds {
            if spec.guest != Guest::Windows {
                let text = format!("image {} is not Windows and has no answer file", spec.name);
                return Err(Failure::usage(text));
            }
            let setup = spec.source.windows.clone().unwrap_or_else(WindowsSetup::plain);
            let over = match setup.answer_file.as_ref().and_then(|file| file.path()) {
                Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                    Failure::usage(format!("cannot read {}: {error}", path.display()))
                })?),
                None => None,
            };
            let values = RuntimeValues {
                ssh_public_key: String::new(),
                http: "http://10.0.2.2".into(),
                name: spec.name.clone(),
                id: "show".into(),
                username: spec.communicator.username.clone(),
                password: "hidden".into(),
            };
            let user = &spec.communicator.username;
            let shown = answer_file(spec, &setup, user, "hidden", &values, over.as_deref())
                .map_err(|error| Failure::usage(error.to_string()))?
                .render()
                .map_err(|error| Failure::usage(error.to_string()))
                .and_then(|text| {
                    gilt_windows::answer::redacted(&text)
                        .map_err(|error| Failure::usage(error.to_string()))
                })?;
            if resolved.builds.len() > 1 {
                println!("<!-- {} -->", spec.name);
            }
            print!("{shown}");
        }
        Ok(())
    }
}
