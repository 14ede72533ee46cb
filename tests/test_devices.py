from __future__ import annotations

import os
from pathlib import Path

import pytest

from mpisweep.batch.allocation import this_allocation
from mpisweep.batch.jobfacts import Allocation
from mpisweep.devices.gpus import Gpu, amd_gpus, environment_for, nvidia_gpus
from mpisweep.devices.nodes import LayoutError, Node, default_workers, lay_out
from mpisweep.spec import SpecError, parse_spec

CPU = Node(tuple(range(8)), ())
GPUS = Node(tuple(range(16)), tuple(Gpu(str(i), "V100", f"GPU-{i}") for i in range(4)))

#: Output of `nvidia-smi -L`, from NVIDIA's MIG user guide.
MIG = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 1g.5gb      Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-f08c3bbd-f3f9-e1f8-bc5d-d5a2a0fe6b9e)
"""


def shares(nodes: list[Node], **options):
    return lay_out(nodes, **({"has_master": False, "host": "node1"} | options))


def works(node: Node, ranks: int, policy: str = "auto", **options) -> bool:
    return shares([node] * ranks, has_master=True, policy=policy, **options)[0] is not None


@pytest.mark.parametrize(
    ("policy", "node", "ranks", "does"),
    [
        ("auto", GPUS, 4, True), ("auto", GPUS, 5, False), ("auto", CPU, 8, True), ("auto", CPU, 9, False),
        ("works", CPU, 9, True), ("idle", GPUS, 4, False),
    ],
)  # fmt: skip
def test_rank_0_runs_trials_if_a_device_would_be_idle_otherwise(policy, node, ranks, does):
    assert works(node, ranks, policy) is does


def test_workers_on_cpus_get_disjoint_sets_of_cores():
    made = shares([CPU] * 3)
    assert [share.cores for share in made] == [(0, 1), (2, 3, 4), (5, 6, 7)]
    assert made[0].device == "cpu"
    assert made[1].label == "cpu 2-4"


def test_cores_that_the_launcher_has_divided_stay_divided():
    made = shares([Node((0, 1), ()), Node((4, 5), ())])
    assert made[1].cores == (4, 5)


def test_more_workers_than_cores_share_them():
    assert [share.cores for share in shares([Node((0, 1), ())] * 4)] == [(0,), (1,), (0,), (1,)]


def test_each_worker_sees_its_own_gpu_only():
    share = shares([GPUS] * 4)[2]
    assert share.device == "cuda:0"
    assert dict(share.environment) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "2"}
    assert share.cores == (8, 9, 10, 11)
    assert share.label == "V100 #2"


def test_ranks_that_were_given_a_gpu_each_keep_it():
    """Under `srun --gpus-per-task=1` each rank sees its own GPU as number 0."""
    nodes = [Node(GPUS.cores, (Gpu("0", "V100", f"GPU-{i}"),)) for i in range(4)]
    assert [dict(share.environment)["CUDA_VISIBLE_DEVICES"] for share in shares(nodes)] == ["0"] * 4
    assert works(nodes[0], 1)
    assert shares(nodes, has_master=True)[0] is not None


def test_gpus_are_shared_only_when_asked():
    with pytest.raises(LayoutError, match=r"node1 has 4 GPUs and 5 workers; start up to 4 ranks there.*0\.5"):
        shares([GPUS] * 5)
    made = shares([GPUS] * 8, devices_per_trial=0.5)
    assert [dict(share.environment)["CUDA_VISIBLE_DEVICES"] for share in made] == list("01230123")
    with pytest.raises(
        LayoutError, match=r"4 GPUs and 9 workers with devices_per_trial = 0\.5; start up to 8"
    ):
        shares([GPUS] * 9, devices_per_trial=0.5)
    same = [Node((0,), (Gpu("0", "V100", "GPU-0"),)), Node((1,), (Gpu("0", "V100", "GPU-0"),))]
    with pytest.raises(LayoutError, match="node1 has 1 GPU and 2 workers; start up to 1 rank there"):
        shares(same)


def test_a_trial_may_have_several_gpus():
    made = shares([GPUS] * 2, devices_per_trial=2)
    assert [dict(share.environment)["CUDA_VISIBLE_DEVICES"] for share in made] == ["0,1", "2,3"]
    assert works(GPUS, 3, devices_per_trial=2) is False
    with pytest.raises(LayoutError, match="start up to 2 ranks"):
        shares([GPUS] * 3, devices_per_trial=2)


def test_a_rank_without_a_gpu_beside_others_with_one_is_an_error():
    with pytest.raises(LayoutError, match="1 of the 3 workers on node1 see no GPU but the others do"):
        shares([GPUS, GPUS, CPU])


def test_plain_run_starts_one_worker_per_gpu_or_per_core():
    assert default_workers(GPUS) == 4
    assert default_workers(GPUS, 0.5) == 8
    assert default_workers(GPUS, 2) == 2
    assert default_workers(CPU) == 8
    assert default_workers(Node(tuple(range(128)), ())) == 16


def test_a_gpu_that_is_divided_counts_as_its_instances():
    found = nvidia_gpus(MIG, None)
    assert [gpu.name for gpu in found] == [
        "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA A100-SXM4-40GB",
    ]  # fmt: skip
    assert [gpu.selector for gpu in found] == [found[0].identity, found[1].identity, "1"]
    made = shares([Node((0, 1, 2), found)] * 3)
    assert dict(made[0].environment)["CUDA_VISIBLE_DEVICES"] == "MIG-c7384736-a75d-5afc-978f-d2f1294409fd"


@pytest.mark.parametrize(
    ("allowed", "identities"),
    [
        ("1", ["GPU-f0"]), ("0", ["MIG-c7", "MIG-a2"]), ("GPU-f08", ["GPU-f0"]), ("MIG-a28ad590", ["MIG-a2"]),
        ("GPU-5d5ba0d6", ["MIG-c7", "MIG-a2"]), ("1,0", ["GPU-f0", "MIG-c7", "MIG-a2"]), ("", []), ("-1", []),
        ("1,7,0", ["GPU-f0"]), ("1,1", ["GPU-f0"]), ("NoDevFiles", []),
    ],
)  # fmt: skip
def test_only_visible_devices_are_used(allowed, identities):
    assert [gpu.identity[:6] for gpu in nvidia_gpus(MIG, allowed)] == identities


@pytest.mark.parametrize(
    ("environment", "selectors"),
    [
        ({}, ["0", "1"]), ({"ROCR_VISIBLE_DEVICES": "1"}, ["1"]), ({"HIP_VISIBLE_DEVICES": "1"}, ["1"]),
        ({"ROCR_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["1"]), ({"CUDA_VISIBLE_DEVICES": ""}, []),
    ],
)  # fmt: skip
def test_gpus_of_amd_are_found_in_sysfs(tmp_path, environment, selectors):
    for number, (units, name) in enumerate([(0, ""), (304, "gfx942"), (304, "gfx942")]):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "name").write_text(f"{name}\n")
        (tmp_path / str(number) / "properties").write_text(
            f"cpu_cores_count 0\nsimd_count {units}\ndrm_render_minor 9{number}\nunique_id 77{number}\n"
        )
    found = amd_gpus(tmp_path, environment)
    assert [gpu.selector for gpu in found] == selectors
    assert all(gpu.name == "gfx942" and gpu.maker == "amd" for gpu in found)
    if len(found) == 2:
        variables = dict(environment_for(found[1:]))
        assert variables == {
            "ROCR_VISIBLE_DEVICES": "1",
            "HIP_VISIBLE_DEVICES": "0",
            "CUDA_VISIBLE_DEVICES": "0",
        }


@pytest.mark.parametrize("wrong", ["0", "1.5", "-1", "0.4", "true", '"two"', "1000"])
def test_an_invalid_share_of_a_device_is_refused(wrong):
    with pytest.raises(
        SpecError,
        match=r"devices_per_trial: is .*; expected 1, 2, \.\.\. GPUs, a share such as 0\.5 or .*\"auto\"",
    ):
        parse_spec(f'workload = "resnet50"\ndevices_per_trial = {wrong}\n', source="s", folder=Path("/"))


def test_workers_that_share_a_gpu_by_measurement_have_all_of_it_and_its_cores():
    """Two GPUs, three workers each; without GPUs it is the same as one per trial."""
    two = Node(tuple(range(12)), tuple(Gpu(str(n), "H200", f"GPU-{n}") for n in range(2)))
    made = shares([two] * 6, devices_per_trial=1 / 8, packs=True)
    assert [share.gpus for share in made if share] == [("GPU-0",), ("GPU-1",)] * 3
    assert {share.kind for share in made if share} == {"H200"}
    assert all(share.is_packed and share.gpu_count == pytest.approx(1 / 3) for share in made if share)
    assert [len(share.cores) for share in made if share] == [6] * 6
    assert default_workers(two, 1 / 8) == 16
    with pytest.raises(LayoutError, match='17 workers with devices_per_trial = "auto"; start up to 16'):
        shares([two] * 17, devices_per_trial=1 / 8, packs=True)
    plain = shares([Node((0, 1), ())] * 2, devices_per_trial=1 / 8, packs=True)
    assert [(share.device, share.is_packed) for share in plain if share] == [("cpu", False)] * 2


def test_ranks_of_one_trial_do_not_share_gpus_by_measurement():
    spec = 'workload = "resnet50"\ndevices_per_trial = "auto"\nranks_per_trial = 2\n'
    with pytest.raises(SpecError, match=r'devices_per_trial: is "auto", but ranks of one trial cannot share'):
        parse_spec(spec, source="s", folder=Path("/"))
    alone = parse_spec(spec.replace("ranks_per_trial = 2\n", ""), source="s", folder=Path("/"))
    assert alone.packs
    assert alone.devices_per_trial == 1 / 8


@pytest.mark.mpi
def test_check_devices_shows_the_device_of_each_rank(folder, mpisweep, environment):
    tool = folder / "bin"
    tool.mkdir()
    (tool / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{MIG}END\n")
    (tool / "nvidia-smi").chmod(0o755)
    environment["PATH"] = f"{tool}:{environment['PATH']}"
    done = mpisweep("check", "resnet50", "--devices", ranks=4)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "none: master only" in lines[1]
    assert "CUDA_VISIBLE_DEVICES=MIG-c7384736" in lines[2]
    assert lines[4].endswith("CUDA_VISIBLE_DEVICES=1")
    too_many = mpisweep("check", "resnet50", "--devices", ranks=5)
    assert too_many.returncode != 0
    assert too_many.stderr.count("has 3 GPUs and 4 workers") == 1
    alone = mpisweep("check", "resnet50", "--devices")
    assert len(alone.stdout.splitlines()) == 4


def test_check_devices_without_a_launcher_shows_as_many_workers_as_run_would_start(mpisweep):
    several = len(os.sched_getaffinity(0)) + 1
    done = mpisweep("check", "resnet50", "--devices", "-n", str(several))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + several
    assert "none" not in done.stdout
    idle = mpisweep("check", "resnet50", "--devices", "-n", str(several), "--master", "idle").stdout
    assert len(idle.splitlines()) == 2 + several
    assert "none: master only" in idle


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
