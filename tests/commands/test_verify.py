"""`voxelsoup verify`: every file from scan to last table, compared with what was written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.bundled_studies import TRIAL, Finished, bundled, finish, write_model
from voxelsoup.commands.cli import main
from voxelsoup.commands.verify import Problem, verify
from voxelsoup.common.files import sha256, write_text
from voxelsoup.data.preprocessing.preprocess import preprocess_all
from voxelsoup.deploy.file_manifest import (
    MANIFEST,
    entries_of,
    part_of,
    read_entries,
    write_manifest,
)

DATASET = {"layout": "brats", "channels": ["t1n", "t1c", "t2w", "t2f"]}
REGIONS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}


@pytest.fixture(scope="module")
def sealed(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A finished study of one fold with its manifest, beside its scans; for reading only."""
    folder = tmp_path_factory.mktemp("study")
    root = Path(shutil.copytree(phantom_folder, folder / "scans"))
    results = folder / "results"
    # Seen from the folder that commands are started in.
    dataset = DATASET | {"root": "scans"}
    finished = finish(results, root, {0: 0.6}, dataset=dataset, regions=REGIONS)
    arrays, manifest = results / "preprocessed", results / "preprocessed.tsv"
    study = finished.study
    preprocess_all(
        finished.cases, root, study.preprocess, study.training.patch, arrays, manifest, 1
    )
    write_text(results / "report" / "study.yaml", yaml.safe_dump(study.model_dump(mode="json")))
    write_text(results / "comparison" / "overview.csv", "model,dice\nGreedy Soup,0.9\n")
    write_text(results / "report.html", "<p>")
    # What belongs to no result: of a trial that the study left, and what a run keeps for itself.
    for name in (
        "fold0/trials/bbbb0000/test.csv",
        "fold7/best/test.csv",
        "logs/index.log",
        "notes.md",
    ):
        write_text(results / name, "?")
    write_text(results / "fold0" / "trials" / TRIAL / "events.out.tfevents.1", "?")
    write_text(results / ".state" / "journal", "?")
    bundled(finished)
    write_manifest(results / MANIFEST, entries_of(results, [0], workers=2))
    return finished


@pytest.fixture
def copied(sealed: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results, to be tampered with; the scans lie beside them."""
    shutil.copytree(sealed.root, tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(sealed.results, tmp_path / "results"))


def test_the_manifest_lists_every_file_from_scan_to_last_table(sealed: Finished) -> None:
    entries = read_entries(sealed.results / MANIFEST)
    listed = {entry.file: entry for entry in entries}
    assert len(listed) == len(entries)
    case = sealed.cases[0]
    assert listed[case.name].sha256 == case.sha256
    for name, part in {
        "cases.tsv": "data",
        f"preprocessed/{case.name}.image.npy": "arrays",
        f"preprocessed/{case.name}.json": "arrays",
        f"fold0/trials/{TRIAL}/model.safetensors": "models",
        "fold0/soups/greedy/model.safetensors": "models",
        "fold0/soups/greedy/test.csv": "scores",
        "fold0/soups/greedy/recipe.json": "records",
        "fold0/candidates.tsv": "records",
        "comparison/overview.csv": "tables",
        "models/manifest.tsv": "models",
        "bundle/configs/metadata.json": "bundle",
        "report.html": "report",
    }.items():
        assert listed[name].part == part_of(name) == part
        assert listed[name].sha256 == sha256(sealed.results / name)
    strangers = ("bbbb0000", "fold7", "logs", "tfevents", ".state", "notes", MANIFEST)
    assert not [name for name in listed for stranger in strangers if stranger in name]


def test_an_untouched_study_is_verified(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "results"]) == 0
    printed = capsys.readouterr().out
    # The one number to publish.
    assert sha256(copied / MANIFEST) in printed


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("change", [flip, cut])
@pytest.mark.parametrize(
    "name",
    [
        "cases.tsv",
        "preprocessed/{case}.label.npy",
        f"fold0/trials/{TRIAL}/model.safetensors",
        "fold0/best/test.csv",
        "fold0/soups/greedy/recipe.json",
        "comparison/overview.csv",
        "bundle/models/model.ts",
    ],
)
def test_any_changed_file_is_named(
    sealed: Finished,
    copied: Path,
    name: str,
    change: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = name.format(case=sealed.cases[0].name)
    change(copied / name)
    assert main(["verify", "results"]) == 1
    printed = capsys.readouterr().out
    assert f"changed    {part_of(name):8} {name}" in printed
    assert f"Not as {Path('results', MANIFEST)} lists them: one file" in printed


def test_verify_names_missing_files(copied: Path) -> None:
    (copied / "comparison" / "overview.csv").unlink()
    assert verify(copied) == [Problem("tables", "comparison/overview.csv", "missing")]


def test_without_its_cases_a_study_is_not_taken_for_sound(sealed: Finished, copied: Path) -> None:
    (copied / "cases.tsv").write_text("case\nx\n")
    found = {(problem.part, problem.found) for problem in verify(copied)}
    assert found == {("data", "changed"), ("scans", "missing")}


def test_without_its_study_file_the_others_are_verified_all_the_same(
    sealed: Finished, copied: Path
) -> None:
    (copied / "report" / "study.yaml").unlink()
    (copied / "comparison" / "overview.csv").unlink()
    found = {problem.file for problem in verify(copied)}
    assert {"report/study.yaml", "comparison/overview.csv"} <= found


def test_verify_hashes_scans_again_in_any_folder(
    sealed: Finished, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = sealed.cases[1]
    flip(copied.parent / "scans" / case.channels["t1c"].file)
    assert verify(copied) == [Problem("scans", case.name, "changed")]
    shutil.move(copied.parent / "scans", copied.parent / "moved")
    assert len(verify(copied)) == len(sealed.cases)
    assert main(["verify", "results", "--data", "moved"]) == 1
    assert f"changed    scans    {case.name}" in capsys.readouterr().out


def test_a_file_changed_before_the_manifest_is_detected_by_its_own_hash(copied: Path) -> None:
    """Hashes of models are those that were taken when they were written."""
    flip(copied / "fold0" / "trials" / TRIAL / "model.safetensors")
    write_manifest(copied / MANIFEST, entries_of(copied, [0], workers=1))
    found = [(problem.part, Path(problem.file).name) for problem in verify(copied)]
    assert found == [("models", "model.safetensors")]


def test_a_bundle_is_verified_by_itself(
    sealed: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(sealed.bundle, bundle)
    assert main(["verify", str(bundle)]) == 0
    write_model(bundle / "models", sealed.study, seed=9)
    assert main(["verify", str(bundle)]) == 1
    assert "changed    bundle   models/model.safetensors" in capsys.readouterr().out


def test_a_study_that_is_not_finished_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path)]) == 1
    assert "run the study to its end" in capsys.readouterr().err
