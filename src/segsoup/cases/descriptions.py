"""The ``dataset.json`` that the Decathlon and nnU-Net put beside their images."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
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
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON: {error}", "a JSON file", "mend the file") from error
    if not isinstance(content, dict):
        raise InputError(path, "is no JSON object", "a JSON object", "mend the file")
    return content


def check_channel_count(path: Path, described: object, channels: list[str]) -> None:
    """Make sure that the study names as many channels as the data set has.

    Args:
        path: the file that describes the channels.
        described: what it says of them: number -> name.
        channels: the study's names.

    Raises:
        InputError: if the numbers differ, or if nothing of this form is described.
    """
    if not isinstance(described, dict | list):
        raise InputError(
            path,
            f"describes its channels as {described!r}",
            "an object with one entry per channel (`modality` or `channel_names`)",
            "mend the file",
        )
    if len(described) != len(channels):
        raise InputError(
            path,
            f"describes {len(described)} channel(s), and the study names {len(channels)}: "
            f"{channels}",
            "one name per channel, in the order of the file",
            "correct `dataset.channels` in the study",
        )


def inside(root: Path, entry: object, where: Path) -> Path:
    """A path that ``dataset.json`` names, as long as it stays in the data set's folder.

    Links are followed: whoever put them into the folder wants the files that they lead to, while
    ``dataset.json`` may come from anyone.

    Raises:
        InputError: if it leads elsewhere.
    """
    if not isinstance(entry, str) or "\0" in entry or not _is_below(entry):
        raise InputError(
            where,
            f"names {entry!r}",
            f"a file inside {root}",
            "correct the entry; files outside of the data set's folder are not read",
        )
    return root / entry


def _is_below(entry: str) -> bool:
    path = PurePath(entry)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
