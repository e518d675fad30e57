"""What the trainings of a study need of a device's memory: asked once, and kept.

``training.memory`` counts it with torch, in a process of its own: what asks here needs no torch and
waits for it once. Answers are kept in the user's cache, by all that they depend on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from voxelsoup.common.code_version import SOURCE, hash_of_code
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_json, write_json
from voxelsoup.common.provenance import versions
from voxelsoup.common.separate_process import NoAnswer, ask, kept_at
from voxelsoup.study.plug_ins import code_of_training
from voxelsoup.study.sections.training import Network, Optimizer, Training
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial

GIB = 2**30
# What a process takes of a GPU before it holds any tensor: its context with the kernels of torch,
# cuBLAS and cuDNN, and their workspaces (CUBLAS_WORKSPACE_CONFIG asks for 32 MiB). It differs by
# card and driver; not measured here.
CONTEXT = GIB // 2
# The settings of a training that change what it needs.
DECIDING = (
    "patch", "batch_size", "loss", "loss_over", "deep_supervision_weights", "precision",
    "channels_last", "gradient_checkpointing",
)  # fmt: skip
# The code that counts it, beside what `versions` names.
COUNTING = ("training/memory.py", "models/networks.py", "models/mednext.py", "models/losses.py")
# Smaller patches that are looked at, each from the one before.
TRIES = 4
WORDS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "batch": "patches",
    "activations": "activations",
    "working": "working memory",
}


class CannotCount(InputError):
    """The process that counts what a training needs has failed, for no reason of the study's."""


@dataclass(frozen=True)
class TrainingShape:
    """All of a training that decides what memory it takes.

    Attributes:
        processes: GPUs that share a batch.
        some_unknown: whether voxels may be without ground truth, which the loss has to look at.
    """

    network: Network
    training: Training
    optimizer: Optimizer
    channels: int
    regions: int
    processes: int = 1
    some_unknown: bool = False

    @staticmethod
    def of(study: Study, optimizer: Optimizer) -> TrainingShape:
        """That of a study's runs with one of its optimizers."""
        return TrainingShape(
            study.network,
            study.training,
            optimizer,
            len(study.dataset.channels),
            len(study.regions),
            max(1, study.resources.training.gpu),
            study.dataset.ignore_label is not None or bool(study.dataset.not_annotated),
        )

    def as_json(self) -> dict[str, Any]:
        """What it is, without settings that change nothing."""
        training = self.training.model_dump(mode="json", include=set(DECIDING))
        kept = self.optimizer.model_dump(mode="json", include={"name", "schedule", "momentum"})
        numbers = {
            key: getattr(self, key) for key in ("channels", "regions", "processes", "some_unknown")
        }
        network = self.network.model_dump(mode="json")
        return {"network": network, "training": training, "optimizer": kept, **numbers}

    @staticmethod
    def from_json(content: dict[str, Any]) -> TrainingShape:
        """Read back what ``as_json`` wrote."""
        sections = {
            "network": Network.model_validate(content["network"]),
            "training": Training.model_validate(content["training"]),
            "optimizer": Optimizer.model_validate(content["optimizer"]),
        }
        return TrainingShape(**content | sections)

    def with_training(self, **settings: Any) -> TrainingShape:
        """The same with other settings of its training."""
        return replace(self, training=self.training.model_copy(update=settings))

    def __str__(self) -> str:
        """It in words: the patch and the batch."""
        sides = " x ".join(map(str, self.training.patch))
        return f"{self.network.name}, {self.training.batch_size} patches of {sides}"


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of a device that a training needs at the moment when it needs most.

    ``activations`` are what the forward pass keeps for the backward pass, with logits and loss;
    ``working`` is what operations take for a while, such as gradients of activations.
    """

    weights: int
    gradients: int = 0
    optimizer: int = 0
    batch: int = 0
    activations: int = 0
    working: int = 0

    @property
    def tensors(self) -> int:
        """All that torch's allocator hands out."""
        return sum(asdict(self).values())

    @property
    def total(self) -> int:
        """What a GPU has to have: tensors, and the context of the process."""
        return self.tensors + CONTEXT

    def as_json(self) -> dict[str, int]:
        """Its parts."""
        return asdict(self)

    def __str__(self) -> str:
        """In GiB, by parts."""
        parts = [f"{WORDS[part]} {gib(size)}" for part, size in asdict(self).items()]
        return f"{gib(self.total)} GiB ({', '.join(parts)}, CUDA {gib(CONTEXT)})"


def gib(size: float) -> str:
    """Bytes as a number of GiB."""
    return f"{size / GIB:.1f}" if size >= GIB / 10 else f"{size / GIB:.2f}"


def shapes_of(study: Study, trials: Sequence[Trial]) -> list[TrainingShape]:
    """The different trainings of a study: its stem, its trials and its finish."""
    shapes = [TrainingShape.of(trial.study, trial.study.optimizer) for trial in trials]
    if study.stem.source == "train":
        shapes.append(TrainingShape.of(study, study.stem.optimizer or study.optimizer))
    if study.soup.finish is not None:
        kind = Optimizer(**study.soup.finish.optimizer.model_dump())
        shapes.append(TrainingShape.of(study, kind))
    different = {json.dumps(shape.as_json(), sort_keys=True): shape for shape in shapes}
    return list(different.values())


def largest_need(study: Study, trials: Sequence[Trial]) -> tuple[TrainingShape, MemoryNeed]:
    """The training of a study that needs most memory, and what it needs.

    Raises:
        InputError: if a network cannot be built, or fails on the patch.
        CannotCount: if the process that counts fails.
    """
    shapes = shapes_of(study, trials)
    return max(zip(shapes, estimate(shapes), strict=True), key=lambda pair: pair[1].total)


