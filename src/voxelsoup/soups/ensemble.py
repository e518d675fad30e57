"""Ensembles: the mean of the probabilities of several models, the costly reference of the soups.

A soup has to be compared with what it saves: N models that are all run on every case.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd
import torch
from torch import nn

from voxelsoup.data.preprocessing.store import PreprocessedCase, load_case
from voxelsoup.evaluation.case_scores import COLUMNS, CaseScore, mean_dice
from voxelsoup.evaluation.metrics import scoring_of
from voxelsoup.evaluation.postprocessing import Postprocessing
from voxelsoup.evaluation.score import (
    DICE_ALONE,
    Rows,
    in_the_scan,
    load_model,
    predict,
)
from voxelsoup.models import weight_files
from voxelsoup.soups.selection import Cache
from voxelsoup.soups.soup import Ingredient, in_equal_parts, ingredient_record
from voxelsoup.study.study import Study

RECIPE = "ensemble"
# What is kept of a case: its time, and what its rows hold, as `plain TC dice`; names of regions
# have no spaces.
ONE_MODEL, WHOLE = "seconds of one model", "seconds of the ensemble"
PLAIN, AFTER = "plain", "postprocessed"
# Keeps logits finite, within 36 of 0; beyond, a probability in float64 is 0 or 1.
SMALLEST = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class MeanPrediction:
    """What an ensemble says of one case.

    Attributes:
        probabilities: the mean over the models (region, x, y, z), float64, on the device.
        seconds_one_model: of one model's windows, the mean over the models.
        seconds: of all models, with the loading of their weights.
    """

    probabilities: torch.Tensor
    seconds_one_model: float
    seconds: float

    @property
    def logits(self) -> torch.Tensor:
        """The logits of the mean probabilities, finite, float32."""
        return torch.logit(self.probabilities, eps=SMALLEST).float()


@dataclass(frozen=True)
class Scored:
    """The scores of an ensemble.

    Attributes:
        postprocessed: those of the measured cases after post-processing.
        inferences: cases times models that were run now.
        seconds_per_case: for `one_model` and for the `ensemble`, the median over the cases (the
            first one warms a GPU up), as measured when each case was predicted.
    """

    rows: pd.DataFrame
    postprocessed: pd.DataFrame
    inferences: int
    seconds_per_case: dict[str, float]


@torch.inference_mode()
def mean_prediction(
    model: nn.Module,
    files: Sequence[Path],
    case: PreprocessedCase,
    study: Study,
    device: torch.device,
) -> MeanPrediction:
    """Run several models over a case, one after the other, and average their probabilities.

    Each has its own weights and running statistics; ``model`` has the last one's afterwards. What
    is held is one network and one sum, however many models there are.

    Raises:
        InputError: if a file cannot be read or does not fit the network.
    """
    began, alone = _now(device), []
    total: torch.Tensor | None = None
    for path in files:
        weight_files.fit(model, weight_files.load(path)[0], path)
        before = _now(device)
        logits = predict(model, case, study, device)
        alone.append(_now(device) - before)
        # In float64, so that order and number do not show and confident logits survive.
        probabilities = logits.double().sigmoid_()
        total = probabilities if total is None else total.add_(probabilities)
    assert total is not None, "an ensemble has at least one model"
    return MeanPrediction(total.div_(len(files)), fmean(alone), _now(device) - began)


def _now(device: torch.device) -> float:
    """Seconds on a clock, when everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


def score_ensemble(
    ingredients: Sequence[Ingredient],
    cases: Sequence[str],
    folder: Path,
    study: Study,
    device: torch.device,
    cache: Cache,
    measured: Collection[str],
    postprocessing: Postprocessing,
) -> Scored:
    """Score an ensemble on preprocessed cases, as a single model is scored.

    Of ``measured`` cases all metrics are taken, before and after post-processing.

    Raises:
        InputError: if a model file cannot be read or does not fit the network.
    """
    files, key = [ingredient.path for ingredient in ingredients], _key(ingredients)
    known = cache.known(key)
    missing = [case for case in cases if case not in known]
    if missing:
        model = load_model(files[0], study, device)
        for name in missing:
            case = load_case(folder, name)
            mean = mean_prediction(model, files, case, study, device)
            scan = in_the_scan(mean.logits, case, folder, study)
            scoring = scoring_of(study.scored_metrics) if name in measured else DICE_ALONE
            kept = {ONE_MODEL: mean.seconds_one_model, WHOLE: mean.seconds}
            kept |= _flat(PLAIN, scan.rows(study, scoring))
            if name in measured:
                kept |= _flat(AFTER, scan.rows(study, scoring, postprocessing))
            cache.keep(key, name, kept)
    return Scored(
        _table(PLAIN, known, cases, study),
        _table(AFTER, known, [case for case in cases if case in measured], study),
        len(missing) * len(files),
        {
            "one_model": median(known[case][ONE_MODEL] for case in cases),
            "ensemble": median(known[case][WHOLE] for case in cases),
        },
    )


def _key(ingredients: Sequence[Ingredient]) -> str:
    """Hash of what an ensemble is made of, in any order; that of no soup."""
    hashes = sorted(ingredient.sha256 for ingredient in ingredients)
    return hashlib.sha256(json.dumps([RECIPE, *hashes]).encode()).hexdigest()


def _flat(kind: str, rows: Rows) -> dict[str, float]:
    """Per-case scores of one case as the numbers that a cache keeps."""
    return {
        f"{kind} {row['region']} {metric}": float(str(value))
        for row in rows
        for metric, value in row.items()
        if metric not in ("case", "region")
    }


def _table(
    kind: str, known: Mapping[str, CaseScore], cases: Sequence[str], study: Study
) -> pd.DataFrame:
    """The per-case scores that were kept, a row per case and annotated region."""
    measures = [*COLUMNS[2:], *study.metrics.names]
    rows = [
        {"case": case, "region": region}
        | {metric: known[case].get(f"{kind} {region} {metric}", math.nan) for metric in measures}
        for case in cases
        for region in study.regions
        # What nobody annotated was not scored.
        if f"{kind} {region} dice" in known[case]
    ]
    return pd.DataFrame(rows, columns=[*COLUMNS, *study.metrics.names])


def ensemble_record(
    ingredients: Sequence[Ingredient],
    made_of: str,
    scored: Scored,
    selection: Collection[str],
    seconds: float,
) -> dict[str, Any]:
    """What ``recipe.json`` says of an ensemble ``made_of`` `all` or a recipe's ingredients."""
    return {
        "recipe": RECIPE,
        "ensemble_of": made_of,
        "score": mean_dice(scored.rows[scored.rows["case"].isin(list(selection))]),
        "ingredients": [
            ingredient_record(ingredient.trial, part, ingredient.score)
            for ingredient, part in zip(ingredients, in_equal_parts(ingredients), strict=True)
        ],
        "models_per_prediction": len(ingredients),
        "seconds_per_case": {
            name: round(value, 4) for name, value in scored.seconds_per_case.items()
        },
        "case_inferences": scored.inferences,
        "seconds": round(seconds, 1),
    }
