"""One MPI rank: its worker, MPI itself, and who is master when ranks die."""
