"""The commands for when something is in doubt: replay runs a trial again, repair saves a damaged results
file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mpisweep.cli.arguments import Commands, add_file, add_trial, sweep_with_trial
from mpisweep.results import ResultsError
from mpisweep.spec.units import configuration_text

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Add them to the program's commands."""
    replay = commands.add_parser(
        "replay",
        help="run one trial again, alone, and compare",
        description="Run one trial again with exactly its configuration and seed, and compare the results. "
        "The results file is not touched. Exit code 0 when it ends in the same state, else 4.",
    )
    add_trial(replay)
    replay.add_argument(
        "--folder", metavar="FOLDER", help="where the user's code is (default: where the sweep ran)"
    )
    replay.set_defaults(command=_replay)

    repair = commands.add_parser(
        "repair",
        help="recover a damaged results file",
        description="Recover everything readable from a damaged results file and its journal. "
        "The damaged parts are kept in FILE.damaged/.",
    )
    add_file(repair)
    repair.set_defaults(command=_repair)


def _replay(options: argparse.Namespace) -> int:
    from mpisweep.rank.rerun import rerun
    from mpisweep.views.comparison import print_rerun

    sweep = sweep_with_trial(options)
    folder = Path(options.folder or sweep.environment.get("user_folder", "."))
    if not folder.is_dir():
        raise ResultsError(
            f"{folder}, where the sweep ran, is not there; say with --folder where the code is now"
        )
    configuration = configuration_text(sweep.configuration(options.number))
    done = rerun(
        sweep,
        options.number,
        folder,
        lambda share: print(
            f"trial {options.number} of {sweep.name} on {share.label}: {configuration}", flush=True
        ),
    )
    print_rerun(done, sweep, options.number)
    return 0 if done.state.label == sweep.trials[options.number]["state"] else 4


def _repair(options: argparse.Namespace) -> int:
    from mpisweep.results.repair import repair

    try:
        done = repair(options.file)
    except OSError as error:
        where = error.filename or options.file
        raise ResultsError(f"{where}: cannot be read or written: {error.strerror or error}") from error
    for name in done.lost:
        print(f"  {options.file}: {'the whole file' if name == '/' else name} could not be read")
    if done.is_changed:
        print(
            f"  {options.file}: is not what was written; where a value is wrong in what could be read, "
            "nothing shows it"
        )
    for damage in done.damages:
        print(
            f"  journal {damage.segment}: {damage.length} bytes at offset {damage.offset} could not be read"
        )
    for kept in done.kept:
        print(f"  kept as it was: {kept}")
    what = "repaired" if done.is_changed or done.damages else "nothing was damaged"
    print(
        f"{options.file}: {what}; {done.ended:,} of {done.trials:,} known trials have ended, the others run "
        "again"
    )
    return 0
