"""Draft a sweep file for a script, a function or a program, for ``mpisweep init``.

Everything is a guess from the text: nothing of the user's is imported.  A program is started with ``--help``
in an empty folder, and a script only if it uses a library that is known to answer that.
"""

from __future__ import annotations

from mpisweep.drafting.looking import DraftError, Subject, look_at
from mpisweep.drafting.writing import draft_text

__all__ = ["DraftError", "Subject", "draft_text", "look_at"]
