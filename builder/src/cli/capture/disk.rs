//! `gilt disk info | ls | cat | verify`.

use super::{DiskArgs, failed};
use crate::cli::{Context, Exit, Failure};
use clap::{Args, Subcommand};
use gilt_capture::{FoundVolume, PartitionChoice, find_volume, survey};
use gilt_wim::tree::{ContentSource, Node};
use serde_json::json;
use std::io::{self, Read, Write};

#[derive(Subcommand)]
pub enum DiskCommand {
    /// Say what an image is made of and what is on its partitions
    Info(Info),
    /// List a folder of a volume
    Ls(Ls),
    /// Write a file of a volume to standard output
    Cat(Cat),
    /// Read every byte of a disk and every file of its volumes
    Verify(Verify),
}

impl DiskCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Info(command) => command.run(context),
            Self::Ls(command) => command.run(context),
            Self::Cat(command) => command.run(context),
            Self::Verify(command) => command.run(context),
        }
    }
}

#[derive(Args)]
pub struct Info {
    #[command(flatten)]
    disk: DiskArgs,
}

impl Info {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let disk = self.disk.open()?;
        let surveyed = survey(&disk);
        let (table, partitions) = match &surveyed {
            Ok((table, partitions)) => (table.as_ref(), partitions.as_slice()),
            Err(_) => (None, &[][..]),
        };
        if context.json {
            let layers: Vec<_> = disk
                .layers()
                .iter()
                .map(|layer| {
                    json!({
                        "path": layer.path, "format": layer.format.name(),
                        "disk_bytes": layer.disk_bytes, "file_bytes": layer.file_bytes,
                        "cluster_bytes": layer.cluster_bytes, "notes": layer.notes,
                    })
                })
                .collect();
            let partitions: Vec<_> = partitions
                .iter()
                .map(|one| {
                    json!({
                        "number": one.number, "start": one.start, "len_bytes": one.len_bytes,
                        "description": one.description, "holds": one.kind.to_string(),
                        "label": one.label,
                    })
                })
                .collect();
            let table = table.map(|table| {
                json!({
                    "kind": format!("{:?}", table.kind).to_lowercase(),
                    "sector_bytes": table.sector_bytes, "problems": table.problems,
                })
            });
            let line = json!({ "layers": layers, "table": table, "partitions": partitions });
            println!("{line}");
            return Ok(());
        }
        for (depth, layer) in disk.layers().iter().enumerate() {
            let notes: String = layer.notes.iter().map(|note| format!(", {note}")).collect();
            println!(
                "{}{}: {}, {} MiB in a file of {} MiB{notes}",
                "  ".repeat(depth),
                layer.path.display(),
                layer.format.name(),
                layer.disk_bytes >> 20,
                layer.file_bytes >> 20
            );
        }
        if let Some(table) = table {
            println!("{:?}, sectors of {} bytes", table.kind, table.sector_bytes);
            for problem in &table.problems {
                println!("  problem: {problem}");
            }
        }
        for one in partitions {
            let label = one.label.as_ref().map(|label| format!(" {label:?}")).unwrap_or_default();
            println!(
                "  {:>2}  {:>10} MiB at {:>8} MiB  {}: {}{label}",
                one.number,
                one.len_bytes >> 20,
                one.start >> 20,
                one.description,
                one.kind
            );
        }
        if let Err(error) = surveyed {
            println!("  {error}");
        }
        Ok(())
    }
}

#[derive(Args)]
struct VolumeArgs {
    #[command(flatten)]
    disk: DiskArgs,
    /// Partition, counted from 1 [default: the one with the operating system]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
}

impl VolumeArgs {
    fn find(&self) -> Result<FoundVolume, Failure> {
        let choice = self.partition.map_or(PartitionChoice::Auto, PartitionChoice::Number);
        find_volume(&self.disk.open()?, choice).map_err(failed)
    }
}

#[derive(Args)]
pub struct Ls {
    #[command(flatten)]
    volume: VolumeArgs,
    /// Folder or file on the volume
    #[arg(default_value = "/")]
    path: String,
}

