"""What the batch systems say about an allocation: their variables, and what their own commands print."""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end
from mpisweep.batch.base import BatchSystem
from mpisweep.batch.jobfacts import AllocatedNode, Allocation, JobTimes
from mpisweep.batch.pbs import Pbs
from mpisweep.batch.pjm import Pjm
from mpisweep.batch.registry import SYSTEMS, batch_system
from mpisweep.batch.slurm import Slurm, expand_counts, expand_hosts
from mpisweep.batch.texts import duration_s

#: A moment in the allocation of every text below, by the local clock.
NOW = datetime(2026, 11, 17, 9, 30, 0).timestamp()


def local(*moment: int) -> float:
    return datetime(*moment).timestamp()


def nodes(*counts: tuple[str, int | None]) -> tuple[AllocatedNode, ...]:
    return tuple(AllocatedNode(host, ranks) for host, ranks in counts)


# ------------------------------------------------------------------------------------- the contract


class BatchSystemContract:
    """What is asked of every batch system; subclasses say which, and give texts of its commands."""

    system: BatchSystem
    job_id: str
    #: Output of one of its commands -> what it says.
    texts: dict[str, JobTimes]

    def test_it_is_known_by_each_of_its_variables(self):
        for name in self.system.job_variables:
            assert this_allocation({name: "17"}).system == self.system.name
            assert this_allocation({name: "17"}).job_id == "17"
            assert this_allocation({name: ""}).system == "local"

    def test_the_most_exact_variable_counts(self):
        environment = {name: str(index) for index, name in enumerate(self.system.job_variables)}
        assert this_allocation(environment).job_id == "0"

    def test_variables_alone_make_an_allocation_without_nodes_that_it_does_not_know(self):
        found = this_allocation({self.system.job_variables[0]: "17"})
        assert found == Allocation(self.system.name, "17")
        assert found.ranks is None

    def test_every_known_output_says_when_the_job_began_and_ends(self):
        for text, times in self.texts.items():
            assert self.system.answer(text, self.job_id, NOW) == times, text
            assert self.system.answer(text.replace("\n", "\r\n"), self.job_id, NOW) == times, text

    def test_of_another_job_nothing_is_said(self):
        for text in self.texts:
            assert self.system.answer(text, "424242", NOW) == JobTimes()

    def test_a_text_that_was_cut_off_says_the_same_or_less(self):
        for text, times in self.texts.items():
            for end in range(len(text)):
                found = self.system.answer(text[:end], self.job_id, NOW)
                assert found.started_at in (None, times.started_at)

    def test_a_command_is_a_list_of_words_with_the_job_in_it(self):
        for question in self.system.questions("17; rm -rf ~"):
            assert "17; rm -rf ~" in question, "no shell sees it, and nothing is put together"

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(data=st.data())
    def test_whatever_is_printed_there_is_no_error_and_no_absurd_time(self, data):
        # Lines of real texts, cut, swapped and mixed with anything.
        lines = [line for text in self.texts for line in text.splitlines()]
        words = [word for line in lines for word in line.replace("=", " = ").split()]
        mixed = st.lists(
            st.sampled_from(lines)
            | st.lists(st.sampled_from(words) | st.text(max_size=8) | st.integers().map(str), max_size=14).map(" ".join)
            | st.text(max_size=60),
            max_size=12,
        ).map("\n".join)
        times = self.system.answer(data.draw(mixed), self.job_id, NOW).sane(NOW)
        for moment in (times.started_at, times.ends_at):
            assert moment is None or abs(moment - NOW) < 401 * 86400
        if times.started_at is not None and times.ends_at is not None:
            assert times.ends_at > times.started_at

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(
        st.dictionaries(
            st.sampled_from([
                "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS", "SLURM_GPUS_ON_NODE",
                "SLURM_GPUS_PER_NODE", "SLURM_JOB_GPUS", "SLURM_JOB_END_TIME", "SLURM_JOB_START_TIME", "PJM_MPI_PROC",
                "PJM_PROC_BY_NODE", "PJM_O_NODEINF", "PBS_NODEFILE", "PBS_GPUFILE",
            ]),
            st.text(max_size=20) | st.integers().map(str)
            | st.sampled_from(["n[1-3]", "n[1-999999999]", "n[3-1]", "n[1", "2(x3)", "9(x999999)", "a:b:c", "/", "/dev/null"]),
        ),
        st.text(max_size=200),
    )  # fmt: skip
    def test_whatever_the_variables_hold_there_is_an_allocation(self, variables, file):
        environment = variables | {self.system.job_variables[0]: "17"}
        found = self.system.allocation(environment, lambda path: file if path else "")
        assert found.job_id == "17"
        assert all(node.host and (node.ranks is None or node.ranks > 0) for node in found.nodes)
        assert found.gpus_per_node is None or found.gpus_per_node > 0


