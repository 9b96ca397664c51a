//! Values of variables and parameters: where they come from, and whether they fit their type.

use super::cx::Cx;
use super::diagnostic::{Diagnostic, Severity};
use super::expression::Meaning;
use super::fields::{Field, nearest_hint};
use super::load::read_text;
use super::model::{Location, Parameter, Variable, VariableType};
use super::node::{Map, Node, Scalar, Value};
use super::scalar::{ByteSize, Raw, parse_duration, show_duration};
use super::span::Span;
use super::text::Text;
use crate::content_hash::{ContentHasher, Digest};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The value of a variable or parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterValue {
    Text(Text),
    List(Vec<Text>),
}

impl ParameterValue {
    /// As it is put in an environment variable: a list's items separated by spaces.
    pub fn to_text(&self) -> Text {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(items) => Text::join(items, " "),
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        match self {
            Self::Text(text) => text.value_digest(),
            Self::List(items) => {
                let mut hasher = ContentHasher::new();
                hasher.frame("list", items.len());
                for item in items {
                    hasher.leaf("item", &item.value_digest().0);
                }
                hasher.digest()
            }
        }
    }

    /// What a name that stands for this value means, with the name kept for keys.
    pub(crate) fn meaning(&self, origin: &str) -> Meaning {
        let digest = self.digest();
        let named = |text: &Text| Text::reference(origin, digest, text.clone());
        match self {
            Self::Text(text) => Meaning::Value(named(text)),
            Self::List(items) => {
                Meaning::List(items.iter().map(named).collect(), named(&self.to_text()))
            }
        }
    }

    pub fn to_json(&self) -> Json {
        match self {
            Self::Text(text) => text.shown().into(),
            Self::List(items) => items.iter().map(|item| Json::from(item.shown())).collect(),
        }
    }
}

/// The limits of a value, from a variable's or a parameter's declaration.
struct Limits<'a> {
    kind: VariableType,
    one_of: &'a [String],
    min: Option<i64>,
    max: Option<i64>,
}

/// Where values come from, besides the template.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// `--var NAME=VALUE`, in order.
    pub vars: Vec<(String, String)>,
    /// `--var-file`, in order.
    pub var_files: Vec<PathBuf>,
    /// The process's environment.
    pub environment: BTreeMap<String, String>,
}

impl Given {
    pub fn from_environment() -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { environment, ..Self::default() }
    }
}

/// The variables of one template: a missing value is None, and the complaint has been made.
pub type Variables = BTreeMap<String, (Option<ParameterValue>, bool)>;

/// Works out the value of each declared variable.
pub fn variables(
    declared: &BTreeMap<String, Variable>,
    at: Option<&Map>,
    given: &Given,
    cx: &mut Cx,
) -> Variables {
    let from_files = var_files(declared, given, cx);
    let names: Vec<&str> = declared.keys().map(String::as_str).collect();
    for (name, _) in &given.vars {
        if !declared.contains_key(name) {
            let message = format!("--var {name}: the template has no such variable");
            cx.push(Diagnostic::error(message).hint(nearest_hint(name, &names)));
        }
    }
    let mut values = Variables::new();
    for (name, variable) in declared {
        let span = at.and_then(|map| map.get(name)).map(|entry| entry.key_span).unwrap_or_default();
        let value = variable_value(name, variable, span, given, &from_files, cx);
        let value = match value {
            Some(ParameterValue::Text(text)) if variable.sensitive => {
                Some(ParameterValue::Text(Text::secret(text.known().unwrap_or_default())))
            }
            Some(ParameterValue::List(items)) if variable.sensitive => Some(ParameterValue::List(
                items.iter().map(|item| Text::secret(item.known().unwrap_or_default())).collect(),
            )),
            value => value,
        };
        values.insert(name.clone(), (value, variable.sensitive));
    }
    values
}

