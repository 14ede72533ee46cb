"""Job scripts: requested resources, quoting, signals, and the shipped scripts."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scripts import load_script

from mpisweep.batch.checkscript import check_script
from mpisweep.batch.directives import read_script
from mpisweep.batch.jobscript import Payload, in_shell, write_script
from mpisweep.batch.request import Wishes, plan_job
from mpisweep.batch.site import Site, SiteError
from mpisweep.batch.sitefile import known_sites, load_site, parse_site
from mpisweep.batch.texts import clock

ROOT = Path(__file__).parent.parent
JOBSCRIPTS = sorted((ROOT / "jobscripts").glob("*.sh"))
PAYLOAD = Payload(name="tiny", sweep="sweep.toml", results="tiny.h5")
TWO_HOURS = Wishes(elapse_s=7200)
#: Installed in the environment of the tests, which need not be on PATH.
SHELLCHECK = shutil.which(
    "shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


def site(name: str, **changes: object) -> Site:
    return dataclasses.replace(load_site(str(ROOT / "jobscripts" / "sites" / f"{name}.toml")), **changes)


def directives(where: Site, payload: Payload = PAYLOAD, **wishes: object) -> list[str]:
    job = plan_job(where, dataclasses.replace(TWO_HOURS, **wishes))
    return list(write_script(job, payload).directives)


# ------------------------------------------------------------------------------------- requested resources


def test_pjm_is_asked_for_nodes_and_one_rank_per_gpu():
    asked = directives(site("flow-cx"), nodes=4)
    assert asked == [
        "-N tiny",
        "-L rscunit=cx",
        "-L rscgrp=cx-small",
        "-L node=4",
        "--mpi proc=16",
        "-L elapse=2:00:00",
        "-j",
        "-S",
        "-o tiny.%j.log",
    ]


def test_a_shared_node_is_asked_for_gpus():
    asked = directives(site("flow-cx-share"))
    assert "-L gpu=1" in asked
    assert "--mpi proc=1" in asked
    assert not [line for line in asked if "node" in line]


def test_a_container_asks_for_its_environment_and_keeps_mpi_outside():
    job = plan_job(site("flow-cx"), dataclasses.replace(TWO_HOURS, nodes=2))
    script = write_script(job, dataclasses.replace(PAYLOAD, image="/data/image.sif"))
    assert "-L jobenv=singularity" in script.directives
    text = script.text()
    assert 'inside=(singularity exec --nv --bind "$HOME,$PWD" "$image")' in text
    assert (
        'mpirun -n 8 -machinefile "$PJM_O_NODEINF" -npernode 4 "${inside[@]}" mpisweep run "$sweep"' in text
    )
    assert "module load gcc cuda openmpi_cuda nccl singularity" in text


def test_slurm_gets_long_options_and_signals_the_shell_before_the_end():
    asked = directives(site("slurm", cores_per_node=64), nodes=2, gpus=4, group="gpu", project="p1")
    assert asked == [
        "--job-name=tiny",
        "--partition=gpu",
        "--account=p1",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--cpus-per-task=16",
        "--gpus-per-node=4",
        "--time=2:00:00",
        "--no-kill",
        "--signal=B:USR1@40",
        "--output=tiny.%j.log",
    ]


def test_pbs_is_asked_for_chunks():
    asked = directives(site("pbs", cores_per_node=32), nodes=3, gpus=2)
    assert "-l select=3:ncpus=32:ngpus=2:mpiprocs=2" in asked
    assert "-l walltime=2:00:00" in asked


def test_grid_engine_gets_the_site_s_options_and_signals_the_shell_before_the_end():
    asked = directives(site("tsubame4"), nodes=2, project="tga-mine")
    assert asked == [
        "-N tiny",
        "-cwd",
        "-S /bin/bash",
        "-l node_f=2",
        "-l h_rt=2:00:00",
        "-notify",
        "-j y",
        "-o tiny.$JOB_ID.log",
    ]
    own = site("gridengine", size="-pe mpi {ranks}", gpus_per_node=4)
    assert directives(own, nodes=2, group="gpu.q", project="p")[3:8] == [
        "-q gpu.q",
        "-P p",
        "-pe mpi 8",
        "-l h_rt=2:00:00",
        "-notify",
    ]


def test_a_project_is_written_in_the_site_s_place_and_form():
    job = plan_job(site("tsubame4"), dataclasses.replace(TWO_HOURS, project="tga-mine"))
    assert "#   qsub -g tga-mine THIS_SCRIPT\n" in write_script(job, PAYLOAD).text()
    assert "#   qsub THIS_SCRIPT\n" in write_script(plan_job(site("tsubame4"), TWO_HOURS), PAYLOAD).text()
    asked = directives(site("miyabi-g"), nodes=3, project="gx00")
    assert asked[1:4] == ["-q regular-g", "-W group_list=gx00", "-l select=3:mpiprocs=1"]
    assert directives(site("abci3"), nodes=2, project="gag00000")[1:5] == [
        "-v USE_SSH=1", "-q rt_HF", "-P gag00000", "-l select=2:ncpus=192:ngpus=8:mpiprocs=8",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "size", "asked"), [
    ("pjm", "-L node={nodes}:noncont", "-L node=2:noncont"),
    ("slurm", "--nodes={nodes}-{nodes}", "--nodes=2-2"),
    ("pbs", "-l select={nodes}:ncpus={cores}:ngpus={gpus}", "-l select=2:ncpus=16:ngpus=4"),
    ("gridengine", "-pe mpi_{ranks_per_node} {ranks}", "-pe mpi_4 8"),
])  # fmt: skip
def test_the_site_s_request_for_nodes_replaces_the_system_s_default(name: str, size: str, asked: str):
    written = directives(site(name, size=size), nodes=2, gpus=4)
    option = {"pjm": "-L node", "slurm": "--nodes", "pbs": "-l select", "gridengine": "-pe"}[name]
    assert [line for line in written if line.startswith(option)] == [asked]


@pytest.mark.parametrize(("name", "changes", "wishes", "asked"), [
    # The default is the site file's proposal per GPU; a rank without a GPU needs no cores for loading data.
    ("slurm", {}, {"gpus": 4}, "--cpus-per-task=4"),
    ("pbs", {}, {"gpus": 4, "nodes": 3}, "-l select=3:ncpus=16:ngpus=4:mpiprocs=4"),
    ("pbs", {}, {"gpus": 0, "ranks": 8}, "-l select=1:ncpus=8:mpiprocs=8"),
    ("slurm", {"cores_per_node": 64}, {"gpus": 4}, "--cpus-per-task=16"),
    # --cores takes precedence.
    ("slurm", {}, {"gpus": 4, "cores": 9}, "--cpus-per-task=9"),
    ("slurm", {"cores_per_node": 64}, {"gpus": 4, "cores": 9}, "--cpus-per-task=9"),
    ("slurm", {}, {"gpus": 0, "ranks": 8, "cores": 2}, "--cpus-per-task=2"),
    ("pbs", {"cores_per_node": 32}, {"gpus": 2, "cores": 6}, "-l select=1:ncpus=12:ngpus=2:mpiprocs=2"),
    ("ito-b", {}, {"cores": 5}, "-L vnode-core=20"),
])  # fmt: skip
def test_a_rank_gets_cores_for_its_data(
    name: str, changes: dict[str, object], wishes: dict[str, object], asked: str
):
    assert asked in directives(site(name, **changes), **wishes)


def test_whole_nodes_include_their_cores_without_a_directive():
    asked = directives(site("flow-cx"), cores=10)
    assert asked == directives(site("flow-cx"))
    assert not [line for line in directives(site("slurm"), gpus=0, ranks=8) if "cpus" in line]


@pytest.mark.parametrize(("name", "changes", "wishes", "doubt"), [
    ("slurm", {}, {"gpus": 4, "cores": 1}, "4 cores for 4 GPUs per node are fewer than 2 per GPU, which "
                                           "leaves none for loading data; ask for more with --cores"),
    ("pbs", {}, {"gpus": 1, "cores": 1}, "1 core for 1 GPU per node are fewer than 2 per GPU"),
    ("slurm", {"cores_per_rank": None}, {"gpus": 4}, "the number of cores per rank is not set, and Slurm gives one, which leaves none for loading data; add --cores 4"),
    ("ito-b", {}, {"cores": 1}, "4 cores for 4 GPUs"),
    ("flow-cx", {"cores_per_node": 4}, {}, "4 cores for 4 GPUs"),
    ("slurm", {}, {"gpus": 4, "cores": 2}, ""),
    ("slurm", {}, {"gpus": 4}, ""),
    ("slurm", {}, {"gpus": 0, "ranks": 4, "cores": 1}, ""),
    ("wisteria-aquarius", {}, {"project": "g"}, ""),
    ("flow-cx-share", {}, {}, ""),
    ("workstation", {}, {}, ""),
    ("tsubame4", {}, {}, ""),
    ("tsubame4", {"cores_per_node": None}, {}, ""),
    ("gridengine", {"cores_per_rank": None, "size": "-pe mpi {ranks}"}, {"gpus": 4}, "the number of cores per rank is not set, and Grid Engine gives one"),
])  # fmt: skip
def test_too_few_cores_to_feed_the_gpus_give_a_warning(
    name: str, changes: dict[str, object], wishes: dict[str, object], doubt: str
):
    said = plan_job(site(name, **changes), dataclasses.replace(TWO_HOURS, **wishes)).doubt()
    assert said.startswith(doubt)
    assert bool(said) == bool(doubt)


def test_ranks_in_containers_get_their_cores_from_srun():
    job = plan_job(site("slurm"), dataclasses.replace(TWO_HOURS, gpus=4, nodes=2))
    text = write_script(job, dataclasses.replace(PAYLOAD, image="i.sif")).text()
    assert text.index("export SRUN_CPUS_PER_TASK=4\n") < text.index("srun --ntasks=8")
    assert "SRUN_CPUS_PER_TASK" not in write_script(job, PAYLOAD).text()


@pytest.mark.parametrize("name", ["pjm", "slurm", "pbs", "gridengine"])
def test_the_user_s_directives_come_last_in_the_head(name: str):
    where = site(name, directives=("--site-s-own",))
    given = (where.system.example, f"{where.system.marker} -Z 'two words'")
    script = write_script(plan_job(where, dataclasses.replace(TWO_HOURS, gpus=1, directives=given)), PAYLOAD)
    assert script.directives[-2:] == (where.system.example, "-Z 'two words'")
    head = script.text().partition("set -euo pipefail")[0].splitlines()
    assert head[-2:] == [
        f"{where.system.marker} {where.system.example}",
        f"{where.system.marker} -Z 'two words'",
    ]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("pjm", ["-m b,e", "--mail-list me@example.org"]),
        ("slurm", ["--mail-type=END,FAIL", "--mail-user=me@example.org"]),
        ("pbs", ["-m ae", "-M me@example.org"]),
        ("gridengine", ["-m ea", "-M me@example.org"]),
    ],
)
def test_the_batch_system_is_asked_to_mail_the_end_of_the_job(name, asked):
    where = site(name, size="-pe mpi 4") if name == "gridengine" else site(name)
    plain, mailing = (
        write_script(plan_job(where, dataclasses.replace(TWO_HOURS, gpus=1, mail=mail)), PAYLOAD)
        for mail in ("", "me@example.org")
    )
    assert [line for line in mailing.directives if line not in plain.directives] == asked
    # The check of scripts knows these options.
    assert len(check_script(mailing.text())) == len(check_script(plain.text()))


@pytest.mark.parametrize(
    ("name", "address", "message"),
    [
        ("slurm", "me", "--mail 'me': expected one address, such as name@example.org"),
        ("slurm", "a@b.org,c@d.org", "--mail 'a@b.org,c@d.org': expected one address"),
        ("slurm", "a@b.org\n#SBATCH -A x", "--mail 'a@b.org"),
        ("workstation", "a@b.org", "--mail a@b.org: a workstation has no batch system; leave out --mail"),
    ],
)
def test_a_mail_address_that_cannot_be_used_is_refused(name, address, message):
    with pytest.raises(SiteError) as caught:
        directives(site(name), gpus=1, mail=address)
    assert str(caught.value).lower().startswith(message.lower())


def test_virtual_nodes_and_directives_that_a_site_always_needs():
    asked = directives(site("ito-b"))
    assert asked[1:6] == ["-L rscunit=ito-b", "-X", "-L rscgrp=ito-g-4", "-L vnode=1", "-L vnode-core=36"]


def test_without_gpus_there_is_one_rank_per_core_or_the_site_s_number():
    assert "--mpi proc=12" in directives(site("fugaku"), nodes=3, project="g")
    assert "--ntasks-per-node=8" in directives(site("slurm", cores_per_node=8), gpus=0)
    assert "--ntasks-per-node=16" in directives(site("slurm", cores_per_node=64), gpus=0)


@pytest.mark.parametrize(("devices_per_trial", "ranks"), [(0.5, 8), (2, 2), (4, 1), (1, 4)])
def test_ranks_follow_the_gpus_that_a_trial_gets(devices_per_trial: float, ranks: int):
    assert plan_job(site("flow-cx"), TWO_HOURS, devices_per_trial).ranks == ranks


def test_the_walltime_is_passed_only_if_the_batch_system_does_not_report_the_end():
    for name, is_passed in (("pjm", True), ("pbs", True), ("slurm", False), ("tsubame4", True)):
        text = write_script(plan_job(site(name), dataclasses.replace(TWO_HOURS, gpus=1)), PAYLOAD).text()
        assert ("walltime=7200" in text) == is_passed
        assert ('--walltime "$((walltime - SECONDS))"' in text) == is_passed


def test_job_names_are_valid_for_each_system():
    assert (
        directives(site("pjm"), dataclasses.replace(PAYLOAD, name="700.sizes"), gpus=1)[0]
        == "-N sweep-700.sizes"
    )
    assert directives(site("pbs"), dataclasses.replace(PAYLOAD, name="v1.0"), gpus=1)[0] == "-N v1_0"
    assert directives(site("tsubame4"), dataclasses.replace(PAYLOAD, name="7/*?"))[0] == "-N sweep-7___"
    assert (
        len(directives(site("pjm"), dataclasses.replace(PAYLOAD, name="n" * 100), gpus=1)[0])
        == len("-N ") + 63
    )


@pytest.mark.parametrize(("seconds", "text"), [(7200, "2:00:00"), (59, "0:00:59"), (604800, "168:00:00")])
def test_times_are_written_in_the_form_that_all_systems_accept(seconds: float, text: str):
    assert clock(seconds) == text


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "wishes", "words"),
    [
        ("genkai", {"nodes": 9}, "--nodes 9: resource group b-batch of genkai gives at most 4"),
        ("genkai", {"nodes": 4, "elapse_s": 90 * 3600}, "--elapse 90:00:00: resource group b-batch of "
                                                        "genkai allows at most 48:00:00 for 4 nodes"),
        ("genkai", {"elapse_s": 300 * 3600}, "allows at most 168:00:00 for 1 node, and no other group "
                                             "allows more"),
        ("genkai", {"elapse_s": 7 * 3600, "group": "b-inter"}, "allows at most 6:00:00 for 1 node; b-batch "
                                                               "allows it"),
        ("genkai", {"group": "c-small"}, "--group c-small: is not a resource group of genkai; known are "
                                         "b-batch, b-inter"),
        ("genkai", {"elapse_s": None}, "--elapse: is missing; set the time limit"),
        ("wisteria-aquarius", {}, "--project: is missing"),
        ("flow-cx-share", {"nodes": 2}, "--nodes 2: a job on Flow Type II (Nagoya University), one V100 of "
                                        "a shared node has one node"),
        ("flow-cx", {"gpus": 8}, "--gpus 8: a node of flow-cx has 4"),
        ("flow-cx", {"group": "cx small"}, "--group 'cx small': expected a name without spaces"),
        ("flow-cx", {"project": "a\n#PJM -L node=100"}, "--project"),
        ("flow-cx", {"modules": ("gcc; rm -r x",)}, "--module"),
        ("flow-cx", {"cores": 11}, "--cores 11: 4 ranks per node would have 44 cores, and a node of flow-cx has 40"),
        ("flow-cx-share", {"cores": 2}, "one V100 of a shared node gives cores with the GPUs; leave out --cores"),
        ("workstation", {"cores": 2}, "--cores 2: a workstation has no batch system; leave out --cores"),
        ("workstation", {"directives": ("-x",)}, "--directive '-x': a workstation has no batch system; leave out --directive"),
        ("slurm", {"gpus": 1, "directives": ("constraint=a100",)}, "--directive 'constraint=a100': expected "
                                                                   "one option of sbatch, e.g. "
                                                                   "'--constraint=a100'"),
        ("pbs", {"gpus": 1, "directives": ("-l a=1\n"
                                           "rm -r x",)}, "expected one option of qsub, e.g. '-l "
                                                         "place=scatter:excl'"),
        ("pjm", {"gpus": 1, "directives": ("",)}, "--directive '': expected one option of pjsub, e.g. '-m "
                                                  "e'"),
        ("gridengine", {"gpus": 4}, "--site gridengine: the site file does not state how to ask for nodes, and Grid Engine has no option for it; add --directive, e.g. "
                                    "--directive=\"-pe mpi 8\", or set size in a copy of the file, e.g. size = \"-l node_f={nodes}\""),
        ("tsubame4", {"gpus": 1, "directives": ("node_f=1",)}, "expected one option of qsub, e.g. '-l "
                                                               "s_vmem=4G'"),
        ("miyabi-g", {}, "--project: is missing; jobs on Miyabi-G"),
        ("slurm", {}, "--site slurm: the site file does not state the GPUs per node; add --gpus (without GPUs, --gpus 0 and --ranks)"),
        ("slurm", {"gpus": 0}, "does not state the cores per node, and there are no GPUs to count by; add --ranks"),
    ],
)  # fmt: skip
def test_a_request_that_the_site_cannot_meet_is_refused_in_one_sentence(
    name: str, wishes: dict[str, object], words: str
):
    with pytest.raises(SiteError) as raised:
        plan_job(site(name), dataclasses.replace(TWO_HOURS, **wishes))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_unknown_limits_refuse_nothing():
    job = plan_job(site("flow-cx"), dataclasses.replace(TWO_HOURS, nodes=500, elapse_s=1e6))
    assert "does not state the limits of" in write_script(job, PAYLOAD).text()


def test_more_gpus_per_trial_than_per_node_are_refused():
    with pytest.raises(SiteError, match="--gpus 4: is fewer than the 8 GPUs per trial"):
        plan_job(site("flow-cx"), TWO_HOURS, devices_per_trial=8)


def test_a_job_with_fewer_ranks_than_a_trial_needs_is_refused():
    with pytest.raises(
        SiteError, match=r"--nodes 1: gives 4 ranks, and a trial of the sweep has 8 \(ranks_per_trial\)"
    ):
        plan_job(site("flow-cx"), TWO_HOURS, ranks_per_trial=8)
    assert plan_job(site("flow-cx"), dataclasses.replace(TWO_HOURS, nodes=2), ranks_per_trial=8).ranks == 8


def test_an_unknown_site_is_answered_with_the_nearest_one_or_with_all(mpisweep):
    def said(site: str) -> str:
        done = mpisweep(
            "jobscript", "resnet50", "-p", "batch_size=1:3", "--site", site, "--elapse", "1:00:00"
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "did you mean 'flow-cx'?" in said("flowcx")
    listed = said("nowhere")
    for path in (Path(__file__).parent.parent / "mpisweep" / "batch" / "sites").glob("*.toml"):
        assert path.stem in listed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("system = 'lsf'", "system: found 'lsf'; expected one of pjm, slurm, pbs, gridengine, workstation"),
        ("", "system: found nothing"),
        ("system = 'pjm'\ngpus = 4", "gpus: is not a key of a site file"),
        ("system = 'pjm'\ngpu_per_node = 4", "did you mean 'gpus_per_node'?"),
        ("system = 'pjm'\n"
         "gpus_per_node = 'four'", "gpus_per_node: found 'four'; expected an integer of at least 0"),
        ("system = 'pjm'\nmodules = 'gcc'", "modules: found 'gcc'; expected a list"),
        ("system = 'pjm'\ndirectives = ['-L \"a b\"']", "expected an option without quotes"),
        ("system = 'pjm'\n"
         "launch = 'mpirun -n 4'", "launch: found 'mpirun -n 4'; expected one line with {ranks} in it"),
        ("system = 'pjm'\n"
         "[groups.small]\n"
         "limits = [{ nodes = 4, elapse = 'long' }]", "groups.small.limits.elapse: found 'long'"),
        ("system = 'pjm'\n[groups.small]\nlimits = 4", "groups.small.limits: found 4"),
        ("system = 'pjm'\ngroups = 3", "groups: found 3; expected a table"),
        ("system = 'pjm'\nproject_needed = 'yes'", "project_needed: found 'yes'; expected true or false"),
        ("system = 'gridengine'\n"
         "size = '-l node_f=2'", "size: found '-l node_f=2'; expected an option with {nodes} or {ranks}"),
        ("system = 'gridengine'\nsize = 'node_f={nodes}'", "size: found"),
        ("system = 'gridengine'\nsize = '-l node_f={nodes}{'", "size: found"),
        ("system = 'gridengine'\nsize = '-l node_f={nodes}{0}'", "size: found"),
        ("system = 'gridengine'\nsize = '-l node_f={nodes}; rm'", "size: found"),
        ("system = 'gridengine'\nsize = 3", "size: found 3; expected text in quotes"),
        ("system = 'pbs'\n"
         "project = '-P me'", "project: found '-P me'; expected an option with {project} in it, e.g. '-P "
                              "{project}'"),
        ("system = 'pbs'\nproject_with_command = 1", "project_with_command: found 1; expected true or false"),
        ("system = ", "is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_site_file_is_reported_with_its_place(text: str, words: str):
    with pytest.raises(SiteError) as raised:
        parse_site(text, name="mine", source="mine.toml")
    assert str(raised.value).startswith("mine.toml: ")
    assert words in str(raised.value)


@given(st.dictionaries(
    st.sampled_from(["title", "system", "gpus_per_node", "ranks_per_node", "modules", "launch", "container", "groups", "setup", "x"]),
    st.recursive(
        st.sampled_from(["pjm", "{ranks}", -1, 0, 3, 10**30, True, 1.5, "a b", "a\\nb", "'"]),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["limits", "nodes", "elapse", "binds", "g"]), inner, max_size=2),
        max_leaves=4,
    ),
))  # fmt: skip
def test_any_site_file_is_read_or_refused_with_a_reason(raw: dict[str, object]):
    def toml(value: object) -> str:
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
        if isinstance(value, list):
            return f"[{', '.join(map(toml, value))}]"
        return json.dumps(value)

    try:
        found = parse_site(
            "\n".join(f"{key} = {toml(value)}" for key, value in raw.items()), name="mine", source="mine.toml"
        )
    except SiteError as error:
        assert str(error).startswith("mine.toml: ")
    else:
        assert found.name == "mine"


def test_a_user_s_own_site_is_found_by_name_and_takes_precedence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = tmp_path / "mpisweep" / "sites"
    own.mkdir(parents=True)
    (own / "flow-cx.toml").write_text("system = 'pjm'\ntitle = 'mine'\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_site("flow-cx").title == "mine"
    assert load_site("genkai").gpus_per_node == 4


def test_every_shipped_site_is_read_and_names_its_sources():
    names = {
        "flow-cx",
        "flow-cx-share",
        "wisteria-aquarius",
        "genkai",
        "fugaku",
        "ito-b",
        "pjm",
        "slurm",
        "pbs",
        "workstation",
    }
    names |= {"gridengine", "tsubame4", "miyabi-g", "abci3"}
    assert set(known_sites([ROOT / "mpisweep" / "batch" / "sites"])) == names
    for name in names:
        assert site(name).title
        text = (ROOT / "jobscripts" / "sites" / f"{name}.toml").read_text()
        assert "Source" in text or name in ("pjm", "slurm", "pbs", "gridengine", "workstation")


# ------------------------------------------------------------------------------------- quoting

#: Stands in for mpisweep and records its folder and arguments.
FAKE = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([os.getcwd(), sys.argv[1:]]) + "\\n")
"""
HOSTILE = "a 'b\" $(touch oops) `touch oops` ${HOME}\n#PJM -L node=99\\ \t* ~ ü \x01z"


