"""The best, the median and the worst case of a soup, predicted again to be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from voxelsoup.data.preprocessing.geometry import restore
from voxelsoup.data.preprocessing.store import load_case
from voxelsoup.evaluation.case_scores import by_case, read_rows
from voxelsoup.evaluation.score import DICE_ALONE, load_model, prediction_in_the_scan
from voxelsoup.report.figures import CaseSlice, best_median_worst, densest_slice
from voxelsoup.study.study import Study


def cases_to_show(tests: Mapping[int, Path]) -> list[tuple[str, int, str]]:
    """The best, the median and the worst test case of all folds: (rank, fold, case).

    Args:
        tests: fold -> the soup's per-case scores on the test cases.
    """
    scores = {
        (fold, case): float(score)
        for fold, path in tests.items()
        for case, score in by_case(read_rows(path)).items()
    }
    return best_median_worst(scores)


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

    Args:
        rank: ``best``, ``median`` or ``worst``.
        fold: whose test case it is.
        name: the case.
        models: files of the best single model and of the soup.
        folder: the preprocessed cases.
        study: the study.
        device: where to compute.
    """
    scans = [
        prediction_in_the_scan(load_model(path, study, device), name, folder, study, device)
        for path in models
    ]
    masks = [scans[0].truth, *(scan.mask() for scan in scans)]
    z = densest_slice(masks[0], masks[2])
    dices = [[float(str(row["dice"])) for row in scan.rows(study, DICE_ALONE)] for scan in scans]
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
        dice={region: (dices[0][i], dices[1][i]) for i, region in enumerate(study.regions)},
    )


def _shown_channel(study: Study) -> int:
    # Readers look for enhancing tumour in the contrast-enhanced T1 image.
    channels = study.dataset.channels
    return channels.index("t1c") if "t1c" in channels else 0
