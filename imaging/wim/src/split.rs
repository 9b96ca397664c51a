//! A WIM as a set of files of limited size (SWM): the metadata of all images in the first, the
//! contents dealt out in file order, resources copied as they are.

use crate::blob::BlobEntry;
use crate::error::{Error, Result};
use crate::header::{Header, ResourceHeader, header_flag, resource_flag};
use crate::integrity;
use crate::progress::Progress;
use crate::wim::{ResourceInfo, Wim};
use crate::write::Output;
use std::path::{Path, PathBuf};

/// How to split.
#[derive(Clone, Debug)]
pub struct SplitOptions {
    /// No part is larger, unless one file alone is.
    pub part_bytes: u64,
    pub integrity: bool,
    pub threads: usize,
    pub sync: bool,
}

/// The path of part `number` (1-based) of a set: `x.swm`, `x2.swm`, `x3.swm` …
pub fn part_path(first: &Path, number: u16) -> PathBuf {
    if number <= 1 {
        return first.to_owned();
    }
    let mut name = first.file_stem().unwrap_or_default().to_owned();
    name.push(number.to_string());
    if let Some(extension) = first.extension() {
        name.push(".");
        name.push(extension);
    }
    first.with_file_name(name)
}

const COPY_BYTES: usize = 1 << 20;
/// Header, XML and a little air, kept free in each part.
const FIXED_BYTES: u64 = 4096;
const ENTRY_BYTES: u64 = 50;

/// Splits `wim` to `first` and its numbered neighbours. Returns their paths.
pub fn split(
    wim: &Wim,
    first: &Path,
    options: &SplitOptions,
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let header = wim.header();
    if header.parts > 1 || header.pipable || wim.resources().any(|resource| resource.is_solid()) {
        return Err(Error::unsupported(
            "splitting a WIM that is split, pipable or solid already; export it first",
        ));
    }
    let (metadata, mut contents): (Vec<_>, Vec<_>) =
        wim.resources().partition(ResourceInfo::is_metadata);
    contents.sort_by_key(|resource| resource.offset);
    let fixed = FIXED_BYTES + wim.xml_bytes().len() as u64;
    let mut parts: Vec<Vec<ResourceInfo>> = vec![metadata];
    let mut used = fixed + cost(&parts[0]);
    for resource in contents {
        let bytes = resource.stored_bytes + ENTRY_BYTES;
        let is_empty = parts.last().is_none_or(Vec::is_empty);
        if !is_empty && used + bytes > options.part_bytes {
            parts.push(Vec::new());
            used = fixed;
        }
        used += bytes;
        if let Some(part) = parts.last_mut() {
            part.push(resource);
        }
    }
    let count = u16::try_from(parts.len()).map_err(|_| {
        Error::Options("that makes more than 65,535 parts: take larger ones".into())
    })?;
    progress.total_bytes(parts.iter().flatten().map(|resource| resource.stored_bytes).sum());
    let mut done = Vec::new();
    for (number, resources) in (1u16..).zip(&parts) {
        let path = part_path(first, number);
        let mut output = Output::create(&path)?;
        write_part(wim, &mut output, resources, (number, count), options, progress)?;
        done.push((path, output));
    }
    // The first part appears last: a set is there when its first part is.
    let mut paths = Vec::new();
    for (path, output) in done.into_iter().rev() {
        output.publish(options.sync)?;
        paths.push(path);
    }
    paths.reverse();
    Ok(paths)
}

fn cost(resources: &[ResourceInfo]) -> u64 {
    resources.iter().map(|resource| resource.stored_bytes + ENTRY_BYTES).sum()
}

fn write_part(
    wim: &Wim,
    output: &mut Output,
    resources: &[ResourceInfo],
    (part, parts): (u16, u16),
    options: &SplitOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let mut table = Vec::new();
    let mut boot_metadata = ResourceHeader::default();
    let old_boot = wim.header().boot_metadata;
    for resource in resources {
        let offset = output.position();
        copy(wim, resource, output, progress)?;
        let moved = ResourceHeader {
            offset,
            stored_bytes: resource.stored_bytes,
            size_bytes: resource.size_bytes,
            flags: resource.flags,
        };
        if resource.is_metadata() && old_boot.offset == resource.offset && old_boot.offset != 0 {
            boot_metadata = moved;
        }
        let (references, sha1) = (resource.references, resource.sha1);
        BlobEntry { resource: moved, part, references, sha1 }.write(&mut table);
    }
    let blob_table = output.append_plain(&table)?;
    let xml = output.append_plain(wim.xml_bytes())?;
    let mut header = Header {
        flags: wim.header().flags | header_flag::SPANNED,
        part,
        parts,
        blob_table: ResourceHeader { flags: resource_flag::METADATA, ..blob_table },
        xml: ResourceHeader { flags: resource_flag::METADATA, ..xml },
        boot_metadata,
        integrity: ResourceHeader::default(),
        ..wim.header().clone()
    };
    if options.integrity {
        output.flush()?;
        let end = header.blob_table.offset + header.blob_table.stored_bytes;
        let table = integrity::make(output.file(), end, options.threads)?;
        header.integrity = output.append_plain(&table)?;
        header.integrity.flags = resource_flag::METADATA;
    }
    output.write_header(&header)
}

fn copy(
    wim: &Wim,
    resource: &ResourceInfo,
    output: &mut Output,
    progress: &dyn Progress,
) -> Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let (mut at, mut left) = (resource.offset, resource.stored_bytes);
    while left > 0 {
        if progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let step = left.min(COPY_BYTES as u64) as usize;
        wim.read_stored(resource.file, &mut buffer[..step], at)?;
        output.append(&buffer[..step])?;
        progress.advance_bytes(step as u64);
        at += step as u64;
        left -= step as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_named_as_microsofts_tools_expect() {
        assert_eq!(part_path(Path::new("a/x.swm"), 1), Path::new("a/x.swm"));
        assert_eq!(part_path(Path::new("a/x.swm"), 12), Path::new("a/x12.swm"));
    }
}
