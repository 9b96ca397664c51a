# shellcheck shell=bash
# What the recipes of test guests share: from a folder to a bootable qcow2 disk, without a machine and without root.

# shellcheck source=../../templates/debian-12-thin/configure
. "$here/templates/debian-12-thin/configure"

need() {
  local tool
  for tool; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || { echo "$0: needs $tool: run ci/setup" >&2; exit 1; }
  done
}

# assemble_disk ROOT OUT SIZE-MIB: GPT, an EFI partition with the root's own boot loader, and the root file system.
# ROOT must hold usr/lib/grub/x86_64-efi/monolithic/grubx64.efi and boot/grub/grub.cfg.
assemble_disk() {
  local root=$1 out=$2 size=$3 mib=1048576 esp_at=1 esp_size=64 root_at disk esp
  root_at=$((esp_at + esp_size))
  disk=$(mktemp "$(dirname "$out")/.disk-XXXXXX")
  truncate -s "${size}M" "$disk"
  printf 'label: gpt\nstart=%sMiB, size=%sMiB, type=uefi, name=ESP\nstart=%sMiB, size=%sMiB, type=linux, name=root\n' \
    $esp_at $esp_size $root_at $((size - root_at - 1)) | sfdisk --quiet "$disk"
  esp="$disk@@$((esp_at * mib))"
  mformat -i "$esp" -F -v ESP -T $((esp_size * 2048)) ::
  mmd -i "$esp" ::/EFI ::/EFI/BOOT ::/EFI/debian
  mcopy -i "$esp" "$root/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi" ::/EFI/BOOT/BOOTX64.EFI
  esp_grub_cfg | mcopy -i "$esp" - ::/EFI/debian/grub.cfg
  mke2fs -q -F -t ext4 -L gilt-root -E offset=$((root_at * mib)) -d "$root" "$disk" $((size - root_at - 1))M
  qemu-img convert -q -f raw -O qcow2 "$disk" "$disk.qcow2"
  rm -f "$disk"
  mv "$disk.qcow2" "$out"
}
