"""Batch systems: allocations, jobs, heads of scripts, and the contract of all systems."""

from __future__ import annotations

import logging
import os
import re
import signal
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpisweep.batch.allocation import this_allocation, warn_of_unknown_end, with_end
from mpisweep.batch.base import BatchSystem
from mpisweep.batch.directives import asked_for, read_script
from mpisweep.batch.gridengine import GRID_ENGINE
from mpisweep.batch.head import Request
from mpisweep.batch.jobfacts import AllocatedNode, Allocation, JobState, JobTimes
from mpisweep.batch.pbs import PBS
from mpisweep.batch.pjm import PJM
from mpisweep.batch.registry import SCRIPTED, SYSTEMS, batch_system
from mpisweep.batch.slurm import SLURM, expand_counts, expand_hosts
from mpisweep.batch.texts import clock, duration_s

#: A time within the allocation of every text below, by the local clock.
NOW = datetime(2026, 11, 17, 9, 30, 0).timestamp()


def local(*moment: int) -> float:
    return datetime(*moment).timestamp()


def nodes(*counts: tuple[str, int | None]) -> tuple[AllocatedNode, ...]:
    return tuple(AllocatedNode(host, ranks) for host, ranks in counts)


# ------------------------------------------------------------------------------------- the contract


#: Requests of jobs, in sizes that systems write in different ways.
REQUESTS = [
    Request(
        "sweep",
        "node",
        nodes=1,
        gpus=0,
        ranks=16,
        ranks_per_node=16,
        cores=None,
        cores_per_node=None,
        elapse_s=59,
    ),
    Request(
        "sweep",
        "node",
        nodes=3,
        gpus=4,
        ranks=12,
        ranks_per_node=4,
        cores=8,
        cores_per_node=32,
        elapse_s=7200,
        group="gpu",
        warn_s=40,
    ),
    Request(
        "sweep",
        "node",
        nodes=100,
        gpus=1,
        ranks=100,
        ranks_per_node=1,
        cores=72,
        cores_per_node=72,
        elapse_s=604800,
    ),
]


#: All systems inherit the same test function.
held_by_all = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)


