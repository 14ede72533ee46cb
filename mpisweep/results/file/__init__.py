"""The HDF5 file.  Nothing outside this package imports h5py."""
