#!/bin/bash
# The sweep resnet50-batch-size on a system under Slurm: 2 nodes, 8 ranks, at most 2:00:00.
#
#   sbatch THIS_SCRIPT
#
# Submit it again if it ends early: the sweep goes on where it stopped, and nothing is done twice.
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

# Where it was submitted.
cd -- "$SLURM_SUBMIT_DIR"

# The environment that mpisweep is in.
venv=${MPISWEEP_VENV:-"$HOME"/mpisweep/.venv}
# shellcheck disable=SC1091
source "$venv/bin/activate"

# The sweep and its results.
sweep=${MPISWEEP_SWEEP:-"$HOME"/mpisweep/examples/resnet50-batch-size.toml}
results=${MPISWEEP_RESULTS:-resnet50-batch-size.h5}

# The SIGUSR1 that --signal asks for comes to this shell alone.  It asks the sweep to stop in order and waits
# for it; the sweep watches the clock in any case.
sweep_pid=
signalled=0
trap 'signalled=1; [ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true' USR1
# SIGTERM may reach the sweep by itself, which takes a second request for an order to end at once.
trap 'signalled=1; sleep 1; [ -z "$sweep_pid" ] || kill -USR1 "$sweep_pid" 2>/dev/null || true' TERM
mpisweep run "$sweep" -o "$results" &
sweep_pid=$!
code=0
wait "$sweep_pid" || code=$?
# A signal ends the waiting and not the sweep.
while [ "$signalled" -eq 1 ]; do
    signalled=0
    code=0
    wait "$sweep_pid" || code=$?
done

# The best trials so far.  Exit codes: 0 every trial has ended, 3 stopped early, 4 no trial completed, 2 wrong
# input.
mpisweep top "$results" || true
if [ "$code" -eq 3 ]; then echo "The sweep has stopped early: submit this script again and it goes on."; fi
exit "$code"
