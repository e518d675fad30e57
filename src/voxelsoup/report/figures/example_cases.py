"""The best, the median and the worst case of a soup, predicted again to be looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from voxelsoup.data.preprocessing.geometry import restore
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.evaluation.case_scores import by_case, read_rows
from voxelsoup.evaluation.score import DICE_ALONE, load_model, prediction_in_the_scan
from voxelsoup.report.figures.case_slices import CaseSlice, Mask
from voxelsoup.study.study import Study


def cases_to_show(tests: Mapping[int, Path]) -> list[tuple[str, int, str]]:
    """The best, the median and the worst test case (rank, fold, case) of all folds' scores."""
    scores = {
        (fold, case): float(score)
        for fold, path in tests.items()
        for case, score in by_case(read_rows(path)).items()
    }
    return best_median_worst(scores)


def best_median_worst(scores: Mapping[tuple[int, str], float]) -> list[tuple[str, int, str]]:
    """The best, the median and the worst case, each once, as (rank, fold, case), best first.

    Cases without a score (NaN) are left out. Of one case there is only the best, of two no median;
    of equal scores the first fold and case comes first.
    """
    known = [place for place, score in scores.items() if not math.isnan(score)]
    ordered = sorted(known, key=lambda place: (-scores[place], place))
    last = len(ordered) - 1
    chosen = {0: "best"} if ordered else {}
    if last >= 2:
        chosen[last // 2] = "median"
    if last >= 1:
        chosen[last] = "worst"
    return [(rank, *ordered[position]) for position, rank in chosen.items()]


def slice_of(
    rank: str,
    fold: int,
    name: str,
    models: tuple[Path, Path],
    folder: Path,
    study: Study,
    device: torch.device,
) -> CaseSlice:
    """The axial slice of a case with the largest area of the regions.

    ``models``: files of the best single model and of the soup.
    """
    scans = [
        prediction_in_the_scan(load_model(path, study, device), name, folder, study, device)
        for path in models
    ]
    masks = [scans[0].truth, *(scan.mask() for scan in scans)]
    z = densest_slice(masks[0], masks[2])
    dice = [
        {str(row["region"]): float(str(row["dice"])) for row in scan.rows(study, DICE_ALONE)}
        for scan in scans
    ]
    case = load_case(folder, name)
    image = restore(np.array(case.image, dtype=np.float32), case.geometry)[_shown_channel(study)]
    return CaseSlice(
        rank=rank,
        case=name,
        fold=fold,
        spacing=(scans[0].spacing[0], scans[0].spacing[1]),
        image=image[..., z],
        regions={
            region: (masks[0][i, ..., z], masks[1][i, ..., z], masks[2][i, ..., z])
            for i, region in enumerate(study.regions)
        },
        dice={region: (dice[0][region], dice[1][region]) for region in dice[0]},
    )


def densest_slice(truth: Mask, prediction: Mask) -> int:
    """Index along z of the slice where all regions (region, x, y, z) have the largest area.

    The first such slice; the prediction's where the ground truth is empty, and the middle one where
    both are.
    """
    for masks in (truth, prediction):
        areas = masks.sum(axis=(0, 1, 2))
        if areas.any():
            return int(areas.argmax())
    return int(truth.shape[-1] // 2)


def _shown_channel(study: Study) -> int:
    # Readers look for enhancing tumour in the contrast-enhanced T1 image.
    channels = study.dataset.channels
    return channels.index("t1c") if "t1c" in channels else 0
