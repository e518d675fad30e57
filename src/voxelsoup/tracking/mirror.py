"""One process mirrors a study's records to its tracker; what is there is not written again."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from voxelsoup.common.errors import InputError
from voxelsoup.runs.lease import Lease
from voxelsoup.tracking.installed import check_installed
from voxelsoup.tracking.tracked_runs import StudyRecords
from voxelsoup.tracking.tracker import STATES, Tracker, identity_of


class Mirror:
    """A study before its tracker; use as a context, which holds the lease of mirrors."""

    def __init__(self, study_file: Path) -> None:
        """Read the study.

        Raises:
            InputError: if it is not usable, asks for no tracker, or its package is missing.
        """
        self.records = StudyRecords(study_file)
        study = self.records.study
        if study.tracking.tool == "none":
            raise InputError(
                study_file,
                "`tracking` is `none`",
                "`tracking: mlflow` or `tracking: wandb`",
                "set it in the study; no result changes",
            )
        check_installed(study.tracking, str(study_file))
        folder = self.records.results / STATES
        self._lease = Lease(folder, study.recovery.lease_seconds, wait=False)
        self._tracker: Tracker | None = None
        self._mirrored: dict[str, str] = {}

    @property
    def place(self) -> str:
        """Where the runs are to be looked at."""
        return self._tracker.place if self._tracker else ""

    @property
    def advice(self) -> str:
        """The command that shows them, or where they are shown."""
        return self._tracker.advice if self._tracker else ""

    def __enter__(self) -> Mirror:
        """Take the lease.

        Raises:
            LeaseTaken: if another mirror holds it.
        """
        self._lease.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lease.release()

    def once(self) -> int:
        """Hand everything that has changed to the tracker; returns the number of runs it knows.

        Raises:
            TrackerError: if the tracker cannot be reached or refuses; the next call goes on.
            LeaseLost: if another mirror has taken over.
        """
        runs = self.records.look()
        tracker = self._open()
        for run in runs:
            if self._mirrored.get(run.key) != run.digest:
                tracker.mirror(run, self._lease.confirm)
                self._mirrored[run.key] = run.digest
        tracker.complete(self._there({run.key for run in runs}), self._lease.confirm)
        return len(runs)

    def _there(self, keys: set[str]) -> set[str]:
        """Runs that the results folder has, those of other studies in it among them."""
        found = {f"{place.parent.parent.name}/{place.name}" for place in self._trial_folders()}
        return keys | found

    def _trial_folders(self) -> list[Path]:
        roots = (self.records.results, self.records.results / ".state")
        return [path for root in roots for path in root.glob("*/trials/*")]

    def _open(self) -> Tracker:
        if self._tracker is None:
            study = self.records.study
            identity = identity_of(study)
            if study.tracking.tool == "mlflow":
                from voxelsoup.tracking.mlflow_store import MlflowTracker

                self._tracker = MlflowTracker(study, identity)
            else:
                from voxelsoup.tracking.wandb_files import WandbTracker

                self._tracker = WandbTracker(study, identity)
        return self._tracker
