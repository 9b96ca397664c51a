//! Names and where they are known; filling `${…}` in trees and deciding each `when`.

use super::cx::Cx;
use super::expression::{self, Expanded, Meaning, NoMeaning, Scope};
use super::fields::nearest_hint;
use super::node::{Entry, Map, Node, Scalar, Value};
use super::text::{RuntimeName, Text};
use super::values::{ParameterValue, Variables};
use std::collections::BTreeMap;

/// The names that may be used in a template, or in a layer's file where `parameters` are given.
pub(crate) struct Names<'a> {
    pub variables: &'a Variables,
    pub matrix: &'a [(String, String)],
    pub parameters: Option<&'a BTreeMap<String, Option<ParameterValue>>>,
}

impl Scope for Names<'_> {
    fn meaning(&self, name: &str) -> Result<Meaning, NoMeaning> {
        let none = |message: String, hint: String| NoMeaning { message, hint: Some(hint) };
        let Some((group, rest)) = name.split_once('.') else {
            if self.parameters.is_some() {
                let hint = match self
                    .parameters
                    .is_some_and(|parameters| parameters.contains_key(name))
                {
                    true => format!("write `${{parameters.{name}}}`"),
                    false => format!(
                        "in a layer: `${{parameters.NAME}}`, `${{var.NAME}}`, `${{build.NAME}}`; for the shell's own, `$${{{name}}}`"
                    ),
                };
                return Err(none(format!("`{name}` is not known in a layer"), hint));
            }
            return self.variable(name, "");
        };
        match group {
            "var" => self.variable(rest, "var."),
            "matrix" => match self.matrix.iter().find(|(axis, _)| axis == rest) {
                Some((_, value)) => {
                    let value = ParameterValue::Text(Text::literal(value.clone()));
                    Ok(value.meaning(&format!("matrix {rest}")))
                }
                None => {
                    let axes: Vec<&str> =
                        self.matrix.iter().map(|(axis, _)| axis.as_str()).collect();
                    Err(none(format!("the matrix has no axis `{rest}`"), nearest_hint(rest, &axes)))
                }
            },
            "build" => RuntimeName::parse(rest).map(Meaning::Runtime).ok_or_else(|| {
                let known: Vec<&str> = RuntimeName::ALL.iter().map(|(_, name)| *name).collect();
                none(format!("a build has no `{rest}`"), nearest_hint(rest, &known))
            }),
            "parameters" => {
                let Some(parameters) = self.parameters else {
                    return Err(none(
                        "parameters are known only in a layer's file".into(),
                        "in a template, use a variable".into(),
                    ));
                };
                match parameters.get(rest) {
                    Some(Some(value)) => Ok(value.meaning(&format!("parameter {rest}"))),
                    Some(None) => Ok(Meaning::Unknown),
                    None => {
                        let known: Vec<&str> = parameters.keys().map(String::as_str).collect();
                        Err(none(
                            format!("the layer has no parameter `{rest}`"),
                            nearest_hint(rest, &known),
                        ))
                    }
                }
            }
            _ => {
                let groups = ["var", "matrix", "build", "parameters"];
                Err(none(format!("`{name}` is not known"), nearest_hint(group, &groups)))
            }
        }
    }
}

impl Names<'_> {
    fn variable(&self, name: &str, prefix: &str) -> Result<Meaning, NoMeaning> {
        match self.variables.get(name) {
            Some((Some(value), _)) => Ok(value.meaning(&format!("variable {name}"))),
            Some((None, _)) => Ok(Meaning::Unknown),
            None => {
                let known: Vec<&str> = self.variables.keys().map(String::as_str).collect();
                let hint = match super::fields::nearest(name, &known) {
                    Some(near) => format!("did you mean `${{{prefix}{near}}}`?"),
                    None => format!(
                        "declare it under `variables:`; for the shell's own, write `$${{{prefix}{name}}}`"
                    ),
                };
                let message = format!("there is no variable `{name}`");
                Err(NoMeaning { message, hint: Some(hint) })
            }
        }
    }
}

/// Keys of a template or layer whose values are read as they are written.
const UNEXPANDED: [&str; 5] = ["include", "variables", "profiles", "matrix", "parameters"];

pub(crate) fn expand_top(root: &Map, scope: &dyn Scope, cx: &mut Cx) -> Map {
    let entries = root
        .entries
        .iter()
        .map(|entry| {
            if UNEXPANDED.contains(&entry.key.as_str()) {
                return entry.clone();
            }
            Entry { node: expand_node(&entry.node, scope, cx), ..entry.clone() }
        })
        .collect();
    Map { entries }
}

fn expand_node(node: &Node, scope: &dyn Scope, cx: &mut Cx) -> Node {
    let value = match &node.value {
        Value::Scalar(scalar) => match scalar.text.known() {
            Some(text) if text.contains("${") => match expression::expand(&text, scope) {
                Ok(Expanded { unknown: true, .. }) => Value::Unknown,
                Ok(Expanded { text, items, .. }) => {
                    Value::Scalar(Scalar { text, items, plain: false })
                }
                Err(errors) => {
                    for error in errors {
                        cx.expression_error(node.span, error);
                    }
                    Value::Unknown
                }
            },
            _ => return node.clone(),
        },
        Value::List(items) => {
            Value::List(items.iter().map(|item| expand_item(item, scope, cx)).collect())
        }
        Value::Map(map) => {
            let expand = |entry: &Entry, cx: &mut Cx| Entry {
                node: expand_node(&entry.node, scope, cx),
                ..entry.clone()
            };
            Value::Map(Map { entries: map.entries.iter().map(|entry| expand(entry, cx)).collect() })
        }
        Value::Unknown => Value::Unknown,
    };
    Node { value, ..node.clone() }
}

/// An item of a list: a map in it may have a `when`.
fn expand_item(node: &Node, scope: &dyn Scope, cx: &mut Cx) -> Node {
    let Value::Map(map) = &node.value else { return expand_node(node, scope, cx) };
    let mut map = map.clone();
    let mut skipped = false;
    if let Some(when) = map.remove("when") {
        let at = when.node.span;
        let source = match &when.node.value {
            Value::Scalar(scalar) if !when.node.is_null() => scalar.text.known(),
            _ => None,
        };
        match source.as_deref().map(|source| expression::condition(source, scope)) {
            Some(Ok(holds)) => skipped = holds != Some(true),
            Some(Err(error)) => cx.expression_error(at, error),
            None => {
                cx.error_hint(at, "`when` needs a condition", "like: ${matrix.flavour} == \"web\"")
            }
        }
    }
    let node = expand_node(&Node { value: Value::Map(map), ..node.clone() }, scope, cx);
    Node { skipped, ..node }
}
