//! From files and names to a tree: which names count, what can be reached from the root.

use std::collections::HashMap;

use gilt_wim::tree::{Entry, NodeId, SecurityId, Tree};

use crate::error::{Fault, Result};
use crate::object_id::object_ids;
use crate::scan::{FIRST_USER_RECORD, Link, ROOT_RECORD, Scanner, SecurityKey};
use crate::secure::Descriptors;
use crate::special::Special;
use crate::volume::{Note, NoteKind, Stamp};

const NO_SLOT: u32 = u32::MAX;
/// `$Extend`: what is below it is the file system's own.
const EXTEND_RECORD: u64 = 11;

/// The tree and what goes with each of its nodes.
pub(crate) struct Linked {
    pub tree: Tree,
    pub stamps: Vec<Stamp>,
    pub specials: Vec<Special>,
    /// Extension records, by node.
    pub segments: HashMap<NodeId, Box<[u64]>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    No,
    Root,
    Metadata,
}

impl Scanner<'_> {
    /// Consumes the scanned files.
    pub(crate) fn link(&mut self, descriptors: &Descriptors) -> Result<Linked> {
        let slots = self.slots();
        let slot_of = |record: u64| {
            usize::try_from(record).ok().and_then(|i| slots.get(i).copied()).unwrap_or(NO_SLOT)
        };
        let root = slot_of(ROOT_RECORD);
        if root == NO_SLOT || !self.nodes[root as usize].is_directory() {
            return Err(Fault::new(0x16, "the root directory is missing").in_record(ROOT_RECORD));
        }

        let mut roots_of_metadata = Vec::new();
        for link in std::mem::take(&mut self.links) {
            if link.child == root {
                continue; // "." in itself
            }
            if link.parent.record == EXTEND_RECORD {
                if link.name == "$ObjId".into() {
                    self.take_object_ids(link.child)?;
                }
                roots_of_metadata.push(link.child);
                continue;
            }
            let parent = slot_of(link.parent.record);
            if let Some(what) = self.refuse_link(&link, parent) {
                let record = self.stamps[link.child as usize].file.record;
                if what == STALE {
                    let kind = NoteKind::StaleName;
                    self.notes.add(Note { record, kind, name: Some(link.name) })?;
                } else {
                    self.damaged(record, Fault::new(0, what).in_record(record))?;
                }
                continue;
            }
            self.nodes[parent as usize].entries.push(Entry {
                name: link.name,
                short_name: link.short_name,
                node: NodeId(link.child),
            });
        }
        self.refuse_twins()?;

        let mut reach = vec![Reach::No; self.nodes.len()];
        self.mark(&mut reach, &[root], Reach::Root)?;
        roots_of_metadata.retain(|&slot| reach[slot as usize] == Reach::No);
        self.mark(&mut reach, &roots_of_metadata, Reach::Metadata)?;
        self.note_orphans(&reach)?;
        self.renumber(root, &reach, descriptors)
    }

    /// Adds the birth ids, as Windows tells an object id: with 64 bytes, also when they are zero.
    fn take_object_ids(&mut self, index: u32) -> Result<()> {
        let record = self.stamps[index as usize].file.record;
        let known = match object_ids(self, record) {
            Ok(known) => known,
            Err(error) => return self.damaged(record, error),
        };
        for (node, stamp) in self.nodes.iter_mut().zip(&self.stamps) {
            if let Some(extra) = &mut node.extra
                && let Some(own) = &mut extra.object_id
                && let Some(full) = known.get(&stamp.file)
                && own[..] == full[..16]
            {
                *own = full[..].into();
            }
        }
        Ok(())
    }

    /// Node index by record number.
    fn slots(&self) -> Vec<u32> {
        let last = self.stamps.iter().map(|stamp| stamp.file.record).max().unwrap_or(0);
        // Records are numbered below `Mft::records`, which the disk's size bounds.
        let mut slots = vec![NO_SLOT; usize::try_from(last).map_or(0, |last| last + 1)];
        for (slot, stamp) in (0u32..).zip(&self.stamps) {
            slots[stamp.file.record as usize] = slot;
        }
        slots
    }

    fn refuse_link(&self, link: &Link, parent: u32) -> Option<&'static str> {
        if parent == NO_SLOT {
            return Some(STALE);
        }
        let owner = self.stamps[parent as usize].file;
        if link.parent.sequence != 0 && link.parent.sequence != owner.sequence {
            return Some(STALE);
        }
        if !self.nodes[parent as usize].is_directory() {
            return Some("name lies in a file that is no directory");
        }
        let name = &link.name.0;
        let dots = name.len() <= 2 && name.iter().all(|&unit| unit == u16::from(b'.'));
        if dots || name.iter().any(|&unit| unit == 0 || unit == u16::from(b'/')) {
            return Some("name is empty, dots, or has a NUL or a slash");
        }
        None
    }

    /// A directory has a name once.
    fn refuse_twins(&mut self) -> Result<()> {
        for slot in 0..self.nodes.len() {
            let mut entries = std::mem::take(&mut self.nodes[slot].entries);
            entries.sort_unstable_by(|a, b| a.name.0.cmp(&b.name.0));
            if entries.windows(2).any(|pair| pair[0].name == pair[1].name) {
                let record = self.stamps[slot].file.record;
                self.damaged(
                    record,
                    Fault::new(0, "directory has two files of the same name").in_record(record),
                )?;
                entries.dedup_by(|a, b| a.name == b.name);
            }
            self.nodes[slot].entries = entries;
        }
        Ok(())
    }

    /// Marks what can be reached. A directory is entered once: a second way in is a loop or a
    /// hard link, and NTFS has neither.
    fn mark(&mut self, reach: &mut [Reach], from: &[u32], mark: Reach) -> Result<()> {
        let mut queue: Vec<u32> = from.to_vec();
        for &slot in from {
            reach[slot as usize] = mark;
        }
        while let Some(slot) = queue.pop() {
            let mut i = 0;
            while let Some(entry) = self.nodes[slot as usize].entries.get(i) {
                let child = entry.node.0 as usize;
                let directory = self.nodes[child].is_directory();
                if directory && reach[child] != Reach::No {
                    let record = self.stamps[child].file.record;
                    self.damaged(
                        record,
                        Fault::new(0, "directory is in two places or contains itself")
                            .in_record(record),
                    )?;
                    self.nodes[slot as usize].entries.remove(i);
                    continue;
                }
                reach[child] = mark;
                if directory {
                    queue.push(child as u32);
                }
                i += 1;
            }
        }
        Ok(())
    }

    fn note_orphans(&mut self, reach: &[Reach]) -> Result<()> {
        for (slot, stamp) in self.stamps.iter().enumerate() {
            if reach[slot] == Reach::No && stamp.file.record >= FIRST_USER_RECORD {
                let kind = NoteKind::Orphan;
                self.notes.add(Note { record: stamp.file.record, kind, name: None })?;
            }
        }
        Ok(())
    }

    /// Keeps what the root reaches: the root first, then in the order of the records.
    fn renumber(
        &mut self,
        root: u32,
        reach: &[Reach],
        descriptors: &Descriptors,
    ) -> Result<Linked> {
        let mut new_id = vec![NO_SLOT; reach.len()];
        new_id[root as usize] = 0;
        let mut next = 1;
        for (slot, _) in reach.iter().enumerate().filter(|(_, r)| **r == Reach::Root) {
            if slot as u32 != root {
                new_id[slot] = next;
                next += 1;
            }
        }
        let mut order: Vec<u32> =
            (0..reach.len() as u32).filter(|&s| new_id[s as usize] != NO_SLOT).collect();
        order.sort_unstable_by_key(|&slot| new_id[slot as usize]);

        let mut tree = Tree::default();
        let mut stamps = Vec::with_capacity(order.len());
        tree.nodes.reserve_exact(order.len());
        let mut known = Known::default();
        for &slot in &order {
            let i = slot as usize;
            let mut node = std::mem::take(&mut self.nodes[i]);
            for entry in &mut node.entries {
                entry.node = NodeId(new_id[entry.node.0 as usize]);
            }
            node.security = match std::mem::replace(&mut self.security[i], SecurityKey::None) {
                SecurityKey::None => None,
                SecurityKey::Own(own) => Some(known.id_of(&own, &mut tree)),
                SecurityKey::Shared(id) => match known.shared.get(&id) {
                    Some(&security) => Some(security),
                    None => match descriptors.get(id) {
                        Some(bytes) => {
                            let security = known.id_of(bytes, &mut tree);
                            known.shared.insert(id, security);
                            Some(security)
                        }
                        None => {
                            let record = self.stamps[i].file.record;
                            let fault = Fault::new(0x34, "security id is not in $Secure");
                            self.damaged(record, fault.in_record(record))?;
                            None
                        }
                    },
                },
            };
            stamps.push(std::mem::replace(&mut self.stamps[i], Stamp::none()));
            tree.nodes.push(node);
        }
        let moved = |slot: u32| match new_id[slot as usize] {
            NO_SLOT => None,
            id => Some(NodeId(id)),
        };
        Ok(Linked {
            tree,
            stamps,
            specials: self
                .specials
                .iter()
                .filter_map(|&(slot, kind)| Some(Special { node: moved(slot)?, kind }))
                .collect(),
            segments: std::mem::take(&mut self.segments)
                .into_iter()
                .filter_map(|(slot, numbers)| Some((moved(slot)?, numbers)))
                .collect(),
        })
    }
}

const STALE: &str = "directory of the name is gone";

#[derive(Default)]
struct Known {
    shared: HashMap<u32, SecurityId>,
    by_bytes: HashMap<Box<[u8]>, SecurityId>,
}

impl Known {
    fn id_of(&mut self, bytes: &[u8], tree: &mut Tree) -> SecurityId {
        if let Some(&id) = self.by_bytes.get(bytes) {
            return id;
        }
        let id = SecurityId(tree.security.len() as u32);
        tree.security.push(bytes.into());
        self.by_bytes.insert(bytes.into(), id);
        id
    }
}
