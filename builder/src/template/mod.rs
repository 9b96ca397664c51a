//! Template text -> checked builds.
//!
//! ```text
//! files --yaml--> Node tree --include, profile--> one tree --variables, matrix--> expanded trees
//!       --fields--> typed TemplateFile --layer catalogue--> BuildSpec --digests--> Build with keys
//! ```
//!
//! Every node knows its place in the text; complaints are collected and shown together.

pub mod cx;
pub mod diagnostic;
pub mod expression;
pub mod fields;
pub mod layout;
pub mod load;
pub mod model;
pub mod node;
pub mod resolve;
pub mod scalar;
pub mod schema;
pub mod scope;
pub mod secret;
pub mod span;
pub mod text;
pub mod values;
pub mod yaml;

pub use crate::plan::Build;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use load::Template;
pub use model::*;
pub use resolve::{BuildSpec, LayerSpec, ResolveOptions, Resolved, SkippedLayer};
pub use scalar::{ByteSize, Date, FileMode};
pub use secret::Secrets;
pub use text::{RuntimeName, RuntimeValues, Text};
pub use values::{Given, ParameterValue};
