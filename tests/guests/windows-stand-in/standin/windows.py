"""The installed Windows: where its things are, its accounts, its scenario."""

import fcntl
import json
import os
import shutil
import subprocess

from . import registry

ROOT = "/c"
GILT = ROOT + "/ProgramData/gilt"
SSH = ROOT + "/ProgramData/ssh"
STAND_IN = ROOT + "/ProgramData/stand-in"
PANTHER = ROOT + "/Windows/Panther"
SYSPREP = ROOT + "/Windows/System32/Sysprep"
STATE_KEY = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Setup\\State"
SERVICING = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\Component Based Servicing"
UPDATE_REBOOT = "HKLM\\SOFTWARE\\Microsoft\\Windows\\CurrentVersion\\WindowsUpdate\\Auto Update\\RebootRequired"
VERSION = "HKLM\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion"
WINLOGON = VERSION + "\\Winlogon"
PROFILES = VERSION + "\\ProfileList"
PREFETCH = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Memory Management\\PrefetchParameters"
SSHD = "HKLM\\SYSTEM\\CurrentControlSet\\Services\\sshd"
ACCOUNTS = "SAM\\Domains\\Account\\Users\\Names"
MACHINE_SID = "S-1-5-21-1004336348-1177238915-682003330"
POWER = "/run/power"


class Registry(registry.Machine):
    """The machine's registry; one process at a time."""

    def __init__(self, write=False):
        self.lock = open("/run/registry.lock", "w", encoding="ascii")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        super().__init__(ROOT, write)

    def __exit__(self, kind, value, trace):
        super().__exit__(kind, value, trace)
        self.lock.close()


class Accounts:
    """SAM: names, their relative ids, and whether they may log on."""

    def __init__(self, write=False):
        self.hive = registry.Hive(ROOT + "/Windows/System32/config/SAM", write)

    def names(self):
        return self.hive.keys(ACCOUNTS)

    def enabled(self, name):
        return self.hive.get(f"{ACCOUNTS}\\{name}", "Disabled", 0) == 0

    def rid(self, name):
        return self.hive.get(f"{ACCOUNTS}\\{name}", "Rid", 0)

    def set(self, name, rid=None, disabled=False):
        key = f"{ACCOUNTS}\\{name}"
        if rid:
            self.hive.set(key, "Rid", registry.DWORD, rid)
        self.hive.set(key, "Disabled", registry.DWORD, int(disabled))
        self.hive.commit()

    def remove(self, name):
        self.hive.delete_key(f"{ACCOUNTS}\\{name}")
        self.hive.commit()

    def administrator(self):
        return next(name for name in self.names() if self.rid(name) == 500)


def add_account(machine, name, rid):
    accounts = Accounts(write=True)
    accounts.set(name, rid)
    add_profile(machine, name, rid)


def add_profile(machine, name, rid):
    profile = f"{ROOT}/Users/{name}"
    os.makedirs(profile + "/AppData/Local", exist_ok=True)
    with open(profile + "/NTUSER.DAT", "wb") as file:
        file.write(b"")
    registry.empty(profile + "/NTUSER.DAT", "ROOT")
    key = f"{PROFILES}\\{MACHINE_SID}-{rid}"
    machine.set(key, "ProfileImagePath", registry.EXPAND_SZ, f"C:\\Users\\{name}")


def remove_account(machine, name):
    accounts = Accounts(write=True)
    have = next((one for one in accounts.names() if one.lower() == name.lower()), None)
    if have is None:
        return
    machine.delete_key(f"{PROFILES}\\{MACHINE_SID}-{accounts.rid(have)}")
    accounts.remove(have)
    shutil.rmtree(f"{ROOT}/Users/{have}", ignore_errors=True)


def let_in():
    """Accounts that may log on, for the SSH server below."""
    accounts = Accounts()
    lines = ["root:x:0:0:root:/root:/bin/sh"]
    for name in accounts.names():
        if not accounts.enabled(name):
            continue
        home = f"/home/{name}"
        os.makedirs(home + "/.ssh", mode=0o700, exist_ok=True)
        os.chmod(home, 0o700)
        link = home + "/.ssh/authorized_keys"
        # As Windows' server: administrators have one file, and it lies here.
        if not os.path.islink(link):
            os.symlink(SSH + "/administrators_authorized_keys", link)
        lines.append(f"{name}:x:0:0:{name}:{home}:/bin/cmd.exe")
    with open("/etc/passwd.new", "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    os.rename("/etc/passwd.new", "/etc/passwd")
    with open("/etc/shadow", "w", encoding="ascii") as file:
        file.write("".join(line.split(":")[0] + ":*:19000:0:99999:7:::\n" for line in lines))


def load_json(path, default):
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except FileNotFoundError:
        return default


def scenario():
    """What the stand-in is to do wrong: a file that a test uploads. Nothing, by default."""
    return load_json(STAND_IN + "/scenario.json", {})


def state():
    return load_json(STAND_IN + "/state.json", {"round": 0})


def save_state(new):
    os.makedirs(STAND_IN, exist_ok=True)
    with open(STAND_IN + "/state.json", "w", encoding="utf-8") as file:
        json.dump(new, file)


def power(how):
    with open(POWER, "w", encoding="ascii") as file:
        file.write(how)


def append(path, text, encoding="utf-8"):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding=encoding, newline="") as file:
        file.write(text)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)


def detached(*command):
    """A process of its own session, as a scheduled task is."""
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def set_image_state(machine, state):
    machine.set(STATE_KEY, "ImageState", registry.SZ, state)
    folder = ROOT + "/Windows/Setup/State"
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/State.ini", "w", encoding="utf-16", newline="") as file:
        file.write(f'[State]\r\nImageState="{state}"\r\n')


def move_recovery_away():
    """While the out-of-box experience ends, Windows RE leaves System32 for its own place."""
    winre = ROOT + "/Windows/System32/Recovery/Winre.wim"
    if os.path.exists(winre):
        os.makedirs(ROOT + "/Recovery/WindowsRE", exist_ok=True)
        os.rename(winre, ROOT + "/Recovery/WindowsRE/Winre.wim")


def bring_recovery_back():
    """`reagentc /disable`."""
    winre = ROOT + "/Recovery/WindowsRE/Winre.wim"
    if os.path.exists(winre):
        os.rename(winre, ROOT + "/Windows/System32/Recovery/Winre.wim")
