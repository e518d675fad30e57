"""The search for a fold's post-processing on predictions of its selection cases.

Thresholds and smallest components of a region change no other region, so each region's are chosen
alone, over the whole grid; the replacement is chosen after them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from voxelsoup.common import files
from voxelsoup.evaluation.postprocessing import (
    Mask,
    Postprocessing,
    Probabilities,
    RegionRule,
    ReplacementRule,
    components,
    fewest_voxels,
    unchanged,
)
from voxelsoup.evaluation.surfaces import bounding_box
from voxelsoup.study.sections.evaluation import PostprocessingSearch, Replacement

log = logging.getLogger(__name__)

# Part of a prediction's key: to be raised whenever what is kept of it comes out differently.
VERSION = 2


class WholePrediction(NamedTuple):
    """A prediction and its ground truth, in the voxels of the scan.

    Attributes:
        probabilities: (region, x, y, z), float32.
        truth: booleans of the same shape.
        spacing: voxel size in mm (x, y, z).
        known: where somebody annotated (x, y, z); None: everywhere.
    """

    probabilities: Probabilities
    truth: Mask
    spacing: Sequence[float]
    known: Mask | None = None


@dataclass(frozen=True)
class CroppedPrediction:
    """What is needed of a prediction to choose by: all of it, for thresholds that are no lower.

    Attributes:
        lowest: the threshold it was cropped at; probabilities up to it are 0.
        probabilities: (region, x, y, z), float32, in the box around those above it.
        truth: booleans of the same shape.
        truth_outside: true voxels of each region outside of the box (region,).
        spacing: voxel size in mm (x, y, z).
        known: where somebody annotated, booleans (x, y, z) in the box; nothing else counts.
    """

    model: str
    case: str
    lowest: float
    probabilities: Probabilities
    truth: Mask
    truth_outside: NDArray[np.int64]
    spacing: tuple[float, ...]
    known: Mask

    @classmethod
    def of(cls, model: str, case: str, whole: WholePrediction, lowest: float) -> Self:
        """Crop a prediction to the box of voxels where some region is above ``lowest``."""
        probabilities = np.asarray(whole.probabilities, np.float32)
        truth = np.asarray(whole.truth, bool)
        if probabilities.shape != truth.shape:
            raise ValueError(f"{case}: prediction and truth differ in shape")
        above = probabilities > lowest
        window = (slice(None), *bounding_box(np.asarray(above.any(axis=0))))
        inside = np.ascontiguousarray(truth[window])
        space = (1, 2, 3)
        return cls(
            model,
            case,
            lowest,
            np.where(above[window], probabilities[window], np.float32(0)),
            inside,
            np.count_nonzero(truth, axis=space) - np.count_nonzero(inside, axis=space),
            tuple(float(side) for side in whole.spacing),
            np.ones(inside.shape[1:], bool) if whole.known is None else whole.known[window[1:]],
        )

    @property
    def true_voxels(self) -> list[int]:
        """Voxels of each region in the whole ground truth."""
        inside = np.count_nonzero(self.truth, axis=(1, 2, 3))
        return [int(voxels) for voxels in inside + self.truth_outside]

    def read(self) -> CroppedPrediction:
        """Itself: it is in memory."""
        return self

    def save(self, path: Path) -> None:
        """Write it atomically."""
        with files.atomic_write(path) as temporary:
            # Mostly zeros, so that a prediction takes a tenth of its size; and a damaged file
            # is found by its checksum.
            np.savez_compressed(
                temporary,
                lowest=self.lowest,
                probabilities=self.probabilities,
                truth=self.truth,
                truth_outside=self.truth_outside,
                spacing=np.array(self.spacing, np.float64),
                known=self.known,
            )


@dataclass(frozen=True)
class StoredPrediction:
    """A cropped prediction on the disk."""

    model: str
    case: str
    path: Path

    def read(self) -> CroppedPrediction:
        """Read it; any error is one of a damaged file."""
        with np.load(self.path, allow_pickle=False) as stored:
            return CroppedPrediction(
                self.model,
                self.case,
                float(stored["lowest"]),
                stored["probabilities"],
                stored["truth"],
                stored["truth_outside"],
                tuple(stored["spacing"].tolist()),
                stored["known"],
            )

    def serves(self, lowest: float) -> bool:
        """Whether it is there, undamaged, and has all voxels above a threshold."""
        if not self.path.is_file():
            return False
        try:
            return self.read().lowest <= lowest
        # A damaged archive fails in as many ways as its parts have readers.
        except Exception as error:
            log.warning("%s is damaged and made again: %s", self.path, error)
            return False


# In memory or on the disk, one of each model and case.
Predictions = Sequence[CroppedPrediction] | Sequence[StoredPrediction]
# Case -> regions that nobody annotated in it.
NotAnnotated = Mapping[str, Collection[str]]
EVERYTHING_ANNOTATED: NotAnnotated = MappingProxyType({})


def predictions_of(
    model: str,
    sha256: str,
    cases: Sequence[str],
    predict: Callable[[str], WholePrediction],
    folder: Path,
    context: str,
    search: PostprocessingSearch,
) -> list[StoredPrediction]:
    """The predictions of a model, those that are missing made and kept.

    A killed job finds them again. One prediction is in memory at a time, and none afterwards.

    Args:
        predict: predicts a case; only called for those that are missing.
        folder: where predictions are kept, of any models; safe to delete once chosen.
        context: what they depend on beside the model: data, regions, network, evaluation.
    """
    lowest, found = search.thresholds_tried[0], []
    for case in cases:
        key = json.dumps([VERSION, sha256, case, context])
        name = hashlib.sha256(key.encode()).hexdigest()
        stored = StoredPrediction(model, case, folder / f"{name}.npz")
        if not stored.serves(lowest):
            CroppedPrediction.of(model, case, predict(case), lowest).save(stored.path)
        found.append(stored)
    return found


def dice(shared: int, predicted: int, true: int) -> float:
    """Dice from numbers of voxels; by the BraTS rule, two empty regions score 1."""
    voxels = predicted + true
    return 2 * shared / voxels if voxels else 1.0


@dataclass(frozen=True)
class Chosen:
    """A fold's post-processing, and a record for JSON of all that was tried, with its mean Dice."""

    postprocessing: Postprocessing
    record: dict[str, Any]


