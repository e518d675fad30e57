"""Checks that keep a test from passing because there was nothing to check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def nonempty(items: Iterable[Item]) -> list[Item]:
    """The items, of which there must be at least one."""
    found = list(items)
    assert found, "nothing to check"
    return found
