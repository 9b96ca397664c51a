//! What goes into a volume.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::contents::{Rng, bytes};
use crate::manifest::Manifest;
use crate::mount::{Format, Mount, Ownership, format};
use crate::windows::{Wof, ea, junction, other_reparse, security_descriptor, symlink};

/// How much of everything. Features scale with the number of files and never vanish.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub files: u64,
    /// Bytes of the unnamed streams of ordinary files, about.
    pub bytes: u64,
    pub seed: u64,
    pub sector_bytes: u32,
    pub cluster_bytes: u32,
    /// Files whose contents are elsewhere (deduplicated, cloud).
    pub special: bool,
}

impl Recipe {
    /// Like an installed Windows with its component store: 80,000 files, 2.5 GiB.
    pub fn full() -> Self {
        Self {
            files: 80_000,
            bytes: 2560 << 20,
            seed: 1,
            sector_bytes: 512,
            cluster_bytes: 4096,
            special: false,
        }
    }

    /// All features in some seconds.
    pub fn small() -> Self {
        Self { files: 600, bytes: 12 << 20, ..Self::full() }
    }

    fn fragments(&self) -> u64 {
        let most = if self.cluster_bytes > 4096 { (16 << 20) / self.cluster_bytes } else { 24_000 };
        self.scaled(24_000, 3000).min(most.into())
    }

    fn scaled(&self, of_full: u64, at_least: u64) -> u64 {
        (of_full * self.files / 80_000).max(at_least)
    }
}

/// Makes the image and tells what is in it.
pub fn make(image: &Path, recipe: &Recipe) -> Result<Manifest> {
    let clusters = recipe.files * 2 + 800 + recipe.fragments() * 2;
    let spread = clusters * u64::from(recipe.cluster_bytes);
    let volume = Format {
        volume_bytes: (recipe.bytes + recipe.bytes / 4 + spread + (128 << 20))
            .next_multiple_of(1 << 20),
        sector_bytes: recipe.sector_bytes,
        cluster_bytes: recipe.cluster_bytes,
    };
    format(image, &volume)?;
    let mut maker = Maker {
        mount: Mount::new(image, Ownership::Ignored)?,
        rng: Rng::new(recipe.seed),
        manifest: Manifest::default(),
        acls: Vec::new(),
        recipe,
    };
    maker.ordinary()?;
    maker.links()?;
    maker.names()?;
    maker.streams()?;
    maker.compressed()?;
    maker.sparse()?;
    maker.reparse_points()?;
    maker.rare()?;
    if recipe.special {
        maker.special()?;
    }
    let Maker { mount, manifest, acls, .. } = maker;
    mount.finish()?;
    let mount = Mount::new(image, Ownership::Kept)?;
    for (path, descriptor) in acls {
        mount.set(&mount.path(&path), "acl", &descriptor)?;
    }
    mount.finish()?;
    Ok(manifest)
}

struct Maker<'a> {
    mount: Mount,
    rng: Rng,
    manifest: Manifest,
    /// Descriptors to be set when all else is done.
    acls: Vec<(String, Vec<u8>)>,
    recipe: &'a Recipe,
}

