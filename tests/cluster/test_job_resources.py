"""What rules ask for, and how it adds up when they share a submission."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.forked import from_one_that_imported_them
from voxelsoup.cluster import job_resources
from voxelsoup.common.errors import InputError
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.study.loading import load
from voxelsoup.study.sections.data import Phantom
from voxelsoup.study.study import Study

REPOSITORY = Path(__file__).parents[2]


def study_with(**resources: dict[str, Any]) -> Study:
    """The shipped study with other needs."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    return load(config | {"resources": resources})


def snakemake(folder: Path, *arguments: str, **changes: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    environment = from_one_that_imported_them() | changes
    streams = {"capture_output": True, "text": True, "env": environment}
    result = subprocess.run([*command, *arguments], cwd=folder, **streams)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


TRAINING = {"threads": 8, "gpu": 1, "gpu_model": "a100", "mem_mb": 48000, "runtime": 1440}
EVALUATION = {"threads": 4, "gpu": 1, "mem_mb": 64000, "runtime": 240}


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_memory_and_time_grow_with_the_attempt_and_nothing_else(attempt: int) -> None:
    assert job_resources.request(study_with(training=TRAINING), "trial", attempt) == {
        "gpu": 1,
        "gpu_model": "a100",
        "mem_mb": 48000 * attempt,
        "runtime": 1440 * attempt,
        "cpus_per_task": 8,
    }


def test_a_gpu_model_is_asked_for_only_if_one_is_set() -> None:
    assert "gpu_model" not in job_resources.request(study_with(evaluation=EVALUATION), "soup", 1)


def test_a_gpu_model_may_have_the_name_that_nvml_gives_it() -> None:
    study = study_with(training={"gpu": 1, "gpu_model": "nvidia_a100-sxm4-80gb"})
    assert job_resources.request(study, "stem", 1)["gpu_model"] == "nvidia_a100-sxm4-80gb"


def test_a_gpu_model_without_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match=r"resources\.training.*`gpu_model` goes with a `gpu`"):
        study_with(training={"gpu_model": "a100"})


def test_members_that_wait_for_each_other_add_up_their_run_times() -> None:
    study = study_with(training=TRAINING, evaluation=EVALUATION)
    assert job_resources.group_request(study, ["trial", "evaluate"], 2) == {
        "gpu": 1,
        "gpu_model": "a100",
        "mem_mb": 2 * 64000,
        "runtime": 2 * (1440 + 240),
        "cpus_per_task": 8,
    }


def test_members_side_by_side_add_up_everything_else() -> None:
    needs = {"threads": 2, "mem_mb": 1000, "runtime": 20}
    study = study_with(tables=needs)
    asked = job_resources.group_request(study, ["compare", "figures", "collect"], 1)
    assert asked == {"gpu": 0, "mem_mb": 3000, "runtime": 20, "cpus_per_task": 6}


def test_runs_that_share_a_submission_need_a_gpu_each() -> None:
    study = study_with(training=TRAINING, evaluation=EVALUATION)
    asked = job_resources.group_request(study, ["trial", "evaluate"], 1, copies=3)
    assert (asked["gpu"], asked["cpus_per_task"], asked["runtime"]) == (3, 24, 1680)


def test_a_group_over_a_whole_fold_is_refused() -> None:
    with pytest.raises(InputError, match=r"stem \(one per fold\), trial \(one per run\)"):
        job_resources.group_request(study_with(), ["stem", "trial"], 1)


def test_a_group_with_two_gpu_models_is_refused() -> None:
    study = study_with(training=TRAINING, evaluation=EVALUATION | {"gpu_model": "h100"})
    with pytest.raises(InputError, match="ask for a100 and h100"):
        job_resources.group_request(study, ["trial", "evaluate"], 1)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study on files of its own whose cases are found and split."""
    folder = tmp_path_factory.mktemp("indexed")
    write_phantom(folder / "data", Phantom(cases=6, shape=[32, 32, 24]))
    study = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    study["dataset"] = {"layout": "brats", "root": "data", "channels": ["t1n", "t1c"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    snakemake(folder, "results/folds.json", "--cores", "1", "--configfile", "study.yaml")
    return folder


def test_new_needs_rerun_nothing(indexed: Path) -> None:
    study = yaml.safe_load((indexed / "study.yaml").read_text())
    study["resources"] = {
        "preprocess": {"threads": 1, "mem_mb": 777, "runtime": 7},
        "tables": {"mem_mb": 555, "gpu": 1, "gpu_model": "a100"},
    }
    (indexed / "other.yaml").write_text(yaml.safe_dump(study))
    target = ["-n", "results/folds.json", "--cores", "1", "--configfile", "other.yaml"]
    assert "Nothing to be done" in snakemake(indexed, *target)


@pytest.mark.parametrize(
    ("rule", "output", "walks"), [("index", "cases.tsv", True), ("folds", "folds.json", False)]
)
def test_only_a_job_of_the_index_walks_the_data_folder(
    indexed: Path, tmp_path: Path, rule: str, output: str, walks: bool
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH.format(file=tmp_path / "walked"))
    searched = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    # As a cluster's executor starts a job on a node.
    job = ["--mode", "remote", "--target-jobs", f"{rule}:", "--allowed-rules", rule, "--force"]
    options = ["--cores", "1", "--nolock", "--ignore-incomplete", "--configfile", "study.yaml"]
    snakemake(indexed, f"results/{output}", *job, *options, PYTHONPATH=searched)
    assert (tmp_path / "walked").exists() == walks


# Python imports this at its start; it notes whether the process lists the data folder.
WATCH = """
import sys
from pathlib import Path
def heard(event, arguments):
    if event == "os.scandir" and str(arguments[0]) == "data":
        Path("{file}").touch()
sys.addaudithook(heard)
"""


ON_GPUS = {"training": {"gpu": 1}, "evaluation": {"gpu": 1}, "runs_per_gpu": 4}


def study_that_shares(**resources: Any) -> Study:
    return study_with(**ON_GPUS | resources)


def test_on_a_cluster_every_job_asks_for_its_own_gpu() -> None:
    study = study_that_shares()
    for rule in job_resources.RULES:
        assert job_resources.job_request(study, rule, 1, True) == job_resources.request(
            study, rule, 1
        )


def test_on_one_machine_a_gpu_counts_as_many_as_may_share_it() -> None:
    study = study_that_shares()
    asked = {
        rule: job_resources.job_request(study, rule, 1, False)["gpu"]
        for rule in job_resources.RULES
    }
    assert {rule for rule, gpu in asked.items() if gpu == 1} == {"rung", "trial", "evaluate"}
    assert {gpu for gpu in asked.values() if gpu} == {1, 4}


def test_runs_do_not_share_gpus_that_one_run_takes_several_of() -> None:
    with pytest.raises(InputError, match=r"`resources\.runs_per_gpu` is 4, and one run takes"):
        study_that_shares(training={"gpu": 2})
