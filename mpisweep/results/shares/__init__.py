"""Several allocations on one sweep.

:mod:`~.folder` holds their shared files; :mod:`~.leases` the rules by which one of them owns a trial;
:mod:`~.membership` which of them are alive; :mod:`~.merging` merges their parts into one sweep;
:mod:`~.lease_agent` is the process that does all this for a master.
"""
