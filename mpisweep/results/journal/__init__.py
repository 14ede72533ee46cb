"""The journal: what the HDF5 file does not have yet, safe against a kill at any instant.

A folder beside the file holds *segments*, each with one writer and created exclusively: :mod:`~.segments` has
their names and frames, :mod:`~.writer` the thread that writes one, :mod:`~.reader` what reads them again,
damaged or not.
"""
