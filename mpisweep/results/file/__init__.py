"""The HDF5 file: its reading and writing, what is saved of a damaged one.  Nothing else imports h5py."""
