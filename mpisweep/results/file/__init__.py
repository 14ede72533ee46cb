"""The HDF5 file: nothing outside this package imports h5py.

:mod:`~.reading` takes it whole and sound or not at all, :mod:`~.salvage` what is left of a damaged one;
:mod:`~.writing` makes a new one, which :mod:`~.image` holds until it is on the disk; :mod:`~.stored` reads
curves a stretch at a time.  What it holds is in :mod:`mpisweep.results.columns`.
"""
