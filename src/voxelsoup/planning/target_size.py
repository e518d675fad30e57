"""What the ensemble's probabilities take on the disk, which a finish trains towards."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted
from voxelsoup.data.layouts import find_cases
from voxelsoup.planning.fingerprint import choose_cases, read_header
from voxelsoup.study.study import Study

GIGABYTE = 1e9
# Headers that are read.
CASES_READ = 20


def notes_on_targets(study: Study) -> list[str]:
    """How much disk the ensemble's probabilities of a study's training cases take.

    By the headers of up to 20 cases; what cannot be read is left to the index.
    """
    finish = study.soup.finish
    if finish is None or finish.ensemble_share == 0 or study.dataset.root is None:
        return []
    try:
        cases = find_cases(study.dataset, Path(study.dataset.root))
        headers = [read_header(case) for case in choose_cases(cases, CASES_READ)]
    except InputError:
        return []
    spacing = study.preprocess.spacing
    voxels = fmean(_voxels(header.shape, header.spacing, spacing) for header in headers)
    trained = [case for case in cases if finish.unlabelled or case.label is not None]
    # Of the others each fold tests on its share.
    share = 1 - 1 / study.folds.count
    of_all = len(trained) * voxels * len(study.regions) / GIGABYTE
    folds = len(study.folds.numbers)
    total = (folds * share + study.final) * of_all
    final = " and the final model" if study.final else ""
    return [
        f"the ensemble's probabilities of the training cases (`soup.finish`) take about "
        f"{share * of_all:.2g} GB of disk per fold, {total:.2g} GB for {counted(folds, 'fold')}"
        f"{final}: a byte per voxel and region, less where scans are cropped "
        f"(`ensemble_share: 0` needs none; {counted(len(headers), 'header')} read)"
    ]


def _voxels(
    shape: tuple[int, ...] | list[int],
    spacing: tuple[float, ...] | list[float],
    asked: list[float] | None,
) -> float:
    """Voxels of a scan after resampling, without cropping."""
    if asked is None:
        return float(math.prod(shape))
    sides = zip(shape, spacing, asked, strict=True)
    return math.prod(side * before / after for side, before, after in sides)
