"""torch.compile within the trial's cores, without processes that outlive the trial.

Sizes are dynamic: one program serves many batch sizes, whichever comes first; with the default, the first
size of a process would get a program of its own, and the second another for all others.  Inductor still
splits the sizes where it would generate other code, as on CPUs where a sum over a batch exceeds 4096
elements, so that a sweep compiles two or three programs.

Compiled code goes to inductor's cache on the node's local disk (TORCHINDUCTOR_CACHE_DIR, by default
/tmp/torchinductor_USER), which all workers of a node and later runs use.
"""

from __future__ import annotations

import os
import sys
from typing import cast

import torch
from torch import nn

__all__ = ["compiled", "end_compilers"]

#: The user's choice; without it inductor takes all cores that it sees when it is imported.
_THREADS = "TORCHINDUCTOR_COMPILE_THREADS"


def compiled(model: nn.Module, cores: int) -> nn.Module:
    """The compiled model.

    Args:
        model: the model.
        cores: of the trial.
    """
    from torch._inductor import config
    from torch.fx.experimental import _config as shapes

    if _THREADS not in os.environ:
        # The fork server has imported it, before it had only the cores of one trial.
        config.compile_threads = cores
    # Otherwise a first batch of 3 images, or of 64 with 64 x 64 pixels, is taken for one size that is both,
    # and the program is for no other batch.
    shapes.use_duck_shape = False
    return cast(nn.Module, torch.compile(model, dynamic=True))


def end_compilers() -> None:
    """End inductor's compile processes.

    A trial's leftovers are killed, and inductor would go on to use them in the next trial that compiles.
    """
    compilers = sys.modules.get("torch._inductor.async_compile")
    if compilers is not None:
        compilers.shutdown_compile_workers()
