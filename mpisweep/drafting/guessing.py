"""Ranges for parameters, guessed from their names, types and defaults."""

from __future__ import annotations

import re
from typing import NamedTuple

from mpisweep.drafting.flags import Flag
from mpisweep.records import Value
from mpisweep.spec.units import toml_value

__all__ = ["Domain", "domain_of", "is_setting", "is_usual", "objective_of"]


class Domain(NamedTuple):
    """The domain of a parameter as TOML, and why it was chosen."""

    text: str
    why: str


class _Usual(NamedTuple):
    low: float
    high: float
    is_log: bool
    is_integer: bool
    most: float | None = None


#: Names of parameters that are often searched, and their usual ranges.
_USUAL = (
    (r"lr|learning_?rate|step_?size|eta", _Usual(1e-4, 1e-1, True, False)),
    (r".*batch_?size.*|bs|.*_batch", _Usual(16, 512, True, True)),
    (r"weight_?decay|wd|l2|alpha|reg.*|lambda_?|lam", _Usual(1e-6, 1e-2, True, False)),
    (r".*dropout.*|p_?drop|label_?smoothing", _Usual(0.0, 0.5, False, False, 1.0)),
    (r"momentum|beta_?[12]|gamma", _Usual(0.8, 0.99, False, False, 1.0)),
    (r"width|.*hidden.*|units|dim|d_model|channels|n_?embd", _Usual(16, 512, True, True)),
    (r"depth|n?_?(?:num_)?layers?|blocks|n_?heads?|heads", _Usual(1, 8, False, True)),
    (r"temp(?:erature)?|tau|sigma|noise", _Usual(0.1, 10.0, True, False)),
    (r"dt|dx|tol(?:erance)?|eps(?:ilon)?", _Usual(1e-4, 1e-1, True, False)),
    (r"opt(?:im(?:izer)?)?|activation|act|model|arch|method|solver|scheduler", _Usual(0, 0, False, False)),
)
#: Names of settings of a program, which are no parameters of an experiment.
_SETTING = re.compile(
    r".*(?:epoch|seed|worker|thread|log|print|save|load|port|rank|device|gpu|cuda|verbos|resume|world|node|"
    r"interval|freq|debug|path|dir|file|out|url|host|checkpoint|ckpt|project|data(?!_aug)|classes|every|"
    r"max_|iter|steps?$|num_samples|trials|time|proc|core|cpu|version|id$).*",
    re.IGNORECASE,
)


def is_setting(flag: Flag) -> bool:
    """Whether an option controls the program rather than the experiment."""
    return _SETTING.fullmatch(flag.name) is not None and not is_usual(flag)


def is_usual(flag: Flag) -> bool:
    """Whether parameters of this name are often searched."""
    return _usual(flag.name) is not None


def _usual(name: str) -> _Usual | None:
    return next((usual for pattern, usual in _USUAL if re.fullmatch(pattern, name, re.IGNORECASE)), None)


def domain_of(flag: Flag) -> Domain | None:
    """Guess the domain of a parameter; None if there is nothing to go by.

    The range of a number reaches around its default; without one, it is usual for the name.
    """
    if flag.choices:
        return Domain(f"[{', '.join(map(toml_value, flag.choices))}]", "the choices of the option")
    if flag.kind in ("switch", "text") or isinstance(flag.default, str):
        return None
    usual = _usual(flag.name)
    default = None if flag.default is None else float(flag.default)
    is_integer = flag.kind == "integer" or (
        default is None and flag.kind == "number" and not flag.flag and usual is not None and usual.is_integer
    )
    if default is None:
        if usual is None or usual.high == 0:
            low, high, is_log, why = 1.0, 10.0, False, "a placeholder: nothing says which values make sense"
        else:
            low, high, is_log, why = (
                usual.low,
                usual.high,
                usual.is_log,
                "usual for this name; no default found",
            )
    else:
        low, high, is_log = _around(default, usual, is_integer=is_integer)
        why = f"around the default, {toml_value(flag.default) if flag.default is not None else ''}"
    low = low if flag.low is None else max(low, flag.low)
    high = high if flag.high is None else min(high, flag.high)
    return Domain(_range(low, high, is_log=is_log and low > 0, is_integer=is_integer), why)


def _around(default: float, usual: _Usual | None, *, is_integer: bool) -> tuple[float, float, bool]:
    if usual is not None and usual.most is not None and 0 <= default <= usual.most:
        return min(usual.low, default), max(usual.high, default), False
    if default == 0:
        is_known = usual is not None and usual.high > 0
        return (0.0, usual.high, False) if is_known and usual else (0.0, 10.0 if is_integer else 1.0, False)
    if default < 0:
        return 4 * default, default / 4, False
    if is_integer:
        return max(1.0, default // 4), 4 * default, default >= 8
    return default / 10, default * 10, True


def _range(low: float, high: float, *, is_log: bool, is_integer: bool) -> str:
    if is_integer:
        low, high = int(low), int(high)
    # A range has two ends.
    high = high if high > low else low + 1
    ends: list[Value] = [low, high] if is_integer else [float(f"{low:.6g}"), float(f"{high:.6g}")]
    scale = ', scale = "log"' if is_log else ""
    return f"{{ from = {toml_value(ends[0])}, to = {toml_value(ends[1])}{scale} }}"


def objective_of(metrics: list[str]) -> tuple[str, str]:
    """Choose the metric to rank trials by, and the direction; empty if there is none."""
    for pattern, direction in (
        (r"(?:val|valid|validation|test|eval).*loss", "minimize"),
        (r".*loss|.*error|.*mse|.*mae|.*residual.*|.*perplexity|ppl|cost", "minimize"),
        (r"(?:val|valid|validation|test|eval).*acc.*", "maximize"),
        (r".*acc.*|.*score|f1|auc|.*reward|bleu|iou|psnr|ssim", "maximize"),
        (r".*time.*", "minimize"),
        (r".*throughput|.*flops|.*per_s(?:ec(?:ond)?)?", "maximize"),
    ):
        for name in metrics:
            if re.fullmatch(pattern, name):
                return name, direction
    return (metrics[0], "minimize") if metrics else ("", "")
