"""The JSON files beside images that list the cases."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import read_text
from voxelsoup.data.case import Source
from voxelsoup.data.layouts.case_names import unsafe_text
from voxelsoup.data.layouts.channel_names import ChannelMatch, match_channels
from voxelsoup.data.volumes.volume import is_volume
from voxelsoup.study.sections.data import Dataset

# What file systems allow, in bytes.
LONGEST_PART, LONGEST_PATH = 255, 2048
CORRECTION = (
    "point `dataset.root` at the folder that holds it, or correct `dataset.layout` or "
    "`dataset.file`"
)

_short = reprlib.Repr()
_short.maxstring = 300


def read_description(path: Path) -> dict[str, Any]:
    """Read a JSON object, such as ``dataset.json``; raises as ``read_json``."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(path, "is not a JSON object", "a JSON object", "fix the file")
    return content


def read_json(path: Path, correction: str = CORRECTION) -> Any:
    """Read a JSON file of another program; ``correction`` is the fix if it is missing.

    Raises InputError if it is missing, not JSON, or an object of it names a key twice.
    """
    text = read_text(path, "a JSON file", correction)
    try:
        return json.loads(text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is not JSON: {error}", "a JSON file", "fix the file") from error


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would silently keep the last one alone.
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"an object has the key {shown(twice)} twice")
    return content


def shown(value: object) -> str:
    """A value out of a JSON file for a message, cut where it is long or deep."""
    return _short.repr(value)


def entries_of(description: dict[str, Any], key: str, where: Path) -> list[dict[str, Any]]:
    """The list of cases under ``key``, each an object; raises InputError if it has another form."""
    entries = description.get(key)
    if not isinstance(entries, list):
        raise InputError(where, f"has no list `{key}`", "a list of cases", "fix the file")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _wrong_entry(where, key, position, entry, "an object with `image` and `label`")
    return entries


def unlabelled_entries(description: dict[str, Any], key: str, where: Path) -> list[dict[str, Any]]:
    """The test images under ``key``, each an object without label, or none; raises InputError."""
    entries = description.get(key, [])
    if not isinstance(entries, list):
        raise InputError(where, f"has no list `{key}`", "a list of images", "fix the file")
    found = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, str | dict):
            raise _wrong_entry(where, key, position, entry, "a path, or an object with `image`")
        fields = {"image": entry} if isinstance(entry, str) else entry
        found.append({name: value for name, value in fields.items() if name != "label"})
    return found


def files_named(content: Any, root: Path) -> set[Path]:
    """All files in the data set's folder that texts anywhere in a JSON file name."""
    if isinstance(content, str):
        below = _below(root, content) if is_volume(content) else None
        return set() if below is None else {root / below}
    parts = content.values() if isinstance(content, dict) else content
    parts = parts if isinstance(content, dict | list) else ()
    return {file for part in parts for file in files_named(part, root)}


def _wrong_entry(where: Path, key: str, position: int, entry: object, expected: str) -> InputError:
    found = f"has {shown(entry)} as entry {position} of `{key}`"
    return InputError(where, found, expected, "correct the entry")


def places_of_channels(dataset: Dataset, there: Sequence[str], where: Path) -> ChannelMatch:
    """Where the study's channels are among those that a file describes (``match_channels``).

    Raises InputError if there are fewer of them, or they have other names.
    """
    channels = dataset.channels
    if len(there) < len(channels):
        raise InputError(
            where,
            f"describes {len(there)} channel(s), and the study names {len(channels)}: {channels}",
            "one name per channel",
            "correct `dataset.channels` in the study",
        )
    return match_channels(channels, there, where, dataset.stated_channels)


def channels_of_one_file(
    image: Path, places: Mapping[str, int], components: int
) -> dict[str, Source]:
    """Channel name -> volume, where one file holds them all; several lie in a 4D file."""
    several = components > 1
    return {name: Source(image, place if several else None) for name, place in places.items()}


def inside(root: Path, entry: object, where: Path, place: str = "") -> Path:
    """A path that a description names; an InputError if it leaves the data set's folder.

    An absolute path has to lead into the folder, under whichever name. Links are followed: they
    were put into the folder on purpose, while a description may come from anyone. Messages name the
    file ``where`` and the ``place`` in it, such as ``row 3``.
    """
    below = _below(root, entry) if isinstance(entry, str) else None
    if below is None:
        raise InputError(
            where,
            f"{place} names {shown(entry)}".strip(),
            f"a file inside {root}",
            "write the path relative to `dataset.root`, with / between folders; files outside "
            "the data set's folder are not read",
        )
    return root / below


def _below(root: Path, entry: str) -> str | None:
    """A path as seen from the data set's folder; None if it is not one of a file in there."""
    if not PurePosixPath(entry).is_absolute():
        return entry if _is_below(entry) else None
    path = Path(entry)
    if not _is_below(entry.lstrip("/")):
        return None
    # The folder may have several names, through links above it.
    for parent in path.parents:
        with suppress(OSError):
            if parent.samefile(root):
                return str(path.relative_to(parent))
    return None


def _is_below(entry: str) -> bool:
    path = PurePosixPath(entry)
    lengths = [len(part) for part in re.split(rb"/", entry.encode(errors="replace"))]
    return (
        unsafe_text(entry) is None
        and bool(path.parts)
        and ".." not in path.parts
        and not path.is_absolute()
        # A file that is called so here would be another one, or none, on Windows.
        and "\\" not in entry
        and not PureWindowsPath(entry).drive
        # Reading the path back would take it for a component of another file.
        and Source.parse(entry).component is None
        and max(lengths) <= LONGEST_PART
        and sum(lengths) <= LONGEST_PATH
    )
