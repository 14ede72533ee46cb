"""What is measured of a trial's use of its GPU, without a GPU: torch and the sensors are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mpisweep.workloads.gpuuse import GpuUse

GIB = 1 << 30


class Torch:
    """As much of torch as is asked; `reserved` is what its allocator holds now."""

    def __init__(self) -> None:
        self.reserved = self.peak = 0
        self.is_broken = False
        self.cuda = SimpleNamespace(
            is_initialized=lambda: True,
            reset_peak_memory_stats=self.reset,
            max_memory_reserved=lambda: self.peak,
            memory_reserved=lambda: self.reserved,
            mem_get_info=self.info,
            empty_cache=lambda: self.hold(0),
        )

    def hold(self, size: int) -> None:
        self.reserved, self.peak = size, max(size, self.peak)

    def reset(self) -> None:
        self.peak = self.reserved

    def info(self) -> tuple[int, int]:
        if self.is_broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return 0, 100 * GIB


class Sensors:
    """Sensors of a GPU of 100 GiB; `held` has what each process holds, None if the driver cannot say."""

    def __init__(self, held: dict[int, int] | None = None, busy: float | None = 0.5) -> None:
        self.held, self.busy = held or {}, busy
        self.total_bytes = 100 * GIB

    def bytes_of(self, is_counted) -> int | None:
        found = [size for process, size in self.held.items() if is_counted(process)]
        return sum(found) if found else None

    def busy_since(self, moment: float) -> float | None:
        return self.busy


@pytest.fixture
def torch(monkeypatch) -> Torch:
    found = Torch()
    monkeypatch.setitem(sys.modules, "torch", found)
    return found


def use_of(*sensors: Sensors, with_memory: bool = True, times: list[float] | None = None) -> GpuUse:
    clock = (lambda: times[0]) if times else (lambda: 0.0)
    use = GpuUse(with_memory=with_memory, clock=clock)
    use._sensors = sensors  # type: ignore[assignment]
    return use


def test_torch_holds_what_its_allocator_has_reserved_and_the_context(torch):
    use = use_of(Sensors({os.getpid(): 21 * GIB, 1: 50 * GIB}))
    torch.hold(60 * GIB)
    torch.hold(10 * GIB)
    use.begin()
    torch.hold(30 * GIB)
    torch.hold(20 * GIB)
    use.end(2.0)
    assert use.memory == pytest.approx(0.31), "not the peak of the trial before"
    use.release()
    assert (torch.reserved, use.holds_memory) == (0, True)


def test_where_the_driver_does_not_know_the_process_a_context_is_assumed(torch):
    use = use_of()
    use.begin()
    torch.hold(30 * GIB)
    use.end(2.0)
    assert use.memory == pytest.approx(0.31)
    torch.is_broken = True
    use.begin()
    use.end(2.0)
    assert use.memory is None, "after some failures every call fails"


def test_other_packages_hold_what_the_driver_says_at_the_end(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    use = use_of(Sensors({os.getpid(): 40 * GIB}))
    use.begin()
    use.end(0.1)
    assert use.memory == pytest.approx(0.4)
    use.release()
    assert use.holds_memory
    other = use_of(Sensors({1: 40 * GIB}))
    other.begin()
    other.end(0.1)
    other.release()
    assert (other.memory, other.holds_memory) == (None, False), "it holds none, or in another name space"


def test_a_program_holds_the_most_of_its_process_group(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    times = [10.0]
    sensors = Sensors()
    use = use_of(sensors, times=times)
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as program:
        use.begin()
        for size in (10, 30, 20):
            sensors.held = {program.pid: size * GIB, 1: 50 * GIB}
            use.watch(program.pid)
            times[0] += 1.0
        program.kill()
    use.end(3.0)
    assert use.memory == pytest.approx(0.3)
    use.begin()
    use.end(3.0)
    assert use.memory is None, "that was another trial"


@pytest.mark.parametrize(("wall_time_s", "busy"), [(2.0, 0.5), (0.5, None)])
def test_a_gpu_is_as_busy_as_the_driver_has_sampled(wall_time_s: float, busy: float | None):
    use = use_of(Sensors(busy=0.4), Sensors(busy=0.6), with_memory=False)
    use.begin()
    use.end(wall_time_s)
    assert (use.busy, use.memory) == (busy if busy is None else pytest.approx(busy), None)
    unknown = use_of(Sensors(busy=0.4), Sensors(busy=None))
    unknown.begin()
    unknown.end(wall_time_s)
    assert unknown.busy is None
