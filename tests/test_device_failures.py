"""A GPU failure ends its own trial and no later one.

The GPUs are simulated; the texts of the exceptions are those of CUDA.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import mpisweep as package
from mpisweep.workloads.devicefailure import is_of_device, lacks_memory

Run = Callable[..., subprocess.CompletedProcess[str]]

OF_DEVICE = [
    "CUDA error: device-side assert triggered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA driver error: invalid argument",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `cusolverDnSgetrf(...)`",
    "cuFFT error: CUFFT_INTERNAL_ERROR",
    "NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, unhandled cuda error, NCCL version "
    "2.21.5",
    "ncclUnhandledCudaError: Call to CUDA function failed.",
    "GET was unable to find an engine to execute this computation",
    "HIP error: the operation cannot be performed in the present state",
    "INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered",
    "[700] Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS",
]
NOT_OF_DEVICE = [
    "x is two",
    "no CUDA-capable shape",
    "nccl",
    "the loss is not finite",
    "CUDA out of memory. Tried to allocate 2 GiB",
]


@pytest.mark.parametrize("text", OF_DEVICE)
def test_a_device_error_is_recognised_by_its_text(text):
    assert is_of_device(RuntimeError(text))


@pytest.mark.parametrize("text", NOT_OF_DEVICE)
def test_a_program_error_is_not_a_device_error(text):
    assert not is_of_device(RuntimeError(text))


def test_a_device_error_is_recognised_by_its_type_and_as_the_cause_of_another_exception():
    assert is_of_device(type("AcceleratorError", (RuntimeError,), {})("something new"))
    assert is_of_device(type("DistBackendError", (RuntimeError,), {})("socket timeout"))
    try:
        try:
            raise RuntimeError(OF_DEVICE[0])
        except RuntimeError as error:
            raise ValueError("training has failed") from error
    except ValueError as error:
        assert is_of_device(error)
    try:
        try:
            raise RuntimeError(OF_DEVICE[0])
        except RuntimeError:
            raise ValueError("there is another way") from None
    except ValueError as error:
        assert not is_of_device(error)


def torch_with(
    free: float, *, held: float = 0.0, held_most: float = 0.0, answers: bool = True
) -> types.SimpleNamespace:
    """The queried part of torch with a device of 100 GiB; this process has reserved `held` GiB."""

    def mem_get_info() -> tuple[int, int]:
        if not answers:
            raise RuntimeError(OF_DEVICE[0])
        return int(free * 2**30), 100 * 2**30

    return types.SimpleNamespace(cuda=types.SimpleNamespace(
        is_initialized=lambda: True, mem_get_info=mem_get_info, memory_reserved=lambda: int(held * 2**30),
        max_memory_reserved=lambda: int(held_most * 2**30),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("torch", "text", "expected"),
    [
        (torch_with(3), "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", True),
        (torch_with(3), "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        (torch_with(3), "GET was unable to find an engine to execute this computation", True),
        # The memory that the process held is free again when the device is queried.
        (torch_with(90, held=2, held_most=85), "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", True),
        (torch_with(50, held=45, held_most=45), "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", False),
        (torch_with(3), "CUDA error: device-side assert triggered", False),
        (torch_with(3), "cuDNN error: CUDNN_STATUS_BAD_PARAM", False),
        (torch_with(3, answers=False), "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", False),
        (None, "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR", False),
    ],
)
def test_a_library_that_fails_on_a_device_that_is_nearly_full_lacks_memory(
    monkeypatch, torch, text, expected
):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if torch is not None:
        monkeypatch.setitem(sys.modules, "torch", torch)
    assert lacks_memory(RuntimeError(text)) is expected


# ------------------------------------------------------------------------------------- whole sweeps


@pytest.fixture
def gpus(tmp_path: Path, environment: dict[str, str]) -> None:
    """Make nvidia-smi report two GPUs."""
    tool = tmp_path / "tool"
    tool.mkdir()
    lines = [f"GPU {n}: NVIDIA H200 (UUID: GPU-{n}2345678-1234-1234-1234-123456789012)" for n in range(2)]
    (tool / "nvidia-smi").write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
    (tool / "nvidia-smi").chmod(0o755)
    environment["PATH"] = os.pathsep.join([str(tool), environment["PATH"]])
    environment.pop("CUDA_VISIBLE_DEVICES", None)


HEAD = """
import os, sys, time, types
from pathlib import Path

GIB = 2**30
free = 90
sys.modules["torch"] = types.SimpleNamespace(cuda=types.SimpleNamespace(
    is_initialized=lambda: True, mem_get_info=lambda: (free * GIB, 100 * GIB), memory_reserved=lambda: 0,
    max_memory_reserved=lambda: 0, max_memory_allocated=lambda: 97 * GIB,
))
broken = False

