"""Makes the tree of one edition of the stand-in's install.wim: a folder that looks like an applied Windows image, with hives.

    image.py TREE EDITION KERNEL INITRD BOOT-MANAGER

Names, values and places are those of Windows (they are what gilt reads); contents are our own.
"""

import os
import random
import shutil
import struct
import sys

from standin import registry
from standin.registry import DWORD, EXPAND_SZ, MULTI_SZ, SZ

BUILD, UBR = 26100, 1742
EDITIONS = {
    "ServerStandard": {"product": "Windows Server 2025 Standard", "type": "Server", "product_type": "ServerNT", "openssh": True},
    "ServerStandardCore": {"product": "Windows Server 2025 Standard", "edition": "ServerStandard", "type": "Server Core",
                           "product_type": "ServerNT", "openssh": True},
    "Professional": {"product": "Windows 10 Pro", "type": "Client", "product_type": "WinNT", "openssh": False},
}
# Folders of one size, so that an image has some thousands of names' worth of work without being large.
COMPONENTS = 40
FILES_EACH = 4


def pe(machine=0x8664, body=b""):
    """A PE file, as far as its headers go."""
    header = bytearray(0x200)
    header[0:2] = b"MZ"
    struct.pack_into("<I", header, 0x3C, 0x80)
    struct.pack_into("<4sHHIIIHH", header, 0x80, b"PE\0\0", machine, 0, 0, 0, 0, 0xF0, 0x2022)
    struct.pack_into("<H", header, 0x98, 0x20B)
    return bytes(header) + body


