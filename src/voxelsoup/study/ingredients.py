"""Which weights of a trial's run are ingredients of soups, and what they are called.

A run leaves ``model.safetensors``: its averaged weights at its end. The others lie in folders of
their own beside it: ``averaged-1`` is the average at the first checkpoint, ``raw-2`` are the
weights that gradients were taken at by the second. Numbers, not steps, so that the files of a
trial are known before it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from voxelsoup.common.text import listed
from voxelsoup.study.sections.elsewhere import GivenModel
from voxelsoup.study.sections.soup import WeightsKind
from voxelsoup.study.study import Study
from voxelsoup.study.trials import Trial

# What the names of models begin with that the project did not train; no id of a trial does.
GIVEN = "elsewhere-"


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


def given_models(study: Study) -> dict[str, GivenModel]:
    """The ingredients that the project did not train, as models of every fold."""
    return {f"{GIVEN}{one.name}": one for one in study.ingredients}


def is_given(model: str) -> bool:
    """Whether a model of a fold was not trained by the project."""
    return model.startswith(GIVEN)


def only_trained(models: Iterable[str]) -> list[str]:
    """The models of a fold that the project has trained."""
    return [model for model in models if not is_given(model)]


def note_on_given(study: Study) -> str:
    """What has to be known of scores in which given models have a part; empty without any."""
    unknown = [one.name for one in study.ingredients if one.seen == "unknown"]
    if not unknown:
        return ""
    return (
        f"It is not known whether {listed(unknown)}, trained elsewhere, "
        f"{'has' if len(unknown) == 1 else 'have'} seen cases of this study: scores of models with "
        "a part of them, on selection and test cases, may be too high."
    )
