#!/bin/bash
# The sweep resnet50-batch-size on one machine: one worker per GPU, or one per core.
# Run it again after an interruption: the sweep resumes.
#
#   bash THIS_SCRIPT [OPTIONS OF mpisweep run]
set -euo pipefail

# The sweep and its results.
sweep=${MPISWEEP_SWEEP:-"$HOME"/mpisweep/examples/resnet50-batch-size.toml}
results=${MPISWEEP_RESULTS:-resnet50-batch-size.h5}

code=0
mpisweep run "$sweep" -o "$results" "$@" || code=$?

# The best trials so far.  Exit codes: 0 every trial has ended, 3 stopped early, 4 no trial completed, 2 wrong
# input.
mpisweep top "$results" || true
if [ "$code" -eq 3 ]; then echo "The sweep stopped early: run this script again to resume it."; fi
exit "$code"
