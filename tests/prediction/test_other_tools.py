"""Label maps of other tools: which files are taken, what is refused, and how they are scored."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import AsDiscrete, SaveImage

from support.scored_studies import STUDY
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import write_json
from voxelsoup.data.index.index import index_cases
from voxelsoup.data.layouts.phantom import write_phantom
from voxelsoup.evaluation.metrics import score_regions, scoring_of
from voxelsoup.prediction.other_tools import (
    check_other_tools,
    files_of_tool,
    maps_of_tool,
    note_on_others,
    score_tool,
)
from voxelsoup.study.loading import load
from voxelsoup.study.sections.data import Phantom
from voxelsoup.study.study import Study

REGIONS = {"WT": [1, 2, 3], "ET": [3]}


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data.astype(np.uint8), np.eye(4) if affine is None else affine)
    nib.save(image, path)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scans"
    write_phantom(folder, Phantom(cases=5, shape=[24, 28, 24]))
    return folder


def study_of(scans: Path, folder: Path, **changes: Any) -> Study:
    """A study of the scans with one tool, whose label maps lie in ``folder/maps``."""
    dataset = {"layout": "brats", "root": str(scans), "channels": ["t1n"]}
    content = STUDY | {"dataset": dataset, "regions": REGIONS, "results": str(folder / "results")}
    tools = {"comparison": {"other_tools": {"nnU-Net": str(folder / "maps")}}}
    return load(content | tools | changes)


def truth(scans: Path, case: str) -> nib.Nifti1Image:
    return nib.load(scans / case / f"{case}-seg.nii.gz")


def names(scans: Path) -> list[str]:
    return sorted(path.name for path in scans.iterdir())


def write_maps(scans: Path, folder: Path, ending: str = ".nii.gz", shift: int = 0) -> None:
    """Label maps of all cases: the ground truth, moved by some voxels."""
    for case in names(scans):
        image = truth(scans, case)
        moved = np.roll(np.asarray(image.dataobj), shift, axis=0)
        save(folder / f"{case}{ending}", moved, image.affine)


def score(study: Study, scans: Path, folder: Path) -> Any:
    cases, _ = index_cases(study.dataset, study.regions, scans, workers=1)
    return score_tool("nnU-Net", folder / "maps", cases, study, scans, folder, folder, 1)


@pytest.mark.parametrize(
    "name",
    ["{}.nii.gz", "{}_0000.nii.gz", "{}-seg.nii", "{}_trans.nii.gz", "{0}/{0}_trans.nii.gz",
     "{0}_0000/{0}_0000_trans.nii.gz", "{}/whatever.nii.gz", "{}.nrrd"],
)  # fmt: skip
def test_label_maps_are_matched_by_the_names_that_tools_give_them(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name.format("case_1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    # nnU-Net writes these beside them.
    for other in ("case_1.npz", "case_1.pkl", "plans.json", "summary.json", ".hidden.nii.gz"):
        (tmp_path / other).touch()
    found = maps_of_tool(tmp_path, ["case_1", "case_10"])
    assert found.found["case_1"].file == path
    assert (found.lacking, found.others) == (["case_10"], [])
    assert files_of_tool(tmp_path) == [path]


def test_two_label_maps_of_a_case_are_refused(tmp_path: Path) -> None:
    for name in ("a_trans.nii.gz", "a_0000_trans.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="holds both a_0000_trans"):
        maps_of_tool(tmp_path, ["a"])


def test_scores_are_those_of_the_code_that_scores_models(scans: Path, tmp_path: Path) -> None:
    write_maps(scans, tmp_path / "maps", shift=1)
    save(tmp_path / "maps" / "stranger.nii.gz", np.zeros((4, 4, 4)))
    study = study_of(scans, tmp_path)
    rows, maps = score(study, scans, tmp_path)
    assert note_on_others("nnU-Net", maps).endswith("not scored: stranger.nii.gz")
    assert list(rows["case"].unique()) == names(scans)
    label = np.asarray(truth(scans, names(scans)[0]).dataobj)
    masks = [
        np.stack([np.isin(each, values) for values in REGIONS.values()])
        for each in (np.roll(label, 1, axis=0), label)
    ]
    expected = score_regions(*masks, (1.0, 1.0, 1.0), scoring_of(study.scored_metrics))
    found = rows[rows["case"] == names(scans)[0]].drop(columns=["case", "region"])
    assert found.to_dict("records") == expected


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda label: np.where(label == 1, 9, label), "label value 9, which no region names"),
        (lambda label: label[:-1], r"has shape \d+x\d+x\d+ instead of \d+x\d+x\d+"),
    ],
)
def test_what_is_wrong_with_a_label_map_is_refused_before_anything_is_computed(
    damage: Callable[[np.ndarray], np.ndarray], said: str, scans: Path, tmp_path: Path
) -> None:
    write_maps(scans, tmp_path / "maps")
    study = study_of(scans, tmp_path)
    assert check_other_tools(study) == []
    case = names(scans)[2]
    label = np.asarray(truth(scans, case).dataobj)
    save(tmp_path / "maps" / f"{case}.nii.gz", damage(label), truth(scans, case).affine)
    with pytest.raises(InputError) as caught:
        check_other_tools(study)
    message = str(caught.value)
    assert re.search(said, message) and f"{case}.nii.gz" in message and "nnU-Net" in message
    assert "--regions" not in message


def test_a_label_map_that_lies_elsewhere_is_refused(scans: Path, tmp_path: Path) -> None:
    write_maps(scans, tmp_path / "maps")
    case = names(scans)[0]
    affine = truth(scans, case).affine.copy()
    affine[0, 3] += 5
    save(tmp_path / "maps" / f"{case}.nii.gz", np.asarray(truth(scans, case).dataobj), affine)
    with pytest.raises(InputError, match="an affine that differs by up to 5 mm"):
        check_other_tools(study_of(scans, tmp_path))


def test_cases_without_a_label_map_are_named_once_it_is_known_that_they_are_tested(
    scans: Path, tmp_path: Path
) -> None:
    write_maps(scans, tmp_path / "maps")
    lacking = names(scans)[1]
    (tmp_path / "maps" / f"{lacking}.nii.gz").unlink()
    with pytest.raises(InputError, match=f"no label map of one test case: {lacking}"):
        check_other_tools(study_of(scans, tmp_path))
    # Of a study that runs some of its folds it is not known before they are made.
    some = study_of(scans, tmp_path, folds={"count": 2, "run": [0]})
    assert check_other_tools(some) == []
    folds = {"0": {"training": [], "selection": [], "test": names(scans)[2:]}}
    write_json(tmp_path / "results" / "folds.json", {"protocol": "held-out", "folds": folds})
    (note,) = check_other_tools(some)
    assert "one label map of no test case" in note and names(scans)[0] in note
    folds["0"]["test"].append(lacking)
    write_json(tmp_path / "results" / "folds.json", {"protocol": "held-out", "folds": folds})
    with pytest.raises(InputError, match=f"no label map of one test case: {lacking}"):
        check_other_tools(some)


def test_folders_that_are_missing_or_hold_nothing_of_the_data_set_are_refused(
    scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        check_other_tools(study_of(scans, tmp_path))
    save(tmp_path / "maps" / "stranger.nii.gz", np.zeros((4, 4, 4)))
    with pytest.raises(InputError, match="holds no label map of 5 test cases"):
        check_other_tools(study_of(scans, tmp_path, folds={"count": 2, "run": [0]}))


def test_what_was_checked_is_not_read_again_until_a_file_changes(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_maps(scans, tmp_path / "maps")
    study = study_of(scans, tmp_path)
    check_other_tools(study, remember=True)
    case = names(scans)[0]
    image = truth(scans, case)
    path = tmp_path / "maps" / f"{case}.nii.gz"
    import voxelsoup.prediction.other_tools as module

    read: list[int] = []
    scored = module.score_pairs
    monkeypatch.setattr(module, "score_pairs", lambda *a: read.append(len(a[0])) or scored(*a))
    check_other_tools(study, remember=True)
    assert read == []
    save(path, np.asarray(image.dataobj) * 0, image.affine)
    check_other_tools(study, remember=True)
    assert read == [5]


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ({"Ensemble": "x"}, "take another name"),
        ({"a": "x", "A": "y"}, "upper and lower case"),
        ({"nnU Net": "x"}, "String should match"),
        ({"a": ""}, "names no folder"),
        ({"a": "x", "b": "x/"}, "names a folder twice"),
    ],
)
def test_names_of_tools_that_tables_could_mistake_are_refused(
    tools: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        load(STUDY | {"comparison": {"other_tools": tools}})


def test_label_maps_that_monai_alone_has_predicted_are_scored(scans: Path, tmp_path: Path) -> None:
    """A network trained outside of the project, with MONAI's own inferer and its own files."""
    torch.manual_seed(0)
    network = UNet(3, 1, 4, channels=(8, 16), strides=(2,))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    loss = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)
    cases = names(scans)

    def volume(case: str, end: str) -> torch.Tensor:
        image = nib.load(scans / case / f"{case}-{end}.nii.gz")
        return torch.from_numpy(np.asarray(image.dataobj, np.float32))[None, None]

    middle = (..., slice(4, 20), slice(6, 22), slice(4, 20))
    for step in range(30):
        case = cases[step % 2]
        scan, label = volume(case, "t1n")[middle], volume(case, "seg")[middle]
        optimizer.zero_grad()
        loss(network(scan / scan.max()), label).backward()
        optimizer.step()
    infer = SlidingWindowInferer((16, 16, 16), sw_batch_size=4, overlap=0.25, mode="gaussian")
    write = SaveImage(output_dir=tmp_path / "maps", output_dtype=np.uint8, print_log=False)
    own: dict[str, np.ndarray] = {}
    network.eval()
    for case in cases:
        scan = volume(case, "t1n")
        with torch.no_grad():
            label = AsDiscrete(argmax=True)(infer(scan / scan.max(), network)[0])
        own[case] = np.asarray(label[0])
        affine = torch.from_numpy(truth(scans, case).affine)
        write(MetaTensor(label, affine=affine, meta={"filename_or_obj": f"{case}.nii.gz"}))
    assert (tmp_path / "maps" / cases[0] / f"{cases[0]}_trans.nii.gz").is_file()
    study = study_of(scans, tmp_path)
    assert check_other_tools(study) == []
    rows, maps = score(study, scans, tmp_path)
    assert maps.others == []
    # The Dice that anybody computes from the arrays.
    for case in cases:
        label = np.asarray(truth(scans, case).dataobj)
        for region, values in REGIONS.items():
            one, two = np.isin(own[case], values), np.isin(label, values)
            dice = 2 * (one & two).sum() / (one.sum() + two.sum()) if (one | two).any() else 1.0
            found = rows[(rows["case"] == case) & (rows["region"] == region)]["dice"].item()
            assert found == pytest.approx(dice)
    # A few steps teach little, but not nothing: these are no scores of empty label maps.
    assert 0.02 < rows[rows["region"] == "WT"]["dice"].mean() < 1