SQUEUE = "238|2026-11-17T09:01:41|2026-11-17T10:01:41\n"
SCONTROL = """JobId=238 JobName=EndTime=2020-01-01T00:00:00
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   RunTime=00:00:10 TimeLimit=01:00:00 TimeMin=N/A
   SubmitTime=2026-11-17T09:00:00 EligibleTime=2026-11-17T09:00:00
   StartTime=2026-11-17T09:01:41 EndTime=2026-11-17T10:01:41 Deadline=N/A
   NodeList=n[1-3]
   NumNodes=3 NumCPUs=6 NumTasks=6 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
"""
#: What a job of an hour that began at 9:01:41 comes to.
HOUR = JobTimes(local(2026, 11, 17, 9, 1, 41), local(2026, 11, 17, 10, 1, 41))


class TestSlurm(BatchSystemContract):
    system = Slurm()
    job_id = "238"
    texts = {
        SQUEUE: HOUR,
        # The last task of an array has the array's id, and all of its tasks are listed.
        "240|2026-11-17T08:00:00|2026-11-17T09:00:00\n" + SQUEUE: HOUR,
        "238|2026-11-17T09:01:41|NONE\n": JobTimes(HOUR.started_at),
        "238|N/A|N/A\n": JobTimes(),
        SCONTROL: HOUR,
        SCONTROL.replace("JobId=238", "JobId=237").replace("T10", "T11") + "\n" + SCONTROL: HOUR,
        SCONTROL + "\n" + SCONTROL.replace("JobId=238", "JobId=239").replace("T10", "T11"): HOUR,
        SCONTROL.replace("EndTime=2026-11-17T10:01:41", "EndTime=Unknown"): JobTimes(HOUR.started_at),
    }

    def test_nodes_and_what_was_asked_for_there(self):
        found = this_allocation({
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2],gpu07", "SLURM_NODELIST": "n1",
            "SLURM_TASKS_PER_NODE": "2(x2),1", "SLURM_NTASKS": "5", "SLURM_GPUS_ON_NODE": "4",
        })  # fmt: skip
        assert found.nodes == nodes(("n1", 2), ("n2", 2), ("gpu07", 1))
        assert (found.ranks, found.gpus_per_node, found.is_elsewhere) == (5, 4, True)

    def test_a_login_node_is_none_of_the_nodes(self):
        environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}
        assert this_allocation(environment).is_elsewhere
        assert not this_allocation(environment | {"SLURMD_NODENAME": "n1"}).is_elsewhere

    def test_tasks_that_nobody_asked_for_do_not_count(self):
        found = this_allocation({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "64(x2)"})
        assert found.nodes == nodes(("n1", None), ("n2", None))

    @pytest.mark.parametrize(
        ("variables", "gpus"),
        [({"SLURM_GPUS_PER_NODE": "a100:4"}, 4), ({"SLURM_GPUS_PER_NODE": "2"}, 2), ({"SLURM_JOB_GPUS": "0,1,3"}, 3), ({}, None)],
    )
    def test_gpus_are_counted_in_each_way_of_saying_it(self, variables, gpus):
        assert this_allocation({"SLURM_JOB_ID": "7", **variables}).gpus_per_node == gpus

    @pytest.mark.parametrize(
        ("listed", "hosts"),
        [
            ("n1", ["n1"]),
            ("n[1-3,07,09-10],x", ["n1", "n2", "n3", "n07", "n09", "n10", "x"]),
            ("rack[1-2]n[1-2]-ib", ["rack1n1-ib", "rack1n2-ib", "rack2n1-ib", "rack2n2-ib"]),
            ("", []),
            ("n[1-999999999]", []),
            ("n[3-1]", []),
        ],
    )
    def test_a_list_of_hosts_is_written_out(self, listed, hosts):
        assert list(expand_hosts(listed)) == hosts

    def test_a_list_of_counts_is_written_out(self):
        assert expand_counts("2(x3),1") == (2, 2, 2, 1)
        assert expand_counts("two") == ()
        assert expand_counts("1(x999999)") == ()

    def test_new_versions_say_the_end_by_a_variable(self):
        ends = int(time.time()) + 600
        found = this_allocation({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(ends)})
        assert (found.ends_at, found.ends_by) == (ends, "SLURM_JOB_END_TIME")
        assert with_end(found) is found, "nobody is asked"

    def test_an_end_that_cannot_be_is_none(self):
        assert this_allocation({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "17"}).ends_at is None


