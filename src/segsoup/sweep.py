"""From a sweep to trials with ids that stay."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from segsoup.errors import InputError
from segsoup.study import Optimizer, Section, Study, Training, load

SWEPT_SECTIONS: dict[str, type[Section]] = {"optimizer": Optimizer, "training": Training}
NOT_SWEPT = {
    "training.patch": "the preprocessed volumes, which all trials share, are padded to it",
    "training.checkpoints": "the files of all trials have the same names",
    "training.device": "it says where a run trains, not how",
    "training.workers": "it says how a run reads its patches, not how it trains",
}


@dataclass(frozen=True)
class Trial:
    """One hyperparameter combination of a sweep.

    Attributes:
        id: eight hexadecimal digits made from the swept keys and values alone.
        parameters: swept dotted key -> value.
        study: the study with those values in place.
    """

    id: str
    parameters: dict[str, Any]
    study: Study


def trials(study: Study, where: str = "config.yaml") -> list[Trial]:
    """All trials of a study, in the order of its grid; one trial if nothing is swept.

    Args:
        study: the checked study.
        where: name of its file, for error messages.

    Raises:
        InputError: if a key cannot be swept or a value is not allowed for its key.
    """
    for key in study.sweep.grid:
        _check_sweepable(key, where)
    found: dict[str, Trial] = {}
    for values in itertools.product(*study.sweep.grid.values()):
        trial = _make(study, dict(zip(study.sweep.grid, values, strict=True)), where)
        if trial.id in found:
            raise InputError(
                where,
                f"`sweep.grid` names the combination {trial.parameters} twice",
                "every value of an axis once",
                "remove the repeated value",
            )
        found[trial.id] = trial
    return list(found.values())


def trial_id(parameters: dict[str, Any]) -> str:
    """Id of a combination: it hangs on keys and values only, not on their order or neighbours."""
    canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def readable(parameters: dict[str, Any]) -> str:
    """A name for people and files, as ``lr=0.01,loss=dice``; ``base`` if nothing is swept."""
    parts = (f"{key.rpartition('.')[2]}={value}" for key, value in parameters.items())
    return ",".join(parts).replace("/", "-").replace(" ", "") or "base"


def model_names(study: Study, models: Iterable[str]) -> dict[str, str]:
    """Model of a trial (its id, or its id and a folder below it) -> both with its settings."""
    swept = {trial.id: readable(trial.parameters) for trial in trials(study)}
    return {model: f"{model} {swept[model.partition('/')[0]]}" for model in models}


def _check_sweepable(key: str, where: str) -> None:
    section, _, name = key.partition(".")
    if section == "network":
        raise InputError(
            where,
            f"`sweep.grid` names `{key}`",
            "settings that leave the shapes of the weights alone",
            "models of different networks cannot be averaged into one soup; "
            "declare one study per network instead",
        )
    model = SWEPT_SECTIONS.get(section)
    if model is None or name not in model.model_fields or key in NOT_SWEPT:
        allowed = [
            f"{prefix}.{field}"
            for prefix, swept in SWEPT_SECTIONS.items()
            for field in swept.model_fields
            if f"{prefix}.{field}" not in NOT_SWEPT
        ]
        reason = f", and {NOT_SWEPT[key]}" if key in NOT_SWEPT else ""
        raise InputError(
            where,
            f"`sweep.grid` names `{key}`, which cannot be swept{reason}",
            f"one of {', '.join(allowed)}",
            "take it out of the sweep, or correct the key",
        )


def _make(study: Study, assignment: dict[str, Any], where: str) -> Trial:
    config = study.model_dump(mode="json")
    for key, value in assignment.items():
        section, _, name = key.partition(".")
        config[section][name] = value
    checked = load(config, f"{where} (sweep.grid)")
    # Read back what was checked, so that 1e-3, 0.001 and "0.001" are one trial.
    settings = checked.model_dump(mode="json")
    parameters = {key: settings[key.partition(".")[0]][key.partition(".")[2]] for key in assignment}
    return Trial(trial_id(parameters), parameters, checked)