fn variable_value(
    name: &str,
    variable: &Variable,
    span: Span,
    given: &Given,
    from_files: &BTreeMap<String, (Node, PathBuf)>,
    cx: &mut Cx,
) -> Option<ParameterValue> {
    let limits = Limits {
        kind: variable.kind,
        one_of: &variable.one_of,
        min: variable.min,
        max: variable.max,
    };
    let from_text = |source: String, text: &str, cx: &mut Cx| {
        let value = text_value(&limits, text, Path::new("."));
        value
            .map_err(|message| {
                let message = if variable.sensitive {
                    "its value does not fit its type".into()
                } else {
                    message
                };
                cx.push(Diagnostic::error(format!("{source}: {message}")));
            })
            .ok()
    };
    if let Some((_, text)) = given.vars.iter().rev().find(|(given, _)| given == name) {
        return from_text(format!("--var {name}"), text, cx);
    }
    if let Some((node, path)) = from_files.get(name) {
        let base = path.parent().unwrap_or(Path::new("."));
        let before = cx.problems.len();
        let value = node_value(&limits, node, base, cx);
        for problem in cx.problems.iter_mut().skip(before) {
            problem.message = format!("{}: `{name}`: {}", path.display(), problem.message);
        }
        return value;
    }
    let standard = format!("GILT_VAR_{name}");
    for source in std::iter::once(standard.as_str()).chain(variable.env.as_deref()) {
        if let Some(text) = given.environment.get(source) {
            return from_text(format!("environment variable {source}"), text, cx);
        }
    }
    if let Some(file) = &variable.file {
        match &file.location {
            Location::Url(_) => {
                cx.error(file.span, "a variable's value cannot be fetched from an address")
            }
            Location::Path(path) if path.exists() || variable.default.is_none() => {
                match read_text(path) {
                    Ok(text) => {
                        let text = text.strip_suffix('\n').unwrap_or(&text);
                        let text = text.strip_suffix('\r').unwrap_or(text);
                        return from_text(format!("file {}", path.display()), text, cx);
                    }
                    Err(message) => cx.error(file.span, message),
                }
            }
            Location::Path(_) => {}
        }
        variable.default.as_ref()?;
    }
    let Some(Raw(node)) = &variable.default else {
        let from_env =
            variable.env.as_ref().map(|env| format!(", or set {env}")).unwrap_or_default();
        cx.error_hint(
            span,
            format!("variable `{name}` has no value"),
            format!("give one with --var {name}=…{from_env}"),
        );
        return None;
    };
    let folder = cx.sources.folder(node.span.file).to_owned();
    node_value(&limits, node, &folder, cx)
}

fn var_files(
    declared: &BTreeMap<String, Variable>,
    given: &Given,
    cx: &mut Cx,
) -> BTreeMap<String, (Node, PathBuf)> {
    let names: Vec<&str> = declared.keys().map(String::as_str).collect();
    let mut values = BTreeMap::new();
    for path in &given.var_files {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(message) => {
                cx.push(Diagnostic::error(format!("--var-file: {message}")));
                continue;
            }
        };
        let mut sources = super::span::Sources::default();
        let file = sources.add(path, text);
        let mut own = Cx::new(&sources);
        let mut problems = Vec::new();
        let node = super::yaml::parse(file, &sources, &mut problems);
        match node.as_ref().map(|node| &node.value) {
            Some(Value::Map(map)) => {
                for entry in &map.entries {
                    if declared.contains_key(&entry.key) {
                        // Spans of this file mean nothing to the template's sources.
                        let mut node = entry.node.clone();
                        unplace(&mut node);
                        values.insert(entry.key.clone(), (node, path.clone()));
                    } else {
                        let message = format!("the template has no variable `{}`", entry.key);
                        own.error_hint(entry.key_span, message, nearest_hint(&entry.key, &names));
                    }
                }
            }
            Some(_) => {
                own.push(Diagnostic::error(format!("{} is not a map of variables", path.display())))
            }
            None => {}
        }
        let own = std::mem::take(&mut own.problems);
        cx.problems.extend(problems.into_iter().chain(own));
    }
    values
}

fn unplace(node: &mut Node) {
    node.span = Span::default();
    if let Value::List(items) = &mut node.value {
        items.iter_mut().for_each(unplace);
    }
}

