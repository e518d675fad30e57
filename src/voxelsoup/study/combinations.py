"""From one block of a sweep to the combinations of values that it names."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.study.random_samples import draw_samples
from voxelsoup.study.sections.sweep import SweepBlock
from voxelsoup.study.study import Study
from voxelsoup.study.sweepable import SEED, canonical, check_sweepable, number_type, setting

# Dotted key -> value.
Combination = dict[str, Any]


def combinations(study: Study, block: SweepBlock, name: str, where: str) -> list[Combination]:
    """All combinations that a block names, in its order; the empty one if it has no axis.

    ``name`` is the block's place in the study, as ``sweep.also[0]``; ``where`` the study file.

    Raises:
        InputError: if a key cannot be swept, a value is not allowed for its key, a combination is
            named twice by the axes or twice by the single trials, or an exclusion matches nothing.
    """
    found: list[Combination] = []
    if block.axis_keys:
        found += _different(_of_axes(block, name, where), _axes_name(block, name), where)
    part = f"{name}.trials"
    found += _different([_canonical(single, part, where) for single in block.trials], part, where)
    repeated = [
        combination | ({SEED: study.training.seed + number} if number else {})
        for combination in found or [{}]
        for number in range(block.repeats)
    ]
    return _without_excluded(study, block, repeated, f"{name}.exclude", where)


def _of_axes(block: SweepBlock, name: str, where: str) -> list[Combination]:
    axes: list[Sequence[Combination]] = []
    for key, values in block.grid.items():
        axes.append([_canonical({key: value}, f"{name}.grid", where) for value in values])
    for together in block.zip:
        points = zip(*together.values(), strict=True)
        rows = [dict(zip(together, point, strict=True)) for point in points]
        axes.append([_canonical(row, f"{name}.zip", where) for row in rows])
    if block.random is not None:
        part = f"{name}.random"
        for key in block.random.axes:
            check_sweepable(key, part, where)
        axes.append(draw_samples(block.random, part, where))
    return [
        {key: value for part in parts for key, value in part.items()}
        for parts in itertools.product(*axes)
    ]


def _axes_name(block: SweepBlock, name: str) -> str:
    """What to call the axes of a block: their only kind, or the block."""
    kinds = [kind for kind in ("grid", "zip", "random") if getattr(block, kind)]
    return f"{name}.{kinds[0]}" if len(kinds) == 1 else name


def _canonical(combination: Combination, part: str, where: str) -> Combination:
    for key in combination:
        check_sweepable(key, part, where)
    return {key: canonical(key, value, part, where) for key, value in combination.items()}


def _different(found: list[Combination], part: str, where: str) -> list[Combination]:
    seen = set()
    for combination in found:
        text = json.dumps(combination, sort_keys=True)
        if text in seen:
            raise InputError(
                where,
                f"`{part}` names the combination {combination} twice",
                "every combination once",
                "remove the repeated value or trial",
            )
        seen.add(text)
    return found


def _without_excluded(
    study: Study, block: SweepBlock, found: list[Combination], part: str, where: str
) -> list[Combination]:
    """Those that no exclusion matches; keys that a combination does not name count too."""
    excluded: set[int] = set()
    for number, entry in enumerate(block.exclude):
        place = f"{part}[{number}]"
        tests = {key: _test(key, given, place, where) for key, given in entry.items()}
        matched = {
            index
            for index, combination in enumerate(found)
            if all(
                test(combination[key] if key in combination else setting(study, key))
                for key, test in tests.items()
            )
        }
        if not matched:
            raise InputError(
                where,
                f"`{place}` matches no trial: {entry}",
                "exclusions that leave something out",
                "correct its keys and values, or remove it",
            )
        excluded |= matched
    if len(excluded) == len(found):
        raise InputError(
            where,
            f"`{part}` leaves out all {len(found)} trials of its block",
            "exclusions that leave some trials",
            "exclude less, or remove the block",
        )
    return [combination for index, combination in enumerate(found) if index not in excluded]


def _test(key: str, given: Any, part: str, where: str) -> Callable[[Any], bool]:
    """Whether a value is one of those that an exclusion names."""
    check_sweepable(key, part, where)
    if isinstance(given, dict):
        return _range_test(key, given, part, where)
    values = given if isinstance(given, list) else [given]
    allowed = [canonical(key, value, part, where) for value in values]
    return lambda value: value in allowed


def _range_test(key: str, given: dict[str, Any], part: str, where: str) -> Callable[[Any], bool]:
    try:
        ends = {name: float(value) for name, value in given.items()}
    except (TypeError, ValueError):
        ends = {}
    if not ends or not ends.keys() <= {"above", "below"} or number_type(key) is None:
        raise InputError(
            where,
            f"`{part}` gives `{key}` as {given}",
            "a value, a list of values, or for a number `{above: x}` or `{below: x}`",
            "correct the exclusion",
        )
    above, below = ends.get("above", float("-inf")), ends.get("below", float("inf"))
    return lambda value: value is not None and above < value < below