def use_device():
    global broken
    if broken:
        raise RuntimeError("CUDA error: device-side assert triggered")
"""


def sweep(folder: Path, code: str, parameters: str, more: str = "") -> str:
    (folder / "mine.py").write_text(HEAD + code, encoding="utf-8")
    (folder / "s.toml").write_text(f'name = "s"\nworkload = "mine:run"\n{more}\n[parameters]\n{parameters}\n')
    return "s.toml"


@pytest.mark.mpi
def test_a_sticky_device_error_fails_the_trial_that_caused_it_and_no_other(folder, gpus, mpisweep: Run):
    code = """
def run(trial):
    global broken
    assert trial.device == "cuda:0"
    use_device()
    time.sleep(0.01)
    if trial.params["x"] % 5 == 0:
        broken = True
        use_device()
    return 1.0
"""
    done = mpisweep("run", sweep(folder, code, "x = { from = 1, to = 20 }"), "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["x"][found.trials["state"] == "failed"].tolist() == [5, 10, 15, 20]
    assert set(found.trials["cause"].tolist()) == {"", "exception"}
    assert "not_fresh" in found.attempts["end"].tolist(), (
        "one that failed in a process that had run others ran once more"
    )


@pytest.mark.mpi
def test_a_trial_that_fails_because_of_an_earlier_one_runs_again_and_completes(folder, gpus, mpisweep: Run):
    code = """
def run(trial):
    global broken
    use_device()
    if trial.params["x"] == 1:
        # The trial ends before anything synchronises with the device.
        broken = True
    return float(os.getpid())
"""
    done = mpisweep("run", sweep(folder, code, "x = { from = 1, to = 4 }"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 4
    assert found.attempts["end"].tolist().count("not_fresh") == 1


@pytest.mark.mpi
@pytest.mark.parametrize("has_gpu", [True, False])
def test_after_any_exception_on_a_device_the_next_trial_has_another_process(
    folder, request, mpisweep: Run, has_gpu
):
    if has_gpu:
        request.getfixturevalue("gpus")
    code = """
def run(trial):
    Path(f"process.{trial.number}").write_text(str(os.getpid()))
    if trial.params["x"] == 2:
        raise ValueError("x is two")
    return 1.0
"""
    done = mpisweep("run", sweep(folder, code, "x = { from = 1, to = 4 }"), "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete", "failed", "complete", "complete"]
    assert "not_fresh" not in found.attempts["end"].tolist(), "it is the trial's own doing"
    pids = {(folder / f"process.{number}").read_text() for number in range(4)}
    assert len(pids) == (2 if has_gpu else 1)


NEAR_THE_END = """
def run(trial):
    global free
    size = trial.params["x"]
    if size > 40:
        free = {free}
        raise RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR")
    return float(size)
"""


@pytest.mark.mpi
def test_the_memory_frontier_learns_from_library_errors_on_a_full_device(folder, gpus, mpisweep: Run):
    spec = sweep(folder, NEAR_THE_END.format(free=4), 'x = { from = 1, to = 100, memory = "increasing" }')
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert (trials["state"][:40] == "complete").all()
    failed = trials["state"] == "failed"
    assert set(trials["cause"][failed].tolist()) == {"out_of_memory"}
    assert failed.sum() <= 10
    assert (trials["state"][~failed][40:] == "infeasible").all()
    message = trials["message"][failed][0].splitlines()
    assert message[:2] == [
        "RuntimeError: cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "peak 97.00 GiB of 100.00 GiB on the device",
    ]


@pytest.mark.mpi
def test_a_library_error_on_a_device_with_room_says_nothing_about_memory(folder, gpus, mpisweep: Run):
    spec = sweep(folder, NEAR_THE_END.format(free=60), 'x = { values = [10, 50, 60], memory = "increasing" }')
    done = mpisweep("run", spec, "-n", "1", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    trials = package.load(folder / "r.h5").trials
    assert trials["cause"].tolist() == ["", "exception", "exception"]


@pytest.mark.mpi
def test_a_wide_trial_that_fails_on_a_used_device_runs_once_more_on_fresh_processes(
    folder, gpus, mpisweep: Run
):
    code = """
def run(trial):
    global broken
    Path(f"ran.{trial.number}.{trial.attempt}.{trial.rank}").touch()
    use_device()
    if trial.params["x"] == 1 and trial.rank == 1:
        broken = True
    return 1.0
"""
    spec = sweep(folder, code, "x = { from = 1, to = 4 }", "ranks_per_trial = 2")
    done = mpisweep("run", spec, "-n", "2", "-o", "r.h5")
    assert done.returncode == 0, done.stderr
    found = package.load(folder / "r.h5")
    assert found.trials["state"].tolist() == ["complete"] * 4
    assert found.attempts["end"].tolist().count("not_fresh") == 1
