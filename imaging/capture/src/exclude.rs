//! What is left out of a capture.
//!
//! Rules are those of `WimScript.ini` and DISM, and Unix globs:
//! * a leading `\` or `/` anchors the rule to the root of the volume; without it the rule names the end
//!   of a path (`*.tmp`, `cache\old`);
//! * `*` and `?` stay inside one name, `**` spans any number of names;
//! * what is below an excluded folder is excluded too;
//! * `[ExclusionException]` beats `[ExclusionList]`;
//! * `[CompressionExclusionList]` is read and told, but changes nothing: every resource that does
//!   not shrink is stored as it is anyway.

use crate::error::{CaptureError, Result};
use crate::volume::FileSystem;
use gilt_wim::tree::{Entry, Name, Node, NodeId, Tree};
use std::collections::HashSet;

/// DISM's own list and what wimlib adds to it.
const WINDOWS_DEFAULT: &[&str] = &[
    r"\$ntfs.log",
    r"\hiberfil.sys",
    r"\pagefile.sys",
    r"\swapfile.sys",
    r"\System Volume Information",
    r"\RECYCLER",
    r"\$Recycle.Bin",
    r"\Windows\CSC",
];

/// What a running Linux makes anew or never wants back.
const LINUX_DEFAULT: &[&str] = &[
    "/lost+found",
    "/swapfile",
    "/swap.img",
    "/proc/*",
    "/sys/*",
    "/run/*",
    "/tmp/*",
    "/var/tmp/*",
];

#[derive(Clone, Debug, Default)]
pub struct ExcludeRules {
    excluded: Vec<Rule>,
    exceptions: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptSection {
    Exclusion,
    Exception,
    Other,
}

#[derive(Clone, Debug)]
struct Rule {
    anchored: bool,
    steps: Vec<String>,
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let steps = text.split(['/', '\\']).filter(|s| !s.is_empty() && *s != ".");
        let steps: Vec<_> = steps.map(str::to_owned).collect();
        if steps.is_empty() || steps.iter().any(|step| step == "..") {
            return None;
        }
        Some(Self { anchored: text.starts_with(['/', '\\']), steps })
    }

    fn matches(&self, path: &[String], ignores_case: bool) -> bool {
        // Most rules are for another depth than most files are at.
        let fits = match self.anchored {
            true => self.steps.len() == path.len(),
            false => self.steps.len() <= path.len(),
        };
        if !fits && !self.steps.iter().any(|step| step == "**") {
            return false;
        }
        if self.anchored {
            return steps_match(&self.steps, path, ignores_case);
        }
        let from = path.len().checked_sub(self.steps.len());
        from.is_some_and(|from| steps_match(&self.steps, &path[from..], ignores_case))
    }
}

fn steps_match(pattern: &[String], path: &[String], ignores_case: bool) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((step, rest)), _) if step == "**" => {
            (0..=path.len()).any(|skip| steps_match(rest, &path[skip..], ignores_case))
        }
        (Some((step, rest)), Some((name, below))) => {
            name_matches(step, name, ignores_case) && steps_match(rest, below, ignores_case)
        }
        _ => false,
    }
}

