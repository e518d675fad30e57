"""Studies on a real Slurm cluster, and what goes wrong with its partitions and its controller."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import torch

from support import slurm
from support.disturbed_studies import EPOCHS, MODEL, RESOURCES, Disturbed
from support.plug_in_package import ENTRY_POINTS, write_installed, write_package
from support.studies import (
    STEM_STATES,
    TARGET,
    epochs_trained,
    wait_for_epoch,
    write_tiny,
)
from voxelsoup.cluster.partitions import choose, submissions
from voxelsoup.cluster.profile import read_site
from voxelsoup.common.files import sha256
from voxelsoup.common.graphics_cards import GB
from voxelsoup.runs.lease import Owner
from voxelsoup.runs.record import Recorder, read_record
from voxelsoup.study.loading import read
from voxelsoup.study.sections.evaluation import Metrics

METRIC, TRACKING = "volume_difference", {"tool": "mlflow"}


def test_a_study_runs_through_the_partitions(
    cluster: slurm.Cluster, tmp_path: Path, calm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Disturbed(cluster, tmp_path, calm)
    # One metric is of a package that the study's environment has.
    packages = tmp_path / "packages"
    write_package(packages)
    write_installed(packages, "acme-tools", ENTRY_POINTS, "acme_tools")
    # Whatever loads the tracker is noted, here and on the nodes.
    loaded = tmp_path / "loaded.txt"
    (packages / "sitecustomize.py").write_text(WATCH.format(file=loaded))
    searched = [str(packages), cluster.environment["PYTHONPATH"]]
    monkeypatch.setitem(cluster.environment, "PYTHONPATH", os.pathsep.join(searched))
    study.changes = {"metrics": {"names": [*Metrics().names, METRIC]}, "tracking": TRACKING}
    # From the scans on, and all of it on nodes.
    study.folder = tmp_path / "whole"
    study.folder.mkdir()
    study.states = study.folder / STEM_STATES
    run_out_of_memory(study.states)
    study.start(TARGET)
    study.ends_well()
    the_metric_is_a_further_column(study)
    site = read_site(study.profile)
    # This process does not have the package, which changes no submission.
    declared = read(write_tiny(tmp_path, resources=RESOURCES))
    foretold = [attempts[0] for attempts in submissions(declared, site)]
    # Data, the stem, two trials with their scores, one soup, the scores of what is compared, the
    # tables. The scores of the stem, the basin, the cases looked at and the bundle are not asked
    # for here.
    data, stem, run, _, soup, scores, _, _, table, _ = foretold
    expected = [data, stem, run, run, soup, scores, table]
    jobs = study.jobs()
    assert [job.state for job in jobs] == ["COMPLETED"] * len(expected)
    partitions = [choose(submission, site.partitions()) for submission in expected]
    # The stem, for which a small card has been too small, goes to the large one.
    assert partitions[1] == "gpu-short"
    partitions[1] = "gpu-long"
    assert [job.partition for job in jobs] == partitions
    limits = [f"{submission.resources['runtime']}:00" for submission in expected]
    assert [job.time_limit for job in jobs][:-1] == limits[:-1]
    memory = [f"{submission.resources['mem_mb']}M" for submission in expected]
    assert [job.memory for job in jobs][:-1] == memory[:-1]

    # Each run saw the one GPU that Slurm had handed out to it.
    runs = [study.states, *sorted((study.folder / "results/.state/fold0/trials").iterdir())]
    records = [record for states in runs if (record := read_record(states))]
    assert len(records) == len(runs)
    (of_stem, *of_trials) = [record.attempts[-1] for record in records]
    assert len(records[0].attempts) == 2
    assert of_stem.owner.job == str(jobs[1].id)
    assert {attempt.owner.job for attempt in of_trials} == {str(jobs[2].id), str(jobs[3].id)}
    assert all(attempt.visible_gpus in ("0", "1") for attempt in (of_stem, *of_trials))
    first, second = sorted(of_trials, key=lambda attempt: attempt.started)
    assert first.ended is not None
    # One that began after the other's end may have been handed out the same GPU.
    if jobs[2].node == jobs[3].node and second.started < first.ended:
        assert first.visible_gpus != second.visible_gpus
    the_tracker_has_all_runs(study)
    places = {tuple(line.split()) for line in loaded.read_text().splitlines()}
    assert {place for package, place in places if package == "mlflow"} == {"here"}
    # On nodes it would have been noted too.
    trained = {attempt.owner.job for attempt in (of_stem, *of_trials)}
    assert trained <= {place for package, place in places if package == "torch"}


def the_tracker_has_all_runs(study: Disturbed) -> None:
    """The process beside Snakemake has mirrored them, a last time at the end."""
    with closing(sqlite3.connect(study.folder / "results/mlflow/mlflow.db")) as store:
        tracked = Counter(store.execute("SELECT name, status FROM runs").fetchall())
    names = ["fold 0, stem", "fold 0, lr 0.01", "fold 0, lr 0.02", "fold 0, best", "fold 0, greedy"]
    # The study is asked for its table alone, not for its report.
    assert tracked == Counter([("whole", "SCHEDULED"), *((name, "FINISHED") for name in names)])


# Python imports this at its start; it notes where a process loads the tracker, and torch. A mere
# attempt to import them is none: MONAI makes some, for packages that jobs hide from it.
WATCH = """
import os, sys
FILES = {{os.path.join("site-packages", name, "__init__.py"): name for name in ("mlflow", "torch")}}
def heard(event, arguments):
    if event == "exec":
        path = getattr(arguments[0], "co_filename", "")
        for file, name in FILES.items():
            if path.endswith(os.sep + file):
                with open("{file}", "a") as record:
                    record.write(name + " " + os.environ.get("SLURM_JOB_ID", "here") + chr(10))
