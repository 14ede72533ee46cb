"""`mpisweep jobscript --check`: all kinds of mistakes are found, with line and remedy."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpisweep.batch.checkscript import check_script
from mpisweep.batch.directives import asked_for, read_script
from mpisweep.batch.gridengine import GRID_ENGINE
from mpisweep.batch.pbs import PBS
from mpisweep.batch.pjm import PJM
from mpisweep.batch.scriptsheet import Facts, Finding, Severity
from mpisweep.batch.sitefile import load_site
from mpisweep.batch.slurm import SLURM

ROOT = Path(__file__).parent.parent

GOOD = {
    "pjm": """#!/bin/bash
#PJM -L rscgrp=b-batch
#PJM -L node=2
#PJM --mpi proc=8
#PJM -L elapse=2:00:00
#PJM -j
#PJM -o sweep.%j.log
module load gcc ompi cuda
source venv/bin/activate
mpisweep run sweep.toml -o /home/me/sweep.h5 --walltime 2:00:00
""",
    "slurm": """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=4 -c 8   # one per GPU
#SBATCH --gres=gpu:a100:4
#SBATCH -t 0-02:00
#SBATCH --output=sweep.%j.log
module load openmpi
srun mpisweep run sweep.toml -o /home/me/sweep.h5
""",
    "pbs": """#!/bin/bash
#PBS -l select=2:ncpus=32:ngpus=4:mpiprocs=4 -l walltime=02:00:00
#PBS -joe
cd "$PBS_O_WORKDIR"
source venv/bin/activate
mpisweep run sweep.toml -o /home/me/sweep.h5 --walltime 7200
""",
    "gridengine": """#!/bin/bash