def estimate(shapes: Sequence[TrainingShape]) -> list[MemoryNeed]:
    """What trainings need; those that nobody has asked for before take some seconds.

    Raises:
        InputError: if a network cannot be built, or fails on the patch.
        CannotCount: if the process that counts fails.
    """
    files = [_file(shape) for shape in shapes]
    kept = [_read(file) for file in files]
    missing = [number for number, need in enumerate(kept) if need is None]
    if missing:
        answers = _count([shapes[number] for number in missing])
        for number, need in zip(missing, answers, strict=True):
            kept[number] = need
            # Without a place to keep it, it is counted again next time.
            with suppress(InputError, OSError):
                write_json(files[number], need.as_json())
    return [need for need in kept if need is not None]


def _count(shapes: Iterable[TrainingShape]) -> list[MemoryNeed]:
    try:
        answers = ask("voxelsoup.training.memory", [shape.as_json() for shape in shapes])
    except NoAnswer as error:
        raise CannotCount(
            "the memory that a training needs",
            f"could not be counted: {error}",
            "the process of `voxelsoup.training.memory` to answer",
            "report it with the study; trainings do not depend on it",
        ) from error
    for answer in answers:
        if "error" in answer:
            raise InputError.from_record(answer["error"])
    return [MemoryNeed(**answer["need"]) for answer in answers]


def _file(shape: TrainingShape) -> Path:
    """Where the answer for a training is kept: named by all that it depends on."""
    of_packages = code_of_training(shape.network.name, shape.training.loss)
    counted = [shape.as_json(), *_counted_with(), *([of_packages] if of_packages else [])]
    return kept_at("memory", counted)


@cache
def _counted_with() -> tuple[list[str], dict[str, str]]:
    """The code and the packages that an answer depends on."""
    code = [hash_of_code((SOURCE / name).read_text(encoding="utf-8")) for name in COUNTING]
    found = versions()
    return code, {name: found[name] for name in ("torch", "monai", "schedulefree")}


def _read(file: Path) -> MemoryNeed | None:
    try:
        return MemoryNeed(**read_json(file))
    except (OSError, ValueError, TypeError):
        return None


def fitting(shape: TrainingShape, limit: float) -> list[tuple[str, MemoryNeed]]:
    """Changes of settings, each by itself, with which a training fits into so many bytes.

    First those that change no result or hardly any, then a smaller batch or patch.

    Returns:
        What to set, in words, and what it needs then.
    """
    variants = _sparing(shape)
    # All that is known to be asked for, in one process.
    with suppress(InputError):
        first = _scaled_to(shape, (shape.network.divisors or 3 * [16]), limit)
        estimate([*variants.values(), *([first] if first else [])])
    smaller = _smaller(shape, limit)
    if smaller is not None:
        variants[_size_in_words(smaller)] = smaller
    needs = estimate([*variants.values()])
    return [
        (words, need) for words, need in zip(variants, needs, strict=True) if need.total <= limit
    ]


def _sparing(shape: TrainingShape) -> dict[str, TrainingShape]:
    training = shape.training
    variants = {}
    if training.precision == "float32":
        variants["training.precision: bfloat16"] = shape.with_training(precision="bfloat16")
    if shape.network.name == "MedNeXt" and not training.gradient_checkpointing:
        variants["training.gradient_checkpointing: true"] = shape.with_training(
            gradient_checkpointing=True
        )
    return variants


def _size_in_words(shape: TrainingShape) -> str:
    training = shape.training
    return f"training.patch: {training.patch}, training.batch_size: {training.batch_size}"


def _smaller(shape: TrainingShape, limit: float) -> TrainingShape | None:
    """The training with the largest patch and batch that fit, of those that are looked at.

    A batch is made smaller down to two patches for each GPU, as nnU-Net does, then the patch along
    its longest side, in multiples of what the network divides it by, or of what most do.
    """
    known = shape.network.divisors
    for divisors in [known] if known else [3 * [16], 3 * [32]]:
        # A network that divides by something else refuses its patch.
        with suppress(InputError):
            return _fits_with(shape, divisors, limit)
    return None


def _fits_with(shape: TrainingShape, divisors: Sequence[int], limit: float) -> TrainingShape | None:
    for _ in range(TRIES):
        if estimate([shape])[0].total <= limit:
            return shape
        smaller = _scaled_to(shape, divisors, limit)
        if smaller is None:
            return None
        shape = smaller
    return None


def _scaled_to(shape: TrainingShape, divisors: Sequence[int], limit: float) -> TrainingShape | None:
    """A smaller training that should fit, if memory is in proportion to voxels."""
    need = estimate([shape])[0]
    by_voxels = need.batch + need.activations + need.working
    room = limit - (need.total - by_voxels)
    return _scaled_down(shape, divisors, room / by_voxels) if room > 0 else None


def _scaled_down(
    shape: TrainingShape, divisors: Sequence[int], share: float
) -> TrainingShape | None:
    """A training with at most so large a share of the voxels of a step; None: there is none."""
    training, fewest = shape.training, 2 * shape.processes
    batch, patch = training.batch_size, list(training.patch)
    wanted = share * batch * math.prod(patch)
    if batch > fewest:
        per_gpu = math.floor(wanted / math.prod(patch) / shape.processes)
        batch = min(batch, max(fewest, per_gpu * shape.processes))
    while batch * math.prod(patch) > wanted:
        # A side of one voxel at the bottleneck has nothing to be normalised over.
        longer = [axis for axis in range(3) if patch[axis] >= 3 * divisors[axis]]
        if not longer:
            return None
        axis = max(longer, key=lambda axis: patch[axis])
        patch[axis] -= divisors[axis]
    return shape.with_training(patch=patch, batch_size=batch)
