"""What every tracker does, and by what it knows a study's runs again."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from voxelsoup.common.files import read_json, write_json
from voxelsoup.study.study import Study
from voxelsoup.tracking.tracked_runs import TrackedRun

# Below the results folder.
STATES = Path(".state", "tracking")
ID = "study.json"


class TrackerError(Exception):
    """A tracker did not take something; the message is its own, without a traceback."""


class Tracker(Protocol):
    """One process's connection to a tracker; ``confirm`` is called before anything is written."""

    # Where the runs lie, and the command that shows them.
    place: str
    advice: str

    def mirror(self, run: TrackedRun, confirm: Callable[[], None]) -> None:
        """Make the tracker know all of a run: a run that it has is completed, not doubled.

        Raises:
            TrackerError: if it cannot be reached or refuses.
        """

    def complete(self, keys: set[str], confirm: Callable[[], None]) -> None:
        """After all runs: mark those that the results folder has no more, and send what waits.

        ``keys``: those that are there.

        Raises:
            TrackerError: as ``mirror``.
        """


@dataclass(frozen=True)
class Identity:
    """By what trackers know a results folder: it moves with the folder.

    Attributes:
        study: a random id, made once.
        experiment: what the experiment or project is called.
    """

    study: str
    experiment: str


def identity_of(study: Study) -> Identity:
    """The identity of a study's results folder, made at the first mirroring.

    To be called by the holder of the lease in that folder.

    Raises:
        InputError: if it cannot be written.
    """
    path = Path(study.results) / STATES / ID
    try:
        content = read_json(path)
        made = Identity(content["study"], content["experiment"])
    except (OSError, ValueError, KeyError, TypeError):
        folder = Path(study.results).resolve().parent.name
        name = re.sub(r"[/\\#?%:]", "-", folder) or "voxelsoup"
        made = Identity(uuid.uuid4().hex, name)
        write_json(path, asdict(made))
    return replace(made, experiment=study.tracking.experiment or made.experiment)
