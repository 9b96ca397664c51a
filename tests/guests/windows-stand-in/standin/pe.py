"""Windows PE and Setup: from the install medium to a disk that starts what was installed.

    answer file -> checks -> disk -> image -> offline passes -> boot files -> reboot
"""

import os
import re
import shlex
import shutil
import time
import xml.etree.ElementTree as ElementTree

from . import answers, host, registry, windows
from .answers import Refused, all_of, text_of

PE_LOGS = "/x/Windows/Panther"
GPT_TYPES = {
    "EFI": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "MSR": "E3C9E316-0B5C-4DB8-817D-F92DF00215AE",
    "Primary": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7",
}
RECOVERY = "DE94BBA4-06D1-4D40-A16A-BFD50179D6AC"
MIB = 1 << 20
MIN_ESP_MIB = 100
# What Windows 11 asks of a machine, and the value of LabConfig that lets it pass.
NEEDS = [
    ("BypassTPMCheck", "a TPM 2.0", host.has_tpm),
    ("BypassSecureBootCheck", "Secure Boot", host.secure_boot),
    ("BypassRAMCheck", "4 GB of memory", lambda: host.memory_bytes() >= 3_900_000_000),
]
WINDOWS = windows.ROOT


class Setup:
    def __init__(self):
        self.logs = [PE_LOGS]
        self.registry = {}  # Windows PE's own: (key, name) -> value, all lower case
        os.makedirs(PE_LOGS, exist_ok=True)

    def log(self, text, error=False):
        line = time.strftime("%Y-%m-%d %H:%M:%S, ") + ("Error                 " if error else "Info                  ") + text + "\r\n"
        for folder in self.logs:
            for name in ["setupact.log"] + (["setuperr.log"] if error else []):
                with open(os.path.join(folder, name), "a", encoding="utf-8", newline="") as file:
                    file.write(line)

    def run(self):
        host.screen("Loading files...")
        host.load(host.MODULES)
        self.media = host.mount_media("D")
        self.cd = next((drive for drive in self.media if answers.below(drive.root, "sources/install.wim")), None)
        if self.cd is None:
            raise Refused("A media driver your computer needs is missing: no drive holds sources\\install.wim", 0x80070103)
        host.screen("Windows Setup (stand-in)")
        self.log("SETUP: windowsPE starts")
        found = answers.find("windowsPE", None, self.media, setup_drive=self.cd.root)
        if found is None:
            self.log("No unattend file was found: Setup asks")
            self.dialog("Select language settings", "Language to install:  English (United States)")
        rule, self.answers = found
        self.log(f"[SETUP.EXE] Found unattend file [{self.answers.path}] by rule {rule}")
        self.answers.check()
        self.core = self.answers.component("windowsPE", "Microsoft-Windows-Setup")
        if self.core is None:
            self.dialog("Select image", "The answer file says nothing of the disk")
        self.load_drivers()
        self.commands()
        image = self.choose_image()
        self.check_hardware(image)
        self.partition()
        self.apply(image)
        self.offline()
        self.boot_files()
        self.finish()

    def dialog(self, title, text):
        """Setup shows a window and waits for somebody to click. Nobody does."""
        host.screen(f"\n+--- {title} " + "-" * 50 + f"\n|  {text}\n|\n|                                        [ OK ]\n+" + "-" * 60)
        while True:
            time.sleep(3600)

    # --- Drivers ---------------------------------------------------------------------------------------------------

    def load_drivers(self):
        folders = [answers.entry(drive.root, "$WinPEDriver$") for drive in self.media]
        component = self.answers.component("windowsPE", "Microsoft-Windows-PnpCustomizationsWinPE")
        for path in all_of(component, "DriverPaths/PathAndCredentials") if component is not None else []:
            wanted = text_of(path, "Path", "")
            letter, rest = wanted[:1].upper(), wanted[2:]
            drive = next((drive for drive in self.media if drive.letter == letter), None)
            folders.append(answers.below(drive.root, rest) if drive else None)
            self.log(f"DriverPaths: {wanted}: {'found' if folders[-1] else 'not found'}")
        self.driver_folders = [folder for folder in folders if folder]
        self.drivers = host.driver_ids(self.driver_folders)
        for driver in sorted(self.drivers):
            self.log(f"Driver for PCI\\{driver} loaded")

    def disk(self, number):
        """Disks that Windows sees: a virtio disk only with its driver."""
        host.wait_for(10, host.disks)
        seen = [disk for disk in host.disks() if not disk.removable and (not disk.is_virtio or disk.pci_id() in self.drivers)]
        if number >= len(seen):
            hidden = [disk.pci_id() for disk in host.disks() if disk not in seen]
            raise Refused("Windows could not apply the unattend answer file's <DiskConfiguration> setting. There are no fixed disks to "
                          f"show (no driver for: {', '.join(hidden) or 'nothing is attached'})", 0x80042405)
        return seen[number]

    # --- Commands of the pass --------------------------------------------------------------------------------------

    def commands(self):
        found = all_of(self.core, "RunSynchronous/RunSynchronousCommand")
        for command in sorted(found, key=lambda one: int(text_of(one, "Order", "0"))):
            line = text_of(command, "Path", "")
            code = self.play(line)
            self.log(f"RunSynchronous: [{line}] exit code {code}", error=bool(code))

    def play(self, line):
        """`reg add` is all that Windows PE is asked for."""
        words = shlex.split(line.replace("\\", "\\\\"))
        if words[:2] == ["cmd", "/c"] or words[:2] == ["cmd.exe", "/c"]:
            words = words[2:]
        if len(words) < 3 or words[0].lower() not in ("reg", "reg.exe") or words[1].lower() != "add":
            return 1
        options = {}
        for index, word in enumerate(words):
            if word.lower() in ("/v", "/t", "/d") and index + 1 < len(words):
                options[word.lower()] = words[index + 1]
        self.registry[(words[2].lower().replace("hkey_local_machine", "hklm"), options.get("/v", "").lower())] = options.get("/d", "")
        return 0

    # --- Image -----------------------------------------------------------------------------------------------------

    def tool(self, name, *arguments, input=None):
        """A program of the medium; on UDF nothing is marked as one."""
        tools = os.path.join(self.cd.root, "stand-in/tools")
        return host.run("/lib64/ld-linux-x86-64.so.2", "--library-path", tools, f"{tools}/{name}", *arguments, input=input)

    def choose_image(self):
        self.wim = answers.below(self.cd.root, "sources/install.wim")
        self.tool("wimlib-imagex", "info", self.wim, "--extract-xml", "/x/install.xml")
        images = ElementTree.parse("/x/install.xml").getroot().findall("IMAGE")
        install_from = all_of(self.core, "ImageInstall/OSImage/InstallFrom/MetaData")
        if install_from:
            key, value = text_of(install_from[0], "Key", ""), text_of(install_from[0], "Value", "")
            names = {"/IMAGE/INDEX": lambda image: image.get("INDEX"), "/IMAGE/NAME": lambda image: image.findtext("NAME"),
                     "/IMAGE/DESCRIPTION": lambda image: image.findtext("DESCRIPTION")}
            if key.upper() not in names:
                raise Refused(f"<InstallFrom>: the key {key} is unknown")
            chosen = [image for image in images if names[key.upper()](image) == value]
            if not chosen:
                have = ", ".join(image.findtext("NAME") for image in images)
                raise Refused(f"<InstallFrom>: no image with {key} = {value}; the images are: {have}", 0x80070490)
        elif len(images) == 1:
            chosen = images
        else:
            self.dialog("Select the operating system you want to install", ", ".join(image.findtext("NAME") for image in images))
        if (text_of(self.core, "UserData/AcceptEula") or "").lower() != "true":
            self.dialog("Applicable notices and license terms", "[ ] I accept the license terms")
        self.log(f"Image chosen: {chosen[0].get('INDEX')} {chosen[0].findtext('NAME')}")
        return chosen[0]

    def check_hardware(self, image):
        build = int(image.findtext("WINDOWS/VERSION/BUILD") or 0)
        if image.findtext("WINDOWS/INSTALLATIONTYPE") != "Client" or build < 22000:
            return
        lab = "hklm\\system\\setup\\labconfig"
        missing = [what for bypass, what, has in NEEDS if not has() and self.registry.get((lab, bypass.lower())) != "1"]
        if missing:
            self.log(f"This PC does not meet the requirements: {', '.join(missing)}", error=True)
            self.dialog("Windows 11 Setup", f"This PC can't run Windows 11: it has not {', '.join(missing)}")

    # --- Disk ------------------------------------------------------------------------------------------------------

    def partition(self):
        configured = all_of(self.core, "DiskConfiguration/Disk")
        if not configured:
            self.dialog("Select location to install Windows 11", "The answer file says nothing of the disk")
        if not os.path.isdir("/sys/firmware/efi"):
            raise Refused("The stand-in installs on machines with UEFI only", 0x80070032)
        target = all_of(self.core, "ImageInstall/OSImage/InstallTo")
        if not target:
            raise Refused("<InstallTo> is missing")
        self.windows_partition = int(text_of(target[0], "PartitionID", "0"))
        for one in configured:
            disk = self.disk(int(text_of(one, "DiskID", "0")))
            self.lay_out(disk, one)
            if text_of(one, "DiskID", "0") == text_of(target[0], "DiskID", "0"):
                self.target = disk
        if not hasattr(self, "target"):
            raise Refused("<InstallTo> names a disk that <DiskConfiguration> does not", 0x80042405)
        if self.windows_partition not in self.formats or self.formats[self.windows_partition][0] != "NTFS":
            raise Refused(f"<InstallTo>: partition {self.windows_partition} is not one that was formatted with NTFS", 0x80070490)

    def lay_out(self, disk, one):
        parts = sorted(all_of(one, "CreatePartitions/CreatePartition"), key=lambda part: int(text_of(part, "Order", "0")))
        if not parts or text_of(one, "WillWipeDisk", "").lower() != "true":
            raise Refused("<DiskConfiguration>: the stand-in only lays out whole disks: WillWipeDisk and CreatePartitions", 0x80042405)
        changes = {int(text_of(part, "PartitionID", "0")): part for part in all_of(one, "ModifyPartitions/ModifyPartition")}
        script = ["label: gpt"]
        for number, part in enumerate(parts, 1):
            kind, size = text_of(part, "Type", ""), text_of(part, "Size")
            extend = text_of(part, "Extend", "").lower() == "true"
            if kind not in GPT_TYPES:
                raise Refused(f"<CreatePartition>: the type {kind} is unknown or does not fit a GPT disk", 0x80042405)
            if not size and not extend:
                raise Refused(f"<CreatePartition> {number} has neither <Size> nor <Extend>", 0x80042405)
            if extend and number < len(parts):
                raise Refused(f"<CreatePartition> {number} takes the whole disk, but others follow", 0x80042405)
            if kind == "EFI" and int(size or 0) < MIN_ESP_MIB:
                raise Refused(f"The EFI system partition is smaller than {MIN_ESP_MIB} MB", 0x80042405)
            type_id = text_of(changes[number], "TypeID") if number in changes else None
            fields = [f"size={size}MiB"] if size else []
            fields.append(f"type={(type_id or GPT_TYPES[kind]).upper()}")
            if type_id and type_id.upper() == RECOVERY:
                fields.append('attrs="RequiredPartition GUID:63"')
            script.append(", ".join(fields))
        self.log(f"DiskConfiguration: {disk.name}: {'; '.join(script[1:])}")
        host.run("/bin/busybox", "dd", "if=/dev/zero", f"of={disk.path}", "bs=1M", "count=1")
        self.tool("sfdisk", "--quiet", "--wipe", "always", disk.path, input="\n".join(script) + "\n")
        host.wait_for(10, lambda: len(disk.partitions()) == len(parts))
        self.formats = {}
        for number, part in enumerate(parts, 1):
            change = changes.get(number)
            kind = text_of(change, "Format") if change is not None else None
            if kind and text_of(part, "Type") == "MSR":
                raise Refused("The Microsoft reserved partition cannot be formatted", 0x80042405)
            if kind:
                self.format(disk.partition(number), kind.upper(), text_of(change, "Label", "") or "")
                self.formats[number] = (kind.upper(), text_of(part, "Type"))
        unknown = set(changes) - set(range(1, len(parts) + 1))
        if unknown:
            raise Refused(f"<ModifyPartition>: there is no partition {sorted(unknown)[0]}", 0x80042405)
        self.layout = parts

    def format(self, device, kind, label):
        if kind == "NTFS":
            self.tool("mkntfs", "-Q", "-F", "-q", *(["-L", label] if label else []), device)
        elif kind == "FAT32":
            host.run("/bin/busybox", "mkdosfs", "-n", label[:11] or "SYSTEM", device)
        else:
            raise Refused(f"<Format>: {kind} is unknown", 0x80042405)

    # --- Image onto the disk ---------------------------------------------------------------------------------------

    def apply(self, image):
        host.screen("Installing Windows: copying files")
        device = self.target.partition(self.windows_partition)
        self.tool("wimlib-imagex", "apply", self.wim, image.get("INDEX"), device)
        host.mount_ntfs(device, WINDOWS)
        # From here on the logs are on the disk, too, where they can be read after a failure.
        late = os.path.join(WINDOWS, "$WINDOWS.~BT/Sources/Panther")
        os.makedirs(late, exist_ok=True)
        for name in os.listdir(PE_LOGS):
            shutil.copy(os.path.join(PE_LOGS, name), late)
        self.logs.append(late)
        self.log(f"Image {image.get('INDEX')} applied to partition {self.windows_partition} of {self.target.name}")

    def offline(self):
        """What Setup leaves for the first boot: the answers, the registry, drivers."""
        with registry.Machine(WINDOWS, write=True) as machine:
            setup = "HKLM\\SYSTEM\\Setup"
            machine.set(setup, "SetupType", registry.DWORD, 2)
            machine.set(setup, "SystemSetupInProgress", registry.DWORD, 1)
            machine.set(setup, "OOBEInProgress", registry.DWORD, 1)
            machine.set(setup, "CmdLine", registry.SZ, "oobe\\windeploy.exe")
            windows.set_image_state(machine, "IMAGE_STATE_SPECIALIZE_RESEAL_TO_OOBE")
            if self.answers.has("offlineServicing"):
                component = self.answers.component("offlineServicing", "Microsoft-Windows-SecureStartup-FilterDriver")
                if component is not None and text_of(component, "PreventDeviceEncryption", "").lower() == "true":
                    machine.set("HKLM\\SYSTEM\\CurrentControlSet\\Control\\BitLocker", "PreventDeviceEncryption", registry.DWORD, 1)
                self.answers.mark_processed("offlineServicing")
        self.carry_drivers()
        self.answers.mark_processed("windowsPE")
        self.answers.save(os.path.join(WINDOWS, "Windows/Panther/unattend.xml"))

    def carry_drivers(self):
        """Drivers of the media stay in the installed Windows as oem0.inf, oem1.inf …"""
        number = 0
        for top in self.driver_folders:
            for folder, _, files in sorted(os.walk(top)):
                for name in sorted(files):
                    if name.lower().endswith(".inf"):
                        shutil.copy(os.path.join(folder, name), os.path.join(WINDOWS, f"Windows/INF/oem{number}.inf"))
                        self.log(f"Driver {name} is oem{number}.inf")
                        number += 1

    def boot_files(self):
        esp = next((number for number, (kind, part) in self.formats.items() if part == "EFI" and kind == "FAT32"), None)
        if esp is None:
            raise Refused("Windows could not update the computer's boot configuration: there is no EFI system partition with FAT32",
                          0xC1510114)
        host.run("/bin/busybox", "mkdir", "-p", "/esp")
        host.run("/bin/busybox", "mount", "-t", "vfat", self.target.partition(esp), "/esp")
        boot = os.path.join(WINDOWS, "Windows/Boot/EFI/bootmgfw.efi")
        for to in ("EFI/Microsoft/Boot/bootmgfw.efi", "EFI/Boot/bootx64.efi"):
            os.makedirs(os.path.dirname("/esp/" + to), exist_ok=True)
            shutil.copy(boot, "/esp/" + to)
        shutil.copy(os.path.join(WINDOWS, "Windows/System32/config/BCD-Template"), "/esp/EFI/Microsoft/Boot/BCD")
        host.unmount("/esp")
        self.log("Boot files are in place")

    def finish(self):
        recovery = next((number for number, part in enumerate(self.layout, 1) if number != self.windows_partition
                         and self.formats.get(number, ("",))[0] == "NTFS"), None)
        if recovery:
            self.log(f"Partition {recovery} is for recovery")
        self.log("SETUP: windowsPE ends; the machine restarts")
        logs = os.path.join(WINDOWS, "Windows/Panther")
        os.makedirs(logs, exist_ok=True)
        for name in os.listdir(PE_LOGS):
            shutil.copy(os.path.join(PE_LOGS, name), logs)
        shutil.rmtree(os.path.join(WINDOWS, "$WINDOWS.~BT"))
        host.screen("Windows needs to restart to continue")
        os.chdir("/")
        host.unmount(WINDOWS)
        host.power("reboot")


def main():
    setup = Setup()
    try:
        setup.run()
    except Refused as refused:
        setup.log(str(refused), error=True)
        where = re.sub(r"^/media/(.)", lambda letter: letter.group(1) + ":", str(refused)).replace("/media/", "")
        setup.dialog("Install Windows", "Windows could not complete the installation.\n|  " + where)
    except Exception as error:  # noqa: BLE001: Setup never lets go of the machine
        setup.log(f"Setup failed: {error!r}", error=True)
        setup.dialog("Install Windows", f"Setup failed: {error!r}")
