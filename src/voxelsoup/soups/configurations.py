"""Models of several configurations beside each other: alone, and as ensembles of two or three.

Their networks, patches or spacings differ, so that weights cannot be averaged. Probabilities can,
in the voxels of the scan.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from voxelsoup.common.files import json_sha256, sha256
from voxelsoup.data.preprocessing.intensities import study_of_fold
from voxelsoup.data.preprocessing.store import load_case, read_manifest
from voxelsoup.evaluation.case_scores import COLUMNS, CaseScore
from voxelsoup.evaluation.kept_scores import identities_of
from voxelsoup.evaluation.metrics import scoring_of
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.evaluation.score import (
    DICE_ALONE,
    Rows,
    ScanPrediction,
    in_the_scan,
    load_model,
    predict,
)
from voxelsoup.soups.candidates import OWN
from voxelsoup.soups.configuration_choice import Names, candidates, title_of
from voxelsoup.soups.selection import Cache
from voxelsoup.study.configurations import FIRST, folder_of_configuration, handed_over
from voxelsoup.study.loading import contents_of_configurations, load
from voxelsoup.study.study import Study

# What is kept of a prediction beside its scores.
SECONDS, MEMORY = "seconds", "memory_mb"


@dataclass(frozen=True)
class ConfigurationModel:
    """What a configuration hands over of a fold.

    Attributes:
        study: the configuration with the constants of the fold.
        sha256: of ``file``, its weights.
        folder: its preprocessed cases.
    """

    name: str
    study: Study
    file: Path
    sha256: str
    folder: Path


@dataclass(frozen=True)
class Cost:
    """What one prediction takes: the median time and the most memory, NaN where it is unknown."""

    seconds: float
    memory_mb: float


def models_of_fold(
    config: dict[str, Any], folds: Path, fold: int, names: Sequence[str] = ()
) -> list[ConfigurationModel]:
    """The models that the configurations of a study hand over of a fold.

    Args:
        config: the study as it is written; ``folds`` is its folds.json.
        names: of which configurations, in their order in the study; none: of all.

    Raises:
        InputError: as ``load``.
    """
    study = load(config)
    contents = {FIRST: config, **contents_of_configurations(config, study)}
    found = []
    for name in (name for name in contents if not names or name in names):
        results = Path(folder_of_configuration(study.results, name))
        arrays = results / "preprocessed"
        own, _ = study_of_fold(contents[name], folds, fold, arrays)
        file = results / f"fold{fold}" / handed_over(own) / OWN
        found.append(ConfigurationModel(name, own, file, sha256(file), arrays))
    return found


def context_of(models: Sequence[ConfigurationModel], cases: Sequence[str]) -> str:
    """A hash of what the scores of models on cases depend on beside their weights."""
    content = {}
    for model in models:
        fingerprints = read_manifest(model.folder.with_name("preprocessed.tsv"))
        content[model.name] = identities_of(model.study, cases, cases, fingerprints)
    return json_sha256(content)


class Predictor:
    """Predicts a case by the models of several configurations, one after the other."""

    def __init__(self, models: Sequence[ConfigurationModel], device: torch.device) -> None:
        """Load the models.

        Raises:
            InputError: if a file cannot be read or does not fit its configuration's network.
        """
        self.models, self.device = models, device
        self.networks = [load_model(one.file, one.study, device) for one in models]

    @torch.inference_mode()
    def scans(self, case: str) -> tuple[dict[str, ScanPrediction], dict[str, CaseScore]]:
        """Name -> its prediction of a case, all on one grid; and name -> seconds and memory."""
        found: dict[str, tuple[ScanPrediction, Mapping[str, Any]]] = {}
        costs: dict[str, CaseScore] = {}
        for model, network in zip(self.models, self.networks, strict=True):
            _forget_peak(self.device)
            began = time.monotonic()
            arrays = load_case(model.folder, case)
            logits = predict(network, arrays, model.study, self.device)
            scan = in_the_scan(logits, arrays, model.folder, model.study)
            costs[model.name] = {SECONDS: time.monotonic() - began, MEMORY: _peak(self.device)}
            found[model.name] = scan, arrays.geometry
        return on_one_grid(found), costs


def on_one_grid(
    found: Mapping[str, tuple[ScanPrediction, Mapping[str, Any]]],
) -> dict[str, ScanPrediction]:
    """Predictions in the crops of their configurations; in the whole scan where these differ."""
    crops = [geometry["crop"] for _, geometry in found.values()]
    if all(crop == crops[0] for crop in crops):
        return {name: scan for name, (scan, _) in found.items()}
    return {name: _whole(scan, geometry) for name, (scan, geometry) in found.items()}


def _whole(scan: ScanPrediction, geometry: Mapping[str, Any]) -> ScanPrediction:
    inside = tuple(slice(start, stop) for start, stop in geometry["crop"])

    def filled(array: Any, outside: object) -> Any:
        full = np.full((*array.shape[:-3], *geometry["ras_shape"]), outside, array.dtype)
        full[(slice(None),) * (array.ndim - 3) + inside] = array
        return full

    return replace(
        scan,
        probabilities=filled(scan.probabilities, 0),
        truth=filled(scan.truth, False),
        known=None if scan.known is None else filled(scan.known, True),
    )


def ensemble_of(scans: Sequence[ScanPrediction]) -> ScanPrediction:
    """The mean of the probabilities of predictions on one grid; its loss is not known."""
    if len(scans) == 1:
        return scans[0]
    total = np.zeros(scans[0].probabilities.shape, np.float64)
    for scan in scans:
        total += scan.probabilities
    mean = (total / len(scans)).astype(np.float32)
    return replace(scans[0], probabilities=mean, loss=math.nan)


@dataclass(frozen=True)
class SelectionScores:
    """Every candidate on the selection cases of a fold.

    Attributes:
        rows: ``configurations`` (``title_of``), ``case``, ``region``, ``dice``.
        costs: name of a configuration -> what a prediction by it takes.
    """

    rows: pd.DataFrame
    costs: dict[str, Cost]


def score_candidates(
    models: Sequence[ConfigurationModel], cases: Sequence[str], device: torch.device, cache: Cache
) -> SelectionScores:
    """Score each configuration's model and all ensembles; each model predicts a case once."""
    names = [model.name for model in models]
    known = {one: cache.known(_key(models, one)) for one in candidates(names)}
    costs = {name: cache.known(f"cost {_key(models, (name,))}") for name in names}
    predictor: Predictor | None = None
    for case in cases:
        if all(case in scores for scores in [*known.values(), *costs.values()]):
            continue
        predictor = predictor or Predictor(models, device)
        scans, taken = predictor.scans(case)
        for one in known:
            scan = ensemble_of([scans[name] for name in one])
            rows = scan.rows(models[0].study, DICE_ALONE)
            cache.keep(_key(models, one), case, _dice_of(rows))
        for name in names:
            cache.keep(f"cost {_key(models, (name,))}", case, taken[name])
    rows_of_all = [
        {"configurations": title_of(one), "case": case, "region": region, "dice": dice}
        for one, scores in known.items()
        for case in cases
        for region, dice in scores[case].items()
    ]
    return SelectionScores(
        pd.DataFrame(rows_of_all), {name: _cost(costs[name], cases) for name in names}
    )


