"""The decisions of a sweep: which slot runs which trial when, and what follows from its end.

Pure: events and times come in as arguments, and decisions go out.  This package uses no MPI, no file and no
clock, so the master, the tests and a simulation of ten thousand workers drive the same code.

==============  ==========================================================================
scheduler       :meth:`~mpisweep.scheduling.scheduler.Scheduler.handle`: which rule, which steps, and the end
events          the input of the scheduler
decisions       its output
core            its data and their invariants
rules/          functions over the core, one subject per file
ended           ends of trials that the scheduler writes itself
queues          the trials that wait, in the order in which they are handed out
durations       expected durations of trials
regression      how durations depend on parameters
trials, slots   the state of each trial and of each slot, written in one place
timetable       when each slot finishes the trials that it holds
room            where a trial of several ranks can start, and which slots are kept for one
teams           trials of several ranks: when one is over
memory          trials that are withheld until the memory frontier is known
health          faulty devices, lost workers, and an error that all trials share
leasing         the trials of a shared sweep that this run may start
forecast        how long a sweep will take, for ``mpisweep check``
refusals        which trials a user's request does not apply to, in words
ranking         items ordered by a number that changes
==============  ==========================================================================
"""
