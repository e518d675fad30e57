"""`voxelsoup index` and `voxelsoup init`: what a newcomer sees of a folder of scans."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from support.scans import label_with, write_nnunet
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.planning.init import next_steps
from voxelsoup.study.loading import load, read
from voxelsoup.study.sections.data import Accept


def test_init_proposes_a_study_for_the_phantom(phantom_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    assert main(["init", str(phantom_folder), "--output", str(file)]) == 0
    study = read(file)
    assert study.dataset.layout == "brats"
    assert study.dataset.channels == ["t1n", "t1c", "t2w", "t2f"]
    assert study.regions == {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
    # Some of its cases have no enhancing tumour.
    assert study.folds.balance == ["regions"]
    assert study.preprocess.spacing is None
    assert max(study.training.patch) <= 32
    assert main(["index", str(file)]) == 0


@pytest.mark.parametrize(
    ("output", "in_checkout", "run"),
    [
        ("config.yaml", True, "snakemake --profile profiles/local"),
        ("study.yaml", True, "snakemake --profile profiles/local --configfile study.yaml"),
        ("study.yaml", False, "voxelsoup run study.yaml"),
    ],
)
def test_the_next_steps_are_those_of_a_checkout_or_of_an_installation(
    output: str, in_checkout: bool, run: str
) -> None:
    assert run in next_steps(Path(output), in_checkout)


def test_init_does_not_replace_an_existing_file(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("mine")
    assert main(["init", str(phantom_folder), "--output", str(file)]) == 1
    assert "--force" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_init_advises_a_free_name_instead_of_a_taken_one(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    for name in ("study.yaml", "study-2.yaml"):
        (tmp_path / name).write_text("mine")
    assert main(["init", str(phantom_folder), "--output", str(file)]) == 1
    advised = re.findall(r"--output (\S+)`", capsys.readouterr().err)
    assert advised == [str(tmp_path / "study-3.yaml")]


def test_index_prints_json(phantom_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(phantom_folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["dataset"]["layout"] == "brats"
    assert len(shown["cases"]) == 6 and not shown["bad"]


def test_folds_that_cannot_be_made_are_shown_beside_the_cases(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    assert main(["init", str(phantom_folder), "--output", str(file)]) == 0
    file.write_text(file.read_text().replace("count: 2", "count: 9"))
    capsys.readouterr()
    assert main(["index", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "6 usable" in printed and "9 folds, but the data set has 5 patient(s)" in printed
    # No line is filled up to a terminal's width where there is no terminal.
    assert max(map(len, printed.splitlines())) < 300
    assert main(["index", str(file), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["folds"]["where"] == "folds.count"


def test_index_of_an_empty_folder_names_the_layouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", str(tmp_path)]) == 1
    assert "nnunet" in capsys.readouterr().err


@pytest.mark.real_data
def test_init_proposes_a_study_for_the_hippocampus(
    hippocampus_folder: Path, tmp_path: Path
) -> None:
    assert main(["init", str(hippocampus_folder), "--output", str(tmp_path / "s.yaml")]) == 0
    study = read(tmp_path / "s.yaml")
    assert (study.dataset.layout, study.dataset.channels) == ("decathlon", ["MRI"])
    assert study.regions == {"Anterior": [1], "Posterior": [2]}
    assert study.training.patch == [32, 48, 32]


def test_init_writes_what_may_be_accepted_as_comments(
    phantom_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, file = Path(shutil.copytree(phantom_folder, tmp_path / "scans")), tmp_path / "study.yaml"
    first, second, third, fourth, *_ = sorted(path for path in scans.iterdir() if path.is_dir())
    # NaN; a channel without file, and a constant one; a label map without its scan's header.
    change(first / f"{first.name}-t1c.nii.gz", lambda voxels: voxels.__setitem__(0, np.nan))
    (first / f"{first.name}-t2w.nii.gz").unlink()
    change(second / f"{second.name}-t1n.nii.gz", lambda voxels: voxels.fill(7))
    change(third / f"{third.name}-seg.nii.gz", lambda voxels: None, np.diag([9.0, 1, 1, 1]))
    # Labels beside the head.
    change(fourth / f"{fourth.name}-seg.nii.gz", lambda voxels: voxels[:2].fill(3))
    assert main(["init", str(scans), "--output", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "(`dataset.accept.nan`, there as a comment): NaN in a scan: " + first.name in printed
    text = file.read_text()
    assert read(file).dataset.accept == Accept()
    assert f"(2 cases of 6: {first.name}, {second.name})" in text
    assert main(["index", str(file)]) == 1
    # Uncommented, the study is one that takes all cases.
    keys = "accept|nan|missing_channels|placement|labels_outside"
    file.write_text(re.sub(rf"(?m)^  # ( *(?:{keys}):.*)$", r"  \1", text))
    accepted = Accept(
        nan="background", missing_channels="zeros", placement="voxels", labels_outside=True
    )
    assert read(file).dataset.accept == accepted
    assert main(["index", str(file)]) == 0


def change(file: Path, edit: Any, affine: np.ndarray | None = None) -> None:
    """A NIfTI file with other voxels, as floating point, or another affine."""
    image = nib.load(file)
    voxels = np.array(image.dataobj, np.float32)
    edit(voxels)
    header = None if affine is not None else image.header
    stored = nib.Nifti1Image(voxels, image.affine if affine is None else affine, header)
    stored.set_data_dtype(np.float32)
    nib.save(stored, file)


def test_init_takes_over_the_ignore_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"background": 0, "hot": 1, "ignore": 2}
    write_nnunet(tmp_path / "D", labels, label_with([1, 2]))
    file = tmp_path / "study.yaml"
    assert main(["init", str(tmp_path / "D"), "--output", str(file)]) == 0
    study = read(file)
    assert study.regions == {"hot": [1]} and study.dataset.ignore_label == 2
    assert "label 2 is the ignore label" in capsys.readouterr().out
    assert main(["index", str(file)]) == 0
    file.write_text(file.read_text().replace("  ignore_label: 2\n", ""))
    assert main(["index", str(file)]) == 1


def test_a_region_of_ignored_voxels_is_refused() -> None:
    with pytest.raises(InputError, match="ignore_label` is 3, which region `ET`"):
        load({"dataset": {"channels": ["t1n"], "ignore_label": 3}, "regions": {"ET": [3]}})


def test_init_balances_folds_by_a_column_site(phantom_folder: Path, tmp_path: Path) -> None:
    names = sorted(folder.name for folder in phantom_folder.iterdir())
    rows = [f"{n},{n}/{n}-t1n.nii.gz,{n}/{n}-seg.nii.gz,s{k % 2}" for k, n in enumerate(names)]
    root = tmp_path / "data"
    root.mkdir()
    for name in names:
        (root / name).symlink_to(phantom_folder / name)
    (root / "cases.csv").write_text("case,t1,label,site\n" + "\n".join(rows))
    file = tmp_path / "study.yaml"
    assert main(["init", str(root), "--output", str(file)]) == 0
    assert read(file).folds.balance == ["regions", "site"]
    assert "the table has a column site" in " ".join(file.read_text().split())
    assert main(["index", str(file)]) == 0


@pytest.mark.parametrize(
    ("channel", "low", "high", "scheme"),
    [
        ("CT", -1000, 1500, "ct"),
        ("Computed Tomography", -1000, 1500, "ct"),
        ("NCCT", -160, 240, "ct"),
        ("image", -1024, 3071, "ct"),
        ("CT", 0, 255, "zscore"),
        ("PET", 0, 40, "zscore"),
        ("T1", -3, 900, "zscore"),
        ("pact", -3, 900, "zscore"),
    ],
)
def test_init_proposes_ct_by_names_and_hounsfield_units(
    channel: str,
    low: int,
    high: int,
    scheme: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    random, label = np.random.default_rng(0), label_with([1])
    images = [random.integers(low, high + 1, label.shape).astype(np.int16) for _ in range(6)]
    for image in images:
        image.flat[:2] = low, high
    write_nnunet(tmp_path / "D", {"background": 0, "hot": 1}, label, channel, images)
    file = tmp_path / "study.yaml"
    assert main(["init", str(tmp_path / "D"), "--output", str(file)]) == 0
    assert read(file).preprocess.normalisation == scheme
    assert ("Hounsfield" in capsys.readouterr().out) == (scheme == "ct")
    assert ("no Hounsfield" in " ".join(file.read_text().replace("#", "").split())) == (
        channel == "CT" and scheme != "ct"
    )
