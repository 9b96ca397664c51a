"""Scripts of users, as far as the stand-in understands them: a few lines of PowerShell and of cmd, each by itself.

A line it does not know ends the script as an unknown command does. `# stand-in: restart-pending` makes the machine want a restart.
"""

import os
import re
import sys
import time

from . import windows

CLIXML = ("#< CLIXML\r\n<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\"><S S=\"Error\">{text}_x000D__x000A_"
          "</S></Objs>")


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
    elif not first or first.startswith(("#", "rem", "::", "@echo", "$errorac", "$progress")):
        pass
    elif first in ("write-output", "write-host", "echo"):
        print(expand(rest, environment, arguments), flush=True)
    elif first == "exit":
        raise Ended(int(rest.replace("/b", "").strip() or 0))
    elif first == "throw":
        sys.stderr.write(CLIXML.format(text=expand(rest, environment, arguments)))
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
        text = f"{words[0]} : The term '{words[0]}' is not recognized as the name of a cmdlet (the stand-in knows few)"
        sys.stderr.write(CLIXML.format(text=text) if kind == "powershell" else text)
        raise Ended(1)
