"""The batch system around a sweep, and how ranks are started."""
