"""Filtering the output of mpirun and the ranks; the texts are those of real launchers."""

from __future__ import annotations

import pytest

from mpisweep.batch.output import ComplaintFilter, words_of
from mpisweep.progress import MARK, parse

RULE = "-" * 74
EXITED = f"""{RULE}
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-8904@1,0]
   Exit code:    2
{RULE}"""
ABORTED = f"""{RULE}
MPI_ABORT was invoked on rank 0 in communicator MPI_COMM_WORLD
  Proc: [[32557,1],0]
  Errorcode: 2

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
You may or may not see output from other processes, depending on
exactly when Open MPI kills them.
{RULE}"""
#: Open MPI 4 prints two successive blocks.
FOUR = f"""{RULE}
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
{RULE}
{RULE}
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[36253,1],0]
  Exit code:    2
{RULE}"""
HYDRA = f"""
{"=" * 83}
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 22785 RUNNING AT vm
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
{"=" * 83}
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)"""
SRUN = "srun: error: n1: task 0: Exited with exit code 2\nsrun: error: n2: tasks 1-3: Exited with exit code 2"
#: A warning that must be shown.
WARNING = f"""{RULE}
WARNING: No preset parameters were found for the device that Open MPI
detected:
{RULE}"""
MISSING = f"""{RULE}
prterun was unable to find the specified executable file, and therefore did
not launch the job.
{RULE}"""


def filtered(text: str) -> tuple[str, str]:
    """The text that passes, in its order, and the complaints that were removed."""
    taken = ComplaintFilter()
    passed = [line for fed in text.split("\n") for line in taken.feed(fed)]
    return "\n".join(passed + taken.rest()), "\n".join(taken.complaints)


@pytest.mark.parametrize(
    "complaint", [EXITED, ABORTED, FOUR, SRUN], ids=["exited", "aborted", "four", "srun"]
)
def test_mpirun_s_complaints_about_exit_codes_of_ranks_are_removed(complaint: str):
    assert filtered(f"before\n{complaint}\nafter") == ("before\nafter", complaint)


def test_hydra_s_complaint_is_removed_too():
    passed, complaints = filtered(HYDRA)
    assert passed == ""
    assert complaints == HYDRA.lstrip("\n")


@pytest.mark.parametrize(
    "text", [WARNING, MISSING, f"a\n{RULE}\nb", RULE, f"{RULE}\n{RULE}", f"{RULE}\n\n{RULE}\nb"]
)
def test_all_other_output_passes_unchanged(text: str):
    assert filtered(text) == (text, "")


def test_an_incomplete_complaint_passes():
    cut = EXITED.rpartition("\n")[0]
    assert filtered(cut) == (cut, "")
    endless = EXITED.rpartition("\n")[0] + "\nx" * 100
    assert filtered(endless) == (endless, "")


def test_printed_lines_are_quoted_without_rules_and_repetitions():
    assert words_of([RULE, "  a ", "", "b", "a", "b"]) == ["a", "b"]
    assert words_of([str(n) for n in range(40)]) == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "...",
        "34",
        "35",
        "36",
        "37",
        "38",
        "39",
    ]


@pytest.mark.parametrize("line", ['{"total": 3', "{}", "[1]", ""])
def test_a_truncated_progress_line_is_ignored(line: str):
    assert parse(MARK + line) is None
