"""The HTML report of a sweep: one self-contained page."""

from __future__ import annotations

from mpisweep.views.report.following import follow, write_whole
from mpisweep.views.report.page import Written, page

__all__ = ["Written", "follow", "page", "write_whole"]
