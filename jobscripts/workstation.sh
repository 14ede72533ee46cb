#!/bin/bash
# The batch size sweep of ResNet50 on one machine: one worker a GPU, or one a core.
# Run it again after an interruption: it goes on where it stopped.
#
#   bash jobscripts/workstation.sh [OPTIONS OF mpisweep run]
set -euo pipefail

sweep=$(dirname "$0")/../examples/resnet50-batch-size.toml

mpisweep check "$sweep" -o resnet50-batch-size.h5
mpisweep run "$sweep" -o resnet50-batch-size.h5 "$@"
mpisweep top resnet50-batch-size.h5
