"""What the processes of one run know of each other: whether they live, and why they ended.

They share a folder. Each process names itself there and takes its name back when it ends as it
should, so that a name without a process is that of one that died or failed; why it failed is in a
report beside it.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxelsoup.common.errors import CardTooSmall, GpuMemoryFull, InputError, Stopped
from voxelsoup.common.files import read_json, write_json
from voxelsoup.runs.divergence import Diverged
from voxelsoup.runs.lease import Owner
from voxelsoup.runs.watchdog import Hung
from voxelsoup.training.data_workers import WorkerLost

# A process sees its connections broken before the other one has written its report.
SECONDS_TO_REPORT = 5.0
# Reasons that the process which started the others has to know by their kind.
KINDS: dict[str, type[Stopped]] = {kind.__name__: kind for kind in (Hung, WorkerLost)}
REFUSALS: dict[str, type[InputError]] = {
    kind.__name__: kind for kind in (GpuMemoryFull, CardTooSmall)
}


class ProcessLost(Stopped):
    """A process of the run died; the run resumes from its last saved state."""


class Peers:
    """The processes of a run as one of them sees them; a context around its training."""

    def __init__(self, folder: Path, rank: int, count: int) -> None:
        """Set up in the folder that they share."""
        self.folder, self.rank, self.count = folder, rank, count

    def __enter__(self) -> Peers:
        write_json(self._name(self.rank), asdict(Owner.this_process()))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.leaves()

    def leaves(self) -> None:
        """This process ends as it should."""
        self._name(self.rank).unlink(missing_ok=True)

    def _name(self, rank: int) -> Path:
        return self.folder / f"{rank}.process"

    def lost(self) -> ProcessLost | None:
        """Whether another process died or failed; it says why if it can (``cause``)."""
        for rank in range(self.count):
            try:
                owner = Owner(**read_json(self._name(rank)))
            except (OSError, ValueError):
                # It has not begun, or ended as it should.
                continue
            if rank != self.rank and owner.is_dead():
                return ProcessLost(
                    f"process {rank} of the {self.count} that train this run died; started again, "
                    "the run resumes from its last saved state"
                )
        return None

    def cause(self) -> Exception | None:
        """Why this process cannot exchange anything with the others any more, if it is theirs."""
        deadline = time.monotonic() + SECONDS_TO_REPORT
        while time.monotonic() < deadline:
            lost = self.lost()
            # One that failed has reported before it ended.
            found = read_report(self.folder) or lost
            if found:
                return found
            time.sleep(0.1)
        return None


def write_report(folder: Path, rank: int, error: Exception) -> None:
    """Leave a report for the process that started this one, and for the others."""
    report: dict[str, Any] = {"time": time.time(), "kind": "defect", "text": traceback.format_exc()}
    if isinstance(error, Diverged):
        report |= {"kind": "diverged", "text": error.__reduce__()[1]}
    elif isinstance(error, InputError):
        name = type(error).__name__
        report |= {"kind": "input", "name": name, "text": error.__reduce__()[1]}
    elif isinstance(error, Stopped):
        report |= {"kind": "stopped", "name": type(error).__name__, "text": str(error)}
    write_json(folder / f"{rank}.json", report)


def read_report(folder: Path, killed: bool = False) -> Exception | None:
    """Why the processes have ended, by the first report among them.

    A killed process could not report, and what the others then met is no reason.
    """
    reports = [read_json(path) for path in folder.glob("[0-9]*.json")]
    reports.sort(key=lambda report: float(report["time"]))
    for kind in ("diverged", "input", "stopped", "defect"):
        for report in reports:
            if report["kind"] != kind or (killed and kind == "defect"):
                continue
            if kind == "diverged":
                return Diverged(*report["text"])
            if kind == "input":
                return REFUSALS.get(report["name"], InputError)(*report["text"])
            if kind == "stopped":
                return KINDS.get(report["name"], Stopped)(report["text"])
            return RuntimeError(report["text"])
    return None
