"""A command line of an SSH session: what cmd.exe would start."""

import os
import re
import shlex
import sys

from . import verbs, windows

ACTION = re.compile(r"C:\\ProgramData\\gilt\\run\\([0-9A-Za-z-]+)\\([a-z]+)\.ps1", re.IGNORECASE)
OPTIONS = ["-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-OutputFormat", "Text", "-File"]


def run(line):
    words = shlex.split(line.replace("\\", "\\\\"), posix=True)
    program = words[0].lower().removesuffix(".exe") if words else ""
    if program == "powershell":
        if [word.lower() for word in words[1:-1]] == [word.lower() for word in OPTIONS]:
            found = ACTION.fullmatch(words[-1])
            if found:
                folder = f"{windows.GILT}/run/{found.group(1)}"
                if not os.path.exists(f"{folder}/{found.group(2)}.ps1"):
                    sys.stderr.write(f"The argument '{words[-1]}' to the -File parameter does not exist.\r\n")
                    return -196608 & 0xFF
                return verbs.perform(found.group(2).lower(), folder)
        sys.stderr.write(f"the stand-in knows no such call of PowerShell: {line}\r\n")
        return 1
    if program == "shutdown":
        flags = [word.lower() for word in words[1:]]
        if "/r" in flags or "/s" in flags:
            windows.power("reboot" if "/r" in flags else "poweroff")
            return 0
    if program == "echo":
        print(" ".join(words[1:]))
        return 0
    if program == "ver":
        print("Microsoft Windows [Version 10.0.26100] (the stand-in; this is not Windows)")
        return 0
    if program == "exit":
        return int(words[1]) if len(words) > 1 else 0
    sys.stderr.write(f"'{words[0] if words else ''}' is not recognized as an internal or external command,\r\noperable program or batch "
                     "file.\r\n")
    return 1


def main():
    line = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.exit(run(line) if line else 0)


if __name__ == "__main__":
    main()
