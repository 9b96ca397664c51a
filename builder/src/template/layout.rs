//! The layout of a file of the language: what `gilt fmt` tidies.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::node::{Node, Value};
use super::span::Sources;
use super::yaml;
use std::path::Path;

/// `text` with the same meaning and comments, and without blanks at line ends, carriage returns,
/// blank lines in a row, or at either end of the file. Texts of several lines stay as they are.
pub fn tidy(path: &Path, text: &str) -> Result<String, Diagnostics> {
    let before = tree(path, text)?;
    let mut kept = Vec::new();
    long_scalars(&before, &mut kept);
    let mut out: Vec<&str> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if kept.iter().any(|(first, last)| (*first..=*last).contains(&number)) {
            out.push(line);
            continue;
        }
        let line = line.trim_end();
        if line.is_empty() && out.last().is_none_or(|last| last.is_empty()) {
            continue;
        }
        out.push(line);
    }
    while out.last().is_some_and(|line| line.is_empty()) {
        out.pop();
    }
    let tidy = out.join("\n") + "\n";
    let after = tree(path, &tidy)?;
    if same(&before, &after) {
        Ok(tidy)
    } else {
        // Left alone rather than changed in meaning.
        Ok(text.to_owned())
    }
}

fn tree(path: &Path, text: &str) -> Result<Node, Diagnostics> {
    let mut sources = Sources::default();
    let file = sources.add(path, text.to_owned());
    let mut problems: Vec<Diagnostic> = Vec::new();
    match yaml::parse(file, &sources, &mut problems) {
        Some(node) if problems.is_empty() => Ok(node),
        _ => Err(Diagnostics(problems)),
    }
}

/// First and last line of each single value that is written on several lines.
fn long_scalars(node: &Node, out: &mut Vec<(usize, usize)>) {
    match &node.value {
        Value::Scalar(_) if node.span.end.line > node.span.start.line => {
            out.push((node.span.start.line as usize, node.span.end.line as usize));
        }
        Value::List(items) => items.iter().for_each(|item| long_scalars(item, out)),
        Value::Map(map) => map.entries.iter().for_each(|entry| long_scalars(&entry.node, out)),
        _ => {}
    }
}

/// The same values, wherever they stand.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let (a, b) = (&a.entries, &b.entries);
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.key == b.key && same(&a.node, &b.node))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_tidied_and_meaning_and_comments_stay() {
        let text =
            "\n\n# a comment  \nname: x   \r\n\n\n\nshell: |\n  one  \n\n\n  two\n\nlast: 1\n\n\n";
        let tidy = tidy(Path::new("t.yaml"), text).unwrap();
        assert_eq!(tidy, "# a comment\nname: x\n\nshell: |\n  one  \n\n\n  two\n\nlast: 1\n");
        assert_eq!(super::tidy(Path::new("t.yaml"), &tidy).unwrap(), tidy);
    }
}
