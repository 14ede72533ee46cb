"""Workloads that have a name, as data: their options, their metrics, and what makes a trial long.

Everything that is not the experiment itself: the sweep file is checked against this table, the planner
expects durations by it, and the figures take their units from it.  Nothing here imports torch.

A plugin describes its workload in the same way, see :mod:`mpisweep.plugins`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mpisweep.plugins import WORKLOADS, PluginError, find_plugin, is_named
from mpisweep.records import Value

__all__ = [
    "BUILTIN", "RESNET50", "SPEED", "Metric", "Option", "WorkloadDescription", "describe",
    "describe_if_there", "entry_of", "is_workload", "units_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Option:
    """One parameter that a workload understands."""

    name: str
    kind: Literal["integer", "number", "choice", "boolean", "text"]
    default: Value
    description: str
    units: str = ""
    #: Smallest allowed number.
    low: float | None = None
    values: tuple[str, ...] = ()

    def problem(self, value: Value) -> str | None:
        """What is wrong with `value`, as the end of a sentence; None when nothing is."""
        match self.kind:
            case "boolean":
                wanted = "true or false"
                fits = isinstance(value, bool)
            case "choice":
                wanted = "one of " + ", ".join(repr(known) for known in self.values)
                fits = value in self.values and isinstance(value, str)
            case "text":
                wanted = "a text"
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
        return None if fits else f"is {value!r}; it must be {wanted}"


@dataclass(frozen=True, slots=True)
class Metric:
    """One number that a trial of a workload reports."""

    name: str
    description: str
    units: str = ""


def _no_work(_: Mapping[str, Value]) -> float:
    return 1.0


def _no_folder(_: Mapping[str, Value]) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class WorkloadDescription:
    """One workload that sweep files can name.

    Attributes:
        name: as sweep files have it.
        module: has the function ``run(trial)``, which returns metrics; only trial processes import it.
        options: the parameters that it understands; others are refused.
        metrics: what it reports.
        preload: modules that the fork server imports before it forks trial processes, so that each finds them
            there.
        work: relative work of a configuration, in any unit; the planner expects durations by it.
        folder: the option that names the folder of the data; empty for none.
        needs_folder: whether a configuration needs that folder.
    """

    name: str
    module: str
    options: tuple[Option, ...]
    metrics: tuple[Metric, ...]
    preload: tuple[str, ...] = ()
    work: Callable[[Mapping[str, Value]], float] = _no_work
    folder: str = ""
    needs_folder: Callable[[Mapping[str, Value]], bool] = _no_folder

    def option(self, name: str) -> Option | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)

    @property
    def defaults(self) -> dict[str, Value]:
        """Every option's default."""
        return {option.name: option.default for option in self.options}


def _resnet50_work(params: Mapping[str, Value]) -> float:
    """Images times pixels: what the convolutions cost."""
    return float(params["batch_size"]) * float(params["num_iter"]) * float(params["image_size"]) ** 2


_RESNET50_OPTIONS = (
    Option("batch_size", "integer", 256, "images in one step of the optimiser", "image", 1),
    Option("num_iter", "integer", 300, "steps of the optimiser", "", 1),
    Option("data", "choice", "synthetic", "where the images come from",
           values=("synthetic", "digits", "cifar10", "imagefolder")),
    Option("data_root", "text", "", "folder of cifar10 or imagefolder data"),
    Option("loaders", "integer", -1, "processes that read an imagefolder; -1: one for each core but one",
           low=-1),
    Option("val_every", "integer", -1,
           "steps between validations on held-out images; 0: at the end only; -1: never", low=-1),
    Option("val_root", "text", "", "folder of the images that an imagefolder is validated on"),
    Option("augment", "boolean", False, "crop and flip digits and cifar10 at random"),
    Option("image_size", "integer", 224, "height and width of an image after resizing", "pixel", 32),
    Option("num_classes", "integer", 1000, "classes; real data may have fewer labels than that", "", 2),
    Option("optimizer", "choice", "sgd", "sgd has momentum", values=("sgd", "adamw")),
    Option("learning_rate", "number", 0.1, "step size; with lr_scaling that at base_batch_size", "", 0),
    Option("lr_scaling", "choice", "none",
           "of the learning rate, by batch_size / base_batch_size or its square root",
           values=("none", "linear", "sqrt")),
    Option("base_batch_size", "integer", 256, "batch size that learning_rate is meant for", "image", 1),
    Option("lr_schedule", "choice", "constant",
           "of the learning rate; step: a tenth at half and at three quarters of the steps",
           values=("constant", "cosine", "step")),
    Option("lr_warmup_iter", "integer", 0, "steps over which the learning rate rises from near 0", "", 0),
    Option("momentum", "number", 0.9, "of sgd", "", 0),
    Option("nesterov", "boolean", False, "Nesterov momentum of sgd"),
    Option("weight_decay", "number", 1e-4, "of either optimiser", "", 0),
    Option("clip_norm", "number", 0.0, "largest norm of the gradient; 0: not clipped", "", 0),
    Option("accumulate", "integer", 1, "parts of a batch whose gradients are added up", "", 1),
    Option("zero_init_gamma", "boolean", False, "begin with each residual branch at zero"),
    Option("label_smoothing", "number", 0.0, "of the cross entropy", "", 0),
    Option("precision", "choice", "auto", "auto: bf16 if the GPU has it, fp16 on Volta and Turing, else fp32",
           values=("auto", "fp32", "bf16", "fp16")),
    Option("channels_last", "choice", "auto", "memory format; auto: on GPUs", values=("auto", "on", "off")),
    Option("tf32", "boolean", True, "let fp32 convolutions and products use TF32, on GPUs that have it"),
    Option("step", "choice", "auto", "auto: a CUDA graph on one GPU, else eager",
           values=("auto", "eager", "graph")),
    Option("cudnn_benchmark", "boolean", False, "let cuDNN time its kernels during the warm-up"),
    Option("compile", "boolean", False, "torch.compile the model, once for all batch sizes"),
    Option("deterministic", "boolean", False, "the same curve on every run on a GPU, too; slower"),
    Option("checkpoint_every", "integer", 0, "steps between checkpoints; 0: only when the sweep is stopped",
           low=0),
    Option("warmup_iter", "integer", 5, "steps of each attempt that do not count for speed", "", 0),
)  # fmt: skip

