"""``python -m mpisweep``."""

import sys

if not sys.flags.safe_path:
    # Python has put the working directory before everything else; a file there that is called random.py is
    # the user's.
    del sys.path[0]

from mpisweep.cli import main

sys.exit(main())
