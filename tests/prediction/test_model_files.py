"""Models are found by file, folder, ensemble or bundle, and refused before they are used."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from support.model_files import save_bundle, save_model
from support.runs import small_study
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256, write_json
from voxelsoup.evaluation.postprocessing import Postprocessing, RegionRule, unchanged
from voxelsoup.models import networks, weight_files
from voxelsoup.prediction.model_files import open_models


def test_a_soup_is_its_file_or_its_folder_and_finds_its_postprocessing(tmp_path: Path) -> None:
    file = save_model(tmp_path / "results/fold0/soups/greedy/model.safetensors")
    rules = {**unchanged(["TC", "WT", "ET"]).regions, "ET": RegionRule(0.4, 50.0)}
    record = {"postprocessing": Postprocessing(rules).as_record(), "models": ["greedy"]}
    write_json(tmp_path / "results/fold0/postprocessing.json", record)
    for path in (file, file.parent):
        (found,) = open_models([path])
        assert (found.path, found.sha256) == (file, sha256(file))
        assert list(found.description.regions) == ["TC", "WT", "ET"]
        assert found.read_postprocessing().regions == rules
    network = found.build(torch.device("cpu"))
    assert not network.training
    assert network(torch.zeros(1, 4, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_without_postprocessing_beside_it_a_model_has_none(tmp_path: Path) -> None:
    (found,) = open_models([save_model(tmp_path / "m.safetensors")])
    with pytest.raises(InputError, match="has no post-processing beside it"):
        found.read_postprocessing()


def test_an_ensemble_is_its_ingredients(tmp_path: Path) -> None:
    files = [save_model(tmp_path / f"{seed}.safetensors", seed) for seed in (0, 1)]
    recipe = tmp_path / "ensemble/recipe.json"
    ingredients = [{"path": str(file), "sha256": sha256(file)} for file in files]
    write_json(recipe, {"ingredients": ingredients})
    assert [model.path for model in open_models([recipe.parent])] == files
    save_model(files[1], 2)
    with pytest.raises(
        InputError, match=r"(?s)1\.safetensors: was changed or cut off.*recipe\.json"
    ):
        open_models([recipe.parent])


@pytest.mark.parametrize("text", ["{", "[]", '{"ingredients": 3}', '{"ingredients": [{}]}'])
def test_an_ensemble_without_ingredients_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(InputError, match="does not say what the ensemble was made of"):
        open_models([tmp_path])


@pytest.mark.parametrize("name", ["models/fold1.safetensors", "configs/postprocessing.json"])
def test_an_incomplete_bundle_is_refused(tmp_path: Path, name: str) -> None:
    bundle = save_bundle(tmp_path / "bundle")
    (bundle / name).unlink()
    with pytest.raises(InputError, match=f"{name}: is missing"):
        open_models([bundle])


def test_a_bundle_is_all_of_its_models(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle")
    found = open_models([bundle])
    assert [model.path.name for model in found] == ["fold0.safetensors", "fold1.safetensors"]
    assert found[0].read_postprocessing() == unchanged(["TC", "WT", "ET"])


def test_a_tampered_bundle_is_refused(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle")
    weights = bundle / "models/fold1.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match=r"fold1\.safetensors: was changed or cut off"):
        open_models([bundle])
    weights.write_bytes(content[:-100])
    with pytest.raises(InputError, match="was changed or cut off"):
        open_models([bundle])
    save_model(weights, 1)
    open_models([bundle])
    (bundle / "configs/postprocessing.json").write_text("{}")
    with pytest.raises(InputError, match=r"postprocessing\.json: was changed"):
        open_models([bundle])


def test_a_file_that_the_bundle_does_not_name_is_refused(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle")
    save_model(bundle / "models/fold7.safetensors", 7)
    with pytest.raises(InputError, match="is not among the files"):
        open_models([bundle])
    (bundle / "configs/metadata.json").write_text(json.dumps({"voxelsoup": []}))
    with pytest.raises(InputError, match="does not say what the bundle's files hash to"):
        open_models([bundle])


def test_a_collected_model_is_compared_with_its_manifest(tmp_path: Path) -> None:
    file = save_model(tmp_path / "fold0_soup_greedy.safetensors")
    (tmp_path / "manifest.tsv").write_text(f"fold\tsha256\tpath\n0\t{sha256(file)}\t{file.name}\n")
    open_models([file])
    save_model(file, 1)
    with pytest.raises(InputError, match=r"(?s)was changed or cut off.*manifest\.tsv"):
        open_models([file])


def test_files_that_are_not_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no model"):
        open_models([tmp_path / "empty"])
    with pytest.raises(InputError, match="cannot be read: No such file"):
        open_models([tmp_path / "missing"])
    posing = tmp_path / "posing.safetensors"
    posing.write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(InputError, match="cannot be read as weights"):
        open_models([posing])
    weight_files.save(tmp_path / "plain.safetensors", {"w": torch.zeros(1)}, {})
    with pytest.raises(InputError, match="does not say what it is"):
        open_models([tmp_path / "plain.safetensors"])
    described = weight_files.describe(small_study())
    weight_files.save(tmp_path / "other.safetensors", {"w": torch.zeros(1)}, described)
    with pytest.raises(InputError, match="does not fit the network"):
        open_models([tmp_path / "other.safetensors"])
    weight_files.save(tmp_path / "odd.safetensors", {"w": torch.zeros(1)}, described | {"patch": 3})
    with pytest.raises(InputError, match=r"(?s)odd\.safetensors \(its header\).*\n.*patch"):
        open_models([tmp_path / "odd.safetensors"])


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("channels", {"dataset": {"channels": ["t1c", "t1n", "t2w", "t2f"]}}),
        ("regions", {"regions": {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}}),
        ("preprocess", {"preprocess": {"spacing": [1, 1, 2]}}),
        ("patch", {"training": {"patch": [16, 16, 32]}}),
    ],
)
def test_models_to_be_averaged_agree(tmp_path: Path, key: str, changes: dict[str, Any]) -> None:
    one = save_model(tmp_path / "one.safetensors")
    study = small_study()
    if key == "regions":
        settings = {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
        study = study.model_copy(update={"regions": settings})
    else:
        study = small_study(**changes)
    with networks.seeded(1):
        model = networks.build(study.network, 4, 3)
    other = tmp_path / "other.safetensors"
    weight_files.save(other, model.state_dict(), weight_files.describe(study))
    with pytest.raises(InputError, match=rf"other\.safetensors: cannot be averaged.*`{key}`"):
        open_models([one, other])


def test_networks_may_differ_and_a_model_named_twice_may_not(tmp_path: Path) -> None:
    one = save_model(tmp_path / "one.safetensors")
    larger = {
        "size": "free",
        "arguments": {"init_filters": 4, "blocks_down": [1], "blocks_up": [1]},
    }
    other = save_model(tmp_path / "other.safetensors", 0, network=larger)
    assert len(open_models([one, other])) == 2
    with pytest.raises(InputError, match="holds the same weights as"):
        open_models([one, one])
