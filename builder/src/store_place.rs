//! Where the user's store, keys and memory of stores are.

use gilt_store::OpenOptions;
use std::io;
use std::path::PathBuf;

fn var(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn home() -> io::Result<PathBuf> {
    var("HOME").or_else(|| var("USERPROFILE")).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no home folder is known; set HOME or GILT_STORE")
    })
}

fn place(xdg: &str, windows: &str, beside_home: &[&str]) -> io::Result<PathBuf> {
    if let Some(folder) = var(xdg).or_else(|| var(windows)) {
        return Ok(folder.join("gilt"));
    }
    Ok(beside_home.iter().fold(home()?, |path, part| path.join(part)).join("gilt"))
}

/// `$GILT_STORE`, else a folder of the user's own: `~/.local/share/gilt/store`.
pub fn default_url() -> io::Result<String> {
    if let Some(url) = std::env::var("GILT_STORE").ok().filter(|url| !url.is_empty()) {
        return Ok(url);
    }
    let folder = place("XDG_DATA_HOME", "LOCALAPPDATA", &[".local", "share"])?;
    Ok(folder.join("store").display().to_string())
}

/// Keys in `~/.config/gilt`, what was seen of stores in `~/.local/state/gilt`.
pub fn open_options() -> io::Result<OpenOptions> {
    let config = place("XDG_CONFIG_HOME", "APPDATA", &[".config"])?;
    let state = place("XDG_STATE_HOME", "LOCALAPPDATA", &[".local", "state"])?;
    let cache = place("XDG_CACHE_HOME", "LOCALAPPDATA", &[".cache"])?;
    Ok(OpenOptions::new(&config, Some(state), Some(cache.join("store"))))
}
