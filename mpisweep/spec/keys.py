"""The table of all keys of a sweep file.

The parser's checks and defaults (:mod:`~mpisweep.spec.sweepfile`), its messages, the reference in
``docs/sweep-file.md`` and the JSON schema for editors (:mod:`~mpisweep.spec.schema`) come from this table.  A
new key is one row here, and a line that uses its value.
"""

from __future__ import annotations

from mpisweep.plugins import BUILT_IN, SEARCHES
from mpisweep.records import Direction
from mpisweep.spec.key import AUTO, DEVICES_AT_MOST, INTEGER_AT_MOST, NAME, Key, closest, nearest, one_of

__all__ = [
    "ADAPTIVE", "ADDING", "AUTO", "DEVICES_AT_MOST", "FUNCTION", "GENERATIONAL", "IDENTIFIER",
    "INTEGER_AT_MOST", "KEYS", "LEARNING", "MEMORY_WORDS", "NAME", "OPTUNA", "POINTS_AT_MOST", "PRUNER_NAMES",
    "RANKS", "RANKS_AT_MOST", "REPEATS_AT_MOST", "SEARCH_NAMES", "TEXT_CHARS", "USUAL_OBJECTIVE", "Key",
    "closest", "key_of", "keys_of", "names_of", "nearest", "one_of", "right_place", "unknown_key",
]  # fmt: skip

#: The parameter that sets the ranks per trial; every workload has it.
RANKS = "ranks_per_trial"
RANKS_AT_MOST = 4096
#: The default objective.
USUAL_OBJECTIVE = "loss"
#: More grid points of real numbers than this are a typo.
POINTS_AT_MOST = 1_000_000
#: Upper bound of the repeats of a configuration.
REPEATS_AT_MOST = 1000
#: Upper bound of a string, because the record of each trial contains it.
TEXT_CHARS = 1 << 16
#: How a trial's memory can depend on a parameter.
MEMORY_WORDS = ("increasing", "decreasing")
#: The search that a table describes: a sampler of Optuna and its options.
OPTUNA = "optuna"
#: The built-in searches.
SEARCH_NAMES = tuple(BUILT_IN[SEARCHES])

#: The searches that add trials as results come in, and end by themselves.
ADDING = ("largest_batch", "batch_size")
#: The searches that propose while the sweep runs; with the former, all that choose by earlier results.
LEARNING = ("tpe", "gp", "cmaes", "nsga2", OPTUNA)
ADAPTIVE = (*ADDING, *LEARNING)
#: Searches and samplers that see no trials but those of their own generations.
GENERATIONAL = ("nsga2", "NSGAIISampler", "NSGAIIISampler")
#: Pruners with options that suit many sweeps; see :mod:`mpisweep.search.pruning`.
PRUNER_NAMES = ("median", "percentile", "asha", "hyperband", "patient", "threshold")

#: Patterns: a parameter is an identifier, a function ``module:function``.
IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]*"
FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*"

_DIRECTIONS = tuple(direction.value for direction in Direction)

