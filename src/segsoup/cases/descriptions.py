"""The ``dataset.json`` that the Decathlon and nnU-Net put beside their images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segsoup.errors import InputError


def read_description(root: Path) -> dict[str, Any]:
    """Read ``dataset.json``.

    Raises:
        InputError: if it is missing or is no JSON object.
    """
    path = root / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            path,
            "no such file",
            "the data set's dataset.json",
            "point `dataset.root` at the folder that holds it, or correct `dataset.layout`",
        ) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(path, f"is not JSON: {error}", "a JSON file", "mend the file") from error
    if not isinstance(content, dict):
        raise InputError(path, "is no JSON object", "a JSON object", "mend the file")
    return content


def check_channel_count(path: Path, found: int, channels: list[str]) -> None:
    """Make sure that the study names as many channels as the data set has.

    Raises:
        InputError: if it does not.
    """
    if found != len(channels):
        raise InputError(
            path,
            f"describes {found} channel(s), and the study names {len(channels)}: {channels}",
            "one name per channel, in the order of the file",
            "correct `dataset.channels` in the study",
        )


def inside(root: Path, entry: object, where: Path) -> Path:
    """A path that ``dataset.json`` names, as long as it stays in the data set's folder.

    Raises:
        InputError: if it leads elsewhere.
    """
    path = root / str(entry)
    if not isinstance(entry, str) or not path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            where,
            f"names {entry!r}",
            f"a file inside {root}",
            "correct the entry; files outside of the data set's folder are not read",
        )
    return path
