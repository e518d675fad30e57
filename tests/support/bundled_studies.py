"""Finished studies with random weights, for tests of bundles and manifests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from voxelsoup.common.files import sha256, write_json, write_text
from voxelsoup.data.case import IndexedCase
from voxelsoup.data.index.index import index_cases, write_cases
from voxelsoup.data.preprocessing.geometry import restore, to_scanner
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.deploy.bundle.bundle import write_bundle
from voxelsoup.evaluation.case_scores import write_rows
from voxelsoup.evaluation.postprocessing import unchanged
from voxelsoup.evaluation.score import predict
from voxelsoup.models import networks, weight_files
from voxelsoup.soups.candidates import Candidate, write_candidates
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study

TRIAL = "aaaa0000"
NETWORK = {
    "size": "free",
    "arguments": {"init_filters": 2, "blocks_down": [0, 1], "blocks_up": [1, 0]},
}


@dataclass(frozen=True)
class Finished:
    """A study's settings, its results folder, its scans and its usable cases."""

    study: Study
    results: Path
    root: Path
    cases: list[IndexedCase]

    @property
    def bundle(self) -> Path:
        return self.results / "bundle"


def finish(
    results: Path, root: Path, soup_scores: Mapping[int, float], **sections: Any
) -> Finished:
    """Write what a bundle is made of: of each fold a single model of 0.5 and a greedy soup.

    Args:
        results: the results folder to fill.
        root: folder of the scans.
        soup_scores: fold -> selection score of its soup.
        sections: of the study.
    """
    folds = sorted(soup_scores)
    settings = {
        "results": str(results),
        "network": NETWORK,
        "training": {"patch": [24, 24, 16]},
        "folds": {"count": 5, "run": folds},
        "soup": {"recipes": ["greedy"]},
    }
    study = load(settings | sections)
    cases, _ = index_cases(study.dataset, study.regions, root, workers=1)
    results.mkdir(exist_ok=True)
    write_cases(results / "cases.tsv", cases)
    manifest = ["fold\ttrial\tkind\tparameters\tsha256\tpath"]
    for fold in folds:
        folder = results / f"fold{fold}"
        single = write_model(folder / "trials" / TRIAL, study, 2 * fold)
        write_model(folder / "best", study, 2 * fold)
        soup = write_model(folder / "soups" / "greedy", study, 2 * fold + 1)
        write_candidates(folder / "candidates.tsv", [Candidate(TRIAL, True, 0.5, single)])
        record = {"score": soup_scores[fold], "ingredients": [{"trial": TRIAL}, {"trial": "b"}]}
        write_json(folder / "soups" / "greedy" / "recipe.json", record)
        write_json(
            folder / "postprocessing.json",
            {"postprocessing": unchanged(list(study.regions)).as_record()},
        )
        for model in ("best", "soups/greedy"):
            write_rows(folder / model / "test.csv", rows(study, fold))
        manifest.append(f'{fold}\t{TRIAL}\ttrial\t{{"a": 1}}\t{single}\tx.safetensors')
        manifest.append(f"{fold}\tgreedy\tsoup\t{{}}\t{soup}\ty.safetensors")
    write_text(results / "models" / "manifest.tsv", "\n".join(manifest) + "\n")
    return Finished(study, results, root, cases)


def write_model(folder: Path, study: Study, seed: int) -> str:
    """A model with random weights; returns its hash."""
    with networks.seeded(seed):
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
        # Fresh weights say 0.5 nearly everywhere, and every voxel would be a tie.
        for parameter in model.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    folder.mkdir(parents=True, exist_ok=True)
    return weight_files.save(
        folder / "model.safetensors", model.state_dict(), weight_files.describe(study)
    )


def rows(study: Study, fold: int) -> pd.DataFrame:
    """Per-case scores of four cases."""
    dice_scores = np.random.default_rng(fold).uniform(0.5, 1, (4, len(study.regions)))
    return pd.DataFrame(
        [
            {"case": f"f{fold}c{n}", "region": region, "dice": dice_scores[n, r], "loss": 0.2}
            for n in range(4)
            for r, region in enumerate(study.regions)
        ]
    )


def bundled(finished: Finished) -> Finished:
    """With its bundle."""
    methods = "# Methods\n\n**Data.** Scans.\n"
    answer = "greedy soup better than best single model by 1.0 Dice points"
    write_bundle(finished.study, finished.results, finished.cases, methods, answer, finished.bundle)
    return finished


def probabilities(finished: Finished, name: str, models: str, folder: Path) -> np.ndarray:
    """What the models of all folds say of a case: the way that evaluation predicts.

    Args:
        finished: the study.
        name: of the case.
        models: below a fold's folder, such as `soups/greedy`.
        folder: for the preprocessed case.

    Returns:
        (region, x, y, z) in the scan's own grid.
    """
    study = finished.study
    cases = [case for case in finished.cases if case.name == name]
    preprocess_all(
        cases, finished.root, study.preprocess, study.training.patch, folder, folder / "p.tsv", 1
    )
    case = load_case(folder, name)
    mean = 0
    for fold in study.folds.numbers:
        weights, _ = weight_files.load(
            finished.results / f"fold{fold}" / models / "model.safetensors"
        )
        model = networks.build(study.network, len(study.dataset.channels), len(study.regions))
        model.load_state_dict(weights)
        logits = predict(model.eval(), case, study, torch.device("cpu"))
        mean = mean + torch.sigmoid(logits).numpy() / len(study.folds.numbers)
    back = restore(mean, case.geometry)
    return np.stack([to_scanner(region, case.geometry) for region in back])


def metadata_of(bundle: Path) -> dict[str, Any]:
    """The bundle's metadata."""
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def reseal(bundle: Path, name: str) -> None:
    """Renew a file's stored hash, as an attacker who knows of the hashes would."""
    content = metadata_of(bundle)
    content["voxelsoup"]["sha256"][name] = sha256(bundle / name)
    write_json(bundle / "configs" / "metadata.json", content)