QSTAT_PBS = """Job Id: 238.server
    Job_Name = sweep
    Job_Owner = user@login
    resources_used.walltime = 00:00:10
    job_state = R
    exec_host = n1/0*4+n2/0*4
    exec_vnode = (n1:ncpus=4:ngpus=2:mem=1048576kb)+(n2:ncpus=4:ngpus=2:mem=104
\t8576kb)
    Resource_List.ncpus = 8
    Resource_List.walltime = 01:00:00
    stime = Tue Nov 17 09:01:41 2026
    Variable_List = PBS_O_HOME=/home/user,stime = x,
\tPBS_O_WORKDIR=/home/user/a = b
"""
QSTAT_TORQUE = """Job Id: 238.torque.example.org
    Job_Name = sweep
    start_time = Tue Nov 17 09:01:41 2026
    Walltime.Remaining = 1901
    Resource_List.nodes = 2:ppn=4
    Resource_List.walltime = 3600
    exec_host = n1/0-3+n2/0-3
"""


class TestPbs(BatchSystemContract):
    system = Pbs()
    job_id = "238.server"
    texts = {
        QSTAT_PBS: HOUR,
        QSTAT_TORQUE: HOUR,
        QSTAT_PBS.replace("238.", "237.").replace("01:00:00", "09:00:00") + "\n" + QSTAT_PBS: HOUR,
        QSTAT_PBS + "\n" + QSTAT_PBS.replace("238.", "239.").replace("01:00:00", "09:00:00"): HOUR,
        QSTAT_PBS.replace("    Resource_List.walltime = 01:00:00\n", ""): JobTimes(HOUR.started_at),
        QSTAT_TORQUE.replace("    Resource_List.walltime = 3600\n", ""): JobTimes(HOUR.started_at, NOW + 1901),
    }

    def test_nodes_and_what_was_asked_for_there(self, tmp_path: Path):
        file = tmp_path / "a 'b\"\nü nodes"
        file.write_text("n1\nn1\nn2.example.org\n\nn1\n")
        found = this_allocation({"PBS_JOBID": "7.server", "PBS_NODEFILE": str(file)})
        assert found.nodes == nodes(("n1", 3), ("n2.example.org", 1))
        assert found.node_file == str(file)

    def test_torques_file_of_gpus_is_counted(self, tmp_path: Path):
        (tmp_path / "nodes").write_text("n1\nn2\n")
        (tmp_path / "gpus").write_text("n1-gpu0\nn1-gpu1\nn2-gpu0\nn2-gpu1\n")
        found = this_allocation({
            "PBS_JOBID": "7", "PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_GPUFILE": str(tmp_path / "gpus"),
        })  # fmt: skip
        assert found.gpus_per_node == 2

    def test_an_array_is_known_by_its_brackets(self):
        text = QSTAT_PBS.replace("238.", "238[4].")
        assert self.system.answer(text, "238[4].server", NOW) == HOUR
        assert self.system.answer(text, "238[5].server", NOW) == JobTimes()


