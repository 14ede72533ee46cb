"""The examples in the help of every command; a test runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = ["EXAMPLES", "Example", "examples_of"]


class Example(NamedTuple):
    """A command, one line per entry, and the purpose of it."""

    purpose: str
    command: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """The lines of the help; long commands continue behind a backslash."""
        yield f"  # {self.purpose}"
        for index, line in enumerate(self.command):
            end = " \\" if index < len(self.command) - 1 else ""
            yield f"  {'    ' if index else ''}{line}{end}"


def _example(purpose: str, *command: str) -> Example:
    return Example(purpose, command)


#: Name of a command, or empty for the program itself -> its examples.
EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "": (
        _example("write a sweep file for a script, then read and edit it", "mpisweep init train.py"),
        _example("run it, or resume it", "mpisweep run sweep.toml"),
        _example("print the best trials, also while it runs", "mpisweep top flow.h5"),
    ),
    "init": (
        _example("a sweep file for a script with argparse or click", "mpisweep init train.py"),
        _example(
            "for a function train(trial) in model.py, or an objective of Optuna",
            "mpisweep init model.py -o model.toml",
        ),
        _example("for a program that is built", "mpisweep init ./heat"),
        _example("for the built-in ResNet50", "mpisweep init resnet50"),
    ),
    "run": (
        _example("run a sweep file, or resume it", "mpisweep run sweep.toml"),
        _example(
            "ResNet50 without a file",
            "mpisweep run resnet50 -p batch_size=1:700 -p num_iter=300",
            "--baseline batch_size=256",
        ),
        _example(
            "any program",
            "mpisweep run -p batch_size=1:64 --metric 'loss=loss: '",
            "-- python train.py --batch_size={batch_size}",
        ),
        _example(
            "40 trials of a function, proposed from the results so far",
            "mpisweep run model:train -p width=16:1024 --search tpe --trials 40",
        ),
    ),
    "check": (
        _example("validate a sweep file, and count its trials", "mpisweep check sweep.toml"),
        _example(
            "how many trials fit into two hours with 8 workers",
            "mpisweep check sweep.toml -n 8 --walltime 2:00:00",
        ),
        _example("how many nodes to ask for, and for how long", "mpisweep check sweep.toml --plan"),
        _example("write the schema of sweep files for an editor", "mpisweep check --schema"),
    ),
    "top": (
        _example("the five best trials", "mpisweep top flow.h5"),
        _example("the ten fastest", "mpisweep top flow.h5 -k 10 --by wall_time --direction minimize"),
        _example("the best after 20 steps of each trial", "mpisweep top flow.h5 --at step=20"),
    ),
    "status": (
        _example("progress, failures by cause and the best trial", "mpisweep status flow.h5"),
        _example("the same for a script", "mpisweep status flow.h5 --json"),
    ),
    "trial": (
        _example("everything known of trial 2", "mpisweep trial flow.h5 2"),
        _example("the same for a script", "mpisweep trial flow.h5 2 --json"),
    ),
    "watch": (
        _example("the full screen; q leaves it", "mpisweep watch flow.h5"),
        _example("one line per change until the run ends", "mpisweep watch flow.h5 --lines"),
        _example("one look every minute", "mpisweep watch flow.h5 --every 1m"),
    ),
    "figure": (
        _example(
            "figure 1 of a paper, as wide as a column",
            "mpisweep figure metric flow.h5 --width column -o figure1.pdf",
        ),
        _example(
            "figure 2, with single jobs that wait ten minutes each",
            "mpisweep figure total flow.h5 --queue-wait 10m",
        ),
        _example(
            "learning curves over time, and their numbers",
            "mpisweep figure curves flow.h5 --over time --data curves.csv",
        ),
        _example("which figures there are", "mpisweep figure --list"),
    ),
    "compare": (
        _example("the same sweep on two machines", "mpisweep compare flow.h5 new.h5"),
        _example(
            "another metric, and a figure", "mpisweep compare flow.h5 new.h5 --metric wall_time -o both.png"
        ),
        _example("for a script", "mpisweep compare flow.h5 new.h5 --json"),
    ),
    "report": (
        _example("write flow.html", "mpisweep report flow.h5"),
        _example("20 trials in the table", "mpisweep report flow.h5 -k 20 -o page.html"),
        _example("again every minute while the sweep runs", "mpisweep report flow.h5 --every 1m"),
    ),
    "export": (
        _example("one row per trial", "mpisweep export flow.h5 -o trials.csv"),
        _example("one row per report of the curves", "mpisweep export flow.h5 --curves -o curves.csv"),
        _example("JSON on standard output", "mpisweep export flow.h5 --format json"),
        _example("an Optuna storage, for optuna-dashboard", "mpisweep export flow.h5 -o flow.db"),
    ),
    "output": (
        _example("what the program of trial 2 printed", "mpisweep output program.h5 2"),
        _example("of which the last lines", "mpisweep output program.h5 2 | tail"),
    ),
    "replay": (
        _example("run trial 2 again, and compare", "mpisweep replay flow.h5 2"),
        _example("with the code in another folder", "mpisweep replay flow.h5 2 --folder ."),
    ),
    "repair": (
        _example("after a disk error", "mpisweep repair flow.h5"),
        _example("keep its report of what could not be read", "mpisweep repair flow.h5 > repair.txt"),
    ),
    "sites": (
        _example("which names --site takes", "mpisweep sites"),
        _example("the resource groups of one site, and their limits", "mpisweep sites abci3"),
        _example("for a script", "mpisweep sites --json"),
    ),
    "options": (
        _example("which workloads there are", "mpisweep options"),
        _example("the options and metrics of ResNet50", "mpisweep options resnet50"),
        _example("for a script", "mpisweep options resnet50 --json"),
    ),
    "jobscript": (
        _example(
            "a script for four nodes of a site",
            "mpisweep jobscript sweep.toml --site flow-cx --nodes 4",
            "--elapse 2:00:00 > job.sh",
        ),
        _example("check a script", "mpisweep jobscript --check job.sh"),
    ),
    "submit": (
        _example(
            "one job of four nodes",
            "mpisweep submit sweep.toml --site flow-cx --nodes 4 --elapse 2:00:00",
        ),
        _example(
            "as many jobs, one after another, as the sweep takes",
            "mpisweep submit sweep.toml --site flow-cx --nodes 4 --elapse 2:00:00",
            "--chain complete",
        ),
        _example(
            "a mail when the job ends",
            "mpisweep submit sweep.toml --site flow-cx --nodes 4 --elapse 2:00:00",
            "--mail me@example.org",
        ),
    ),
    "retry": (
        _example("after a bug was fixed: all that failed", "mpisweep retry flow.h5 --failed"),
        _example("one trial", "mpisweep retry flow.h5 2"),
    ),
    "skip": (
        _example("do not run trial 12", "mpisweep skip flow.h5 12"),
        _example("nor any of 400 to 699", "mpisweep skip flow.h5 400:699"),
    ),
    "first": (
        _example("run these two next", "mpisweep first flow.h5 12 5"),
        _example("then the first ten", "mpisweep first flow.h5 0:9"),
    ),
    "add": (
        _example("four larger widths as well", "mpisweep add flow.h5 -p width=112:160:16"),
        _example("one more point", "mpisweep add flow.h5 -p width=256"),
    ),
    "stop": (
        _example("stop, and wait until all is on disk", "mpisweep stop flow.h5"),
        _example("only request it", "mpisweep stop flow.h5 --no-wait"),
    ),
    "completion": (
        _example(
            "bash",
            "mpisweep completion bash",
            "> ~/.local/share/bash-completion/completions/mpisweep",
        ),
        _example("zsh, in a folder of $fpath", "mpisweep completion zsh > ~/.zfunc/_mpisweep"),
        _example("fish", "mpisweep completion fish > ~/.config/fish/completions/mpisweep.fish"),
    ),
}


def examples_of(program: str) -> tuple[Example, ...]:
    """The examples of ``mpisweep``, or of ``mpisweep COMMAND``."""
    return EXAMPLES.get(program.removeprefix("mpisweep").strip(), ())
