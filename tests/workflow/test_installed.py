"""The workflow of an installed wheel, run by another user, in folders of theirs, read-only.

The study of ``halved`` (tests/support/halving.py) was run in this way from its file to the report.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from support.documents import REPOSITORY
from support.halving import AS_RUN, PROCESS
from support.installation import Installation, archive_of, wheel_of
from support.workflows import planned
from voxelsoup.common.files import read_json, sha256
from voxelsoup.common.workflow_files import FOLDER, workflow_files


def packed(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {one.filename: one.CRC for one in archive.infolist() if "RECORD" not in one.filename}


def test_the_wheel_carries_the_workflow_of_the_checkout(installed: Installation) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        carried = {
            name.removeprefix(f"voxelsoup/{FOLDER}/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith(f"voxelsoup/{FOLDER}/")
        }
    expected = {str(file): (REPOSITORY / file).read_bytes() for file in workflow_files(REPOSITORY)}
    assert carried == expected


def test_the_archive_of_the_sources_builds_the_same_wheel(
    installed: Installation, tmp_path: Path
) -> None:
    again = wheel_of(archive_of(installed.source, tmp_path), tmp_path)
    assert packed(again) == packed(installed.wheel)


def test_the_library_is_the_installed_one_and_read_only(installed: Installation) -> None:
    program = "import os, voxelsoup; print(os.getuid(), voxelsoup.__file__)"
    user, file = installed.run(installed.folder("elsewhere"), "python", "-c", program).split()
    assert Path(file) == installed.library / "__init__.py"
    assert installed.library.is_relative_to(installed.environment)
    assert os.geteuid() != 0 or int(user) != 0
    program = f"open({str(installed.library / 'x.py')!r}, 'w')"
    folder = installed.folder("refused")
    assert "PermissionError" in installed.run(folder, "python", "-c", program, code=1)


def test_the_demo_prepares_its_scans_in_a_folder_of_the_user_s(
    demo: Path, installed: Installation
) -> None:
    folder = installed.folder("demo")
    printed = installed.run(folder, "voxelsoup", "demo", "--until", "preprocess", "--cores", "2")
    assert len((folder / "results/preprocessed.tsv").read_text().splitlines()) == 31, printed
    assert {path.name for path in folder.iterdir()} == {".snakemake", "config.yaml", "results"}
    arrays = [path.relative_to(folder) for path in (folder / "results/preprocessed").glob("*.npy")]
    assert len(arrays) >= 30
    for array in arrays:
        assert sha256(folder / array) == sha256(demo / array), array
    # The same study, and nothing of it again.
    again = planned(installed.run(folder, "voxelsoup", "demo", "-n", "--quiet", "rules"))
    assert again["trial"] == 8 and "preprocess" not in again


@pytest.fixture
def finished(halved: Path, installed: Installation, request: pytest.FixtureRequest) -> Path:
    """A folder of the user's with the finished study, in which its results can be read."""
    folder = installed.folder(request.node.name)
    (folder / "study.yaml").write_bytes((halved / AS_RUN).read_bytes())
    (folder / "results").symlink_to(halved / "results")
    return folder


def test_run_is_the_snakemake_of_the_study(
    halved: Path, finished: Path, installed: Installation
) -> None:
    # The same process: signals and the exit code are its own.
    started = read_json(halved / "results/.state/snakemake.json")
    assert started["process"] == int((halved / PROCESS).read_text())
    assert (halved / "results" / "report.html").is_file()
    assert (halved / ".snakemake").is_dir()
    again = "run", "study.yaml", "-n"
    assert "Nothing to be done" in installed.run(finished, "voxelsoup", *again)
    missing = installed.run(finished, "voxelsoup", *again, "nothing.txt", code=1)
    assert "MissingRuleException" in missing


def test_results_name_the_installed_files(halved: Path, installed: Installation) -> None:
    table = pd.read_csv(halved / "results/report/provenance.csv").set_index(["part", "name"])
    source = table.loc[("software", "commit"), "value"]
    assert source.startswith("sha256:") and len(source) == len("sha256:") + 64
    methods = (halved / "results/report/methods.md").read_text()
    assert f"installed files with SHA-256 {source[7:19]}" in methods
    installed.run(halved, "voxelsoup", "verify", "results")


def test_an_ejected_workflow_runs_with_plain_snakemake(
    finished: Path, installed: Installation
) -> None:
    installed.run(finished, "voxelsoup", "eject", "mine")
    plain = ["-m", "snakemake", "--snakefile", "mine/Snakefile", "--configfile", "study.yaml"]
    plain += ["--profile", "mine/profiles/local", "-n"]
    assert "Nothing to be done" in installed.run(finished, "python", *plain)
    # The user, who does not own the installation, changes it.
    program = "open('mine/Snakefile', 'a').write('\\n\\nrule own:\\n    shell: \"true\"\\n')"
    installed.run(finished, "python", "-c", program)
    assert planned(installed.run(finished, "python", *plain, "own"))["own"] == 1


def test_the_installed_workflow_is_a_module_of_another_one(
    halved: Path, installed: Installation
) -> None:
    page = (REPOSITORY / "docs" / "changes.md").read_text()
    (text,) = [part for part in page.split("```")[1::2] if "import workflow_folder" in part]
    folder = installed.folder("module")
    (folder / "study.yaml").write_bytes((halved / AS_RUN).read_bytes())
    (folder / "Snakefile").write_text(
        f'configfile: "study.yaml"\nconfig = {{"segmentation": config}}\n{text}'
    )
    printed = installed.run(folder, "python", "-m", "snakemake", "-n", "--cores", "1")
    assert planned(printed)["segmentation_rung"] == 5
