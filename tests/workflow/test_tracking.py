"""Snakemake with a tracker: the study is as without it, whatever becomes of the mirror."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from support.studies import start_locally
from support.tracked import tracked_demo
from support.workflows import planned, snakemake
from voxelsoup.commands.cli import main
from voxelsoup.runs.lease import look_at


def mirror_of(results: Path) -> int:
    """The process of the study's mirror, once it works."""
    for _ in range(1200):
        lease = look_at(results / ".state" / "tracking")
        if lease and lease.owner and not lease.owner.is_dead():
            return lease.owner.process
        time.sleep(0.05)
    raise AssertionError("no mirror was started")


def test_a_study_whose_mirror_is_killed_ends_well_and_can_be_mirrored_later(
    demo: Path, tmp_path: Path
) -> None:
    study = tracked_demo(demo, tmp_path, tool="mlflow")
    results = tmp_path / "results"
    # A tracker changes nothing that is planned.
    (results / "provenance.tsv").unlink()
    plan = planned(snakemake(tmp_path, "-n", config=study))
    assert (plan["manifest"], plan["total"]) == (1, 2)
    running = start_locally(tmp_path)
    os.kill(mirror_of(results), signal.SIGKILL)
    printed = tmp_path / "printed.txt"
    assert running.wait() == 0, printed.read_text()
    assert "Tracking: incomplete" in printed.read_text()
    assert (results / "provenance.tsv").is_file()
    assert main(["track", str(study)]) == 0
    assert (results / "mlflow" / "mlflow.db").is_file()