_RESNET50_METRICS = (
    Metric("loss", "mean cross entropy of the last step's batch, as the step saw it", ""),
    Metric("loss_mean", "mean of the loss over the last tenth of the steps", ""),
    Metric("iteration_time", "duration of one step", "s"),
    Metric("train_time", "duration of all steps at a steady pace", "s"),
    Metric("step_time", "median duration of a step after the warm-up", "s"),
    Metric("setup_time", "model, data, capture, compiling and choosing kernels", "s"),
    Metric("compile_time", "of these, torch.compile", "s"),
    Metric("data_wait", "waiting for the next batch", "s"),
    Metric("images_per_second", "images over time, after the warm-up", "image/s"),
    Metric("peak_memory", "largest memory held: of the GPU by torch, or of the process on CPUs", "byte"),
    Metric("reserved_memory", "largest memory that torch reserved of the GPU", "byte"),
    Metric("val_loss", "mean cross entropy over the held-out images", ""),
    Metric("val_accuracy", "share of right predictions over the held-out images", ""),
    Metric("accuracy", "share of right predictions over the last tenth of the steps", ""),
)

#: The metric that says how fast a workload is, where it has it.
SPEED = "images_per_second"

RESNET50 = WorkloadDescription(
    name="resnet50",
    module="mpisweep.workloads.resnet50",
    options=_RESNET50_OPTIONS,
    metrics=_RESNET50_METRICS,
    preload=("torch", "torchvision", "mpisweep.workloads.resnet50"),
    work=_resnet50_work,
    folder="data_root",
    needs_folder=lambda params: params["data"] in ("cifar10", "imagefolder"),
)

BUILTIN: dict[str, WorkloadDescription] = {RESNET50.name: RESNET50}


def is_workload(name: str) -> bool:
    """Whether a workload has this name, a built-in one or a plugin's."""
    return is_named(WORKLOADS, name)


@cache
def describe(name: str) -> WorkloadDescription | None:
    """The description of a workload; None when there is none of that name.

    Raises:
        PluginError: when a plugin has it and cannot be used.
    """
    if name in BUILTIN:
        return BUILTIN[name]
    plugin = find_plugin(WORKLOADS, name)
    if plugin is None:
        return None
    found = plugin.load()
    if not isinstance(found, WorkloadDescription):
        raise plugin.unfit(
            f"cannot be used: it is of type {type(found).__name__} and not a WorkloadDescription"
        )
    if found.name != name:
        raise plugin.unfit(f"cannot be used: it describes {found.name!r}")
    return found


@cache
def describe_if_there(name: str) -> WorkloadDescription | None:
    """The same for readers of results, which do without: None as well where a plugin cannot be used."""
    try:
        return describe(name)
    except PluginError:
        return None


def units_of(workload: str, name: str) -> str:
    """Units of an option or metric of a workload; empty when it has none or is not known."""
    entry = entry_of(workload, name)
    return entry.units if entry else ""


def entry_of(workload: str, name: str) -> Option | Metric | None:
    """The option or metric of a workload; None when there is none of that name."""
    # A snapshot asks for every column, of whatever the sweep's workload is called; only names can be plugins.
    described = describe_if_there(workload) if workload else None
    if described is None:
        return None
    entries: tuple[Option | Metric, ...] = (*described.options, *described.metrics)
    return next((entry for entry in entries if entry.name == name), None)
