//! What has to be read for some trees: each stream once, in order.

use super::pipeline::{Job, JobSource, Stored};
use super::{ImageSource, WriteOptions};
use crate::error::{Error, Result};
use crate::header::header_flag;
use crate::info::ImageCounts;
use crate::metadata::Hashes;
use crate::tree::{NodeId, Sha1, Tree, attribute, reparse_tag};
use std::collections::HashMap;

pub(super) struct Plan<'a> {
    pub jobs: Vec<Job<'a>>,
    targets: Vec<Target>,
    /// Hash of streams that need no job.
    fixed: Vec<(Slot, Sha1)>,
    total_bytes: u64,
    read_bytes: u64,
    has_fixed_links: bool,
}

/// A stream of a node of an image, or (`REPARSE`) its reparse data.
#[derive(Clone, Copy)]
struct Slot {
    image: u32,
    node: NodeId,
    stream: u32,
}

const REPARSE: u32 = u32::MAX;

struct Target {
    slot: Slot,
    job: u32,
    /// Names of the node: how often the blob is referred to.
    links: u32,
}

/// How jobs sort: image, memory before files, place on the disk, order of appearance.
type Key = (u32, bool, u64, u32);

impl<'a> Plan<'a> {
    fn add_total(&mut self, len_bytes: u64, links: u32) {
        self.total_bytes = self.total_bytes.saturating_add(len_bytes.saturating_mul(links.into()));
    }

