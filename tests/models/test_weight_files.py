"""Weights on disk: exact, the same bytes, and never code."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from support.studies import REPOSITORY
from voxelsoup.common.errors import InputError
from voxelsoup.common.files import sha256
from voxelsoup.models import weight_files
from voxelsoup.study.loading import read

# What a model file of the demo said of itself when the project was named otherwise.
DEMO = (
    '{"network": {"name": "MedNeXt", "size": "free", "kernel_size": 3, "deep_supervision": '
    'false, "arguments": {"init_filters": 8, "blocks_down": [0, 1], "blocks_bottleneck": 1, '
    '"blocks_up": [1, 0], "encoder_expansion_ratio": 2, "decoder_expansion_ratio": [2, 1], '
    '"bottleneck_expansion_ratio": 2}}, "channels": ["t1n", "t1c", "t2w", "t2f"], "regions": '
    '{"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}, "preprocess": {"spacing": null, "crop": '
    'true, "normalisation": "zscore-nonzero", "storage": "float32"}, "patch": [32, 32, 32]}'
)


def test_weights_are_read_back_bit_identically_and_files_repeat(tmp_path: Path) -> None:
    weights = {"b": torch.randn(3, 4), "a": torch.randn(5).half(), "n": torch.tensor([3])}
    for name in ("one", "two"):
        weight_files.save(tmp_path / name, weights, {"network": {"z": 1, "a": 2}})
    loaded, description = weight_files.load(tmp_path / "one")
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in weights.items())
    assert description == {"network": {"z": 1, "a": 2}}
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")


def test_the_description_keeps_the_order_of_the_regions(tmp_path: Path) -> None:
    weight_files.save(tmp_path / "m", {"w": torch.zeros(1)}, {"regions": {"WT": [1], "TC": [2]}})
    assert list(weight_files.load(tmp_path / "m")[1]["regions"]) == ["WT", "TC"]


def test_read_slice_returns_weights_end_to_end_in_the_order_of_names(tmp_path: Path) -> None:
    weights = {"b": torch.randn(3, 4), "a": torch.randn(5).half(), "an": torch.tensor([3])}
    weight_files.save(tmp_path / "m", weights, {})
    whole = torch.cat([weights["a"].double(), weights["b"].double().flatten()]).numpy()
    for start, stop in ((0, 17), (2, 3), (4, 7), (6, 99), (17, 20), (99, 100)):
        found = weight_files.read_slice(tmp_path / "m", start, stop)
        assert found.dtype == "float64"
        assert found.tolist() == whole[start:stop].tolist()
    with pytest.raises(InputError, match="no such file"):
        weight_files.read_slice(tmp_path / "none", 0, 1)


@pytest.mark.parametrize(
    "read_file",
    [weight_files.load, weight_files.shapes, lambda path: list(weight_files.stream(path))],
)
def test_what_is_in_the_place_of_a_diverged_runs_weights_is_refused_as_that(
    tmp_path: Path, read_file: Callable[[Path], object]
) -> None:
    weight_files.write_no_weights(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds no weights: the training of its run diverged"):
        read_file(tmp_path / "model.safetensors")
    # Other programs do not take it for weights either.
    with pytest.raises(SafetensorError):
        load_file(tmp_path / "model.safetensors")


class Harmful:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harmed"),)


def test_a_pickle_is_refused_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read as weights"):
        weight_files.load(file)
    assert not Path("harmed").exists()


def test_missing_and_truncated_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        weight_files.load(tmp_path / "none.safetensors")
    file = tmp_path / "model.safetensors"
    weight_files.save(file, {"w": torch.zeros(100)}, {})
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot be read as weights"):
        weight_files.load(file)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"weight": torch.zeros(2, 3)}, "lacks bias"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, "unknown x"),
        ({"weight": torch.zeros(3, 3), "bias": torch.zeros(2)}, r"weight \[3, 3\] instead of"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(weights: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        weight_files.fit(nn.Linear(3, 2), weights, "file.safetensors")


def test_fit_names_some_missing_weights_and_leaves_the_model_unchanged() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(4)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"lacks 0\.bias, 1\.weight, 1\.bias and 4 more"):
        weight_files.fit(model, {"0.weight": torch.ones(1, 1)}, "file.safetensors")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_one_tensor_under_two_names_is_written_under_both(tmp_path: Path) -> None:
    shared = torch.randn(4)
    weights = {"a": shared, "b": shared, "c": shared[1:]}
    weight_files.save(tmp_path / "model.safetensors", weights, {})
    loaded, _ = weight_files.load(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_weights_of_another_program_have_no_description(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    weights, description = weight_files.load(tmp_path / "other.safetensors")
    assert weights["w"].tolist() == [1, 1]
    assert description == {}


@pytest.mark.parametrize("said", ["[1]", "{not json", "7"])
def test_an_invalid_description_is_refused(tmp_path: Path, said: str) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(2)}, file, metadata={weight_files.METADATA_KEY: said})
    with pytest.raises(InputError, match="cannot be read as weights"):
        weight_files.load(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{]"],
)
def test_broken_headers_are_refused_before_memory_is_spent(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as weights"):
        weight_files.load(file)


def test_a_folder_in_place_of_a_model_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as weights"):
        weight_files.load(tmp_path)


def test_a_model_file_says_what_it_said_before_its_study_had_more_settings() -> None:
    # Settings added since must not stand in the file at their defaults: a stem written again would
    # have other bytes, and its trials would start over.
    study = read(REPOSITORY / "config.yaml")
    description = json.dumps(weight_files.describe(study))
    assert description == DEMO
