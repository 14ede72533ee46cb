"""``after``: a sweep around the best configuration of an earlier one."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_objectives import sweep_of
from test_results import history, opening, write_journal
from test_usage import ended

import mpisweep as package
from mpisweep.batch.jobfacts import Allocation
from mpisweep.blocks import ClosedRecord, JoinedRecord, TrialsBlock
from mpisweep.cli.hooking import hooks_of
from mpisweep.results import ResultsError
from mpisweep.results.after import read_after
from mpisweep.results.best import best_of
from mpisweep.results.compaction import compact_and_close
from mpisweep.results.load import load
from mpisweep.spec import After, Spec, SpecError, parse_spec
from mpisweep.views.status import sweep_status

HEAD = 'name = "fine"\nworkload = "m:f"\n'
BEST = After(
    "coarse.h5", 17, "loss", 0.25, 3, {"lr": 0.03, "batch": 64, "optimizer": "sgd", "nesterov": True}
)


def fine(rest: str, after: After = BEST) -> Spec:
    text = f'{HEAD}after = "{after.file}"\n{rest}'
    return parse_spec(text, source="fine.toml", folder=Path(), read_after=lambda file, name: after)


def described(spec: Spec) -> dict[str, str]:
    return {parameter.name: parameter.describe() for parameter in spec.space.parameters}


# ------------------------------------------------------------------------------------- values


def test_bounds_choices_and_options_come_from_the_best_configuration():
    spec = fine(
        "[parameters]\n"
        'lr = { from = "{best.lr} / 3", to = "3 * {best.lr}", points = 3, scale = "log" }\n'
        'batch = { from = "max(1, {best.batch} // 2)", to = "{best.batch} * 2", step = "{best.batch} // 2" }\n'
        'momentum = [0.5, "1 - {best.lr}"]\n'
        '[fixed]\noptimizer = "{best.optimizer}"\nnesterov = "{best.nesterov}"\nplain = "best.lr"\n'
        '[baseline]\nlr = "{best.lr}"\nbatch = 64\nmomentum = 0.5\n'
    )
    assert described(spec) == {
        "lr": "3 numbers from 0.01 to 0.09 on a log scale",
        "batch": "integers from 32 to 128 in steps of 32",
        "momentum": "0.5, 0.97",
    }
    assert spec.fixed == {"optimizer": "sgd", "nesterov": True, "plain": "best.lr"}
    assert spec.baseline == {"lr": 0.03, "batch": 64, "momentum": 0.5}
    assert spec.after == BEST


def test_the_text_of_the_sweep_has_what_was_read_and_needs_the_file_no_more():
    spec = fine('[parameters]\nlr = { from = "{best.lr} / 3", to = 1.0, points = 2 }\n')
    again = parse_spec(spec.text, source="fine.toml", folder=Path())
    assert again == spec
    assert 'lr = { from = "{best.lr} / 3"' in spec.text
    assert again.differences(spec) == []
    other = fine(
        '[parameters]\nlr = { from = "{best.lr} / 3", to = 1.0, points = 2 }\n', replace(BEST, file="b.h5")
    )
    assert other.differences(spec) == ["after: the results file has 'coarse.h5', fine.toml has 'b.h5'"]


def test_points_of_a_file_and_values_of_the_best_configuration_go_together(tmp_path):
    (tmp_path / "p.csv").write_text("x\n1\n2\n")
    text = f'{HEAD}after = "coarse.h5"\npoints = "p.csv"\n[fixed]\nlr = "{{best.lr}}"\n[baseline]\nx = 2\n'
    spec = parse_spec(text, source="fine.toml", folder=tmp_path, read_after=lambda file, name: BEST)
    assert spec.fixed == {"lr": 0.03}
    assert parse_spec(spec.text, source="fine.toml", folder=Path()).space.points == ((1,), (2,))


@given(st.floats(1e-9, 1e9), st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_any_value_survives_the_text_of_the_sweep(number, word):
    best = replace(BEST, best={"lr": number, "word": word})
    spec = fine('[parameters]\nx = [1]\n[fixed]\nlr = "{best.lr}"\nword = "{best.word}"\n', best)
    assert spec.fixed == {"lr": number, "word": word}
    assert parse_spec(spec.text, source="s", folder=Path()).fixed == spec.fixed


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            '["{best.optimiser}"]',
            "'{best.optimiser}', column 1: coarse.h5 has no parameter 'optimiser'; did you mean 'optimizer'?",
        ),
        ('["2 * {best.lr"]', "'2 * {best.lr', column "),
        ('["lr / {best.lr}"]', "'lr / {best.lr}', column 1: found 'lr'; write {best.lr}"),
        ('["{best.lr} / 0"]', "'{best.lr} / 0' has no value: division by zero"),
        (
            '["{best.optimizer} * 2"]',
            "'{best.optimizer} * 2', column 1: found a string where a number is expected",
        ),
        ('["{best.lr}.__class__"]', "'{best.lr}.__class__', column 1: found '.'; an expression has"),
        ('["9 ** 9 ** {best.batch}"]', "'9 ** 9 ** {best.batch}' has no value: a number is too large"),
        ('{ from = "{best.lr}", to = 0.01 }', "'from' is 0.03 and 'to' is 0.01; 'from' must not exceed 'to'"),
    ],
)
def test_a_text_without_a_value_is_refused_in_one_sentence(entry, message):
    with pytest.raises(SpecError) as caught:
        fine(f"[parameters]\nx = {entry}\n")
    assert str(caught.value).startswith(f"fine.toml: parameters.x: {message}")
    assert "\n" not in str(caught.value)


def test_without_after_such_a_text_is_refused():
    with pytest.raises(SpecError, match=r"fixed.lr: is '\{best.lr\}'; set after = \"FILE.h5\""):
        parse_spec(f'{HEAD}[parameters]\nx = [1]\n[fixed]\nlr = "{{best.lr}}"\n', source="s", folder=Path())


@pytest.mark.parametrize("after", ["3", "{ file = 'x.h5' }", "['x.h5']", "''"])
def test_after_is_the_name_of_a_results_file(after):
    with pytest.raises(SpecError, match=r'after: is .*; expected a results file, such as "coarse.h5"'):
        parse_spec(f"{HEAD}after = {after}\n[parameters]\nx = [1]\n", source="s", folder=Path())


# ------------------------------------------------------------------------------------- the other sweep

SPEC = 'name = "c"\nworkload = "m:f"\n{}[parameters]\nx = {{ from = 1, to = 4 }}\n[fixed]\nmode = "fast"\n'


def coarse(
    path: Path, losses: list[float | None], *, more: str = "", repeats: int = 1, close: bool = True
) -> None:
    """A sweep whose trials, by configuration and repeat, have these losses; None for one that waits."""
    numbers = list(range(len(losses)))
    parameters = {"x": [1 + number // repeats for number in numbers], "mode": "fast"}
    block = TrialsBlock(
        numbers, parameters, configurations=[number // repeats for number in numbers],
        repeats=[number % repeats for number in numbers],
    )  # fmt: skip
    ends = [
        replace(ended(0, number, 1.0, 1.0), metrics={"loss": [loss]})
        for number, loss in zip(numbers, losses, strict=True)
        if loss is not None
    ]
    closed = [ClosedRecord(2000.0, "complete")] if close else []
    joined = JoinedRecord(0, "node0", "cpu 0", 1, 1, 1000.0)
    write_journal(path, [block, joined, *ends, *closed], opening(spec=SPEC.format(more)))


def read(folder: Path, results: Path | None = None) -> After:
    return read_after(
        "c.h5", "fine", source="fine.toml", folder=folder, output=results, is_fresh=results is None
    )


def test_the_best_is_that_of_the_mean_over_repeats_in_the_direction_of_the_first_objective(tmp_path):
    # The luckiest trial is one of configuration 0; configuration 1 has the best mean.
    losses = [0.0, 9.0, 3.0, 2.0, 5.0, None, float("nan"), float("nan")]
    coarse(tmp_path / "c.h5", losses, more="repeats = 2\n", repeats=2)
    assert read(tmp_path) == After("c.h5", 2, "loss", 2.5, 2, {"x": 2, "mode": "fast"})
    coarse(tmp_path / "m.h5", losses, more='repeats = 2\ndirection = "maximize"\n', repeats=2)
    best = best_of(load(tmp_path / "m.h5"))
    assert best is not None
    assert (best.number, best.value, best.runs) == (4, 5.0, 1)


def test_the_best_is_found_and_hooks_are_told_without_a_look_at_the_curves(tmp_path):
    write_journal(tmp_path / "c.h5", history(), opening(spec=SPEC.format("")))
    compact_and_close(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5") as file:
        value = file["curves/loss/value"].id
        place, size = value.get_offset() or value.get_chunk_info(0).byte_offset, value.get_storage_size()
    with (tmp_path / "c.h5").open("r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * size)
    with pytest.raises(ResultsError, match=r"c\.h5: is damaged"):
        load(tmp_path / "c.h5")
    assert read(tmp_path) == After("c.h5", 3, "loss", 1.0, 1, {"x": 4, "mode": "fast"})
    spec = parse_spec(f'{SPEC.format("")}[hooks]\nafter_sweep = "true"\n', source="s", folder=tmp_path)
    told = hooks_of(spec, tmp_path / "c.h5", Allocation("local", ""), None, is_fresh=False)
    assert told is not None
    assert told._facts.before()["best"]["number"] == 3


def test_the_best_by_the_first_of_several_objectives_has_them_all_finite(tmp_path):
    best = best_of(load(sweep_of(tmp_path / "s.h5", [(1.0, float("nan")), (3.0, 1.0), (2.0, 5.0)])))
    assert best is not None
    assert (best.number, best.value, best.runs) == (2, 2.0, 1)


def test_a_configuration_that_lacks_an_unlucky_seed_is_not_the_best_for_that(tmp_path):
    # The second seed costs all about 2; configuration 1 has not run with it.
    coarse(tmp_path / "c.h5", [1.0, 3.0, 1.2, None, 1.5, 3.4], more="repeats = 2\n", repeats=2)
    found = best_of(load(tmp_path / "c.h5"))
    assert found is not None
    assert (found.number, found.value, found.runs) == (0, 2.0, 2)
    status = sweep_status(load(tmp_path / "c.h5"))
    assert (status.best_trial, status.best, status.best_runs) == (0, 2.0, 2)


def test_a_sweep_that_is_missing_or_has_no_best_is_refused_and_one_that_is_not_complete_noted(
    tmp_path, caplog
):
    with pytest.raises(SpecError) as missing:
        read(tmp_path)
    assert str(missing.value) == f"fine.toml: after: {tmp_path}/c.h5 does not exist; run that sweep first"
    coarse(tmp_path / "c.h5", [float("nan"), None])
    with pytest.raises(SpecError, match="has no complete trial with a finite loss, and so no best"):
        read(tmp_path)
    (tmp_path / "b").mkdir()
    coarse(tmp_path / "b" / "c.h5", [2.0, None, None], close=False)
    assert read(tmp_path / "b").trial == 0
    assert "c.h5 is not complete (running, 1 of 3 trials have ended); its best" in caplog.text
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c.h5").write_text("not HDF5")
    with pytest.raises(SpecError, match=r"^fine.toml: after: .*c.h5"):
        read(tmp_path / "d")


# ------------------------------------------------------------------------------------- two sweeps


def test_coarse_then_fine_and_resumed_after_the_coarse_results_changed(folder, mpisweep):
    (folder / "coarse.toml").write_text(
        'name = "coarse"\nworkload = "workloads:half"\ndirection = "maximize"\n'
        "[parameters]\nx = [10, 20, 30]\n"
    )
    sweep = (
        'name = "fine"\nworkload = "workloads:half"\nafter = "coarse.h5"\n'
        '[parameters]\nx = { from = "{best.x} - 1", to = "{best.x} + %d" }\n'
    )
    (folder / "fine.toml").write_text(sweep % 1)
    early = mpisweep("check", "fine.toml")
    assert early.returncode == 2
    assert early.stderr.endswith("coarse.h5 does not exist; run that sweep first\n")
    assert mpisweep("run", "coarse.toml", "-n", "1").returncode == 0
    # Ranks get what the launcher has read.
    done = mpisweep("run", "fine.toml", "-n", "2")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "fine.h5")
    assert found.trials["x"].tolist() == [29, 30, 31]
    assert found.spec.after is not None
    assert (found.spec.after.trial, found.spec.after.best) == (2, {"x": 30})

    # The coarse sweep is gone, and the space may grow as ever.
    (folder / "coarse.h5").unlink()
    (folder / "fine.toml").write_text(sweep % 3)
    shown = mpisweep("check", "fine.toml")
    assert "  after       coarse.h5, trial 2 (loss 15): x=30\n" in shown.stdout
    assert json.loads(mpisweep("check", "fine.toml", "--json").stdout)["after"]["best"] == {"x": 30}
    # Under mpirun by hand every rank reads what is recorded.
    done = mpisweep("run", "fine.toml", ranks=2)
    assert done.returncode == 0, done.stderr
    assert package.load(folder / "fine.h5").trials["x"].tolist() == [29, 30, 31, 32, 33]
    fresh = mpisweep("run", "fine.toml", "--fresh")
    assert (fresh.returncode, fresh.stderr) == (
        2, f"mpisweep: fine.toml: after: {os.path.realpath(folder)}/coarse.h5 does not exist; run that sweep first\n"
    )  # fmt: skip