impl Ls {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let volume = self.volume.find()?;
        let view = volume.view();
        let found = view.find(&self.path).ok_or_else(|| no_file(&self.path))?;
        let mut out = io::stdout().lock();
        let mut print = |name: &str, node: &Node| -> io::Result<()> {
            let len = node.streams.iter().find(|s| s.name.is_none()).map_or(0, |s| s.len_bytes);
            let unix = node.extra.as_ref().and_then(|extra| extra.unix);
            if context.json {
                let line = json!({
                    "name": name, "directory": node.is_directory(), "len_bytes": len,
                    "attributes": node.attributes, "modified": node.modified.to_unix().0,
                    "mode": unix.map(|u| u.mode), "uid": unix.map(|u| u.uid),
                    "gid": unix.map(|u| u.gid),
                });
                return writeln!(out, "{line}");
            }
            let mode = unix.map_or_else(
                || format!("{:#06x}", node.attributes),
                |unix| format!("{:06o} {:>5} {:>5}", unix.mode, unix.uid, unix.gid),
            );
            let slash = if node.is_directory() { "/" } else { "" };
            writeln!(out, "{mode} {len:>12} {name}{slash}")
        };
        let listed = if found.node.is_directory() {
            view.list(&self.path).iter().try_for_each(|(name, found)| print(name, found.node))
        } else {
            print(&self.path, found.node)
        };
        quiet_pipe(listed)
    }
}

fn no_file(path: &str) -> Failure {
    Failure::usage(format!("{path} is not on the volume"))
}

/// A reader that has enough is no error.
fn quiet_pipe(done: io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[derive(Args)]
pub struct Cat {
    #[command(flatten)]
    volume: VolumeArgs,
    path: String,
}

impl Cat {
    fn run(self, _context: &Context) -> Result<(), Failure> {
        let volume = self.volume.find()?;
        let found = volume.view().find(&self.path).ok_or_else(|| no_file(&self.path))?;
        let stream = found.node.streams.iter().find(|stream| stream.name.is_none());
        let stream = stream
            .ok_or_else(|| Failure::usage(format!("{} is no file with contents", self.path)))?;
        let mut reader = volume.reader.contents().open(stream.content)?;
        quiet_pipe(io::copy(&mut reader, &mut io::stdout().lock()).map(drop))
    }
}

#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    disk: DiskArgs,
}

const VERIFY_READ_BYTES: u64 = 4 << 20;

impl Verify {
    fn run(self, context: &Context) -> Result<(), Failure> {
        let disk = self.disk.open()?;
        let reader = disk.reader();
        let len = reader.len_bytes();
        let mut problems = Vec::new();
        let progress = context.progress("read disk", len);
        let mut buf = vec![0; VERIFY_READ_BYTES as usize];
        let mut at = 0;
        while at < len {
            let part = VERIFY_READ_BYTES.min(len - at) as usize;
            if let Err(error) = reader.read_at(at, &mut buf[..part]) {
                problems.push(format!("disk at {at:#x}: {error}"));
            }
            progress.add(part as u64);
            at += part as u64;
        }
        drop(progress);
        let mut files = 0_u64;
        match survey(&disk) {
            Err(error) => problems.push(error.to_string()),
            Ok((table, partitions)) => {
                problems.extend(table.into_iter().flat_map(|table| table.problems));
                for one in &partitions {
                    if matches!(one.kind, gilt_capture::VolumeKind::Readable(_)) {
                        let choice = PartitionChoice::Number(one.number);
                        match find_volume(&disk, choice) {
                            Ok(volume) => files += read_files(&volume, &mut problems),
                            Err(error) => {
                                problems.push(format!("partition {}: {error}", one.number))
                            }
                        }
                    }
                }
            }
        }
        if context.json {
            let line = json!({ "disk_bytes": len, "files": files, "problems": problems });
            println!("{line}");
        } else {
            problems.iter().for_each(|problem| println!("problem: {problem}"));
            println!("{len} bytes and {files} files read, {} problems", problems.len());
        }
        match problems.len() {
            0 => Ok(()),
            count => Err(Failure::new(Exit::Corrupt, anyhow::anyhow!("{count} problems found"))),
        }
    }
}

fn read_files(volume: &FoundVolume, problems: &mut Vec<String>) -> u64 {
    let contents: &dyn ContentSource = volume.reader.contents();
    let mut files = 0;
    let mut buf = vec![0; 1 << 20];
    for stream in volume.tree.nodes.iter().flat_map(|node| &node.streams) {
        let mut read = || -> io::Result<u64> {
            let mut reader = contents.open(stream.content)?;
            let mut total = 0;
            loop {
                match reader.read(&mut buf)? {
                    0 => return Ok(total),
                    len => total += len as u64,
                }
            }
        };
        files += 1;
        match read() {
            Ok(len) if len == stream.len_bytes => {}
            Ok(len) => problems.push(format!(
                "partition {}, contents {}: {len} bytes of {}",
                volume.number, stream.content.0, stream.len_bytes
            )),
            Err(error) => {
                problems.push(format!(
                    "partition {}, contents {}: {error}",
                    volume.number, stream.content.0
                ));
            }
        }
    }
    files
}
