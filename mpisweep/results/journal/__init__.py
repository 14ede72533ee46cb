"""The journal: what the HDF5 file does not have yet."""
