"""The rules of the scheduler: functions over ``Core``, one subject per file.

A rule has no state of its own.  ``on_<event>(core, ...)`` handles one event and returns decisions; the other
functions are steps that follow every event, or that several rules share.  A file imports only files above it
in the table.

==============  ==========================================================================
stops           stopping on request, by a rule, or when the first trials all fail with the same error
retries         trials that wait again, and trials without a retry left
reclaiming      reclaiming trials that would begin too late, or that an idle slot could run
assigning       whether a slot may get a trial, and the assignment
keeping         starting trials of several ranks, and keeping slots for the next one
handout         which trial goes to which slot next
leases          grants, revocations, and requests for more trials
learning        durations and new trials, learned from results
pruning         trials that a pruner finds hopeless
withholding     trials that may need too much memory, and trials that ran out of it
blame           quarantine of devices that cause failures
several_ranks   the end of a trial of several ranks
ends            trials that ended, or that a slot returned
losses          lost workers and broken slots
workers         workers that join, and the trials that they hold
requests        what users ask of a sweep: retries, skipped trials, trials that run first, more trials
==============  ==========================================================================
"""
