"""Devices of a node, and their assignment to ranks."""