def choose(
    predictions: Predictions,
    search: PostprocessingSearch,
    regions: Sequence[str],
    not_annotated: NotAnnotated = EVERYTHING_ANNOTATED,
) -> Chosen:
    """Choose what has the highest mean Dice, over the models, of the mean over the cases.

    Nothing is changed unless it is strictly better than leaving it; of equally good ones, the
    mildest is taken. A replacement may cost one of its two regions less than the other gains.
    Every prediction is read once, and once more for the replacement, one at a time.

    Args:
        predictions: of the compared models, each on the same cases, in any order.
        regions: names, in the order of the probabilities.
        not_annotated: regions that nobody annotated in a case, and that are not scored there; each
            is annotated in some case.

    Raises:
        ValueError: if there are none, models differ in their cases, or a prediction was cropped
            above the lowest threshold that is tried.
    """
    models, cases = _models_and_cases(predictions)
    tried = score_rules(predictions, search, regions, not_annotated)
    rules = {region: best_rule(scores) for region, scores in tried.items()}
    scores = {region: tried[region][rule] for region, rule in rules.items()}
    replacement, replacements = None, None
    if search.replace is not None:
        dice = dice_scores_of_replacements(predictions, search.replace, rules, not_annotated)
        replacement = best_replacement(dice)
        scores.update({region: fmean(values) for region, values in dice[replacement].items()})
        replacements = _replacement_record(dice, search.replace, replacement)
    postprocessing = Postprocessing(rules, replacement)
    unchanged_score = fmean(tried[region][RegionRule()] for region in regions)
    score = fmean(scores.values())
    record = {
        "postprocessing": postprocessing.as_record(),
        "models": models,
        "cases": len(cases),
        **_gain(unchanged_score, score),
        "regions": {
            region: _region_record(tried[region], rules[region], scores[region])
            for region in regions
        },
        "replacement": replacements,
    }
    log.info("post-processing: mean Dice %.4f instead of %.4f", score, unchanged_score)
    return Chosen(postprocessing, record)


