"""The experiment: train torchvision's ResNet50 for `num_iter` steps at one batch size, on one rank or
several.

Metrics
-------
``loss``               cross entropy (with label smoothing, if any) of the last step's batch, in training
                       mode and before that step's update: the last point of the loss curve.
``loss_mean``          mean of the loss over the last tenth of the steps, at least one.
``accuracy``           share of right predictions over the same steps; only where labels are real.
``setup_time``         seconds for model, data, capturing the step, compiling and choosing kernels.
``compile_time``       seconds of these for `torch.compile`; only if the model is compiled.
``train_time``         seconds for all steps at a steady pace: a warm-up step counts as the median of the
                       others, and what it took beyond that is part of ``setup_time``.
``step_time``          median seconds of a step after the warm-up.
``images_per_second``  images over seconds after the warm-up.
``data_wait``          seconds that the training waited for its next batch.
``peak_memory``        bytes: on a GPU, the most that torch had allocated; on a CPU, the most that this
                       process held since the trial began.  Of several ranks, the most of any.
``reserved_memory``    bytes: the most that torch had reserved of the GPU; only on a GPU.

Each attempt has a warm-up of `warmup_iter` steps, also one that resumes from a checkpoint.

With several ranks (:mod:`mpisweep.workloads.ranks`) `batch_size` is that of all of them together, losses and
accuracies are means over the whole batch, and times are those of rank 0.

Loss and time of every step are curves.  On a GPU the steps are timed by CUDA events, and losses stay on the
device until they are read some at a time, at most every half second.

The same seed on the same device gives the same curve, whatever ran in this process before; on a GPU to the
last bit only with ``deterministic``, which forbids kernels that add up in whatever order they come.

When the sweep is stopped, and every `checkpoint_every` steps, everything is saved, and the trial resumes
there: its curve is that of a run without interruption.

Batch normalisation needs two values per channel.  In the last stage an image of 32 pixels is a single one, so
batch size 1 needs an image_size above 32.

Modules: ``recipe`` (model, optimiser, learning rate, number format), ``stepping`` (one step, eager or as a
CUDA graph), ``clock`` (durations of steps), ``history`` (curves and metrics), ``experiment`` (the trial).
"""

from __future__ import annotations

from mpisweep.workloads.resnet50.experiment import run

__all__ = ["run"]
