"""Starts the mirror of a study beside Snakemake, and ends it: nothing here can fail the study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import make_folder
from voxelsoup.tracking.follow import LAST_SECONDS

LOG = "tracking.log"
# The mirror ends by itself before that, and says why.
LONGEST_WAIT = LAST_SECONDS + 5


class Observer:
    """The mirror's process, if one runs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path()

    def start(self, study_file: Path, logs: Path) -> None:
        """Start it on a study file that stays as it is; where it cannot start, say so."""
        self._log = logs / LOG
        try:
            make_folder(logs)
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "voxelsoup.tracking.follow", str(study_file)],
                    # Closed when this process ends, in whatever way.
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for Snakemake; the mirror still shows what came of it.
                    start_new_session=True,
                )
        except (OSError, InputError) as error:
            print(f"Tracking: not started ({error}); `voxelsoup track` does it later", flush=True)

    def end(self, seconds: float = LONGEST_WAIT) -> None:
        """Let it mirror a last time, for so many seconds at most."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            done = process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            done = False
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
        if not done:
            print(
                f"Tracking: incomplete, see {self._log}; results are not concerned, and "
                "`voxelsoup track STUDY` completes it",
                flush=True,
            )
