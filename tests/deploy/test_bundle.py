"""The bundle: its models and files, and that MONAI alone gets the same label maps from it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.data.folder_layout import FolderLayout

from support.bundled_studies import (
    NETWORK,
    TRIAL,
    Finished,
    bundled,
    finish,
    metadata_of,
    probabilities,
    reseal,
    write_model,
)
from support.checks import nonempty
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.data.case import IndexedCase, Source
from voxelsoup.data.regions import label_order, to_labels
from voxelsoup.data.volumes.nifti import PLACE
from voxelsoup.deploy.bundle.inference_config import (
    channel_files,
    components,
    names_of_label_maps,
    rescaled_networks,
    scans_without_label_maps,
    to_labels_expression,
    written_order,
)
from voxelsoup.deploy.bundle.metadata import SCHEMA, TESTED_WITH
from voxelsoup.deploy.winner import Kind, kinds, winner
from voxelsoup.models import weight_files
from voxelsoup.prediction.bundle_files import bundle_files, changed_files
from voxelsoup.prediction.model_files import open_models
from voxelsoup.study.sections.data import Intensities

PHANTOM: dict[str, Any] = {
    "dataset": {"layout": "phantom", "channels": ["t1n", "t1c", "t2w", "t2f"]},
    "regions": {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]},
}
WEIGHTS = "models/model_fold0.safetensors"


@pytest.fixture(scope="module")
def finished(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A study of two folds whose soup won, with its bundle; for reading only."""
    results = tmp_path_factory.mktemp("study") / "results"
    return bundled(finish(results, phantom_folder, {0: 0.6, 1: 0.45}, **PHANTOM))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The bundle, to be tampered with."""
    return Path(shutil.copytree(finished.bundle, tmp_path / "bundle"))


def run_by_monai(bundle: Path, scans: Path, output: Path) -> None:
    """What `python -m monai.bundle run` does, in this process."""
    monai.bundle.run(
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        dataset_dir=str(scans),
        output_dir=str(output),
    )


def assert_same_label_map(finished: Finished, name: str, models: str, output: Path) -> None:
    """A written label map is what evaluation would say of the case, in the scan's own grid."""
    case = next(case for case in finished.cases if case.name == name)
    scan = nib.load(finished.root / next(iter(case.channels.values())).file)
    written = nib.load(output / f"{name}.nii.gz")
    np.testing.assert_allclose(written.affine, scan.affine, atol=1e-5)
    expected = probabilities(finished, name, models, output / "preprocessed")
    regions = finished.study.regions
    labels = to_labels(expected > 0.5, list(regions), label_order(regions))
    found = np.asarray(written.dataobj)
    assert found.dtype == np.uint8
    # Float32 sums in another order may move a tie to either side, and nothing else.
    tied = (abs(expected - 0.5) < 1e-5).any(axis=0)
    np.testing.assert_array_equal(found[~tied], labels[~tied])
    assert tied.mean() < 1e-3
    # All label values and the background: not an empty prediction that agrees with another one.
    assert set(np.unique(found)) == {0, *label_order(regions).values()}


def assert_predict_agrees(
    finished: Finished, scans: Path, by_monai: Path, output: Path, *options: str
) -> None:
    """`voxelsoup predict` writes the same label maps from the bundle, but for ties."""
    asked = [str(path) for path in (finished.bundle, scans, output)]
    assert main(["predict", *asked, "--every-window", "--device", "cpu", *options]) == 0
    for case in finished.cases:
        pair = [nib.load(folder / f"{case.name}.nii.gz") for folder in (by_monai, output)]
        np.testing.assert_allclose(pair[0].affine, pair[1].affine, atol=1e-5)
        differ = np.asarray(pair[0].dataobj) != np.asarray(pair[1].dataobj)
        assert differ.mean() < 1e-4
        # Not an empty prediction that agrees with another one.
        assert len(np.unique(pair[0].dataobj)) > 2


def test_the_highest_mean_selection_score_over_the_folds_wins() -> None:
    single = Kind("best", "Best Model", {0: 0.9, 1: 0.5})
    soup = Kind("soups/greedy", "Greedy Soup", {0: 0.6, 1: 0.85})
    assert winner([single, soup]) == soup
    # What is not better is not worth averaging.
    assert winner([single, Kind("soups/uniform", "Uniform Soup", {0: 0.5, 1: 0.9})]) == single