/// The value of a layer's parameter, as `with:` gives it or by default.
pub fn parameter(
    name: &str,
    declared: &Parameter,
    given: Option<&Raw>,
    at: Span,
    cx: &mut Cx,
) -> Option<ParameterValue> {
    let limits = Limits {
        kind: declared.kind,
        one_of: &declared.one_of,
        min: declared.min,
        max: declared.max,
    };
    match given.or(declared.default.as_ref()) {
        Some(Raw(node)) => {
            let folder = cx.sources.folder(node.span.file).to_owned();
            node_value(&limits, node, &folder, cx)
        }
        None => {
            cx.error_hint(
                at,
                format!("parameter `{name}` has no value"),
                format!("give one with `with: {{{name}: …}}`"),
            );
            None
        }
    }
}

/// A value written in YAML. `folder` is what a relative path is relative to.
fn node_value(
    limits: &Limits<'_>,
    node: &Node,
    folder: &Path,
    cx: &mut Cx,
) -> Option<ParameterValue> {
    let mut complain = |node: &Node, message: String| {
        let diagnostic = Diagnostic::error(message);
        let placed = node.span != Span::default();
        let diagnostic = if placed { diagnostic.at(node.span, cx.sources) } else { diagnostic };
        cx.push(Diagnostic { severity: Severity::Error, ..diagnostic });
    };
    if limits.kind == VariableType::List {
        let items: Vec<(&Node, Text)> = match &node.value {
            Value::List(items) => items
                .iter()
                .filter(|item| !item.skipped)
                .filter_map(|item| match &item.value {
                    Value::Scalar(scalar) => Some((item, scalar.text.clone())),
                    _ => {
                        complain(
                            item,
                            format!("expected a single value in this list, found {}", item.kind()),
                        );
                        None
                    }
                })
                .collect(),
            Value::Scalar(Scalar { items: Some(items), .. }) => {
                items.iter().map(|item| (node, item.clone())).collect()
            }
            Value::Unknown => return None,
            _ => {
                complain(node, format!("expected a list, found {}", node.kind()));
                return None;
            }
        };
        for (item, text) in &items {
            if let Some(message) = text.known().and_then(|text| not_one_of(limits, &text)) {
                complain(item, message);
                return None;
            }
        }
        return Some(ParameterValue::List(items.into_iter().map(|(_, text)| text).collect()));
    }
    let scalar = match &node.value {
        Value::Scalar(scalar) => scalar,
        Value::Unknown => return None,
        _ => {
            complain(
                node,
                format!("expected a single value of type {}, found {}", limits.kind, node.kind()),
            );
            return None;
        }
    };
    match scalar.text.known() {
        // Waits for a running build: only text can.
        None if limits.kind == VariableType::String && limits.one_of.is_empty() => {
            Some(ParameterValue::Text(scalar.text.clone()))
        }
        None => {
            complain(
                node,
                "a value that is known only while building cannot stand here".to_owned(),
            );
            None
        }
        Some(text) => match text_value(limits, &text, folder) {
            // The text itself, so that secrets stay secret and names are kept for keys.
            Ok(ParameterValue::Text(new)) if new.known().as_deref() == Some(&text) => {
                Some(ParameterValue::Text(scalar.text.clone()))
            }
            Ok(value) => Some(value),
            Err(message) => {
                let sensitive = scalar.text.is_sensitive();
                complain(
                    node,
                    if sensitive { "the value does not fit its type".into() } else { message },
                );
                None
            }
        },
    }
}

fn not_one_of(limits: &Limits<'_>, text: &str) -> Option<String> {
    (!limits.one_of.is_empty() && !limits.one_of.iter().any(|allowed| allowed == text))
        .then(|| format!("`{text}` is not one of: {}", limits.one_of.join(", ")))
}

