//! The language as others need it: JSON Schema for editors, Markdown for readers. Both come from
//! the declarations of the types, so they cannot say anything else than the decoder does.

use super::fields::{Field, FieldShape, Need, Shape, StructShape};
use super::model::{LayerFile, TemplateFile};
use serde_json::{Map, Value as Json, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The JSON Schema (2020-12) of a template.
pub fn template_schema() -> Json {
    schema(TemplateFile::shape(), "gilt template")
}

/// The JSON Schema (2020-12) of a layer's `layer.yaml`.
pub fn layer_schema() -> Json {
    schema(LayerFile::shape(), "gilt layer")
}

fn schema(root: Shape, title: &str) -> Json {
    let mut definitions = BTreeMap::new();
    let Shape::Struct(root) = root else { return Json::Bool(true) };
    let mut schema = struct_schema(root, false, &mut definitions);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = title.into();
    if title == "gilt template" {
        // What an included file holds may be missing here.
        if let Some(map) = schema.as_object_mut() {
            map.remove("required");
        }
    }
    schema["$defs"] = Json::Object(definitions.into_iter().collect());
    schema
}

type Definitions = BTreeMap<String, Json>;

/// `${…}` may stand for any single value.
fn or_expression(schema: Json) -> Json {
    json!({ "anyOf": [schema, { "type": "string", "pattern": r"\$\{" }] })
}

fn shape_schema(shape: &Shape, item: bool, definitions: &mut Definitions) -> Json {
    match shape {
        Shape::Text => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Bool => or_expression(json!({ "type": "boolean" })),
        Shape::Integer { min, max } => {
            let mut integer = json!({ "type": "integer" });
            // Limits that JSON numbers hold exactly.
            let exact = |limit: &i128| {
                i64::try_from(*limit).ok().filter(|limit| limit.unsigned_abs() < 1 << 53)
            };
            if let Some(min) = exact(min) {
                integer["minimum"] = min.into();
            }
            if let Some(max) = exact(max) {
                integer["maximum"] = max.into();
            }
            or_expression(integer)
        }
        Shape::Form { words, example } => {
            json!({ "type": ["string", "number"], "description": format!("{words}, like {example}") })
        }
        Shape::Choice(choices) => {
            let words: Vec<Json> = choices
                .iter()
                .map(|(word, doc)| json!({ "const": word, "description": one_line(doc) }))
                .collect();
            or_expression(json!({ "oneOf": words }))
        }
        Shape::List(of) => {
            let items = shape_schema(of, true, definitions);
            or_expression(json!({ "type": "array", "items": items }))
        }
        Shape::Map(of) => {
            let values = shape_schema(of, false, definitions);
            json!({ "type": "object", "additionalProperties": values })
        }
        Shape::Struct(shape) => {
            let name = if item { format!("{}Item", shape.name) } else { shape.name.to_owned() };
            if !definitions.contains_key(&name) {
                // In place first, as a shape may hold itself.
                definitions.insert(name.clone(), Json::Bool(true));
                let schema = struct_schema(*shape, item, definitions);
                definitions.insert(name.clone(), schema);
            }
            json!({ "$ref": format!("#/$defs/{name}") })
        }
        Shape::Either(shapes) => {
            let any: Vec<Json> =
                shapes.iter().map(|shape| shape_schema(shape, item, definitions)).collect();
            json!({ "anyOf": any })
        }
        Shape::Any => Json::Bool(true),
    }
}

/// `item`: a list holds it, so it may have a `when`.
fn struct_schema(shape: StructShape, item: bool, definitions: &mut Definitions) -> Json {
    let fields = (shape.fields)();
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut groups = BTreeSet::new();
    for field in &fields {
        let mut property = shape_schema(&field.shape, false, definitions);
        if let Some(map) = property.as_object_mut() {
            map.insert("description".to_owned(), one_line(field.doc).into());
            if let Need::Optional(Some(default)) = &field.need {
                map.insert("default".to_owned(), default.clone());
            }
        }
        // A key without a value has its default.
        if !matches!(field.need, Need::Required) && property.is_object() {
            property = json!({
                "description": one_line(field.doc),
                "anyOf": [property, { "type": "null" }],
            });
        }
        properties.insert(field.key.to_owned(), property);
        match &field.need {
            Need::Required => required.push(Json::from(field.key)),
            Need::OneOf(keys) => {
                groups.insert(*keys);
            }
            Need::Optional(_) => {}
        }
    }
    if item {
        let when = "A condition; where it is false, this item is left out. Like: ${matrix.flavour} == \"web\"";
        properties.insert(
            "when".to_owned(),
            json!({ "description": when, "type": ["string", "boolean"] }),
        );
    }
    let mut schema = json!({
        "type": "object",
        "description": one_line(shape.doc),
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    if !groups.is_empty() {
        let exactly_one = |keys: &[&str]| -> Json {
            let one: Vec<Json> = keys.iter().map(|key| json!({ "required": [key] })).collect();
            json!({ "oneOf": one })
        };
        schema["allOf"] = groups.into_iter().map(exactly_one).collect();
    }
    let all_optional = fields.iter().all(|field| matches!(field.need, Need::Optional(_)));
    if all_optional {
        schema["type"] = json!(["object", "null"]);
    }
    schema
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The reference page of templates.
pub fn template_reference() -> String {
    let head = "A template is one YAML file that says how an image is built. `gilt validate` checks it, \
        `gilt inspect` shows how it was understood.\n\n\
        `${NAME}` stands for a variable, `${matrix.AXIS}` for a value of the matrix, `${build.NAME}` for what \
        only a running build knows: `ssh_public_key`, `http`, `name`, `id`, `username`, `password`. For a \
        literal `${`, write `$${`. Inside `{ }` and `[ ]`, YAML wants values with `${…}` in quotes.\n\n\
        Any item of a list that is a map may have a `when`: a condition made of `==`, `!=`, `in`, `not`, `and`, \
        `or` and parentheses. Where it is false, the item is left out.\n\n\
        Sizes have a unit (`512MiB`, `4GiB`), and so have durations (`90s`, `10m`, `1h30m`, `30d`). Paths are \
        relative to the file they stand in. Keys marked **key** are part of a layer's key: changing one makes \
        that layer, and what is laid over it, anew.\n";
    reference("Templates", head, TemplateFile::shape())
}

/// The reference page of layers.
pub fn layer_reference() -> String {
    let head = "A layer is a folder with a `layer.yaml` and scripts. `gilt layers show NAME` shows one.\n\n\
        In a layer's file, `${parameters.NAME}` stands for a parameter, `${var.NAME}` for a variable of the \
        template, `${matrix.AXIS}` and `${build.NAME}` as in templates. For a literal `${`, write `$${`.\n\n\
        Keys marked **key** are part of the layer's key, with the bytes of every script and input, and the key of \
        the layer below.\n";
    reference("Layers", head, LayerFile::shape())
}

fn reference(title: &str, head: &str, root: Shape) -> String {
    let Shape::Struct(root) = root else { return String::new() };
    let mut out =
        format!("# {title}: reference\n\n<!-- Made by `gilt schema --reference`. -->\n\n{head}");
    let mut queue = vec![root];
    let mut seen = vec![root.name];
    let mut next = 0;
    while let Some(shape) = queue.get(next).copied() {
        next += 1;
        section(shape, &mut out);
        for field in (shape.fields)() {
            find_structs(&field.shape, &mut |inner| {
                if !seen.contains(&inner.name) {
                    seen.push(inner.name);
                    queue.push(inner);
                }
            });
        }
    }
    out
}

fn find_structs(shape: &Shape, found: &mut impl FnMut(StructShape)) {
    match shape {
        Shape::Struct(shape) => found(*shape),
        Shape::List(of) | Shape::Map(of) => find_structs(of, found),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| find_structs(shape, found)),
        _ => {}
    }
}

/// What a struct is called on the page.
fn section_name(name: &str) -> String {
    let name = name
        .strip_suffix("Fields")
        .or_else(|| name.strip_suffix("File").filter(|n| !n.is_empty()))
        .unwrap_or(name);
    match name {
        "LayerUse" => "Layer of a template".to_owned(),
        name => name.to_owned(),
    }
}

fn anchor(name: &str) -> String {
    section_name(name).to_lowercase().replace(' ', "-")
}

fn section(shape: StructShape, out: &mut String) {
    let _ = write!(out, "\n## {}\n\n{}\n\n", section_name(shape.name), one_line(shape.doc));
    out.push_str("| key | value | default | |\n|---|---|---|---|\n");
    let fields: Vec<FieldShape> = (shape.fields)();
    for field in &fields {
        let need = match &field.need {
            Need::Required => "required".to_owned(),
            Need::Optional(None) => String::new(),
            Need::Optional(Some(default)) => format!("`{}`", default_text(default)),
            Need::OneOf(keys) => {
                let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
                format!("one of {}", keys.join(", "))
            }
        };
        let need = need.replace('|', "\\|");
        let keyed = if field.keyed { "**key** " } else { "" };
        let doc = one_line(field.doc).replace('|', "\\|");
        let _ =
            writeln!(out, "| `{}` | {} | {need} | {keyed}{doc} |", field.key, words(&field.shape));
    }
    for field in &fields {
        if let Some(choices) = choices_of(&field.shape) {
            let _ = write!(out, "\n`{}`:\n\n", field.key);
            for (word, doc) in choices {
                let _ = writeln!(out, "- `{word}`: {}", one_line(doc));
            }
        }
    }
}

fn choices_of(shape: &Shape) -> Option<&[(&'static str, &'static str)]> {
    match shape {
        Shape::Choice(choices) => Some(choices),
        Shape::List(of) => choices_of(of),
        _ => None,
    }
}

/// A default as it would be written in YAML's short form.
fn default_text(default: &Json) -> String {
    match default {
        Json::String(text) => text.clone(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(default_text).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(_) => "{…}".to_owned(),
        other => other.to_string(),
    }
}

fn words(shape: &Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Integer { .. } => "whole number".to_owned(),
        Shape::Form { words, example } => format!("{words}: `{example}`"),
        Shape::Choice(choices) => {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
            words.join(", ")
        }
        Shape::List(of) => format!("list: {}", words(of)),
        Shape::Map(of) => format!("map of names: {}", words(of)),
        Shape::Struct(shape) => format!("[{}](#{})", section_name(shape.name), anchor(shape.name)),
        Shape::Either(shapes) => shapes.iter().map(words).collect::<Vec<_>>().join(", or "),
        Shape::Any => "any".to_owned(),
    }
}
