"""Descriptions of named workloads: options, metrics, and the work of a configuration.

Sweep files are checked against them, the planner estimates durations from them, and figures take their units
from them.  The experiments themselves are elsewhere; nothing here imports torch.

A plugin describes its workload in the same way, see :mod:`mpisweep.plugins`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from mpisweep.dataclass import dataclass
from mpisweep.plugins import WORKLOADS, PluginError, find_plugin, is_named
from mpisweep.records import Value
from mpisweep.spec.keys import one_of
from mpisweep.spec.training import contradiction, last_bounds, planned_steps, target_problem

__all__ = [
    "BUILTIN", "RESNET50", "SPEED", "Metric", "Option", "WorkloadDescription", "describe",
    "describe_if_there", "entry_of", "is_workload", "names_workload", "units_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Option:
    """One parameter of a workload."""

    name: str
    kind: Literal["integer", "number", "choice", "boolean", "text", "target"]
    default: Value
    description: str
    units: str = ""
    #: Smallest allowed number.
    low: float | None = None
    values: tuple[str, ...] = ()
    #: Options in whose presence the default is 0.
    unless: tuple[str, ...] = ()

    def problem(self, value: Value) -> str | None:
        """Why `value` is invalid, as the end of a sentence; None if it is valid."""
        match self.kind:
            case "target":
                return target_problem(value)
            case "boolean":
                wanted = "true or false"
                fits = isinstance(value, bool)
            case "choice":
                wanted = one_of(value, self.values, quoted=True)
                fits = value in self.values and isinstance(value, str)
            case "text":
                wanted = "a string"
                fits = isinstance(value, str)
            case "integer" | "number":
                wanted = "an integer" if self.kind == "integer" else "a number"
                fits = (
                    not isinstance(value, (bool, str))
                    and (self.kind == "number" or isinstance(value, int))
                    and (self.low is None or value >= self.low)
                )
                if self.low is not None:
                    wanted += f" of at least {self.low:g}"
        return None if fits else f"is {value!r}; expected {wanted}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that trials of a workload report."""

    name: str
    description: str
    units: str = ""
    #: The curve of which it is the mean over the last tenth of the reports; empty if it is none.
    smooths: str = ""


def _unit_work(_: Mapping[str, Value]) -> float:
    return 1.0


def _nothing(_: Mapping[str, Value]) -> tuple[str, ...]:
    return ()


def _no_contradiction(_: Mapping[str, Value]) -> tuple[str, str] | None:
    return None