def run_script(tmp_path: Path, text: str, **environment: str) -> list[tuple[str, list[str]]]:
    """Run a script with a `mpisweep` that records its folder and arguments."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "mpisweep").write_text(FAKE)
    (programs / "mpisweep").chmod(0o755)
    path = tmp_path / "job.sh"
    path.write_text(text)
    calls = tmp_path / "calls"
    calls.unlink(missing_ok=True)
    subprocess.run(
        ["bash", path], cwd=tmp_path, check=True, capture_output=True,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls)} | environment,
    )  # fmt: skip
    return [tuple(json.loads(line)) for line in calls.read_text().splitlines()]


@pytest.mark.parametrize("name", ["pjm", "slurm", "pbs", "tsubame4", "workstation"])
def test_hostile_names_arrive_as_they_are(tmp_path: Path, name: str):
    folder = tmp_path / HOSTILE
    (folder / "env" / "bin").mkdir(parents=True)
    (folder / "env" / "bin" / "activate").write_text("")
    payload = Payload(
        name="tiny",
        sweep=f"./{HOSTILE}.toml",
        results=f"{HOSTILE}.h5",
        folder=str(folder),
        venv=str(folder / "env"),
        arguments=("-p", f"x={HOSTILE}"),
        command_line=("python", HOSTILE, "{x}"),
    )
    text = write_script(
        plan_job(site(name, modules=()), dataclasses.replace(TWO_HOURS, gpus=1)), payload
    ).text()
    assert len(read_script(text).directives) <= 11
    assert "\n#PJM -L node=99" not in text
    calls = run_script(tmp_path, text)
    walltime = ["--walltime", calls[0][1][7]] if name in ("pjm", "pbs", "tsubame4") else []
    run = [
        "run",
        payload.sweep,
        *payload.arguments,
        "-o",
        payload.results,
        *walltime,
        "--",
        *payload.command_line,
    ]
    assert calls == [(str(folder), run), (str(folder), ["top", payload.results])]
    assert not list(tmp_path.rglob("oops"))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
@example("~/a b")
@example("\x01f\x7f0")
@example("-n")
@example("!$'\\'")
def test_any_text_is_quoted_as_one_word_of_the_shell(text: str):
    word = in_shell(text)
    assert "\n" not in word
    done = subprocess.run(
        ["bash", "-c", f"printf %s {word}" if not text.startswith("-") else f"printf -- %s {word}"],
        capture_output=True, check=True, env={"HOME": "/h", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    wanted = f"/h/{text[2:]}" if text.startswith("~/") else text
    assert done.stdout == wanted.encode()


def test_a_path_in_the_home_folder_is_written_relative_to_it():
    assert in_shell("~/my sweeps/s.toml") == "\"$HOME\"/'my sweeps/s.toml'"


# ------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(("name", "number"), [
    ("pjm", "XCPU"), ("pjm", "TERM"), ("slurm", "USR1"), ("pbs", "TERM"), ("tsubame4", "USR2"), ("tsubame4", "USR1"),
])  # fmt: skip
def test_a_signal_to_the_shell_stops_the_sweep_cleanly_and_the_script_waits(
    tmp_path: Path, name: str, number: str
):
    programs = tmp_path / "programs"
    programs.mkdir()
    # Like a real sweep, it takes some time to stop.
    (programs / "mpisweep").write_text(f"""#!{sys.executable}
