"""How far a run has come, and what will be done to it next; reads no weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from voxelsoup.common.files import read_json, write_json

PROGRESS = "progress.json"


def write_progress(folder: Path, identity: dict[str, Any], step: int, steps: int) -> None:
    """Say beside a run's states what it is and how far they have come.

    Args:
        folder: the run's states.
        identity: what its result depends on.
        step: optimizer steps of the newest state.
        steps: those of the whole run.
    """
    write_json(folder / PROGRESS, {"identity": identity, "step": step, "steps": steps})


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What ``write_progress`` wrote, or None."""
    try:
        content = read_json(folder / PROGRESS)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "identity" in content else None


def plan(folder: str, settings: dict[str, Any], epochs: int, steps_per_epoch: int) -> str:
    """What training a run now will do, in words for the plan of a workflow.

    Args:
        folder: the run's states.
        settings: the settings that its result depends on.
        epochs: its length.
        steps_per_epoch: optimizer steps per epoch.
    """
    # Asked for thousands of runs at a time, of which most may have nothing yet.
    begun = os.path.exists(f"{folder}/{PROGRESS}")  # noqa: PTH110
    progress = read_progress(Path(folder)) if begun else None
    if progress is None:
        return f"trains {epochs} epochs"
    changed = first_difference(progress["identity"].get("settings", {}), settings)
    done = progress["step"] / steps_per_epoch
    if changed:
        return f"starts over with {epochs} epochs: {changed}"
    if done > epochs:
        return f"starts over with {epochs} epochs: it was trained for {done:g}"
    if done == epochs:
        return f"is trained already ({epochs} epochs)"
    return f"continues after epoch {done:g} of {epochs}"


def first_difference(before: Any, now: Any, path: str = "") -> str | None:
    """The first setting in which two nested mappings differ, in words; None if none does."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else f"`{path}` was {before} and is {now}"
    for key in dict.fromkeys([*now, *before]):
        inner = f"{path}.{key}" if path else str(key)
        if key == "epochs" and not path and before.get(key) != now.get(key):
            return f"its schedule was made for {before.get(key)} epochs"
        difference = first_difference(before.get(key), now.get(key), inner)
        if difference:
            return difference
    return None
