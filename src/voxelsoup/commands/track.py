"""`voxelsoup track`: a study's runs in its tracker, at any time, as often as wanted."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from voxelsoup.common.errors import EXIT_STOPPED, InputError
from voxelsoup.runs.lease import LeaseLost, LeaseTaken

if TYPE_CHECKING:
    from voxelsoup.tracking.mirror import Mirror


def track_command(asked: argparse.Namespace) -> int:
    """Mirror a study once; 75 if another mirror is at work.

    Raises:
        InputError: if the study is wrong, or the tracker cannot be reached.
    """
    from voxelsoup.tracking.mirror import Mirror

    try:
        with Mirror(asked.study) as mirror:
            runs = mirror_once(mirror, asked.study)
            print(f"{runs} runs of {mirror.records.study.results} are at {mirror.place}")
            print(f"look at them: {mirror.advice}")
    except (LeaseTaken, LeaseLost) as error:
        print(f"voxelsoup: another mirror is at work: {error}", file=sys.stderr)
        return EXIT_STOPPED
    return 0


def mirror_once(mirror: Mirror, study_file: Path) -> int:
    """Mirror what has changed; returns the number of runs.

    Raises:
        InputError: if the tracker cannot be reached or refuses.
    """
    from voxelsoup.tracking.tracker import TrackerError

    try:
        return mirror.once()
    except TrackerError as error:
        raise InputError(
            study_file,
            str(error),
            "a tracker that answers and takes the runs",
            "check its address and your account there, then call `voxelsoup track` again: what "
            "it has is not written twice",
        ) from error
