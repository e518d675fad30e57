"""Studies of other kinds than the shipped one, run through the workflow on a tiny phantom."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from workflows import REPOSITORY, snakemake, write_study

from segsoup.cases.phantom import write_phantom
from segsoup.comparison import OPTIMISTIC
from segsoup.files import sha256
from segsoup.study import Phantom

PROFILE = ["--profile", str(REPOSITORY / "profiles" / "local")]
# What BraTS called its contrasts up to 2021, when the enhancing tumour was label 4.
CONTRASTS = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
TRAINING = {"patch": [16, 16, 16], "epochs": 1, "steps_per_epoch": 2}
NETWORK = {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine cases of eight patients."""
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(folder, Phantom(cases=9, shape=[24, 28, 24]))
    return folder


def volumes_of(case: Path) -> dict[str, nib.Nifti1Image]:
    return {end: nib.load(case / f"{case.name}-{end}.nii.gz") for end in (*CONTRASTS, "seg")}


def write_brats_2021(phantom: Path, root: Path) -> list[str]:
    names = []
    for number, case in enumerate(sorted(phantom.iterdir())):
        name = f"BraTS2021_{number:05d}"
        (root / name).mkdir(parents=True)
        for end, image in volumes_of(case).items():
            voxels = np.asarray(image.dataobj)
            if end == "seg":
                voxels = np.where(voxels == 3, 4, voxels).astype(np.float32)
            file = f"{name}_{CONTRASTS.get(end, end)}.nii" + ("" if number % 2 else ".gz")
            nib.save(nib.Nifti1Image(voxels, image.affine), root / name / file)
        names.append(name)
    return names


def write_nnunet(phantom: Path, root: Path) -> list[str]:
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    for case in phantom.iterdir():
        *images, label = volumes_of(case).values()
        for number, image in enumerate(images):
            nib.save(image, root / "imagesTr" / f"{case.name}_{number:04d}.nii.gz")
        nib.save(label, root / "labelsTr" / f"{case.name}.nii.gz")
    channels = {str(number): name for number, name in enumerate(CONTRASTS.values())}
    description = {"channel_names": channels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    return sorted(case.name for case in phantom.iterdir())


def dataset(layout: str, **settings: Any) -> dict[str, Any]:
    return {"layout": layout, "root": "data", "channels": [*CONTRASTS.values()], **settings}


@pytest.fixture(scope="module")
def published(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study as a BraTS 2021 team has it, with one case that was cut off on its way."""
    folder = tmp_path_factory.mktemp("published")
    names = write_brats_2021(phantom, folder / "data")
    broken = folder / "data" / names[0] / f"{names[0]}_t1ce.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    entries = [
        {"image": [f"TrainingData/{name}/{name}_t1.nii.gz"], "fold": number % 2}
        for number, name in enumerate(names)
    ]
    entries[7]["fold"] = -1
    del entries[8]["fold"]
    (folder / "datalist.json").write_text(json.dumps({"training": entries}))
    rows = [f"{name},{name if number < 7 else 'both'}" for number, name in enumerate(names)]
    (folder / "patients.csv").write_text("\n".join(["case,patient", *rows]))
    study = write_study(
        folder / "study.yaml",
        dataset=dataset("brats", patients="patients.csv", on_bad_case="skip"),
        regions={"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]},
        folds={"file": "datalist.json", "count": 2, "run": [0]},
        evaluation={"protocol": "published", "overlap": 0.0},
        network=NETWORK,
        training=TRAINING,
        stem="none",
        sweep={"grid": {"optimizer.schedule": ["schedule-free", "polynomial"]}},
        soup={"recipes": ["greedy"]},
    )
    (folder / "printed.txt").write_text(snakemake(folder, *PROFILE, config=study))
    return folder


def test_a_given_split_passes_over_the_case_that_cannot_be_used(published: Path) -> None:
    rejected = pd.read_csv(published / "results" / "rejected.tsv", sep="\t")
    assert rejected["case"].tolist() == ["BraTS2021_00000"]
    fold = json.loads((published / "results" / "folds.json").read_text())["folds"]["0"]
    assert fold["test"] == fold["selection"] == [f"BraTS2021_0000{number}" for number in (2, 4, 6)]
    assert fold["training"] == [f"BraTS2021_0000{number}" for number in (1, 3, 5, 7, 8)]
    log = (published / "results" / "logs" / "folds.log").read_text()
    assert "case BraTS2021_00000 is left out" in log


def test_every_number_of_the_published_protocol_is_marked(published: Path) -> None:
    results = published / "results"
    shown = [*(results / "comparison").iterdir(), results / "models" / "manifest.tsv"]
    shown += [
        results / "figures" / f"{name}.svg"
        for name in ("selection_against_test", "build_up", "barriers", "weight_distances")
    ]
    assert len(shown) == 14
    for file in shown:
        assert "optimistic" in file.read_text().lower(), file
    assert OPTIMISTIC in (published / "printed.txt").read_text().lower()
    assert "All numbers are optimistic" in (results / "report.html").read_text()


def test_a_study_without_a_stem_trains_none(published: Path) -> None:
    assert not (published / "results" / "fold0" / "stem").exists()
    manifest = pd.read_csv(published / "results" / "models" / "manifest.tsv", sep="\t")
    assert manifest["kind"].tolist() == ["trial", "trial", "soup"]


def test_fine_tuning_of_a_checkpoint_on_nnunets_folders_and_folds(
    phantom: Path, published: Path, tmp_path: Path
) -> None:
    names = write_nnunet(phantom, tmp_path / "data")
    split = [{"train": names[3:], "val": names[:3]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(split))
    (checkpoint,) = (published / "results" / "models").glob("*soup_greedy*")
    study = write_study(
        tmp_path / "study.yaml",
        dataset=dataset("nnunet"),
        folds={"file": "splits_final.json", "count": 2, "run": [0]},
        network=NETWORK,
        training=TRAINING,
        stem=str(checkpoint),
        sweep={"grid": {}},
    )
    run = "results/fold0/trials/44136fa3/run.json"
    snakemake(tmp_path, *PROFILE, run, config=study)
    assert json.loads((tmp_path / run).read_text())["initial_sha256"] == sha256(checkpoint)
    folds = json.loads((tmp_path / "results" / "folds.json").read_text())["folds"]["0"]
    assert folds["test"] == names[:3]
