"""The code that runs trials; it runs in trial processes only, never in an MPI process."""
