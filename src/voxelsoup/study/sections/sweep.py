"""Section ``sweep``: what the trials of a study differ in, and which of them train to the end."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from voxelsoup.study.sections.base import Section, only_if_not

OnDiverged = Literal["stop", "skip"]
Distribution = Literal["uniform", "log-uniform", "choice"]


class Halving(Section):
    """Successive halving: all trials begin, and at each rung only the best continue."""

    rungs: int = Field(2, ge=2, description="Number of rungs; the last one is the end of the run.")
    keep: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Share of a fold's trials, rounded up, that continue after a rung, by their "
        "mean Dice on the selection cases. Each rung ends after this share of the "
        "epochs of the next one.",
    )


class RandomSamples(Section):
    """Random values of several settings, drawn together."""

    count: int = Field(..., ge=1, description="Number of samples; all of them differ.")
    seed: int = Field(
        0, ge=0, description="Seed of the samples; a higher `count` keeps the first ones."
    )
    axes: dict[str, dict[Distribution, list[Any]]] = Field(
        ...,
        min_length=1,
        description="Dotted keys, each with how it is drawn: `{uniform: [low, high]}`, "
        "`{log-uniform: [low, high]}` (numbers have four significant digits, and are "
        "integers where the setting is one) or `{choice: [...]}`, in which all values "
        "are equally likely.",
    )

    @field_validator("axes")
    @classmethod
    def _distributions_are_complete(
        cls, value: dict[str, dict[Distribution, list[Any]]]
    ) -> dict[str, dict[Distribution, list[Any]]]:
        for key, drawn in value.items():
            if len(drawn) != 1:
                raise ValueError(f"`{key}` needs one of `uniform`, `log-uniform` and `choice`")
            ((distribution, values),) = drawn.items()
            if distribution == "choice" and not values:
                raise ValueError(f"`{key}` has no values to choose from")
            if distribution != "choice":
                drawn[distribution] = list(_range(key, distribution, values))
        return value


def _range(key: str, distribution: Distribution, values: list[Any]) -> tuple[float, float]:
    """The ends of a range, which YAML gives as text where they are written as 1e-4."""
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{key}`: `{distribution}` needs two numbers, [low, high]") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"`{key}`: of `{distribution}: [low, high]` the first must be lower")
    if distribution == "log-uniform" and low <= 0:
        raise ValueError(f"`{key}`: `log-uniform` needs numbers above 0")
    return low, high


def _as_list(value: Any) -> Any:
    """One axis that moves several keys may be given without a list around it."""
    return [value] if isinstance(value, dict) else value


ZipAxis = Annotated[dict[str, list[Any]], Field(min_length=1)]


class SweepBlock(Section):
    """Some trials: all combinations of axes, and single ones."""

    grid: dict[str, list[Any]] = Field(
        default_factory=dict,
        description="Dotted keys of the sections `optimizer` and `training`, each with its "
        "values; every combination is a trial.",
    )
    zip: Annotated[
        list[ZipAxis], BeforeValidator(_as_list, json_schema_input_type=list[ZipAxis] | ZipAxis)
    ] = Field(
        default_factory=list,
        description="Axes that move several keys together: mappings (or a single one) of keys to "
        "values. The first values belong together, the second ones belong together, "
        "and so on.",
    )
    random: RandomSamples | None = Field(
        None, description="Random samples: one more axis, with one point per sample."
    )
    trials: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Single trials in addition to the combinations of the axes: mappings of keys "
        "to one value each, which may name different keys.",
    )
    exclude: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Mappings of keys to a value, a list of values, `{above: x}` or `{below: x}`; "
        "a trial of this block that agrees with all keys of one of them is left out.",
    )
    repeats: int = Field(
        1,
        ge=1,
        description="Number of seeds of each trial, from `training.seed` upward; the first one is "
        "the trial without repeats.",
    )

    @field_validator("grid", "zip")
    @classmethod
    def _axes_have_values(cls, value: Any) -> Any:
        for axis in value if isinstance(value, list) else [value]:
            for key, values in axis.items():
                if not values:
                    raise ValueError(f"`{key}` has no values, so the sweep has no trials")
        return value

    @field_validator("zip")
    @classmethod
    def _values_belong_together(cls, value: list[dict[str, list[Any]]]) -> Any:
        for axis in value:
            lengths = {key: len(values) for key, values in axis.items()}
            if len(set(lengths.values())) > 1:
                counts = ", ".join(f"`{key}` has {count}" for key, count in lengths.items())
                raise ValueError(f"keys that move together need as many values: {counts}")
        return value

    @field_validator("exclude")
    @classmethod
    def _exclusions_name_keys(cls, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for entry in value:
            if not entry:
                raise ValueError("an entry names no key, so it would leave out everything")
        return value

    @model_validator(mode="after")
    def _no_key_has_two_axes(self) -> SweepBlock:
        keys = self.axis_keys
        twice = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
        if twice:
            raise ValueError(
                f"`{twice[0]}` has two axes; leave one of them out, or move it to `also`"
            )
        named = [*keys, *(key for trial in self.trials for key in trial)]
        if self.repeats > 1 and "training.seed" in named:
            raise ValueError("`repeats` gives the seeds; leave it out, or `training.seed`")
        if self.exclude and not self.names_trials:
            raise ValueError("`exclude` has no trials to leave out")
        return self

    @property
    def axis_keys(self) -> list[str]:
        """The keys of all axes, in their order."""
        together = [key for axis in self.zip for key in axis]
        return [*self.grid, *together, *(self.random.axes if self.random else {})]

    @property
    def names_trials(self) -> bool:
        """Whether it names any trial beside the one that the study's own settings make."""
        return bool(self.axis_keys or self.trials or self.repeats > 1)


class Sweep(SweepBlock):
    """The settings in which the trials of a study differ."""

    also: list[SweepBlock] = Field(
        default_factory=list,
        description="Further sweeps of the same study, each with the keys from `grid` to "
        "`repeats`. A trial that several of them name is one trial.",
    )
    halving: Halving | None = Field(
        None,
        description="Train all trials to the first rung only, keep the best of each fold, and "
        "continue with those, rung by rung; null trains all trials to their end. For "
        "schedule-free trials.",
    )
    on_diverged: OnDiverged = Field(
        "skip",
        exclude_if=only_if_not("skip"),
        description="What becomes of a trial whose loss or weights are NaN or infinite, and are "
        "again after it went back to its last good state: `skip` leaves it out of "
        "everything that is made of trials, as long as two of the fold are left, and lists it as "
        "diverged; `stop` ends the study.",
    )
