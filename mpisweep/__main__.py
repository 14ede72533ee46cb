"""``python -m mpisweep``."""

import sys

from mpisweep.cli import main

sys.exit(main())
