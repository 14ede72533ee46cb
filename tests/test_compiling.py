"""torch.compile with the real inductor backend, and the allocator of GPU memory."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mpisweep.processes.kernel import adopt_orphans
from mpisweep.workloads import leftovers
from mpisweep.workloads.resnet50 import allocator
from mpisweep.workloads.resnet50.compiling import compiled, end_compilers


def test_compile_threads_are_the_trials_cores_unless_the_environment_sets_them(
    monkeypatch: pytest.MonkeyPatch,
):
    from torch._inductor import config

    with config.patch(compile_threads=32):
        monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
        compiled(nn.Linear(1, 1), 3)
        assert config.compile_threads == 3
        monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "7")
        compiled(nn.Linear(1, 1), 5)
        assert config.compile_threads == 3


def test_a_trial_compiles_after_the_leftovers_of_another_were_ended():
    """Inductor keeps its compile processes, and would use them also after they were killed."""
    from torch._inductor import async_compile, config

    adopt_orphans()
    with config.patch(compile_threads=2):
        for _ in range(2):
            pool = async_compile.AsyncCompile.process_pool()
            assert pool.submit(os.getpid).result(120) != os.getpid()
            end_compilers()
            assert not leftovers.end_leftovers()


@pytest.mark.parametrize("first", [3, 8, 6])
def test_a_first_batch_as_large_as_another_dimension_gets_no_program_of_its_own(
    monkeypatch: pytest.MonkeyPatch, first: int
):
    """Other dimensions are 3 channels, 8 x 8 pixels, and 6 x 6 after the first layer."""
    programs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        programs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for batch_size in (first, 5, 8, 3):
        compiled(model, 1)(torch.randn(batch_size, 3, 8, 8))
    torch._dynamo.reset()
    assert len(programs) == 1


#: Trains a network that inductor compiles in seconds; prints the programs compiled for each batch size.
PROGRAM = """
    import sys
    import torch
    from torch import nn
    from torch._dynamo.utils import counters
    from mpisweep.workloads.resnet50.compiling import compiled

    torch.set_num_threads(1)
    for batch_size in map(int, sys.argv[1:]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        model(torch.randn(2, 3, 8, 8))
        model = compiled(model, 1)
        before = counters["stats"]["unique_graphs"]
        model(torch.randn(batch_size, 3, 8, 8)).sum().backward()
        made = counters["stats"]["unique_graphs"] - before
        aot, inductor = counters["aot_autograd"], counters["inductor"]
        hits = aot["autograd_cache_hit"] + inductor["fxgraph_cache_hit"]
        print(batch_size, made, min(hits, 1), model.training)
"""


def start(cache: Path, *batch_sizes: int) -> subprocess.Popen[str]:
    root = os.fspath(Path(__file__).parent.parent)
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": os.fspath(cache), "PYTHONPATH": root}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), *map(str, batch_sizes)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def result(process: subprocess.Popen[str]) -> list[list[str]]:
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return [line.split() for line in printed.splitlines()]


@pytest.mark.long
def test_other_batch_sizes_need_no_compiling_and_workers_share_the_cache(tmp_path: Path):
    # Two workers of a node start at the same time with an empty cache.
    first, second = start(tmp_path, 3, 5, 7), start(tmp_path, 5, 3, 7)
    for found in [result(process) for process in (first, second)]:
        made = [int(programs) for _, programs, _, _ in found]
        assert made == [1, 0, 0], "one program serves all sizes, whichever comes first"
    # A later worker, or a new run.
    [(_, programs, hits, _)] = result(start(tmp_path, 7))
    assert (programs, hits) == ("1", "1"), "traced again, and its code found"


# ------------------------------------------------------------------------------------- the allocator


def driver(*, has_virtual_memory: bool, has_device: bool = True) -> SimpleNamespace:
    """Return a fake CUDA driver with one device."""

    def attribute(value: object, number: int, device: object) -> int:
        assert number == 102
        value._obj.value = int(has_virtual_memory)
        return 0

    return SimpleNamespace(
        cuInit=lambda flags: 0 if has_device else 100,
        cuDeviceGet=lambda device, number: 0,
        cuDeviceGetAttribute=attribute,
    )


@pytest.mark.parametrize(
    ("found", "setting", "expected"),
    [
        (driver(has_virtual_memory=True), {}, "expandable_segments:True"),
        (driver(has_virtual_memory=False), {}, None),
        (driver(has_virtual_memory=True, has_device=False), {}, None),
        (None, {}, None),
        (driver(has_virtual_memory=True), {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64"}, None),
        (
            driver(has_virtual_memory=True),
            {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False"},
            "expandable_segments:False",
        ),
    ],
)
def test_segments_are_expandable_if_the_device_supports_it_and_the_user_set_nothing(
    monkeypatch: pytest.MonkeyPatch,
    found: SimpleNamespace | None,
    setting: dict[str, str],
    expected: str | None,
):
    def load(name: str) -> SimpleNamespace:
        if found is None:
            raise OSError(f"{name}: cannot open shared object file")
        return found

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    allocator.use_expandable_segments()
    assert os.environ.get("PYTORCH_CUDA_ALLOC_CONF") == expected


def test_torch_reads_the_variable_after_its_import():
    program = (
        "import os, torch; os.environ['PYTORCH_CUDA_ALLOC_CONF'] = 'expandable_segments:True'; "
        "print(torch._C._accelerator_getAllocatorSettings())"
    )
    if not hasattr(torch._C, "_accelerator_getAllocatorSettings"):
        pytest.skip("this torch does not report the settings of its allocator")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "expandable_segments:True"
