"""States of a run on disk: written atomically, checked when read, two kept; none is not finite.

A state file is what ``torch.save`` writes, followed by the SHA-256 of it. It is read with
``weights_only=True``, so that it cannot run code.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
from pathlib import Path
from typing import IO, Any, cast

import torch

from voxelsoup.common.files import atomic_write

log = logging.getLogger(__name__)

State = dict[str, Any]

ENDING = ".state"
# The one before the newest is there for the case that the newest turns out to be damaged.
KEPT = 2
DIGEST_BYTES = 32


def save_state(folder: Path, step: int, state: State) -> Path:
    """Write a state and remove those that are no longer needed.

    Args:
        step: optimizer steps done; it orders the states.
        state: tensors, plain numbers, texts, and lists, tuples and dicts of them.

    Raises:
        InputError: if the disk is full, or the folder gone or read-only; what was there stays.
    """
    path = folder / f"{step:09d}{ENDING}"
    with atomic_write(path) as temporary, temporary.open("wb") as raw:
        stream = _Hashed(raw)
        try:
            torch.save(state, cast(IO[bytes], stream))
        except RuntimeError as error:
            # torch hides why a write failed, and the user has to know that the disk is full.
            raise stream.error or error from error
        raw.write(stream.digest.digest())
    prune_states(folder, KEPT)
    return path


def prune_states(folder: Path, kept: int) -> None:
    """Remove all states but the newest ``kept``, and what a killed process left unfinished."""
    for path in _states(folder)[kept:]:
        path.unlink(missing_ok=True)
    for path in folder.glob(f".*{ENDING}"):
        path.unlink(missing_ok=True)


def newest_state(folder: Path) -> State | None:
    """The newest undamaged state, or None.

    Damaged ones are removed with a line in the log: the run resumes from the one before.
    """
    for path in _states(folder):
        state = _read(path)
        # Earlier versions wrote what is not finite.
        wrong = None if state is None else not_finite(state)
        if state is not None and wrong is None:
            return state
        found = "is damaged" if wrong is None else f"has NaN or infinity in `{wrong}`"
        log.warning("%s %s; resuming from the state before it", path, found)
        path.unlink(missing_ok=True)
    return None


def not_finite(state: Any, name: str = "") -> str | None:
    """The first tensor of a state that holds NaN or infinity, as ``model.conv.weight``; or None."""
    if isinstance(state, torch.Tensor):
        if not state.is_floating_point() or state.numel() == 0:
            return None
        # NaN is the least and the largest of numbers with a NaN; a mask as large is not needed.
        ends = torch.stack(torch.aminmax(state))
        return None if bool(torch.isfinite(ends).all()) else name
    inner = (
        state.items()
        if isinstance(state, dict)
        else enumerate(state)
        if isinstance(state, list | tuple)
        else ()
    )
    found = (not_finite(value, f"{name}.{key}" if name else str(key)) for key, value in inner)
    return next((wrong for wrong in found if wrong is not None), None)


def state_at(folder: Path, step: int) -> State | None:
    """The state after so many steps, or None if there is no undamaged one; changes nothing."""
    path = folder / f"{step:09d}{ENDING}"
    return _read(path) if path.exists() else None


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"[0-9]*{ENDING}"), reverse=True)


def _read(path: Path) -> State | None:
    """The state of a file, or None if it is damaged."""
    content = path.read_bytes()
    body, digest = memoryview(content)[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError, KeyError) as error:
        log.warning("%s: %s", path, error)
        return None
    return state if isinstance(state, dict) else None


class _Hashed(io.RawIOBase):
    """A binary stream that hashes what goes through it, and keeps the error that stopped it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw, self.digest = raw, hashlib.sha256()
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.digest.update(content)
        try:
            return self.raw.write(content)
        except OSError as error:
            self.error = error
            raise
