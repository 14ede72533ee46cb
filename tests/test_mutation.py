"""The mutation run itself, and a check that every mutant of tests/mutants applies to the current source."""

from __future__ import annotations

import re
from pathlib import Path

import mutation
import pytest
from mutation import Change, Mutant, MutantError, read_mutants, run_all, share_of

ROOT = Path(__file__).parent.parent
MUTANTS = read_mutants(ROOT / "tests" / "mutants")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_to_the_current_source_and_its_tests_exist(mutant: Mutant):
    """After a change of the quoted source, this failure names the mutant to update."""
    texts = {change.file: (ROOT / change.file).read_text(encoding="utf-8") for change in mutant.changes}
    for change in mutant.changes:
        texts[change.file] = change.applied_to(texts[change.file])
    assert mutant.tests
    for test in mutant.tests:
        file, *names = test.partition("[")[0].split("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {names[-1]}\b", text, flags=re.MULTILINE), test


# ------------------------------------------------------------------------------------ a program of five lines

PROGRAM = """
def half(number):
    if number < 0:
        raise ValueError("negative")
    return number / 2
"""
TESTS = """
import pytest, time
from program import half

@pytest.mark.parametrize("number", [4, 8])
def test_half(number):
    assert half(number) * 2 == number

def test_refusal():
    with pytest.raises(ValueError):
        half(-2)

def test_anything():
    half(4)

def test_waits():
    while half(4) != 2:
        time.sleep(0.01)

def test_fails():
    assert half(4) == 3

@pytest.mark.skip
def test_skipped():
    half(4)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "tests").mkdir(parents=True)
    (made / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (made / "program.py").write_text(PROGRAM)
    (made / "tests" / "test_program.py").write_text(TESTS)
    return made


def mutant(
    name: str, old: str, new: str, *tests: str, also: tuple[Change, ...] = (), seconds: float = 60.0
) -> Mutant:
    return Mutant(
        name,
        name,
        (Change("program.py", old, new), *also),
        tuple(f"tests/test_program.py::{test}" for test in tests),
        seconds,
    )


REFUSAL = '    if number < 0:\n        raise ValueError("negative")\n'


def test_a_mutant_is_caught_when_each_of_its_tests_fails_and_survives_otherwise(tree: Path):
    before = {path: path.read_bytes() for path in tree.rglob("*.py")}
    mutants = [
        mutant("a block is deleted", REFUSAL, "", "test_refusal"),
        mutant(
            "two lines, each by itself",
            "number / 2",
            "number",
            "test_half",
            "test_refusal",
            also=(Change("program.py", REFUSAL, ""),),
        ),
        mutant("one of two tests is deaf", "number / 2", "number / 3", "test_half", "test_anything"),
        mutant("nobody looks", REFUSAL, "", "test_half"),
        mutant("the text is missing", "number / 7", "number", "test_half"),
        mutant("it is there twice", "number", "n", "test_half"),
        mutant("it is no Python", "return number / 2", "return number /", "test_half"),
        mutant("it hangs", "number / 2", "number / 3", "test_waits", seconds=3.0),
        mutant("its test fails without it", "number / 2", "number / 3", "test_fails"),
        mutant("its test cannot run here", "number / 2", "number / 3", "test_skipped"),
    ]
    verdicts = {verdict.mutant.name: verdict for verdict in run_all(tree, mutants, jobs=2)}
    assert {name: verdict.outcome for name, verdict in verdicts.items()} == {
        "a block is deleted": "caught",
        "two lines, each by itself": "caught",
        "one of two tests is deaf": "survived",
        "nobody looks": "survived",
        "the text is missing": "error",
        "it is there twice": "error",
        "it is no Python": "error",
        "it hangs": "error",
        "its test fails without it": "error",
        "its test cannot run here": "skipped",
    }
    assert verdicts["one of two tests is deaf"].told == "pass without it: test_program.py::test_anything"
    assert (
        verdicts["the text is missing"].told
        == "does not apply: program.py holds its old text 0 times, expected once"
    )
    assert verdicts["it is no Python"].told.startswith("does not compile: program.py, line 5: ")
    assert verdicts["it hangs"].told == "its tests did not end within 3 s"
    assert (
        verdicts["its test fails without it"].told
        == "fails without the change: ['tests/test_program.py::test_fails']"
    )
    assert {path: path.read_bytes() for path in tree.rglob("*.py")} == before, (
        "the tree itself is not touched"
    )


def test_a_missing_test_is_an_error_of_its_mutant(tree: Path):
    [verdict] = run_all(tree, [mutant("m", REFUSAL, "", "test_of_long_ago")])
    assert verdict.outcome == "error"
    assert "its tests did not run: ['tests/test_program.py::test_of_long_ago']" in verdict.told


def test_no_mutant_is_started_after_the_time_limit_and_that_is_not_a_failure(tree: Path):
    [verdict] = run_all(tree, [mutant("m", REFUSAL, "", "test_refusal")], within_s=0.0)
    assert (verdict.outcome, verdict.is_bad) == ("not tried", False)


def test_shares_hold_every_mutant_once():
    shares = [share_of(MUTANTS, f"{number}/4") for number in range(1, 5)]
    assert sorted(mutant.name for share in shares for mutant in share) == sorted(
        mutant.name for mutant in MUTANTS
    )
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for wrong in ("5/4", "0/4", "4", "a/b"):
        with pytest.raises(MutantError, match="expected N/M"):
            share_of(MUTANTS, wrong)


def test_a_list_with_missing_or_unknown_keys_is_refused(tmp_path: Path):
    one = 'name = "a"\nremoves = "b"\nfile = "c"\nold = "d"\nnew = ""\ntests = []\n'
    (tmp_path / "list.toml").write_text(f"[[mutant]]\n{one}[[mutant]]\n{one}")
    with pytest.raises(MutantError, match=r"more than one mutant is named \['a'\]"):
        read_mutants(tmp_path)
    (tmp_path / "list.toml").write_text('[[mutant]]\nname = "a"\nolde = "x"\n')
    with pytest.raises(
        MutantError,
        match=r"list.toml, mutant 1 \(a\): lacks \['file', 'new', 'old', 'removes', 'tests'\], unknown \['olde'\]",
    ):
        read_mutants(tmp_path)


def test_the_exit_code_tells_whether_all_were_caught(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tree / "tests" / "mutants").mkdir()
    listed = (
        "[[mutant]]\n"
        f"name = '{name}'\n"
        "removes = 'refusing'\n"
        "file = 'program.py'\n"
        "old = '''\n"
        f"{REFUSAL}'''\n"
        "new = ''\n"
        f"tests = ['tests/test_program.py::{test}']\n"
        for name, test in (("good", "test_refusal"), ("bad", "test_half"))
    )
    (tree / "tests" / "mutants" / "list.toml").write_text("".join(listed))
    monkeypatch.setattr(mutation, "ROOT", tree)
    assert mutation.main(["--list"]) == 0
    assert capsys.readouterr().out == "good: without: refusing\nbad: without: refusing\n"
    assert mutation.main(["--only", "good"]) == 0
    assert "1 mutants in" in capsys.readouterr().out
    assert mutation.main([]) == 1
    assert re.search(
        r"survived +bad .*\n.*pass without it: test_program.py::test_half\n2 mutants in \d+ s: 1 caught, 1 survived",
        capsys.readouterr().out,
    )
    assert mutation.main(["--only", "neither"]) == 2
