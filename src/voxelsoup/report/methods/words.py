"""What a paper calls settings and their values, and the papers it cites: ``words.toml``."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any

from voxelsoup.common.text import plain

WORDS: dict[str, Any] = tomllib.loads(
    files("voxelsoup.report.methods").joinpath("templates/words.toml").read_text(encoding="utf-8")
)


def setting_name(key: str) -> str:
    """What a paper calls a dotted key."""
    return str(WORDS["settings"].get(key, key))


def value_name(key: str, value: Any) -> str:
    """What a paper calls a value of a dotted key."""
    return str(WORDS["values"].get(key, {}).get(str(value), plain(value)))
