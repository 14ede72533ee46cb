"""Several allocations on one sweep.

:mod:`~.folder` is what they share, as files; :mod:`~.leases` the rules by which one of them owns a trial;
:mod:`~.membership` who of them lives; :mod:`~.merging` one sweep out of all their parts; :mod:`~.lease_agent`
the process that does all this for a master.
"""
