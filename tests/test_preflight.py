"""The import of a sweep's function before its ranks start, in a process that works beside the launcher."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from mpisweep.spec import Spec, SpecError, parse_spec, preflight
from mpisweep.spec.preflight import begin_import, check_startable


def sleeping(folder: Path, comment: str = "") -> Spec:
    """A sweep whose module takes a minute to import."""
    (folder / "slow.py").write_text("import time\ntime.sleep(60)\n")
    text = f'workload = "slow:train"\n{comment}\n[parameters]\nx = [1, 2]\n'
    return parse_spec(text, source="s.toml", folder=folder)


def test_an_import_that_was_begun_is_gone_when_the_launch_is_over(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), begin_import(sleeping(tmp_path)) as importing:  # noqa: PT012
        assert importing is not None
        assert importing.poll() is None
        raise KeyboardInterrupt
    assert importing.returncode == -signal.SIGKILL


def test_an_import_that_takes_too_long_is_no_error_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preflight, "_IMPORT_S", 0.5)
    spec = sleeping(tmp_path)
    with begin_import(spec) as importing:
        check_startable(spec, importing=importing)
        assert importing is not None
        assert importing.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("begins", [True, False])
def test_a_function_of_a_sweep_file_longer_than_a_pipe_is_checked(tmp_path: Path, begins: bool):
    (tmp_path / "mine.py").write_text("def train(trial):\n    return {'loss': 0}\n")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    for module in ("mine", "broken"):
        text = f'workload = "{module}:train"\n#{"x" * 200_000}\n[parameters]\nx = [1, 2]\n'
        spec = parse_spec(text, source="s.toml", folder=tmp_path)
        with begin_import(spec) if begins else contextlib.nullcontext() as importing:
            if module == "mine":
                check_startable(spec, importing=importing)
            else:
                with pytest.raises(SpecError, match="no_such_module"):
                    check_startable(spec, importing=importing)


def test_a_command_line_imports_nothing(tmp_path: Path):
    spec = parse_spec(
        'workload.command = "true {x}"\n[parameters]\nx = [1]\n', source="s.toml", folder=tmp_path
    )
    with begin_import(spec) as importing:
        assert importing is None
