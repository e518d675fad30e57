"""What may be concluded from a difference, in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from voxelsoup.common.text import counted
from voxelsoup.comparison.names import POINTS
from voxelsoup.comparison.statistics import Difference

SIGNIFICANT = 0.05
MOST_DECIMALS = 3


def conclusion(first: str, second: str, difference: Difference, p: float) -> str:
    """One sentence, without a full stop, on what may be concluded from a difference in Dice.

    The difference is first minus second, its p value adjusted for the comparisons made. One model
    is called better only if the interval leaves out 0 and the p value is below 0.05.
    """
    if not difference.cases:
        return f"no case to compare {first} and {second} on"
    if not difference.unequal:
        cases = f"all {difference.cases} cases" if difference.cases > 1 else "the only case"
        return f"{first} and {second} score the same on {cases}"
    points = [POINTS * value for value in (difference.mean, difference.low, difference.high)]
    cases, folds = counted(difference.cases, "case", "1"), counted(difference.folds, "fold", "1")
    evidence = f"{_shown_p(p)}, {cases}, {folds}"
    if (difference.low > 0 or difference.high < 0) and p < SIGNIFICANT:
        # As an amount: the interval turns with its sign.
        if difference.mean > 0:
            return f"{first} better than {second} by {_amount(points)}, {evidence}"
        mean, low, high = points
        return f"{first} worse than {second} by {_amount([-mean, -high, -low])}, {evidence}"
    doubt = _too_few(difference)
    return (
        f"no difference shown between {first} and {second} "
        f"({_amount(points, signed=True)}, {evidence}{doubt})"
    )


def _too_few(difference: Difference) -> str:
    def undecided(cases: int) -> bool:
        # All of them in favour of one model is the most that can happen, whatever the folds.
        return 2 * 0.5**cases >= SIGNIFICANT

    if undecided(difference.cases):
        return "; too few cases to tell"
    return "; too few cases differ to tell" if undecided(difference.unequal) else ""


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


def _shown_p(p: float) -> str:
    if p < 0.001:
        return "p < 0.001"
    digits = 1 if p < 0.01 else 2
    # 0.0499 must not be shown as 0.05, which would not do.
    while (float(f"{p:.{digits}g}") < SIGNIFICANT) != (p < SIGNIFICANT):
        digits += 1
    return f"p = {p:.{digits}g}"
