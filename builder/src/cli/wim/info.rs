use super::target::{References, Target};
use crate::cli::{Context, Failure};
use clap::Args;
use gilt_wim::Wim;
use gilt_wim::tree::FileTime;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Info {
    /// The WIM
    file: PathBuf,
    /// Print the XML of the WIM instead
    #[arg(long)]
    xml: bool,
}

impl Info {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let target = Target { path: self.file.clone(), image: None };
        let wim = target.open(&References { refs: Vec::new() })?;
        let mut out = std::io::stdout().lock();
        if self.xml {
            writeln!(out, "{}", gilt_wim::xml::decode_text(wim.xml_bytes()))?;
            return Ok(());
        }
        let value = describe(&wim);
        if context.json {
            writeln!(out, "{value}")?;
            return Ok(());
        }
        let header = wim.header();
        writeln!(out, "file         {}", self.file.display())?;
        writeln!(out, "size         {} bytes", wim.file_bytes())?;
        writeln!(out, "version      {:#x}", header.version)?;
        writeln!(
            out,
            "compression  {} ({} KiB chunks)",
            wim.compression().name(),
            header.chunk_bytes / 1024
        )?;
        writeln!(out, "guid         {}", value["guid"].as_str().unwrap_or_default())?;
        writeln!(out, "part         {} of {}", header.part, header.parts)?;
        writeln!(
            out,
            "integrity    {}",
            if header.integrity.stored_bytes > 0 { "yes" } else { "no" }
        )?;
        writeln!(out, "boot image   {}", header.boot_index)?;
        for (index, image) in wim.images().iter().enumerate() {
            let counts = image.counts();
            writeln!(out, "\nimage {}      {}", index + 1, image.name().unwrap_or("(no name)"))?;
            let mut line = |label: &str, text: Option<&str>| match text {
                Some(text) => writeln!(out, "  {label:<14} {text}"),
                None => Ok(()),
            };
            line("description", image.description())?;
            line("flags", image.flags())?;
            if let Some(windows) = image.windows() {
                line("product", windows.product_name.as_deref())?;
                line("edition", windows.edition_id.as_deref())?;
                let version = [windows.version_major, windows.version_minor, windows.version_build];
                let version: Vec<String> = version.iter().flatten().map(u32::to_string).collect();
                line(
                    "version",
                    Some(&version.join(".")).filter(|text| !text.is_empty()).map(|x| x.as_str()),
                )?;
                line(
                    "languages",
                    Some(&windows.languages.join(" "))
                        .filter(|t| !t.is_empty())
                        .map(|x| x.as_str()),
                )?;
            }
            line("created", image.created().map(time).as_deref())?;
            line("modified", image.modified().map(time).as_deref())?;
            let text = format!(
                "{} directories, {} files, {} bytes",
                counts.directories, counts.files, counts.total_bytes
            );
            line("contents", Some(&text))?;
        }
        Ok(())
    }
}

fn time(time: FileTime) -> String {
    let (seconds, _) = time.to_unix();
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".into(), |time| time.to_string())
}

fn describe(wim: &Wim) -> Value {
    let header = wim.header();
    let guid: String = header.guid.iter().map(|byte| format!("{byte:02x}")).collect();
    let images: Vec<Value> = wim
        .images()
        .iter()
        .enumerate()
        .map(|(index, image)| {
            let counts = image.counts();
            let windows = image.windows().map(|windows| {
                json!({
                    "architecture": windows.architecture, "product_name": windows.product_name,
                    "edition_id": windows.edition_id, "installation_type": windows.installation_type,
                    "hal": windows.hal, "product_type": windows.product_type,
                    "product_suite": windows.product_suite, "languages": windows.languages,
                    "default_language": windows.default_language,
                    "version_major": windows.version_major, "version_minor": windows.version_minor,
                    "version_build": windows.version_build,
                    "service_pack_build": windows.service_pack_build,
                    "service_pack_level": windows.service_pack_level,
                    "system_root": windows.system_root,
                })
            });
            json!({
                "index": index + 1, "name": image.name(), "description": image.description(),
                "flags": image.flags(), "created": image.created().map(time),
                "modified": image.modified().map(time), "directories": counts.directories,
                "files": counts.files, "total_bytes": counts.total_bytes,
                "hardlink_bytes": counts.hardlink_bytes, "windows": windows,
            })
        })
        .collect();
    json!({
        "file_bytes": wim.file_bytes(), "version": header.version, "guid": guid,
        "compression": wim.compression().name(), "chunk_bytes": header.chunk_bytes,
        "part": header.part, "parts": header.parts, "boot_index": header.boot_index,
        "integrity_table": header.integrity.stored_bytes > 0, "pipable": header.pipable,
        "images": images,
    })
}
