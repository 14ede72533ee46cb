"""Sweeps from Python: ``mpisweep.run`` and ``mpisweep.submit``, in scripts and notebooks.

Both start the command of the same name in a process of its own, so that a notebook, a script and a shell get
the same sweep.
"""
