//! The JSON Schemas accept what gilt accepts, and refuse what editors should underline.

use gilt::template::node::{Node, Value};
use gilt::template::span::Sources;
use gilt::template::{schema, yaml};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// The text as an editor's YAML library sees it (YAML 1.2's core schema).
fn as_editors_see(text: &str) -> Json {
    let mut sources = Sources::default();
    let file = sources.add(Path::new("t.yaml"), text.to_owned());
    let mut problems = Vec::new();
    let node = yaml::parse(file, &sources, &mut problems);
    assert!(problems.is_empty(), "{problems:?}");
    json(&node.unwrap())
}

fn json(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(scalar) => {
            let text = scalar.text.known().unwrap();
            match text.as_str() {
                _ if !scalar.plain => text.into(),
                "" | "~" | "null" => Json::Null,
                "true" => true.into(),
                "false" => false.into(),
                _ => match (text.parse::<i64>(), text.parse::<f64>()) {
                    (Ok(number), _) => number.into(),
                    (_, Ok(number)) => number.into(),
                    _ => text.into(),
                },
            }
        }
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(map) => {
            map.entries.iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect()
        }
        Value::Unknown => Json::Null,
    }
}

fn complaints(schema: &Json, text: &str) -> Vec<String> {
    let validator = jsonschema::draft202012::new(schema).unwrap();
    let value = as_editors_see(text);
    validator
        .iter_errors(&value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// Every YAML file below a folder of the repository.
fn shipped(folder: &str, wanted: fn(&Path) -> bool) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let mut found = Vec::new();
    let mut queue = vec![root];
    while let Some(folder) = queue.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                queue.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") && wanted(&path)
            {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn schemas_are_valid_themselves() {
    for schema in [schema::template_schema(), schema::layer_schema()] {
        assert!(jsonschema::meta::is_valid(&schema));
    }
}

#[test]
fn shipped_templates_and_layers_fit_the_schemas() {
    let template = schema::template_schema();
    for (path, text) in shipped("templates", |_| true) {
        assert_eq!(complaints(&template, &text), Vec::<String>::new(), "{}", path.display());
    }
    let layer = schema::layer_schema();
    for (path, text) in shipped("layers", |path| path.ends_with("layer.yaml")) {
        assert_eq!(complaints(&layer, &text), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn the_schema_accepts_each_form_and_refuses_mistakes() {
    let schema = schema::template_schema();
    let good = r#"
name: x
description: 2026
variables: {a: {type: int, default: 1}, l: {type: list, default: [a]}}
matrix: {flavour: [a, b]}
source: {iso: a.iso, boot_steps: [{wait_serial: x, keys: "<enter>", when: "${matrix.flavour} == a"}]}
machine: {cpus: "${a}", memory: 1GiB, secure_boot: "${b}", cpu_model: null}
layers:
  - one
  - {layer: two, when: "${matrix.flavour} == a", with: {x: [1, 2]}}
  - {name: three, provisioners: [{shell: echo}, {shell: {inline: [a], exit_codes: [0, 3]}}, {restart: }, {breakpoint: {note: x}}]}
tests: [{name: a, shell: b}]
generalize:
"#;
    assert_eq!(complaints(&schema, good), Vec::<String>::new());
    for wrong in [
        "machine: {memroy: 1GiB}",
        "machine: {cpus: two}",
        "source: {iso: a, disk: b}",
        "layers: [{layer: {a: b}}]",
        "tests: [{name: a, shell: b, powershell: c}]",
        "machine: {firmware: efi}",
        "layers: [{name: a, provisioners: [{shell: {script: a, inline: [b]}}]}]",
    ] {
        assert!(!complaints(&schema, wrong).is_empty(), "{wrong}");
    }
}
