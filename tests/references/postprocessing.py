"""Post-processing chosen by exhaustive search on full volumes.

Small components go as in Isensee et al., nnU-Net, Nature Methods 2021; a small region becomes
another one as in Isensee et al., nnU-Net for brain tumor segmentation, BrainLes 2020.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np
from scipy import ndimage

from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, ReplacementRule
from voxelsoup.evaluation.postprocessing_search import WholePrediction
from voxelsoup.study.sections.evaluation import PostprocessingSearch

# Model and case -> prediction.
Predictions = Mapping[tuple[str, str], WholePrediction]


def components(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Each one grown from a voxel of its own."""
    rest = mask.copy()
    while rest.any():
        seed = np.zeros_like(rest)
        seed.flat[rest.argmax()] = True
        component = ndimage.binary_propagation(seed, np.ones((3, 3, 3)), mask)
        rest &= ~component
        yield component


def masks_of(whole: WholePrediction, rules: Postprocessing) -> np.ndarray:
    """The three steps written down without any care for speed."""
    voxel = np.prod(whole.spacing)
    masks = []
    for probabilities, rule in zip(whole.probabilities, rules.regions.values(), strict=True):
        mask = probabilities > np.float32(rule.threshold)
        for component in components(mask):
            if component.sum() * voxel < rule.smallest_component * (1 - 1e-6):
                mask = mask & ~component
        masks.append(mask)
    replacement = rules.replacement
    if replacement is not None:
        region, by = (list(rules.regions).index(n) for n in (replacement.region, replacement.by))
        if masks[region].sum() * voxel < replacement.below * (1 - 1e-6):
            masks[by] = masks[by] | masks[region]
            masks[region] = np.zeros_like(masks[region])
    return np.stack(masks)


def dice_scores(whole: WholePrediction, rules: Postprocessing) -> dict[str, float]:
    return {
        region: 2 * int((f & t).sum()) / int(f.sum() + t.sum()) if f.any() or t.any() else 1.0
        for region, f, t in zip(rules.regions, masks_of(whole, rules), whole.truth, strict=True)
    }


def mean_dice_scores(whole: Predictions, rules: Postprocessing) -> dict[str, float]:
    scores = [dice_scores(prediction, rules) for prediction in whole.values()]
    return {region: fmean(score[region] for score in scores) for region in rules.regions}


def best_postprocessing(
    whole: Predictions, search: PostprocessingSearch, regions: Sequence[str]
) -> Postprocessing:
    """Every candidate applied to the whole volumes and scored, mildest first."""
    thresholds = sorted({*search.thresholds, 0.5}, key=lambda t: (round(abs(t - 0.5), 6), t))
    grid = [
        RegionRule(threshold, smallest)
        for threshold in thresholds
        for smallest in sorted({*search.smallest_components, 0})
    ]
    best: dict[str, RegionRule] = {}
    for region in regions:
        highest = -1.0
        for rule in grid:
            score = mean_dice_scores(whole, Postprocessing(dict.fromkeys(regions, rule)))[region]
            if score > highest:
                best[region], highest = rule, score
    chosen = Postprocessing(best)
    if search.replace is None:
        return chosen
    pair = (search.replace.region, search.replace.by)

    def pair_score(rules: Postprocessing) -> float:
        scores = [dice_scores(prediction, rules) for prediction in whole.values()]
        return fmean(score[region] for score in scores for region in pair)

    highest = pair_score(chosen)
    for below in sorted(search.replace.below):
        candidate = Postprocessing(best, ReplacementRule(*pair, below))
        if pair_score(candidate) > highest:
            chosen, highest = candidate, pair_score(candidate)
    return chosen
