"""The mirror beside a running study: a process of its own, started by ``observer``.

It mirrors every half a minute until its standard input is closed, which happens when Snakemake ends
in whatever way, and then once more. It ends by itself, also if the tracker hangs.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from voxelsoup.common import provenance
from voxelsoup.common.errors import InputError, Stopped
from voxelsoup.tracking.mirror import Mirror
from voxelsoup.tracking.tracker import TrackerError

SECONDS_BETWEEN = 30.0
# From the end of the study to that of its mirror, whatever the tracker does.
LAST_SECONDS = 60.0


def main(study_file: Path) -> int:
    """Mirror a study until the standard input is closed, and once after; returns 0 if it could."""
    over = threading.Event()
    threading.Thread(target=_watch_the_study, args=(over,), daemon=True).start()
    mirror, said, last = None, "", False
    while True:
        last = over.is_set()
        try:
            mirror = mirror or Mirror(study_file).__enter__()
            runs = mirror.once()
            problem = ""
        except Stopped as error:
            # Of another mirror, perhaps that of the study's start before.
            mirror, problem = None, str(error)
        except (TrackerError, InputError, OSError) as error:
            problem = str(error)
        if problem and problem != said:
            _say(problem)
        elif last and not problem:
            _say(f"{runs} runs at {mirror.place if mirror else ''}")
        said = problem
        if last:
            if mirror is not None:
                mirror.__exit__(None, None, None)
            return 1 if problem else 0
        over.wait(SECONDS_BETWEEN)


def _watch_the_study(over: threading.Event) -> None:
    while sys.stdin.buffer.read(1):
        pass
    over.set()
    timer = threading.Timer(LAST_SECONDS, _give_up)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    _say(f"the tracker was not done {LAST_SECONDS:g} s after the study")
    os._exit(1)


def _say(text: str) -> None:
    print(f"{provenance.now()} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
