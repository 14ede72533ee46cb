"""What a trial runs.  Everything here runs in trial processes only, never in an MPI process."""
