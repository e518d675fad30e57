"""What may be concluded from a difference, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxelsoup.common.text import counted
from voxelsoup.comparison.names import POINTS
from voxelsoup.comparison.statistics import SIGNIFICANT, Difference, smallest_p

MOST_DECIMALS = 3


def conclusion(
    first: str,
    second: str,
    difference: Difference,
    p: float,
    level: float = SIGNIFICANT,
    usual: Difference | None = None,
    block: str = "fold",
) -> str:
    """One sentence, without a full stop, on what may be concluded from a difference in Dice.

    One model is called better if and only if the interval leaves out 0.

    Args:
        difference: first minus second, with the interval of the level.
        p: its p value; of a secondary comparison, adjusted for the others.
        level: that the comparison is tested at.
        usual: the same difference with its 95 % interval, where that is another one.
        block: what patients were resampled within.
    """
    if not difference.cases:
        return f"no case to compare {first} and {second} on"
    if not difference.unequal:
        cases = f"all {difference.cases} cases" if difference.cases > 1 else "the only case"
        return f"{first} and {second} score the same on {cases}"
    mean, low, high = _points(difference)
    shown = "" if level == SIGNIFICANT or math.isnan(low) else f" ({confidence(level)})"
    evidence = ", ".join([*_shown_p(p), _cases(difference), counted(difference.folds, block, "1")])
    if difference.leaves_out_zero:
        # As an amount: the interval turns with its sign.
        if mean > 0:
            return (
                f"{first} better than {second} by {_amount((mean, low, high))}{shown}, {evidence}"
            )
        return f"{first} worse than {second} by {_amount((-mean, -high, -low))}{shown}, {evidence}"
    return (
        f"no difference shown between {first} and {second} "
        f"({_amount((mean, low, high), signed=True)}{shown}, {evidence}"
        f"{_too_few(difference, level)}{_only_by_itself(usual)})"
    )


def confidence(level: float) -> str:
    """The interval that a level tests by: ``98.75 % interval``."""
    return f"{100 * (1 - level):.4g} % interval"


def _points(difference: Difference) -> tuple[float, float, float]:
    return POINTS * difference.mean, POINTS * difference.low, POINTS * difference.high


def _cases(difference: Difference) -> str:
    cases = counted(difference.cases, "case", "1")
    if difference.patients == difference.cases:
        return cases
    return f"{cases} of {counted(difference.patients, 'patient', '1')}"


def _too_few(difference: Difference, level: float) -> str:
    if smallest_p(difference.patients) >= level:
        return "; too few cases to tell"
    return "; too few cases differ to tell" if smallest_p(difference.unequal) >= level else ""


def _only_by_itself(usual: Difference | None) -> str:
    """Why no difference is shown beside a 95 % interval, in another table, that leaves out 0."""
    if usual is None or not usual.leaves_out_zero:
        return ""
    _, low, high = _amount(_points(usual)).partition(" [")
    return f"; the 95 % interval{low}{high} leaves out 0, but is not corrected for the others"


def _amount(points: Sequence[float], signed: bool = False) -> str:
    """Mean and interval with as few decimals as keep them apart from 0 and from each other."""
    mean, low, high = points
    known = {number for number in points if not math.isnan(number)}
    finest = 10.0**-MOST_DECIMALS
    if max(map(abs, known)) < finest / 2:
        return f"less than {finest:.{MOST_DECIMALS}f} Dice points"

    def shows_all(decimals: int) -> bool:
        shown = {round(number, decimals) for number in known}
        return len(shown) == len(known) and (0 in known or 0 not in shown)

    decimals = next(filter(shows_all, range(1, MOST_DECIMALS)), MOST_DECIMALS)
    sign = "+" if signed and round(mean, decimals) > 0 else ""
    amount = f"{sign}{mean:z.{decimals}f} Dice points"
    return amount if math.isnan(low) else f"{amount} [{low:z.{decimals}f}, {high:z.{decimals}f}]"


def _shown_p(p: float) -> list[str]:
    if math.isnan(p):
        return []
    if p < 0.001:
        return ["p < 0.001"]
    digits = 1 if p < 0.01 else 2
    # 0.0499 must not be shown as 0.05, which would not do.
    while (float(f"{p:.{digits}g}") < SIGNIFICANT) != (p < SIGNIFICANT):
        digits += 1
    return [f"p = {p:.{digits}g}"]