/// A value written as plain text, in one form for each value: `true`, `4GiB`, `1h30m`.
fn text_value(limits: &Limits<'_>, text: &str, folder: &Path) -> Result<ParameterValue, String> {
    let canonical = match limits.kind {
        VariableType::String => text.to_owned(),
        VariableType::Int => {
            let number: i64 =
                text.trim().parse().map_err(|_| format!("`{text}` is not a whole number"))?;
            if limits.min.is_some_and(|min| number < min)
                || limits.max.is_some_and(|max| number > max)
            {
                let bound =
                    |bound: Option<i64>| bound.map_or("…".to_owned(), |bound| bound.to_string());
                return Err(format!(
                    "{number} is out of range: {} to {}",
                    bound(limits.min),
                    bound(limits.max)
                ));
            }
            number.to_string()
        }
        VariableType::Bool => match text.trim() {
            "true" => "true".to_owned(),
            "false" => "false".to_owned(),
            _ => return Err(format!("`{text}` is neither true nor false")),
        },
        VariableType::Size => ByteSize::parse(text)?.to_string(),
        VariableType::Duration => show_duration(parse_duration(text)?),
        VariableType::Path => {
            if text.is_empty() {
                return Err("the path is empty".to_owned());
            }
            let path = super::load::normal(&folder.join(text));
            let path = std::path::absolute(&path).unwrap_or(path);
            path.to_string_lossy().into_owned()
        }
        VariableType::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            let items: Vec<Text> = items.map(Text::literal).collect();
            for item in &items {
                if let Some(message) = item.known().and_then(|item| not_one_of(limits, &item)) {
                    return Err(message);
                }
            }
            return Ok(ParameterValue::List(items));
        }
    };
    match not_one_of(limits, &canonical) {
        Some(message) => Err(message),
        None => Ok(ParameterValue::Text(Text::literal(canonical))),
    }
}

/// The names and values of a matrix, and the combinations to leave out.
pub struct Matrix {
    axes: Vec<(String, Vec<String>)>,
    exclude: Vec<BTreeMap<String, String>>,
}

/// More images than this from one template are a mistake.
const MAX_COMBINATIONS: usize = 256;

impl Matrix {
    pub fn decode(node: Option<&Node>, cx: &mut Cx) -> Self {
        let mut matrix = Self { axes: Vec::new(), exclude: Vec::new() };
        let Some(node) = node else { return matrix };
        let Value::Map(map) = &node.value else {
            cx.expected(node, "a map of axes");
            return matrix;
        };
        for entry in &map.entries {
            if entry.key == "exclude" {
                if let Some(exclude) = Vec::<BTreeMap<String, String>>::decode(&entry.node, cx) {
                    matrix.exclude = exclude;
                }
                continue;
            }
            let Some(values) = Vec::<String>::decode(&entry.node, cx) else { continue };
            if values.is_empty() {
                cx.error(entry.key_span, format!("axis `{}` has no values", entry.key));
            }
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = values.iter().find(|value| !seen.insert(value.as_str())) {
                cx.error(
                    entry.node.span,
                    format!("axis `{}` has the value `{twice}` twice", entry.key),
                );
            }
            matrix.axes.push((entry.key.clone(), values));
        }
        let axes: Vec<&str> = matrix.axes.iter().map(|(name, _)| name.as_str()).collect();
        for name in matrix.exclude.iter().flat_map(|exclude| exclude.keys()) {
            if !axes.contains(&name.as_str())
                && let Some(entry) = map.get("exclude")
            {
                let message = format!("`exclude` names `{name}`, which is no axis");
                cx.error_hint(entry.node.span, message, nearest_hint(name, &axes));
            }
        }
        let count = matrix
            .axes
            .iter()
            .try_fold(1usize, |count, (_, values)| count.checked_mul(values.len()));
        if count.is_none_or(|count| count > MAX_COMBINATIONS) {
            cx.error(
                node.span,
                format!("the matrix has more than {MAX_COMBINATIONS} combinations"),
            );
            matrix.axes.clear();
        }
        matrix
    }

    /// Every combination, the last axis moving fastest.
    pub fn combinations(&self) -> Vec<Vec<(String, String)>> {
        let mut all = vec![Vec::new()];
        for (name, values) in &self.axes {
            all = all
                .into_iter()
                .flat_map(|before: Vec<(String, String)>| {
                    values.iter().map(move |value| {
                        let mut next = before.clone();
                        next.push((name.clone(), value.clone()));
                        next
                    })
                })
                .collect();
        }
        all.retain(|combination| {
            !self.exclude.iter().any(|exclude| {
                exclude.iter().all(|(name, value)| {
                    combination.iter().any(|(axis, picked)| axis == name && picked == value)
                })
            })
        });
        all
    }
}
