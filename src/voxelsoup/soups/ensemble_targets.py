"""The ensemble's probabilities of training cases: what a finish trains towards, once per fold.

A byte per voxel and region: 1/255 is finer than what a probability of a few networks means.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxelsoup.common.files import atomic_write, read_json, write_json
from voxelsoup.common.text import counted
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.evaluation.score import load_model
from voxelsoup.soups.ensemble import mean_prediction
from voxelsoup.soups.soup import Ingredient
from voxelsoup.study.study import Study
from voxelsoup.training.targets import CERTAIN

log = logging.getLogger(__name__)

# Beside the probabilities: what they depend on.
MADE_FROM = "made_from.json"


def unlabelled_cases(cases: Sequence[IndexedCase], fold: Mapping[str, Sequence[str]]) -> list[str]:
    """The unlabelled cases that a fold may train on, sorted.

    None of a patient whom the fold selects or tests on.
    """
    held_out = {*fold["selection"], *fold["test"]}
    patients = {case.patient for case in cases if case.name in held_out}
    return sorted(
        case.name for case in cases if case.label is None and case.patient not in patients
    )


def targets_made_from(
    ingredients: Sequence[Ingredient], study: Study, cases: Mapping[str, str]
) -> dict[str, Any]:
    """What an ensemble's probabilities depend on.

    ``cases``: case -> fingerprint of its preprocessed files.
    """
    content = study.model_dump(mode="json")
    training = content["training"]
    return {
        "models": sorted(ingredient.sha256 for ingredient in ingredients),
        "network": content["network"],
        "regions": list(content["regions"].items()),
        "intensities": content["preprocess"].get("intensities"),
        "overlap": content["evaluation"]["overlap"],
        "patch": training["patch"],
        "precision": training["precision"],
        "cases": dict(sorted(cases.items())),
    }


def write_targets_of_fold(
    ingredients: Sequence[Ingredient],
    study: Study,
    fold: Mapping[str, Sequence[str]],
    unlabelled: Sequence[str],
    fingerprints: Mapping[str, str],
    folder: Path,
    device: torch.device,
    target_folder: Path,
) -> dict[str, Any]:
    """`write_targets` of the cases that a fold's finish trains on.

    Args:
        unlabelled: cases that it trains on beside its training cases.
        fingerprints: of the preprocessed cases.

    Returns:
        The record that the finish reads (``training.targets.targets_of``).
    """
    cases = {case: fingerprints[case] for case in [*fold["training"], *unlabelled]}
    made_from = targets_made_from(ingredients, study, cases)
    write_targets(ingredients, made_from, study, folder, device, target_folder)
    return {**made_from, "unlabelled": list(unlabelled)}


@torch.inference_mode()
def write_targets(
    ingredients: Sequence[Ingredient],
    made_from: Mapping[str, Any],
    study: Study,
    folder: Path,
    device: torch.device,
    target_folder: Path,
) -> None:
    """Write what an ensemble says of the cases of ``made_from``, those alone that are missing.

    Each is ``{case}.npy``, uint8 (region, x, y, z) on the grid of the preprocessed case in
    ``folder``. What was made from something else is removed first.

    Raises:
        InputError: if a model or a preprocessed case cannot be read.
    """
    _remove_others(target_folder, made_from)
    missing = [case for case in made_from["cases"] if not _file(target_folder, case).exists()]
    if not missing:
        return
    log.info("ensemble of %d models: %s", len(ingredients), counted(len(missing), "case"))
    files = [ingredient.path for ingredient in ingredients]
    model = load_model(files[0], study, device)
    for name in missing:
        mean = mean_prediction(model, files, load_case(folder, name), study, device)
        rounded = mean.probabilities.mul_(CERTAIN).round_().to(torch.uint8).cpu().numpy()
        with atomic_write(_file(target_folder, name)) as path, path.open("wb") as stream:
            np.save(stream, rounded)


def _file(folder: Path, case: str) -> Path:
    return folder / f"{case}.npy"


def _remove_others(folder: Path, made_from: Mapping[str, Any]) -> None:
    """Remove a folder's probabilities by other models, and those of cases that have changed."""
    record = folder / MADE_FROM
    before = read_json(record) if record.exists() else {"cases": {}}
    # As JSON has it.
    now = json.loads(json.dumps(made_from))
    if {**before, "cases": None} != {**now, "cases": None} and folder.exists():
        # What cannot be removed must not be taken for what is to be made.
        shutil.rmtree(folder)
    for case, fingerprint in before["cases"].items():
        if made_from["cases"].get(case) != fingerprint:
            _file(folder, case).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(record, dict(made_from))
