"""What follows from what happens: functions over the scheduler's data, one subject a file."""