def _no_caution(_: Mapping[str, Value], objective: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class WorkloadDescription:
    """A workload that sweep files can name.

    Attributes:
        name: its name in sweep files.
        module: has the function ``run(trial)``, which returns metrics; only trial processes import it.
        options: its parameters; others are rejected.
        metrics: the metrics that it reports.
        preload: modules that the fork server imports once, before it forks trial processes.
        modules: the other modules that a configuration needs, for a configuration.
        work: relative work of a configuration, in any unit; the planner estimates durations from it.
        folders: the options that must name a folder, for a configuration.
        contradiction: the option of a configuration that contradicts others, and why, as the end of a
            sentence; None if all agree.
        samples_per_step: the option that says how many samples a step trains on; empty if none does.
        caution: a sentence on an objective that says little about a configuration; empty for none.
    """

    name: str
    module: str
    options: tuple[Option, ...]
    metrics: tuple[Metric, ...]
    preload: tuple[str, ...] = ()
    modules: Callable[[Mapping[str, Value]], tuple[str, ...]] = _nothing
    work: Callable[[Mapping[str, Value]], float] = _unit_work
    folders: Callable[[Mapping[str, Value]], tuple[str, ...]] = _nothing
    contradiction: Callable[[Mapping[str, Value]], tuple[str, str] | None] = _no_contradiction
    samples_per_step: str = ""
    caution: Callable[[Mapping[str, Value], str], str] = _no_caution

    def option(self, name: str) -> Option | None:
        """Look up an option by name."""
        return next((option for option in self.options if option.name == name), None)

    @property
    def defaults(self) -> dict[str, Value]:
        """Defaults of all options."""
        return {option.name: option.default for option in self.options}

    def defaults_beside(self, given: Container[str]) -> dict[str, Value]:
        """Defaults of all options, for a configuration that sets the given ones."""
        return {
            option.name: 0 if any(name in given for name in option.unless) else option.default
            for option in self.options
        }


def _resnet50_work(params: Mapping[str, Value]) -> float:
    """Images times pixels, to which the cost of convolutions is proportional; else seconds."""
    steps = planned_steps(params)
    if steps is None and (bounds := last_bounds(params)):
        # Whatever its time asks for, it takes these.
        steps = int(max((bounds[axis] for axis in ("steps", "samples") if axis in bounds), default=0)) or None
    if steps is None:
        return float(params["seconds"])
    return float(params["batch_size"]) * steps * float(params["image_size"]) ** 2


def _resnet50_folders(params: Mapping[str, Value]) -> tuple[str, ...]:
    validates = params["data"] == "imagefolder" and int(params["val_every"]) >= 0
    needs = params["data"] in ("cifar10", "imagefolder")
    return ("data_root",) * needs + ("val_root",) * validates


def _resnet50_modules(params: Mapping[str, Value]) -> tuple[str, ...]:
    return ("sklearn",) if params["data"] == "digits" else ()


def _resnet50_caution(params: Mapping[str, Value], objective: str) -> str:
    if params["data"] == "synthetic" and objective in ("loss", "loss_mean"):
        return (
            f"{objective} of synthetic data is that of one random batch, repeated; use real data, "
            'e.g. data = "digits", or an objective such as images_per_second'
        )
    if objective == "loss":
        return "loss is that of the last step's batch, which is noisy; use loss_mean, or val_loss"
    if "_at_" in objective and params["ends_at"] != "last":
        return f'{objective} is only measured with ends_at = "last"'
    if objective.startswith("val_") and int(params["val_every"]) < 0:
        return f"{objective} is only measured with val_every of at least 0"
    if objective.endswith("_to_target") and not params["until"]:
        return f"{objective} is only measured with until"
    if params["noise_scale"] and params["batch_size"] == 1:
        return "noise_scale is not measured at batch_size 1, which has no two halves"
    return ""


_RESNET50_OPTIONS = (
    Option("batch_size", "integer", 256, "images per optimiser step", "images", 1),
    Option("num_iter", "integer", 300, "most optimiser steps; 0, and by default beside num_samples or "
           "seconds: no bound", "", 0, unless=("num_samples", "seconds")),
    Option("num_samples", "integer", 0, "most training images, in whole steps; 0: no bound", "images", 0),
    Option("seconds", "number", 0.0, "most training time, as in train_time; 0: no bound", "s", 0),
    Option("until", "target", "", "ends the training at a value of loss_mean, accuracy, val_loss or "
           "val_accuracy, e.g. { loss_mean = 0.5 }"),
    Option("ends_at", "choice", "first", "which of num_iter, num_samples and seconds ends the training; "
           "last: until does not, and the losses at each of them are metrics",
           values=("first", "last")),
    Option("data", "choice", "synthetic", "source of the images",
           values=("synthetic", "digits", "cifar10", "imagefolder")),
    Option("data_root", "text", "", "folder of the cifar10 or imagefolder data"),
    Option("loaders", "integer", -1, "processes that read an imagefolder; -1: one per core, less one",
           low=-1),
    Option("decode", "choice", "auto",
           "where JPEGs of an imagefolder are decoded; auto: on GPUs with nvJPEG, else in the loaders",
           values=("auto", "cpu", "gpu")),
    Option("val_every", "integer", -1,
           "steps between validations on held-out images; 0: at the end only; -1: never", low=-1),
    Option("val_root", "text", "", "folder of the images that validate an imagefolder"),
    Option("augment", "boolean", False, "crop and flip digits and cifar10 at random"),
    Option("image_size", "integer", 224, "height and width of an image after resizing", "pixels", 32),
    Option("num_classes", "integer", 1000, "number of classes; the data may have fewer", "", 2),
    Option("optimizer", "choice", "sgd", "optimiser; sgd uses momentum", values=("sgd", "adamw")),
    Option("learning_rate", "number", 0.1, "step size; at base_batch_size if lr_scaling is not none", "", 0),
    Option("lr_scaling", "choice", "none",
           "scaling of the learning rate by batch_size / base_batch_size, or by its square root",
           values=("none", "linear", "sqrt")),
    Option("base_batch_size", "integer", 256, "batch size that learning_rate is tuned for", "images", 1),
    Option("lr_schedule", "choice", "constant",
           "learning rate over the steps; step: a tenth after half and after three quarters of them",
           values=("constant", "cosine", "step")),
    Option("lr_warmup_iter", "integer", 0, "steps over which the learning rate rises to full value", "", 0),
    Option("momentum", "number", 0.9, "momentum of sgd", "", 0),
    Option("nesterov", "boolean", False, "Nesterov momentum of sgd"),
    Option("weight_decay", "number", 1e-4, "weight decay", "", 0),
    Option("clip_norm", "number", 0.0, "maximum norm of the gradient; 0: no clipping", "", 0),
    Option("accumulate", "integer", 1, "parts of a batch whose gradients are accumulated", "", 1),
    Option("zero_init_gamma", "boolean", False, "start each residual branch at zero"),
    Option("label_smoothing", "number", 0.0, "label smoothing of the cross entropy", "", 0),
    Option("precision", "choice", "auto",
           "number format; auto: bf16 on GPUs that support it, fp16 on Volta and Turing, else fp32",
           values=("auto", "fp32", "bf16", "fp16")),
    Option("channels_last", "choice", "auto", "channels-last memory format; auto: on GPUs only",
           values=("auto", "on", "off")),
    Option("tf32", "boolean", True, "let fp32 convolutions and products use TF32 on GPUs that support it"),
    Option("step", "choice", "auto", "execution of a step; auto: a CUDA graph on one GPU, else eager",
           values=("auto", "eager", "graph")),
    Option("cudnn_benchmark", "boolean", False, "let cuDNN time its kernels during the warm-up"),
    Option("compile", "boolean", False, "torch.compile the model, with one program for many batch sizes"),
    Option("noise_scale", "integer", 0,
           "steps between measurements of the gradient noise scale; 0: never", "", 0),
    Option("deterministic", "boolean", False, "reproducible curves on GPUs too; slower"),
    Option("checkpoint_every", "integer", 0, "steps between checkpoints; 0: only when the sweep stops",
           low=0),
    Option("warmup_iter", "integer", 5, "steps of each attempt that do not count for speed", "", 0),
)  # fmt: skip

_RESNET50_METRICS = (
    Metric("loss", "mean cross entropy of the last batch, before its update", ""),
    Metric("loss_mean", "mean of the loss over the last tenth of the steps", "", smooths="loss"),
    Metric("iteration_time", "duration of one step", "s"),
    Metric("train_time", "duration of all steps at a steady pace", "s"),
    Metric("step_time", "median duration of a step after the warm-up", "s"),
    Metric("setup_time", "duration of model, data, capture, compiling and choosing kernels", "s"),
    Metric("compile_time", "duration of torch.compile, a part of setup_time", "s"),
    Metric("data_wait", "duration of waiting for batches", "s"),
    Metric("images_per_second", "throughput after the warm-up", "images/s"),
    Metric("significand_bits", "significand of the number format: 24 is fp32, 11 fp16, 8 bf16", "bit"),
    Metric("peak_memory", "peak memory: held by torch on a GPU, or by the process on CPUs", "byte"),
    Metric("reserved_memory", "peak memory that torch reserved on a GPU", "byte"),
    Metric("val_loss", "mean cross entropy over the held-out images", ""),
    Metric("val_accuracy", "share of correct predictions over the held-out images", ""),
    Metric("accuracy", "share of correct predictions over the last tenth of the steps", ""),
    Metric("steps", "optimiser steps taken", ""),
    Metric("samples", "images trained on", "images"),
    *(
        Metric(f"{name}_at_{axis}", f'{name} when {option} was reached, with ends_at = "last"')
        for name in ("loss_mean", "val_loss")
        for axis, option in (("steps", "num_iter"), ("samples", "num_samples"), ("seconds", "seconds"))
    ),
    Metric("reached_target", "1 if the target of until was reached, else 0", ""),
    Metric("steps_to_target", "steps to the target of until; NaN if it was not reached", ""),
    Metric("samples_to_target", "images to the target of until; NaN if it was not reached", "images"),
    Metric("seconds_to_target", "train_time to the target of until; NaN if it was not reached", "s"),
    Metric("noise_scale", "gradient noise scale: ratio of the next two, averaged over the trial", "images"),
    Metric("noise_scale_error", "standard error of noise_scale", "images"),
    Metric("gradient_variance", "sum of the variances of one image's gradient, estimated", ""),
    Metric("gradient_square", "squared norm of the expected gradient, estimated", ""),
)

#: The metric for the speed of a workload, if it reports one.
SPEED = "images_per_second"

RESNET50 = WorkloadDescription(
    name="resnet50",
    module="mpisweep.workloads.resnet50",
    options=_RESNET50_OPTIONS,
    metrics=_RESNET50_METRICS,
    preload=("torch", "torchvision", "mpisweep.workloads.resnet50"),
    modules=_resnet50_modules,
    work=_resnet50_work,
    folders=_resnet50_folders,
    contradiction=contradiction,
    samples_per_step="batch_size",
    caution=_resnet50_caution,
)

BUILTIN: dict[str, WorkloadDescription] = {RESNET50.name: RESNET50}


def is_workload(name: str) -> bool:
    """Whether a built-in workload or a plugin has this name."""
    return is_named(WORKLOADS, name)


def names_workload(name: str) -> bool:
    """Whether this names a workload, and not a sweep file: a file has precedence over a plugin."""
    return name in BUILTIN or (not Path(name).exists() and (":" in name or is_workload(name)))


@cache
def describe(name: str) -> WorkloadDescription | None:
    """Find the description of a workload; None if no workload has this name.

    Raises:
        PluginError: if a plugin has this name and cannot be used.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    plugin = find_plugin(WORKLOADS, name)
    if plugin is None:
        return None
    found = plugin.load()
    if not isinstance(found, WorkloadDescription):
        raise plugin.unfit(f"cannot be used: expected a WorkloadDescription, found {type(found).__name__}")
    if found.name != name:
        raise plugin.unfit(f"cannot be used: it describes {found.name!r}, not {name!r}")
    return found


@cache
def describe_if_there(name: str) -> WorkloadDescription | None:
    """Like :func:`describe`, but None if a plugin cannot be used; for readers of results."""
    try:
        return describe(name)
    except PluginError:
        return None


def units_of(workload: str, name: str, *, is_metric: bool = False) -> str:
    """Units of an option or metric of a workload; empty if it has none or is unknown."""
    entry = entry_of(workload, name, is_metric=is_metric)
    return entry.units if entry else ""


def entry_of(workload: str, name: str, *, is_metric: bool = False) -> Option | Metric | None:
    """Find an option or metric of a workload; None if there is none of that name.

    Args:
        workload: its name.
        name: of the option or metric.
        is_metric: whether the metric is meant if there are both.
    """
    # A snapshot asks this for every column.
    described = describe_if_there(workload) if workload else None
    if described is None:
        return None
    options: tuple[Option | Metric, ...] = described.options
    entries = (*described.metrics, *options) if is_metric else (*options, *described.metrics)
    return next((entry for entry in entries if entry.name == name), None)
