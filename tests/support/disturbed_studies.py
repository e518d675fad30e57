"""A tiny study on a Slurm cluster that something happens to, beside the same one undisturbed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from support import slurm
from support.studies import STEM_STATES, TINY, copy_data, tables, write_tiny
from voxelsoup.common.files import sha256
from voxelsoup.runs.record import Attempt, read_record

RESOURCES: dict[str, dict[str, int]] = {
    "preprocess": {"threads": 2, "mem_mb": 2000, "runtime": 5},
    # All that the short partition gives: a stem takes half a minute, on busy cores twice that.
    "training": {"gpu": 1, "mem_mb": 1500, "runtime": 2},
    "evaluation": {"gpu": 1, "mem_mb": 1500, "runtime": 2},
    "tables": {"mem_mb": 1000, "runtime": 5},
}
STEM = "results/fold0/stem/model.safetensors"
MODEL = "results/fold0/soups/greedy/model.safetensors"
EPOCHS = list(range(1, TINY["stem"]["epochs"] + 1))


class Disturbed:
    """A study on the cluster that something happens to while its stem is trained."""

    def __init__(self, cluster: slurm.Cluster, folder: Path, calm: Path) -> None:
        self.cluster, self.folder, self.calm = cluster, folder, calm
        self.states = folder / STEM_STATES
        self.before = len(cluster.jobs())
        copy_data(calm, folder)
        write_tiny(folder, resources=RESOURCES)
        self.profile = cluster.write_profile(folder / "profile")
        self.process: subprocess.Popen[str] | None = None
        # Sections of the study that are others than those of the undisturbed one.
        self.changes: dict[str, Any] = {}

    def start(self, target: str = STEM, **resources: dict[str, int]) -> None:
        """Start Snakemake, with some needs replaced."""
        needs = {kind: values | resources.get(kind, {}) for kind, values in RESOURCES.items()}
        study = write_tiny(self.folder, resources=needs, **self.changes)
        self.process = self.cluster.snakemake(self.folder, self.profile, study, target)

    def jobs(self, comment: str = "") -> list[slurm.Job]:
        """The submissions of this study."""
        return [job for job in self.cluster.jobs(comment) if job.id in self._ids()]

    def _ids(self) -> set[int]:
        return {job.id for job in self.cluster.jobs()[self.before :]}

    def states_of(self, comment: str) -> list[str]:
        """How the submissions of a rule ended, in order."""
        return [job.state for job in self.jobs(comment)]

    def attempts(self) -> list[Attempt]:
        """The attempts of the stem."""
        record = read_record(self.states)
        return record.attempts if record else []

    def ends_well(self, seconds: float = 800) -> None:
        """The study ends, and its stem has the very bytes of the undisturbed one."""
        assert self.process is not None
        try:
            code: int | str = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = f"still running after {seconds:.0f} s"
        assert code == 0, self.evidence(code)
        assert sha256(self.folder / STEM) == sha256(self.calm / STEM)

    def is_complete(self) -> None:
        """All that comes after the stem is that of the undisturbed study too."""
        assert tables(self.folder) == tables(self.calm)
        assert sha256(self.folder / MODEL) == sha256(self.calm / MODEL)

    def evidence(self, code: int | str) -> str:
        """What is known of a study that did not end well."""
        jobs = "\n".join(str(job) for job in self.jobs())
        attempts = "\n".join(map(str, self.attempts()))
        printed = (self.folder / "printed.txt").read_text()[-6000:]
        controller = (self.cluster.folder / "log" / "slurmctld.log").read_text()[-6000:]
        return f"exit status: {code}\n{jobs}\n{attempts}\n{printed}\n{controller}"

    def stop(self) -> None:
        """Leave nothing running for the next test."""
        self.cluster.end(self.process, self.jobs)
