//! `gilt inventory`.

use super::failed;
use crate::cli::wim::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_capture::windows::WindowsInventory;
use gilt_capture::{Inventory, PartitionChoice, TreeView, find_volume};
use serde_json::json;
use std::io::Read;

#[derive(Args)]
pub struct InventoryCommand {
    /// A disk image, or a WIM with the image meant: `image.wim:1`
    source: Target,
    /// Partition of a disk, counted from 1 [default: the one with the operating system]
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    #[command(flatten)]
    references: References,
    /// Print a CycloneDX bill of materials
    #[arg(long)]
    cyclonedx: bool,
}

impl InventoryCommand {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let found = if self.is_wim()? {
            let wim = self.source.open(&self.references)?;
            let index = self.source.index(&wim)?;
            let (tree, contents) = wim.load_tree(index).map_err(|error| failed(error.into()))?;
            let is_unix = tree
                .nodes
                .first()
                .is_some_and(|root| root.extra.as_ref().is_some_and(|extra| extra.unix.is_some()));
            gilt_capture::inventory(TreeView {
                tree: &tree,
                contents: &contents,
                ignores_case: !is_unix,
            })
            .map_err(failed)?
        } else {
            let choice = self.partition.map_or(PartitionChoice::Auto, PartitionChoice::Number);
            let disk = gilt_disk::open(&self.source.path).map_err(|error| failed(error.into()))?;
            let volume = find_volume(&disk, choice).map_err(failed)?;
            gilt_capture::inventory(volume.view()).map_err(failed)?
        };
        let Some(inventory) = found else {
            let path = self.source.path.display();
            return Err(Failure::usage(format!("{path} holds no operating system we know")));
        };
        match &inventory.windows {
            _ if self.cyclonedx => {
                let name = self.source.path.file_stem().unwrap_or_default().to_string_lossy();
                println!("{}", inventory.to_cyclonedx(&name, &inventory.system.version, None));
            }
            Some(windows) => print_windows(windows, context),
            None => print_linux(&inventory, context),
        }
        Ok(())
    }

    fn is_wim(&self) -> Result<bool, Failure> {
        let mut head = [0; 5];
        let path = &self.source.path;
        let mut file = std::fs::File::open(path)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        let read = file.read(&mut head)?;
        Ok(matches!(&head[..read], b"MSWIM" | b"WLPWM"))
    }
}

fn print_linux(inventory: &Inventory, context: &Context) {
    if context.json {
        println!("{}", json!(inventory));
        return;
    }
    println!("{} ({})", inventory.system.name, inventory.system.architecture);
    for kernel in &inventory.kernels {
        println!("kernel {kernel}");
    }
    for package in &inventory.packages {
        println!("{} {} {}", package.name, package.version, package.architecture);
    }
}

fn print_windows(inventory: &WindowsInventory, context: &Context) {
    if context.json {
        println!("{}", json!(inventory));
        return;
    }
    let release = &inventory.release;
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
    let number = |number: Option<u32>| number.map_or_else(|| "?".into(), |n| n.to_string());
    println!(
        "{} {} {}.{} ({})",
        text(&release.name),
        text(&release.display_version),
        number(release.build),
        number(release.revision),
        text(&release.architecture)
    );
    println!("{} packages, {} features", inventory.packages.len(), inventory.features.len());
    for app in &inventory.provisioned_apps {
        println!("app {app}");
    }
    println!("{} drivers, {} programs", inventory.drivers.len(), inventory.programs.len());
    if !inventory.pending.is_empty() {
        println!("servicing is pending: {:?}", inventory.pending);
    }
}
