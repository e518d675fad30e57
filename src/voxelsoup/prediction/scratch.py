"""A folder for what does not stay in memory; those that killed processes left are removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from voxelsoup.common.files import read_json, writable, write_json
from voxelsoup.runs.lease import Owner

PREFIX = "voxelsoup-scratch-"
OWNER = "owner.json"


@contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """A folder of this process's own, removed at the end.

    A process that was killed cannot remove its own, which may hold a large scan: whoever comes
    next on the same machine does. From another machine nobody sees whether its process lives.

    Args:
        place: where it lies.

    Raises:
        InputError: if it cannot be made.
    """
    for left in place.glob(f"{PREFIX}*"):
        if _is_left(left):
            shutil.rmtree(left, ignore_errors=True)
    owner = Owner.this_process()
    folder = place / f"{PREFIX}{owner.id}"
    try:
        with writable(folder):
            folder.mkdir()
            write_json(folder / OWNER, asdict(owner))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    try:
        return Owner(**read_json(folder / OWNER)).is_dead()
    except (OSError, ValueError, TypeError):
        return False
