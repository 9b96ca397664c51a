"""What gilt asks of a Windows guest (docs/windows-guest-contract.md), played."""

import base64
import json
import os
import subprocess
import sys
import time

from . import host, scripts, sysprep, updates, windows


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def pending(machine):
    found = []
    for key, source in ((windows.SERVICING + "\\RebootPending", "CBS RebootPending"),
                        (windows.SERVICING + "\\PackagesPending", "CBS PackagesPending"),
                        (windows.UPDATE_REBOOT, "Windows Update RebootRequired")):
        if machine.has(key):
            found.append({"source": source, "soft": False})
    return found


def started():
    for line in host.read("/proc/stat").splitlines():
        if line.startswith("btime "):
            return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(line.split()[1])))
    return None


def verb_boot(request, folder):
    with windows.Registry() as machine:
        return {
            "bootId": machine.get(windows.PREFETCH, "BootId"),
            "lastBoot": started(),
            "pending": pending(machine),
            "servicing": updates.servicing() or machine.has(windows.SERVICING + "\\PackagesPending"),
            "clock": now(),
            "build": int(machine.get(windows.VERSION, "CurrentBuild", "0")),
            "ubr": machine.get(windows.VERSION, "UBR"),
            "edition": machine.get(windows.VERSION, "EditionID"),
            "kbs": updates.installed(machine),
        }


def verb_renew(request, folder):
    path = windows.SSH + "/administrators_authorized_keys"
    old = request.get("oldKey")
    with open(path, encoding="utf-8") as file:
        lines = [line.rstrip() for line in file if line.strip() and not (old and old in line)]
    if request.get("publicKey"):
        lines.append(request["publicKey"].strip())
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    if request.get("clock"):
        moment = request["clock"].replace("T", " ").split(".")[0].rstrip("Z")
        subprocess.run(["/bin/busybox", "date", "-u", "-s", moment], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {}


def verb_sync(request, folder):
    os.sync()
    return {}


def verb_run(request, folder):
    program, parameters = request.get("program", "user"), request.get("parameters") or {}
    if program == "windows-update":
        answer(updates.answer(parameters, request.get("as")))
        return {"exitCode": 0, "timedOut": False, "died": False}
    if program == "component-cleanup":
        with windows.Registry() as machine:
            waits = pending(machine)
        if waits:
            answer({"ok": False, "message": "Error: 0x800f0806. The operation could not be completed due to pending operations.",
                    "hresult": updates.signed(0x800F0806), "step": "cleanup"})
        else:
            answer({"ok": True, "result": {}})
        return {"exitCode": 0, "timedOut": False, "died": False}
    if program != "user":
        answer({"ok": False, "message": f"the stand-in does not play {program}", "hresult": 0, "step": program})
        return {"exitCode": 1, "timedOut": False, "died": False}
    name = next(name for name in os.listdir(folder) if name.lower() in ("script.ps1", "script.cmd"))
    # A process of its own, so that its time can end.
    child = os.fork()
    if child == 0:
        with open(os.path.join(folder, name), encoding="utf-8-sig") as file:
            text = file.read()
        code = scripts.play(text, request.get("kind"), request.get("environment") or {}, request.get("arguments") or [])
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)
    deadline = time.monotonic() + float(request.get("timeoutSeconds") or 3600)
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return {"exitCode": os.waitstatus_to_exitcode(status), "timedOut": False, "died": False}
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return {"exitCode": -1, "timedOut": True, "died": False}


def verb_preflight(request, folder):
    scenario = windows.scenario()
    with windows.Registry() as machine:
        encrypted = machine.get("HKLM\\SYSTEM\\CurrentControlSet\\Control\\BitLocker", "StandInEncrypted", 0)
        status = os.statvfs(windows.ROOT)
        return {
            "build": int(machine.get(windows.VERSION, "CurrentBuild", "0")),
            "client": machine.get(windows.VERSION, "InstallationType") == "Client",
            "domainJoined": scenario.get("domain-joined", False),
            "pending": pending(machine),
            "servicing": updates.servicing(),
            "appx": scenario.get("appx", []),
            "bitlocker": [{"drive": "C:", "status": "FullyEncrypted" if encrypted else "FullyDecrypted"}],
            "rearm": scenario.get("rearm", 1001),
            "freeBytes": status.f_bavail * status.f_frsize,
            "systemAccount": False,
            "reservedStorage": False,
            "services": [{"name": "wuauserv", "state": "Stopped"}],
            "roles": scenario.get("roles", []),
            "imageState": machine.get(windows.STATE_KEY, "ImageState"),
            "sysprepRuns": 1 if machine.get(sysprep.STATUS_KEY, "CleanupState", 0) else 0,
        }


def verb_handover(request, folder):
    accounts = windows.Accounts(write=True)
    name = accounts.administrator()
    accounts.set(name)
    with windows.Registry(write=True) as machine:
        windows.add_profile(machine, name, 500)
    windows.let_in()
    return {"name": name}


def verb_strip(request, folder):
    removed = []
    with windows.Registry(write=True) as machine:
        windows.remove_account(machine, request["buildUser"])
        for value in ("AutoAdminLogon", "AutoLogonCount", "DefaultUserName", "DefaultPassword"):
            machine.delete_value(windows.WINLOGON, value)
    removed.append(f"account {request['buildUser']}")
    for path in (windows.PANTHER + "/unattend.xml", windows.PANTHER + "/Unattend", windows.SYSPREP + "/unattend.xml",
                 windows.ROOT + "/Windows/Temp", windows.STAND_IN + "/state.json"):
        if os.path.exists(path):
            windows.remove(path)
            removed.append(path)
    windows.let_in()
    recovery(folder)
    return {"removed": removed}


def recovery(folder):
    """Where the script disables Windows RE, its image comes back to the volume."""
    for name in os.listdir(folder):
        if name.lower().endswith(".ps1"):
            with open(os.path.join(folder, name), encoding="utf-8-sig", errors="replace") as file:
                text = file.read().lower()
            if "reagentc" in text and "/disable" in text:
                windows.bring_recovery_back()


def verb_sysprep(request, folder):
    if request["action"] == "start":
        recovery(folder)
        sysprep.start(request)
        return {"started": True}
    return sysprep.watch()


def verb_finish(request, folder):
    windows.remove(windows.SSH + "/administrators_authorized_keys")
    for name in os.listdir(windows.SSH):
        if name.startswith("ssh_host_"):
            windows.remove(f"{windows.SSH}/{name}")
    windows.remove(windows.GILT)
    windows.remove(windows.STAND_IN)
    # The session still has to say so.
    windows.detached("/bin/sh", "-c", f"sleep 1; echo poweroff >{windows.POWER}")
    return {}


def answer(value):
    print("gilt-answer " + base64.b64encode(json.dumps(value).encode()).decode(), flush=True)


def perform(verb, folder):
    """One action; the exit code."""
    with windows_json(folder) as request:
        try:
            result = globals()["verb_" + verb](request, folder)
        except Exception as error:  # noqa: BLE001: told as PowerShell's catch would
            answer({"ok": False, "message": f"{type(error).__name__}: {error}", "hresult": 0, "step": verb})
            return 1
    answer({"ok": True, "result": result})
    return 0


class windows_json:
    """The request, deleted as soon as it was read; the folder goes at the end."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        path = self.folder + "/request.json"
        request = windows.load_json(path, {})
        windows.remove(path)
        return request

    def __exit__(self, kind, value, trace):
        windows.remove(self.folder)