def nothing_to_choose(regions: Sequence[str]) -> Chosen:
    """The post-processing of a study that tries none: no prediction is needed for it."""
    postprocessing = unchanged(regions)
    record = {"postprocessing": postprocessing.as_record(), "models": [], "cases": 0}
    return Chosen(postprocessing, {**record, "regions": {}, "replacement": None})


def _models_and_cases(predictions: Predictions) -> tuple[list[str], list[str]]:
    """Their names, sorted; the mean over predictions is one over models only if all are there."""
    seen = {(prediction.model, prediction.case) for prediction in predictions}
    models = sorted({model for model, _ in seen})
    cases = sorted({case for _, case in seen})
    if not seen or not len(seen) == len(predictions) == len(models) * len(cases):
        raise ValueError("choosing takes one prediction of each model and case")
    return models, cases


def score_rules(
    predictions: Predictions,
    search: PostprocessingSearch,
    regions: Sequence[str],
    not_annotated: NotAnnotated = EVERYTHING_ANNOTATED,
) -> dict[str, dict[RegionRule, float]]:
    """Mean Dice of each region by each rule of the grid, without any replacement.

    Over the cases in which the region is annotated.

    Raises:
        ValueError: if a prediction was cropped above the lowest threshold that is tried.
    """
    dice_scores: dict[str, dict[RegionRule, list[float]]] = {
        region: defaultdict(list) for region in regions
    }
    for prediction in predictions:
        cropped = prediction.read()
        if cropped.lowest > search.thresholds_tried[0]:
            raise ValueError(f"{cropped.case}: was cropped above the lowest threshold")
        for number, region in enumerate(regions):
            if region in not_annotated.get(cropped.case, ()):
                continue
            for rule, value in _dice_of_region(cropped, number, search):
                dice_scores[region][rule].append(value)
    # Correctly rounded sums, so that the order of the predictions decides no tie.
    return {
        region: {rule: fmean(values) for rule, values in by_rule.items()}
        for region, by_rule in dice_scores.items()
    }


def _dice_of_region(
    cropped: CroppedPrediction, number: int, search: PostprocessingSearch
) -> Iterator[tuple[RegionRule, float]]:
    """Dice of one region by each rule; components are looked for once per threshold."""
    probabilities, truth = cropped.probabilities[number], cropped.truth[number]
    true = cropped.true_voxels[number]
    for threshold in search.thresholds_tried:
        labels, voxels = components(probabilities > threshold)
        shared = np.bincount(labels[truth], minlength=len(voxels))
        # A component is dropped by all of its voxels, and scored on those that are annotated.
        scored = np.bincount(labels[cropped.known], minlength=len(voxels))
        for smallest in search.smallest_tried:
            kept = voxels >= fewest_voxels(smallest, cropped.spacing)
            kept[0] = False
            value = dice(int(shared[kept].sum()), int(scored[kept].sum()), true)
            yield RegionRule(threshold, smallest), value


def best_rule(scores: Mapping[RegionRule, float]) -> RegionRule:
    """The rule of the highest score; of equally good ones, the mildest."""
    return min(scores, key=lambda rule: (-scores[rule], rule.distance))


