//! Files of the host's drive, with the model told of what comes and goes.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use hyperv_rs::HostPath;
use russh_sftp::{
    protocol::{Attrs, Data, FileAttributes, Handle, Name, OpenFlags, Status, StatusCode, Version},
    server::Handler,
};

use super::{World, real_path};

pub struct Sftp {
    world: Arc<World>,
    open: HashMap<String, File>,
    next: u64,
}

impl Sftp {
    pub fn new(world: Arc<World>) -> Self {
        Self { world, open: HashMap::new(), next: 0 }
    }

    fn path(&self, name: &str) -> Result<PathBuf, StatusCode> {
        real_path(&self.world.drive, name).ok_or(StatusCode::NoSuchFile)
    }

    fn file(&self, handle: &str) -> Result<&File, StatusCode> {
        self.open.get(handle).ok_or(StatusCode::Failure)
    }
}

fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Ok".into(),
        language_tag: "en-US".into(),
    }
}

fn failed(error: std::io::Error) -> StatusCode {
    match error.kind() {
        std::io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        std::io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    }
}

fn attributes(path: &Path) -> Result<FileAttributes, StatusCode> {
    let metadata = std::fs::metadata(path).map_err(failed)?;
    Ok(FileAttributes::from(&metadata))
}

/// `/C:/gilt/x` as the host writes it.
fn host_path(name: &str) -> Option<HostPath> {
    HostPath::new(&name.trim_start_matches('/').replace('/', "\\")).ok()
}

impl Handler for Sftp {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusCode> {
        Ok(Version::new())
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        _attributes: FileAttributes,
    ) -> Result<Handle, StatusCode> {
        let path = self.path(&filename)?;
        let writes = flags.contains(OpenFlags::WRITE);
        if writes && let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        if !writes {
            let mut magic = [0; 4];
            let differencing = File::open(&path)
                .and_then(|file| file.read_exact_at(&mut magic, 0))
                .is_ok_and(|()| magic == *b"QFI\xfb");
            if differencing {
                // Inside, it is another format than a host would hand out.
                return Err(StatusCode::Failure);
            }
        }
        let file = File::options()
            .read(true)
            .write(writes)
            .create(writes)
            .truncate(writes && flags.contains(OpenFlags::TRUNCATE))
            .open(&path)
            .map_err(failed)?;
        self.next += 1;
        let handle = self.next.to_string();
        self.open.insert(handle.clone(), file);
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusCode> {
        self.open.remove(&handle);
        Ok(done(id))
    }

    async fn read(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        len: u32,
    ) -> Result<Data, StatusCode> {
        let mut data = vec![0; len.min(256 << 10) as usize];
        let count = self.file(&handle)?.read_at(&mut data, offset).map_err(failed)?;
        if count == 0 {
            return Err(StatusCode::Eof);
        }
        data.truncate(count);
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Result<Status, StatusCode> {
        self.file(&handle)?.write_all_at(&data, offset).map_err(failed)?;
        Ok(done(id))
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        Ok(Attrs { id, attrs: attributes(&self.path(&path)?)? })
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        self.stat(id, path).await
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusCode> {
        let metadata = self.file(&handle)?.metadata().map_err(failed)?;
        Ok(Attrs { id, attrs: FileAttributes::from(&metadata) })
    }

    /// Windows has no modes; its server takes them and does nothing.
    async fn setstat(
        &mut self,
        id: u32,
        _path: String,
        _attributes: FileAttributes,
    ) -> Result<Status, StatusCode> {
        Ok(done(id))
    }

    async fn fsetstat(
        &mut self,
        id: u32,
        _handle: String,
        _attributes: FileAttributes,
    ) -> Result<Status, StatusCode> {
        Ok(done(id))
    }

    async fn remove(&mut self, id: u32, filename: String) -> Result<Status, StatusCode> {
        std::fs::remove_file(self.path(&filename)?).map_err(failed)?;
        if let Some(path) = host_path(&filename) {
            let mut host = self.world.host.lock().unwrap();
            host.files.remove(&path.key());
            host.disks.remove(&path.key());
        }
        Ok(done(id))
    }

    async fn rename(
        &mut self,
        id: u32,
        oldpath: String,
        newpath: String,
    ) -> Result<Status, StatusCode> {
        let (from, to) = (self.path(&oldpath)?, self.path(&newpath)?);
        if to.exists() {
            return Err(StatusCode::Failure);
        }
        std::fs::rename(&from, &to).map_err(failed)?;
        let Some(path) = host_path(&newpath) else { return Err(StatusCode::Failure) };
        let size = match path.extension().as_deref() {
            Some("vhdx" | "vhd") => virtual_size(&to),
            _ => None,
        };
        let mut host = self.world.host.lock().unwrap();
        match size {
            Some(bytes) => host.disk_came(&path, bytes),
            None => host.file_came(&path),
        }
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusCode> {
        Ok(Name { id, files: vec![russh_sftp::protocol::File::dummy(path)] })
    }
}

fn virtual_size(path: &Path) -> Option<u64> {
    let output =
        std::process::Command::new("qemu-img").args(["info", "--output=json"]).arg(path).output();
    let json: serde_json::Value = serde_json::from_slice(&output.ok()?.stdout).ok()?;
    json["virtual-size"].as_u64()
}
