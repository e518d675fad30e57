"""The shipped profiles: one for this machine and its GPUs, one for a Slurm cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser

from support.forked import from_one_that_imported_them
from voxelsoup.cluster.job_resources import RULES
from voxelsoup.cluster.partitions import choose, submissions
from voxelsoup.cluster.profile import read_site
from voxelsoup.study.loading import read

REPOSITORY = Path(__file__).parents[2]
LOCAL = REPOSITORY / "profiles" / "local"
SLURM = REPOSITORY / "profiles" / "slurm"
SCORES = "best, postprocessing, evaluate_soups (group scores)"


def plan(folder: Path, profile: Path, study: Path, *arguments: str) -> str:
    """What a dry run prints."""
    command = [sys.executable, "-m", "snakemake", "-n", "--profile", str(profile)]
    command += ["--snakefile", str(REPOSITORY / "Snakefile"), "--configfile", str(study)]
    streams = {"capture_output": True, "text": True, "env": from_one_that_imported_them()}
    result = subprocess.run([*command, *arguments], cwd=folder, **streams)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def local_gpus() -> str | None:
    """The limit on GPUs that Snakemake gets from the local profile."""
    with (LOCAL / "config.yaml").open() as stream:
        resources = ProfileConfigFileParser().parse(stream).get("resources")
    return None if resources is None else resources[0]


@pytest.mark.parametrize(
    ("visible", "limit"),
    [("0,1", "gpu=2"), ("3", "gpu=1"), ("GPU-8f2a,GPU-11c0", "gpu=2"), ("", None), ("-1", None)],
)
def test_runs_on_this_machine_are_limited_by_the_gpus_that_it_may_see(
    visible: str, limit: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local_gpus() == limit


def test_without_the_variable_the_machine_s_own_gpus_count(monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    count = len(list(Path("/dev").glob("nvidia[0-9]*")))
    assert local_gpus() == (f"gpu={count}" if count else None)


@pytest.mark.parametrize("visible", ["", "0,1"])
def test_a_study_for_gpus_can_be_planned_on_any_machine(
    visible: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    printed = plan(tmp_path, LOCAL, REPOSITORY / "examples" / "brats2024.yaml", "--quiet", "rules")
    assert re.search(r"^trial +100$", printed, re.MULTILINE)


def test_a_study_of_500_runs_makes_one_submission_per_run_and_a_few(tmp_path: Path) -> None:
    study = yaml.safe_load((REPOSITORY / "examples" / "brats2024.yaml").read_text())
    study["sweep"] = {"grid": {"optimizer.lr": [0.0001 * (1 + i) for i in range(100)]}}
    # Which runs that has is known once the folds are done.
    study["final"] = False
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    printed = plan(tmp_path, SLURM, tmp_path / "study.yaml")
    groups = re.findall(r"^\[.*\] Group job (\w+) ", printed, re.MULTILINE)
    # What stands alone is announced by its rule's message.
    said = {"Stem": "stem", "Soup": "soup", "Barriers": "basin", "Slices": "case_slices"}
    said |= {"Bundle": "bundle", "Scores": "evaluate_stem", "Ensemble": "ensemble"}
    said |= {"Targets": "finish_targets", "Finish": "finish", "Model": "finished"}
    # The report and what it is made of are made beside Snakemake.
    said |= {"Models": "candidates", "Methods": "methods", "Run": "run_times"}
    said |= {"Report": "report", "Manifest": "manifest"}
    first_words = re.findall(r"^Job \d+: (\w+)", printed, re.MULTILINE)
    alone = [rule for word in first_words if not RULES[rule := said[word]].local]
    counts = Counter([*groups, *alone])
    # A run is a trial and its scores.
    assert counts == {
        "data": 1,
        "stem": 5,
        "run": 5 * 100,
        "evaluate_stem": 5,
        "soup": 5 * 2,
        "ensemble": 5,
        "finish_targets": 5,
        # The greedy soup and the best single model, each with two learning rates.
        "finish": 5 * 4,
        "finished": 5 * 2,
        "scores": 5,
        "basin": 5,
        "case_slices": 1,
        "tables": 1,
        "bundle": 1,
    }
    assert counts.total() == 574


@pytest.mark.parametrize(
    ("recipes", "submitted"),
    [
        (["greedy"], {"soup", SCORES}),
        (["greedy", "ensemble"], {"soup", SCORES, "ensemble"}),
        # The best single model is scored after post-processing too.
        (["ensemble"], {SCORES, "ensemble"}),
    ],
)
def test_soups_and_ensembles_are_announced_where_the_study_has_them(
    recipes: list[str], submitted: set[str]
) -> None:
    study = read(REPOSITORY / "examples" / "brats2024.yaml")
    soup = study.soup.model_copy(update={"recipes": recipes, "finish": None})
    study = study.model_copy(update={"soup": soup, "final": False})
    names = {attempts[0].name for attempts in submissions(study, read_site(SLURM))}
    assert {name for name in names if "soup" in name or "ensemble" in name} == submitted


def test_the_shipped_partitions_serve_the_full_size_example_in_every_attempt() -> None:
    site = read_site(SLURM)
    study = read(REPOSITORY / "examples" / "brats2024.yaml")
    routes = {
        attempts[0].name: [choose(submission, site.partitions()) for submission in attempts]
        for attempts in submissions(study, site)
    }
    assert routes == {
        "index, folds, preprocess (group data)": ["cpu", "cpu", "cpu"],
        "stem": ["gpu-short", "gpu-long", "gpu-long"],
        "evaluate_stem": ["gpu-short", "gpu-short", "gpu-short"],
        "trial, evaluate (group run)": ["gpu-short", "gpu-long", "gpu-long"],
        "soup": ["gpu-short", "gpu-short", "gpu-short"],
        "ensemble": ["gpu-short", "gpu-short", "gpu-short"],
        "finish_targets": ["gpu-short", "gpu-short", "gpu-short"],
        "finish": ["gpu-short", "gpu-long", "gpu-long"],
        "finished": ["gpu-short", "gpu-short", "gpu-short"],
        "final_stem": ["gpu-short", "gpu-long", "gpu-long"],
        "final_trial": ["gpu-short", "gpu-long", "gpu-long"],
        "final_soup": ["gpu-short", "gpu-short", "gpu-short"],
        "final_targets": ["gpu-short", "gpu-short", "gpu-short"],
        "final_finish": ["gpu-short", "gpu-long", "gpu-long"],
        "final": ["cpu", "cpu", "cpu"],
        SCORES: ["gpu-short", "gpu-short", "gpu-short"],
        "basin": ["gpu-short", "gpu-short", "gpu-short"],
        "case_slices": ["gpu-short", "gpu-short", "gpu-short"],
        "compare, figures, basins, collect (group tables)": ["cpu", "cpu", "cpu"],
        "bundle": ["cpu", "cpu", "cpu"],
    }


def test_a_profile_is_found_as_snakemake_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "snakemake" / "our-cluster"
    shutil.copytree(SLURM, own)
    (own / "config.yaml").rename(own / "config.v9+.yaml")
    monkeypatch.chdir(tmp_path)
    by_name, by_file = read_site(Path("our-cluster")), read_site(SLURM / "config.yaml")
    assert by_name.partition_file == own / "partitions.yaml"
    assert by_file.partition_file == SLURM / "partitions.yaml"
    # The profile that comes with the workflow, unless Snakemake knows one of this name.
    assert read_site(Path("slurm")).partition_file == SLURM / "partitions.yaml"
    shutil.copytree(SLURM, tmp_path / "slurm")
    assert read_site(Path("slurm")).partition_file == Path("slurm/partitions.yaml")
