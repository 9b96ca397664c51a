"""What the installed system does from power-on to power-off.

    mount -> pending servicing -> (SetupType 2) specialize -> oobeSystem -> services -> until power-off
"""

import json
import os
import select
import shutil
import subprocess
import time

from . import answers, host, registry, updates, windows
from .answers import all_of, text_of

HOST_KEY = windows.SSH + "/ssh_host_ed25519_key"
DROPBEAR_KEY = "/run/host-key"


def log(text, error=False, name="setupact.log", folder=windows.PANTHER):
    line = time.strftime("%Y-%m-%d %H:%M:%S, ") + ("Error  " if error else "Info   ") + text + "\r\n"
    for one in [name] + (["setuperr.log"] if error else []):
        windows.append(f"{folder}/{one}", line)


def find_windows():
    """Mounts the volume with Windows at C:."""
    for disk in host.wait_for(10, host.disks):
        for _, device in disk.partitions():
            if host.is_ntfs(device):
                host.mount_ntfs(device, windows.ROOT)
                if os.path.exists(windows.ROOT + "/Windows/System32/config/SYSTEM"):
                    return disk
                host.unmount(windows.ROOT)
    return None


def stop(title, text):
    host.screen(f"\n  :(\n  Your PC ran into a problem and needs to restart.\n  {title}: {text}")
    while True:
        time.sleep(3600)


