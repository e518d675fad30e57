"""Weights on disk: exact, the same bytes, and never code."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from segsoup import checkpoints
from segsoup.errors import InputError
from segsoup.files import sha256


def test_weights_come_back_to_the_bit_and_files_are_alike(tmp_path: Path) -> None:
    weights = {"b": torch.randn(3, 4), "a": torch.randn(5).half(), "n": torch.tensor([3])}
    for name in ("one", "two"):
        checkpoints.save(tmp_path / name, weights, {"network": {"z": 1, "a": 2}})
    loaded, description = checkpoints.load(tmp_path / "one")
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in weights.items())
    assert description == {"network": {"z": 1, "a": 2}}
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")


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
        checkpoints.load(file)
    assert not Path("harmed").exists()


def test_missing_and_truncated_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        checkpoints.load(tmp_path / "none.safetensors")
    file = tmp_path / "model.safetensors"
    checkpoints.save(file, {"w": torch.zeros(100)}, {})
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InputError, match="cannot be read as weights"):
        checkpoints.load(file)


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
        checkpoints.fit(nn.Linear(3, 2), weights, "file.safetensors")
