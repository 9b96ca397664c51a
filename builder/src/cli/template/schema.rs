//! `gilt schema`.

use crate::cli::{Context, Failure};
use crate::template::schema;
use clap::{Args, ValueEnum};

/// Prints the JSON Schema that editors check and complete templates with. In VS Code:
/// # yaml-language-server: $schema=template.schema.json
#[derive(Args)]
pub struct SchemaArgs {
    /// Of what
    #[arg(value_enum, default_value = "template")]
    of: Of,
    /// Print the reference page (Markdown) instead
    #[arg(long)]
    reference: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Of {
    /// A template
    Template,
    /// A layer's layer.yaml
    Layer,
}

impl SchemaArgs {
    pub fn run(self, _context: &Context) -> Result<(), Failure> {
        match (self.of, self.reference) {
            (Of::Template, false) => println!("{:#}", schema::template_schema()),
            (Of::Layer, false) => println!("{:#}", schema::layer_schema()),
            (Of::Template, true) => print!("{}", schema::template_reference()),
            (Of::Layer, true) => print!("{}", schema::layer_reference()),
        }
        Ok(())
    }
}