PJSTAT = """JOB_ID  JOB_NAME  MD  ST   USER   START_DATE      ELAPSE_LIM  NODE_REQUIRE  VNODE  CORE  V_MEM
238     job.sh    NM  RUN  user1  11/17 09:01:41  0001:00:00  12:2x3x2      -      -     -
239     bulk.sh   BU  RUN  user1  11/17 09:01:42  0002:00:00  12:2x3x2      -      -     -
"""
PJSTAT_V = """
  ACCEPT QUEUED  STGIN  READY RUNING RUNOUT STGOUT   HOLD  ERROR   TOTAL
       0      0      0      0      1      0      0      0      0       1
s      0      0      0      0      1      0      0      0      0       1

JOB_ID     JOB_NAME   MD ST  USER     GROUP    START_DATE      ELAPSE_TIM ELAPSE_LIM NODE_REQUIRE    VNODE  CORE V_MEM        V_POL E_POL RANK    LST EC  PC  SN PRI ACCEPT         RSC_GRP  REASON
238        my 11/16 02:00:00 job NM RUN user1 group1   11/17 09:01:41< 0000:28:19 0001:00:00 2               -      -    -            -     -     bychip  RNA 0   0   0   127 11/17 09:00:01 cx-small -
"""
PJSTAT_S = """
 JOB ID                      : 238
 JOB NAME                    : a : JOB ID : 9
 STATE                       : RUN
 NODE NUM (REQUIRE)          : 2:noncont
 ELAPSE TIME (LIMIT)         : 01:00:00 (3600)
 ELAPSE TIME (USE)           : 00:28:19 (1699)
 JOB START DATE              : 2026/11/17 09:01:41<
 ACCEPT DATE                 : 2026/11/17 09:00:01
"""
#: Some sites print what has passed in place of the limit.
PJSTAT_OTHER = """Scheduled stop time: 2026/11/27(Fri) 09:00:00

JOB_ID       JOB_NAME   STATUS  PROJECT    RSCGROUP          START_DATE        ELAPSE           TOKEN           NODE  GPU
238          run.sh     RUNNING gz00       regular-a         11/17 09:01:41    00:28:19           1.2              2    -
"""


class TestPjm(BatchSystemContract):
    system = Pjm()
    job_id = "238"
    texts = {
        PJSTAT: HOUR,
        PJSTAT_V: HOUR,
        PJSTAT_S: HOUR,
        PJSTAT_OTHER: JobTimes(HOUR.started_at),
        # pjstat --choose prints the columns in the order that it was given.
        "ELAPSE_LIM START_DATE JOB_ID\n0001:00:00 11/17 09:01:41 238\n": HOUR,
        "JOB_ID ST ELAPSE_LIM START_DATE\n238 RUN 0001:00:00 (11/17 09:01:41)\n".replace("(", "").replace(")", "@"): HOUR,
        PJSTAT.replace("0001:00:00", "-"): JobTimes(),
        PJSTAT_S.replace("01:00:00 (3600)", "unlimited"): JobTimes(HOUR.started_at),
    }

    def test_a_bulk_job_is_known_by_its_brackets(self):
        text = PJSTAT.replace("239 ", "239[1] ")
        found = self.system.answer(text, "239[1]", NOW)
        assert found.ends_at == local(2026, 11, 17, 11, 1, 42)

    def test_a_date_without_a_year_is_the_last_such_day(self):
        text = PJSTAT.replace("11/17 09:01:41  0001:00:00", "12/31 23:50:00  0048:00:00")
        found = self.system.answer(text, "238", local(2027, 1, 1, 8, 0, 0))
        assert found == JobTimes(local(2026, 12, 31, 23, 50, 0), local(2027, 1, 2, 23, 50, 0))

    def test_nodes_and_what_was_asked_for_there(self, tmp_path: Path):
        file = tmp_path / "a 'b\"\nü nodes"
        file.write_text("n1\nn2\nn3\n")
        environment = {"PJM_JOBID": "7", "PJM_O_NODEINF": str(file)}
        assert this_allocation(environment).nodes == nodes(("n1", None), ("n2", None), ("n3", None))
        assert this_allocation(environment | {"PJM_MPI_PROC": "8"}).nodes == nodes(("n1", 3), ("n2", 3), ("n3", 2))
        most = this_allocation(environment | {"PJM_MPI_PROC": "12", "PJM_PROC_BY_NODE": "4"})
        assert (most.ranks, most.node_file) == (12, str(file))

    def test_a_file_of_nodes_that_is_gone_leaves_them_unknown(self):
        found = this_allocation({"PJM_JOBID": "7", "PJM_O_NODEINF": "/nowhere/nodes", "PJM_MPI_PROC": "8"})
        assert (found.nodes, found.node_file, found.ranks) == ((), "", None)


