//! The types a template is read into, one file per subject. Their doc comments are the reference.

pub mod file;
pub mod finish;
pub mod layer;
pub mod machine;
pub mod provisioner;
pub mod source;
pub mod template;
pub mod variable;
pub mod windows;

pub use file::*;
pub use finish::*;
pub use layer::*;
pub use machine::*;
pub use provisioner::*;
pub use source::*;
pub use template::*;
pub use variable::*;
pub use windows::*;
