"""Batch systems, sites, job scripts, and starting ranks."""
