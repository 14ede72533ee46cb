"""Rank 0, or whoever took over: opening the sweep, deciding with the scheduler, sending, recording, closing."""
