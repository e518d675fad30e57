"""`snakemake predict` on a real Slurm cluster: batches are jobs, and finished ones are kept."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from support import slurm
from support.model_files import save_model
from support.runs import SETTINGS
from support.studies import wait_for
from voxelsoup.commands.cli import main
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.study.sections.data import Phantom

FIRST, LARGE, DAMAGED, LAST = CASES = [f"Phantom-{number:04d}-000" for number in range(4)]
MODELS = ["0.safetensors", "1.safetensors"]
# Twice two minutes are more than the short partition has.
RESOURCES = {"evaluation": {"gpu": 1, "mem_mb": 1500, "runtime": 2, "threads": 1}}
BATCH = "rule_predict_batch_wildcards_"


class Batches:
    """Scans that a cluster predicts in two batches, and what a single process makes of them."""

    def __init__(self, cluster: slurm.Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.earlier = {job.id for job in cluster.jobs()}
        self.process: subprocess.Popen[str] | None = None
        write_phantom(folder / "scans", Phantom(cases=4, shape=[24, 28, 24]))
        # Long enough to be caught at work.
        write_phantom(folder / "large", Phantom(cases=4, shape=[112, 112, 112]))
        (folder / "scans" / LARGE).rename(folder / "small")
        (folder / "large" / LARGE).rename(folder / "scans" / LARGE)
        models = [str(save_model(folder / name, seed)) for seed, name in enumerate(MODELS)]
        scans, alone = str(folder / "scans"), str(folder / "alone")
        assert main(["predict", *models, scans, alone, "--threads", "1"]) == 0
        self.study = folder / "study.yaml"
        predict = {"input": "scans", "models": MODELS, "cases_per_job": 2, "overlap": 0.5}
        settings = SETTINGS | {"predict": predict, "resources": RESOURCES}
        self.study.write_text(yaml.safe_dump(settings))
        self.profile = cluster.write_profile(folder / "profile")

    def start(self) -> None:
        """Start `snakemake predict`."""
        self.process = self.cluster.snakemake(self.folder, self.profile, self.study, "predict")

    def ends(self, seconds: float = 600) -> int:
        """The exit status, once it ends."""
        assert self.process is not None
        return self.process.wait(timeout=seconds)

    def printed(self) -> str:
        """All that Snakemake has printed so far."""
        return (self.folder / "printed.txt").read_text()

    def jobs(self, comment: str = "") -> list[slurm.Job]:
        """The submissions of this study."""
        return [job for job in self.cluster.jobs(comment) if job.id not in self.earlier]

    def labels_of(self, case: str) -> Path:
        """The label map that the cluster writes of a case."""
        return self.folder / "results/predictions" / f"{case}.nii.gz"

    def outcomes(self) -> list[str]:
        """What the table says of each case."""
        with (self.folder / "results/predictions.tsv").open(newline="") as stream:
            rows = {row["case"]: row["outcome"] for row in csv.DictReader(stream, delimiter="\t")}
        return [rows[case] for case in CASES]

    def is_as_predicted_alone(self, case: str) -> None:
        """Make sure that a label map is, voxel for voxel, that of `voxelsoup predict`."""
        alone = nib.load(self.folder / "alone" / f"{case}.nii.gz")
        written = nib.load(self.labels_of(case))
        assert np.array_equal(np.asarray(written.dataobj), np.asarray(alone.dataobj))
        assert len(np.unique(alone.dataobj)) > 1
        assert np.array_equal(written.affine, alone.affine)

    def stop(self) -> None:
        """Leave nothing running for the next test."""
        self.cluster.end(self.process, self.jobs)


@pytest.fixture
def batches(cluster: slurm.Cluster, tmp_path: Path) -> Iterator[Batches]:
    batches = Batches(cluster, tmp_path)
    try:
        yield batches
    finally:
        batches.stop()


def test_a_killed_batch_resumes_and_a_bad_case_fails_only_the_last_step(
    batches: Batches, cluster: slurm.Cluster
) -> None:
    damaged = batches.folder / "scans" / DAMAGED / f"{DAMAGED}-t2w.nii.gz"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"junk")
    batches.start()
    wait_for(batches.labels_of(FIRST).exists, seconds=120)
    (killed,) = batches.jobs(f"{BATCH}0000")
    cluster.run("scancel", "--signal=KILL", "--full", str(killed.id))
    written = batches.labels_of(FIRST).stat().st_mtime_ns
    assert batches.ends() != 0, batches.printed()

    assert f"{DAMAGED}: scans/{DAMAGED}/{damaged.name}: cannot be read" in batches.printed()
    # The killed batch alone is tried again.
    assert batches.printed().count("Trying to restart job") == 1
    assert batches.outcomes() == ["kept", "predicted", "bad", "predicted"]
    assert not batches.labels_of(DAMAGED).exists()
    # Each batch is a job of its own, the listing and the table are none, and the second attempt
    # asks for more.
    first, second = batches.jobs(f"{BATCH}0000")
    (other,) = batches.jobs(f"{BATCH}0001")
    assert batches.jobs() == sorted([first, second, other], key=lambda job: job.id)
    assert first.state != "COMPLETED" and second.state == other.state == "COMPLETED"
    placed = [(job.partition, job.time_limit, job.memory) for job in (first, other, second)]
    assert placed == [("gpu-short", "2:00", "1500M")] * 2 + [("gpu-long", "4:00", "3000M")]

    damaged.write_bytes(whole)
    batches.start()
    assert batches.ends() == 0, batches.printed()
    assert batches.outcomes() == ["kept", "predicted", "predicted", "kept"]
    assert len(batches.jobs()) == 4 and len(batches.jobs(f"{BATCH}0001")) == 2
    for case in CASES:
        batches.is_as_predicted_alone(case)
    assert batches.labels_of(FIRST).stat().st_mtime_ns == written
