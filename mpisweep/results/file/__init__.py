"""The HDF5 file: nothing outside this package imports h5py.

:mod:`~.reading` reads an intact file or refuses it, :mod:`~.salvage` reads the intact parts of a damaged one;
:mod:`~.writing` writes a new file, which :mod:`~.image` holds until it is on the disk; :mod:`~.stored` reads
curves in ranges.  :mod:`mpisweep.results.columns` lists the contents.
"""
