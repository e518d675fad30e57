"""From a sweep to trials with ids that stay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from voxelsoup.common.files import json_sha256
from voxelsoup.study.combinations import Combination, combinations
from voxelsoup.study.halving import check_halving, share_of_epochs
from voxelsoup.study.loading import wrong_settings
from voxelsoup.study.sections.base import Section
from voxelsoup.study.sections.soup import FINISHED, FINISHED_BEST
from voxelsoup.study.sections.sweep import SweepBlock
from voxelsoup.study.study import LONG_RUN, Study, finish_epochs
from voxelsoup.study.sweepable import SWEPT_SECTIONS, setting

# Model -> label, where no labels are given: the ids are shown.
NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Trial:
    """One hyperparameter combination of a sweep: the study with its own values in place.

    Attributes:
        id: eight hexadecimal digits made from ``parameters`` alone.
        parameters: its own swept dotted key -> value; other trials may have other keys.
    """

    id: str
    parameters: dict[str, Any]
    study: Study


def trials(study: Study, where: str = "config.yaml") -> list[Trial]:
    """All trials of a study, in the order in which its sweep names them first.

    Trials of the same settings are one, whatever keys name them: the one that was begun in the
    results folder, so that a further block retrains nothing; else the one with the fewest keys,
    and of several the one with the lowest id, so that the order of the blocks renames nothing.

    Raises:
        InputError: if a key cannot be swept, a value is not allowed for its key, an exclusion
            matches nothing, or the trials cannot be halved as `sweep.halving` asks.
    """
    sections = _Sections(study, where)
    of_settings: dict[str, dict[str, Trial]] = {}
    for name, block in blocks(study):
        for combination in combinations(study, block, name, where):
            settings, own = sections.with_values(combination, name)
            trial = Trial(trial_id(combination), combination, own)
            of_settings.setdefault(settings, {}).setdefault(trial.id, trial)
    found = [_one_of(list(alike.values()), Path(study.results)) for alike in of_settings.values()]
    if study.sweep.halving:
        check_halving(study.sweep.halving, found, where)
    return found


def blocks(study: Study) -> list[tuple[str, SweepBlock]]:
    """The blocks of a study's sweep that name trials, with their places in the study file.

    Where none does, it is the sweep itself: its one trial is the study as it stands.
    """
    named: list[tuple[str, SweepBlock]] = [("sweep", study.sweep)]
    named += [(f"sweep.also[{number}]", block) for number, block in enumerate(study.sweep.also)]
    return [(name, block) for name, block in named if block.names_trials] or named[:1]


def trial_id(parameters: Mapping[str, Any]) -> str:
    """Id of a combination: it depends on keys and values only, not on their order or neighbours."""
    return json_sha256(parameters)[:8]


def swept_keys(found: Iterable[Trial]) -> list[str]:
    """All keys that some trial names, in the order in which they are named first."""
    return list(dict.fromkeys(key for trial in found for key in trial.parameters))


def parameters_of(found: Sequence[Trial]) -> dict[str, dict[str, Any]]:
    """Trial id -> swept dotted key -> value, for all keys that some trial names.

    Where a trial does not name a key itself, its value is that of the study.
    """
    keys = swept_keys(found)
    return {trial.id: {key: setting(trial.study, key) for key in keys} for trial in found}


def differing_keys(found: Sequence[Trial]) -> list[str]:
    """The swept keys that have more than one value: what distinguishes the trials of a study."""
    values = list(parameters_of(found).values())
    return [key for key in swept_keys(found) if len({repr(own[key]) for own in values}) > 1]


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Dotted key -> its last part, as ``lr``; the key itself where two of them end alike."""
    keys = list(keys)
    last = {key: key.rpartition(".")[2] for key in keys}
    return {key: key if list(last.values()).count(last[key]) > 1 else last[key] for key in keys}


