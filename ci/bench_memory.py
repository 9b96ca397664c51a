"""The state of memory before a measurement. For the benchmarks."""

import subprocess
from pathlib import Path


def fill(folder):
    """Fills free memory with a file's cache, as it usually is. A virtual machine gives free memory back to its host, and
    gets it again page by page, at several times the cost of writing to a file."""
    filler = Path(folder) / "filler"
    filler.unlink(missing_ok=True)
    with open(filler, "wb") as file:
        file.truncate(1 << 40)
    free = next(line for line in open("/proc/meminfo") if line.startswith("MemFree:"))
    count = max(0, int(free.split()[1]) // 1024 - 256)
    subprocess.run(["dd", f"if={filler}", "of=/dev/null", "bs=1M", f"count={count}", "status=none"], check=True)
