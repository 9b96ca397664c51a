use super::failed;
use super::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::WimContents;
use gilt_wim::tree::{ContentSource, NodeId, Tree};
use serde_json::json;
use std::io::Write;

#[derive(Args)]
pub struct Ls {
    /// The image, as FILE, FILE:INDEX or FILE:NAME
    target: Target,
    /// List what is in this directory only
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Size, attributes and time of each file
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    references: References,
}

impl Ls {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let wim = self.target.open(&self.references)?;
        let index = self.target.index(&wim)?;
        let fail = |error| failed(self.target.path.display(), error);
        let (tree, contents) = if self.long || context.json {
            let (tree, contents) = wim.load_outline(index).map_err(fail)?;
            (tree, Some(contents))
        } else {
            (wim.load_names(index).map_err(fail)?, None)
        };
        let (start, prefix) = find(&tree, self.path.as_deref().unwrap_or(""))?;
        let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
        let done = list(&tree, contents.as_ref(), start, prefix, self.long, context.json, &mut out);
        // The process ends here: taking a large tree apart would be a tenth of the work.
        std::mem::forget((tree, contents, wim));
        match done {
            // `gilt wim ls … | head` is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        }
    }
}

/// The node at `path`, and the path written in front of what is in it.
fn find(tree: &Tree, path: &str) -> Result<(NodeId, String), Failure> {
    let mut node = Tree::ROOT;
    let mut prefix = String::new();
    for name in path.split(['/', '\\']).filter(|name| !name.is_empty()) {
        let entry = tree.node(node).entries.iter().find(|entry| entry.name.to_display() == name);
        let Some(entry) = entry else {
            return Err(Failure::usage(format!("{prefix}/{name} is not in the image")));
        };
        node = entry.node;
        prefix = format!("{prefix}/{name}");
    }
    Ok((node, prefix))
}

fn list(
    tree: &Tree,
    contents: Option<&WimContents>,
    start: NodeId,
    prefix: String,
    long: bool,
    as_json: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let mut stack = vec![(start, prefix)];
    while let Some((id, prefix)) = stack.pop() {
        let mut path = prefix + "/";
        let folder_len = path.len();
        for entry in &tree.node(id).entries {
            path.truncate(folder_len);
            path.extend(
                char::decode_utf16(entry.name.0.iter().copied())
                    .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)),
            );
            let node = tree.node(entry.node);
            let stream = node.streams.iter().find(|stream| stream.name.is_none());
            let size = stream.map_or(0, |stream| stream.len_bytes);
            let (seconds, _) = node.modified.to_unix();
            if as_json {
                let sha1 = stream
                    .zip(contents)
                    .and_then(|(stream, contents)| contents.known_sha1(stream.content))
                    .filter(|sha1| !sha1.is_zero());
                let streams: Vec<String> = node
                    .streams
                    .iter()
                    .filter_map(|stream| stream.name.as_ref().map(|name| name.to_display()))
                    .collect();
                let line = json!({
                    "path": path, "size_bytes": size, "attributes": node.attributes,
                    "modified_unix_seconds": seconds, "sha1": sha1.map(|sha1| sha1.to_string()),
                    "short_name": entry.short_name.to_display(), "streams": streams,
                    "reparse_tag": node.reparse().map(|reparse| reparse.tag),
                });
                writeln!(out, "{line}")?;
            } else if long {
                let time = jiff::Timestamp::from_second(seconds).unwrap_or_default();
                let attributes = node.attributes;
                writeln!(out, "{size:>14} {attributes:08x} {time:.0} {path}")?;
            } else {
                out.write_all(path.as_bytes())?;
                out.write_all(b"\n")?;
            }
            if node.is_directory() {
                stack.push((entry.node, path.clone()));
            }
        }
    }
    out.flush()
}
