"""The rules of the scheduler: functions over :class:`~mpisweep.scheduling.core.Core`, one subject per file.

A rule has no state of its own.  ``on_<event>(core, ...)`` answers one event and returns decisions; the others
are steps that follow every event, or are shared by several rules.  A file uses only files above it in the
table.

==============  ==========================================================================
stops           stopping on request, or because the first trials all fail alike
retries         what waits again, and what has failed because no retry is left
reclaiming      taking back what would begin too late, or what an idle slot could run
assigning       what a slot may be given next, and giving it
keeping         starting trials of several ranks, and keeping slots for the next one
handout         which trial goes to which slot next
leases          what is granted, what others take over, and when to ask for more
learning        durations and new trials, from what has ended
withholding     what may need too much memory, and what ran out of it
blame           devices that are to blame for what failed on them: quarantine
several_ranks   the end of a trial of several ranks
ends            trials that have ended, or that were reclaimed from a slot
losses          lost workers and broken slots
workers         workers that join, and the trials that they bring
==============  ==========================================================================
"""
