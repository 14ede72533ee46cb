"""The commands replay (rerun a trial) and repair (recover a damaged results file)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mpisweep.cli.arguments import Commands, add_file, add_json, add_trial, print_json, sweep_with_trial
from mpisweep.results import ResultsError
from mpisweep.spec.units import configuration_text

__all__ = ["add_commands"]


def add_commands(commands: Commands) -> None:
    """Register the commands."""
    replay = commands.add_parser(
        "replay",
        help="rerun one trial and compare",
        description="Rerun one trial with the same configuration and seed, and compare the results. The "
        "results file is not changed. Exit code 0 if the trial ends in the same state, else 4.",
    )
    add_trial(replay)
    replay.add_argument(
        "--folder", metavar="FOLDER", help="folder of the user's code (default: where the sweep ran)"
    )
    add_json(replay)
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
    from mpisweep.views.comparison import print_rerun, rerun_fields

    sweep = sweep_with_trial(options)
    folder = Path(options.folder or sweep.environment.get("user_folder", "."))
    if not folder.is_dir():
        raise ResultsError(
            f"{folder}: the folder of the sweep does not exist; set --folder to the folder of the code"
        )
    configuration = configuration_text(sweep.configuration(options.number))
    done = rerun(
        sweep,
        options.number,
        folder,
        lambda share: print(
            f"trial {options.number} of {sweep.name} on {share.label}: {configuration}",
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        ),
    )
    if options.json:
        print_json(rerun_fields(done, sweep, options.number))
    else:
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
        print(f"  {options.file}: {'the file' if name == '/' else name} could not be read")
    if done.is_changed:
        print(f"  {options.file}: differs from what was written; values that could be read may be wrong")
    for damage in done.damages:
        print(
            f"  journal {damage.segment}: {damage.length} bytes at offset {damage.offset} could not be read"
        )
    for kept in done.kept:
        print(f"  original kept: {kept}")
    what = "repaired" if done.is_changed or done.damages else "nothing was damaged"
    print(
        f"{options.file}: {what}; {done.ended:,} of {done.trials:,} known trials have ended, the others will "
        "rerun"
    )
    return 0
