"""Sections about one training: network, patches and steps, optimizer, stem."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from voxelsoup.study.sections.base import PathText, Section, Triple, only_if_not
from voxelsoup.study.sections.elsewhere import SAFE_ENDING, Conversion
from voxelsoup.study.sections.plug_in_name import NameOf

AugmentationPreset = Literal["none", "flips-intensity", "affine-contrast", "full"]
Axis = Literal["x", "y", "z"]
StemSource = Literal["train", "none", "checkpoint"]
LossName = Annotated[str, NameOf("losses")]
ScheduleName = Literal[
    "schedule-free",
    "constant",
    "cosine",
    "cosine-warmup",
    "cosine-warmup-restarts",
    "polynomial",
    "multi-step",
]
Strides = Annotated[list[Literal[1, 2]], Field(min_length=3, max_length=3)]
ALL_AXES: tuple[Axis, ...] = ("x", "y", "z")
PrecisionName = Literal["float32", "bfloat16", "float16", "auto"]


class Network(Section):
    """The network; the shapes of its weights are the same in all runs of a study."""

    name: Annotated[str, NameOf("networks")] = Field(
        "MedNeXt",
        description="Class in `monai.networks.nets`, or a network of another package "
        "(docs/plug-ins.md); MedNeXt also takes `size`, `kernel_size` and `deep_supervision`.",
    )
    size: Literal["S", "B", "M", "L", "free"] = Field(
        "S",
        description="MedNeXt's published size, or `free`: `arguments` give filters, blocks and "
        "expansion ratios.",
    )
    kernel_size: Literal[3, 5, 7] = Field(3, description="MedNeXt's kernel size in voxels.")
    deep_supervision: bool = Field(
        False,
        description="Include the outputs of MedNeXt's coarser stages in the loss. DynUNet's are "
        "included with `arguments: {deep_supervision: true, deep_supr_num: 2}`, where 2 is the "
        "number of coarser stages.",
    )
    strides: list[Strides] | None = Field(
        None,
        min_length=1,
        exclude_if=lambda strides: strides is None,
        description="By how much MedNeXt shrinks x, y and z, 1 or 2, for each of its downsamplings "
        "in turn: `[[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]` halves an axis of thick slices "
        "twice. By default all of them halve all axes.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Further arguments of the class, by its own names; numbers of channels and "
        "`spatial_dims` are filled in.",
    )

    @property
    def supervises_stages(self) -> bool:
        """Whether the outputs of coarser stages are part of the loss."""
        own = self.name == "DynUNet" and bool(self.arguments.get("deep_supervision"))
        return own or (self.name == "MedNeXt" and self.deep_supervision)

    @property
    def stages(self) -> int:
        """How often a MedNeXt of this description shrinks its input."""
        blocks = self.arguments.get("blocks_down") if self.size == "free" else None
        return len(blocks) if isinstance(blocks, list) else 4

    @property
    def divisors(self) -> list[int] | None:
        """By which factors (x, y, z) the network shrinks its input at the bottleneck.

        Known of MedNeXt and of a DynUNet with strides that it takes; else None.
        """
        if self.name == "MedNeXt":
            steps: Any = self.strides or self.stages * [2]
        elif self.name == "DynUNet":
            steps = self.arguments.get("strides")
        else:
            return None
        try:
            sides = [3 * [step] if isinstance(step, int) else list(step) for step in steps]
            return [math.prod(axis) for axis in zip(*sides, strict=True)]
        except (TypeError, ValueError):
            # Not what the network takes, which says so itself.
            return None

    @model_validator(mode="after")
    def _strides_fit(self) -> Network:
        if self.strides is None:
            return self
        if self.name != "MedNeXt":
            raise ValueError("`strides` are MedNeXt's; those of others are among `arguments`")
        if len(self.strides) != self.stages:
            raise ValueError(
                f"`strides` names {len(self.strides)} downsamplings, and this MedNeXt has "
                f"{self.stages}"
            )
        return self


class Training(Section):
    """One run's training, except for its optimizer."""

    patch: Triple = Field([128, 128, 128], description="Patch size in voxels (x, y, z).")
    batch_size: int = Field(2, ge=1, description="Patches per step.")
    epochs: int = Field(100, ge=1, description="Epochs of a trial.")
    steps_per_epoch: int = Field(250, ge=1, description="Optimizer steps per epoch.")
    checkpoints: int = Field(
        1,
        ge=1,
        description="Checkpoints along each trial, equally spaced, the last one at its end; all "
        "of them are ingredients of soups. A trial with several cannot be made longer "
        "without starting over.",
    )
    foreground_share: float = Field(
        0.33,
        ge=0,
        le=1,
        description="Share of patches centred on a labelled voxel; the others are placed at "
        "random.",
    )
    augmentation: AugmentationPreset = Field(
        "flips-intensity",
        description="`none`; `flips-intensity` (mirroring, scaled and shifted intensities); "
        "`affine-contrast` (also rotation, scaling, contrast and gamma); `full` (also noise, "
        "blur and low resolution).",
    )
    mirror_axes: list[Axis] = Field(
        list(ALL_AXES),
        exclude_if=only_if_not(list(ALL_AXES)),
        description="Axes along which a preset that mirrors does so, and along which `flips` "
        "mirrors at prediction; x is left to right. Regions that differ by their side (left and "
        "right kidney) need `[y, z]`; `[]` mirrors along none.",
    )
    rotate_about: list[Axis] = Field(
        list(ALL_AXES),
        exclude_if=only_if_not(list(ALL_AXES)),
        description="Axes about which a preset that rotates does so. Rotations are rigid in "
        "voxels: thick slices along z are only turned in their planes, with `[z]`; `[]` leaves "
        "scaling alone.",
    )
    loss: LossName = Field(
        "dice-bce",
        description="Loss on the regions' sigmoid outputs: Dice, Dice + binary cross-entropy, "
        "Dice + focal, or a loss of another package (docs/plug-ins.md).",
    )
    loss_over: Literal["batch", "sample"] = Field(
        "batch", description="Dice over the whole batch at once, or per sample and then averaged."
    )
    deep_supervision_weights: Literal["same", "exp", "two"] = Field(
        "exp",
        description="Weights of the deep supervision outputs: all 1, halved with each coarser "
        "stage, or 1 for the full size and 0.5 for all others (MONAI's modes).",
    )
    gradient_clip: float | None = Field(
        12.0, gt=0, description="Maximum norm of the gradient; null does not clip."
    )
    precision: PrecisionName = Field(
        "float32",
        description="Arithmetic of the forward pass (automatic mixed precision); `auto`: bfloat16 "
        "on GPUs that support it, float16 on others, float32 on CPUs.",
    )
    channels_last: Literal["auto"] | bool = Field(
        "auto",
        description="Keep a voxel's channels together in memory while training; `auto`: for "
        "MedNeXt on CPUs, whose steps take a third less time with it. Try `true` on a "
        "GPU with bench/train_step.py. Results differ by rounding.",
    )
    compile: bool = Field(
        False,
        description="Compile the network with torch.compile, which takes minutes once per machine "
        "(its cache is kept). Results differ by rounding.",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="Compute a MedNeXt's blocks again in the backward pass instead of storing "
        "their activations: less memory, more time, the same result.",
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, patches and augmentation.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto` uses a GPU if there is one."
    )
    workers: int = Field(
        0, ge=0, description="Processes that read patches; 0 reads them in the training process."
    )
    watchdog: float = Field(
        30.0,
        gt=0,
        exclude_if=only_if_not(30.0),
        description="Minutes after which a run in which no step ends is ended, so that a retry "
        "resumes it; its log then says where it stood. The first step of a job, which may have to "
        "compile the network, is given twice as long.",
    )

    @field_validator("patch")
    @classmethod
    def _patch_is_positive(cls, value: list[int]) -> list[int]:
        if min(value) < 1:
            raise ValueError("every side must be at least 1 voxel")
        return value

    @field_validator("mirror_axes", "rotate_about")
    @classmethod
    def _axes_in_order(cls, value: list[Axis]) -> list[Axis]:
        if len(set(value)) != len(value):
            raise ValueError("names an axis twice")
        return sorted(value)

    @model_validator(mode="after")
    def _checkpoints_fit(self) -> Training:
        if self.checkpoints > self.epochs * self.steps_per_epoch:
            raise ValueError("`checkpoints` must not be more than the steps of a run")
        return self


class Optimizer(Section):
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "sgd", "radam"] = Field("adamw", description="Optimizer.")
    schedule: ScheduleName = Field(
        "schedule-free",
        description="`schedule-free` (Defazio et al. 2024: weight averaging instead of a "
        "schedule), or one of the scheduled baselines.",
    )
    lr: float = Field(
        0.0027, gt=0, description="Learning rate (the published optimum for full-size MedNeXt)."
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum; for AdamW and RAdam the first beta."
    )
    second_beta: float = Field(
        0.999, ge=0, lt=1, description="AdamW's and RAdam's decay of the squared gradients."
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        description="Steps of linear warm-up (schedule-free, cosine-warmup and "
        "cosine-warmup-restarts; RAdam needs none, and has none when schedule-free).",
    )
    restarts: int = Field(
        3, ge=1, description="Cosine periods of equal length of `cosine-warmup-restarts`."
    )
    power: float = Field(0.9, gt=0, description="Power of the `polynomial` schedule.")
    milestones: list[float] = Field(
        [0.5, 0.75],
        description="Where `multi-step` lowers the learning rate, as fractions of the run.",
    )
    gamma: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Factor by which `multi-step` multiplies the learning rate at each milestone.",
    )

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, value: list[float]) -> list[float]:
        if sorted(set(value)) != value or not all(0 < share < 1 for share in value):
            raise ValueError("must rise and lie between 0 and 1")
        return value

    @model_validator(mode="after")
    def _averaging_needs_momentum(self) -> Optimizer:
        if self.schedule == "schedule-free" and self.momentum == 0:
            raise ValueError("`schedule: schedule-free` needs a `momentum` above 0")
        return self


class Stem(Conversion):
    """The shared initialisation from which all trials of a fold are fine-tuned."""

    short_form: ClassVar[str] = "`none`, or the path of a checkpoint"

    source: StemSource = Field(
        "train",
        description="`train` one stem per fold; `none`: every trial starts from its own random "
        "weights; `checkpoint`: every trial fine-tunes the given file.",
    )
    epochs: int = Field(50, ge=1, description="Epochs of the stem.")
    optimizer: Optimizer | None = Field(
        None, description="The stem's optimizer; by default the study's."
    )
    checkpoint: PathText | None = Field(
        None,
        description="Weights to fine-tune from, for `source: checkpoint`: .safetensors, .pt, .pth, "
        ".ckpt or .model, of this program or another one.",
    )

    @property
    def is_converted(self) -> bool:
        """Whether the checkpoint becomes another file before trials start from it."""
        named = self.checkpoint is not None
        return named and (self.changes_something or not str(self.checkpoint).endswith(SAFE_ENDING))

    @model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, value: Any) -> Any:
        if value is None or value == "none":
            return {"source": "none"}
        if isinstance(value, str):
            return {"source": "checkpoint", "checkpoint": value}
        return value

    @model_validator(mode="after")
    def _checkpoint_is_given(self) -> Stem:
        if (self.source == "checkpoint") != (self.checkpoint is not None):
            raise ValueError("`checkpoint` goes with `source: checkpoint`, and only with it")
        if self.checkpoint is None and self.changes_something:
            raise ValueError(
                "`rename`, `first_convolution` and `upkern` go with a `checkpoint`, only with it"
            )
        return self
