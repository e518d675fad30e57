"""The workflow of an installation, and what starts it; tests/workflow has the wheel itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from support.documents import REPOSITORY
from voxelsoup.common import installation, provenance
from voxelsoup.common.errors import InputError
from voxelsoup.common.installation import shipped_profile, snakemake_command, workflow_folder
from voxelsoup.common.workflow_files import FOLDER, copy_workflow, workflow_files

STUDY = Path("study.yaml")


@pytest.fixture(autouse=True)
def without_a_default_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed library, as far as it is asked for here."""
    library = tmp_path / "site-packages" / "voxelsoup"
    copy_workflow(REPOSITORY, library / FOLDER)
    (library / "module.py").write_text("1\n")
    monkeypatch.setattr(installation, "LIBRARY", library)
    installation.hash_of_installation.cache_clear()
    yield library
    installation.hash_of_installation.cache_clear()


def profiles(command: list[str]) -> list[str]:
    return [word for before, word in pairwise(command) if before == "--profile"]


def test_a_checkout_runs_its_own_workflow_with_this_python() -> None:
    command = snakemake_command(STUDY, options=["-n", "--config", "a=1", "--", "all"])
    assert command[:3] == [sys.executable, "-m", "snakemake"]
    assert command[3:7] == ["--snakefile", f"{REPOSITORY}/Snakefile", "--configfile", "study.yaml"]
    assert command[-5:] == ["-n", "--config", "a=1", "--", "all"]


def test_an_installation_runs_the_workflow_that_it_carries(installed: Path) -> None:
    assert workflow_folder() == installed / "project"
    command = snakemake_command(STUDY)
    assert command[4] == str(installed / "project" / "Snakefile")
    assert profiles(command) == [str(installed / "project" / "profiles" / "local")]


def test_an_installation_without_a_workflow_is_named(installed: Path) -> None:
    (installed / FOLDER / "Snakefile").unlink()
    with pytest.raises(InputError, match="has no workflow"):
        snakemake_command(STUDY)


def test_a_shipped_profile_is_found_by_its_name() -> None:
    assert profiles(snakemake_command(STUDY)) == [f"{REPOSITORY}/profiles/local"]
    assert profiles(snakemake_command(STUDY, ["slurm"])) == [f"{REPOSITORY}/profiles/slurm"]
    assert shipped_profile("profiles/slurm") is None


def test_a_profile_of_the_users_comes_before_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    for name in ("slurm", "configuration/snakemake/local"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("cores: 1\n")
    assert profiles(snakemake_command(STUDY, ["slurm"])) == ["slurm"]
    assert profiles(snakemake_command(STUDY)) == ["local"]


@pytest.mark.parametrize("names", [["none"], ["mine", "profiles/slurm"]])
def test_other_profiles_are_left_to_snakemake(names: list[str]) -> None:
    assert profiles(snakemake_command(STUDY, names)) == names


def test_the_profile_of_the_environment_replaces_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "mine")
    assert profiles(snakemake_command(STUDY)) == []
    assert profiles(snakemake_command(STUDY, ["none"])) == ["none"]


def test_the_workflow_has_no_compiled_files(tmp_path: Path) -> None:
    copy_workflow(REPOSITORY, tmp_path / "copy")
    (tmp_path / "copy/workflow/scripts/__pycache__").mkdir()
    (tmp_path / "copy/workflow/scripts/__pycache__/x.pyc").write_text("")
    names = {str(file) for file in workflow_files(tmp_path / "copy")}
    assert {"Snakefile", "workflow/scripts/trial.py", "profiles/slurm/partitions.yaml"} <= names
    assert not any(name.endswith(".pyc") for name in names)


def test_a_copy_of_a_read_only_workflow_can_be_changed(tmp_path: Path) -> None:
    copy_workflow(REPOSITORY, tmp_path / "read_only")
    (tmp_path / "read_only" / "Snakefile").chmod(0o444)
    copy_workflow(tmp_path / "read_only", tmp_path / "copy")
    assert (tmp_path / "copy" / "Snakefile").stat().st_mode & 0o200


def test_results_of_a_checkout_name_its_commit() -> None:
    source = provenance.source()
    # Containers have no history.
    assert source == "unknown" or len(source.removesuffix("-dirty")) == 40
    assert provenance.in_words("0123456789abcdef") == "commit 0123456789ab"


def test_results_of_an_installation_name_the_hash_of_its_files(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "is_checkout", lambda: False)
    before = provenance.source()
    assert before.startswith("sha256:") and len(before) == 7 + 64
    assert provenance.in_words(before) == f"installed files with SHA-256 {before[7:19]}"
    installation.hash_of_installation.cache_clear()
    (installed / FOLDER / "rules" / "train.smk").write_text("changed\n")
    assert provenance.source() != before