import pathlib, signal, sys, time
if sys.argv[1] == "top":
    sys.exit()
asked = []
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append(number))
pathlib.Path("ready").touch()
while not asked:
    time.sleep(0.01)
time.sleep(0.3)
pathlib.Path("stopped").touch()
sys.exit(3)
""")
    (programs / "mpisweep").chmod(0o755)
    job = plan_job(site(name, modules=()), dataclasses.replace(TWO_HOURS, gpus=1))
    text = write_script(job, dataclasses.replace(PAYLOAD, folder=str(tmp_path))).text()
    (tmp_path / "job.sh").write_text(text)
    running = subprocess.Popen(
        ["bash", "job.sh"], cwd=tmp_path, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
    )  # fmt: skip
    while not (tmp_path / "ready").exists():
        assert running.poll() is None
    subprocess.run(["bash", "-c", f"kill -{number} {running.pid}"], check=True)
    said, _ = running.communicate()
    assert running.returncode == 3
    assert (tmp_path / "stopped").exists()
    assert "submit this script again" in said


# ------------------------------------------------------------------------------------- the command


def test_the_quick_form_and_command_lines_become_scripts(folder: Path, mpisweep):
    done = mpisweep(
        "jobscript",
        "-p",
        "x=1:3",
        "--metric",
        "loss=loss: ",
        "--name",
        "quick",
        "--site",
        "flow-cx",
        "--elapse",
        "1:00:00",
        "--master",
        "idle",
        "--",
        "echo",
        "loss: {x}",
    )
    assert done.returncode == 0, done.stderr
    assert (
        "mpisweep run -p x=1:3 --metric 'loss=loss: ' --name quick --master idle -o \"$results\""
        in done.stdout
    )
    assert "-- echo 'loss: {x}'" in done.stdout
    done = mpisweep("jobscript", "workloads:half", "-p", "x=1:3", "--site", "workstation")
    assert 'mpisweep run workloads:half -p x=1:3 -o "$results"' in done.stdout
    assert "cd -- " in done.stdout


def test_cores_and_directives_are_written_to_the_script_and_a_doubt_is_printed(folder: Path, mpisweep):
    done = mpisweep(
        "jobscript",
        "workloads:half",
        "-p",
        "x=1:3",
        "--site",
        "slurm",
        "--gpus",
        "2",
        "--elapse",
        "1:00:00",
        "--cores",
        "1",
        "--directive=--constraint=a100",
        "--directive",
        "#SBATCH --reservation=r",
    )
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --cpus-per-task=1\n" in done.stdout
    assert "#SBATCH --constraint=a100\n#SBATCH --reservation=r\nset -euo pipefail\n" in done.stdout
    assert "mpisweep: warning: 2 cores for 2 GPUs per node are fewer than 2 per GPU" in done.stderr


def test_a_sweep_that_compute_nodes_cannot_see_gives_a_warning(folder: Path, mpisweep):
    done = mpisweep("jobscript", "workloads:half", "-p", "x=1:3", "--site", "flow-cx", "--elapse", "1:00:00")
    assert done.returncode == 0
    assert done.stdout.startswith("#!/bin/bash")
    assert "warning: the sweep is in" in done.stderr


# ------------------------------------------------------------------------------------- shipped scripts


@pytest.mark.parametrize("script", JOBSCRIPTS, ids=lambda path: path.stem)
def test_a_shipped_script_is_what_the_generator_writes(script: Path):
    assert script.read_text() == load_script("jobscripts/write_all.py").script_text(script.stem), (
        "`make jobscripts` rewrites them"
    )
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", JOBSCRIPTS, ids=lambda path: path.stem)
def test_a_shipped_script_passes_the_shell_s_own_checks(script: Path):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
@pytest.mark.parametrize("script", JOBSCRIPTS, ids=lambda path: path.stem)
def test_a_shipped_script_passes_shellcheck(script: Path):
    done = subprocess.run([SHELLCHECK, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(SHELLCHECK is None, reason="needs shellcheck")
@pytest.mark.parametrize("name", ["pjm", "slurm", "pbs", "tsubame4", "workstation"])
def test_a_script_with_hostile_names_passes_shellcheck(tmp_path: Path, name: str):
    payload = dataclasses.replace(
        PAYLOAD, folder=HOSTILE, sweep=f"{HOSTILE}.toml", conda=HOSTILE, chained=True
    )
    text = write_script(plan_job(site(name), dataclasses.replace(TWO_HOURS, gpus=1)), payload).text()
    (tmp_path / "job.sh").write_text(text)
    # SC2016 reports literal `$` in single quotes; the hostile names contain it on purpose.
    done = subprocess.run(
        [SHELLCHECK, "-e", "SC2016", tmp_path / "job.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_all_kinds_of_systems_have_a_shipped_script():
    names = {path.stem for path in JOBSCRIPTS}
    assert names == {
        "flow-cx",
        "flow-cx-share",
        "flow-cx-singularity",
        "wisteria-aquarius",
        "pjm",
        "slurm",
        "pbs",
        "gridengine",
        "tsubame4",
        "miyabi-g",
        "abci3",
        "workstation",
    }


def test_a_job_of_a_split_sweep_passes_split_and_explains_it():
    script = write_script(plan_job(site("flow-cx"), TWO_HOURS), dataclasses.replace(PAYLOAD, split=4)).text()
    assert 'mpisweep run "$sweep" -o "$results" --split 4 --walltime' in script
    assert "# Submit it several times: the jobs work on the sweep together." in script
    assert "if no other job runs it, submit this script again to resume it" in script
    assert "--split" not in write_script(plan_job(site("flow-cx"), TWO_HOURS), PAYLOAD).text()