def _dice_of(rows: Rows) -> CaseScore:
    return {str(row["region"]): float(str(row["dice"])) for row in rows}


def _cost(of_cases: Mapping[str, CaseScore], cases: Sequence[str]) -> Cost:
    seconds = median(of_cases[case][SECONDS] for case in cases)
    return Cost(seconds, max(of_cases[case][MEMORY] for case in cases))


def _key(models: Sequence[ConfigurationModel], names: Names) -> str:
    """Hash of the models that a candidate is made of."""
    hashes = [[model.name, model.sha256] for model in models if model.name in names]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


class EnsemblePredictor:
    """Predicts cases by an ensemble of configurations."""

    def __init__(self, models: Sequence[ConfigurationModel], device: torch.device) -> None:
        """Load the models, as ``Predictor``."""
        self.study, self._predictor = models[0].study, Predictor(models, device)

    def scan(self, case: str) -> ScanPrediction:
        """What it says of a case."""
        scans, _ = self._predictor.scans(case)
        return ensemble_of(list(scans.values()))

    def scores(
        self, cases: Sequence[str], postprocessing: Postprocessing
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Its scores by all metrics of the study, without and with post-processing."""
        scoring, columns = scoring_of(self.study.scored_metrics), self.study.metrics.names
        before: Rows = []
        after: Rows = []
        for case in cases:
            scan = self.scan(case)
            before += scan.rows(self.study, scoring)
            after += scan.rows(self.study, scoring, postprocessing)
        return (
            pd.DataFrame(before, columns=[*COLUMNS, *columns]),
            pd.DataFrame(after, columns=[*COLUMNS, *columns]),
        )


def _forget_peak(device: torch.device) -> None:
    """Begin to measure memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Linux alone keeps a peak that can be set back (man proc_pid_clear_refs).
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> float:
    """Most memory since, in MB: of tensors on a GPU, of the process elsewhere; NaN if unknown."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) / 1e6
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return math.nan
