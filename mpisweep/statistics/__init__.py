"""Statistics of repeats and of single runs; pure, arrays in and records out.

``means`` has the mean of each configuration with its interval, ``best_set`` those that cannot be told apart
from the best, and ``trend`` a smooth curve through single runs over an ordered parameter.  Every stated
coverage is measured by simulation in ``tests/test_statistics.py`` and listed in ``docs/statistics.md``.

SciPy loads ``scipy.special`` when it is first used, so what needs no distribution does not wait for it.
"""
