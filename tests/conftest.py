"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from support import slurm
from support.forked import SEARCHED
from support.halving import run_halved
from support.installation import Installation, install
from support.shared_folders import made_once
from support.workflows import REPOSITORY, on_a_terminal
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.study.sections.data import Phantom

TESTS = Path(__file__).parent
SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

# A loaded machine is no defect: properties are checked, not their speed.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


# Files that take minutes, longest first: a worker that began one last would end long after the
# others. Those on Slurm wait for their clusters most of the time, while others keep the cores busy.
LONGEST = (
    "on_slurm/test_cluster.py",
    "workflow/test_workflow.py",
    "workflow/test_studies.py",
    "on_slurm/test_interrupted_runs.py",
    "on_slurm/test_submitted_studies.py",
    "on_slurm/test_submissions.py",
    "on_slurm/test_status_on_slurm.py",
    "workflow/test_recovery.py",
    "workflow/test_halving.py",
    "on_slurm/test_predict_on_slurm.py",
    "workflow/test_predict_workflow.py",
    "workflow/test_large_studies.py",
    "training/test_job.py",
    "training/test_launch.py",
    "runs/test_guard.py",
    "repository/test_documented_commands.py",
    "deploy/test_bundle.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, each as a whole."""
    places = {TESTS / name: place for place, name in enumerate(LONGEST)}
    if gone := [str(path) for path in places if not path.is_file()]:
        raise pytest.UsageError(f"LONGEST in {__file__} names {', '.join(gone)}, which is no file")
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_data: needs the scans in ../shared/data")


@pytest.fixture(scope="session", autouse=True)
def searched_folders() -> Iterator[None]:
    """Processes that tests start have no pytorch-ignite, like those of users: it starts slowly."""
    with pytest.MonkeyPatch.context() as patch:
        # Of this very checkout, also where another one is installed.
        searched = (SEARCHED, TESTS.parent / "src")
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, searched)))
        # And compile this checkout's modules once.
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiny phantom cases, written once; for reading only."""
    folder = tmp_path_factory.mktemp("phantom") / "cases"
    write_phantom(folder, Phantom(cases=6, shape=[32, 32, 24]))
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study as shipped, run once on a terminal, as `make demo` does; for reading only."""

    def run(folder: Path) -> None:
        code, printed = on_a_terminal(folder, REPOSITORY / "config.yaml")
        assert code == 0, printed[-6000:]
        (folder / "printed.txt").write_text(printed)

    return made_once(tmp_path_factory, "demo", run)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel of this checkout, installed read-only for another user."""
    return Installation(made_once(tmp_path_factory, "installed", install))


@pytest.fixture(scope="session")
def halved(tmp_path_factory: pytest.TempPathFactory, installed: Installation) -> Path:
    """A halved study of five trials, run from the wheel; for reading and planning only."""
    return made_once(tmp_path_factory, "halved", partial(run_halved, installed=installed))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's own browser, without a window."""
    programs = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        assert "CI" not in os.environ, "CI has to install chromium"
        pytest.skip("there is no browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[slurm.Cluster]:
    """A real Slurm cluster; one per worker of a parallel test run."""
    yield from _running_cluster(accounting=False)


@pytest.fixture(scope="session")
def accounting_cluster() -> Iterator[slurm.Cluster]:
    """A real Slurm cluster with accounts and their limits."""
    yield from _running_cluster(accounting=True)


def _running_cluster(accounting: bool) -> Iterator[slurm.Cluster]:
    reason = slurm.missing(accounting)
    if reason is not None:
        assert "CI" not in os.environ, f"CI has to run the tests on Slurm: {reason}"
        pytest.skip(reason)
    cluster = slurm.start(accounting)
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def hippocampus_folder() -> Path:
    """The Decathlon's hippocampus data, where they are at hand."""
    return _real(SHARED_DATA / "Task04_Hippocampus")


@pytest.fixture(scope="session")
def brats_folder() -> Path:
    """Two real BraTS-like cases, one of them unlabelled, where they are at hand."""
    return _real(SHARED_DATA / "brats")


def _real(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"the real scans are not at {folder}")
    return folder
