"""Several allocations on one sweep: the folder that they share, who of them lives, and who runs what."""
