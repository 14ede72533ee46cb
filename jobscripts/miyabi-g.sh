#!/bin/bash
# The sweep resnet50-batch-size on Miyabi-G (JCAHPC), nodes of one GH200: 2 nodes, 2 ranks, up to 2:00:00.
#
#   qsub THIS_SCRIPT
#
# Submit it again if it ends early: the sweep resumes, and no completed trial runs again.
# The site file does not state the limits of regular-g: see the site's own pages.
# Replace GROUP with your project group, and put this folder below /work.
#PBS -N resnet50-batch-size
#PBS -q regular-g
#PBS -W group_list=GROUP
#PBS -l select=2:mpiprocs=1
#PBS -l walltime=2:00:00
#PBS -j oe
set -euo pipefail

# The folder that the job was submitted from.
cd -- "$PBS_O_WORKDIR"

# Modules, in the versions that the environment was built with.  Their scripts fail under `set -u`.
set +u
# shellcheck disable=SC1091
type module >/dev/null 2>&1 || source /etc/profile.d/modules.sh
module load nvidia nv-hpcx
set -u

# The environment that mpisweep is in.
venv=${MPISWEEP_VENV:-"$HOME"/mpisweep/.venv}
# shellcheck disable=SC1091
source "$venv/bin/activate"

# The sweep and its results.
sweep=${MPISWEEP_SWEEP:-"$HOME"/mpisweep/examples/resnet50-batch-size.toml}
results=${MPISWEEP_RESULTS:-resnet50-batch-size.h5}

# PBS sends no warning before the time limit; at the limit, and at qdel, it sends SIGTERM and some seconds
# later SIGKILL.  The shell asks the sweep to stop cleanly and waits for it; the sweep watches the clock in
# any case.
sweep_pid=
signalled=0
trap 'signalled=1; [ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true' USR1
# The sweep may receive SIGTERM, too, which would end it at once if it came after SIGUSR1.
trap 'signalled=1; sleep 1; [ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true' TERM
# PBS sets no variable for the end of a job: the time limit above, in seconds.
walltime=7200
mpisweep run "$sweep" -o "$results" --walltime "$((walltime - SECONDS))" &
sweep_pid=$!
code=0
wait "$sweep_pid" || code=$?
# A signal ends `wait` and not the sweep.
while [ "$signalled" -eq 1 ]; do
    signalled=0
    code=0
    wait "$sweep_pid" || code=$?
done

# The best trials so far.  Exit codes: 0 every trial has ended, 3 stopped early, 4 no trial completed, 2 wrong
# input.
mpisweep top "$results" || true
if [ "$code" -eq 3 ]; then echo "The sweep stopped early: submit this script again to resume it."; fi
exit "$code"