class Tree:
    def __init__(self, root):
        self.root = root

    def path(self, name):
        return os.path.join(self.root, name)

    def write(self, name, data):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data.replace("\n", "\r\n").encode())

    def copy(self, source, name):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        shutil.copyfile(source, self.path(name))

    def link(self, name, to):
        os.makedirs(os.path.dirname(self.path(to)), exist_ok=True)
        os.link(self.path(name), self.path(to))

    def folder(self, name):
        os.makedirs(self.path(name), exist_ok=True)

    def hive(self, name, values, keys=()):
        path = self.path(f"Windows/System32/config/{name}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        registry.empty(path, "ROOT")
        hive = registry.Hive(path, write=True)
        for key in keys:
            hive.add_key(key)
        for key, name_, kind, value in values:
            hive.set(key, name_, kind, value)
        hive.commit()


def words(seed, size):
    """Text that compresses about as programs do."""
    chance = random.Random(seed)
    vocabulary = [bytes(chance.randrange(256) for _ in range(chance.randrange(3, 12))) for _ in range(400)]
    out = b""
    while len(out) < size:
        out += chance.choice(vocabulary)
    return out[:size]


def software(edition, facts):
    version = "Microsoft\\Windows NT\\CurrentVersion"
    servicing = "Microsoft\\Windows\\CurrentVersion\\Component Based Servicing"
    foundation = f"{servicing}\\Packages\\Microsoft-Windows-Foundation-Package~31bf3856ad364e35~amd64~~10.0.{BUILD}.1"
    rollup = f"{servicing}\\Packages\\Package_for_RollupFix~31bf3856ad364e35~amd64~~{BUILD}.{UBR}.1.10"
    values = [
        (version, "ProductName", SZ, facts["product"]),
        (version, "EditionID", SZ, facts.get("edition", edition)),
        (version, "InstallationType", SZ, facts["type"]),
        (version, "CurrentMajorVersionNumber", DWORD, 10),
        (version, "CurrentMinorVersionNumber", DWORD, 0),
        (version, "CurrentVersion", SZ, "6.3"),
        (version, "CurrentBuild", SZ, str(BUILD)),
        (version, "CurrentBuildNumber", SZ, str(BUILD)),
        (version, "UBR", DWORD, UBR),
        (version, "DisplayVersion", SZ, "24H2"),
        (version, "BuildLabEx", SZ, f"{BUILD}.1.amd64fre.ge_release.240331-1435"),
        (version + "\\Winlogon", "Shell", SZ, "explorer.exe"),
        (version + "\\ProfileList", "ProfilesDirectory", EXPAND_SZ, "%SystemDrive%\\Users"),
        ("Microsoft\\Windows\\CurrentVersion\\Setup\\State", "ImageState", SZ, "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE"),
        (foundation, "CurrentState", DWORD, 0x80),
        (foundation + "\\Updates", "TelnetClient", DWORD, 0x40),
        (foundation + "\\Updates", "NetFx4-AdvSrvs", DWORD, 0x70),
        (rollup, "CurrentState", DWORD, 0x70),
        (rollup, "InstallTimeHigh", DWORD, 0x01DB0000),
        (rollup, "InstallTimeLow", DWORD, 0x01234567),
        ("Microsoft\\Windows\\CurrentVersion\\Uninstall\\{6F320B93-EE3C-4826-85E0-ADF79F8D4C61}", "DisplayName", SZ,
         "Microsoft Update Health Tools"),
        ("Microsoft\\Windows\\CurrentVersion\\Uninstall\\{6F320B93-EE3C-4826-85E0-ADF79F8D4C61}", "DisplayVersion", SZ, "5.72.0.0"),
        ("Microsoft\\Windows\\CurrentVersion\\Uninstall\\{6F320B93-EE3C-4826-85E0-ADF79F8D4C61}", "Publisher", SZ,
         "Microsoft Corporation"),
    ]
    keys = []
    if facts["type"] == "Client":
        apps = "Microsoft\\Windows\\CurrentVersion\\Appx\\AppxAllUserStore"
        keys = [apps + "\\Applications\\Microsoft.WindowsTerminal_3001.18.10301.0_neutral_~_8wekyb3d8bbwe",
                apps + "\\Deprovisioned\\Microsoft.BingNews_8wekyb3d8bbwe"]
    return values, keys


def system(facts):
    control = "ControlSet001\\Control"
    values = [
        ("Select", "Current", DWORD, 1),
        ("Select", "Default", DWORD, 1),
        (control + "\\Windows", "CSDBuildNumber", DWORD, UBR),
        (control + "\\Windows", "CSDVersion", DWORD, 0),
        (control + "\\ProductOptions", "ProductType", SZ, facts["product_type"]),
        (control + "\\ProductOptions", "ProductSuite", MULTI_SZ, ["Terminal Server"]),
        (control + "\\Class\\{4D36E966-E325-11CE-BFC1-08002BE10318}\\0000", "MatchingDeviceId", SZ, "acpiapic"),
        (control + "\\MUI\\UILanguages\\en-US", "LCID", DWORD, 0x409),
        (control + "\\Nls\\Language", "InstallLanguage", SZ, "0409"),
        (control + "\\ComputerName\\ComputerName", "ComputerName", SZ, "MINWINPC"),
        ("Setup", "SetupType", DWORD, 2),
        ("Setup", "CmdLine", SZ, "oobe\\windeploy.exe"),
        ("Setup", "OOBEInProgress", DWORD, 1),
        ("Setup", "SystemSetupInProgress", DWORD, 1),
    ]
    if facts["openssh"]:
        # Server 2025 has the server, and does not start it.
        values += [("ControlSet001\\Services\\sshd", "Start", DWORD, 4),
                   ("ControlSet001\\Services\\sshd", "ImagePath", EXPAND_SZ, "%SystemRoot%\\System32\\OpenSSH\\sshd.exe")]
    return values


def make(root, edition, kernel, initrd, boot_manager):
    facts = EDITIONS[edition]
    tree = Tree(root)
    tree.hive("SOFTWARE", *software(edition, facts))
    tree.hive("SYSTEM", system(facts))
    names = "SAM\\Domains\\Account\\Users\\Names"
    tree.hive("SAM", [(names + "\\Administrator", "Rid", DWORD, 500), (names + "\\Administrator", "Disabled", DWORD, 1),
                      (names + "\\Guest", "Rid", DWORD, 501), (names + "\\Guest", "Disabled", DWORD, 1)])
    for name in ("SECURITY", "DEFAULT", "COMPONENTS"):
        tree.hive(name, [])
    tree.hive("BCD-Template", [("Description", "KeyName", SZ, "BCD00000000"), ("Description", "System", DWORD, 1),
                               ("Objects\\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\\Elements\\12000004", "Element", SZ,
                                "Windows Boot Manager")])
    # The kernel and its first file system stand where Windows' own stand.
    tree.copy(kernel, "Windows/System32/ntoskrnl.exe")
    tree.copy(initrd, "Windows/System32/stand-in.img")
    tree.copy(boot_manager, "Windows/Boot/EFI/bootmgfw.efi")
    for name in ("kernel32.dll", "ntdll.dll", "winload.efi", "cmd.exe", "reagentc.exe", "oobe/windeploy.exe", "Sysprep/sysprep.exe",
                 "WindowsPowerShell/v1.0/powershell.exe", *(["OpenSSH/sshd.exe"] if facts["openssh"] else [])):
        tree.write("Windows/System32/" + name, pe(body=words(name, 20_000)))
    tree.write("Windows/System32/Recovery/Winre.wim", winre())
    tree.write("Windows/System32/Recovery/ReAgent.xml", '<?xml version="1.0" encoding="utf-8"?>\n<WindowsRE version="2.0"/>\n')
    for name in ("Generalize", "Cleanup", "Specialize"):
        tree.write(f"Windows/System32/Sysprep/ActionFiles/{name}.xml", f"<sysprepInformation phase=\"{name}\"/>\n")
    for name in ("machine", "cpu", "net8254x"):
        tree.write(f"Windows/INF/{name}.inf", "[Version]\nSignature=\"$WINDOWS NT$\"\nClass=System\nProvider=%MSFT%\n"
                                              "DriverVer=06/21/2006,10.0.26100.1\n[Strings]\nMSFT=\"Microsoft\"\n")
    tree.write("Windows/Logs/CBS/CBS.log", "2024-09-06 03:00:00, Info                  CBS    Starting TrustedInstaller\n")
    tree.write("Windows/Setup/State/State.ini", "[State]\nImageState=\"IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE\"\n")
    for number in range(COMPONENTS):
        component = f"amd64_stand-in-component-{number:03}_31bf3856ad364e35_10.0.{BUILD}.1_none_{number:016x}"
        tree.write(f"Windows/WinSxS/Manifests/{component}.manifest", f"<assembly name=\"{component}\"/>\n")
        for index in range(FILES_EACH):
            name = f"standin{number:03}{index}.dll"
            tree.write(f"Windows/WinSxS/{component}/{name}", pe(body=words(f"{number}.{index}", 12_000 + 900 * number)))
            # One file, two names: in the component store and where it is used.
            tree.link(f"Windows/WinSxS/{component}/{name}", f"Windows/System32/{name}")
    tree.write("Users/desktop.ini", "[.ShellClassInfo]\n")
    for name in ("Users/Default/AppData/Local", "Users/Public/Desktop", "ProgramData/Microsoft", "ProgramData/stand-in",
                 "Program Files/Common Files",
                 "Program Files (x86)/Common Files", "Windows/Panther", "Windows/Temp", "PerfLogs"):
        tree.folder(name)


def winre():
    """An empty WIM: it is there or it is not."""
    return b"MSWIM\0\0\0" + struct.pack("<II", 208, 0x10D00) + bytes(192)


if __name__ == "__main__":
    make(*sys.argv[1:])
