"""Which weights of a trial's run are ingredients of soups, and what they are called.

A run leaves ``model.safetensors``: its averaged weights at its end. The others lie in folders of
their own beside it: ``averaged-1`` is the average at the first checkpoint, ``raw-2`` are the
weights that gradients were taken at by the second. Numbers, not steps, so that the files of a
trial are known before it runs.
"""

from __future__ import annotations

from voxelsoup.study.sections.soup import WeightsKind
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial


def checkpoint_steps(steps: int, count: int) -> list[int]:
    """Optimizer steps after which a run's checkpoints are taken, the last one at its end."""
    return [number * steps // count for number in range(1, count + 1)]


def name_of(kind: WeightsKind, number: int) -> str:
    """The folder of one checkpoint's weights, counted from 1."""
    return f"{kind}-{number}"


def written_beside(study: Study) -> list[str]:
    """What every trial of a study writes beside its model: the same for all of them."""
    count = study.training.checkpoints
    return [
        name_of(kind, number)
        for number in range(1, count + 1)
        for kind in study.soup.weights
        if (kind, number) != ("averaged", count)
    ]


def ingredients_of(trial: Trial) -> list[str]:
    """The models of a trial that go into soups: its id, or its id and a folder below it.

    A scheduled optimizer has one kind of weights, which must not count twice.
    """
    study = trial.study
    count = study.training.checkpoints
    if study.optimizer.schedule == "schedule-free":
        beside = written_beside(study)
        with_model = "averaged" in study.soup.weights
    else:
        beside = [name_of(study.soup.weights[0], number) for number in range(1, count)]
        with_model = True
    return [trial.id] * with_model + [f"{trial.id}/{name}" for name in beside]


def averaged_already(trial: Trial) -> bool:
    """Whether all ingredients of a trial are averages of its own run."""
    study = trial.study
    return study.optimizer.schedule == "schedule-free" and "raw" not in study.soup.weights


def models_of(trial: Trial) -> list[str]:
    """The models of a trial that may be the best single one: its own, and all ingredients."""
    return list(dict.fromkeys([trial.id, *ingredients_of(trial)]))
