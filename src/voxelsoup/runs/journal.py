"""The journal of a run: what happened to it, one line per event, over all of its attempts.

A workflow manager deletes the log of a failed job before the next attempt; the journal stays,
and tells which process trained which epochs on which host.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from voxelsoup.common import provenance

log = logging.getLogger(__name__)

JOURNAL = "journal.jsonl"


def note(folder: Path, event: str, **details: Any) -> None:
    """Append one event to the journal in ``folder``; a full disk loses the line, not the run."""
    line = json.dumps({"time": provenance.now(), "event": event, **details})
    try:
        # One write to a file opened for appending: lines of two processes do not mix.
        with (folder / JOURNAL).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        log.warning("%s could not be written: %s", folder / JOURNAL, error)


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """All events of a run, oldest first; a line that a crash cut off is left out."""
    try:
        text = (folder / JOURNAL).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    events = []
    for line in text.splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