KEYS: tuple[Key, ...] = (
    Key("", "name", "name", "sweep",
        "name of the sweep; its results file is `NAME.h5` unless `-o` sets another"),
    Key("", "workload", "workload", None,
        "what a trial runs: a built-in workload, a function `module:function`, or "
        "`{ command = \"...\" }`", is_required=True),
    Key("", "objective", "texts", USUAL_OBJECTIVE,
        "the metric by which trials are ranked, or a list of metrics to trade off against each other",
        usual="`loss`; `images_per_second` with `search = \"largest_batch\"` if the workload reports it"),
    Key("", "direction", "choices", "minimize",
        "whether smaller or larger objectives are better; with several, one word for all, or a list",
        values=_DIRECTIONS, usual="`minimize`; `maximize` with `search = \"largest_batch\"`"),
    Key("", "search", "choice", "grid",
        "which configurations are tried, and in which order; or a sampler of Optuna with its options: "
        "`{ sampler = \"TPESampler\", multivariate = true }`",
        values=tuple(name for name in SEARCH_NAMES if name != OPTUNA),
        usual="`grid`; `points` with a list of points; "
              "`tpe` for a function without `[parameters]` if `trials` is set"),
    Key("", "prune", "choice", None,
        "which trials end early because their curve is hopeless; or a pruner of Optuna with its options: "
        "`{ pruner = \"PatientPruner\", wrapped_pruner = \"median\" }`; see [pruning](pruning.md)",
        values=PRUNER_NAMES, usual="none: every trial runs to its end"),
    Key("", "trials", "integer", None,
        "number of configurations to sample, at most with `batch_size`; may grow when the sweep is resumed; "
        "not for `grid` and `largest_batch`", low=1,
        usual="none; required by searches that sample; with `batch_size` 5% of the grid, at least 20"),
    Key("", "repeats", "repeats", 1,
        "how often every configuration is run, each time with another seed; or `{ from = 2, to = 10 }`: "
        "more often while it may be the best; may grow when the sweep is resumed",
        low=1, high=REPEATS_AT_MOST),
    Key("", "seed", "integer", 0, "seed of the search, and of the seeds of the repeats", low=0),
    Key("", "order", "choice", "longest",
        "which trials run first: those that are expected to take longest, or with `spread` an order in which "
        "those that have run cover the space evenly at any time", values=("longest", "spread")),
    Key("", "where", "conditions", None, "constraints that every configuration satisfies, e.g. "
        "`\"batch_size * ranks_per_trial <= 4096\"`", usual="no constraint"),
    Key("", "zip", "groups", None, "groups of parameters that vary together, value by value, e.g. "
        "`[[\"batch_size\", \"learning_rate\"]]`", usual="every combination of all parameters"),
    Key("", "points", "points", None,
        "the configurations to run, in place of `[parameters]`: a list of tables, a table of lists, or the "
        "name of a CSV file", usual="none"),
    Key("", "max_points", "integer", 1_000_000,
        "size of the largest grid allowed; a larger one is rejected before anything runs",
        low=1, unit="points"),
    Key("", "devices_per_trial", "devices", 1,
        "GPUs per trial; with a share such as `0.5`, two trials run on each GPU at a time; with `\"auto\"`, "
        "as many as fit and gain by what is measured, see [sharing GPUs](workloads.md#sharing-gpus)",
        unit="GPU"),
    Key("", RANKS, "integer", None,
        "MPI ranks per trial; can also be searched, under `[parameters]`",
        low=1, high=RANKS_AT_MOST, usual="`1`, in one process without a rendezvous"),
    Key("", "fresh_process", "flag", False, "start every trial in a new process"),
    Key("", "stage_data", "text", None,
        "a folder or tar file that is read once and copied to every node before the first trial, see "
        "[staging](staging.md); trials use the copy", usual="none"),
    Key("", "parameters", "table", None, "the search space: a range or a list of choices per parameter"),
    Key("", "fixed", "table", None, "parameters with the same value in every trial"),
    Key("", "baseline", "table", None,
        "the configuration to compare the others with; it also runs as a trial", usual="no baseline"),
    Key("", "metrics", "table", None,
        "for a command line: one regular expression per metric, searched in the program's output"),
    Key("", "import", "imports", None,
        "trials known from elsewhere, which a search that learns is told first: a results file, a CSV file, "
        "an Optuna storage or journal file, or a list of them; where a storage has several studies, "
        "`{ from = \"sqlite:///old.db\", study = \"NAME\" }`", usual="none"),
    Key("", "after", "after", None,
        "results file of an earlier sweep, whose best configuration `{best.NAME}` stands for in "
        "`[parameters]`, `[fixed]` and `[baseline]`; see [coarse, then fine](searches.md#coarse-then-fine)",
        usual="none"),
    Key("", "limits", "table", None, "time, memory and failures that are tolerated"),
    Key("", "stop", "table", None, "when the search has found enough, or has used enough"),
    Key("", "hooks", "table", None,
        "programs that the launcher starts before the sweep, after trials and after the sweep; see "
        "[hooks](hooks.md)"),

    Key("limits", "timeout", "duration", None,
        "kill a trial that runs longer; it fails with the cause `timeout`", usual="no limit"),
    Key("limits", "stall", "duration", None,
        "kill a trial that reports nothing for this long; it fails with the cause `timeout`",
        usual="no limit"),
    Key("limits", "retries", "integer", 2, "how often a trial is retried after losing its worker", low=0),
    Key("limits", "grace", "duration", "10s",
        "time that running trials get to save and return when the sweep stops"),
    Key("limits", "silence", "duration", "30s",
        "a rank without a heartbeat for this long counts as lost, and its trials run elsewhere"),
    Key("limits", "disk", "duration", "10m",
        "how long writing the journal may fail, e.g. on a full disk, before the sweep stops"),
    Key("limits", "restarts", "integer", 20,
        "how often `mpisweep run` restarts the ranks after a loss that MPI did not survive", low=0),
    Key("limits", "same_failures", "integer", 20,
        "stop the sweep if this many first trials all fail in the same way; `0`: never",
        low=0, unit="trials"),
    Key("limits", "quarantine", "flag", True,
        "give no more trials to a device that fails, or is slow, while others are not"),
    Key("limits", "slow_devices", "choice", None,
        "what happens to a device that is far below its peers in the check before its first trial: `warn` "
        "names it, `exclude` also gives it no trials; `off`: no check",
        values=("warn", "exclude", "off"),
        usual="`warn`, for GPUs only, and without a matrix product if the workload does not import torch"),
    Key("limits", "diverged", "choice", "ignore",
        "what happens to a trial that reports an objective that is NaN or infinite: `stop` ends it at once, "
        "as `pruned`", values=("ignore", "stop")),
    Key("limits", "memory", "size", None,
        "main memory per trial process, and per program that it starts", usual="no limit"),

    Key("stop", "target", "number", None,
        "stop when a complete trial has this objective or a better one", usual="none"),
    Key("stop", "patience", "integer", None,
        "stop when this many trials have completed since the last one that improved the objective",
        low=1, unit="trials", usual="none"),
    Key("stop", "device_hours", "number", None,
        "stop when all runs of the sweep have used this many GPU-hours; core-hours without GPUs",
        low=0, unit="h", usual="none"),

    Key("hooks", "before_sweep", "command", None,
        "a program and its arguments, a string or a list of strings, run before ranks start; its standard "
        "input is the sweep as JSON", usual="none"),
    Key("hooks", "after_trial", "command", None,
        "the same, run after each trial that has run; its standard input is the trial as JSON", usual="none"),
    Key("hooks", "after_sweep", "command", None,
        "the same, run after each run of the sweep; its standard input is the sweep as JSON", usual="none"),
    Key("hooks", "timeout", "duration", "30s", "kill a hook that runs longer"),
    Key("hooks", "trials_per_call", "integer", 1,
        "most trials of one call of `after_trial`; above 1 its standard input has one line per trial",
        low=1, unit="trials"),
    Key("hooks", "backlog", "duration", "1m",
        "how long `after_trial` may go on after the last trial, for trials that wait for it"),

    Key("workload", "command", "command", None,
        "the program and its arguments, a string or a list of strings; `{name}` is replaced by a parameter, "
        "`{name:FORMAT}` formats it as Python does", is_required=True),
    Key("workload", "template", "template", None,
        "a file beside the sweep file in which `{{name}}` is replaced; `{template}` is the path of the "
        "result", usual="none"),
    Key("workload", "env", "variables", None,
        "environment variables of the program; values may contain placeholders", usual="none"),
    Key("workload", "directory", "choice", "sweep",
        "where the program runs: in the sweep file's folder, or in a folder per trial",
        values=("sweep", "trial")),

    Key("range", "from", "number", None, "the smallest value", is_required=True),
    Key("range", "to", "number", None, "the largest value", is_required=True),
    Key("range", "step", "number", None,
        "distance between neighbouring values, above 0; not on a log scale",
        usual="`1` for integers; none for real numbers"),
    Key("range", "scale", "choice", "linear",
        "`log`: equal ratios, not equal differences, are equally likely", values=("linear", "log")),
    Key("range", "points", "integer", None,
        "number of grid points on a log scale, or of real numbers; instead of `step`",
        low=1, high=POINTS_AT_MOST, usual="all integers; none for real numbers"),
    Key("range", "memory", "choice", None,
        "whether larger values need more memory or less; the sweep then finds the values that do not "
        "fit, and skips those beyond", values=MEMORY_WORDS, usual="nothing is assumed"),
    Key("range", "when", "text", None,
        "the parameter exists only in configurations for which this condition holds", usual="always"),
    Key("range", "else", "value", None,
        "its value in the other configurations", usual="none: it is absent from them"),

    Key("repeats", "from", "integer", 2, "how often every configuration is run", low=2, high=REPEATS_AT_MOST),
    Key("repeats", "to", "integer", None,
        "how often a configuration is run at most, if it is not clearly worse than the best before", low=3,
        high=REPEATS_AT_MOST, is_required=True),

    Key("list", "values", "values", None, "the choices; all numbers if `memory` is set", is_required=True),
    Key("list", "memory", "choice", None, "as in a range", values=MEMORY_WORDS, usual="nothing is assumed"),
    Key("list", "when", "text", None, "as in a range", usual="always"),
    Key("list", "else", "value", None, "as in a range", usual="none: it is absent"),
)  # fmt: skip

