//! A tree made of the input -> create -> read -> the same tree and contents.
#![no_main]

use gilt_wim::tree::*;
use gilt_wim::{
    Compression, ImageInfo, ImageSource, Level, Side, Wim, WriteOptions, create, diff,
};
use libfuzzer_sys::fuzz_target;
use std::io::{self, Read};

struct Memory(Vec<Vec<u8>>);

impl ContentSource for Memory {
    fn open(&self, id: ContentId) -> io::Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.0[id.0 as usize].as_slice()))
    }
}

fuzz_target!(|data: &[u8]| {
    let [compression, level, rest @ ..] = data else { return };
    let mut memory = Memory(Vec::new());
    let mut tree = Tree {
        nodes: vec![Node { attributes: attribute::DIRECTORY, ..Node::default() }],
        security: vec![Box::from(&b"descriptor"[..])],
    };
    let mut directories = vec![0usize];
    // Each piece of input: kind, length of contents, repeat count, then the bytes.
    let mut pieces = rest;
    while let [kind, len, repeat, after @ ..] = pieces {
        let (bytes, after) = after.split_at(usize::from(*len).min(after.len()));
        pieces = after;
        let parent = directories[usize::from(*repeat) % directories.len()];
        let id = tree.nodes.len();
        let mut node = Node { modified: FileTime(u64::from(*len)), ..Node::default() };
        if kind & 3 == 0 {
            node.attributes = attribute::DIRECTORY;
            directories.push(id);
        } else {
            let contents = bytes.repeat(usize::from(*repeat) * 8 + 1);
            memory.0.push(contents);
            let content = ContentId(memory.0.len() as u64 - 1);
            let len_bytes = memory.0[memory.0.len() - 1].len() as u64;
            let name = (kind & 4 != 0).then(|| Name::from("stream"));
            if name.is_some() {
                node.streams.push(Stream { name: None, len_bytes: 0, content });
            }
            node.streams.push(Stream { name, len_bytes, content });
        }
        node.security = (kind & 8 != 0).then_some(SecurityId(0));
        tree.nodes.push(node);
        let name = Name::from(format!("{id}").as_str());
        let entry = Entry { name, short_name: Name::default(), node: NodeId(id as u32) };
        tree.nodes[parent].entries.push(entry);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("x.wim");
    let options = WriteOptions {
        compression: [Compression::None, Compression::Xpress, Compression::Lzx]
            [usize::from(*compression) % 3],
        level: [Level::Fast, Level::Default, Level::Max][usize::from(*level) % 3],
        threads: 1,
        sync: false,
        ..WriteOptions::default()
    };
    let image = ImageSource { tree: &tree, contents: &memory, info: ImageInfo::named("x") };
    create(&path, &[image], &options, &()).expect("a sound tree is written");
    let wim = Wim::open(&path).expect("what we write we open");
    let report = wim.verify(1, &()).expect("verifying works");
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let (again, contents) = wim.load_tree(1).expect("what we write we read");
    let old = Side { tree: &tree, contents: &memory };
    let changes = diff(old, Side { tree: &again, contents: &contents }).expect("comparing works");
    assert!(changes.is_empty(), "{changes:?}");
});
