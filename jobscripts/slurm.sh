#!/bin/bash
# The sweep resnet50-batch-size on a system under Slurm: 2 nodes, 8 ranks, up to 2:00:00.
#
#   sbatch THIS_SCRIPT
#
# Submit it again if it ends early: the sweep resumes, and no completed trial runs again.
# Add --partition and --account where your system wants them, and load the modules of your environment.
#SBATCH --job-name=resnet50-batch-size
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=4
#SBATCH --time=2:00:00
#SBATCH --no-kill
#SBATCH --signal=B:USR1@40
#SBATCH --output=resnet50-batch-size.%j.log
set -euo pipefail

# The folder that the job was submitted from.
cd -- "$SLURM_SUBMIT_DIR"

# The environment that mpisweep is in.
venv=${MPISWEEP_VENV:-"$HOME"/mpisweep/.venv}
# shellcheck disable=SC1091
source "$venv/bin/activate"

# The sweep and its results.
sweep=${MPISWEEP_SWEEP:-"$HOME"/mpisweep/examples/resnet50-batch-size.toml}
results=${MPISWEEP_RESULTS:-resnet50-batch-size.h5}

# --signal makes Slurm send SIGUSR1 to this shell only.  The shell asks the sweep to stop cleanly and waits
# for it; the sweep watches the clock in any case.
sweep_pid=
signalled=0
trap 'signalled=1; [ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true' USR1
# The sweep may receive SIGTERM, too, which would end it at once if it came after SIGUSR1.
trap 'signalled=1; sleep 1; [ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true' TERM
mpisweep run "$sweep" -o "$results" &
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
