#!/bin/bash
# The batch size sweep of ResNet50 in one job on Flow Type II (Nagoya University; 4 V100 a node, PJM).
# Submit it from the folder where the results file shall lie, again if the job ends at its elapse limit:
# it goes on where it stopped.
#
#   pjsub jobscripts/flow-cx.sh
#
# Choose the resource group and the number of nodes to fit (4 ranks a node: one a GPU), and the versions of
# the modules that your environment was built with.
#PJM -N resnet50-batch-size
#PJM -L rscunit=cx
#PJM -L rscgrp=cx-small
#PJM -L node=2
#PJM --mpi proc=8
#PJM -L elapse=2:00:00
#PJM -j
#PJM -S
set -euo pipefail

# The walltime for mpisweep: as the elapse above.  PJM does not tell it to the job.
walltime=2:00:00
# The environment with mpisweep in it, and the sweep file.
venv=${MPISWEEP_VENV:-$HOME/mpisweep/.venv}
sweep=${MPISWEEP_SWEEP:-$HOME/mpisweep/examples/resnet50-batch-size.toml}

module load gcc cuda openmpi_cuda
source "$venv/bin/activate"

# PJM starts remote ranks through pjrsh; there is no ssh between the nodes.
mpirun -n "$PJM_MPI_PROC" -machinefile "$PJM_O_NODEINF" -npernode 4 --mca plm_rsh_agent /bin/pjrsh \
    mpisweep run "$sweep" -o resnet50-batch-size.h5 --walltime "$walltime"

mpisweep top resnet50-batch-size.h5
