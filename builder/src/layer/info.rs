//! What a layer's file says of itself, without a template that uses it.

use super::LAYER_FILE;
use crate::template::cx::Cx;
use crate::template::diagnostic::{Diagnostics, Severity};
use crate::template::expression::{Meaning, NoMeaning, Scope};
use crate::template::fields::Field;
use crate::template::load::read_text;
use crate::template::node::{Map, Node, Value};
use crate::template::scalar::Raw;
use crate::template::scope::expand_top;
use crate::template::span::Sources;
use crate::template::{Diagnostic, Guest, LayerFile, Parameter, yaml};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// A layer of the catalogue.
#[derive(Clone, Debug)]
pub struct LayerInfo {
    pub name: String,
    pub description: Option<String>,
    /// Guests it suits; none named: all.
    pub guests: Vec<Guest>,
    pub parameters: BTreeMap<String, Parameter>,
    /// Name of each input, and where it comes from, as written.
    pub inputs: BTreeMap<String, String>,
    /// What is done, and what must succeed then, as written.
    pub provisioners: Vec<String>,
    pub verify: Vec<String>,
    pub as_of: Option<String>,
    pub max_age: Option<String>,
}

/// Every name may have a value that is not known here.
struct AnyName;

impl Scope for AnyName {
    fn meaning(&self, _: &str) -> Result<Meaning, NoMeaning> {
        Ok(Meaning::Unknown)
    }
}

impl LayerInfo {
    /// Reads the layer's file and checks all of it that needs no template.
    pub fn read(folder: &Path) -> Result<Self, Diagnostics> {
        let path = folder.join(LAYER_FILE);
        let text =
            read_text(&path).map_err(|message| Diagnostics(vec![Diagnostic::error(message)]))?;
        let mut sources = Sources::default();
        let file = sources.add(&path, text);
        let mut problems = Vec::new();
        let node = yaml::parse(file, &sources, &mut problems);
        let mut cx = Cx::new(&sources);
        cx.problems = problems;
        let info = node.and_then(|node| Self::decode(&node, &mut cx));
        let failed = cx.problems.iter().any(|problem| problem.severity == Severity::Error);
        match info {
            Some(info) if !failed => Ok(info),
            _ => Err(Diagnostics(cx.problems)),
        }
    }

    fn decode(node: &Node, cx: &mut Cx) -> Option<Self> {
        let Value::Map(root) = &node.value else {
            cx.expected(node, "a map");
            return None;
        };
        let expanded = Node::new(node.span, Value::Map(expand_top(root, &AnyName, cx)));
        LayerFile::decode(&expanded, cx);
        let text = |key: &str| root.get(key).and_then(|entry| written(&entry.node));
        Some(Self {
            name: text("name")?,
            description: text("description"),
            guests: match root.get("guests") {
                Some(entry) => Vec::decode(&entry.node, cx)?,
                None => Vec::new(),
            },
            parameters: match root.get("parameters") {
                Some(entry) => BTreeMap::decode(&entry.node, cx)?,
                None => BTreeMap::new(),
            },
            inputs: inputs(root),
            provisioners: steps(root, "provisioners"),
            verify: steps(root, "verify"),
            as_of: text("as_of"),
            max_age: text("max_age"),
        })
    }

    pub fn to_json(&self, folder: &Path) -> Json {
        let parameters: serde_json::Map<String, Json> = self
            .parameters
            .iter()
            .map(|(name, parameter)| (name.clone(), parameter.to_json()))
            .collect();
        json!({
            "name": self.name,
            "folder": folder,
            "description": self.description,
            "guests": self.guests,
            "parameters": parameters,
            "inputs": self.inputs,
            "provisioners": self.provisioners,
            "verify": self.verify,
            "as_of": self.as_of,
            "max_age": self.max_age,
        })
    }

    /// As a person reads it.
    pub fn show(&self, folder: &Path) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "{}  {}", self.name, self.description.as_deref().unwrap_or(""));
        let _ = writeln!(out, "folder: {}", folder.display());
        let guests: Vec<&str> = self.guests.iter().map(|guest| guest.as_str()).collect();
        let _ = writeln!(
            out,
            "guests: {}",
            if guests.is_empty() { "any".into() } else { guests.join(", ") }
        );
        for (key, value) in [("as_of", &self.as_of), ("max_age", &self.max_age)] {
            if let Some(value) = value {
                let _ = writeln!(out, "{key}: {value}");
            }
        }
        if !self.parameters.is_empty() {
            out.push_str("parameters:\n");
        }
        for (name, parameter) in &self.parameters {
            let default = match &parameter.default {
                Some(Raw(node)) => format!("default {}", Raw(node.clone()).to_json()),
                None => "must be given".to_owned(),
            };
            let description = parameter.description.as_deref().unwrap_or("");
            let line = format!("  {name}: {}, {default}  {description}", parameter.kind);
            let _ = writeln!(out, "{}", line.trim_end());
        }
        if !self.inputs.is_empty() {
            out.push_str("inputs:\n");
        }
        for (name, place) in &self.inputs {
            let _ = writeln!(out, "  {name}: {place}");
        }
        for (title, steps) in [("provisioners", &self.provisioners), ("verify", &self.verify)] {
            if !steps.is_empty() {
                let _ = writeln!(out, "{title}:");
            }
            for step in steps {
                let _ = writeln!(out, "  {step}");
            }
        }
        out
    }
}

fn written(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(scalar) if !node.is_null() => scalar.text.known(),
        _ => None,
    }
}

fn inputs(root: &Map) -> BTreeMap<String, String> {
    let Some(Value::Map(map)) = root.get("inputs").map(|entry| &entry.node.value) else {
        return BTreeMap::new();
    };
    let place = |node: &Node| match node.as_map() {
        Some(map) => map.get("path").or(map.get("url")).and_then(|entry| written(&entry.node)),
        None => written(node),
    };
    map.entries
        .iter()
        .map(|entry| (entry.key.clone(), place(&entry.node).unwrap_or_default()))
        .collect()
}

/// `shell install.sh`, one for each item.
fn steps(root: &Map, key: &str) -> Vec<String> {
    let Some(Value::List(items)) = root.get(key).map(|entry| &entry.node.value) else {
        return Vec::new();
    };
    let step = |item: &Node| {
        let map = item.as_map()?;
        let action =
            map.entries.iter().find(|entry| !["name", "when"].contains(&entry.key.as_str()))?;
        let name = map.get("name").and_then(|entry| written(&entry.node));
        let detail = name.or_else(|| {
            let inner = match action.node.as_map() {
                None => return written(&action.node),
                Some(map) => map,
            };
            let keys = ["script", "inline", "destination", "source", "note"];
            let entry = keys.iter().find_map(|key| inner.get(key))?;
            match &entry.node.value {
                Value::List(lines) => lines.first().and_then(written),
                _ => written(&entry.node),
            }
        });
        Some(format!("{} {}", action.key, detail.unwrap_or_default()).trim_end().to_owned())
    };
    items.iter().filter_map(step).collect()
}