class BatchSystemContract:
    """The contract of every batch system; subclasses name one and give output of its commands."""

    system: BatchSystem
    job_id: str
    #: Output of one of its commands -> the times in it.
    texts: dict[str, JobTimes]
    #: Variables of a job besides the one with its id.
    beside: dict[str, str] = {}
    #: Output of its submit command -> the id of the job, empty if the job was refused.
    submissions: dict[str, str]
    #: The id of a job, and the options of a submission that follows it.
    follows: tuple[str, list[str]]
    #: Output of its command that lists jobs, and the states in it.
    listing: str
    states: dict[str, str]
    #: The option for the size where it depends on the site.
    size = ""

    # ------------------ names

    def test_its_names_are_unique_and_single_words(self):
        for others in (system for system in SYSTEMS if system is not self.system):
            assert self.system.name != others.name
            assert self.system.marker != others.marker
            assert not set(self.system.job_variables) & set(others.job_variables)
        assert batch_system(self.system.name) is SCRIPTED[self.system.name]
        assert self.system.name.isidentifier()
        for command in (self.system.submit, self.system.ask, self.system.cancel):
            assert command.isalnum()

    def test_its_tables_of_options_are_consistent(self):
        known = self.system.flags | self.system.valued | self.system.two_valued
        assert all(option.startswith("-") for option in known)
        assert not self.system.two_valued & (self.system.flags | self.system.valued)
        assert {*self.system.aliases, *self.system.aliases.values(), *self.system.list_options} <= known
        for example in (self.system.example, self.system.log_example, self.system.project_option):
            assert example.replace("=", " ").split()[0] in known
        assert self.system.time_example.partition("=")[0] in self.system.time_options

    # ---- the head of a script

    def head(self, request: Request) -> str:
        asked = replace(
            request,
            name=self.system.job_name("sweep"),
            size=self.size.format(nodes=request.nodes, ranks=request.ranks),
        )
        return "".join(f"{self.system.marker} {line}\n" for line in self.system.directives(asked))

    @pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request.nodes} nodes")
    def test_what_is_written_is_read_back(self, request_: Request):
        script = read_script(f"#!/bin/bash\n{self.head(request_)}run\n")
        assert script.system is SCRIPTED[self.system.name]
        assert [d for d in script.directives if not d.known or d.lacks_value] == []
        assert (script.late, script.misspelt, dict(script.broken)) == ((), (), {})
        asked = asked_for(script)
        assert (asked.elapse_s, asked.group, bool(asked.log)) == (request_.elapse_s, request_.group, True)
        # If the option for the size depends on the site, only its site file can interpret it.
        assert asked.nodes in (request_.nodes, *([None] if self.size else []))
        assert asked.ranks in (request_.ranks, *([None] if self.size else []))
        assert asked.gpus in (request_.gpus, None)
        assert {asked.line(what) for what in asked.lines} <= set(range(2, len(script.lines)))

    def test_what_the_site_and_the_user_add_is_in_the_head_and_the_user_s_comes_last(self):
        added = replace(
            REQUESTS[1],
            project="--the-project",
            site=("--of-site",),
            container=("--of-container",),
            own=("--own",),
        )
        lines = self.system.directives(replace(added, size=self.size))
        assert {"--the-project", "--of-site", "--of-container"} < set(lines)
        assert lines[-1] == "--own"
        assert "--the-size" in self.system.directives(replace(added, size="--the-size"))

    def test_a_written_project_is_read_back(self):
        text = f"{self.system.marker} {self.system.project_option.format(project='gx00')}\n"
        assert asked_for(read_script(text)).project == "gx00"

    @held_by_all
    @given(st.integers(0, 10**6))
    def test_every_written_time_limit_is_read_back(self, seconds: int):
        assert self.system.time_limit_s(clock(seconds)) == seconds

    @pytest.mark.parametrize(
        "text", ["", "soon", "-5", "1:2:3:4:5", "²", "9" * 30, ":", "1-", "1:-2:3", "²-1"]
    )
    def test_an_invalid_time_limit_is_none(self, text: str):
        assert self.system.time_limit_s(text) is None

    @held_by_all
    @given(st.text(min_size=1, max_size=400))
    def test_every_sweep_name_gives_a_valid_job_name(self, sweep: str):
        name = self.system.job_name(sweep)
        assert re.fullmatch(r"[^\W\d_][\w.-]*", name)
        assert len(name) <= self.system.name_length

    def test_its_warning_signals_exist_and_are_explained(self):
        assert all(f"SIG{name}" in signal.Signals.__members__ for name in self.system.signals.split())
        assert self.system.title in self.system.about_signals or self.system.signals == "USR1"
        assert self.system.about_signals.endswith(".")
        assert self.system.submit_folder
        assert self.system.local_folders

    # ---- its commands

    def test_the_id_of_a_job_is_read_and_a_refusal_is_none(self):
        for text, job_id in self.submissions.items():
            assert self.system.submitted_id(text) == job_id, text
        assert any(self.submissions.values())
        assert not all(self.submissions.values())

    def test_a_single_job_needs_no_option_and_one_that_follows_names_its_predecessor(self):
        after, options = self.follows
        assert self.system.follow_options(chained=False, after="") == []
        assert self.system.follow_options(chained=True, after=after) == options
        assert any(re.split(r"[_.]", after)[0] in option for option in options)

    def test_a_listing_is_read_and_its_command_has_no_empty_word(self):
        assert {job.job_id: str(job.state) for job in self.system.listed(self.listing)} == self.states
        assert all(job.words for job in self.system.listed(self.listing))
        for uid, user in ((0, "root"), (4711, "")):
            for command in self.system.listings(["17"], uid, user):
                assert command[0] == self.system.ask
                assert all(command)

    def test_a_truncated_listing_gives_the_same_states_or_fewer(self):
        named: set[str] = set()
        for end in range(len(self.listing) + 1):
            found = {job.job_id: str(job.state) for job in self.system.listed(self.listing[:end])}
            assert named <= found.keys() <= self.states.keys()
            named |= found.keys()
            # A truncated word is an unknown state, which counts as waiting.
            assert all(state in (self.states[job_id], "waiting") for job_id, state in found.items())
        assert named == self.states.keys()

    @held_by_all
    @given(st.text(max_size=200))
    def test_any_text_is_accepted_as_a_listing(self, text: str):
        self.system.listed(text)
        self.system.submitted_id(text)
        self.system.has_answered(1, text)
        assert self.system.has_answered(0, text)

    @held_by_all
    @given(st.text(st.characters(categories=["L"]), min_size=1, max_size=8))
    def test_an_unknown_state_does_not_mean_that_the_job_is_gone(self, word: str):
        job = self.system.queued("17", word)
        assert job.state is not JobState.GONE or word in self.system.states
        assert (job.job_id, job.words) == ("17", word)

    # ------- inside a job

    def test_it_is_known_by_each_of_its_variables(self):
        for name in self.system.job_variables:
            assert this_allocation({name: "17"} | self.beside).system == self.system.name
            assert this_allocation({name: "17"} | self.beside).job_id == "17"
            assert this_allocation({name: ""} | self.beside).system == "local"

    def test_the_most_exact_variable_counts(self):
        environment = {name: str(index) for index, name in enumerate(self.system.job_variables)}
        assert this_allocation(environment | self.beside).job_id == "0"

    def test_the_probe_of_a_node_names_it(self):
        probe = self.system.probe("n1")
        assert not probe or any("n1" in word for word in probe)
        assert all(shell.isidentifier() for shell in self.system.remote_shells)

    def test_correctly_started_ranks_cause_no_complaint(self):
        assert self.system.wrongly_started({self.system.job_variables[0]: "17"} | self.beside) == ""

    def test_without_a_list_of_nodes_the_allocation_has_none(self):
        found = this_allocation({self.system.job_variables[0]: "17"} | self.beside)
        assert found == Allocation(self.system.name, "17")
        assert found.ranks is None

    def test_every_known_output_says_when_the_job_began_and_ends(self):
        for text, times in self.texts.items():
            assert self.system.answer(text, self.job_id, NOW) == times, text
            assert self.system.answer(text.replace("\n", "\r\n"), self.job_id, NOW) == times, text

    def test_output_about_another_job_gives_no_times(self):
        for text in self.texts:
            assert self.system.answer(text, "424242", NOW) == JobTimes()

    def test_a_truncated_output_gives_the_same_times_or_fewer(self):
        for text, times in self.texts.items():
            for end in range(len(text)):
                found = self.system.answer(text[:end], self.job_id, NOW)
                assert found.started_at in (None, times.started_at)
                assert found.queued_at in (None, times.queued_at)
                # An end read too early wastes time; one read too late loses results.
                assert found.ends_at is None or found.ends_at <= times.ends_at

    def test_a_command_is_a_list_of_words_with_the_job_in_it(self):
        for question in self.system.questions("17; rm -rf ~"):
            assert "17; rm -rf ~" in question, "no shell sees it, and nothing is put together"

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    @given(data=st.data())
    def test_any_output_gives_no_error_and_no_absurd_time(self, data):
        # Lines of real output, cut, swapped and mixed with arbitrary text.
        lines = [line for text in self.texts for line in text.splitlines()]
        words = [word for line in lines for word in line.replace("=", " = ").split()]
        mixed = st.lists(
            st.sampled_from(lines)
            | st.lists(
                st.sampled_from(words) | st.text(max_size=8) | st.integers().map(str), max_size=14
            ).map(" ".join)
            | st.text(max_size=60),
            max_size=12,
        ).map("\n".join)
        times = self.system.answer(data.draw(mixed), self.job_id, NOW).sane(NOW)
        for moment in (times.started_at, times.ends_at, times.queued_at):
            assert moment is None or abs(moment - NOW) < 401 * 86400
        if times.started_at is not None and times.ends_at is not None:
            assert times.ends_at > times.started_at

    @held_by_all
    @given(
        st.dictionaries(
            st.sampled_from([
                "SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS", "SLURM_GPUS_ON_NODE",
                "SLURM_GPUS_PER_NODE", "SLURM_JOB_GPUS", "SLURM_JOB_END_TIME", "SLURM_JOB_START_TIME", "PJM_MPI_PROC",
                "PJM_PROC_BY_NODE", "PJM_O_NODEINF", "PBS_NODEFILE", "PBS_GPUFILE", "PE_HOSTFILE", "SGE_HGR_gpu",
            ]),
            st.text(max_size=20) | st.integers().map(str)
            | st.sampled_from(["n[1-3]", "n[1-999999999]", "n[3-1]", "n[1", "2(x3)", "9(x999999)", "a:b:c", "/", "/dev/null"]),
        ),
        st.text(max_size=200),
    )  # fmt: skip
    def test_any_variables_give_an_allocation(self, variables, file):
        environment = variables | {self.system.job_variables[0]: "17"} | self.beside
        found = self.system.allocation(environment, lambda path: file if path else "")
        assert found.job_id == "17"
        assert all(node.host and (node.ranks is None or node.ranks > 0) for node in found.nodes)
        assert found.gpus_per_node is None or found.gpus_per_node > 0


