//! Variables of templates and parameters of layers: declarations and types.

use super::FileRef;
use crate::template::fields::{choices, fields};
use crate::template::scalar::Raw;

choices! {
    /// What values a variable or parameter takes.
    pub enum VariableType {
        /// Any text.
        String = "string",
        /// A whole number.
        Int = "int",
        /// `true` or `false`.
        Bool = "bool",
        /// A number of bytes with a unit: `4GiB`.
        Size = "size",
        /// A time with a unit: `10m`.
        Duration = "duration",
        /// A path. A default is relative to the file it is written in, `--var` to the current folder.
        Path = "path",
        /// A list of texts. On the command line, items are separated by commas.
        List = "list",
    }
}

fields! {
    /// A value that is given when a template is built; used as `${NAME}` or `${var.NAME}`. What is
    /// given later wins: `default`, `file`, `env`, `GILT_VAR_<NAME>` in the environment, `--var-file`, `--var`.
    pub struct Variable = "variable" {
        /// What values it takes.
        run kind as "type": VariableType = VariableType::String,
        /// What it is for.
        run description: Option<String> = None,
        /// Its value where none is given. Without a default, a value must be given.
        run default: Option<Raw> = None,
        /// The environment variable its value comes from.
        run env: Option<String> = None,
        /// The file its value comes from, without the last newline.
        run file: Option<FileRef> = None,
        /// Its value is kept out of every output, and only its digest goes into keys.
        run sensitive: bool = false,
        /// The only values it may have.
        run one_of: Vec<String> = Vec::new(),
        /// Least value of an `int`.
        run min: Option<i64> = None,
        /// Greatest value of an `int`.
        run max: Option<i64> = None,
    }
}

fields! {
    /// A value that a template gives to a layer with `with:`; used as `${parameters.NAME}`, and in
    /// scripts as `GILT_PARAM_<NAME>`.
    pub struct Parameter = "parameter" {
        /// What values it takes.
        run kind as "type": VariableType = VariableType::String,
        /// What it is for.
        run description: Option<String> = None,
        /// Its value where none is given. Without a default, a value must be given.
        run default: Option<Raw> = None,
        /// The only values it may have.
        run one_of: Vec<String> = Vec::new(),
        /// Least value of an `int`.
        run min: Option<i64> = None,
        /// Greatest value of an `int`.
        run max: Option<i64> = None,
    }
}
