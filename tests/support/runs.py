"""Small runs that several test files train: a tiny network on the phantom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxelsoup.data.index.index import index_cases
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.study.loading import load
from voxelsoup.study.study import Study
from voxelsoup.study.trials import trials
from voxelsoup.training.run import Run, trial_run

SETTINGS: dict[str, Any] = {
    "dataset": {"channels": ["t1n", "t1c", "t2w", "t2f"]},
    "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
    "network": {
        "size": "free",
        "arguments": {"init_filters": 2, "blocks_down": [0, 1], "blocks_up": [1, 0]},
    },
    "training": {"patch": [16, 16, 16], "epochs": 2, "steps_per_epoch": 3},
    "optimizer": {"lr": 0.01},
}


def small_study(**changes: Any) -> Study:
    """The small study; a section that is given is merged into its own."""
    merged = {key: SETTINGS.get(key, {}) | value for key, value in changes.items()}
    return load(SETTINGS | merged)


def preprocess_phantom(phantom: Path, folder: Path) -> list[str]:
    """Preprocess the phantom's cases into ``folder`` and return their names."""
    study = small_study()
    found, _ = index_cases(study.dataset, study.regions, phantom, workers=1)
    preprocess_all(
        found,
        root=phantom,
        settings=study.preprocess,
        patch=study.training.patch,
        folder=folder,
        manifest=folder / "manifest.tsv",
        workers=1,
    )
    return [case.name for case in found]


def small_run(study: Study, folder: Path, cases: list[str]) -> Run:
    """The only trial of a study on these cases."""
    return trial_run(trials(study)[0], 0, cases, folder, initial=None)
