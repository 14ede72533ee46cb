"""Run ``python -m mpisweep``."""

import sys

if not sys.flags.safe_path:
    # Python puts the working directory first, where a user's random.py would shadow the standard library.
    del sys.path[0]

from mpisweep.cli import main

sys.exit(main())