def test_kinds_are_scored_by_the_selection_score_of_their_folds(finished: Finished) -> None:
    found = kinds(finished.results, [0, 1], ["greedy"])
    assert [(kind.folder, kind.score) for kind in found] == [
        ("best", 0.5),
        ("soups/greedy", pytest.approx(0.525)),
    ]


def test_test_scores_do_not_choose_the_winner(finished: Finished, tmp_path: Path) -> None:
    results = Path(shutil.copytree(finished.results, tmp_path / "results"))
    for fold in (0, 1):
        path = results / f"fold{fold}" / "best" / "test.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        perfect = [lines[0], *([case, region, "1.0", loss] for case, region, _, loss in lines[1:])]
        path.write_text("\n".join(map(",".join, perfect)) + "\n")
    assert winner(kinds(results, [0, 1], ["greedy"])).folder == "soups/greedy"


def test_the_bundle_holds_the_winners_models_and_hashes_of_all_files(finished: Finished) -> None:
    files = {p.relative_to(finished.bundle).as_posix() for p in finished.bundle.rglob("*.*")}
    assert files == set(bundle_files([0, 1]))
    for fold in (0, 1):
        soup = finished.results / f"fold{fold}" / "soups" / "greedy" / "model.safetensors"
        packed = finished.bundle / "models" / f"model_fold{fold}.safetensors"
        assert packed.read_bytes() == soup.read_bytes()
    assert set(metadata_of(finished.bundle)["voxelsoup"]["sha256"]) == files - {
        "configs/metadata.json"
    }
    assert changed_files(finished.bundle) == {}
    assert [model.path.name for model in open_models([finished.bundle])] == [
        "model_fold0.safetensors",
        "model_fold1.safetensors",
    ]


# Keys and types of MONAI's Bundle Specification (docs/source/mb_specification.rst of MONAI 1.6),
# with `required_packages_version`, which MONAI reads in the place of the specification's
# `optional_packages_version` since 1.4. It asks for all that MONAI's own meta_schema_20240725.json
# does, and for more; that file lies where no test can reach it, and was checked against by hand.
TENSOR = {
    "type": "object",
    "required": [
        "type",
        "format",
        "num_channels",
        "spatial_shape",
        "dtype",
        "value_range",
        "is_patch_data",
        "channel_def",
    ],
    "properties": {
        "type": {"enum": ["image", "series", "tuples", "probabilities"]},
        "format": {"type": "string"},
        "modality": {"type": "string"},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": ["integer", "string"]}},
        "dtype": {"type": "string"},
        "value_range": {"type": "array", "items": {"type": "number"}},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
TENSORS = {"type": "object", "additionalProperties": TENSOR, "minProperties": 1}
TEXTS = ("version", "monai_version", "pytorch_version", "numpy_version", "task", "description")
TEXTS += ("authors", "copyright", "schema", "name", "data_source", "data_type", "intended_use")
OBJECTS = ("required_packages_version", "changelog", "eval_metrics")
SPECIFICATION = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": [*TEXTS, *OBJECTS, "network_data_format"],
    "properties": {key: {"type": "string", "minLength": 1} for key in TEXTS}
    | {"required_packages_version": {"additionalProperties": {"type": "string"}}}
    | {"changelog": {"additionalProperties": {"type": "string"}}}
    | {"eval_metrics": {"additionalProperties": {"type": "number"}}}
    | {"references": {"type": "array", "items": {"type": "string"}}}
    | {
        "network_data_format": {
            "required": ["inputs", "outputs"],
            "properties": {"inputs": TENSORS, "outputs": TENSORS},
        }
    },
}


def test_the_metadata_are_valid_by_monais_specification(finished: Finished, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SPECIFICATION))
    metadata = finished.bundle / "configs" / "metadata.json"
    # MONAI takes the file where it is there, instead of loading it down.
    monai.bundle.verify_metadata(meta_file=str(metadata), filepath=schema)
    content = metadata_of(finished.bundle)
    assert content["schema"] == SCHEMA
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps({**content, "monai_version": 1.6}))
    with pytest.raises(ValueError, match="Failed validating"):
        monai.bundle.verify_metadata(meta_file=str(broken), filepath=schema)


