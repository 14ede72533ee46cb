"""The master: opens the sweep, asks the scheduler, sends, records and closes."""
