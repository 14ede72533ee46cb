"""What the benchmarks of searches share: recorded tables, sweeps in virtual time, statistics, figures."""
