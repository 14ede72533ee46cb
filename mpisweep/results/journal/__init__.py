"""The journal: records that the HDF5 file lacks, safe against a kill at any instant.

A folder beside the file holds *segments*, each created exclusively by its only writer.  :mod:`~.segments`
defines their names and frames, :mod:`~.writer` is the thread that writes one, :mod:`~.reader` reads them,
damaged or not.
"""