def trial_label(parameters: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The label shown instead of a trial's id, as ``lr 0.03, seed 1``; ``base`` without keys.

    A value that names its key stands alone, as ``schedule-free``. ``keys`` are in order those
    that distinguish a study's trials (``differing_keys``); what a trial lacks is left out.
    """
    short = short_keys(keys)
    named = {short[key]: shown(parameters[key]) for key in keys if key in parameters}
    parts = (value if key in value else f"{key} {value}" for key, value in named.items())
    return ", ".join(parts) or "base"


def trial_labels(found: Sequence[Trial]) -> dict[str, str]:
    """Trial id -> its label, for all trials of a study."""
    keys = differing_keys(found)
    return {trial: trial_label(values, keys) for trial, values in parameters_of(found).items()}


def shown(value: Any) -> str:
    """A setting as in a study file."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def readable(parameters: Mapping[str, Any]) -> str:
    """A name for files, as ``lr=0.01,loss=dice``; ``base`` if nothing is swept."""
    parts = (f"{key.rpartition('.')[2]}={value}" for key, value in parameters.items())
    return ",".join(parts).replace("/", "-").replace(" ", "") or "base"


def model_labels(study: Study, models: Iterable[str]) -> dict[str, str]:
    """Model of a trial (its id, or its id and a folder below it) -> label: ``lr 0.03, raw-1``."""
    labels = trial_labels(trials(study))
    found = {}
    for model in models:
        trial, _, name = model.partition("/")
        if trial not in labels:
            # A model that was not trained here is called by its own name.
            continue
        found[model] = f"{labels[trial]}, {name}" if name else labels[trial]
    return found


def named(model: str, labels: Mapping[str, str]) -> str:
    """A model with its id, by which its files are found: ``lr 0.03, seed 1 (0a1b2c3d)``."""
    return f"{labels[model]} ({model})" if model in labels else model


def _one_of(alike: list[Trial], results: Path) -> Trial:
    """The one kept of several trials of the same settings (see ``trials``)."""

    def rank(trial: Trial) -> tuple[bool, int, str]:
        return not _is_begun(results, trial.id), len(trial.parameters), trial.id

    return min(alike, key=rank) if len(alike) > 1 else alike[0]


def _is_begun(results: Path, trial: str) -> bool:
    # The states too: Snakemake removes the results of a trial before it runs again.
    places = (f"fold*/trials/{trial}", f".state/fold*/trials/{trial}")
    return any(next(results.glob(place), None) is not None for place in places)


class _Sections:
    """Sections with swept values in place, each checked once: trials share most of them."""

    def __init__(self, study: Study, where: str) -> None:
        self.study, self.where = study, where
        self._known: dict[str, tuple[str, Section]] = {}

    def with_values(self, combination: Combination, name: str) -> tuple[str, Study]:
        """Text of the settings that trials may differ in, and the study that has them."""
        texts, sections = [], {}
        for section in SWEPT_SECTIONS:
            own = {
                key.partition(".")[2]: value
                for key, value in combination.items()
                if key.partition(".")[0] == section
            }
            text, sections[section] = self._section(section, own, name)
            texts.append(text)
        return "".join(texts), self.study.model_copy(update=sections)

    def _section(self, name: str, values: dict[str, Any], block: str) -> tuple[str, Section]:
        text = json.dumps([name, values], sort_keys=True)
        if text not in self._known:
            base = getattr(self.study, name).model_dump()
            try:
                section = SWEPT_SECTIONS[name].model_validate(base | values)
            except ValidationError as error:
                shown = ", ".join(f"`{name}.{key}: {value}`" for key, value in values.items())
                where = f"{self.where} ({block}, trials with {shown})"
                raise wrong_settings(error, where, name) from error
            self._known[text] = section.model_dump_json(), section
        return self._known[text]


def long_run_epochs(study: Study, trials: Sequence[Trial]) -> int:
    """Epochs of stem, trials and finish of a fold together."""
    finish = len(study.soup.finish.rates) * finish_epochs(study) if study.soup.finish else 0
    return _chosen_from_epochs(study, trials) + finish


def training_steps(study: Study, trials: Sequence[Trial], recipe: str) -> int:
    """Optimizer steps per fold that a compared model costs, as planned: ``best``, a soup, ...

    A single model or a soup is chosen among all trials, so that all of them are its cost. Those
    of a finish are the steps of each of its rates.
    """
    epochs = _chosen_from_epochs(study, trials)
    if recipe in (FINISHED, FINISHED_BEST, LONG_RUN):
        epochs = long_run_epochs(study, trials)
    return epochs * study.training.steps_per_epoch


def _chosen_from_epochs(study: Study, trials: Sequence[Trial]) -> int:
    """Epochs of a fold's stem and of all its trials, those that a halving leaves."""
    stem = study.stem.epochs if study.stem.source == "train" else 0
    of_trials = sum(trial.study.training.epochs for trial in trials)
    if study.sweep.halving is not None:
        share = share_of_epochs(study.sweep.halving, study.training.epochs, len(trials))
        of_trials = round(share * of_trials)
    return stem + of_trials
