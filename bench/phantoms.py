"""Preprocessed phantoms: what benchmarks of training train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voxelsoup.study.study import Study


def prepare_phantoms(study: Study, folder: Path, cases: int, shape: Sequence[int]) -> Path:
    """Write phantoms to ``raw`` in a folder and preprocess them into ``data`` there.

    ``shape``: voxels (x, y, z) of each. Returns the folder of the preprocessed cases.
    """
    from voxelsoup.data.index.index import index_cases
    from voxelsoup.data.layouts.phantom import write_phantom
    from voxelsoup.data.preprocessing.preprocess import preprocess_all
    from voxelsoup.study.sections.data import Phantom

    raw, data = folder / "raw", folder / "data"
    data.mkdir()
    write_phantom(raw, Phantom(cases=cases, shape=list(shape)))
    found, _ = index_cases(study.dataset, study.regions, raw, workers=1)
    preprocess_all(
        found,
        root=raw,
        settings=study.preprocess,
        patch=study.training.patch,
        folder=data,
        manifest=folder / "manifest.tsv",
        workers=1,
    )
    return data
