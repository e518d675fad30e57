"""A study proposed from a data set's fingerprint, with the reason of each choice.

The rules for spacing, network, patch and normalisation follow nnU-Net v2 (Isensee et al., Nature
Methods 2021; ``nnunetv2/experiment_planning/experiment_planners/default_experiment_planner.py``) as
far as they fit this workflow; each function says where it departs from them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from voxelsoup.common.errors import InputError
from voxelsoup.common.plug_ins import is_plug_in
from voxelsoup.common.text import counted, listed, times
from voxelsoup.data.balance import has_column
from voxelsoup.data.case import Case
from voxelsoup.data.index.patients import guess_pattern, patient_finder
from voxelsoup.data.layouts.channel_names import clean_names
from voxelsoup.data.layouts.detect import Guess
from voxelsoup.data.preprocessing.resample import ANISOTROPY, across_slices
from voxelsoup.planning.constants import BRATS_REGIONS, propose_constants
from voxelsoup.planning.fingerprint import Fingerprint, Spacing
from voxelsoup.planning.intensities import propose_normalisation, uses_ct
from voxelsoup.planning.label_meaning import Meaning
from voxelsoup.planning.sides import names_of_sides
from voxelsoup.planning.topology import COMPARABLE, plan_topology
from voxelsoup.study.sections.data import BY_REGIONS
from voxelsoup.study.sections.training import Network

SAME_SPACING = 0.01
FINE_PERCENTILE = 10
# MedNeXt's published patch (Roy et al., MICCAI 2023) has as many voxels.
PATCH_VOXELS = 128**3
BATCH = 2
MOST_FOLDS = 5
PATIENTS_PER_FOLD = 2
FEWEST_PATIENTS = 3
# The column of a table that folds are balanced by.
SITE = "site"
# Copies of a case in float32 that a preprocessing process holds at its peak, by the code.
COPIES = 6
# Keys of `dataset.accept` that can be seen in the cases that are read -> a value, and what it is.
ACCEPTABLE = {
    "nan": ("background", "NaN in a scan"),
    "missing_channels": ("zeros", "a channel without a file, or with one value everywhere"),
    "placement": ("voxels", "headers that place files of the same shape apart"),
    "labels_outside": ("true", "labels where every channel is 0"),
}
NAMED = 3


@dataclass
class Proposal:
    """A study (section -> settings), dotted key -> why it is like that, what needs a look, and
    lines that a section has as comments, for the user to choose.
    """

    study: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    choices: dict[str, list[str]] = field(default_factory=dict)


def propose(
    guess: Guess,
    fingerprint: Fingerprint,
    meaning: Meaning,
    budget: int = PATCH_VOXELS,
    batch: int = BATCH,
) -> Proposal:
    """Propose a complete study for a graphics card; raises InputError if no label map can be read.

    Its regions are empty where the meaning of the label values is open. ``budget`` are the voxels
    of the largest patch, of which a step takes a ``batch``.
    """
    if not fingerprint.values:
        raise InputError(
            guess.root,
            "holds no labelled voxel in the cases that could be read",
            "label maps to train on",
            f"list the problems of the cases: voxelsoup index {guess.root}",
        )
    proposal = Proposal()
    guess = _with_patients(guess, fingerprint)
    _add_data(proposal, guess, fingerprint, meaning)
    _add_folds(proposal, guess, fingerprint)
    _add_metrics(proposal, guess, fingerprint)
    _add_preprocess(proposal, guess, fingerprint)
    _add_training(proposal, fingerprint, budget, batch)
    _add_sweep(proposal)
    _add_resources(proposal, guess, fingerprint)
    return proposal


def propose_data(
    guess: Guess, meaning: Meaning, unlabelled: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """The sections ``dataset`` and ``regions``, and their reasons.

    Where the data set says in which order regions are written, ``predict`` has it. ``unlabelled``
    cases have no label map.
    """
    dataset: dict[str, Any] = {"layout": guess.dataset.layout, "root": guess.dataset.root}
    if guess.dataset.file:
        dataset["file"] = guess.dataset.file
    dataset["channels"] = guess.dataset.channels
    reasons = {"regions": meaning.comment, "dataset.channels": _about_channels(guess)}
    if guess.dataset.patient_pattern is not None:
        dataset["patient_pattern"] = guess.dataset.patient_pattern
        reasons["dataset.patient_pattern"] = (
            "The names look like a patient's and one of several scans. `none` makes every case a "
            "patient of its own."
        )
    if guess.labels.ignored is not None:
        dataset["ignore_label"] = guess.labels.ignored
        reasons["dataset.ignore_label"] = (
            "The `ignore` of dataset.json: its voxels, which nobody annotated, are left out of "
            "loss and scores."
        )
    if unlabelled:
        dataset["unlabelled"] = "predict"
        reasons["dataset.unlabelled"] = (
            f"{counted(unlabelled, 'case')} without a label map: kept out of all folds."
        )
    sections = {"dataset": dataset, "regions": meaning.regions}
    if meaning.order:
        sections["predict"] = {"label_order": meaning.order}
        reasons["predict.label_order"] = meaning.about_order
    return sections, reasons


def _with_patients(guess: Guess, fingerprint: Fingerprint) -> Guess:
    """With a pattern for patients where the case names look like several scans of each."""
    patient_of = patient_finder(guess.dataset)
    names = [case.name for case in fingerprint.cases]
    own = (patient_of(Case(case.name, {}, None, case.patient)) for case in fingerprint.cases)
    if (pattern := guess_pattern(names)) is None or [*own] != names:
        return guess
    dataset = guess.dataset.model_copy(update={"patient_pattern": pattern})
    reason = (
        f"dataset.patient_pattern: names such as {names[0]} look like a patient's and one of "
        "several scans, which stay on one side of a fold; write `none` if each is a patient"
    )
    return replace(guess, dataset=dataset, remarks=(*guess.remarks, reason))


def _about_channels(guess: Guess) -> str:
    if guess.called:
        pairs = (f"{new} is {old!r}" for new, old in guess.called.items())
        return f"In the order of dataset.json: {listed(pairs)}."
    if is_plug_in("layouts", guess.dataset.layout):
        return "As they were named (`--channels`)."
    origin = {
        "brats": "The ends of the file names that the cases share.",
        "table": "The columns of the table.",
        "monai": "In the order of the datalist's images.",
    }
    return origin.get(guess.dataset.layout, "The names in dataset.json, in its order.")


def _add_data(proposal: Proposal, guess: Guess, fingerprint: Fingerprint, meaning: Meaning) -> None:
    unlabelled = len(fingerprint.cases) - len(fingerprint.labelled)
    sections, reasons = propose_data(guess, meaning, unlabelled)
    name = clean_names([guess.root.resolve().name])[0]
    proposal.study |= {"results": f"results-{name}", **sections}
    proposal.reasons |= reasons
    proposal.reasons["results"] = "A separate folder, so that it holds no other study's results."
    proposal.reasons["dataset.root"] = (
        "Relative paths count from the folder in which snakemake is started."
    )
    _add_what_was_seen(proposal, fingerprint)
    if guess.labels.ignored is not None:
        proposal.warnings.append(
            f"label {guess.labels.ignored} is the ignore label of dataset.json: its voxels are "
            "left out of loss and scores (`dataset.ignore_label`)"
        )
    proposal.warnings += [*guess.remarks, *meaning.remarks]
    _add_what_may_be_accepted(proposal, fingerprint, guess.dataset.is_skull_stripped)
    if fingerprint.unreadable:
        proposal.study["dataset"]["on_bad_case"] = "stop"
        bad = counted(len(fingerprint.unreadable), "case")
        reason = f"{bad} could not be read; `skip` leaves such cases out."
        proposal.reasons["dataset.on_bad_case"] = reason
        name, problem = next(iter(fingerprint.unreadable.items()))
        which = ", such as" if len(fingerprint.unreadable) > 1 else ":"
        proposal.warnings.append(
            f"{bad} cannot be used{which} {name}: {problem.where}: {problem.found}"
        )


def _add_what_may_be_accepted(proposal: Proposal, fingerprint: Fingerprint, stripped: bool) -> None:
    """Keys of ``dataset.accept``, as comments: what is right in a data set, its user knows."""
    keys = []
    for key, (value, meaning) in ACCEPTABLE.items():
        names = [case.name for case in fingerprint.cases if key in case.findings]
        if not names or (key == "labels_outside" and not stripped):
            continue
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        cases = f"{counted(len(names), 'case')} of {len(fingerprint.cases)}"
        which = f"{', '.join(names[:NAMED])}{more}"
        keys += [f"  # {meaning[0].upper()}{meaning[1:]} ({cases}: {which}).", f"  {key}: {value}"]
        proposal.warnings.append(
            f"{cases} are refused unless the study accepts it (`dataset.accept.{key}`, there as a "
            f"comment): {meaning}: {which}"
        )
    if keys:
        ask = "Cases that are refused as it is; where it is right, uncomment `accept` and the key."
        proposal.choices["dataset"] = [ask, "accept:", *keys]


def _add_what_was_seen(proposal: Proposal, fingerprint: Fingerprint) -> None:
    """Which label maps the regions rest on, below what their reason says first."""
    seen, looked = fingerprint.values, len(fingerprint.contents)
    named = {value for labels in proposal.study["regions"].values() for value in labels}
    if looked < len(fingerprint.labelled):
        proposal.reasons["regions"] += (
            f"\nLabel maps of {looked} of {len(fingerprint.labelled)} cases were read; "
            "`voxelsoup index` on this file reads all."
        )
    if named - seen:
        proposal.reasons["regions"] += f"\nNot seen: {listed(sorted(named - seen))}."


def _add_folds(proposal: Proposal, guess: Guess, fingerprint: Fingerprint) -> None:
    patient_of = patient_finder(guess.dataset)
    labelled = (Case(case.name, {}, None, case.patient) for case in fingerprint.labelled)
    patients = len({patient_of(case) for case in labelled})
    if patients < FEWEST_PATIENTS:
        proposal.warnings.append(
            f"{counted(patients, 'labelled patient')}: a fold needs at least {FEWEST_PATIENTS}, "
            "one each to train, to choose and to test on"
        )
    if guess.split is not None:
        file, count = guess.split
        proposal.study["folds"] = {"count": count, "file": str(file)}
        proposal.reasons["folds"] = "The split in the datalist."
        return
    # Of three patients, each fold tests on one; two folds would leave one without a selection set.
    few_folds = 3 if patients == FEWEST_PATIENTS else 2
    count = max(few_folds, min(MOST_FOLDS, patients // PATIENTS_PER_FOLD))
    proposal.study["folds"] = {"count": count, "selection_share": 0.2}
    few = "" if count == MOST_FOLDS else f"; {MOST_FOLDS} are usual where there are more"
    proposal.reasons["folds"] = (
        f"{counted(patients, 'labelled patient')}{few}. `run: [0]` trains the first fold alone."
    )
    _add_balance(proposal, guess, fingerprint)


def _add_balance(proposal: Proposal, guess: Guess, fingerprint: Fingerprint) -> None:
    """Balance folds by regions that some cases lack, and by a column `site` of the table."""
    cases = [found for found in fingerprint.contents if found.volumes]
    held = {
        region: sum(1 for found in cases if found.volume_of(labels))
        for region, labels in proposal.study["regions"].items()
    }
    rare = [
        f"{region} is in {n} of {len(cases)} cases" for region, n in held.items() if n < len(cases)
    ]
    balance = [BY_REGIONS] if rare else []
    if has_column(guess.dataset, guess.root, SITE):
        balance.append(SITE)
    if not balance:
        return
    proposal.study["folds"]["balance"] = balance
    reasons = [*rare, *([f"the table has a column {SITE}"] if SITE in balance else [])]
    proposal.reasons["folds.balance"] = f"Equal shares in every fold: {listed(reasons)}."


def _add_metrics(proposal: Proposal, guess: Guess, fingerprint: Fingerprint) -> None:
    found = propose_constants(guess.dataset.layout, proposal.study["regions"], fingerprint)
    proposal.study["metrics"] = found.metrics
    if found.postprocessing:
        proposal.study["postprocessing"] = found.postprocessing
    proposal.reasons |= found.reasons


def propose_spacing(
    spacings: Sequence[Spacing], shape: Sequence[float]
) -> tuple[list[float] | None, str]:
    """Voxel size to resample to, and why.

    nnU-Net's rule: the median of each axis, but the 10th percentile of an axis of thick slices.
    Where all cases agree, nothing is resampled.

    Args:
        spacings: of the cases, mm (x, y, z) in RAS.
        shape: median sides in voxels (x, y, z), at the cases' own spacings.
    """
    sizes = np.array(spacings)
    middle = np.median(sizes, axis=0)
    if (np.abs(sizes / middle - 1) <= SAME_SPACING).all():
        return None, f"Median {_mm(middle)}; all cases agree: nothing is resampled."
    coarse = int(middle.argmax())
    others = [axis for axis in range(3) if axis != coarse]
    thick = middle[coarse] > ANISOTROPY * middle[others].max()
    few = shape[coarse] * ANISOTROPY < min(shape[axis] for axis in others)
    spread = f"Median {_mm(middle)} of {_mm(sizes.min(axis=0))} to {_mm(sizes.max(axis=0))}"
    target = middle.copy()
    if thick and few:
        fine = np.percentile(sizes[:, coarse], FINE_PERCENTILE)
        target[coarse] = max(fine, middle[others].max())
        spread += f"; slices are thick along {'xyz'[coarse]}, so its 10th percentile"
    return [float(f"{side:.4g}") for side in target], f"{spread}."


def _add_preprocess(proposal: Proposal, guess: Guess, fingerprint: Fingerprint) -> None:
    own = _median_shape(fingerprint, None)
    spacing, reason = propose_spacing([case.spacing for case in fingerprint.labelled], own)
    normalisation, why = propose_normalisation(guess, fingerprint)
    if uses_ct(normalisation):
        proposal.warnings.append(f"preprocess.normalisation: {why}")
    thick = any(
        across_slices("nearest", case.spacing, spacing) is not None for case in fingerprint.cases
    )
    proposal.study["preprocess"] = {
        "spacing": spacing,
        **({"thick_slices": "nearest"} if thick else {}),
        "crop": True,
        "normalisation": normalisation,
    }
    if thick:
        proposal.reasons["preprocess.thick_slices"] = (
            "Slices more than 3 times as thick as their voxels are long: each is resampled by "
            "itself, and the axis across them to the nearest slice, as in nnU-Net."
        )
    proposal.reasons |= {"preprocess.spacing": reason, "preprocess.normalisation": why}


def _median_shape(fingerprint: Fingerprint, spacing: Sequence[float] | None) -> list[float]:
    """Median sides after cropping, and after resampling if there is a spacing."""
    sides = []
    for case in fingerprint.cases:
        if case.contents is not None:
            size, target = np.array(case.spacing), np.array(spacing or case.spacing)
            sides.append(np.array(case.contents.cropped) * size / target)
    return [float(side) for side in np.median(sides, axis=0)]


def propose_patch(
    shape: Sequence[float],
    divisors_of: Callable[[Sequence[float]], list[int]],
    budget: int = PATCH_VOXELS,
) -> list[int]:
    """A patch like the median case (x, y, z), in multiples of what its network divides it by.

    As nnU-Net does it, from the median shape downwards: whichever side is longest beside the
    median's is shortened until the patch is within the budget. nnU-Net's budget is a memory
    estimate; here it is a number of voxels.

    Args:
        shape: median sides in voxels.
        divisors_of: sides of a patch -> by which factors its network shrinks them.
        budget: voxels of the largest patch.
    """
    patch = _nearest(shape, divisors_of(shape))
    while math.prod(patch) > budget:
        factors = divisors_of(patch)
        longer = [axis for axis in range(3) if patch[axis] > factors[axis]]
        if not longer:
            break
        longest = max(longer, key=lambda axis: patch[axis] / shape[axis])
        shorter = [side - factors[axis] * (axis == longest) for axis, side in enumerate(patch)]
        # A shorter side may be halved less often, and is shortened by less then.
        patch[longest] -= divisors_of(shorter)[longest]
        patch = _filled_up(patch, divisors_of(patch))
    factors = divisors_of(patch)
    if patch == factors:
        # One voxel at the bottleneck has nothing to be normalised over.
        patch = [2 * factor for factor in factors]
    return patch


@dataclass(frozen=True)
class PlannedNetwork:
    """The section ``network``, a patch for it, by what it divides its sides, and why this one."""

    settings: dict[str, Any]
    patch: list[int]
    divisors: list[int]
    reason: str


def propose_network(
    spacing: Sequence[float], shape: Sequence[float], budget: int = PATCH_VOXELS
) -> PlannedNetwork:
    """A network and a patch for volumes of a spacing in mm and of median sides in voxels (x, y, z).

    MedNeXt halves all axes alike. Where voxels are at least twice as long along one axis as along
    another, or an axis has fewer voxels than MedNeXt divides it by, a DynUNet is planned axis by
    axis (``plan_topology``).
    """
    mednext = {"name": "MedNeXt", "size": "S", "kernel_size": 3}
    divisors = Network.model_validate(mednext).divisors
    assert divisors is not None
    found = _unlike_axes(spacing, shape, min(divisors))
    if not found:
        why = (
            "The smallest published MedNeXt, meant for a GPU; for CPUs alone take the network of "
            "examples/hippocampus.yaml."
        )
        return PlannedNetwork(
            mednext, propose_patch(shape, lambda _: divisors, budget), divisors, why
        )
    patch = propose_patch(shape, lambda sides: plan_topology(spacing, sides).divisors, budget)
    topology = plan_topology(spacing, patch)
    halved = listed(f"{axis} by {n}" for axis, n in zip("xyz", topology.divisors, strict=True))
    why = (
        f"{found}: planned per axis by nnU-Net's rule. It divides {halved}, where MedNeXt divides "
        "all by 16 (unless `network.strides` says otherwise). Meant for a GPU; for CPUs alone give "
        "it the `filters` of examples/acdc.yaml."
    )
    settings = {"name": "DynUNet", "arguments": topology.as_dynunet()}
    return PlannedNetwork(settings, patch, topology.divisors, why)


def _unlike_axes(spacing: Sequence[float], shape: Sequence[float], divisor: int) -> str:
    """What asks for a network planned per axis, in words; empty if nothing does."""
    longest, few = max(spacing), min(shape)
    if longest >= COMPARABLE * min(spacing):
        ratio, axis = longest / min(spacing), "xyz"[list(spacing).index(longest)]
        return f"Voxels of {_mm(spacing)}, {ratio:.2g} times as long along {axis}"
    if round(few) < divisor:
        axis = "xyz"[list(shape).index(few)]
        return f"A usual case has {counted(round(few), 'voxel')} along {axis}"
    return ""


def spacing_and_shape(
    proposal: Proposal, fingerprint: Fingerprint
) -> tuple[list[float], list[float]]:
    """Spacing in mm and median sides in voxels (x, y, z) of the preprocessed volumes."""
    chosen = proposal.study["preprocess"]["spacing"]
    own = np.median([case.spacing for case in fingerprint.labelled], axis=0).tolist()
    return chosen or own, _median_shape(fingerprint, chosen)


def _add_training(proposal: Proposal, fingerprint: Fingerprint, budget: int, batch: int) -> None:
    spacing, shape = spacing_and_shape(proposal, fingerprint)
    network = propose_network(spacing, shape, budget)
    voxels = batch * math.prod(network.patch)
    proposal.study["network"] = network.settings
    proposal.study["training"] = {
        "patch": network.patch,
        "batch_size": batch,
        "epochs": 50,
        "steps_per_epoch": 250,
        "augmentation": "full",
        "precision": "bfloat16",
        "workers": 3,
    }
    thick = across_slices("nearest", spacing, spacing)
    if thick is not None:
        axis = "xyz"[thick.axis]
        proposal.study["training"]["rotate_about"] = [axis]
        proposal.reasons["training.rotate_about"] = (
            f"Slices are thick along {axis}: they are turned in their planes alone, as in nnU-Net."
        )
    _add_mirror_axes(proposal)
    proposal.reasons |= {
        "network": network.reason,
        "training.patch": _about_patch(shape, network, len(fingerprint.contents), budget),
        "training.batch_size": f"As nnU-Net; {_millions(voxels)} voxels a step. If a GPU's "
        "memory is too small, use a smaller patch.",
        "training.epochs": "Of a trial, which is fine-tuned from the stem "
        "(examples/brats2024.yaml).",
        "training.precision": "Half the memory on recent GPUs; float32 for old ones and CPUs.",
    }


def _add_mirror_axes(proposal: Proposal) -> None:
    """Switch mirroring along x off where regions differ by their side."""
    sides = names_of_sides(proposal.study["regions"])
    if not sides:
        return
    some = listed(sides[:3]) + (f" and {len(sides) - 3} more" if len(sides) > 3 else "")
    reason = (
        f"{some} name{'s' if len(sides) == 1 else ''} a side: mirrored along x (left to right), "
        "left looks like right, and the two would become one class"
    )
    proposal.study["training"]["mirror_axes"] = ["y", "z"]
    proposal.reasons["training.mirror_axes"] = f"Without x: {reason}. Flips at prediction follow."
    proposal.warnings.append(f"training.mirror_axes is [y, z], without x: {reason}")


# A rate for AdamW without a schedule, a lower one for the sweep, and why.
RATES = {
    "MedNeXt": (0.0027, 0.0018, "The published optimum for MedNeXt; the sweep tries a lower one."),
    "DynUNet": (
        0.005,
        0.003,
        "The rate of examples/acdc.yaml, whose DynUNet is planned likewise; MedNeXt's is 0.0027, "
        "and nnU-Net's 0.01 is that of SGD. Not searched for: the sweep tries a lower one.",
    ),
}


def _add_sweep(proposal: Proposal) -> None:
    lr, lower, about_lr = RATES[proposal.study["network"]["name"]]
    grid: dict[str, list[Any]] = {
        "optimizer.lr": [lower, lr],
        "training.loss": ["dice-bce", "dice-focal"],
        "training.seed": [0, 1, 2],
    }
    trials, folds = math.prod(map(len, grid.values())), proposal.study["folds"]["count"]
    proposal.study |= {
        "optimizer": {"name": "adamw", "schedule": "schedule-free", "lr": lr},
        "stem": {"epochs": 100},
        "sweep": {"grid": grid},
        "soup": {"recipes": ["greedy", "uniform"]},
    }
    proposal.reasons |= {
        "optimizer": about_lr,
        "sweep": f"{folds} folds x (1 stem + {trials} trials) = {folds * (trials + 1)} trainings, "
        "around this rate, with seeds: soups gain where models are good, nearly equal and "
        "different (docs/souping.md).",
    }
    if set(proposal.study["regions"]) >= BRATS_REGIONS:
        replace = {"region": "ET", "by": "TC", "below": [50, 100, 200, 500]}
        proposal.study["postprocessing"] = {"replace": replace}
        proposal.reasons["postprocessing"] = (
            "Where almost no enhancing tumour is found, there is usually none; volumes in mm³."
        )


def _nearest(shape: Sequence[float], factors: Sequence[int]) -> list[int]:
    """The nearest multiples, and one at least."""
    pairs = zip(shape, factors, strict=True)
    return [max(factor, factor * math.floor(side / factor + 0.5)) for side, factor in pairs]


def _filled_up(patch: Sequence[int], factors: Sequence[int]) -> list[int]:
    """The next multiples."""
    return [factor * -(-side // factor) for side, factor in zip(patch, factors, strict=True)]


def _about_patch(shape: Sequence[float], network: PlannedNetwork, cases: int, budget: int) -> str:
    sides, looked = times([round(side) for side in shape]), counted(cases, "case")
    begin = f"Median shape after preprocessing {sides} ({looked})"
    nearest = _nearest(shape, network.divisors)
    multiples = f"multiples of {times(network.divisors)}, by which the network shrinks its input"
    if network.patch == nearest:
        return f"{begin}: the nearest {multiples}."
    if math.prod(nearest) > budget and budget < PATCH_VOXELS:
        return f"{begin}, scaled down to what the GPU's memory holds, in {multiples}."
    if math.prod(nearest) > PATCH_VOXELS:
        return f"{begin}, scaled down to at most 128³ voxels in {multiples}."
    return f"{begin}: the smallest that the network takes, in {multiples}."


def _add_resources(proposal: Proposal, guess: Guess, fingerprint: Fingerprint) -> None:
    largest = max((case.shape for case in fingerprint.cases), key=math.prod)
    channels = len(guess.dataset.channels)
    case_mb = math.prod(largest) * channels * 4 / 1e6
    threads = 4
    memory = max(4000, 1000 * math.ceil(case_mb * COPIES * threads / 1000))
    proposal.study["resources"] = {
        "preprocess": {"threads": threads, "mem_mb": memory, "runtime": 240},
        "training": {"threads": 4, "gpu": 1, "mem_mb": 16000, "runtime": 1440},
        "evaluation": {"threads": 4, "gpu": 1, "mem_mb": 16000, "runtime": 240},
    }
    proposal.reasons["resources"] = (
        "Where there is no GPU, profiles/local trains on the CPU. MB of memory, minutes."
    )
    proposal.reasons["resources.preprocess"] = (
        f"The largest case is {times(largest)} voxels of {counted(channels, 'channel')}, "
        f"{case_mb:,.1f} MB; {threads} cases at once, {COPIES} copies each."
    )


def _mm(spacing: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{side:.3g}" for side in spacing) + " mm"


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f} million" if number >= 1e5 else f"{number:,}"
