"""Mutation run: remove one mechanism from a copy of the program, and check that its tests fail.

Each file in ``tests/mutants`` lists changes of the source, one table per mutant::

    [[mutant]]
    name    = "journal-fsync"                          # unique; --only takes it
    removes = "a record is synced before it counts"    # the mechanism, as the printed table names it
    file    = "mpisweep/results/journal/writer.py"
    old     = '''                                       # exact text, found once in the file; whole lines here
                    os.fsync(self._file)
    '''
    new     = ''                                       # what replaces it; empty to delete it
    tests   = ["tests/test_writer_cuts.py::test_nothing_is_acknowledged_before_it_is_synced"]

A mutant of several changes lists the others in ``[[mutant.also]]`` tables of `file`, `old` and `new`.
`seconds` limits the time of its tests (default 120).

The named tests must pass on the unchanged source, and *each* of them must fail on the changed one.  Both run
in a copy of the tree; the working tree is never touched.  Exit code 0: every mutant was caught.  1: one
survived, its text no longer applies, or its tests prove nothing (they fail on the unchanged source, or the
change does not compile)::

    python tests/mutation.py --list
    python tests/mutation.py --only journal-fsync
    python tests/mutation.py --share 2/4 --jobs 2 --within 180
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from started import end

ROOT = Path(__file__).parent.parent
#: Not copied: results, environments, and byte code, which Python matches by size and time in seconds.
_LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "demo", "build", "*.egg-info", ".*_cache", ".hypothesis", "__pycache__", "*.h5", "*.h5.*"
)
_SECONDS = 120.0
_KEYS = {"name", "removes", "file", "old", "new", "tests", "also", "seconds"}


class MutantError(Exception):
    """A mutant proves nothing; the message says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One replacement in one file."""

    file: str
    old: str
    new: str

    def applied_to(self, text: str) -> str:
        """Return the file's text with the change applied.

        Raises:
            MutantError: when the old text is missing or ambiguous, or the result does not compile.
        """
        found = text.count(self.old) if self.old else 0
        if found != 1:
            raise MutantError(f"does not apply: {self.file} holds its old text {found} times, expected once")
        changed = text.replace(self.old, self.new)
        if self.file.endswith(".py"):
            try:
                compile(changed, self.file, "exec")
            except SyntaxError as error:
                raise MutantError(
                    f"does not compile: {self.file}, line {error.lineno}: {error.msg}"
                ) from error
        return changed


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of the source, and the tests that must fail for it."""

    name: str
    removes: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]
    seconds: float = _SECONDS

    def apply(self, root: Path) -> None:
        """Change the files below `root`; raises MutantError when a change does not apply."""
        for change in self.changes:
            path = root / change.file
            if not path.is_file():
                raise MutantError(f"does not apply: there is no {change.file}")
            path.write_text(change.applied_to(path.read_text(encoding="utf-8")), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one mutant."""

    mutant: Mutant
    #: caught, survived, error, skipped (its tests cannot run here) or not tried (no time left).
    outcome: str
    told: str
    seconds: float = 0.0

    @property
    def is_bad(self) -> bool:
        """Whether this outcome makes the run fail."""
        return self.outcome in ("survived", "error")


# ------------------------------------------------------------------------------------- the list


def read_mutants(folder: Path) -> list[Mutant]:
    """Read the mutants of all files in `folder`, in the order of their names.

    Raises:
        MutantError: when a file lacks a key or has an unknown one.
    """
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        for number, table in enumerate(tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []), 1):
            where = f"{path.name}, mutant {number} ({table.get('name', 'without a name')})"
            missing = _KEYS - {"also", "seconds"} - table.keys()
            if missing or table.keys() - _KEYS:
                raise MutantError(f"{where}: lacks {sorted(missing)}, unknown {sorted(table.keys() - _KEYS)}")
            changes = [
                Change(part["file"], part["old"], part["new"]) for part in [table, *table.get("also", [])]
            ]
            seconds = float(table.get("seconds", _SECONDS))
            found.append(
                Mutant(table["name"], table["removes"], tuple(changes), tuple(table["tests"]), seconds)
            )
    twice = {mutant.name for mutant in found if sum(mutant.name == other.name for other in found) > 1}
    if twice:
        raise MutantError(f"{folder}: more than one mutant is named {sorted(twice)}")
    return found


def share_of(mutants: Sequence[Mutant], share: str) -> list[Mutant]:
    """Return every M-th mutant, starting with the N-th, for ``N/M``."""
    number, _, of = share.partition("/")
    if not (number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise MutantError(f"--share {share}: expected N/M with N from 1 to M")
    return list(mutants[int(number) - 1 :: int(of)])


# ------------------------------------------------------------------------------------- running tests


@dataclass(frozen=True, slots=True)
class Ran:
    """Outcomes of tests, by the names that mutants use; a test with parameters counts once."""

    passed: frozenset[str]
    failed: frozenset[str]
    skipped: frozenset[str]
    #: pytest's exit code; None after a timeout.
    exit_code: int | None
    output: str


def run_tests(root: Path, tests: Sequence[str], seconds: float) -> Ran:
    """Run `tests` against the package below `root`; none of their processes survives the call."""
    report = root / "mutation-report.xml"
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}",
        # The only form that may hold the numbers that tests measure.
        "-o", "junit_family=xunit1",
        *(["-x"] if len(tests) == 1 else []), *tests,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.fspath(root), "MPISWEEP_TESTS_PATIENCE_S": "60"}
    with open(root / "mutation-output.txt", "w+", encoding="utf-8", errors="replace") as output:
        running = subprocess.Popen(
            command, cwd=root, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            exit_code = int(running.wait(seconds))
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            end(running)
        output.seek(0)
        said = output.read()
    outcomes: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    if report.exists():
        for case in ElementTree.parse(report).iter("testcase"):
            children = {child.tag for child in case}
            outcome = (
                "failed"
                if children & {"failure", "error"}
                else "skipped"
                if "skipped" in children
                else "passed"
            )
            name = f"{case.get('classname')}.{str(case.get('name')).partition('[')[0]}"
            outcomes[outcome] |= {test for test in tests if _dotted(test) == name}
    return Ran(*map(frozenset, outcomes.values()), exit_code, said)


def _dotted(test: str) -> str:
    """A node id in the form of JUnit's report."""
    return test.partition("[")[0].replace("/", ".").replace(".py::", ".").replace("::", ".")


# ------------------------------------------------------------------------------------- the run


def check_unchanged(root: Path, mutants: Sequence[Mutant]) -> dict[str, Verdict]:
    """Run every named test once on the unchanged source; return the verdicts that this settles."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    with _copy_of(root) as copy:
        ran = run_tests(copy, tests, sum({mutant.tests: mutant.seconds for mutant in mutants}.values()))
    verdicts: dict[str, Verdict] = {}
    for mutant in mutants:
        unknown = set(mutant.tests) - ran.passed - ran.failed - ran.skipped
        if ran.exit_code is None or unknown:
            why = f"its tests did not run: {sorted(unknown)}: {_last_line(ran.output)}"
            verdicts[mutant.name] = Verdict(mutant, "error", why)
        elif failing := sorted(set(mutant.tests) & ran.failed):
            verdicts[mutant.name] = Verdict(mutant, "error", f"fails without the change: {failing}")
        elif skipped := sorted(set(mutant.tests) - ran.passed):
            verdicts[mutant.name] = Verdict(mutant, "skipped", f"cannot run here: {skipped}")
    return verdicts


def try_mutant(root: Path, mutant: Mutant) -> Verdict:
    """Change a copy of the tree below `root` and run the mutant's tests there."""
    started = time.monotonic()
    with _copy_of(root) as copy:
        try:
            mutant.apply(copy)
        except MutantError as error:
            return Verdict(mutant, "error", str(error))
        ran = run_tests(copy, mutant.tests, mutant.seconds)
    seconds = time.monotonic() - started
    if ran.exit_code is None:
        return Verdict(mutant, "error", f"its tests did not end within {mutant.seconds:g} s", seconds)
    if ran.exit_code not in (0, 1):
        return Verdict(mutant, "error", f"its tests did not run: {_last_line(ran.output)}", seconds)
    deaf = sorted(set(mutant.tests) - ran.failed)
    if deaf:
        return Verdict(mutant, "survived", f"pass without it: {', '.join(map(_short, deaf))}", seconds)
    return Verdict(mutant, "caught", ", ".join(map(_short, mutant.tests)), seconds)


def run_all(
    root: Path, mutants: Sequence[Mutant], jobs: int = 1, within_s: float = float("inf")
) -> list[Verdict]:
    """Try all mutants, `jobs` at a time; start none after `within_s` seconds."""
    until = time.monotonic() + within_s
    settled = {}
    for mutant in mutants:
        try:
            for change in mutant.changes:
                change.applied_to((root / change.file).read_text(encoding="utf-8"))
        except (MutantError, OSError) as error:
            settled[mutant.name] = Verdict(mutant, "error", str(error))
    settled |= check_unchanged(root, [mutant for mutant in mutants if mutant.name not in settled])

    def verdict_on(mutant: Mutant) -> Verdict:
        if mutant.name in settled:
            return settled[mutant.name]
        if time.monotonic() >= until:
            return Verdict(mutant, "not tried", f"{within_s:g} s were over")
        return try_mutant(root, mutant)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(verdict_on, mutants))