class Boot:
    def run(self):
        host.load(host.MODULES)
        self.disk = find_windows()
        if self.disk is None:
            stop("INACCESSIBLE_BOOT_DEVICE", "no volume with Windows")
        self.drivers = host.driver_ids([windows.ROOT + "/Windows/INF"])
        if self.disk.is_virtio and self.disk.pci_id() not in self.drivers:
            stop("INACCESSIBLE_BOOT_DEVICE", f"no driver for PCI\\{self.disk.pci_id()}")
        self.media = host.mount_media("D")
        os.mkfifo(windows.POWER)
        with windows.Registry(write=True) as machine:
            machine.set(windows.PREFETCH, "BootId", registry.DWORD, machine.get(windows.PREFETCH, "BootId", 0) + 1)
            updates.after_boot(machine)
            setup = machine.get("HKLM\\SYSTEM\\Setup", "SetupType", 0)
        try:
            if setup == 2:
                self.deploy()
        except (answers.Refused, host.Failed) as error:
            log(str(error), error=True)
            stop("Windows could not complete the installation", str(error))
        self.network()
        self.services()
        self.until_power_off()

    # --- Passes ----------------------------------------------------------------------------------------------------

    def answers_of(self, machine, name):
        found = answers.find(name, machine, self.media, windows.ROOT)
        if found is None:
            log(f"No unattend file has anything for pass [{name}]")
            return None
        rule, file = found
        log(f"Found unattend file [{file.path}] by rule {rule} for pass [{name}]")
        file.check()
        return file

    def processed(self, file, name):
        file.mark_processed(name)
        file.save(windows.PANTHER + "/unattend.xml")

    def deploy(self):
        host.screen("Getting ready")
        with windows.Registry(write=True) as machine:
            file = self.answers_of(machine, "specialize")
            commands = self.specialize(machine, file) if file else []
        self.run_scripts(commands)
        if file:
            self.processed(file, "specialize")
        with windows.Registry(write=True) as machine:
            windows.set_image_state(machine, "IMAGE_STATE_COMPLETE")
            file = self.answers_of(machine, "oobeSystem")
            if file is None:
                complete(machine)
                self.no_accounts()
            commands = self.oobe(machine, file) if file else []
            complete(machine)
        windows.move_recovery_away()
        if file:
            self.processed(file, "oobeSystem")
        host.screen("Hi")
        self.network()
        self.run_scripts(commands)

    def no_accounts(self):
        """Out-of-box experience: a window asks for the region. A machine made of an image waits here for its user."""
        host.screen("Let's start with region. Is this right?\n  > United States")

    def specialize(self, machine, file):
        shell = file.component("specialize", "Microsoft-Windows-Shell-Setup")
        if shell is not None:
            name = text_of(shell, "ComputerName")
            if name:
                name = "WIN-STANDIN" if name == "*" else name
                for key in ("ComputerName", "ActiveComputerName"):
                    machine.set(f"HKLM\\SYSTEM\\CurrentControlSet\\Control\\ComputerName\\{key}", "ComputerName", registry.SZ, name)
            zone = text_of(shell, "TimeZone")
            if zone:
                machine.set("HKLM\\SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation", "TimeZoneKeyName", registry.SZ, zone)
        secure = file.component("specialize", "Microsoft-Windows-SecureStartup-FilterDriver")
        if secure is not None and text_of(secure, "PreventDeviceEncryption", "").lower() == "true":
            machine.set("HKLM\\SYSTEM\\CurrentControlSet\\Control\\BitLocker", "PreventDeviceEncryption", registry.DWORD, 1)
        deployment = file.component("specialize", "Microsoft-Windows-Deployment")
        found = all_of(deployment, "RunSynchronous/RunSynchronousCommand") if deployment is not None else []
        return [text_of(one, "Path", "") for one in sorted(found, key=lambda one: int(text_of(one, "Order", "0")))]

    def oobe(self, machine, file):
        shell = file.component("oobeSystem", "Microsoft-Windows-Shell-Setup")
        if shell is None:
            return []
        for number, account in enumerate(all_of(shell, "UserAccounts/LocalAccounts/LocalAccount")):
            windows.add_account(machine, text_of(account, "Name", ""), 1001 + number)
        if all_of(shell, "UserAccounts/AdministratorPassword"):
            accounts = windows.Accounts(write=True)
            accounts.set(accounts.administrator())
        logon = all_of(shell, "AutoLogon")
        if not logon or text_of(logon[0], "Enabled", "").lower() != "true":
            # Nobody logs on, so no command of a first logon runs.
            return []
        user = text_of(logon[0], "Username", "")
        machine.set(windows.WINLOGON, "AutoAdminLogon", registry.SZ, "1")
        machine.set(windows.WINLOGON, "DefaultUserName", registry.SZ, user)
        machine.set(windows.WINLOGON, "DefaultPassword", registry.SZ, text_of(logon[0], "Password/Value", ""))
        self.encrypt_device(machine)
        # They all start at the same time; where there are more than one, the last is done first here.
        found = all_of(shell, "FirstLogonCommands/SynchronousCommand")
        return [text_of(one, "CommandLine", "") for one in reversed(sorted(found, key=lambda one: int(text_of(one, "Order", "0"))))]

    def encrypt_device(self, machine):
        """From 24H2 on a machine with TPM and Secure Boot encrypts its disk, unless it is told not to."""
        prevented = machine.get("HKLM\\SYSTEM\\CurrentControlSet\\Control\\BitLocker", "PreventDeviceEncryption", 0) == 1
        if host.has_tpm() and host.secure_boot() and not prevented:
            machine.set("HKLM\\SYSTEM\\CurrentControlSet\\Control\\BitLocker", "StandInEncrypted", registry.DWORD, 1)

    # --- Scripts of the answer medium ------------------------------------------------------------------------------

    def run_scripts(self, commands):
        for line in commands:
            script = next((name for name in ("first-boot", "first-logon") if f"{name}.ps1" in line), None)
            log(f"Command: [{line}]")
            if script is None:
                log(f"The stand-in knows no such command: [{line}]", error=True)
                continue
            found = [answers.below(drive.root, "gilt") for drive in self.media if answers.below(drive.root, "gilt/medium.json")]
            if not found or not answers.below(found[0], script + ".ps1"):
                log(f"No drive holds \\gilt\\{script}.ps1", error=True)
                continue
            with open(answers.below(found[0], "settings.json"), encoding="utf-8-sig") as file:
                settings = json.load(file)
            host.com1(f"gilt-windows: {script} started")
            if script == "first-boot":
                host.com1("gilt-windows: first-boot done")
            else:
                self.first_logon(found[0], settings)

    def first_logon(self, folder, settings):
        for step in ("drivers", "network", "openssh", "key", "service", "clean"):
            host.com1(f"gilt-windows: step {step}")
            failed = getattr(self, "step_" + step, lambda *_: None)(folder, settings)
            if failed:
                host.com1(f"gilt-windows: FAILED {step}: {failed}")
                log(failed, error=True)
                return
        self.services()
        host.com1("gilt-windows: ready")

    def step_network(self, folder, settings):
        if not self.network():
            return "no network adapter has a driver"
        return None

    def step_openssh(self, folder, settings):
        name = settings.get("openssh")
        if name and not answers.below(folder, name):
            return f"the medium has no {name}"
        with windows.Registry(write=True) as machine:
            if not name and not machine.has(windows.SSHD):
                # A client fetches the capability from Windows Update.
                if windows.scenario().get("no-windows-update"):
                    return "Add-WindowsCapability failed. Error code = 0x8024402c"
            machine.set(windows.SSHD, "ImagePath", registry.EXPAND_SZ, "C:\\Windows\\System32\\OpenSSH\\sshd.exe")
        os.makedirs(windows.SSH, exist_ok=True)
        return None

    def step_key(self, folder, settings):
        with open(windows.SSH + "/administrators_authorized_keys", "w", encoding="utf-8") as file:
            file.write(settings["publicKey"].strip() + "\n")

    def step_service(self, folder, settings):
        with windows.Registry(write=True) as machine:
            machine.set(windows.SSHD, "Start", registry.DWORD, 2)

    def step_clean(self, folder, settings):
        os.makedirs(windows.GILT + "/run", exist_ok=True)
        windows.append(windows.GILT + "/setup.log", "first logon done\r\n")
        with windows.Registry(write=True) as machine:
            for name in ("AutoAdminLogon", "DefaultPassword", "DefaultUserName"):
                machine.delete_value(windows.WINLOGON, name)

    # --- Running ---------------------------------------------------------------------------------------------------

    def network(self):
        """Windows has drivers for Intel's cards; one of virtio needs a driver of the media."""
        if os.path.exists("/sys/class/net/eth0"):
            return True
        usable = [module for module in host.NETWORK_MODULES
                  if module != "virtio_net" or any(driver in self.drivers for driver in ("VEN_1AF4&DEV_1041", "VEN_1AF4&DEV_1000"))]
        host.load(usable)
        if not host.wait_for(5, lambda: os.path.exists("/sys/class/net/eth0")):
            return False
        for command in ("ip link set lo up", "ip link set eth0 up", "ip addr add 10.0.2.15/24 dev eth0", "ip route add default via 10.0.2.2"):
            host.run("/bin/busybox", *command.split())
        return True

    def services(self):
        """sshd, where it is set to start by itself."""
        with windows.Registry() as machine:
            if getattr(self, "sshd", None) or machine.get(windows.SSHD, "Start") != 2:
                return
        windows.let_in()
        os.makedirs(windows.SSH, exist_ok=True)
        if not os.path.exists(HOST_KEY):
            host.run("/usr/bin/dropbearkey", "-t", "ed25519", "-f", DROPBEAR_KEY)
            shutil.copy(DROPBEAR_KEY, HOST_KEY)
        shutil.copy(HOST_KEY, DROPBEAR_KEY)
        os.chmod(DROPBEAR_KEY, 0o600)
        with open("/run/sshd.log", "ab") as out:
            self.sshd = subprocess.Popen(["/usr/sbin/dropbear", "-F", "-E", "-s", "-r", DROPBEAR_KEY, "-p", "22"], stdout=out, stderr=out)

    def until_power_off(self):
        # Read and write, so that the pipe never ends.
        pipe = os.open(windows.POWER, os.O_RDWR)
        select.select([pipe], [], [])
        how = os.read(pipe, 64).decode()
        host.screen("Restarting" if how.startswith("reboot") else "Shutting down")
        if getattr(self, "sshd", None):
            self.sshd.kill()
        os.chdir("/")
        subprocess.run(["/bin/busybox", "killall", "-9", "dropbear", "cmd.exe", "sftp-server"], stderr=subprocess.DEVNULL)
        for _ in range(100):
            if subprocess.run(["/bin/busybox", "umount", windows.ROOT], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.05)
        host.wait_for(5, lambda: not lowntfs_runs())
        host.power("reboot" if how.startswith("reboot") else "poweroff")


def lowntfs_runs():
    return any(host.read(f"/proc/{pid}/comm") == "lowntfs-3g" for pid in os.listdir("/proc") if pid.isdigit())


def complete(machine):
    setup = "HKLM\\SYSTEM\\Setup"
    machine.set(setup, "SetupType", registry.DWORD, 0)
    machine.set(setup, "SystemSetupInProgress", registry.DWORD, 0)
    machine.set(setup, "OOBEInProgress", registry.DWORD, 0)
    machine.set(setup, "CmdLine", registry.SZ, "")


def main():
    Boot().run()
