"""sysprep.exe: runs beside the session that started it, and leaves what Windows leaves.

Outcomes of the scenario's `sysprep`: `success`; `appx` (a package of one user blocks it); `returns-0` (it ends with exit code 0
and did nothing); `hangs`; `half` (the tag is there, the registry says it is not generalized).
"""

import json
import os
import sys
import time

from . import registry, windows

LOGS = windows.SYSPREP + "/Panther"
TAG = windows.SYSPREP + "/Sysprep_succeeded.tag"
STATUS = "/run/sysprep.json"
STATUS_KEY = "HKLM\\SYSTEM\\Setup\\Status\\SysprepStatus"
FATAL_STATE = 3


def log(text, error=False):
    line = time.strftime("%Y-%m-%d %H:%M:%S, ") + ("Error" if error else "Info ") + "                 " + text + "\r\n"
    for name in ["setupact.log"] + (["setuperr.log"] if error else []):
        windows.append(f"{LOGS}/{name}", line)


def start(request):
    with windows.Registry() as machine:
        administrator = windows.Accounts().administrator()
        runs_before = machine.get(STATUS_KEY, "CleanupState", 0)
    if request.get("account", "").lower() in ("system", "nt authority\\system"):
        raise ValueError("sysprep must not run as SYSTEM")
    os.makedirs(LOGS, exist_ok=True)
    windows.remove(TAG)
    for name in ("setupact.log", "setuperr.log"):
        with open(f"{LOGS}/{name}", "w", encoding="utf-8"):
            pass
    unattend = request.get("unattend")
    if unattend:
        with open(windows.PANTHER + "/unattend.xml", "w", encoding="utf-8") as file:
            file.write(unattend)
    save({"running": True, "exitCode": None})
    mode = "vm" if request.get("vm") else request.get("mode", "oobe")
    windows.detached("/bin/python3", "-S", "-m", "standin.sysprep", mode, administrator, str(runs_before))


def save(status):
    with open(STATUS + ".new", "w", encoding="utf-8") as file:
        json.dump(status, file)
    os.rename(STATUS + ".new", STATUS)


def watch():
    status = windows.load_json(STATUS, {"running": False, "exitCode": None})
    with windows.Registry() as machine:
        image_state = machine.get(windows.STATE_KEY, "ImageState")
    return {"tag": os.path.exists(TAG), "running": status["running"], "imageState": image_state, "exitCode": status["exitCode"],
            "errors": tail(f"{LOGS}/setuperr.log", 16 << 10), "actions": tail(f"{LOGS}/setupact.log", 4 << 10)}


def tail(path, most):
    try:
        with open(path, "rb") as file:
            return file.read()[-most:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def end(code):
    save({"running": False, "exitCode": code})


def blocking_apps():
    return windows.scenario().get("sysprep-appx") or {"fullName": "Microsoft.WidgetsPlatformRuntime_1.6.1.0_x64__8wekyb3d8bbwe"}


def run(mode, earlier):
    outcome = windows.scenario().get("sysprep", "success")
    log(f"SYSPRP ========================================================\r\nSYSPRP Sysprep started, mode {mode}")
    if earlier == FATAL_STATE:
        log("SYSPRP WinMain:Hit failure while processing sysprep generalize internal providers; hr = 0x8007001f", error=True)
        log("[0x0f0082] SYSPRP RunExternalDlls: machine is in an invalid state or we couldn't update the recorded state, dwRet = 31",
            error=True)
        return end(0)
    if outcome == "hangs":
        log("SYSPRP RunDlls: waiting for provider drmv2clt.dll")
        return None
    if outcome == "returns-0":
        return end(0)
    with windows.Registry() as machine:
        encrypted = machine.get("HKLM\\SYSTEM\\CurrentControlSet\\Control\\BitLocker", "StandInEncrypted", 0)
        pending = machine.has(windows.SERVICING + "\\RebootPending")
    if encrypted:
        log("SYSPRP BitLocker-Sysprep: BitLocker is on for the OS volume. Turn BitLocker off to run Sysprep. (0x80310039)", error=True)
        log("SYSPRP ActionPlatform::LaunchModule: Failure occurred while executing 'ValidateBitLockerState' from "
            "C:\\Windows\\System32\\BdeSysprep.dll; dwRet = 0x80310039", error=True)
        return end(0)
    if outcome == "appx":
        log(f"SYSPRP Package {blocking_apps()['fullName']} was installed for a user, but not provisioned for all users. This package will "
            "not function properly in the sysprep image.", error=True)
        log("SYSPRP Failed to remove apps for the current user: 0x80073cf2.", error=True)
        log("SYSPRP Exit code of RemoveAllApps thread was 0x3cf2.", error=True)
        log("SYSPRP ActionPlatform::LaunchModule: Failure occurred while executing 'SysprepGeneralizeValidate' from "
            "C:\\Windows\\System32\\AppxSysprep.dll; dwRet = 0x3cf2", error=True)
        return end(0)
    if pending:
        log("SYSPRP Sysprep_Clean_Validate_Opk: Failed to query pending CBS operations, or operations are pending; dwRet = 0x8007139f",
            error=True)
        return end(0)
    with windows.Registry(write=True) as machine:
        machine.set(STATUS_KEY, "GeneralizationState", registry.DWORD, 7 if outcome == "success" else FATAL_STATE)
        machine.set(STATUS_KEY, "CleanupState", registry.DWORD, 2 if outcome == "success" else FATAL_STATE)
        if outcome == "success":
            windows.set_image_state(machine, "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE")
            setup = "HKLM\\SYSTEM\\Setup"
            machine.set(setup, "SetupType", registry.DWORD, 2)
            machine.set(setup, "CmdLine", registry.SZ, "oobe\\windeploy.exe")
            machine.set(setup, "OOBEInProgress", registry.DWORD, 1)
            machine.set(setup, "SystemSetupInProgress", registry.DWORD, 1)
    with open(TAG, "w", encoding="ascii"):
        pass
    log("SYSPRP FCreateTagFile:Successfully created tag file C:\\Windows\\System32\\Sysprep\\Sysprep_succeeded.tag")
    return end(0)


if __name__ == "__main__":
    try:
        run(sys.argv[1], int(sys.argv[3]))
    except Exception as error:  # noqa: BLE001: a program that crashed is one that ended
        log(f"SYSPRP {error!r}", error=True)
        end(1)