def dice_scores_of_replacements(
    predictions: Predictions,
    replace: Replacement,
    rules: Mapping[str, RegionRule],
    not_annotated: NotAnnotated = EVERYTHING_ANNOTATED,
) -> dict[ReplacementRule | None, dict[str, list[float]]]:
    """Dice scores of the two regions that a replacement changes, by each volume and without any.

    Of each region in the cases in which it is annotated.

    Args:
        rules: region -> its chosen rule, in the order of the probabilities.
    """
    pair = (replace.region, replace.by)
    numbers = [list(rules).index(region) for region in pair]
    tried = [None, *(ReplacementRule(*pair, below) for below in sorted({*replace.below}))]
    dice_scores: dict[ReplacementRule | None, dict[str, list[float]]] = {
        rule: {region: [] for region in pair} for rule in tried
    }
    for prediction in predictions:
        cropped = prediction.read()
        found = [
            rules[region].apply(cropped.probabilities[number], cropped.spacing)
            for region, number in zip(pair, numbers, strict=True)
        ]
        left = np.count_nonzero(found[0])
        replaced = [np.zeros_like(found[0]), found[0] | found[1]]
        kept = _dice_of_masks(cropped, numbers, found)
        moved = _dice_of_masks(cropped, numbers, replaced)
        for rule in tried:
            too_small = rule is not None and left < fewest_voxels(rule.below, cropped.spacing)
            for region, value in zip(pair, moved if too_small else kept, strict=True):
                if region not in not_annotated.get(cropped.case, ()):
                    dice_scores[rule][region].append(value)
    return dice_scores


def _dice_of_masks(
    cropped: CroppedPrediction, numbers: Sequence[int], masks: Sequence[Mask]
) -> list[float]:
    """Dice scores of some regions, given by their numbers, by masks (x, y, z) in the box."""
    return [
        dice(
            int(np.count_nonzero(mask & cropped.truth[number])),
            int(np.count_nonzero(mask & cropped.known)),
            cropped.true_voxels[number],
        )
        for number, mask in zip(numbers, masks, strict=True)
    ]


def best_replacement(
    dice_scores: Mapping[ReplacementRule | None, Mapping[str, Sequence[float]]],
) -> ReplacementRule | None:
    """The replacement of the highest mean Dice over both regions; if equally good, the mildest."""
    return min(
        dice_scores,
        key=lambda rule: (-_mean_of_both(dice_scores[rule]), 0.0 if rule is None else rule.below),
    )


def _mean_of_both(dice_scores: Mapping[str, Sequence[float]]) -> float:
    if len({len(values) for values in dice_scores.values()}) > 1:
        # Annotated in different numbers of cases; the regions count the same.
        return fmean(map(fmean, dice_scores.values()))
    # A correctly rounded sum of all: what one region gains and the other loses is a tie.
    return fmean(value for values in dice_scores.values() for value in values)


def _gain(unchanged_score: float, score: float) -> dict[str, float]:
    return {"unchanged": unchanged_score, "score": score, "gain": score - unchanged_score}


def _region_record(
    tried: Mapping[RegionRule, float], rule: RegionRule, score: float
) -> dict[str, Any]:
    """What was tried on a region; ``score`` is its mean Dice after the replacement."""
    return {
        "tried": [{**asdict(other), "score": value} for other, value in tried.items()],
        "chosen": asdict(rule),
        **_gain(tried[RegionRule()], score),
    }


def _replacement_record(
    dice_scores: Mapping[ReplacementRule | None, Mapping[str, Sequence[float]]],
    replace: Replacement,
    chosen: ReplacementRule | None,
) -> dict[str, Any]:
    """What replacements were tried; scores are the mean Dice over both regions."""
    return {
        "region": replace.region,
        "by": replace.by,
        "tried": [
            {
                "below": None if rule is None else rule.below,
                "score": _mean_of_both(by_region),
                "regions": {region: fmean(values) for region, values in by_region.items()},
            }
            for rule, by_region in dice_scores.items()
        ],
        "chosen": None if chosen is None else chosen.below,
        **_gain(_mean_of_both(dice_scores[None]), _mean_of_both(dice_scores[chosen])),
    }