impl Maker<'_> {
    fn dir(&self, path: &str) -> Result<()> {
        fs::create_dir_all(self.mount.path(path)).with_context(|| format!("making {path}"))
    }

    fn file(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        fs::write(self.mount.path(path), contents).with_context(|| format!("writing {path}"))?;
        self.manifest.add(path, contents);
        Ok(())
    }

    fn random_file(&mut self, path: &str, len: u64) -> Result<()> {
        let contents = bytes(&mut self.rng, len as usize);
        self.file(path, &contents)
    }

    fn set(&self, path: &str, name: &str, value: &[u8]) -> Result<()> {
        self.mount.set(&self.mount.path(path), name, value)
    }

    /// Sizes as in a component store: most small, most bytes in few.
    fn size(&mut self, mean: u64) -> u64 {
        match self.rng.below(100) {
            0..30 => self.rng.below(700),
            30..80 => self.rng.below(mean),
            80..97 => self.rng.below(mean * 3),
            _ => self.rng.below(mean * 28),
        }
    }

    fn ordinary(&mut self) -> Result<()> {
        let mean = self.recipe.bytes / self.recipe.files;
        let stores = self.recipe.scaled(6200, 40);
        let in_stores = self.recipe.files * 2 / 5;
        let mut made = 0;
        for store in 0..stores {
            let dir = format!(
                "Windows/WinSxS/amd64_component-{:x}_31bf3856ad364e35_10.0.26100.{}_none_{:016x}",
                self.rng.below(1 << 30),
                store % 4000,
                self.rng.next_u64()
            );
            self.dir(&dir)?;
            for i in 0..in_stores / stores {
                let size = self.size(mean);
                self.random_file(&format!("{dir}/component{i}.dll"), size)?;
                made += 1;
            }
        }
        self.dir("Windows/System32/drivers")?;
        let mut dir = String::new();
        while made < self.recipe.files {
            if made % 20 == 0 || dir.is_empty() {
                let app = made / 400;
                dir = match app % 3 {
                    0 => format!("Program Files/App {app}/part{}", made / 20 % 20),
                    1 => format!("Users/Default/AppData/Local/Packages/p{app}/d{}", made / 20 % 20),
                    _ => format!("Windows/System32/DriverStore/d{app}/{}", made / 20 % 20),
                };
                self.dir(&dir)?;
            }
            let size = self.size(mean);
            let path = format!("{dir}/file {made}.bin");
            self.random_file(&path, size)?;
            if made % 13 == 0 {
                let owner = (made % self.recipe.scaled(300, 20)) as u32;
                let descriptor = security_descriptor(2000 + owner, 1 + owner % 7);
                self.acls.push((path.clone(), descriptor));
            }
            if made % 37 == 0 {
                // READONLY, HIDDEN, SYSTEM, ARCHIVE, NOT_CONTENT_INDEXED in turn.
                let bit = [0x1u32, 0x2, 0x4, 0x20, 0x2000][(made / 37 % 5) as usize];
                self.set(&path, "attrib", &bit.to_le_bytes())?;
            }
            if made % 41 == 0 {
                let time = |n: u64| 125_911_584_000_000_000 + made * 77_777_777 + n;
                let times: Vec<u8> = (0..4).flat_map(|n| time(n).to_le_bytes()).collect();
                self.set(&path, "times", &times)?;
            }
            made += 1;
        }
        Ok(())
    }

    /// System32 as links into the component store, and one file of very many names.
    fn links(&mut self) -> Result<()> {
        let count = self.recipe.scaled(7600, 30) as usize;
        let sources: Vec<String> = self
            .manifest
            .streams
            .keys()
            .filter(|path| path.starts_with("Windows/WinSxS/"))
            .take(count)
            .cloned()
            .collect();
        for (i, source) in sources.iter().enumerate() {
            let path = format!("Windows/System32/linked{i}.dll");
            fs::hard_link(self.mount.path(source), self.mount.path(&path))?;
            self.manifest.link(source, &path);
        }
        self.dir("links")?;
        self.random_file("links/first", 5000)?;
        for i in 0..self.recipe.scaled(300, 120) {
            let path = format!("links/one more name of the same file, number {i}");
            fs::hard_link(self.mount.path("links/first"), self.mount.path(&path))?;
            self.manifest.link("links/first", &path);
        }
        Ok(())
    }

    fn names(&mut self) -> Result<()> {
        self.dir("names")?;
        let long = "n".repeat(255);
        for name in [
            "README",
            "Readme",
            "readme",
            "日本語のファイル.txt",
            "emoji 😀 name",
            "ß ẞ İ ı",
            " leading blank",
            "dots...in.name",
            "$dollar",
            "semi;colon",
            "per%cent",
            &long,
        ] {
            self.random_file(&format!("names/{name}"), 100)?;
        }
        let mut deep = "names".to_owned();
        for depth in 0..30 {
            deep = format!("{deep}/level {depth}");
        }
        self.dir(&deep)?;
        self.random_file(&format!("{deep}/bottom"), 2000)?;
        self.dir("names/empty directory")?;
        self.file("names/empty file", &[])?;

        self.dir("short")?;
        for i in 0..self.recipe.scaled(4000, 40) {
            let path = format!("short/a long name number {i}.text");
            self.random_file(&path, 50)?;
            self.set(&path, "dos_name", format!("ALON{i:04}.TXT").as_bytes())?;
        }
        self.dir("short/a directory with a long name")?;
        self.set("short/a directory with a long name", "dos_name", b"ADIREC~1")
    }

    fn streams(&mut self) -> Result<()> {
        self.dir("streams")?;
        for i in 0..self.recipe.scaled(2200, 20) {
            let path = format!("streams/f{i}");
            self.random_file(&path, 300)?;
            let size = if i % 7 == 0 { 100_000 } else { 26 };
            self.random_file(&format!("{path}:Zone.Identifier"), size)?;
            if i % 5 == 0 {
                self.random_file(&format!("{path}:second"), 9000)?;
            }
        }
        self.dir("streams/of a directory")?;
        self.random_file("streams/of a directory:stream", 1234)?;
        self.random_file("streams/of a directory:large stream", 50_000)?;
        self.file("streams/of nothing", &[])?;
        self.random_file("streams/of nothing:but this", 40)?;
        self.file("streams/of nothing:empty", &[])
    }

    fn compressed(&mut self) -> Result<()> {
        self.dir("lznt1")?;
        if self.recipe.cluster_bytes <= 4096 {
            self.set("lznt1", "attrib", &0x800u32.to_le_bytes())?;
        }
        for i in 0..self.recipe.scaled(400, 24) {
            let size = match i % 4 {
                0 => self.rng.below(2000),
                1 => 65_536,
                2 => 65_536 * 3 + self.rng.below(65_536),
                _ => self.rng.below(300_000),
            };
            self.random_file(&format!("lznt1/f{i}"), size)?;
        }
        // A unit of zeros is a hole; one that does not shrink is stored.
        let mut mixed = vec![b'x'; 65_536];
        mixed.resize(65_536 * 4, 0);
        let mut noise = Rng::new(99);
        mixed.extend((0..65_536 / 8).flat_map(|_| noise.next_u64().to_le_bytes()));
        mixed.extend_from_slice(b"tail");
        self.file("lznt1/mixed", &mixed)?;

        self.dir("wof")?;
        for i in 0..self.recipe.scaled(160, 24) {
            let algorithm = Wof::ALL[(i % 4) as usize];
            let size = match i / 4 % 6 {
                0 => 1 + self.rng.below(3000),
                1 => 4096 << self.rng.below(4),
                2 => 300_000,
                3 => 65_536,
                4 => 32_768 * 3 + 1,
                _ => self.rng.below(400_000),
            };
            let contents = bytes(&mut self.rng, size as usize);
            self.wof(&format!("wof/{algorithm:?} {i}"), algorithm, &contents)?;
        }
        Ok(())
    }

    fn wof(&mut self, path: &str, algorithm: Wof, contents: &[u8]) -> Result<()> {
        let full = self.mount.path(path);
        let file = File::create(&full)?;
        file.set_len(contents.len() as u64)?;
        drop(file);
        let packed = algorithm.pack(contents)?;
        fs::write(self.mount.path(&format!("{path}:WofCompressedData")), packed)?;
        self.set(path, "reparse_data", &algorithm.reparse_point())?;
        self.manifest.add(path, contents);
        Ok(())
    }

    fn sparse(&mut self) -> Result<()> {
        self.dir("sparse")?;
        for i in 0..self.recipe.scaled(190, 12) {
            let path = format!("sparse/f{i}");
            let len = 100_000 + self.rng.below(400_000);
            let mut contents = vec![0; len as usize];
            let file = File::create(self.mount.path(&path))?;
            file.set_len(len)?;
            for _ in 0..3 {
                let at = self.rng.below(len - 5000);
                let part = bytes(&mut self.rng, 5000);
                file.write_all_at(&part, at)?;
                contents[at as usize..at as usize + 5000].copy_from_slice(&part);
            }
            self.manifest.add(&path, &contents);
        }
        // So many fragments that the run list needs extension records by the dozen.
        let fragments = self.recipe.fragments();
        let step = u64::from(self.recipe.cluster_bytes) * 2;
        let len = fragments * step;
        let mut contents = vec![0; len as usize];
        let file = File::create(self.mount.path("sparse/fragments"))?;
        file.set_len(len)?;
        for i in 0..fragments {
            let at = i * step;
            let part = bytes(&mut self.rng, 64);
            file.write_all_at(&part, at)?;
            contents[at as usize..at as usize + 64].copy_from_slice(&part);
        }
        self.manifest.add("sparse/fragments", &contents);
        Ok(())
    }

    fn reparse_points(&mut self) -> Result<()> {
        self.dir("reparse")?;
        for i in 0..self.recipe.scaled(70, 3) {
            let file = |kind: &str| format!("reparse/{kind} {i}");
            let (relative, absolute) = (file("relative"), file("absolute"));
            for (path, data) in [
                (&relative, symlink(r"..\links\first", true)),
                (&absolute, symlink(r"C:\links\first", false)),
                (&file("app alias"), other_reparse(0x8000_001B, b"\x03\0\0\0made up")),
                (&file("foreign"), other_reparse(0x0000_0042, b"whatever it is")),
            ] {
                File::create(self.mount.path(path))?;
                self.set(path, "reparse_data", &data)?;
            }
            for (path, data) in [
                (file("junction"), junction(r"C:\Windows")),
                (file("directory link"), symlink(r"..\Windows", true)),
            ] {
                self.dir(&path)?;
                self.set(&path, "reparse_data", &data)?;
            }
        }
        Ok(())
    }

    /// Extended attributes and object ids.
    fn rare(&mut self) -> Result<()> {
        self.dir("rare")?;
        for i in 0..self.recipe.scaled(50, 5) {
            let path = format!("rare/ea {i}");
            self.random_file(&path, 100)?;
            let mut list = ea("$LXUID", &[0, 0, 0, 0]);
            list.extend(ea("$KERNEL.PURGE.ESBCACHE", &vec![7; 40 + i as usize * 60]));
            list.extend(ea("LAST", &[1, 2, 3]));
            self.set(&path, "ea", &list)?;

            let path = format!("rare/object {i}");
            self.random_file(&path, 100)?;
            let id: Vec<u8> = (0..8).flat_map(|_| self.rng.next_u64().to_le_bytes()).collect();
            let id = if i % 2 == 0 { &id[..16] } else { &id[..] };
            self.set(&path, "object_id", id)?;
        }
        Ok(())
    }

    fn special(&mut self) -> Result<()> {
        self.dir("special")?;
        for (name, tag) in [("dedup", 0x8000_0013u32), ("cloud", 0x9000_101A)] {
            let path = format!("special/{name}");
            File::create(self.mount.path(&path))?;
            self.set(&path, "reparse_data", &other_reparse(tag, &[5; 40]))?;
        }
        Ok(())
    }
}