    pub fn new(images: &[ImageSource<'a>], options: &WriteOptions) -> Result<Self> {
        let mut jobs: Vec<(Key, Job<'a>)> = Vec::new();
        let mut by_content: HashMap<(u32, u64), u32> = HashMap::new();
        let mut by_sha1: HashMap<Sha1, u32> = HashMap::new();
        let mut plan = Plan {
            jobs: Vec::new(),
            targets: Vec::new(),
            fixed: Vec::new(),
            total_bytes: 0,
            read_bytes: 0,
            has_fixed_links: false,
        };
        let too_many = || Error::unsupported("more than 4,294,967,295 streams");
        for (number, image) in images.iter().enumerate() {
            let number = number as u32;
            let links = links(image.tree)?;
            for (index, node) in image.tree.nodes.iter().enumerate() {
                let id = NodeId(u32::try_from(index).map_err(|_| too_many())?);
                let links = links[index];
                if let Some(reparse) = node.reparse() {
                    let is_link =
                        matches!(reparse.tag, reparse_tag::SYMLINK | reparse_tag::MOUNT_POINT);
                    plan.has_fixed_links |= is_link && reparse.flags & 1 == 0;
                    let slot = Slot { image: number, node: id, stream: REPARSE };
                    let len_bytes = reparse.data.len() as u64;
                    plan.add_total(len_bytes, links);
                    if len_bytes == 0 {
                        continue;
                    }
                    let job = u32::try_from(jobs.len()).map_err(|_| too_many())?;
                    let source = JobSource::Memory(&reparse.data);
                    jobs.push((
                        (number, false, 0, job),
                        Job { source, len_bytes, known: None, single: true },
                    ));
                    plan.targets.push(Target { slot, job, links });
                }
                for (stream_index, stream) in node.streams.iter().enumerate() {
                    let slot = Slot { image: number, node: id, stream: stream_index as u32 };
                    let known = image.contents.known_sha1(stream.content);
                    if stream.len_bytes == 0 {
                        let sha1 = known.unwrap_or(Sha1::ZERO);
                        let elsewhere =
                            options.references.iter().any(|wim| wim.find(sha1).is_some());
                        if !sha1.is_zero() && !elsewhere {
                            return Err(Error::MissingResource { sha1 });
                        }
                        plan.fixed.push((slot, sha1));
                        continue;
                    }
                    plan.add_total(stream.len_bytes, links);
                    let next = u32::try_from(jobs.len()).map_err(|_| too_many())?;
                    let known = known.filter(|sha1| !sha1.is_zero());
                    let job = match known {
                        Some(sha1) => *by_sha1.entry(sha1).or_insert(next),
                        None => *by_content.entry((number, stream.content.0)).or_insert(next),
                    };
                    if job == next {
                        plan.read_bytes = plan.read_bytes.saturating_add(stream.len_bytes);
                        let position = image.contents.position(stream.content);
                        let source =
                            JobSource::Stream { contents: image.contents, id: stream.content };
                        jobs.push((
                            (number, true, position, job),
                            Job { source, len_bytes: stream.len_bytes, known, single: true },
                        ));
                    }
                    plan.targets.push(Target { slot, job, links });
                }
            }
        }
        plan.order(jobs);
        Ok(plan)
    }

    /// Sorts the jobs and renumbers the targets.
    fn order(&mut self, mut jobs: Vec<(Key, Job<'a>)>) {
        jobs.sort_by_key(|(key, _)| *key);
        let mut renumbered = vec![0u32; jobs.len()];
        for (new, ((_, _, _, old), _)) in jobs.iter().enumerate() {
            renumbered[*old as usize] = new as u32;
        }
        for target in &mut self.targets {
            target.job = renumbered[target.job as usize];
        }
        self.jobs = jobs.into_iter().map(|(_, job)| job).collect();
    }

    /// Bytes the pipeline will read.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    pub fn header_flags(&self, options: &WriteOptions) -> u32 {
        if options.rp_fix.unwrap_or(self.has_fixed_links) { header_flag::RP_FIX } else { 0 }
    }

    /// The hashes each image's metadata needs.
    pub fn hashes(&self, images: &[ImageSource<'_>], stored: &Stored) -> Vec<Hashes> {
        let mut all: Vec<Hashes> = images.iter().map(|image| Hashes::new(image.tree)).collect();
        let targets = self.targets.iter().map(|t| (t.slot, stored.sha1s[t.job as usize]));
        for (slot, sha1) in targets.chain(self.fixed.iter().copied()) {
            let hashes = &mut all[slot.image as usize];
            if slot.stream == REPARSE {
                hashes.set_reparse(slot.node, sha1);
            } else {
                hashes.set_stream(slot.node, slot.stream as usize, sha1);
            }
        }
        all
    }

    /// How often dentries refer to each blob.
    pub fn references(&self, stored: &Stored) -> HashMap<Sha1, u32> {
        let mut count: HashMap<Sha1, u32> = HashMap::new();
        for target in &self.targets {
            let references = count.entry(stored.sha1s[target.job as usize]).or_default();
            *references = references.saturating_add(target.links);
        }
        count
    }
}

/// Names of each node. The root counts as one.
fn links(tree: &Tree) -> Result<Vec<u32>> {
    let mut links = vec![0u32; tree.nodes.len()];
    let fail = |why: &str| Error::Tree { path: "/".into(), why: why.to_owned() };
    *links.first_mut().ok_or_else(|| fail("an empty tree has no root"))? = 1;
    if !tree.nodes[0].is_directory() {
        return Err(fail("the root is not a directory"));
    }
    for node in &tree.nodes {
        for entry in &node.entries {
            let count = links
                .get_mut(entry.node.0 as usize)
                .ok_or_else(|| fail(&format!("{:?} points outside the tree", entry.name)))?;
            *count = count.saturating_add(1);
            if *count > 1 && tree.node(entry.node).is_directory() {
                return Err(fail(&format!("directory {:?} has several names", entry.name)));
            }
        }
    }
    if links.contains(&0) {
        return Err(fail("a file of the tree has no name"));
    }
    Ok(links)
}

/// What the XML says of an image. A symbolic link to a directory, or a junction, is a file here.
pub(super) fn count(tree: &Tree) -> ImageCounts {
    let mut counts = ImageCounts::default();
    let mut links = vec![0u64; tree.nodes.len()];
    links[0] = 1;
    for node in &tree.nodes {
        for entry in &node.entries {
            links[entry.node.0 as usize] += 1;
        }
    }
    for (node, links) in tree.nodes.iter().zip(links) {
        let tag = node.reparse().map(|reparse| reparse.tag);
        let is_link = matches!(tag, Some(reparse_tag::SYMLINK | reparse_tag::MOUNT_POINT));
        if node.attributes & attribute::DIRECTORY != 0 && !is_link {
            counts.directories += links;
        } else {
            counts.files += links;
        }
        let reparse = node.reparse().map_or(0, |reparse| reparse.data.len() as u64);
        let bytes = node.streams_bytes().saturating_add(reparse);
        let add = |sum: &mut u64, times| *sum = sum.saturating_add(bytes.saturating_mul(times));
        add(&mut counts.total_bytes, links);
        add(&mut counts.hardlink_bytes, links.saturating_sub(1));
    }
    counts
}