SQUEUE = "238|2026-11-17T09:01:41|2026-11-17T10:01:41\n"
SCONTROL = """JobId=238 JobName=EndTime=2020-01-01T00:00:00
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   RunTime=00:00:10 TimeLimit=01:00:00 TimeMin=N/A
   SubmitTime=2026-11-17T07:00:00 EligibleTime=2026-11-17T09:00:01
   StartTime=2026-11-17T09:01:41 EndTime=2026-11-17T10:01:41 Deadline=N/A
   NodeList=n[1-3]
   NumNodes=3 NumCPUs=6 NumTasks=6 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
"""
#: Times of a job of one hour that began at 9:01:41.
HOUR = JobTimes(local(2026, 11, 17, 9, 1, 41), local(2026, 11, 17, 10, 1, 41))
#: The same, after a wait in the queue from 9:00:01 on.
WAITED = replace(HOUR, queued_at=local(2026, 11, 17, 9, 0, 1))


class TestSlurm(BatchSystemContract):
    system = SLURM
    job_id = "238"
    submissions = {
        "Submitted batch job 42\n": "42",
        "sbatch: a word of the site\nSubmitted batch job 42\n": "42",
        "Submitted batch job 42 on cluster c1\n": "42",
        "sbatch: error: Batch job submission failed: Invalid account\n": "",
    }
    follows = ("42", ["--dependency=afterany:42"])
    listing = "42 RUNNING None\n43 PENDING Dependency\n44 COMPLETING None\n45 REQUEUE_HOLD (held)\n"
    states = {"42": "running", "43": "waiting", "44": "running", "45": "held"}
    texts = {
        SQUEUE: HOUR,
        # The last task of an array has the id of the array; all its tasks are listed.
        "240|2026-11-17T08:00:00|2026-11-17T09:00:00\n" + SQUEUE: HOUR,
        "238|2026-11-17T09:01:41|NONE\n": JobTimes(HOUR.started_at),
        "238|N/A|N/A\n": JobTimes(),
        SCONTROL: WAITED,
        SCONTROL.replace("JobId=238", "JobId=237").replace("T10", "T11") + "\n" + SCONTROL: WAITED,
        SCONTROL + "\n" + SCONTROL.replace("JobId=238", "JobId=239").replace("T10", "T11"): WAITED,
        SCONTROL.replace("EndTime=2026-11-17T10:01:41", "EndTime=Unknown"): replace(WAITED, ends_at=None),
    }

    def test_nodes_ranks_and_gpus_are_read(self):
        found = this_allocation({
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2],gpu07", "SLURM_NODELIST": "n1",
            "SLURM_TASKS_PER_NODE": "2(x2),1", "SLURM_NTASKS": "5", "SLURM_GPUS_ON_NODE": "4",
        })  # fmt: skip
        assert found.nodes == nodes(("n1", 2), ("n2", 2), ("gpu07", 1))
        assert (found.ranks, found.gpus_per_node, found.is_elsewhere) == (5, 4, True)

    def test_a_login_node_is_outside_the_allocation(self):
        environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1"}
        assert this_allocation(environment).is_elsewhere
        assert not this_allocation(environment | {"SLURMD_NODENAME": "n1"}).is_elsewhere

    def test_tasks_that_were_not_requested_do_not_count(self):
        found = this_allocation(
            {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "64(x2)"}
        )
        assert found.nodes == nodes(("n1", None), ("n2", None))

    @pytest.mark.parametrize(
        ("variables", "gpus"),
        [
            ({"SLURM_GPUS_PER_NODE": "a100:4"}, 4),
            ({"SLURM_GPUS_PER_NODE": "2"}, 2),
            ({"SLURM_JOB_GPUS": "0,1,3"}, 3),
            ({}, None),
        ],
    )
    def test_gpus_are_counted_from_each_variable(self, variables, gpus):
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
    def test_a_list_of_hosts_is_expanded(self, listed, hosts):
        assert list(expand_hosts(listed)) == hosts

    def test_a_list_of_counts_is_expanded(self):
        assert expand_counts("2(x3),1") == (2, 2, 2, 1)
        assert expand_counts("two") == ()
        assert expand_counts("1(x999999)") == ()

    def test_new_versions_state_the_end_in_a_variable(self):
        ends = int(time.time()) + 600
        found = this_allocation({"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(ends)})
        assert (found.ends_at, found.ends_by) == (ends, "SLURM_JOB_END_TIME")
        assert with_end(found) is found, "nobody is asked"

    def test_scontrol_tells_the_wait_if_the_end_is_known(self, commands: Path):
        now = int(time.time())
        stated = [datetime.fromtimestamp(now + s).isoformat(timespec="seconds") for s in (-720, 0, 600)]
        names = ("EligibleTime", "StartTime", "EndTime")
        facts = " ".join(f"{name}={text}" for name, text in zip(names, stated, strict=True))
        command_that(commands, "scontrol", f"echo JobId=1 {facts}")
        environment = {"SLURM_JOB_START_TIME": str(now), "SLURM_JOB_END_TIME": str(now + 600)}
        found = with_end(this_allocation({"SLURM_JOB_ID": "1"} | environment), also_wait=True)
        assert (found.queue_wait_s, found.ends_by) == (720, "SLURM_JOB_END_TIME")
        assert with_end(Allocation("slurm", "1")).queue_wait_s == 720, "it comes with the end"

    def test_an_impossible_end_is_none(self):
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
    ctime = Tue Nov 17 07:00:00 2026
    qtime = Tue Nov 17 08:00:00 2026
    stime = Tue Nov 17 09:01:41 2026
    etime = Tue Nov 17 09:00:01 2026
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
    system = PBS
    job_id = "238.server"
    submissions = {
        "1234.server.example\n": "1234.server.example",
        "1234\n": "1234",
        "qsub: Unknown queue\n": "",
    }
    follows = ("7.server", ["-W", "depend=afterany:7.server"])
    listing = (
        "Job Id: 1.server\n"
        "    Job_Name = sweep\n"
        "    job_state = R\n"
        "    comment = Job run at Tue\n"
        "Job Id: 2.server\n"
        "    job_state = H\n"
        "Job Id: 3.server\n"
        "    job_state = Q\n"
        "Job Id: 4.server\n"
        "    job_state = F\n"
    )
    states = {"1.server": "running", "2.server": "held", "3.server": "waiting", "4.server": "gone"}
    texts = {
        QSTAT_PBS: WAITED,
        QSTAT_PBS.replace("    etime", "    x"): HOUR,
        QSTAT_TORQUE: HOUR,
        QSTAT_PBS.replace("238.", "237.").replace("01:00:00", "09:00:00") + "\n" + QSTAT_PBS: WAITED,
        QSTAT_PBS + "\n" + QSTAT_PBS.replace("238.", "239.").replace("01:00:00", "09:00:00"): WAITED,
        QSTAT_PBS.replace("    Resource_List.walltime = 01:00:00\n", ""): replace(WAITED, ends_at=None),
        QSTAT_TORQUE.replace("    Resource_List.walltime = 3600\n", ""): JobTimes(
            HOUR.started_at, NOW + 1901
        ),
    }

    def test_nodes_ranks_and_gpus_are_read(self, tmp_path: Path):
        file = tmp_path / "a 'b\"\nü nodes"
        file.write_text("n1\nn1\nn2.example.org\n\nn1\n")
        found = this_allocation({"PBS_JOBID": "7.server", "PBS_NODEFILE": str(file)})
        assert found.nodes == nodes(("n1", 3), ("n2.example.org", 1))
        assert found.node_file == str(file)

    def test_the_gpus_in_torques_file_are_counted(self, tmp_path: Path):
        (tmp_path / "nodes").write_text("n1\nn2\n")
        (tmp_path / "gpus").write_text("n1-gpu0\nn1-gpu1\nn2-gpu0\nn2-gpu1\n")
        found = this_allocation({
            "PBS_JOBID": "7", "PBS_NODEFILE": str(tmp_path / "nodes"), "PBS_GPUFILE": str(tmp_path / "gpus"),
        })  # fmt: skip
        assert found.gpus_per_node == 2

    def test_an_array_is_known_by_its_brackets(self):
        text = QSTAT_PBS.replace("238.", "238[4].")
        assert self.system.answer(text, "238[4].server", NOW) == WAITED
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
#: Some sites print the elapsed time where others print the limit.
PJSTAT_OTHER = """Scheduled stop time: 2026/11/27(Fri) 09:00:00

JOB_ID       JOB_NAME   STATUS  PROJECT    RSCGROUP          START_DATE        ELAPSE           TOKEN           NODE  GPU
238          run.sh     RUNNING gz00       regular-a         11/17 09:01:41    00:28:19           1.2              2    -
"""


class TestPjm(BatchSystemContract):
    system = PJM
    job_id = "238"
    submissions = {
        "[INFO] PJM 0000 pjsub Job 9714 submitted.\n": "9714",
        "[INFO.] PJM 0000 pjsub Job 64856_1 submitted.\n": "64856_1",
        "[ERR.] PJM 0057 pjsub node=32 is greater than the upper limit (24).\n": "",
    }
    follows = ("64856_0", ["--step", "--sparam", "jid=64856,sn=1,sd=ec==0:after:0"])
    listing = (
        "JOB_ID  JOB_NAME  MD  ST   USER   START_DATE      ELAPSE_LIM  NODE_REQUIRE\n"
        "238     job.sh    NM  RUN  user1  11/17 09:01:41  0001:00:00  12\n"
        "240_1   step.sh   ST  QUE  user1  -  0001:00:00  2\n"
        "241     job2.sh   NM  HLD  user1  -               0001:00:00  2\n"
    )
    states = {"238": "running", "240_1": "waiting", "241": "held"}
    texts = {
        PJSTAT: HOUR,
        PJSTAT_V: HOUR,
        PJSTAT_S: WAITED,
        PJSTAT_S.replace("ACCEPT DATE", "HOLD DATE"): HOUR,
        PJSTAT_OTHER: JobTimes(HOUR.started_at),
        # pjstat --choose prints columns in the order of its argument.
        "ELAPSE_LIM START_DATE JOB_ID\n0001:00:00 11/17 09:01:41 238\n": HOUR,
        "JOB_ID ST ELAPSE_LIM START_DATE\n238 RUN 0001:00:00 (11/17 09:01:41)\n".replace("(", "").replace(
            ")", "@"
        ): HOUR,
        PJSTAT.replace("0001:00:00", "-"): JobTimes(),
        PJSTAT_S.replace("01:00:00 (3600)", "unlimited"): replace(WAITED, ends_at=None),
    }

    def test_a_sub_job_that_follows_another_one_has_no_wait_of_its_own(self):
        for job_id, times in (("238_0", WAITED), ("238_1", HOUR)):
            text = PJSTAT_S.replace(": 238", f": {job_id}")
            assert self.system.answer(text, job_id, NOW) == times

    def test_a_bulk_job_is_known_by_its_brackets(self):
        text = PJSTAT.replace("239 ", "239[1] ")
        found = self.system.answer(text, "239[1]", NOW)
        assert found.ends_at == local(2026, 11, 17, 11, 1, 42)

    def test_a_date_without_a_year_is_the_last_such_day(self):
        text = PJSTAT.replace("11/17 09:01:41  0001:00:00", "12/31 23:50:00  0048:00:00")
        found = self.system.answer(text, "238", local(2027, 1, 1, 8, 0, 0))
        assert found == JobTimes(local(2026, 12, 31, 23, 50, 0), local(2027, 1, 2, 23, 50, 0))

    def test_nodes_ranks_and_gpus_are_read(self, tmp_path: Path):
        file = tmp_path / "a 'b\"\nü nodes"
        file.write_text("n1\nn2\nn3\n")
        environment = {"PJM_JOBID": "7", "PJM_O_NODEINF": str(file)}
        assert this_allocation(environment).nodes == nodes(("n1", None), ("n2", None), ("n3", None))
        assert this_allocation(environment | {"PJM_MPI_PROC": "8"}).nodes == nodes(
            ("n1", 3), ("n2", 3), ("n3", 2)
        )
        most = this_allocation(environment | {"PJM_MPI_PROC": "12", "PJM_PROC_BY_NODE": "4"})
        assert (most.ranks, most.node_file) == (12, str(file))

    def test_a_missing_node_file_leaves_the_nodes_unknown(self):
        found = this_allocation({"PJM_JOBID": "7", "PJM_O_NODEINF": "/nowhere/nodes", "PJM_MPI_PROC": "8"})
        assert (found.nodes, found.node_file, found.ranks) == ((), "", None)


QSTAT_J = """==============================================================
job_number:                 238
jclass:                     NONE
submission_time:            11/17/2026 09:00:01.123
owner:                      user1
hard resource_list:         h_rt=3600,node_f=2
mail_list:                  user1@login
job_name:                   a job_number: 9
parallel environment:       mpi range: 8
start_time            1:    11/17/2026 09:01:41.456
usage                 1:    wallclock=00:28:19, cpu=00:00:01, mem=0.0 GBs, io=0.0
"""
QSTAT_J_XML = f"""<?xml version='1.0'?>
<detailed_job_info  xmlns:xsd="http://example.org/qstat.xsd">
  <djob_info>
    <element>
      <JB_job_number>238</JB_job_number>
      <JB_submission_time>{local(2026, 11, 17, 9, 0, 1):.0f}</JB_submission_time>
      <JB_soft_resource_list>
        <qstat_l_requests>
          <CE_name>h_rt</CE_name>
          <CE_stringval>7200</CE_stringval>
        </qstat_l_requests>
      </JB_soft_resource_list>
      <JB_hard_resource_list>
        <qstat_l_requests>
          <CE_name>node_f</CE_name>
          <CE_stringval>2</CE_stringval>
        </qstat_l_requests>
        <qstat_l_requests>
          <CE_name>h_rt</CE_name>
          <CE_valtype>3</CE_valtype>
          <CE_stringval>1:00:00</CE_stringval>
        </qstat_l_requests>
      </JB_hard_resource_list>
      <JB_ja_tasks>
        <ulong_sublist>
          <JAT_status>128</JAT_status>
          <JAT_task_number>1</JAT_task_number>
          <JAT_start_time>{local(2026, 11, 17, 9, 1, 41):.0f}</JAT_start_time>
        </ulong_sublist>
      </JB_ja_tasks>
    </element>
  </djob_info>
</detailed_job_info>
"""


class TestGridEngine(BatchSystemContract):
    system = GRID_ENGINE
    job_id = "238"
    beside = {"SGE_O_WORKDIR": "/home/user", "SGE_TASK_ID": "undefined"}
    submissions = {
        'Your job 9714 ("a (b) c") has been submitted\n': "9714",
        'a word of the site\nYour job-array 9714.1-10:1 ("sweep") has been submitted\n': "9714",
        "Unable to run job: Job is rejected. h_rt must be specified.\nExiting.\n": "",
    }
    follows = ("42", ["-hold_jid", "42"])
    listing = (
        "<?xml version='1.0'?>\n<job_info>\n<queue_info>\n<job_list state=\"running\">\n<JB_job_number>238</JB_job_number>\n<state>r</state>\n"
        '</job_list>\n<job_list state="running">\n<JB_job_number>240</JB_job_number>\n<state>dr</state>\n<tasks>3</tasks>\n</job_list>\n'
        '</queue_info>\n<job_info>\n<job_list state="pending">\n<JB_job_number>241</JB_job_number>\n<state>hqw</state>\n</job_list>\n'
        '<job_list state="pending">\n<JB_job_number>242</JB_job_number>\n<state>qw</state>\n</job_list>\n</job_info>\n</job_info>\n'
    )
    states = {"238": "running", "240.3": "running", "241": "held", "242": "waiting"}
    size = "-l node_f={nodes}"
    texts = {
        QSTAT_J: WAITED,
        QSTAT_J.replace("hard resource_list", "hard_resource_list"): WAITED,
        QSTAT_J.replace("h_rt=3600,", "s_vmem=4G,h_rt=1:00:00,"): WAITED,
        QSTAT_J.replace("238", "237").replace("09:01", "08:01") + QSTAT_J: WAITED,
        QSTAT_J + QSTAT_J.replace("238", "239").replace("h_rt=3600", "h_rt=60"): WAITED,
        QSTAT_J.replace("h_rt=3600,", ""): replace(WAITED, ends_at=None),
        # It also waited for another job.
        QSTAT_J.replace("mail_list: ", "jid_predecessor_list (req):  237\nmail_list: "): HOUR,
        # Son of Grid Engine prints no start time here.
        QSTAT_J.replace("start_time", "end_time"): JobTimes(),
        QSTAT_J_XML: WAITED,
        # Altair Grid Engine counts milliseconds.
        QSTAT_J_XML.replace("</JAT_start_time>", "000</JAT_start_time>").replace(
            "</JB_submission_time>", "000</JB_submission_time>"
        ): WAITED,
        QSTAT_J_XML.replace(
            "      <JB_soft", "<JB_jid_request_list><job_predecessors/></JB_jid_request_list>\n      <JB_soft"
        ): HOUR,
        QSTAT_J_XML.replace(
            "<CE_name>h_rt</CE_name>\n          <CE_valtype>",
            "<CE_name>s_rt</CE_name>\n          <CE_valtype>",
        ): replace(WAITED, ends_at=None),
        QSTAT_J_XML.replace("JAT_start_time", "JAT_end_time"): JobTimes(),
    }

    def test_another_program_s_variable_of_the_same_name_is_no_job(self):
        assert this_allocation({"JOB_ID": "17"}) == Allocation("local", "")
        assert this_allocation({"JOB_ID": "17", "SGE_ROOT": "/opt/sge"}) == Allocation("local", "")

    def test_nodes_ranks_and_gpus_are_read(self, tmp_path: Path):
        file = tmp_path / "a 'b\"\nü hosts"
        file.write_text(
            "n1 4 all.q@n1 UNDEFINED\n"
            "n2.example.org 2 all.q@n2 <NULL>\n"
            "n2.example.org 2 long.q@n2 <NULL>\n"
            "\n"
            "n3 none\n"
        )
        found = this_allocation({"JOB_ID": "7", "PE_HOSTFILE": str(file), "SGE_HGR_gpu": "0 1 3"})
        assert found.nodes == nodes(("n1", 4), ("n2.example.org", 4))
        assert (found.ranks, found.gpus_per_node, found.node_file) == (8, 3, ""), (
            "mpirun cannot read such a file"
        )

    def test_a_task_of_an_array_is_known_by_its_number(self):
        assert this_allocation({"JOB_ID": "238", **self.beside, "SGE_TASK_ID": "3"}).job_id == "238.3"
        assert all("238" in question for question in self.system.questions("238.3"))
        third = QSTAT_J + QSTAT_J.splitlines(keepends=True)[-2].replace(" 1:", " 3:").replace(
            "09:01:41", "09:31:41"
        )
        assert self.system.answer(third, "238.3", NOW).started_at == HOUR.started_at + 1800
        assert self.system.answer(third, "238.1", NOW) == WAITED
        assert self.system.answer(QSTAT_J_XML, "238.3", NOW) == JobTimes()

    @pytest.mark.parametrize(("word", "state"), [
        ("r", "running"), ("t", "running"), ("Rr", "running"), ("dr", "running"), ("s", "running"), ("S", "running"), ("T", "running"),
        ("qw", "waiting"), ("Rq", "waiting"), ("hqw", "held"), ("hRqw", "held"), ("Eqw", "held"), ("hr", "running"),
    ])  # fmt: skip
    def test_a_state_is_made_of_letters(self, word: str, state: str):
        assert str(self.system.queued("17", word).state) == state


def test_every_system_is_held_to_the_contract():
    held = {contract.system.name for contract in BatchSystemContract.__subclasses__()}
    assert held == {system.name for system in SYSTEMS}


def test_without_a_batch_system_the_allocation_is_local_and_empty():
    assert this_allocation({}) == Allocation("local", "")
    assert with_end(Allocation("local", "")) == Allocation("local", "")
    assert batch_system("local") is None


# ----------------------------------------------------------------------- running the commands


def command_that(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a hostile name that comes first on PATH."""
    folder = tmp_path / "a 'b\" ü"
    folder.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), "/bin", "/usr/bin"]))
    return folder


def test_the_next_command_is_run_if_the_first_gives_no_answer(commands: Path):
    now = time.time()
    command_that(commands, "scontrol", "echo nothing useful; exit 1")
    ends = datetime.fromtimestamp(now + 100).isoformat(timespec="seconds")
    starts = datetime.fromtimestamp(now - 100).isoformat(timespec="seconds")
    command_that(commands, "squeue", f"echo '1|{starts}|{ends}'")
    found = with_end(Allocation("slurm", "1"))
    assert found.ends_at == pytest.approx(now + 100, abs=1.5)
    assert found.started_at == pytest.approx(now - 100, abs=1.5)
    assert found.ends_by == "squeue"


def test_the_users_own_formats_do_not_reach_the_command(commands: Path, monkeypatch):
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    command_that(commands, "scontrol", 'echo "$SLURM_TIME_FORMAT $LC_ALL" > "$(dirname "$0")/seen"')
    command_that(commands, "squeue", "exit 1")
    with_end(Allocation("slurm", "1"))
    assert (commands / "seen").read_text() == "standard C\n"


@pytest.mark.parametrize("script", ["exit 1", "head -c 5000 /dev/urandom", "kill -9 $$", "echo '1|x|y'"])
def test_a_command_that_fails_or_prints_garbage_leaves_the_end_unknown(commands: Path, script):
    for name in ("squeue", "scontrol"):
        command_that(commands, name, script)
    assert with_end(Allocation("slurm", "1")).ends_at is None


def test_a_command_that_hangs_is_abandoned(commands: Path, monkeypatch):
    monkeypatch.setattr("mpisweep.batch.allocation._ASK_S", 0.2)
    command_that(commands, "qstat", "exec sleep 1000")
    assert with_end(Allocation("pbs", "1")).ends_at is None
    monkeypatch.setattr("mpisweep.batch.allocation._ASK_WAIT_S", 0.1)
    known = Allocation("pbs", "1", ends_at=1.0)
    assert with_end(known, also_wait=True) == known


def test_no_command_at_all_leaves_the_end_unknown(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for system in SYSTEMS:
        assert with_end(Allocation(system.name, "1")).ends_at is None


def test_an_unknown_end_is_reported_with_the_remedy(caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_end(Allocation("local", ""))
        assert caplog.messages == []
        warn_of_unknown_end(Allocation("pjm", "17"))
    [message] = caplog.messages
    assert message.startswith(
        "the end of PJM job 17 is unknown; set --walltime to the elapse limit of the job"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3600", 3600), ("01:00:00", 3600), ("0001:00:00", 3600), ("30:00", 1800), ("1-02:00:00", 93600), ("00:10:00.50", 600),
     ("-", None), ("", None), ("unlimited", None), ("1:2:3:4", None), ("-5", None), ("²", None), ("9" * 30, None)],
)  # fmt: skip
def test_durations_are_read_in_every_notation(text, seconds):
    assert duration_s(text) == seconds
