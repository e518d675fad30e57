"""Runs in W&B: files of its offline mode in the results folder, one folder per run.

A folder is written again as a whole whenever its run has changed, and takes the place of the one
before: its steps always increase, none of them is there twice, and whatever was sent earlier is
sent again from the first step on under the same id. Sending is W&B's own `wandb sync`, by this
process where the study has an address, else by the user.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from voxelsoup.common.files import read_json, write_json
from voxelsoup.study.study import Study
from voxelsoup.tracking.tracked_runs import STUDY, TrackedRun
from voxelsoup.tracking.tracker import STATES, Identity, TrackerError

FOLDER = "wandb"
# Of runs that are being written.
UNFINISHED = ".writing"
NOTES = "wandb.json"
# Offline files know no state but how a run ended.
EXIT_CODES = {"scheduled": 0, "running": 0, "finished": 0, "failed": 1, "killed": 137}
LONGEST_TAG = 64
SECONDS_TO_SEND = 300


class WandbTracker:
    """Writes runs as W&B's offline mode does, and sends them if the study has an address."""

    def __init__(self, study: Study, identity: Identity) -> None:
        """Read what was written and sent before."""
        self._folder = Path(study.results, FOLDER)
        self._identity, self._address = identity, study.tracking.address
        self.place = self._address or str(self._folder)
        self.advice = self._address or f"wandb sync {self._folder}/offline-run-*"
        self._notes = Path(study.results) / STATES / NOTES
        self._known = _read_notes(self._notes)
        shutil.rmtree(self._folder / UNFINISHED, ignore_errors=True)

    def mirror(self, run: TrackedRun, confirm: Callable[[], None]) -> None:
        """Write all of a run, if it has changed; see ``Tracker``."""
        known = self._known.get(run.key, {})
        if known.get("digest") == run.digest and (self._folder / known["folder"]).is_dir():
            return
        confirm()
        folder = self._write(run)
        confirm()
        self._put_in_place(folder, run)
        self._known[run.key] = {"digest": run.digest, "folder": self._name(run), "sent": ""}
        write_json(self._notes, self._known)

    def complete(self, keys: set[str], confirm: Callable[[], None]) -> None:
        """Send what has changed, if there is an address; deleted runs stay as they were."""
        if self._address is None:
            return
        new = {key: one for key, one in self._known.items() if one["sent"] != one["digest"]}
        if new:
            confirm()
            self._send([str(self._folder / one["folder"]) for one in new.values()])
            for key, one in new.items():
                self._known[key] = {**one, "sent": one["digest"]}
            write_json(self._notes, self._known)

    def _id(self, key: str) -> str:
        return hashlib.sha256(f"{self._identity.study} {key}".encode()).hexdigest()[:16]

    def _name(self, run: TrackedRun) -> str:
        date = datetime.fromtimestamp(run.started or 0.0, UTC)
        return f"offline-run-{date:%Y%m%d_%H%M%S}-{self._id(run.key)}"

    def _write(self, run: TrackedRun) -> Path:
        """Write a run with W&B itself, in a folder aside; returns that folder."""
        _quiet_environment()
        import wandb

        aside = self._folder / UNFINISHED
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            written = wandb.init(
                mode="offline",
                dir=str(aside),
                project=self._identity.experiment,
                id=self._id(run.key),
                name=run.label if run.key != STUDY else self._group,
                group=self._group,
                job_type=run.kind,
                tags=_tags(run),
                notes=run.note or None,
                config=run.parameters | {"voxelsoup": run.tags},
                reinit="create_new",
                settings=_settings(wandb, run),
            )
            for point in run.curve:
                written.log({**point.values, "_timestamp": point.time}, step=point.step)
            written.summary.update({**run.scores, "state": run.state})
            if artefact := self._artefact(wandb, run):
                written.log_artifact(artefact)
            folder = Path(written.settings.sync_dir)
            written.finish(exit_code=EXIT_CODES[run.status])
        except (wandb.Error, OSError, ValueError) as error:
            raise TrackerError(f"W&B at {self._folder}: {error}") from error
        return folder

    @property
    def _group(self) -> str:
        return f"{self._identity.experiment}-{self._identity.study[:6]}"

    def _artefact(self, wandb: Any, run: TrackedRun) -> Any:
        """The files of a run; W&B reads them where they lie, once they are sent."""
        files = [one for one in run.artefacts if one.path.exists()]
        if not files:
            return None
        weights = any(one.path.name == "model.safetensors" for one in files)
        kind = "model" if weights else "results"
        name = f"{self._group}-{run.key.replace('/', '-')}"
        artefact = wandb.Artifact("".join(_usable(one) for one in name)[:128], type=kind)
        for one in files:
            place = f"{one.folder}/{one.path.name}".lstrip("/")
            artefact.add_file(str(one.path.absolute()), name=place, policy="immutable")
        return artefact

    def _put_in_place(self, folder: Path, run: TrackedRun) -> None:
        """Replace the run's former folder, which may have another date in its name."""
        target = self._folder / self._name(run)
        for former in self._folder.glob(f"offline-run-*-{self._id(run.key)}"):
            shutil.rmtree(former)
        folder.replace(target)
        shutil.rmtree(self._folder / UNFINISHED, ignore_errors=True)

    def _send(self, folders: list[str]) -> None:
        command = [sys.executable, "-m", "wandb", "sync", "--yes", *folders]
        # Logs of its own go there, and not to the working directory.
        logs = str(self._notes.parent.absolute())
        environment = os.environ | {"WANDB_BASE_URL": str(self._address), "WANDB_DIR": logs}
        try:
            sent = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=SECONDS_TO_SEND
            )
        except subprocess.TimeoutExpired:
            raise TrackerError(
                f"W&B at {self._address}: no answer within {SECONDS_TO_SEND} s"
            ) from None
        if sent.returncode != 0:
            words = (sent.stderr + sent.stdout).strip().splitlines() or ["wandb sync failed"]
            raise TrackerError(f"W&B at {self._address}: {words[-1][:500]}")


def _quiet_environment() -> None:
    """Before W&B is imported: it sends no reports of errors."""
    os.environ["WANDB_ERROR_REPORTING"] = "false"


def _settings(wandb: Any, run: TrackedRun) -> Any:
    """Only what the study's records say: nothing of this process, its code or its machine."""
    return wandb.Settings(
        console="off",
        silent=True,
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        x_start_time=run.started,
    )


def _tags(run: TrackedRun) -> list[str]:
    fold = f"fold {run.tags['fold']}" if "fold" in run.tags else ""
    tags = [run.kind, fold, run.state.partition(" ")[0] if run.key != STUDY else ""]
    return [tag[:LONGEST_TAG] for tag in dict.fromkeys(tags) if tag]


def _usable(one: str) -> str:
    return one if one.isalnum() or one in "_-." else "_"


def _read_notes(path: Path) -> dict[str, dict[str, str]]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError):
        return {}
