"""The machine below: modules, drives, programs, the screen and the serial line."""

import glob
import os
import re
import subprocess
import time

COM1 = "/dev/ttyS0"
MODULES = ["virtio_pci", "ahci", "virtio_blk", "virtio_scsi", "nvme", "sd_mod", "sr_mod", "isofs", "udf", "vfat", "nls_cp437", "nls_ascii",
           "nls_utf8", "fuse", "tpm_tis", "tpm_crb"]
NETWORK_MODULES = ["e1000", "e1000e", "virtio_net"]


class Failed(Exception):
    pass


def run(*command, check=True, input=None, env=None):
    done = subprocess.run([str(part) for part in command], input=input, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env=env)
    if check and done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}: {done.stdout[-800:]}")
    return done.stdout


def load(modules):
    subprocess.run(["/bin/busybox", "modprobe", "-a", *modules], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def screen(line):
    """To the display, which is where Windows shows things."""
    with open("/dev/tty0", "w", encoding="ascii", errors="replace") as tty:
        tty.write(line + "\n")


def com1(line):
    with open(COM1, "w", encoding="ascii", errors="replace", newline="") as port:
        port.write(line + "\r\n")


def wait_for(seconds, what):
    """True as soon as `what` gives something; a device takes its time to appear."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    return what()


def read(path, default=""):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return default


class Disk:
    def __init__(self, name):
        self.name = name
        self.path = "/dev/" + name
        self.bytes = int(read(f"/sys/block/{name}/size", "0")) * 512
        self.device = os.path.realpath(f"/sys/block/{name}/device")
        self.is_virtio = "/virtio" in self.device
        self.removable = read(f"/sys/block/{name}/removable") == "1"

    def partition(self, number):
        return self.path + (f"p{number}" if self.path[-1].isdigit() else str(number))

    def partitions(self):
        return sorted((int(read(f"{folder}/partition")), "/dev/" + os.path.basename(folder))
                      for folder in glob.glob(f"/sys/block/{self.name}/{self.name}*") if os.path.exists(f"{folder}/partition"))

    def pci_id(self):
        """`VEN_1AF4&DEV_1042` of the controller."""
        folder = self.device
        while folder != "/" and not os.path.exists(f"{folder}/subsystem_vendor"):
            folder = os.path.dirname(folder)
        return pci_id(folder)


def pci_id(folder):
    vendor, device = read(f"{folder}/vendor"), read(f"{folder}/device")
    return f"VEN_{vendor[2:].upper()}&DEV_{device[2:].upper()}" if vendor else ""


def disks():
    names = [os.path.basename(path) for path in glob.glob("/sys/block/*")]
    found = [Disk(name) for name in sorted(names) if re.fullmatch(r"sd[a-z]+|vd[a-z]+|nvme\d+n\d+", name)]
    return [disk for disk in found if disk.bytes]


class Drive:
    """A removable medium with a letter."""

    def __init__(self, letter, device, root, writable):
        self.letter, self.device, self.root, self.writable = letter, device, root, writable


def mount_media(first_letter):
    """Every medium in a drive, in the order of the drives. A medium is what its contents are, not what letter it has."""
    wait_for(5, lambda: glob.glob("/sys/block/sr*") or None)
    found, letter = [], ord(first_letter)
    for name in sorted(os.path.basename(path) for path in glob.glob("/sys/block/sr*")):
        root = f"/media/{chr(letter)}"
        os.makedirs(root, exist_ok=True)
        for kind in ("udf", "iso9660"):
            if subprocess.run(["/bin/busybox", "mount", "-t", kind, "-o", "ro", f"/dev/{name}", root],
                              stderr=subprocess.DEVNULL).returncode == 0:
                found.append(Drive(chr(letter), f"/dev/{name}", root, False))
                break
        letter += 1
    for disk in disks():
        for device in [disk.path] + [path for _, path in disk.partitions()] if disk.removable else []:
            root = f"/media/{chr(letter)}"
            os.makedirs(root, exist_ok=True)
            if subprocess.run(["/bin/busybox", "mount", "-t", "vfat", device, root], stderr=subprocess.DEVNULL).returncode == 0:
                found.append(Drive(chr(letter), device, root, True))
                letter += 1
    return found


def unmount(root):
    run("/bin/busybox", "umount", root)


def is_ntfs(device):
    try:
        with open(device, "rb") as file:
            return file.read(11)[3:] == b"NTFS    "
    except OSError:
        return False


def mount_ntfs(device, root):
    os.makedirs(root, exist_ok=True)
    # ignore_case: as Windows. recover is the default: a volume that was not dismounted is as Windows finds it.
    run("/usr/bin/lowntfs-3g", device, root, "-o", "rw,ignore_case,noatime,big_writes,umask=077,uid=0,gid=0,streams_interface=none")


def network_cards():
    return [os.path.realpath(path) for path in glob.glob("/sys/class/net/eth*/device")]


def driver_ids(folders):
    """PCI ids that .inf files below some folders name."""
    found = set()
    for top in folders:
        for folder, _, files in os.walk(top):
            for name in files:
                if name.lower().endswith(".inf"):
                    with open(os.path.join(folder, name), "rb") as file:
                        data = file.read()
                    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", "replace")
                    found.update(match.upper() for match in re.findall(r"VEN_[0-9A-Fa-f]{4}&DEV_[0-9A-Fa-f]{4}", text))
    return found


def has_tpm():
    return bool(glob.glob("/sys/class/tpm/tpm*"))


def secure_boot():
    data = b""
    for path in glob.glob("/sys/firmware/efi/efivars/SecureBoot-*"):
        with open(path, "rb") as file:
            data = file.read()
    return data[-1:] == b"\x01"


def memory_bytes():
    for line in read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0



def power(how):
    """`reboot` or `poweroff`, at once: what is mounted must be unmounted before."""
    os.sync()
    subprocess.run(["/bin/busybox", how, "-f"])
    time.sleep(60)
