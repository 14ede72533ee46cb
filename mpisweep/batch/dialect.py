"""What tells one batch system from another, as tables: its commands, its variables, the options it knows.

Scripts are written (:mod:`mpisweep.batch.jobscript`), submitted (:mod:`mpisweep.batch.submit`), asked after
(:mod:`mpisweep.batch.queue`) and checked (:mod:`mpisweep.batch.checkscript`) by these tables.  A batch system that
is not here is one entry more.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DIALECTS", "PBS", "PJM", "SLURM", "WORKSTATION", "Dialect", "clock"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One batch system; what is not said it does not have.

    Attributes:
        name: as in :class:`mpisweep.batch.allocation.Allocation`.
        title: as people call it.
        submit: the command that takes a script.
        marker: begins a directive.
        ask: the command that lists jobs.
        cancel: the command that ends jobs, before their ids.
        submit_folder: the variable of a job that holds the folder it was submitted from.
        flags: options without a value.
        valued: options with a value, which follows after a space or, for those with two dashes, after ``=``.
        resources: what may stand before ``=`` in the value of :attr:`resource_option`; empty where a site adds
            its own.
        resource_option: the option that takes ``name=value[,name=value...]``.
        local_folders: folders that exist on each node by itself, as variables of a job.
        name_length: longest name of a job.
        tells_its_end: whether a job learns from its environment when it ends.
        example: a directive, without its marker.
    """

    name: str
    title: str
    submit: str
    marker: str = ""
    ask: str = ""
    cancel: str = ""
    submit_folder: str = ""
    flags: frozenset[str] = frozenset()
    valued: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    resource_option: str = ""
    local_folders: tuple[str, ...] = ()
    name_length: int = 200
    tells_its_end: bool = False
    example: str = ""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Fujitsu's: the options of pjsub that its users' guides and public scripts show.
PJM = Dialect(
    name="pjm",
    title="PJM",
    marker="#PJM",
    submit="pjsub",
    ask="pjstat",
    cancel="pjdel",
    submit_folder="PJM_O_WORKDIR",
    flags=_words(
        "-j -s -S -X -w -h --help -i --interact --bulk --step --restart --norestart --no-check-directory --mswk "
        "--spath-extend --no-stging"
    ),
    valued=_words(
        "-L --rsc-list --mpi -N --name -g --gname -o --out -e --err -m --mail-list -x -p -P -z --sparam --fs "
        "--at --appname --comment --llio --net-route --rscunit --custom-resource --stgin --stgout "
        "--stg-transfiles -r -C --dir-prefix --vset"
    ),
    resources=_words(
        "node vnode vnode-core vnode-mem node-mem core-mem rscunit rscgrp rscunit-mode elapse gpu gpus jobenv freq "
        "proc-core proc-crproc proc-data proc-filesize proc-lockm proc-msgq proc-openfd proc-psig proc-stack "
        "proc-vmem throttling_state issue_state ex_pipe_state eco_state retention_state node-ssd noncont"
    ),
    resource_option="-L",
    local_folders=("PJM_LOCALDIR", "PJM_LOCALTMP", "PJM_JOBDIR", "PJM_SSD_DIR", "TMPDIR"),
    name_length=63,
    example="-m e",
)

#: sbatch of Slurm 22.05, `sbatch --help`.
SLURM = Dialect(
    name="slurm",
    title="Slurm",
    marker="#SBATCH",
    submit="sbatch",
    ask="squeue",
    cancel="scancel",
    submit_folder="SLURM_SUBMIT_DIR",
    flags=_words(
        "--contiguous --hold -H --ignore-pbs --no-requeue --overcommit -O --oversubscribe -s --parsable --quiet -Q "
        "--reboot --requeue --spread-job --test-only --use-min-nodes --verbose -v --wait -W --exclusive --nice "
        "--propagate --get-user-env --no-kill -k -h --help -V --version --kill-on-invalid-dep"
    ),
    valued=_words(
        "--account -A --acctg-freq --array -a --batch --bb --bbf --begin -b --chdir -D --cluster-constraint "
        "--clusters -M --comment --constraint -C --container --core-spec -S --cores-per-socket --cpu-freq "
        "--cpus-per-gpu --cpus-per-task -c --deadline --delay-boot --dependency -d --distribution -m --error -e "
        "--exclude -x --exclusive --export --export-file --extra-node-info -B --get-user-env --gid "
        "--gpu-bind --gpu-freq --gpus -G --gpus-per-node --gpus-per-socket --gpus-per-task --gres "
        "--gres-flags --hint --input -i --job-name -J --kill-on-invalid-dep --licenses -L --mail-type "
        "--mail-user --mcs-label --mem --mem-bind --mem-per-cpu --mem-per-gpu --mincpus --network --nice "
        "--no-kill --nodefile -F --nodelist -w --nodes -N --ntasks -n --ntasks-per-core --ntasks-per-gpu "
        "--ntasks-per-node --ntasks-per-socket --open-mode --output -o --partition -p --power --prefer "
        "--priority --profile --propagate --qos -q --reservation --signal --sockets-per-node --switches "
        "--thread-spec --threads-per-core --time -t --time-min --tmp --tres-per-task --uid --wait-all-nodes "
        "--wckey --wrap"
    ),
    local_folders=("SLURM_TMPDIR", "TMPDIR"),
    tells_its_end=True,
    example="--constraint=a100",
)

#: qsub of OpenPBS and PBS Professional.
PBS = Dialect(
    name="pbs",
    title="PBS",
    marker="#PBS",
    submit="qsub",
    ask="qstat",
    cancel="qdel",
    submit_folder="PBS_O_WORKDIR",
    flags=_words("-f -h -I -V -X -x -z --version"),
    valued=_words("-a -A -c -C -e -G -j -J -k -l -m -M -N -o -p -P -q -r -R -S -u -v -W"),
    resource_option="-l",
    local_folders=("PBS_JOBDIR", "TMPDIR"),
    name_length=230,
    example="-l place=scatter:excl",
)

#: A machine of one's own: a script that is run and not submitted.
WORKSTATION = Dialect(name="workstation", title="a workstation", submit="bash")

DIALECTS = {dialect.name: dialect for dialect in (PJM, SLURM, PBS, WORKSTATION)}


def clock(seconds: float) -> str:
    """``2:00:00`` for 7200: as all three systems take it."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