sys.addaudithook(heard)
"""


def the_metric_is_a_further_column(study: Disturbed) -> None:
    """Nodes found the package, took its metric and wrote down its source; all else is the same."""
    found, calm = (pd.read_csv(folder / TARGET) for folder in (study.folder, study.calm))
    further = [column for column in found if column.startswith(METRIC)]
    assert found[f"{METRIC}_mean"].ge(0).all()
    pd.testing.assert_frame_equal(found.drop(columns=further), calm, check_exact=True)
    assert sha256(study.folder / MODEL) == sha256(study.calm / MODEL)
    origin = study.folder / "results/.state/origins/fold0/best/test.csv.json"
    assert "plug-in acme_tools.metrics" in origin.read_text()


def run_out_of_memory(states: Path) -> None:
    """Note an attempt of a run that did not fit into the memory of a small card."""
    recorder = Recorder(states, Owner.this_process(), steps=1)
    recorder.start()
    recorder.trains_on("NVIDIA A100", 0, memory=40 * GB)
    recorder.ended(torch.OutOfMemoryError("CUDA out of memory."))


def test_a_job_that_fails_is_retried_on_the_next_partition(study: Disturbed) -> None:
    # A training takes about 600 MB. Twice two minutes are more than the short partition has.
    study.start(training={"mem_mb": 450})
    study.ends_well()
    first, second = study.jobs("rule_stem")
    assert (first.partition, second.partition) == ("gpu-short", "gpu-long")
    assert (first.memory, second.memory) == ("450M", "900M")
    assert first.state != "COMPLETED"
    assert second.state == "COMPLETED"


def test_a_run_that_hit_its_time_limit_resumes_with_more_time(study: Disturbed) -> None:
    study.start(training={"runtime": 1})
    wait_for_epoch(study.states, 3)
    # It is stopped until Slurm finds that its minute is over.
    os.kill(study.attempts()[0].owner.process, signal.SIGSTOP)
    study.ends_well()
    first, second = study.jobs("rule_stem")
    assert (first.state, second.state) == ("TIMEOUT", "COMPLETED")
    assert (first.time_limit, second.time_limit) == ("1:00", "2:00")
    assert epochs_trained(study.states) == EPOCHS
    assert len(study.attempts()) == 2


def test_a_run_outlives_the_controller(study: Disturbed, cluster: slurm.Cluster) -> None:
    study.start()
    wait_for_epoch(study.states, 3)
    cluster.kill_controller()
    # Longer than Snakemake's own patience with a controller that does not answer, and long enough
    # for a round of status queries to begin meanwhile.
    time.sleep(25)
    cluster.start_controller()
    study.ends_well()
    assert study.states_of("rule_stem") == ["COMPLETED"]
    assert epochs_trained(study.states) == EPOCHS