def test_every_system_is_held_to_the_contract():
    held = {contract.system.name for contract in BatchSystemContract.__subclasses__()}
    assert held == {system.name for system in SYSTEMS}


def test_without_a_batch_system_there_is_an_allocation_of_which_nothing_is_known():
    assert this_allocation({}) == Allocation("local", "")
    assert with_end(Allocation("local", "")) == Allocation("local", "")
    assert batch_system("local") is None


# ------------------------------------------------------------------------------------- asking


def command_that(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a hostile name, and nothing else on PATH."""
    folder = tmp_path / "a 'b\" ü"
    folder.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), "/bin", "/usr/bin"]))
    return folder


def test_the_next_command_is_asked_where_the_first_does_not_know(commands: Path):
    now = time.time()
    command_that(commands, "squeue", "echo nothing useful; exit 1")
    ends = datetime.fromtimestamp(now + 100).isoformat(timespec="seconds")
    starts = datetime.fromtimestamp(now - 100).isoformat(timespec="seconds")
    command_that(commands, "scontrol", f"echo JobId=1 StartTime={starts} EndTime={ends}")
    found = with_end(Allocation("slurm", "1"))
    assert found.ends_at == pytest.approx(now + 100, abs=1.5)
    assert found.started_at == pytest.approx(now - 100, abs=1.5)
    assert found.ends_by == "scontrol"


def test_the_users_own_formats_do_not_reach_the_command(commands: Path, monkeypatch):
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    command_that(commands, "squeue", 'echo "$SLURM_TIME_FORMAT $LC_ALL" > "$(dirname "$0")/seen"')
    command_that(commands, "scontrol", "exit 1")
    with_end(Allocation("slurm", "1"))
    assert (commands / "seen").read_text() == "standard C\n"


@pytest.mark.parametrize("script", ["exit 1", "head -c 5000 /dev/urandom", "kill -9 $$", "echo '1|x|y'"])
def test_a_command_that_does_not_do_its_duty_leaves_the_end_unknown(commands: Path, script):
    for name in ("squeue", "scontrol"):
        command_that(commands, name, script)
    assert with_end(Allocation("slurm", "1")).ends_at is None


def test_a_command_that_hangs_is_given_up(commands: Path, monkeypatch):
    monkeypatch.setattr("mpisweep.batch.allocation._ASK_S", 0.2)
    command_that(commands, "qstat", "exec sleep 1000")
    assert with_end(Allocation("pbs", "1")).ends_at is None


def test_no_command_at_all_leaves_the_end_unknown(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for system in SYSTEMS:
        assert with_end(Allocation(system.name, "1")).ends_at is None


def test_an_end_that_nobody_knows_is_told_with_what_helps(caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_end(Allocation("local", ""))
        assert caplog.messages == []
        warn_of_unknown_end(Allocation("pjm", "17"))
    [message] = caplog.messages
    assert message.startswith("PJM does not say when job 17 ends; give --walltime as the elapse limit of the job")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600", 3600), ("01:00:00", 3600), ("0001:00:00", 3600), ("30:00", 1800), ("1-02:00:00", 93600), ("00:10:00.50", 600),
     ("-", None), ("", None), ("unlimited", None), ("1:2:3:4", None), ("-5", None), ("²", None), ("9" * 30, None)],
)  # fmt: skip
def test_durations_are_read_in_every_way_of_writing_them(text, seconds):
    assert duration_s(text) == seconds