#: Table -> where its keys are written, for messages.
_PLACES = {
    "": "at the top of the file, before the first [table]",
    "limits": "in [limits]",
    "stop": "in [stop]",
    "hooks": "in [hooks]",
    "workload": "in workload = { ... }",
    "range": "in an entry of [parameters]",
    "list": "in an entry of [parameters]",
    "repeats": "in repeats = { ... }",
}
_BY_PATH = {(key.table, key.name): key for key in KEYS}


def key_of(name: str, table: str = "") -> Key:
    """Look up a key by name and table."""
    return _BY_PATH[table, name]


def keys_of(table: str) -> tuple[Key, ...]:
    """The keys of a table, in the order of the documentation."""
    return tuple(key for key in KEYS if key.table == table)


def names_of(table: str) -> tuple[str, ...]:
    """The names of a table's keys, in the order of the documentation."""
    return tuple(key.name for key in keys_of(table))


def right_place(name: str, table: str) -> str:
    """Where a key found in `table` belongs; empty if no other table has it."""
    places = (_PLACES[key.table] for key in KEYS if key.name == name and key.table != table)
    return " or ".join(dict.fromkeys(places))


def unknown_key(name: str, table: str) -> str:
    """Why `table` cannot have this key, as the end of a sentence."""
    place = right_place(name, table)
    return f"belongs {place}" if place else f"is not a known key; {nearest(name, names_of(table))}"
