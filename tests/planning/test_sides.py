"""Left and right in the names of regions."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scans import label_with, write_nnunet
from voxelsoup.commands.cli import main
from voxelsoup.models import weight_files
from voxelsoup.planning.sides import names_of_sides, notes_on_sides
from voxelsoup.study.loading import load, read


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (["kidney_left", "kidney_right", "liver"], ["kidney_left", "kidney_right"]),
        (["LeftKidney", "spleen"], ["LeftKidney"]),
        (["Left_Hippocampus", "Right_Hippocampus"], ["Left_Hippocampus", "Right_Hippocampus"]),
        (["kidney_l", "kidney_r"], ["kidney_l", "kidney_r"]),
        (["femurL", "femurR"], ["femurL", "femurR"]),
        (["ctx_lh_insula", "ctx_rh_insula"], ["ctx_lh_insula", "ctx_rh_insula"]),
        (["vertebra_L1", "vertebra_L2", "vertebra_S1"], []),
        (["lesion_l", "organ_r"], []),
        (["TC", "WT", "ET"], []),
        (["RV", "MYO", "LV"], []),
        (["bright_spot", "cleft", "rights"], []),
    ],
)
def test_names_of_sides(names: list[str], sides: list[str]) -> None:
    assert names_of_sides(names) == sides


def test_init_leaves_x_out_where_labels_name_a_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"background": 0, "kidney_right": 1, "kidney_left": 2}
    write_nnunet(tmp_path / "D", labels, label_with([1, 2]))
    file = tmp_path / "study.yaml"
    assert main(["init", str(tmp_path / "D"), "--output", str(file)]) == 0
    study = read(file)
    assert study.training.mirror_axes == ["y", "z"]
    said = capsys.readouterr().out
    assert "mirror_axes" in said and "kidney_right" in said
    assert "kidney_right and kidney_left name a side" in " ".join(
        file.read_text().replace("#", "").split()
    )
    assert weight_files.describe(study)["mirror_axes"] == ["y", "z"]
    assert notes_on_sides(study) == []


def test_init_says_nothing_of_mirroring_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"background": 0, "edema": 1, "core": 2}
    write_nnunet(tmp_path / "D", labels, label_with([1, 2]))
    file = tmp_path / "study.yaml"
    assert main(["init", str(tmp_path / "D"), "--output", str(file)]) == 0
    assert "mirror_axes" not in file.read_text() + capsys.readouterr().out


def test_a_study_that_mirrors_sides_is_noted_unless_it_says_so() -> None:
    study = {
        "dataset": {"channels": ["t1n"]},
        "regions": {"kidney_left": [1], "kidney_right": [2]},
    }
    (note,) = notes_on_sides(load(study))
    assert "kidney_left" in note and "[y, z]" in note
    assert notes_on_sides(load(study | {"training": {"mirror_axes": ["x", "y", "z"]}})) == []
    assert notes_on_sides(load(study | {"training": {"augmentation": "none"}})) == []


def test_the_default_is_not_written_down_so_that_older_studies_stay_the_same() -> None:
    study = load({"dataset": {"channels": ["t1n"]}, "regions": {"WT": [1]}})
    assert "mirror_axes" not in study.model_dump(mode="json")["training"]
    assert "mirror_axes" not in weight_files.describe(study)
