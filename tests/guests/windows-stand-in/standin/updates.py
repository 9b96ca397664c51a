"""Windows Update as the scenario says: rounds of updates, each with a result, a restart after each round.

    {"updates": {"rounds": [[{"id", "title", "kb", "code", "hresult", "ubr", "bytes"}]], "servicing-never-ends": false}}
"""

import re

from . import registry, windows

SUCCEEDED = 2
NOT_ALLOWED = 0x80240016
ALL_FAILED = 0x80240022
ACCESS_DENIED = 0x80070005
INSTALL_PENDING, INSTALLED = 0x60, 0x70


def signed(number):
    return number - (1 << 32) if number >= 1 << 31 else number


def package(update):
    return f"Package_for_{update['kb']}~31bf3856ad364e35~amd64~~26100.{update.get('ubr', 1)}.1.1"


def rounds():
    return windows.scenario().get("updates", {}).get("rounds", [])


def found():
    number = windows.state().get("round", 0)
    return rounds()[number] if number < len(rounds()) else []


def chosen(update, filters):
    """The first filter that matches decides: `include:EXPRESSION` or `exclude:EXPRESSION`. The stand-in knows `$true` and titles."""
    for line in filters or ["include:$true"]:
        verdict, _, expression = line.partition(":")
        like = re.search(r"Title\s+-like\s+'([^']*)'", expression)
        if expression.strip() == "$true" or (like and re.fullmatch(
                re.escape(like.group(1)).replace(r"\*", ".*"), update["title"], re.IGNORECASE)):
            return verdict == "include"
    return False


def listed(update):
    return {"id": update["id"], "revision": update.get("revision", 200), "title": update["title"], "kbs": [update["kb"]],
            "bytes": update.get("bytes", 1 << 20), "exclusive": False, "interactive": False}


def answer(parameters, as_user):
    if as_user != "system":
        return {"ok": False, "message": "Access is denied. (Exception from HRESULT: 0x80070005 (E_ACCESSDENIED))",
                "hresult": signed(ACCESS_DENIED), "step": "download"}
    wanted = [update for update in found() if chosen(update, parameters.get("filters"))]
    result = {"found": [listed(update) for update in wanted], "results": [], "rebootRequired": False, "hresult": 0}
    if parameters.get("action") == "search":
        return {"ok": True, "result": result}
    if windows.state().get("pending"):
        return {"ok": False, "message": "another installation or a restart is pending", "hresult": signed(NOT_ALLOWED), "step": "install"}
    if not wanted:
        return {"ok": True, "result": result}
    state = windows.state()
    good = []
    for update in wanted:
        code = update.get("code", SUCCEEDED)
        result["results"].append({"id": update["id"], "kbs": [update["kb"]], "title": update["title"], "code": code,
                                  "hresult": signed(int(str(update.get("hresult", 0)), 0))})
        print(f"{update['kb']} {update['title']}: result {code}", flush=True)
        if code in (SUCCEEDED, 3):
            good.append(update)
            windows.append(windows.ROOT + "/Windows/Logs/CBS/CBS.log",
                           f"2026-11-26 01:00:00, Info                  CBS    Package: {package(update)} is to be installed\r\n")
        else:
            windows.append(windows.ROOT + "/Windows/Logs/CBS/CBS.log",
                           "2026-11-26 01:00:00, Error                 CBS    Failed to install "
                           f"{package(update)} [HRESULT = 0x{int(str(update.get('hresult', 0)), 0):08x}]\r\n")
    windows.append(windows.ROOT + "/Windows/SoftwareDistribution/ReportingEvents.log",
                   "".join(f"{{{update['id']}}}\t{update['title']}\r\n" for update in wanted))
    if good:
        with windows.Registry(write=True) as machine:
            machine.add_key(windows.SERVICING + "\\RebootPending")
            machine.add_key(windows.UPDATE_REBOOT)
            for update in good:
                key = f"{windows.SERVICING}\\Packages\\{package(update)}"
                machine.set(key, "CurrentState", registry.DWORD, INSTALL_PENDING)
                machine.set(key, "InstallName", registry.SZ, package(update) + ".mum")
        state["pending"] = [update["id"] for update in good]
        windows.save_state(state)
        result["rebootRequired"] = True
    else:
        result["hresult"] = signed(ALL_FAILED)
    return {"ok": True, "result": result}


def after_boot(machine):
    """What a restart does to pending updates. A round is over when all of it is installed."""
    state = windows.state()
    pending = state.get("pending")
    if not pending:
        return
    number = state.get("round", 0)
    updates = rounds()[number] if number < len(rounds()) else []
    for update in updates:
        if update["id"] in pending:
            key = f"{windows.SERVICING}\\Packages\\{package(update)}"
            machine.set(key, "CurrentState", registry.DWORD, INSTALLED)
            machine.set(key, "InstallTimeHigh", registry.DWORD, 0x01DB4E3C)
            machine.set(key, "InstallTimeLow", registry.DWORD, 0x12345678)
            if update.get("ubr"):
                machine.set(windows.VERSION, "UBR", registry.DWORD, update["ubr"])
                machine.set("HKLM\\SYSTEM\\CurrentControlSet\\Control\\Windows", "CSDBuildNumber", registry.DWORD, update["ubr"])
    machine.delete_key(windows.SERVICING + "\\RebootPending")
    machine.delete_key(windows.UPDATE_REBOOT)
    if all(update["id"] in pending for update in updates):
        state["round"] = number + 1
    state["restarts"] = state.get("restarts", 0) + 1
    del state["pending"]
    windows.save_state(state)


def installed(machine):
    """Numbers of the updates that are installed."""
    names = machine.keys(windows.SERVICING + "\\Packages")
    found = [re.match(r"Package_for_(KB\d+)~", name) for name in names]
    return sorted(match.group(1) for match in found if match and machine.get(
        f"{windows.SERVICING}\\Packages\\{match.string}", "CurrentState") == INSTALLED)


def servicing():
    """Whether TiWorker runs: after a restart that installed something it may never end."""
    never_ends = windows.scenario().get("updates", {}).get("servicing-never-ends", False)
    return bool(never_ends and windows.state().get("restarts"))
