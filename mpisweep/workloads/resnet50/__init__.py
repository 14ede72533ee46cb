"""ResNet50, trained at one batch size within a budget, on one or several ranks.

Metrics
-------
``loss``               cross entropy (with label smoothing, if any) of the last step's batch, in training
                       mode and before that step's update: the last point of the loss curve.
``loss_mean``          mean of the loss over the last tenth of the steps, at least one step.
``accuracy``           share of correct predictions over the same steps; only with real labels.
``setup_time``         seconds for model, data, capturing the step, compiling and choosing kernels.
``compile_time``       seconds of these for `torch.compile`; only if the model is compiled.
``train_time``         seconds for all steps at a steady pace: a warm-up step counts as the median of the
                       others so far, and what it took beyond that is part of ``setup_time``.
``step_time``          median seconds of a step after the warm-up.
``images_per_second``  images over seconds after the warm-up.
``data_wait``          seconds that the training waited for its next batch.
``significand_bits``   of the number format: 24 is fp32, 11 fp16, 8 bf16; tells what `precision = "auto"` was.
``peak_memory``        bytes: on a GPU, the most that torch had allocated; on a CPU, the most that this
                       process held since the trial began.  Of several ranks, the most of any.
``reserved_memory``    bytes: the most that torch had reserved of the GPU; only on a GPU.
``steps, samples``     steps taken, and images trained on.
``*_to_target``        steps, images and seconds of ``train_time`` to the target of `until`, NaN if it was not
                       reached; ``reached_target`` is then 0.
``noise_scale``        see ``noise``; with ``noise_scale_error``, ``gradient_variance``, ``gradient_square``.

Each attempt has a warm-up of `warmup_iter` steps, also one that resumes from a checkpoint.

With several ranks (:mod:`mpisweep.workloads.ranks`) `batch_size` is that of all ranks together, losses and
accuracies are means over the whole batch, and times are those of rank 0.

Loss and time of every step are curves, as is ``train_time`` once the first warm-up is over.  On a GPU, CUDA
events time the steps, and losses stay on the device until up to 20 of them are read at once, at least every
half second.

The same seed on the same device gives the same curve, whatever ran in this process before; on a GPU exactly
the same only with ``deterministic``, which forbids kernels that add in a varying order.

If the sweep is stopped, and every `checkpoint_every` steps, the trial saves a checkpoint and later resumes
from it: its curve is that of an uninterrupted run.

Batch normalisation needs two values per channel.  In the last stage an image of 32 pixels is a single one, so
batch size 1 needs an image_size above 32.

Modules: ``recipe`` (model, optimiser, learning rate, number format), ``stepping`` (one step, eager or as a
CUDA graph), ``compiling`` (torch.compile), ``allocator`` (GPU memory), ``clock`` (durations of steps),
``train_time`` (their sum), ``history`` (curves and metrics), ``budget`` (when a trial ends), ``noise`` (the
gradient noise scale), ``experiment`` (the trial).
"""

from __future__ import annotations

from mpisweep.workloads.resnet50.experiment import run

__all__ = ["run"]