@contextlib.contextmanager
def _copy_of(root: Path) -> Iterable[Path]:
    with tempfile.TemporaryDirectory(prefix="mpisweep-mutant-", ignore_cleanup_errors=True) as made:
        copy = Path(made) / "tree"
        shutil.copytree(root, copy, ignore=_LEFT_OUT)
        yield copy


def _short(test: str) -> str:
    return test.removeprefix("tests/")


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "pytest printed nothing"


def print_table(verdicts: Sequence[Verdict], seconds: float) -> None:
    """Print two lines per mutant, and the totals."""
    width = max([0, *(len(verdict.mutant.name) for verdict in verdicts)])
    for verdict in verdicts:
        mutant = verdict.mutant
        print(
            f"{verdict.outcome:<9}  {mutant.name:<{width}}  {verdict.seconds:5.1f} s  without: "
            f"{mutant.removes}"
        )
        print(f"{'':<9}  {'':<{width}}           {verdict.told}")
    counts = {
        outcome: sum(v.outcome == outcome for v in verdicts)
        for outcome in ("caught", "survived", "error", "skipped", "not tried")
    }
    print(
        f"{len(verdicts)} mutants in {seconds:.0f} s: "
        + ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant; may be repeated")
    parser.add_argument(
        "--share", default="1/1", metavar="N/M", help="every M-th mutant, beginning with the N-th"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time")
    parser.add_argument(
        "--within",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="begin no mutant after this time",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names and what they remove, and run nothing"
    )
    options = parser.parse_args(arguments)
    try:
        mutants = read_mutants(ROOT / "tests" / "mutants")
        if unknown := set(options.only or ()) - {mutant.name for mutant in mutants}:
            raise MutantError(f"--only: there is no mutant {sorted(unknown)}; --list shows them")
        chosen = (
            [mutant for mutant in mutants if mutant.name in options.only]
            if options.only
            else share_of(mutants, options.share)
        )
    except MutantError as error:
        print(f"mutation.py: {error}", file=sys.stderr)
        return 2
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name}: without: {mutant.removes}")
        return 0
    started = time.monotonic()
    verdicts = run_all(ROOT, chosen, options.jobs, options.within)
    print_table(verdicts, time.monotonic() - started)
    return int(any(verdict.is_bad for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
