"""Fixtures of the tests on Slurm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import slurm
from support.disturbed_studies import RESOURCES, Disturbed
from support.shared_folders import made_once
from support.studies import TARGET, run_locally, write_tiny


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study run on this machine, undisturbed."""

    def run(folder: Path) -> None:
        write_tiny(folder, resources=RESOURCES)
        run_locally(folder, TARGET)

    return made_once(tmp_path_factory, "calm", run)


@pytest.fixture
def study(cluster: slurm.Cluster, tmp_path: Path, calm: Path) -> Iterator[Disturbed]:
    disturbed = Disturbed(cluster, tmp_path, calm)
    try:
        yield disturbed
    finally:
        disturbed.stop()