def test_the_metadata_state_the_results_of_the_study(finished: Finished) -> None:
    content = metadata_of(finished.bundle)
    scores = [
        float(line.split(",")[2])
        for fold in (0, 1)
        for line in (finished.results / f"fold{fold}/soups/greedy/test.csv")
        .read_text()
        .splitlines()[1:]
    ]
    assert content["eval_metrics"]["dice_mean"] == pytest.approx(np.mean(scores))
    assert set(content["eval_metrics"]) == {"dice_mean", "dice_TC", "dice_WT", "dice_ET"}
    assert content["voxelsoup"]["label_order"] == {"WT": 2, "TC": 1, "ET": 3}
    pins = (Path(__file__).parents[2] / "requirements-test.txt").read_text().splitlines()
    for package, version in nonempty(TESTED_WITH.items()):
        assert f"{package}=={version}" in pins


def test_the_card_states_data_protocol_results_limits_licence_and_origin(
    finished: Finished,
) -> None:
    card = (finished.bundle / "docs" / "README.md").read_text()
    mean = metadata_of(finished.bundle)["eval_metrics"]["dice_mean"]
    for phrase in (
        f"| Dice | {mean:.4f} [",
        "95 % bootstrap intervals",
        "Each case was predicted by its own fold's model alone",
        "Primary question of the study: is the greedy soup better than the best single model",
        "tested by itself at 5 %",
        "Outcome: greedy soup better than best single model by 1.0 Dice points.",
        "| Greedy Soup | 0.5250 |",
        "the weighted average of the weights of 2 models; selection Dice 0.6000",
        "6 cases of",
        "generated phantoms",
        "Weights: not stated.",
        "voxelsoup itself is not needed",
        "0 is background, 2 is WT, 1 is TC, 3 is ET",
        "voxelsoup predict BUNDLE SCANS OUTPUT --every-window --overlap 0.5",
        "## Methods",
    ):
        assert phrase in card, phrase


