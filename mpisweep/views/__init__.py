"""What people and other programs look at: tables, figures, pages, exports.  It imports nothing of a run."""
