//! The EFI system partition: the image's own GRUB and the few lines that lead it to the root.

use super::Ids;
use super::fat::Fat32;
use crate::error::{CaptureError, Result};
use crate::lookup::TreeView;

/// Where Debian keeps a GRUB that has all its modules inside; it looks for /EFI/debian/grub.cfg.
const GRUB: &str = "/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi";
const GRUB_MAX_BYTES: u64 = 32 << 20;

pub fn grub_of(view: TreeView<'_>) -> Result<Vec<u8>> {
    let read = view.read(GRUB, GRUB_MAX_BYTES);
    let found = read.map_err(|source| CaptureError::File { path: GRUB.into(), source })?;
    found.ok_or_else(|| CaptureError::Layout {
        what: format!("the image has no boot loader ({GRUB}); install grub-efi-amd64-bin in it"),
    })
}

/// The bytes of a FAT32 volume.
pub fn esp(loader: &[u8], len_bytes: u64, root_label: &str, ids: &Ids) -> Result<Vec<u8>> {
    let config = format!(
        "search --no-floppy --label {root_label} --set=root\n\
         set prefix=($root)/boot/grub\n\
         configfile $prefix/grub.cfg\n"
    );
    let files: [(&str, &[u8]); 2] =
        [("EFI/BOOT/BOOTX64.EFI", loader), ("EFI/debian/grub.cfg", config.as_bytes())];
    Fat32 { len_bytes, serial: ids.serial("esp"), label: "ESP", files: &files }.build()
}