/// `*` any run, `?` one character. Linear in pattern times name.
fn name_matches(pattern: &str, name: &str, ignores_case: bool) -> bool {
    let fold = |text: &str| -> Vec<char> {
        if ignores_case { text.to_lowercase().chars().collect() } else { text.chars().collect() }
    };
    let (pattern, name) = (fold(pattern), fold(name));
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// What the rules took out.
#[derive(Clone, Debug, Default)]
pub struct Excluded {
    /// Paths whose whole content was left out, with `/`.
    pub paths: Vec<String>,
    /// For each node of the tree before, whether it was kept; empty when all were.
    kept: Vec<bool>,
}

impl Excluded {
    /// Whether a node of the tree before is in the tree after.
    pub fn keeps(&self, id: NodeId) -> bool {
        self.kept.get(id.0 as usize).copied().unwrap_or(true)
    }
}

impl ExcludeRules {
    /// Everything is kept.
    pub fn none() -> Self {
        Self::default()
    }

    pub fn windows_default() -> Self {
        Self::from_list(WINDOWS_DEFAULT)
    }

    pub fn linux_default() -> Self {
        Self::from_list(LINUX_DEFAULT)
    }

    /// What is usually left out of such a volume.
    pub fn usual_for(file_system: FileSystem) -> Self {
        match file_system {
            FileSystem::Ext4 => Self::linux_default(),
            FileSystem::Ntfs | FileSystem::Fat => Self::windows_default(),
        }
    }

    /// What is usually left out, whichever system it is.
    pub fn usual() -> Self {
        Self::from_list(&[LINUX_DEFAULT, WINDOWS_DEFAULT].concat())
    }

    fn from_list(list: &[&str]) -> Self {
        Self {
            excluded: list.iter().filter_map(|text| Rule::parse(text)).collect(),
            exceptions: vec![],
        }
    }

    /// One more rule. Refuses an empty one and one with `..`.
    pub fn exclude(&mut self, rule: &str) -> Result<()> {
        self.excluded.push(Self::checked(rule, 1)?);
        Ok(())
    }

    /// One more exception.
    pub fn except(&mut self, rule: &str) -> Result<()> {
        self.exceptions.push(Self::checked(rule, 1)?);
        Ok(())
    }

    fn checked(rule: &str, line: usize) -> Result<Rule> {
        Rule::parse(rule)
            .ok_or_else(|| CaptureError::Rules { line, what: format!("{rule:?} names no file") })
    }

    /// The rules of a `WimScript.ini`; they replace the defaults, as with DISM.
    pub fn parse_script(text: &str) -> Result<Self> {
        let mut rules = Self::default();
        let mut section = None;
        for (line, raw) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            let text = raw.trim();
            if text.is_empty() || text.starts_with([';', '#']) {
                continue;
            }
            if let Some(name) = text.strip_prefix('[') {
                let name = name.strip_suffix(']').ok_or_else(|| CaptureError::Rules {
                    line,
                    what: format!("section {text:?} has no end"),
                })?;
                section = Some(match name.to_ascii_lowercase().as_str() {
                    "exclusionlist" => ScriptSection::Exclusion,
                    "exclusionexception" => ScriptSection::Exception,
                    "compressionexclusionlist"
                    | "compressionfolderlist"
                    | "prepopulatelist"
                    | "alignmentlist" => ScriptSection::Other,
                    _ => {
                        let what = format!("section [{name}] is not known");
                        return Err(CaptureError::Rules { line, what });
                    }
                });
                continue;
            }
            // Windows tools let a rule stand in quotes.
            let rule = text.trim_matches('"');
            match section {
                Some(ScriptSection::Exclusion) => rules.excluded.push(Self::checked(rule, line)?),
                Some(ScriptSection::Exception) => rules.exceptions.push(Self::checked(rule, line)?),
                Some(ScriptSection::Other) => {}
                None => {
                    let what = "a rule before the first section".into();
                    return Err(CaptureError::Rules { line, what });
                }
            }
        }
        Ok(rules)
    }

    fn excluded(&self, path: &[String], ignores_case: bool) -> bool {
        self.excluded.iter().any(|rule| rule.matches(path, ignores_case))
    }

    fn excepted(&self, path: &[String], ignores_case: bool) -> bool {
        self.exceptions.iter().any(|rule| rule.matches(path, ignores_case))
    }

    /// The tree without what is excluded, and without the nodes in `dropped`.
    pub fn apply(
        &self,
        tree: &Tree,
        ignores_case: bool,
        dropped: &HashSet<NodeId>,
    ) -> (Tree, Excluded) {
        if self.excluded.is_empty() && dropped.is_empty() {
            return (tree.clone(), Excluded::default());
        }
        let mut pruned = Pruned {
            rules: self,
            ignores_case,
            dropped,
            old: tree,
            new_ids: vec![None; tree.nodes.len()],
            nodes: Vec::new(),
            path: Vec::new(),
            excluded: Excluded::default(),
        };
        pruned.keep_directory(Tree::ROOT, false);
        let Pruned { nodes, mut excluded, new_ids, .. } = pruned;
        excluded.kept = new_ids.iter().map(Option::is_some).collect();
        (Tree { nodes, security: tree.security.clone() }, excluded)
    }
}

struct Pruned<'a> {
    rules: &'a ExcludeRules,
    ignores_case: bool,
    dropped: &'a HashSet<NodeId>,
    old: &'a Tree,
    new_ids: Vec<Option<NodeId>>,
    nodes: Vec<Node>,
    path: Vec<String>,
    excluded: Excluded,
}

