"""Model files and bundles of untrained networks, for tests that predict or average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.runs import small_study
from voxelsoup.common.files import sha256, write_json
from voxelsoup.evaluation.case_scores import LOSS
from voxelsoup.evaluation.postprocessing import unchanged
from voxelsoup.models import networks, weight_files
from voxelsoup.prediction.model_files import ModelFile, open_models
from voxelsoup.soups.soup import Ingredient
from voxelsoup.study.study import Study


def save_model(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A model file of the small study with random weights."""
    study = small_study(**changes)
    with networks.seeded(seed):
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
    path.parent.mkdir(parents=True, exist_ok=True)
    weight_files.save(path, model.state_dict(), weight_files.describe(study))
    return path


def save_bundle(folder: Path, models: int = 2) -> Path:
    """A bundle as ``voxelsoup`` writes it, as far as weights and hashes go."""
    names = [f"models/fold{number}.safetensors" for number in range(models)]
    for number, name in enumerate(names):
        save_model(folder / name, number)
    record = {"postprocessing": unchanged(["TC", "WT", "ET"]).as_record()}
    write_json(folder / "configs/postprocessing.json", record)
    names.append("configs/postprocessing.json")
    hashes = {name: sha256(folder / name) for name in names}
    write_json(folder / "configs/metadata.json", {"voxelsoup": {"sha256": hashes}})
    return folder


def lively(path: Path, seed: int, **changes: Any) -> ModelFile:
    """A model whose probabilities lie on both sides of one half."""
    save_model(path, seed, **changes)
    weights, description = weight_files.load(path)
    weight_files.save(path, {name: 2 * tensor for name, tensor in weights.items()}, description)
    return open_models([path])[0]


def write_models(study: Study, folder: Path, seeds: list[int]) -> list[Ingredient]:
    """Models of random weights and, where they have any, running statistics of their own."""
    ingredients = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = networks.build(study.network, 4, 3)
        weights = model.state_dict()
        for name, value in weights.items():
            if "running" in name:
                weights[name] = value + torch.rand_like(value)
        path = folder / f"{seed}.safetensors"
        weight_files.save(path, weights, weight_files.describe(study))
        scores = {"a": {"TC": seed / 100, LOSS: 1.0}}
        ingredients.append(Ingredient(f"trial{seed}", path, sha256(path), scores))
    return ingredients
