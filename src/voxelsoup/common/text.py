"""Numbers, lists and near misses in sentences that hold for any study."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

THOUSAND, MILLION = 1_000, 1_000_000


def counted(number: int, noun: str, one: str = "one") -> str:
    """``one case``, ``2 cases``, ``30 cases``; among other numbers ``one="1"`` reads better."""
    if number == 1:
        return f"{one} {noun}"
    ending = "ies" if noun.endswith("y") and noun[-2] not in "aeiou" else "s"
    return f"{number:,} {noun.removesuffix('y') if ending == 'ies' else noun}{ending}"


def counted_range(numbers: Sequence[int], noun: str) -> str:
    """``4 cases``, or ``4 to 6 cases`` where they differ, or ``4 or 5 cases``."""
    lowest, highest = min(numbers), max(numbers)
    if lowest == highest:
        return counted(lowest, noun)
    return f"{lowest:,} {'or' if highest == lowest + 1 else 'to'} {counted(highest, noun)}"


def listed(parts: Iterable[object], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *others, final = [str(part) for part in parts]
    return f"{', '.join(others)} {last} {final}" if others else final


def times(sides: Sequence[float]) -> str:
    """``128 × 128 × 64``."""
    return " × ".join(f"{side:g}" for side in sides)


def magnitude(number: int) -> str:
    """``950``, ``12,345``, ``10.5 million``."""
    return f"{number / MILLION:.1f} million" if number >= MILLION else f"{number:,}"


def percent(share: float) -> str:
    """``33 %``."""
    return f"{100 * share:g} %"


def plain(value: object) -> str:
    """A number, a text or a list of them, without needless digits: ``0.01``, ``(8, 16)``."""
    if value is None:
        return "not set"
    if isinstance(value, list):
        return "(" + ", ".join(map(plain, value)) + ")"
    return f"{value:g}" if isinstance(value, float) else str(value)


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """``; did you mean `nearest`?``, or nothing where no known name is near."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"; did you mean `{near[0]}`?" if near else ""