impl Pruned<'_> {
    /// Takes over a directory and what of it is kept. `inside` an excluded one only exceptions are.
    fn keep_directory(&mut self, old_id: NodeId, inside: bool) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.new_ids[old_id.0 as usize] = Some(id);
        let old = self.old.node(old_id);
        self.nodes.push(Node {
            entries: Vec::new(),
            streams: old.streams.clone(),
            extra: old.extra.clone(),
            ..*old
        });
        let mut entries = Vec::with_capacity(old.entries.len());
        for entry in &old.entries {
            self.path.push(entry.name.to_display());
            if let Some(node) = self.keep(entry, inside) {
                let (name, short_name): (Name, Name) =
                    (entry.name.clone(), entry.short_name.clone());
                entries.push(Entry { name, short_name, node });
            }
            self.path.pop();
        }
        self.nodes[id.0 as usize].entries = entries;
        id
    }

    fn keep(&mut self, entry: &Entry, inside: bool) -> Option<NodeId> {
        let node = self.old.node(entry.node);
        let excepted = self.rules.excepted(&self.path, self.ignores_case);
        if self.dropped.contains(&entry.node) {
            self.excluded.paths.push(format!("/{}", self.path.join("/")));
            return None;
        }
        let excluded = !excepted && (inside || self.rules.excluded(&self.path, self.ignores_case));
        let is_folder = node.is_directory() && node.reparse().is_none();
        if !excluded {
            if is_folder {
                return Some(self.keep_directory(entry.node, false));
            }
            let slot = entry.node.0 as usize;
            if let Some(known) = self.new_ids[slot] {
                return Some(known);
            }
            let id = NodeId(self.nodes.len() as u32);
            self.new_ids[slot] = Some(id);
            self.nodes.push(node.clone());
            return Some(id);
        }
        if is_folder && !self.rules.exceptions.is_empty() {
            let (nodes, told) = (self.nodes.len(), self.excluded.paths.len());
            let id = self.keep_directory(entry.node, true);
            if !self.nodes[id.0 as usize].entries.is_empty() {
                return Some(id);
            }
            // Nothing below was excepted: take the folder back out.
            self.nodes.truncate(nodes);
            self.excluded.paths.truncate(told);
            for slot in &mut self.new_ids {
                if slot.is_some_and(|id| id.0 as usize >= nodes) {
                    *slot = None;
                }
            }
        }
        self.excluded.paths.push(format!("/{}", self.path.join("/")));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect()
    }

    fn matches(rule: &str, text: &str, ignores_case: bool) -> bool {
        Rule::parse(rule).expect("rule").matches(&path(text), ignores_case)
    }

    #[test]
    fn rules_anchor_and_match_as_dism_documents() {
        assert!(matches(r"\pagefile.sys", "/PageFile.sys", true));
        assert!(!matches(r"\pagefile.sys", "/PageFile.sys", false));
        assert!(!matches(r"\pagefile.sys", "/sub/pagefile.sys", true));
        assert!(matches("*.mp3", "/music/a.b.mp3", false));
        assert!(matches(r"\WINDOWS\inf\*.pnf", "/Windows/inf/x.PNF", true));
        assert!(!matches(r"\WINDOWS\inf\*.pnf", "/Windows/inf/sub/x.pnf", true));
        assert!(matches("cache/old", "/any/cache/old", false));
        assert!(matches("/var/**/*.log", "/var/log/a/b.log", false));
        assert!(matches("/var/**/*.log", "/var/b.log", false));
        assert!(matches("f?o*", "/x/foo", false));
        assert!(!matches("f?o", "/x/fo", false));
    }

    fn tree(paths: &[&str]) -> Tree {
        let directory =
            || Node { attributes: gilt_wim::tree::attribute::DIRECTORY, ..Node::default() };
        let mut tree = Tree { nodes: vec![directory()], security: vec![] };
        for full in paths {
            let mut at = 0;
            let steps = path(full);
            for (index, step) in steps.iter().enumerate() {
                let name = Name::from(step.as_str());
                let known = tree.nodes[at].entries.iter().find(|entry| entry.name == name);
                at = match known {
                    Some(entry) => entry.node.0 as usize,
                    None => {
                        let last = index + 1 == steps.len() && !full.ends_with('/');
                        tree.nodes.push(if last { Node::default() } else { directory() });
                        let node = NodeId(tree.nodes.len() as u32 - 1);
                        tree.nodes[at].entries.push(Entry {
                            name,
                            short_name: Name::default(),
                            node,
                        });
                        node.0 as usize
                    }
                };
            }
        }
        tree
    }

    fn all(tree: &Tree) -> Vec<String> {
        let mut list = Vec::new();
        let mut pending = vec![(NodeId(0), String::new())];
        while let Some((id, prefix)) = pending.pop() {
            for entry in &tree.node(id).entries {
                let path = format!("{prefix}/{}", entry.name.to_display());
                pending.push((entry.node, path.clone()));
                list.push(path);
            }
        }
        list.sort();
        list
    }

    #[test]
    fn an_exception_keeps_its_path_inside_an_excluded_folder() {
        let rules = ExcludeRules::parse_script(
            "[ExclusionList]\n\\Windows\\CSC\n\\tmp\\*\n*.log\n[ExclusionException]\n\\Windows\\CSC\\keep\n",
        )
        .expect("rules");
        let full = tree(&[
            "/Windows/CSC/drop/x",
            "/Windows/CSC/keep/y",
            "/Windows/z",
            "/tmp/a/b",
            "/tmp/c",
            "/d.LOG",
        ]);
        let (kept, excluded) = rules.apply(&full, true, &HashSet::new());
        assert_eq!(
            all(&kept),
            [
                "/Windows",
                "/Windows/CSC",
                "/Windows/CSC/keep",
                "/Windows/CSC/keep/y",
                "/Windows/z",
                "/tmp"
            ]
        );
        let mut told = excluded.paths;
        told.sort();
        assert_eq!(told, ["/Windows/CSC/drop", "/d.LOG", "/tmp/a", "/tmp/c"]);
        // Every node is reachable.
        assert_eq!(kept.nodes.len(), all(&kept).len() + 1);
    }

    #[test]
    fn a_bad_script_is_refused_with_its_line() {
        let error =
            ExcludeRules::parse_script("[ExclusionList]\n\\a\n[Nonsense]\n").expect_err("bad");
        assert!(error.to_string().contains("line 3"), "{error}");
        assert!(ExcludeRules::parse_script("[ExclusionList]\n\\..\\x\n").is_err());
    }
}
