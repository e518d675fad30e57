"""Model files and bundles of untrained networks, for tests that predict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.runs import small_study
from voxelsoup.common.files import sha256, write_json
from voxelsoup.evaluation.postprocessing import unchanged
from voxelsoup.models import networks, weight_files
from voxelsoup.prediction.model_files import ModelFile, open_models


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