#$ -cwd
#$ -l node_f=2,h_rt=2:00:00
#$ -p -5
#$ -j y
module load cuda openmpi
#$ -N sweep
source venv/bin/activate
mpisweep run sweep.toml -o /home/me/sweep.h5 --walltime 7200
""",
}


def found(text: str, **given: object) -> list[Finding]:
    return check_script(text, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("system", GOOD)
def test_a_good_script_has_no_findings(system: str):
    assert found(GOOD[system]) == []


@pytest.mark.parametrize("script", sorted((ROOT / "jobscripts").glob("*.sh")), ids=lambda path: path.stem)
def test_the_shipped_scripts_have_no_findings(script: Path):
    site = load_site("workstation") if script.stem == "workstation" else None
    assert found(script.read_text(), site=site) == []


@pytest.mark.parametrize(
    ("system", "before", "after", "line", "severity", "what", "right"),
    [
        ("pjm", "proc=8", "proc=4", 4, "error", "4 ranks are fewer than the 8 GPUs", "8 ranks, one per GPU"),
        ("pjm", "proc=8", "proc=12", 4, "error", "12 ranks are more than the 8 GPUs", "8 ranks"),
        ("pjm", "proc=8", "proc=16", 4, "warning", "16 ranks are more", "devices_per_trial = 0.5"),
        ("slurm", "per-node=4", "per-node=1", 2, "error", "2 ranks are fewer than the 8 GPUs", "8 ranks"),
        ("pbs", "mpiprocs=4", "mpiprocs=2", 2, "error", "4 ranks are fewer than the 8 GPUs", "8 ranks"),
        ("pjm", "elapse=2:00:00", "elapse=100:00:00", 5, "error", "100:00:00 is longer than resource group "
                                                                  "b-batch allows for 2 nodes", "up to 96:00:00"),
        ("pjm", "node=2\n", "node=5\n", 3, "error", "5 nodes are more than resource group b-batch allows", "up to 4"),
        ("pjm", "elapse=2:00:00", "elapse=2h", 5, "error", "'2h' is not a valid time limit", "-L elapse=2:00:00"),
        ("slurm", "#SBATCH -t 0-02:00\n", "", 1, "warning", "no time limit is set", "#SBATCH "
                                                                                          "--time=2:00:00"),
        ("pjm", "module load gcc ompi cuda\n", "", 1, "warning", "no module is loaded; genkai has MPI and "
                                                                 "CUDA in modules", "module load gcc ompi "
                                                                                    "cuda"),
        ("slurm", "module load openmpi\n", "", 1, "warning", "no module is loaded and no environment "
                                                             "activated", "module load"),
        ("pjm", "#PJM -j\n"
                "#PJM -o sweep.%j.log\n", "", 1, "warning", "the log file is not set", "#PJM -o "
                                                                                               "NAME.%j.log"),
        ("slurm", "#SBATCH --output=sweep.%j.log\n", "", 1, "warning", "the log file is not set", "--output="),
        ("pjm", "mpisweep run", "mpirun -n 16 mpisweep run", 10, "error", "mpirun starts 16 ranks, and the "
                                                                          "job has 8", "$PJM_MPI_PROC"),
        ("slurm", "srun", "srun --ntasks=9", 7, "error", "srun starts 9 ranks, and the job has 8", "8"),
        ("pbs", "mpisweep run", "N=99\n"
                                "mpiexec -np $N mpisweep run", 7, "error", "mpiexec starts 99 ranks, and "
                                                                           "the job has 8", "8"),
        ("pjm", "/home/me/sweep.h5", "$PJM_LOCALDIR/sweep.h5", 10, "error", "the results are in "
                                                                            "$PJM_LOCALDIR", "all nodes "
                                                                                             "share"),
        ("pjm", "/home/me/sweep.h5", "/ssd/9/sweep.h5", 10, "error", "the results are in /ssd", "all nodes "
                                                                                                "share"),
        ("slurm", "/home/me/sweep.h5", "${TMPDIR}/sweep.h5", 7, "error", "the results are in $TMPDIR", "all "
                                                                                                       "nodes "
                                                                                                       "share"),
        ("pjm", "--walltime 2:00:00", "--walltime 3:00:00", 10, "error", "--walltime 3:00:00 is longer than "
                                                                         "the job, which has 2:00:00", "--walltime "
                                                                                                       "2:00:00"),
        ("pjm", "--walltime 2:00:00", "--walltime 1:00:00", 10, "warning", "leaves 1:00:00 of the job unused", "--walltime "
                                                                                                               "2:00:00"),
        ("pbs", "--walltime 7200", "--walltime \"$((walltime - SECONDS))\"\n"
                                   "walltime=9000", 6, "error", "--walltime 2:30:00 is longer", "2:00:00"),
        ("pjm", "-L node=2", "-L nodes=2", 3, "error", "pjsub has no option -L nodes", "did you mean node?"),
        ("pjm", "#PJM -j", "#PJM --norestarts", 6, "error", "pjsub has no option --norestarts", "did you mean "
                                                                                           "--norestart?"),
        ("slurm", "--nodes=2", "--node=2", 2, "error", "sbatch has no option --node", "did you mean --nodes?"),
        ("pbs", "#PBS -joe", "#PBS -joe --walltime=1", 3, "error", "qsub has no option --walltime", "man qsub"),
        ("pjm", "#PJM -j\n", "# PJM -j\n", 6, "warning", "looks like a directive, but is a comment", "begins "
                                                                                                    "with "
                                                                                                    "#PJM "
                                                                                                    "and a "
                                                                                                    "space"),
        ("slurm", "#SBATCH -t", "#SBACTH -t", 4, "warning", "looks like a directive, but is a comment", "#SBATCH"),
        ("gridengine", "h_rt=2:00:00", "h_rt=10:00", 3, "error", "'10:00' is not a valid time limit", "-l "
                                                                                             "h_rt=2:00:00"),
        ("gridengine", ",h_rt=2:00:00", "", 1, "warning", "no time limit is set", "#$ -l h_rt=2:00:00"),
        ("gridengine", "#$ -j y\n", "", 1, "warning", "the log file is not set", "#$ -j y"),
        ("gridengine", "#$ -cwd", "#$ -cdw", 2, "error", "qsub has no option -cdw", "did you mean -cwd?"),
        ("gridengine", "#$ -cwd", "#$ -pe mpi\n#$ -cwd", 2, "error", "-pe has no value", "#$ -pe VALUE"),
        ("gridengine", "#$ -cwd", "# $ -cwd", 2, "warning", "looks like a directive, but is a comment", "begins with #$ and a space"),
        ("gridengine", "#$ -cwd", "#PBS -q x\n"
                                  "#$ -cwd", 2, "warning", "#PBS means nothing to Grid Engine", "only #$ "
                                                                                                "lines "
                                                                                                "count"),
        ("gridengine", "module load cuda openmpi\n", "", 1, "warning", "no module is loaded; tsubame4 has "
                                                                       "MPI and CUDA in modules", "module "
                                                                                                  "load "
                                                                                                  "cuda "
                                                                                                  "openmpi"),
        ("gridengine", "/home/me/sweep.h5", "$TMPDIR/sweep.h5", 9, "error", "the results are in "
                                                                            "$TMPDIR", "all nodes share"),
        ("gridengine", "--walltime 7200", "--walltime 3:00:00", 9, "error", "is longer than the job", "--walltime "
                                                                                                      "2:00:00"),
        ("pbs", "cd ", "#SBATCH -n 4\n"
                       "cd ", 4, "warning", "#SBATCH means nothing to PBS", "only #PBS lines count"),
        ("pjm", "#PJM -j\n"
                "#PJM -o sweep.%j.log\n"
                "module load gcc ompi cuda", "module load gcc ompi cuda\n"
                                             "#PJM -j", 7, "error", "is after the first command, where "
                                                                    "PJM ignores it", "to the top"),
        ("slurm", " -c 8", "", 2, "warning", "4 cores are fewer than 2 per GPU, which leaves none for "
                                             "loading data", "--cpus-per-task=4, or as many"),
        ("slurm", " -c 8", " --cpus-per-task=1", 2, "warning", "4 cores are fewer than 2 per GPU", "--cpus-per-task=4"),
        ("slurm", " -c 8", " --cpus-per-gpu=1", 2, "warning", "4 cores are fewer than 2 per GPU", "--cpus-per-task=4"),
        ("pbs", "ncpus=32", "ncpus=4", 2, "warning", "4 cores are fewer than 2 per GPU", "ncpus=16, or as "
                                                                                         "many"),
        ("pbs", "ncpus=32:", "", 2, "warning", "1 core is fewer than 2 per GPU", "ncpus=16"),
        ("pjm", "-L node=2", "-L\n"
                             "node=2", 3, "error", "-L has no value: the shell takes the next line, node=2, for a command", "#PJM -L "
                                                                                            "node=2, on one "
                                                                                            "line"),
        ("pjm", "-L rscgrp=b-batch", "-L rscgrp=", 2, "error", "-L rscgrp has no value", "#PJM -L "
                                                                                         "rscgrp=VALUE"),
        ("pjm", "-o sweep.%j.log", "-o", 7, "error", "-o has no value", "#PJM -o VALUE"),
        ("pjm", "-L elapse=2:00:00", "-L elapse=", 5, "error", "-L elapse has no value", "#PJM -L "
                                                                                         "elapse=VALUE"),
        ("slurm", "-t 0-02:00", "-p\n"
                                "gpu\n"
                                "#SBATCH -t 0-02:00", 4, "error", "-p has no value: the shell takes the next line, gpu,", "#SBATCH -p gpu, on one line"),
        ("slurm", "--output=sweep", "--output=\n"
                                    "#SBATCH -o sweep", 5, "error", "--output has no value", "#SBATCH "
                                                                                             "--output=VALUE"),
        ("pbs", "-joe", "-j\n"
                        "oe", 3, "error", "-j has no value: the shell takes the next line, oe,", "#PBS -j oe, on "
                                                                                          "one line"),
        ("pbs", " -l walltime=02:00:00", "\n"
                                         "#PBS -l\n"
                                         "#PBS -l walltime=02:00:00", 3, "error", "-l has no value", "#PBS "
                                                                                                     "-l "
                                                                                                     "VALUE"),
        ("pbs", " -o /home", "\n"
                             "-o /home", 7, "error", "begins with an option, -o, and the shell takes it for "
                                                     "a command", "end the line before with a backslash"),
        ("slurm", "#!/bin/bash\n", "", 1, "error", "names no interpreter, and sbatch refuses", "#!/bin/bash"),
        ("pjm", "mpisweep run sweep.toml", "python train.py", 1, "warning", "the script does not run `mpisweep run`", "mpisweep run "
                                                                                    "SWEEP.toml"),
        ("pjm", "mpisweep run", "singularity exec --nv i.sif mpisweep run", 1, "error", "containers need -L "
                                                                                        "jobenv=singularity "
                                                                                        "on genkai", "#PJM -L jobenv=singularity"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_on_its_line(
    system: str, before: str, after: str, line: int, severity: str, what: str, right: str
):
    text = GOOD[system]
    assert before in text
    findings = found(text.replace(before, after, 1))
    [finding] = [f for f in findings if what in f.what]
    assert (finding.line, finding.severity) == (line, severity)
    assert right in finding.right


def test_a_value_wrapped_onto_the_next_line_gives_one_finding_and_no_other():
    """Regression from a poster that wraps directives.

    Directives after the wrapped one do not count as late, and the request is still known.
    """
    text = (
        "#!/bin/sh\n#PJM -L elapse=0:30:00\n#PJM -L\njobenv=singularity\n#PJM -L rscgrp=cx-share\n#PJM -j\n"
        "module load singularity\nsingularity exec x.sif mpisweep run resnet50 \\\n    -p batch_size=700\n"
    )
    assert [(finding.line, finding.severity, finding.what, finding.right) for finding in found(text)] == [
        (
            3,
            "error",
            "-L has no value: the shell takes the next line, jobenv=singularity, for a command",
            "#PJM -L jobenv=singularity, on one line",
        )
    ]
    # A command after a directive without a value is not taken for the value.
    [finding] = [each for each in found(text.replace("jobenv=singularity", "module purge")) if each.line == 3]
    assert (finding.what, finding.right) == ("-L has no value", "#PJM -L VALUE")


@pytest.mark.parametrize("line", ["#SBATCH --exclusive -c 1", "#SBATCH --exclusive"])
def test_an_exclusive_node_gives_no_finding_about_its_cores(line: str):
    assert found(GOOD["slurm"].replace(" -c 8", "").replace("#SBATCH -t", f"{line}\n#SBATCH -t")) == []


@pytest.mark.parametrize("system", GOOD)
@pytest.mark.parametrize("line", ["which mpirun", "command -v srun", "mpirun"])
def test_a_launcher_without_arguments_starts_no_ranks(system: str, line: str):
    assert found(GOOD[system] + line + "\n") == []


def test_relative_results_are_in_the_folder_of_the_last_cd():
    text = GOOD["pbs"].replace('cd "$PBS_O_WORKDIR"', "OUT=/tmp/here\ncd $OUT").replace("/home/me/", "")
    [finding] = found(text)
    assert finding.line == 7
    assert "the results are in /tmp" in finding.what


def test_windows_line_ends_are_found_before_all_else():
    [finding] = found(GOOD["pjm"].replace("\n", "\r\n"))
    assert finding.line == 1
    assert finding.severity is Severity.ERROR
    assert "Windows" in finding.what


def test_a_script_without_directives_is_reported():
    [finding] = found("echo hello\n")
    assert "no directive" in finding.what
    assert "--site workstation" in finding.right


def test_a_missing_project_group_is_found_if_the_site_needs_one():
    text = GOOD["pjm"].replace("b-batch", "regular-a").replace("proc=8", "proc=16")
    assert any("no project group" in f.what and "#PJM -g GROUP" in f.right for f in found(text))


@pytest.mark.parametrize(
    ("longest_s", "timeout_s", "what"),
    [
        (8000.0, None, "2:00:00 is too short for one trial: the longest so far took 2:13:20"),
        (None, 10800.0, "2:00:00 is shorter than the time limit of a trial: limits.timeout is 3:00:00"),
    ],
)
def test_a_job_that_is_too_short_for_one_trial(longest_s: float | None, timeout_s: float | None, what: str):
    asked: list[tuple[str, str, str]] = []

    def look_up(folder: str, sweep: str, results: str) -> Facts:
        asked.append((folder, sweep, results))
        return Facts(longest_s, timeout_s)

    [finding] = found(GOOD["pjm"], look_up=look_up)
    assert finding.what == what
    assert finding.line == 5
    assert asked == [("", "sweep.toml", "/home/me/sweep.h5")]


@pytest.mark.parametrize(
    ("system", "before", "after", "asked"),
    [
        ("pjm", "", "", ("", "sweep.toml")),
        ("pjm", "mpisweep run", "cd /scratch/me\nmpisweep run", ("/scratch/me", "sweep.toml")),
        ("pbs", "", "", ("", "sweep.toml")),
        ("pbs", 'cd "$PBS_O_WORKDIR"\n', "", ("~", "sweep.toml")),
        ("gridengine", "", "", ("", "sweep.toml")),
        ("gridengine", "#$ -cwd\n", "", ("~", "sweep.toml")),
        ("gridengine", "#$ -cwd", "#$ -wd /scratch/me", ("/scratch/me", "sweep.toml")),
        ("gridengine", "#$ -cwd\n", "cd $SGE_O_WORKDIR\n", ("", "sweep.toml")),
        ("slurm", "run sweep.toml -o", "run -n 4 sweep.toml -o", ("", "sweep.toml")),
        ("slurm", "run sweep.toml -o", "run -q -p x=1:3 -o", ("", "")),
    ],
)
def test_files_are_looked_for_where_the_script_will_be(
    system: str, before: str, after: str, asked: tuple[str, str]
):
    seen: list[tuple[str, str]] = []

    def look_up(folder: str, sweep: str, results: str) -> Facts:
        seen.append((folder, sweep))
        return Facts()

    assert before in GOOD[system]
    found(GOOD[system].replace(before, after, 1), look_up=look_up)
    assert seen == [asked]


def test_an_explicit_site_is_used():
    assert found(GOOD["pjm"].replace("b-batch", "mine")) == []
    findings = found(GOOD["pjm"].replace("b-batch", "cx-small"), site=load_site("wisteria-aquarius"))
    assert any("fewer than the 16 GPUs" in f.what for f in findings)


@pytest.mark.parametrize("marker", ["PJM", "SBATCH", "PBS"])
def test_a_priority_below_zero_is_a_value(marker: str):
    option = {"PJM": "-p", "SBATCH": "--priority", "PBS": "-p"}[marker]
    [found_option] = read_script(f"#{marker} {option} -5\n").directives
    assert (found_option.value, found_option.lacks_value) == ("-5", False)


def test_a_resource_that_only_one_site_has_identifies_the_site_and_its_nodes():
    """Only TSUBAME has `node_f`; without it the eight GPUs of two nodes are unknown."""
    text = GOOD["gridengine"].replace("#$ -p -5", "#$ -pe mpi 4")
    [finding] = found(text)
    assert (finding.line, finding.what) == (4, "4 ranks are fewer than the 8 GPUs: some are idle")
    assert found(text.replace("node_f", "node_x")) == []


def test_a_script_needs_no_project_if_the_submit_command_takes_it():
    assert found(GOOD["gridengine"], site=replace(load_site("tsubame4"), project_needed=True)) == []
    text = GOOD["pbs"].replace("-l select", "-q regular-g -l select").replace("ngpus=4:", "")
    assert [f.right for f in found(text) if "no project group" in f.what] == ["#PBS -W group_list=GROUP"]
    assert not [
        f
        for f in found(text.replace("-joe", "-joe -W umask=7,group_list=gx00"))
        if "no project group" in f.what
    ]
    slurm = found(GOOD["slurm"], site=replace(load_site("slurm"), project_needed=True))
    assert [f.right for f in slurm] == ["#SBATCH --account=GROUP"]


def test_a_group_whose_name_is_common_does_not_identify_the_site():
    script = GOOD["pjm"].replace("b-batch", "small")
    assert found(script) == []
    assert any("fugaku needs one" in f.what for f in found(script, site=load_site("fugaku")))


@pytest.mark.parametrize(
    ("system", "text", "seconds"),
    [
        (PJM, "1:00:00", 3600), (PJM, "10:00", 600), (PJM, "90", 90), (PJM, "1-0", None), (PJM, "soon", None),
        (SLURM, "90", 5400), (SLURM, "1-12", 129600), (SLURM, "1-1:30", 91800), (SLURM, "0-0:0:5", 5), (SLURM, "2:00:00", 7200),
        (GRID_ENGINE, "3600", 3600), (GRID_ENGINE, "1::1", 3601), (GRID_ENGINE, "06:23:50:00", 604200), (GRID_ENGINE, "10:00", None),
        (GRID_ENGINE, "::", None), (GRID_ENGINE, "", None), (GRID_ENGINE, "1-0", None),
        (PBS, "02:00:00", 7200), (PBS, "3600", 3600), (PBS, "1:2:3:4", None), (PBS, "", None),
    ],
)  # fmt: skip
def test_a_time_limit_is_read_as_its_system_does(system, text: str, seconds: float | None):
    assert system.time_limit_s(text) == seconds


@pytest.mark.parametrize(
    ("lines", "nodes", "gpus", "ranks"),
    [
        ("#PJM -L node=2x3x2 --mpi max-proc-per-node=4", 12, None, 48),
        ('#PJM -L "node=12:noncont,elapse=1:00:00" --mpi "proc=24"', 12, None, 24),
        ("#PJM -L gpu=2\n#PJM --mpi proc=2", 1, 2, 2),
        ("#SBATCH -N4 -n 16 --gpus=16", 4, 4, 16),
        ("#SBATCH --nodes=2-4 --ntasks-per-node=2 --gpus-per-task=v100:2", 4, 4, 8),
        ("#$ -pe mpi 8", None, None, 8),
        ("#$ -pe mpi 4-8 -l h_rt=60", None, None, 8),
        ("#$ -l node_f=2", None, None, None),
        ("#PBS -l select=1:ncpus=4:mpiprocs=1+2:ncpus=8:ngpus=4:mpiprocs=4", 3, 4, 9),
    ],
)
def test_sizes_are_read_in_all_the_ways_they_are_written(
    lines: str, nodes: int | None, gpus: int | None, ranks: int | None
):
    asked = asked_for(read_script(lines + "\nrun\n"))
    assert (asked.nodes, asked.gpus, asked.ranks) == (nodes, gpus, ranks)


@given(st.lists(st.sampled_from([
    "#$ -pe", "#$ -l =", "#$", "#$ -pe a b -l x", "#PJM", "#PJM -L", "#SBATCH --gres=", "#PBS -l select=", "#PJM -L node=x", "#PBS -l select=a:b=c+", "cd", "mpirun -n", "x=$(",
    "mpisweep run -o", "'", "\\", "mpisweep run --walltime $((w - SECONDS))", "#SBATCH -N-", "#SBATCH -t 1-", "srun -n", "export A=", "$A ${B:-c} $",
]), max_size=12))  # fmt: skip
def test_no_script_is_too_strange_to_be_read(lines: list[str]):
    for finding in check_script("\n".join(lines)):
        assert finding.what
        assert finding.right


def test_the_command_prints_findings_with_their_lines_and_returns_2_for_errors(
    folder: Path, mpisweep: Callable[..., subprocess.CompletedProcess[str]]
):
    (folder / "sweep.toml").write_text(
        "workload = 'workloads:half'\nname = 's'\n[parameters]\nx = [1]\n[limits]\ntimeout = '5h'\n"
    )
    (folder / "quick.toml").write_text("workload = 'workloads:half'\nname = 's'\n[parameters]\nx = [1]\n")
    (folder / "good.sh").write_text(GOOD["pjm"].replace("sweep.toml", "quick.toml"))
    done = mpisweep("jobscript", "--check", "good.sh")
    assert (done.returncode, done.stdout) == (0, "good.sh: OK\n")
    (folder / "bad.sh").write_text(GOOD["pjm"])
    done = mpisweep("jobscript", "--check", "bad.sh")
    assert done.returncode == 2
    assert (
        done.stdout
        == "bad.sh:5: error: 2:00:00 is shorter than the time limit of a trial: limits.timeout is 5:00:00; at least 5:00:00, or a smaller timeout\n"
    )
    (folder / "warned.sh").write_text(
        GOOD["pjm"].replace("sweep.toml", "quick.toml").replace("#PJM -j\n#PJM -o sweep.%j.log\n", "")
    )
    done = mpisweep("jobscript", "--check", "warned.sh")
    assert done.returncode == 0
    assert "warning: the log file is not set" in done.stdout
    done = mpisweep("jobscript", "--check", "none.sh")
    assert done.returncode == 2
    assert done.stderr == "mpisweep: none.sh: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("sweep", "what"),
    [
        ("none.toml", "none.toml: cannot be read: No such file or directory"),
        ("$HOME/none.toml", "none.toml: cannot be read: No such file or directory"),
        ("wrong.toml", "wrong.toml: parameters.x: found an empty list"),
        ("there.toml", ""),
        ("'here we go/there.toml'", ""),
        ('"$HOME/there.toml"', ""),
        ("$SOMETHING/none.toml", ""),
        ("resnet50", ""),
        ("workloads:half", ""),
    ],
)
def test_a_missing_or_wrong_sweep_file_is_found(
    folder: Path, environment: dict[str, str], sweep: str, what: str
):
    (folder / "here we go").mkdir()
    for place in (folder, folder / "here we go"):
        (place / "there.toml").write_text("workload = 'workloads:half'\nname = 's'\n[parameters]\nx = [1]\n")
    (folder / "wrong.toml").write_text("workload = 'workloads:half'\n[parameters]\nx = []\n")
    text = GOOD["pjm"].replace(
        "mpisweep run sweep.toml", f"cd {shlex.quote(str(folder))}\nmpisweep run {sweep}"
    )
    (folder / "job.sh").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "mpisweep", "jobscript", "--check", str(folder / "job.sh")], cwd="/",
        env=environment | {"HOME": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if what:
        assert done.returncode == 2
        assert "job.sh:11: error: " in done.stdout
        assert what in done.stdout
    else:
        assert (done.returncode, done.stdout) == (0, f"{folder / 'job.sh'}: OK\n")
