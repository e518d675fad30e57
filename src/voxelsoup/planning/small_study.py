"""A study for CPUs alone: networks, lengths and patches of the examples that train on two cores.

Proposed where there is neither a card nor a cluster's profile. A test compares the numbers with
examples/hippocampus.yaml and examples/acdc.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voxelsoup.common.text import counted, times
from voxelsoup.planning.fingerprint import Fingerprint
from voxelsoup.planning.proposal import PATCH_VOXELS, Proposal, propose_patch, spacing_and_shape
from voxelsoup.planning.topology import plan_topology

# The cores that the examples are made for.
CORES = 2
WARMUP = 50
AXES = ("mirror_axes", "rotate_about")


@dataclass(frozen=True)
class Example:
    """What is taken of an example: numbers of its trials and stem, and its data set's size."""

    file: str
    patch: tuple[int, int, int]
    epochs: int
    steps_per_epoch: int
    stem_epochs: int
    lr: float
    rates: tuple[float, ...]
    cases: int


HIPPOCAMPUS = Example(
    "examples/hippocampus.yaml", (32, 40, 32), 7, 50, 18, 0.03, (0.01, 0.03, 0.06), cases=260
)
ACDC = Example("examples/acdc.yaml", (96, 96, 10), 3, 100, 28, 0.005, (0.003, 0.006), cases=200)
SMALL_MEDNEXT: dict[str, Any] = {
    "name": "MedNeXt",
    "size": "free",
    "kernel_size": 3,
    "arguments": {
        "init_filters": 8,
        "blocks_down": [0, 1],
        "blocks_bottleneck": 1,
        "blocks_up": [1, 0],
        "encoder_expansion_ratio": 2,
        "decoder_expansion_ratio": [2, 1],
        "bottleneck_expansion_ratio": 2,
    },
}
MEDNEXT_DIVISORS = [4, 4, 4]
FILTERS = (8, 16, 32, 48, 64)


def make_small(proposal: Proposal, fingerprint: Fingerprint, cores: int) -> None:
    """Turn a study that was proposed for a card into one for so many CPU cores, and say so."""
    study, reasons = proposal.study, proposal.reasons
    with_card = _in_words(study)
    per_axis = study["network"]["name"] == "DynUNet"
    example = ACDC if per_axis else HIPPOCAMPUS
    spacing, shape = spacing_and_shape(proposal, fingerprint)
    budget = min(PATCH_VOXELS, round(math.prod(example.patch) * max(1, cores / CORES)))
    network, patch = _network(per_axis, spacing, shape, budget)
    steps = _steps(example, len(fingerprint.labelled))
    optimizer = {"lr": example.lr, "warmup_steps": WARMUP}
    kept = {key: study["training"][key] for key in AXES if key in study["training"]}
    study["network"] = network
    study["training"] = {
        "patch": patch,
        "batch_size": 2,
        "epochs": example.epochs,
        "steps_per_epoch": steps,
        "foreground_share": 0.5,
        "augmentation": "flips-intensity",
        **kept,
    }
    study["optimizer"] = {"name": "adamw", "schedule": "schedule-free", **optimizer}
    study["stem"] = {"epochs": example.stem_epochs, "optimizer": optimizer}
    grid: dict[str, list[Any]] = {
        "optimizer.lr": list(example.rates),
        "training.seed": [0, 1],
    }
    study["sweep"] = {"grid": grid}
    for kind in ("training", "evaluation"):
        study["resources"][kind] = {"threads": 1, "mem_mb": 4000, "runtime": 1440}
    for key in ("training.precision", "training.batch_size"):
        reasons.pop(key, None)
    trials, folds = math.prod(map(len, grid.values())), study["folds"]["count"]
    of = f"{counted(cores, 'CPU core')}, after {example.file}"
    reasons |= {
        "network": f"For {of}. With a card: {with_card}.",
        "training.patch": f"Median shape after preprocessing {times([round(s) for s in shape])}; "
        f"at most {budget:,} voxels, the example's for {CORES} cores in proportion to the cores.",
        "training.epochs": f"The lengths of {example.file}, the steps in proportion to the cases.",
        "optimizer": f"The rate of {example.file}; not searched for here.",
        "sweep": f"{folds} folds x (1 stem + {trials} trials) = {folds * (trials + 1)} trainings.",
        "resources": "A training on each core. MB of memory, minutes.",
    }
    proposal.warnings.append(
        f"there is neither a graphics card here nor a cluster's profile: proposed is a small study "
        f"for {of}. With a card it would be {with_card}: run init where the card is, or with "
        "`--profile` of the cluster"
    )


def _in_words(study: dict[str, Any]) -> str:
    network, training = study["network"], study["training"]
    name = " ".join(filter(None, (network["name"], network.get("size"))))
    return (
        f"{name} on {training['batch_size']} patches of {times(training['patch'])} in bfloat16, "
        f"{study['stem']['epochs']} epochs of a stem and {training['epochs']} of a trial with "
        f"{training['steps_per_epoch']} steps each"
    )


def _network(
    per_axis: bool, spacing: Sequence[float], shape: Sequence[float], budget: int
) -> tuple[dict[str, Any], list[int]]:
    """The section ``network`` and a patch of at most so many voxels."""
    if not per_axis:
        return SMALL_MEDNEXT, propose_patch(shape, lambda _: MEDNEXT_DIVISORS, budget)
    patch = propose_patch(shape, lambda sides: plan_topology(spacing, sides).divisors, budget)
    topology = plan_topology(spacing, patch)
    stages = len(topology.strides)
    filters = [*FILTERS, *[FILTERS[-1]] * stages][:stages]
    arguments = {**topology.as_dynunet(), "filters": filters}
    return {"name": "DynUNet", "arguments": arguments}, patch


def _steps(example: Example, cases: int) -> int:
    """Steps of an epoch: the example's in proportion to the cases, within half and four times."""
    share = min(4.0, max(0.5, cases / example.cases))
    return max(10, 10 * round(example.steps_per_epoch * share / 10))
