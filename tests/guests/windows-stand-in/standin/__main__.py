"""`python3 -m standin pe`: installs. `python3 -m standin windows`: is what was installed."""

import sys

from . import boot, pe

{"pe": pe.main, "windows": boot.main}[sys.argv[1]]()
