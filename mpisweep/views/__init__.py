"""Views of a sweep's results: tables, figures, HTML pages, exports.

The package imports nothing from a run.
"""
