from __future__ import annotations

import pytest

from mpisweep.batch.allocation import Allocation, this_allocation
from mpisweep.devices import Gpu, LayoutError, Node, default_workers, master_works, share_of

CPU = Node(tuple(range(8)), ())
GPUS = Node(tuple(range(16)), tuple(Gpu(str(i), "V100") for i in range(4)))


@pytest.mark.parametrize(
    ("policy", "node", "ranks", "works"),
    [
        ("auto", GPUS, 4, True), ("auto", GPUS, 5, False), ("auto", CPU, 8, True), ("auto", CPU, 9, False),
        ("works", GPUS, 5, True), ("idle", GPUS, 4, False),
    ],
)  # fmt: skip
def test_rank_0_works_when_a_device_would_idle_otherwise(policy, node, ranks, works):
    assert master_works(policy, node, ranks) is works


def test_workers_on_cpus_get_disjoint_sets_of_cores():
    shares = [share_of(CPU, worker, [CPU.cores] * 3, "node1") for worker in range(3)]
    assert [share.cores for share in shares] == [(0, 1), (2, 3, 4), (5, 6, 7)]
    assert shares[0].device == "cpu"
    assert shares[1].label == "cpu 2-4"


def test_cores_that_the_launcher_has_divided_stay_divided():
    sets = [(0, 1), (4, 5)]
    assert share_of(CPU, 1, sets, "node1").cores == (4, 5)


def test_more_workers_than_cores_share_them():
    two = Node((0, 1), ())
    assert [share_of(two, w, [two.cores] * 4, "n").cores for w in range(4)] == [(0,), (1,), (0,), (1,)]


def test_each_worker_sees_its_own_gpu_only():
    share = share_of(GPUS, 2, [GPUS.cores] * 4, "node1")
    assert share.device == "cuda:0"
    assert dict(share.environment)["CUDA_VISIBLE_DEVICES"] == "2"
    assert share.cores == (8, 9, 10, 11)
    assert share.label == "V100 #2"


def test_more_workers_than_gpus_is_an_error_in_one_sentence():
    with pytest.raises(LayoutError, match="node1 has 4 GPUs and 5 workers; start at most 4 ranks there"):
        share_of(GPUS, 0, [GPUS.cores] * 5, "node1")


def test_plain_run_starts_one_worker_a_gpu_or_a_core():
    assert default_workers(GPUS) == 4
    assert default_workers(CPU) == 8
    assert default_workers(Node(tuple(range(128)), ())) == 16


@pytest.mark.parametrize(
    ("environment", "allocation"),
    [
        ({}, Allocation("local", "")),
        ({"PJM_JOBID": "9714"}, Allocation("pjm", "9714")),
        ({"PJM_JOBID": "9714", "PJM_SUBJOBID": "9714[3]"}, Allocation("pjm", "9714[3]")),
        ({"SLURM_JOB_ID": "7"}, Allocation("slurm", "7")),
        ({"PBS_JOBID": "7.server"}, Allocation("pbs", "7.server")),
    ],
)
def test_the_batch_system_is_known_by_its_variables(environment, allocation):
    assert this_allocation(environment) == allocation
