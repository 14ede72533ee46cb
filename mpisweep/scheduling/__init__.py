"""Scheduling: who runs which trial when, and what follows from how it ends.

Pure: events and times are arguments, decisions are return values.  Nothing here knows MPI, files or a clock,
so the master, the tests and a simulation of ten thousand workers drive the same code.

==============  ==========================================================================
scheduler       :meth:`~mpisweep.scheduling.scheduler.Scheduler.handle`: which rule, which steps, and the end
events          what the scheduler is told
decisions       what it answers
core            its data, and what always holds of it
rules/          what follows from what: functions over the core, one subject per file
ended           ends of trials that the scheduler writes itself
queues          the trials that wait, in the order in which they are handed out
durations       how long a trial will take, as far as that is known
trials, slots   what is known of each trial and of each slot, written in one place
timetable       when each slot will have run what it holds
room            where a trial of several ranks can start, and what is kept for one
teams           trials of several ranks: when one is over
memory          what is withheld until the memory frontier is known
health          devices that are ill, workers that are lost, and the bug that all trials share
leasing         what this run may run of a sweep that several allocations share
forecast        how long a sweep will take, for ``mpisweep check``
ranking         things in the order of a number that changes
==============  ==========================================================================
"""
