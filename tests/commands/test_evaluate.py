"""`voxelsoup evaluate`: scores of models and of label maps, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from support.model_files import lively
from voxelsoup.commands import cli
from voxelsoup.common.files import write_json
from voxelsoup.comparison.statistics import paired_difference
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.prediction.model_files import ModelFile
from voxelsoup.study.sections.data import Phantom
from voxelsoup.study.sections.evaluation import Metrics


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return lively(tmp_path_factory.mktemp("model") / "model.safetensors", 0)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tiny labelled BraTS cases; for reading only."""
    folder = tmp_path_factory.mktemp("scans") / "scans"
    write_phantom(folder, Phantom(cases=4, shape=[24, 28, 24]))
    return folder


def evaluate(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


def scores(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "scores.csv")


def label_maps(scans: Path, folder: Path) -> Path:
    """The ground truth under the cases' names, as somebody's predictions."""
    folder.mkdir()
    for file in scans.rglob("*-seg.nii.gz"):
        shutil.copy(file, folder / f"{file.parent.name}.nii.gz")
    return folder


def test_a_model_is_scored_as_the_label_maps_that_it_writes(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(model.path, scans, "--output", out) == 0
    printed = capsys.readouterr().out
    assert "mean over 4 cases" in printed and "Lesion-wise HD95 (mm)" in printed
    rows = scores(out)
    assert list(rows.columns) == ["case", "region", "dice", *Metrics().names]
    assert len(rows) == 4 * 3 and 0 < rows["dice"].mean() < 1
    # By voxels, counted here.
    for case in rows["case"].unique():
        found, truth = (
            np.isin(np.asarray(nib.load(file).dataobj), [1, 2, 3])
            for file in (
                out / f"predictions/{case}.nii.gz",
                next(scans.rglob(f"{case}-seg.nii.gz")),
            )
        )
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        mine = rows[(rows["case"] == case) & (rows["region"] == "WT")]["dice"].iloc[0]
        assert mine == pytest.approx(dice, abs=1e-6)
    summary = pd.read_csv(out / "summary.csv").set_index(["region", "metric"])
    wanted = paired_difference([rows[rows["region"] == "TC"]["dice"].to_numpy()])
    row = summary.loc[("TC", "dice")]
    # Of few cases it would be wider than what Dice scores there are.
    ends = max(0.0, wanted.low), min(1.0, wanted.high)
    assert (row["mean"], row["low"], row["high"]) == (wanted.mean, *ends)

    again = tmp_path / "again"
    given = ("--predictions", out / "predictions", "--output", again)
    assert evaluate(model.path, scans, *given) == 0
    assert (again / "scores.csv").read_text() == (out / "scores.csv").read_text()
    assert not (again / "predictions").exists()


def test_nothing_is_written_over(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/summary.csv").write_text("mine")
    maps = label_maps(scans, tmp_path / "maps")
    given = (scans, "--predictions", maps, "--regions", "ET=3", "--background", "1,2")
    assert evaluate(*given, "--output", tmp_path / "out") == 1
    assert "already exists" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["summary.csv"]
    assert (tmp_path / "out/summary.csv").read_text() == "mine"


def test_label_maps_of_anyone_are_scored_without_a_model(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = label_maps(scans, tmp_path / "maps")
    first, second, *_ = sorted(maps.iterdir())
    first.unlink()
    second.rename(maps / "other.nii.gz")
    given = (scans, "--predictions", maps, "--output", tmp_path / "out")
    assert evaluate(*given) == 1
    assert "does not say what its label values mean" in capsys.readouterr().err
    assert evaluate(*given, "--regions", "WT=1+2+3,ET=3") == 1
    printed = capsys.readouterr()
    assert "2 cases could not be scored" in printed.err and first.name[:-7] in printed.err
    assert "of no case with ground truth: other.nii.gz" in printed.out
    rows = scores(tmp_path / "out")
    assert rows["case"].nunique() == 2 and set(rows["dice"]) == {1}
    left_out = pd.read_csv(tmp_path / "out/left_out.tsv", sep="\t")
    assert list(left_out["case"]) == [first.name[:-7], second.name[:-7]]


def test_label_maps_are_found_however_they_are_laid_out(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = label_maps(scans, tmp_path / "maps")
    first, second, third, fourth = sorted(maps.iterdir())
    names = [file.name[:-7] for file in (first, second, third, fourth)]
    # As nnU-Net calls a scan; in capitals, in a folder of the case; alone there; and none.
    first.rename(maps / f"{names[0]}_0000.nii.gz")
    for name in names[1:]:
        (maps / name).mkdir()
    second.rename(maps / names[1] / f"{names[1]}-seg.NII.GZ")
    shutil.copy(third, maps / names[1] / "probabilities.nii.gz")
    third.rename(maps / names[2] / "tumour.nii.gz")
    fourth.rename(maps / names[3] / "a.nii.gz")
    shutil.copy(maps / names[3] / "a.nii.gz", maps / names[3] / "b.nii.gz")
    given = (scans, "--regions", "WT=1+2+3", "--output")
    assert evaluate(*given, tmp_path / "out", "--predictions", maps) == 1
    printed = capsys.readouterr()
    assert f"holds no label map of the case {names[3]}" in printed.err
    assert f"of no case with ground truth: {names[3]}/a.nii.gz, {names[3]}/b.nii.gz" in printed.out
    rows = scores(tmp_path / "out")
    assert list(rows["case"]) == names[:3] and set(rows["dice"]) == {1}
    # One file: of the case whose name it has, or of the only one.
    one = maps / f"{names[0]}_0000.nii.gz"
    assert evaluate(*given, tmp_path / "one", "--predictions", one) == 0
    assert list(scores(tmp_path / "one")["case"]) == names[:1]
    other = maps / names[2] / "tumour.nii.gz"
    assert evaluate(*given, tmp_path / "none", "--predictions", other) == 1
    assert "has the name of no case" in capsys.readouterr().err
    truth = next(scans.rglob(f"{names[2]}-seg.nii.gz"))
    given = (truth, "--regions", "WT=1+2+3", "--output", tmp_path / "pair")
    assert evaluate(*given, "--predictions", other) == 0
    assert list(scores(tmp_path / "pair")["case"]) == [names[2]]
    # Saved without the header of its scan.
    nib.save(nib.Nifti1Image(np.asarray(nib.load(one).dataobj), np.diag([5, 1, 1, 1])), one)
    given = (scans, "--regions", "WT=1+2+3", "--predictions", one, "--output", tmp_path / "moved")
    assert evaluate(*given) == 1
    assert "--placement voxels" in capsys.readouterr().err
    (tmp_path / "moved/left_out.tsv").unlink()
    assert evaluate(*given, "--placement", "voxels") == 0
    assert set(scores(tmp_path / "moved")["dice"]) == {1}
    shutil.copy(one, maps / f"{names[0]}.nii.gz")
    given = (scans, "--regions", "WT=1+2+3", "--output", tmp_path / "two")
    assert evaluate(*given, "--predictions", maps) == 1
    assert f"holds both {names[0]}.nii.gz and {names[0]}_0000.nii.gz" in capsys.readouterr().err


def test_regions_follow_the_names_that_the_data_set_gives_its_values(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = label_maps(scans, tmp_path / "labelsTr")
    (tmp_path / "imagesTr").mkdir()
    entries = []
    for file in sorted(maps.iterdir()):
        shutil.copy(file, tmp_path / "imagesTr" / file.name)
        entries.append({"image": f"imagesTr/{file.name}", "label": f"labelsTr/{file.name}"})
    labels = {"0": "background", "1": "necrosis", "2": "oedema", "3": "enhancing tumour"}
    described = {"modality": {"0": "MR"}, "labels": labels, "training": entries}
    write_json(tmp_path / "dataset.json", described)
    assert evaluate(tmp_path, "--predictions", maps, "--output", tmp_path / "out") == 0
    assert set(scores(tmp_path / "out")["region"]) == {"necrosis", "oedema", "enhancing_tumour"}
    # A model whose regions are called the same, with other values.
    lively(tmp_path / "m.safetensors", 0)
    given = (tmp_path / "m.safetensors", tmp_path, "--predictions", maps)
    labels |= {"1": "wt", "2": "tc", "3": "et"}
    write_json(tmp_path / "dataset.json", described)
    capsys.readouterr()
    assert evaluate(*given, "--output", tmp_path / "out2") == 0
    printed = capsys.readouterr().out
    assert "unlike the model's: TC: [2]; WT: [1]; ET: [3]" in printed
    assert set(scores(tmp_path / "out2")["dice"]) == {1}
    # A description of single values that agrees with nested regions.
    labels |= {"1": "tc", "2": "wt"}
    write_json(tmp_path / "dataset.json", described)
    assert evaluate(*given, "--output", tmp_path / "nested") == 0
    assert "unlike" not in capsys.readouterr().out
    labels |= {"1": "something", "2": "tc"}
    write_json(tmp_path / "dataset.json", described)
    assert evaluate(*given, "--output", tmp_path / "out3") == 1
    assert "describes `TC` as the label values [2]" in capsys.readouterr().err


def test_metrics_are_those_of_the_study_that_made_the_model(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    study = results / "report/study.yaml"
    study.parent.mkdir(parents=True)
    content = {
        "dataset": {"channels": ["t1n", "t1c", "t2w", "t2f"]},
        "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
        "metrics": {"names": ["nsd"], "surface_tolerance": 2.5},
    }
    study.write_text(json.dumps(content))
    own = results / "fold0/best/model.safetensors"
    own.parent.mkdir(parents=True)
    shutil.copy(model.path, own)
    maps = label_maps(scans, tmp_path / "maps")
    given = (scans, "--predictions", maps, "--output")
    assert evaluate(own, *given, tmp_path / "one") == 0
    assert str(study) in capsys.readouterr().out
    assert list(scores(tmp_path / "one").columns) == ["case", "region", "dice", "nsd"]
    assert evaluate(*given, tmp_path / "two", "--study", study) == 0
    assert (tmp_path / "one/scores.csv").read_text() == (tmp_path / "two/scores.csv").read_text()


def test_values_that_a_study_ignores_or_counts_as_background_are_so_here(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = label_maps(scans, tmp_path / "maps")
    for file in maps.iterdir():
        image = nib.load(file)
        voxels = np.asarray(image.dataobj).copy()
        # Wrong where nobody has annotated, and only there.
        voxels[voxels == 2] = 3
        nib.save(nib.Nifti1Image(voxels, image.affine, image.header), file)
    study = tmp_path / "study.json"
    dataset = {"channels": ["t1n", "t1c", "t2w", "t2f"], "background": [1]}
    given = (scans, "--predictions", maps, "--study", study, "--output")
    write_json(study, {"dataset": dataset, "regions": {"ET": [3]}})
    assert evaluate(*given, tmp_path / "refused") == 1
    assert "2" in capsys.readouterr().err
    write_json(study, {"dataset": dataset | {"ignore_label": 2}, "regions": {"ET": [3]}})
    assert evaluate(*given, tmp_path / "out") == 0
    assert set(scores(tmp_path / "out")["dice"]) == {1}


@pytest.mark.parametrize("named", [True, False], ids=["--study", "the model's study"])
def test_regions_that_a_study_calls_not_annotated_are_not_scored(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    study = tmp_path / "results/report/study.yaml"
    content = {
        "dataset": {
            "channels": ["t1n", "t1c", "t2w", "t2f"],
            "not_annotated": {"Phantom-000[01]-*": ["ET"]},
        },
        "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
        "metrics": {"names": []},
    }
    study.parent.mkdir(parents=True)
    study.write_text(json.dumps(content))
    own = tmp_path / "results/fold0/best/model.safetensors"
    own.parent.mkdir(parents=True)
    shutil.copy(model.path, own)
    maps = label_maps(scans, tmp_path / "maps")
    given = (scans, "--predictions", maps, "--output", tmp_path / "out")
    assert evaluate(*(() if named else (own,)), *given, *(("--study", study) if named else ())) == 0
    found = scores(tmp_path / "out")
    hidden = found["case"].str.match("Phantom-000[01]")
    assert set(found.loc[hidden, "region"]) == {"TC", "WT"} and hidden.sum() == 4
    assert set(found.loc[~hidden, "region"]) == {"TC", "WT", "ET"}
    assert "Of 4 cases, ET is annotated in 2" in capsys.readouterr().out


def test_scans_beside_a_folder_of_their_label_maps(
    model: ModelFile, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "imagesTs"
    flat.mkdir()
    for file in scans.rglob("*-t??.nii.gz"):
        shutil.copy(file, flat)
    maps = label_maps(scans, tmp_path / "labelsTs")
    next(iter(sorted(maps.iterdir()))).unlink()
    assert evaluate(model.path, flat, "--output", tmp_path / "none") == 1
    assert "no label map of them" in capsys.readouterr().err
    given = (model.path, flat, "--labels", maps, "--output", tmp_path / "out")
    assert evaluate(*given) == 0
    assert "without a label map, and not scored: " in capsys.readouterr().out
    assert scores(tmp_path / "out")["case"].nunique() == 3
