"""Random samples of settings that stay the same when more of them are asked for.

A value depends on the seed, the number of its sample and its key alone, by a hash: neither the
order of the axes nor a later version of a random number generator moves it, for a trial's id is
made from it. Of several choices the one with the highest hash is taken, so that a further choice
changes only the samples that take it.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.study.sections.sweep import Distribution, RandomSamples
from voxelsoup.study.sweepable import canonical, number_type

SIGNIFICANT_DIGITS = 4
# Of so many draws per sample none that is possible stays out, however many equal choices there are.
DRAWS_PER_SAMPLE, SPARE_DRAWS = 100, 1000


def draw_samples(asked: RandomSamples, part: str, where: str) -> list[dict[str, Any]]:
    """Draw different samples: dotted key -> value, each.

    ``part`` is their place in the study, as ``sweep.random``; ``where`` the study file.

    Raises:
        InputError: if a setting cannot have such values, or there are not so many different ones.
    """
    axes = {
        key: _checked(key, distribution, values, part, where)
        for key, drawn in asked.axes.items()
        for distribution, values in drawn.items()
    }
    found: dict[str, dict[str, Any]] = {}
    for number in range(DRAWS_PER_SAMPLE * asked.count + SPARE_DRAWS):
        sample = {
            key: canonical(key, _draw(asked.seed, number, key, *axis), part, where)
            for key, axis in axes.items()
        }
        found.setdefault(json.dumps(sample, sort_keys=True), sample)
        if len(found) == asked.count:
            return list(found.values())
    raise InputError(
        where,
        f"`{part}` asks for {asked.count} samples, but only {len(found)} different ones were found",
        "as many samples as there are different combinations, or fewer",
        f"set `count` to at most {len(found)}, or add values to the axes",
    )


def _checked(
    key: str, distribution: Distribution, values: list[Any], part: str, where: str
) -> tuple[Distribution, list[Any]]:
    """The values of an axis, as the setting keeps them."""
    if distribution == "choice":
        return distribution, [canonical(key, value, part, where) for value in values]
    number = number_type(key)
    if number is None:
        raise InputError(
            where,
            f"`{part}` draws `{key}` from a `{distribution}` range, but it is not a number",
            "`choice` for settings that are not numbers",
            f"write `{key}: {{choice: [...]}}`",
        )
    low, high = values
    if number is int:
        low, high = math.ceil(low), math.floor(high)
        if low > high:
            raise InputError(
                where,
                f"`{part}` draws `{key}` from {values}, which contains no integer",
                "a range that contains an integer",
                "make the range wider",
            )
    # A value that the setting cannot have is reported of the ends, not of what is drawn between.
    return distribution, [canonical(key, end, part, where) for end in (low, high)]


def _draw(seed: int, number: int, key: str, distribution: Distribution, values: list[Any]) -> Any:
    if distribution == "choice":
        return max(values, key=lambda value: _hash(seed, number, key, value))
    low, high = values
    share = _hash(seed, number, key) / 2**64
    is_int = number_type(key) is int
    if distribution == "uniform":
        # All integers are equally likely, the ends too.
        drawn = low + math.floor(share * (high - low + 1)) if is_int else low + share * (high - low)
    else:
        drawn = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
    rounded = round(drawn) if is_int else float(f"{drawn:.{SIGNIFICANT_DIGITS}g}")
    return min(max(rounded, low), high)


def _hash(*parts: Any) -> int:
    """A number below 2**64, as good as random."""
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:8])
