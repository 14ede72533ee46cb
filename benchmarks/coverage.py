"""How often the stated 95% intervals, sets, bands and regions hold the truth, in simulated sweeps.

Prints the tables of docs/statistics.md in Markdown::

    python benchmarks/coverage.py --sweeps 1000 | tee coverage.md

Sets: all configurations are equally good, the hardest case; a sweep's contribution is the share of
configurations in the set, because each of them is as much the best as any other.  All runs of a sweep with
the same repeat share an effect twice as large as the noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpisweep.statistics.best_set import best_set
from mpisweep.statistics.means import means_of
from mpisweep.statistics.trend import trend_of

Floats = NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, int]], Floats]


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.standard_normal(shape)


def _heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.standard_t(3, shape)


def _lognormal(sigma: float) -> Noise:
    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        return (np.exp(sigma * rng.standard_normal(shape)) - np.exp(sigma**2 / 2)) / sigma

    return draw


def _different(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Normal; the standard deviation of each configuration is drawn from a range of a factor of ten."""
    size = np.exp(rng.uniform(0, np.log(10), (shape[0], 1)))
    return size * rng.standard_normal(shape)


#: Name -> noise of shape (configurations, repeats), with mean 0.
NOISES: dict[str, Noise] = {
    "normal": _normal,
    "Student's t, 3 degrees of freedom": _heavy,
    "lognormal, sigma 0.25": _lognormal(0.25),
    "lognormal, sigma 0.5": _lognormal(0.5),
    "lognormal, sigma 1": _lognormal(1.0),
    "normal, variances differ": _different,
}

#: Name -> a curve over the axis from 0 to 1, smaller is better.
CURVES: dict[str, Callable[[Floats], Floats]] = {
    "valley": lambda t: 4 * (t - 0.4) ** 2,
    "steep, then rising": lambda t: np.exp(-6 * t) + 0.8 * t,
    "plateau": lambda t: 8 * np.maximum(0, np.abs(t - 0.5) - 0.2) ** 2 + 0.002 * (t - 0.5) ** 2,
    "best at the end": lambda t: 1.5 * (1 - t),
}


class Measured(NamedTuple):
    """A coverage and its standard error."""

    share: float
    error: float

    def __str__(self) -> str:
        return f"{100 * self.share:.1f}"


def _measured(shares: list[float]) -> Measured:
    return Measured(float(np.mean(shares)), float(np.std(shares, ddof=1)) / len(shares) ** 0.5)


def of_sets(
    noise: Noise, configurations: int, repeats: int, sweeps: int, *, missing: float = 0.0, common: float = 2.0
) -> Measured:
    """Share of sweeps in which the best configuration is in the set; `missing` of the runs have no value."""
    rng = np.random.default_rng([configurations, repeats])
    shares = []
    for _ in range(sweeps):
        values = noise(rng, (configurations, repeats)) + common * rng.standard_normal(repeats)
        values[rng.random(values.shape) < missing] = np.nan
        found = best_set(values)
        assert found is not None
        shares.append(float(found.is_in[np.isfinite(found.mean)].mean()))
    return _measured(shares)


def of_means(noise: Noise, repeats: int, sweeps: int) -> Measured:
    """Share of configurations whose interval holds the mean."""
    rng = np.random.default_rng(repeats)
    found = means_of(noise(rng, (sweeps, repeats)))
    return _measured(list(((found.low <= 0) & (found.high >= 0)).astype(float)))


class Trended(NamedTuple):
    """Coverage of the band, point by point, and of the best region; the region's share of the axis."""

    band: Measured
    region: Measured
    width: float


def of_trends(curve: Callable[[Floats], Floats], noise: str, runs: int, sweeps: int) -> Trended:
    """Coverage of trends through single runs whose noise is a tenth of the curve's range or so."""
    rng = np.random.default_rng(runs)
    t = np.linspace(0, 1, runs)
    truth = curve(t)
    best = int(np.argmin(truth))
    bands, regions, widths = [], [], []
    for _ in range(sweeps):
        if noise == "normal, variances differ":
            drawn = rng.standard_normal(runs) * np.exp(0.8 * (1 - 2 * t))
        else:
            drawn = NOISES[noise](rng, (runs, 1))[:, 0]
        found = trend_of(t, truth + 0.15 * drawn)
        assert found is not None
        bands.append(float(((found.low <= truth) & (truth <= found.high)).mean()))
        regions.append(float(found.in_best_region[best]))
        widths.append(float(found.in_best_region.mean()))
    return Trended(_measured(bands), _measured(regions), float(np.mean(widths)))


# ------------------------------------------------------------------------------------- tables

_REPEATS = (2, 3, 5, 10)


def _rows(sweeps: int) -> Iterator[str]:
    repeats = " | ".join(map(str, _REPEATS))
    yield f"| intervals of means, noise | {repeats} repeats |"
    yield "|---" + "|---:" * len(_REPEATS) + "|"
    for name, noise in NOISES.items():
        yield f"| {name} | " + " | ".join(str(of_means(noise, n, 200 * sweeps)) for n in _REPEATS) + " |"
    yield ""
    yield f"| sets, noise | configurations | {repeats} repeats |"
    yield "|---|---:" + "|---:" * len(_REPEATS) + "|"
    for name, noise in NOISES.items():
        for count in (2, 3, 5, 20, 100, 700):
            # A sweep of many configurations says more.
            used = max(100, sweeps * 20 // max(count, 20)) if count > 5 else 4 * sweeps
            cells = " | ".join(str(of_sets(noise, count, n, used)) for n in _REPEATS)
            yield f"| {name} | {count} | {cells} |"
    yield ""
    yield "| trends, curve | noise | runs | band | best region | its share of the axis |"
    yield "|---|---|---:|---:|---:|---:|"
    for curve, shape in CURVES.items():
        for noise in ("normal", "Student's t, 3 degrees of freedom", "normal, variances differ"):
            for runs in (22, 60, 200):
                found = of_trends(shape, noise, runs, max(sweeps // 5, 50))
                yield (
                    f"| {curve} | {noise} | {runs} | {found.band} | {found.region} | "
                    f"{100 * found.width:.0f}% |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweeps", type=int, default=1000, help="simulated per cell, or so")
    for row in _rows(parser.parse_args().sweeps):
        print(row, flush=True)


if __name__ == "__main__":
    main()
