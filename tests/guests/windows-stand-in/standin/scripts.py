"""Scripts of users, as far as the stand-in understands them: a few lines of PowerShell and of cmd, each by itself.

A line it does not know ends the script as an unknown command does. `# stand-in: restart-pending` makes the machine want a restart.
"""

import os
import re
import time

from . import windows


class Ended(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


def local(path):
    return windows.ROOT + "/" + re.sub(r"^[A-Za-z]:", "", path.strip("'\"")).replace("\\", "/").lstrip("/")


def play(text, kind, environment, arguments):
    """The exit code."""
    try:
        for line in text.splitlines():
            play_line(line.strip().lstrip("\ufeff"), kind, environment, arguments)
    except Ended as ended:
        return ended.code
    return 0


def expand(text, environment, arguments):
    text = text.strip()
    if text[:1] == text[-1:] == "'":
        return text[1:-1]
    text = text.strip('"')
    text = re.sub(r"\$env:(\w+)|%(\w+)%", lambda name: environment.get(name.group(1) or name.group(2), ""), text)
    return re.sub(r"\$args\[(\d+)\]", lambda number: (arguments + [""] * 10)[int(number.group(1))], text)


def play_line(line, kind, environment, arguments):
    words = line.split(None, 1)
    rest = words[1] if len(words) > 1 else ""
    first = words[0].lower() if words else ""
    if line == "# stand-in: restart-pending":
        with windows.Registry(write=True) as machine:
            machine.add_key(windows.SERVICING + "\\RebootPending")
    elif not first or first.startswith(("#", "rem", "::", "@echo", "chcp", "$errorac", "$progress")) or line.startswith("if errorlevel"):
        pass
    elif first in ("write-output", "write-host", "echo"):
        print(expand(rest, environment, arguments), flush=True)
    elif first == "exit":
        raise Ended(int(rest.replace("/b", "").strip() or 0))
    elif first == "throw":
        print(expand(rest, environment, arguments), flush=True)
        raise Ended(1)
    elif first == "start-sleep":
        time.sleep(float(re.sub(r"-\w+", "", rest)))
    elif first == "set-content":
        found = re.fullmatch(r"(?:-Path\s+)?(\S+)\s+(?:-Value\s+)?(.+)", rest, re.IGNORECASE)
        path = local(found.group(1))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(expand(found.group(2), environment, arguments) + "\r\n")
    else:
        what = "the name of a cmdlet" if kind == "powershell" else "an internal or external command"
        print(f"'{words[0]}' is not recognized as {what} (the stand-in knows few)", flush=True)
        raise Ended(1)
