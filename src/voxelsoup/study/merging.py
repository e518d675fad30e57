"""Settings merged into others, as Snakemake merges study files."""

from __future__ import annotations

from typing import Any


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with others in place; mappings are merged, all else is replaced."""
    both = dict(config)
    for key, value in changes.items():
        before = both.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            value = merged(before, value)
        both[key] = value
    return both
