"""`python3 -m standin pe`: installs. `python3 -m standin windows`: is what was installed."""

import sys

if sys.argv[1] == "pe":
    from . import pe as role
else:
    from . import boot as role

role.main()
