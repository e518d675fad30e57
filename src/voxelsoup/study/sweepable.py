"""Which settings may be swept, and which values each of them takes."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_args

from pydantic import TypeAdapter, ValidationError

from voxelsoup.common.errors import InputError
from voxelsoup.study.loading import wrong_settings
from voxelsoup.study.sections.base import Section
from voxelsoup.study.sections.training import Optimizer, Training
from voxelsoup.study.study import Study

SWEPT_SECTIONS: dict[str, type[Section]] = {"optimizer": Optimizer, "training": Training}
NOT_SWEPT = {
    "training.patch": "the preprocessed volumes, which all trials share, are padded to it; "
    "`configurations` may differ in it",
    "training.mirror_axes": "test-time flips follow it, and soups average models of one kind",
    "training.checkpoints": "the files of all trials have the same names",
    "training.device": "it says where a run trains, not how",
    "training.channels_last": "it says how a run is laid out in memory, not how it trains",
    "training.compile": "it says how a run computes, not how it trains",
    "training.gradient_checkpointing": "it changes no result",
    "training.workers": "it says how a run reads its patches, not how it trains",
    "training.watchdog": "it says when a run that hangs is ended, not how it trains",
}
SEED = "training.seed"


def check_sweepable(key: str, part: str, where: str) -> None:
    """Make sure that trials may differ in a setting, which ``part`` (``sweep.grid``) names.

    Raises:
        InputError: if they may not.
    """
    section, _, name = key.partition(".")
    if section == "network":
        raise InputError(
            where,
            f"`{part}` names `{key}`",
            "settings that leave the shapes of the weights alone",
            "models of different networks cannot be averaged into one soup; "
            "declare each network as one of the study's `configurations`",
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
            f"`{part}` names `{key}`, which cannot be swept{reason}",
            f"one of {', '.join(allowed)}",
            "take it out of the sweep, or correct the key",
        )


def canonical(key: str, value: Any, part: str, where: str) -> Any:
    """The value as its section keeps it, so that 1e-3, 0.001 and "0.001" are one.

    Raises:
        InputError: if the setting cannot have this value.
    """
    try:
        return _adapter(key).validate_python(value)
    except ValidationError as error:
        raise wrong_settings(error, f"{where} ({part})", *key.split(".")) from error


def number_type(key: str) -> type[int] | type[float] | None:
    """Whether a setting is an integer, a number, or none."""
    section, _, name = key.partition(".")
    annotation = SWEPT_SECTIONS[section].model_fields[name].annotation
    kinds = {annotation, *get_args(annotation)}
    return int if int in kinds and annotation is int else float if float in kinds else None


def setting(study: Study, key: str) -> Any:
    """The value that a study gives a dotted key of the swept sections."""
    section, _, name = key.partition(".")
    return getattr(getattr(study, section), name)


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    section, _, name = key.partition(".")
    field = SWEPT_SECTIONS[section].model_fields[name]
    checked: Any = Annotated[field.annotation, field]
    return TypeAdapter(checked)