def test_monai_alone_gives_the_label_maps_of_evaluation(finished: Finished, tmp_path: Path) -> None:
    command = ["run", "--config_file", "configs/inference.json", "--bundle_root", "."]
    command += ["--dataset_dir", str(finished.root), "--output_dir", str(tmp_path)]
    # As if voxelsoup were not installed: importing it fails.
    blocked = tmp_path / "blocked" / "voxelsoup"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('voxelsoup is not installed')\n")
    run = subprocess.run(
        [sys.executable, "-m", "monai.bundle", *command],
        cwd=finished.bundle,
        env=os.environ | {"PYTHONPATH": str(blocked.parent)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    written = sorted(path.name for path in tmp_path.glob("*.nii.gz"))
    assert written == [f"{case.name}.nii.gz" for case in finished.cases]
    for case in finished.cases[:3]:
        assert_same_label_map(finished, case.name, "soups/greedy", tmp_path)
    assert_predict_agrees(finished, finished.root, tmp_path, tmp_path / "by voxelsoup")


THICK_SLICES = {
    "preprocess": {"spacing": [1.3, 1.1, 3.6], "thick_slices": "nearest"},
    "network": NETWORK | {"strides": 2 * [[2, 2, 1]]},
    "training": {"patch": [24, 24, 7]},
}


@pytest.mark.parametrize(
    "sections", [{"preprocess": {"spacing": [1.3, 1.1, 1.6]}}, THICK_SLICES], ids=["", "thick"]
)
def test_a_study_that_resamples_gives_the_same_label_maps(
    phantom_folder: Path, tmp_path: Path, sections: dict[str, Any]
) -> None:
    finished = finish(tmp_path / "results", phantom_folder, {1: 0.4}, **PHANTOM, **sections)
    bundle = bundled(finished).bundle
    # One fold and a soup that is worse than the single model; its fold's post-processing joins it.
    assert {p.name for p in bundle.rglob("*.*")} >= {"model.safetensors", "postprocessing.json"}
    assert metadata_of(bundle)["voxelsoup"]["kind"] == "Best Model"
    assert "voxelsoup" in metadata_of(bundle)["required_packages_version"]
    run_by_monai(bundle, phantom_folder, tmp_path / "output")
    for case in finished.cases[:2]:
        assert_same_label_map(finished, case.name, "best", tmp_path / "output")


def test_label_maps_by_monai_have_the_headers_of_their_scans(
    finished: Finished, tmp_path: Path
) -> None:
    """One scan of two forms that disagree, and one of none."""
    scans, output = tmp_path / "scans", tmp_path / "output"
    names = [case.name for case in finished.cases[:2]]
    turned = np.diag([1.0, 1, 1, 1])
    turned[:2, :2] = [[0.96, -0.28], [0.28, 0.96]]
    for name, codes in zip(names, ((1, 2), (0, 0)), strict=True):
        shutil.copytree(finished.root / name, scans / name)
        for file in (scans / name).iterdir():
            image = nib.load(file)
            image.set_sform(turned @ image.affine, codes[1], update_affine=False)
            image.set_qform(image.affine, codes[0], update_affine=False)
            stored = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
            nib.save(stored, file)
    run_by_monai(finished.bundle, scans, output)
    for name in names:
        scan = next((scans / name).glob("*-t1n.nii.gz"))
        expected, found = nib.load(scan).header, nib.load(output / f"{name}.nii.gz").header
        for field in PLACE:
            np.testing.assert_array_equal(found[field], expected[field], f"{name}: {field}")
        assert found.get_data_dtype() == np.uint8
    asked = [str(path) for path in (finished.bundle, scans, tmp_path / "predicted")]
    assert main(["predict", *asked, "--every-window", "--device", "cpu"]) == 0
    for name in names:
        pair = [nib.load(folder / f"{name}.nii.gz") for folder in (output, tmp_path / "predicted")]
        for field in PLACE:
            np.testing.assert_array_equal(pair[0].header[field], pair[1].header[field])
        assert np.mean(np.asarray(pair[0].dataobj) != np.asarray(pair[1].dataobj)) < 1e-4


@pytest.mark.parametrize(
    ("ends", "files", "expected"),
    [
        ([".nii.gz"], ["x/a.nii.gz", "y/b.nii.gz"], ["a", "b"]),
        # KiTS: a folder per case, and one file name.
        ([".nii.gz"], ["k/1/i.nii.gz", "k/2/i.nii.gz", "k/j.nii.gz"], ["1/i", "2/i", "j"]),
        ([".nii.gz"], ["1.3.6.1.4.111.nii.gz", "1.3.6.1.4.222.nii.gz"], None),
        (["-t1n.nii.gz", "-t1c.nii.gz"], [["p/p-t1n.nii.gz", "p/p-t1c.nii.gz"]], ["p"]),
        # Another ending than the study's own cases have, and none at all.
        (["_0000.nii.gz"], ["a.mha", "b_0001.nii.gz"], ["a", "b_0001"]),
        (["t1.nii.gz", "t2.nii.gz"], [["x/t1.nii.gz", "x/t2.nii.gz"]], ["x"]),
        ([".nii.gz"], ["a.nii.gz", "a.mha"], SystemExit),
        ([".nii.gz"], ["a.nii.gz", "a.nii.gz"], SystemExit),
    ],
)
def test_every_case_of_a_bundle_has_a_label_map_of_its_own(
    ends: list[str], files: list[Any], expected: Any
) -> None:
    """The bundle's own expressions, evaluated and formatted by MONAI."""
    parser = ConfigParser(
        {
            "imports": [
                "$import collections",
                "$import os",
                "$import pathlib",
                "$import re",
                "$import sys",
            ],
            "channel_files": ends,
            "datalist": [{"image": file} for file in files],
            **names_of_label_maps(),
        }
    )
    if expected is SystemExit:
        with pytest.raises(SystemExit, match=r"a\.nii\.gz and a\.\w+.* would become one label map"):
            parser.get_parsed_content("each_once")
        return
    assert parser.get_parsed_content("each_once") == []
    layout = FolderLayout("out", extension=".nii.gz", data_root_dir=".")
    outputs = parser.get_parsed_content("outputs").values()
    found = [str(layout.filename(name + ".nii.gz")) for name in outputs]
    names = expected or [file.removesuffix(".nii.gz") for file in files]
    assert found == [f"out/{name}.nii.gz" for name in names]


def searching(folder: Path, ends: list[str]) -> ConfigParser:
    """The bundle's own expressions that say which files in a folder are scans."""
    return ConfigParser(
        {
            "imports": ["$import os", "$import re", "$import sys", "$import pathlib"],
            "channel_files": ends,
            "dataset_dir": str(folder),
            "found": "$sorted(map(str, pathlib.Path(@dataset_dir).rglob('*' + @channel_files[0])))",
            **scans_without_label_maps(len(ends) == 1),
        }
    )


@pytest.mark.parametrize(
    ("files", "label_maps"),
    [
        (["p_1.nii.gz", "p_2.nii.gz"], ["p_1_gt.nii.gz", "p_2-Seg.nii.gz"]),
        (["volume-0.nii.gz"], ["segmentation-0.nii.gz"]),
        # KiTS; the Decathlon.
        (["k/1/imaging.nii.gz", "k/2/imaging.nii.gz"], ["k/1/segmentation.nii.gz"]),
        (["imagesTr/a.nii.gz", "imagesTs/b.nii.gz"], ["labelsTr/a.nii.gz", "labelsTs/b.nii.gz"]),
        # Scans that have such words themselves, and a label map of no scan there.
        (["seg/p_1_seg.nii.gz", "seg/p_2_seg.nii.gz"], []),
        (["p_1.nii.gz", "p_9_mask.nii.gz"], []),
    ],
)
def test_label_maps_beside_scans_are_no_scans_of_a_bundle(
    files: list[str],
    label_maps: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for file in (*files, *label_maps):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    parser = searching(tmp_path, [".nii.gz"])
    assert parser.get_parsed_content("scans") == [str(tmp_path / file) for file in files]
    parser.get_parsed_content("report")
    printed = capsys.readouterr().out
    assert bool(printed) == bool(label_maps)
    assert all(name in printed for name in label_maps)
    # Where names end in channels, they alone say what is a scan.
    parser = searching(tmp_path, [".nii.gz", "-t2.nii.gz"])
    assert len(parser.get_parsed_content("scans")) == len(files) + len(label_maps)


def test_a_bundle_refuses_what_looks_like_a_label_map(tmp_path: Path) -> None:
    file = tmp_path / "p_1.nii.gz"
    file.touch()
    label = MetaTensor(torch.zeros(1, 4, 5, 6), meta={"filename_or_obj": str(file)})
    label[:, 1:3] = 2
    check = searching(tmp_path, [".nii.gz"]).get_parsed_content("check_content")
    with pytest.raises(SystemExit, match=r"p_1\.nii\.gz looks like a label map"):
        check(label)
    scan = label + torch.rand(label.shape)
    assert check(scan) is scan
    # What a datalist names outside of the folder, and where the user says so.
    label.meta["filename_or_obj"] = "elsewhere/p_1.nii.gz"
    assert check(label) is label
    parser = searching(tmp_path, [".nii.gz"])
    parser.update({"refuse_label_maps": False})
    label.meta["filename_or_obj"] = str(file)
    assert parser.get_parsed_content("check_content")(label) is label


def test_regions_without_an_order_are_written_as_masks(tmp_path: Path) -> None:
    regions = {"a": [1], "b": [1, 2], "c": [2, 3]}
    assert written_order(regions, None) is None
    assert written_order(regions, {"b": 2, "a": 1, "c": 3}) == {"b": 2, "a": 1, "c": 3}
    with pytest.raises(InputError, match=r"predict\.label_order"):
        written_order(regions, {"a": 1})
    probabilities = torch.tensor([0.4, 0.6, 0.9]).view(3, 1, 1, 1)
    written = {}
    for order in (None, {"b": 2, "c": 3}):
        expression = to_labels_expression(regions, order)
        parser = ConfigParser({"imports": ["$import torch"], "labels": expression})
        written[str(order)] = parser.get_parsed_content("labels")(probabilities)
    assert written["None"].flatten().tolist() == [0, 1, 1]
    assert written[str({"b": 2, "c": 3})].flatten().tolist() == [3]


@pytest.mark.real_data
def test_the_hippocampus_by_monai(hippocampus_folder: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    for part, names in {"imagesTr": range(3), "labelsTr": range(3)}.items():
        (scans / part).mkdir(parents=True)
        for number in names:
            path = sorted((hippocampus_folder / part).glob("*.nii.gz"))[number]
            shutil.copy(path, scans / part)
    listed = json.loads((hippocampus_folder / "dataset.json").read_text())
    kept = {path.name for path in (scans / "imagesTr").iterdir()}
    listed["training"] = [c for c in listed["training"] if Path(c["image"]).name in kept]
    listed |= {"numTraining": len(kept), "test": [], "numTest": 0}
    (scans / "dataset.json").write_text(json.dumps(listed))
    finished = finish(
        tmp_path / "results",
        scans,
        {0: 0.6},
        dataset={"layout": "decathlon", "root": str(scans), "channels": ["mri"]},
        # No order follows from a whole that leaves its parts nothing: the study states it.
        regions={"anterior": [1], "posterior": [2], "whole": [1, 2]},
        predict={"label_order": {"whole": 1, "anterior": 1, "posterior": 2}},
    )
    # The label maps in labelsTr are no scans.
    run_by_monai(bundled(finished).bundle, scans, tmp_path / "output")
    assert len(finished.cases) == len([*(tmp_path / "output").rglob("*.nii.gz")]) == 3
    assert_predict_agrees(finished, scans, tmp_path / "output", tmp_path / "by voxelsoup")


@pytest.mark.real_data
def test_the_real_brats_case_by_monai(brats_folder: Path, tmp_path: Path) -> None:
    finished = finish(
        tmp_path / "results",
        brats_folder,
        {0: 0.6},
        dataset=PHANTOM["dataset"]
        | {"layout": "brats", "root": str(brats_folder), "on_bad_case": "skip"},
        regions=PHANTOM["regions"],
        training={"patch": [96, 96, 96]},
        evaluation={"overlap": 0},
    )
    scan, output = brats_folder / "TCGA-DU-7294", tmp_path / "output"
    run_by_monai(bundled(finished).bundle, scan, output)
    assert_predict_agrees(finished, scan, output, tmp_path / "by voxelsoup", "--overlap", "0")


def test_torchscript_gives_the_models_logits(finished: Finished) -> None:
    model = open_models([finished.bundle])[0].build(torch.device("cpu"))
    traced = torch.jit.load(str(finished.bundle / WEIGHTS.replace(".safetensors", ".ts")))
    image = torch.randn(3, 4, 24, 24, 16)
    with torch.inference_mode():
        torch.testing.assert_close(traced(image), model(image), atol=1e-5, rtol=1e-5)


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("change", [flipped, lambda content: content[:-4]])
def test_a_tampered_or_truncated_model_is_refused(copied: Path, change, tmp_path: Path) -> None:
    (copied / WEIGHTS).write_bytes(change((copied / WEIGHTS).read_bytes()))
    with pytest.raises(InputError, match="was changed or cut off: its SHA-256 is"):
        open_models([copied])
    with pytest.raises(RuntimeError) as refused:
        run_by_monai(copied, tmp_path, tmp_path / "output")
    assert "check of existing file failed" in str(refused.value.__cause__)
    assert changed_files(copied) == {WEIGHTS: "changed"}


def test_a_bundle_reports_missing_and_foreign_files(copied: Path) -> None:
    (copied / "docs" / "README.md").unlink()
    (copied / "models" / "extra.safetensors").write_bytes(b"?")
    # MONAI writes these by default.
    (copied / "eval").mkdir()
    (copied / "eval" / "case.nii.gz").write_bytes(b"")
    assert changed_files(copied) == {
        "docs/README.md": "missing",
        "models/extra.safetensors": "not listed",
    }


class Harm:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.path, "w")


def a_pickle(path: Path, harmed: Path) -> None:
    path.write_bytes(pickle.dumps({"weights": Harm(harmed)}))


def a_torch_checkpoint(path: Path, harmed: Path) -> None:
    torch.save({"weights": Harm(harmed)}, path)


def a_torchscript_archive(path: Path, harmed: Path) -> None:
    shutil.copy(path.with_suffix(".ts"), path)


@pytest.mark.parametrize("pose", [a_pickle, a_torch_checkpoint, a_torchscript_archive])
def test_pickles_posing_as_weights_are_refused_and_not_run(
    copied: Path, pose, tmp_path: Path
) -> None:
    harmed = tmp_path / "harmed"
    pose(copied / WEIGHTS, harmed)
    # Even if its hash was renewed.
    reseal(copied, WEIGHTS)
    for read in (
        lambda: weight_files.load(copied / WEIGHTS),
        lambda: open_models([copied]),
        lambda: open_models([copied / WEIGHTS]),
    ):
        with pytest.raises(InputError, match="cannot be read as weights"):
            read()
    with pytest.raises(RuntimeError):
        run_by_monai(copied, tmp_path, tmp_path / "output")
    assert not harmed.exists()


def test_the_harmful_pickle_would_do_harm(tmp_path: Path) -> None:
    a_pickle(tmp_path / "pickle", tmp_path / "harmed")
    pickle.loads((tmp_path / "pickle").read_bytes())
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".ckpt", ".ts"])
def test_the_ending_of_a_checkpoint_changes_nothing(tmp_path: Path, ending: str) -> None:
    posing = tmp_path / f"model{ending}"
    a_torch_checkpoint(posing, tmp_path / "harmed")
    with pytest.raises(InputError, match="other formats could run code"):
        open_models([posing])
    assert not (tmp_path / "harmed").exists()


def test_a_model_that_was_changed_after_it_was_scored_is_not_packed(
    phantom_folder: Path, tmp_path: Path
) -> None:
    finished = finish(tmp_path / "results", phantom_folder, {0: 0.4}, **PHANTOM)
    write_model(finished.results / "fold0" / "best", finished.study, seed=77)
    with pytest.raises(InputError, match="was changed after it was scored"):
        bundled(finished)
    assert not finished.bundle.exists()
    assert (finished.results / "fold0" / "trials" / TRIAL).is_dir()


def case_of(channels: Mapping[str, str]) -> list[IndexedCase]:
    sources = {name: Source.parse(path) for name, path in channels.items()}
    return [IndexedCase("c_1", "c_1", sources, None, (1, 1, 1), (1, 1, 1), [], "")]


@pytest.mark.parametrize(
    "channels, endings, parts",
    [
        (
            {"a": "c_1/c_1-t1n.nii.gz", "b": "c_1/c_1-t1c.nii.gz"},
            ["-t1n.nii.gz", "-t1c.nii.gz"],
            None,
        ),
        (
            {"a": "i/c_1_0000.nii.gz", "b": "i/c_1_0001.nii.gz"},
            ["_0000.nii.gz", "_0001.nii.gz"],
            None,
        ),
        ({"a": "i/c_1.nii.gz"}, [".nii.gz"], None),
        ({"a": "i/c_1.nii.gz#0", "b": "i/c_1.nii.gz#2"}, [".nii.gz"], [0, 2]),
        # Named by a table, after nothing that the case is called.
        ({"a": "x/t1.mha", "b": "x/t2.mha"}, ["t1.mha", "t2.mha"], None),
        ({"a": "p7_t1n.nrrd", "b": "p7_t1c.nrrd"}, ["t1n.nrrd", "t1c.nrrd"], None),
        ({"a": "x/scan.nrrd"}, [".nrrd"], None),
    ],
)
def test_endings_of_files_are_taken_from_the_studys_own_cases(
    channels: Mapping[str, str], endings: list[str], parts: list[int] | None
) -> None:
    assert channel_files(case_of(channels)) == endings
    assert components(case_of(channels)) == parts


def test_networks_of_a_bundle_normalise_ct_by_constants_of_their_own() -> None:
    own = [Intensities(lower=-10, upper=200, mean=40, deviation=80), None]
    other = [Intensities(lower=0, upper=90, mean=50, deviation=20), None]
    parts = rescaled_networks([own, other])
    networks = {"device": "cpu", "networks": "$[torch.nn.Identity(), torch.nn.Identity()]"}
    applied = ConfigParser(networks | parts).get_parsed_content("applied")
    image = 100 * torch.randn(1, 2, 4, 5, 6)
    for network, (lower, upper, mean, deviation) in zip(
        applied, [(-10, 200, 40, 80), (0, 90, 50, 20)], strict=True
    ):
        found = network(image)
        expected = (image[:, 0].clamp(lower, upper) - mean) / deviation
        torch.testing.assert_close(found[:, 0], expected)
        torch.testing.assert_close(found[:, 1], image[:, 1])
    assert rescaled_networks([[None, None]]) == {}
