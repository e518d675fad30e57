"""Files of other programs: their weights are found, and no code of them is run."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.models.foreign_files import read_weights

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}


def written(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def same(one: dict[str, torch.Tensor]) -> bool:
    return one.keys() == WEIGHTS.keys() and all(torch.equal(one[k], WEIGHTS[k]) for k in WEIGHTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.pt", WEIGHTS),
        ("ordered.pth", OrderedDict(WEIGHTS)),
        ("lightning.ckpt", {"epoch": 3, "state_dict": WEIGHTS, "optimizer_states": [OPTIMIZER]}),
        ("nnunet.pth", {"network_weights": WEIGHTS, "optimizer_state": OPTIMIZER, "name": "x"}),
        ("nnunet1.model", {"state_dict": WEIGHTS, "optimizer_state_dict": OPTIMIZER}),
        ("monai.pt", {"model": WEIGHTS, "optimizer": OPTIMIZER}),
        ("deeper.pt", {"checkpoint": {"network": {"state_dict": WEIGHTS}}}),
        ("parallel.pt", {f"module.{name}": value for name, value in WEIGHTS.items()}),
        ("both.pt", {f"module._orig_mod.{name}": value for name, value in WEIGHTS.items()}),
        ("model_first.pt", {"ema": {"a": torch.ones(1)}, "model": WEIGHTS}),
    ],
)
def test_weights_are_found_wherever_a_program_keeps_them(
    tmp_path: Path, name: str, content: Any
) -> None:
    found, description = read_weights(written(tmp_path / name, content))
    assert same(found)
    assert description == {}


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_scalars_of_numpy_beside_the_weights_are_read(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    kinds = [np.float32(0.5), np.float64(0.5), np.int64(3), np.bool_(True), np.float16(1)]
    content = {"network_weights": WEIGHTS, "logging": {"dice": kinds}, "best": np.float64(0.9)}
    assert same(read_weights(written(tmp_path / "checkpoint.pth", content, **options))[0])


class Harmful:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("harmed"),)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "model.model"])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}, None])
def test_a_harmful_pickle_does_not_run_and_is_refused_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    file, content = tmp_path / name, {"state_dict": WEIGHTS, "callback": Harmful()}
    if options is None:
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, **options)
    with pytest.raises(InputError, match="holds more than weights and numbers") as error:
        read_weights(file)
    assert "save its weights alone once" in error.value.fix
    assert not Path("harmed").exists()


def test_a_pickled_network_is_refused_by_the_name_of_its_class(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_weights(written(tmp_path / "model.pt", nn.Linear(2, 2)))


def test_torchscript_and_damaged_files_are_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "model.pt"))
    with pytest.raises(InputError, match="cannot be read as weights"):
        read_weights(tmp_path / "model.pt")
    file = written(tmp_path / "cut.pt", WEIGHTS)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.pt: cannot be read as weights"):
        read_weights(file)
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(InputError, match=r"has the ending \.h5"):
        read_weights(tmp_path / "model.h5")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"teacher": WEIGHTS, "student": WEIGHTS}, "several sets of weights: teacher, student"),
        ({"epoch": 3, "optimizer": OPTIMIZER}, "holds no weights, but: epoch, optimizer"),
        ([1, 2], "holds no weights, but: list"),
        ({"w": torch.tensor([1.0, torch.nan])}, "NaN or infinite weights: w"),
    ],
)
def test_what_is_not_the_weights_of_one_network_is_refused(
    tmp_path: Path, content: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        read_weights(written(tmp_path / "model.pt", content))


def test_safetensors_of_another_program_are_read(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert same(read_weights(tmp_path / "model.safetensors")[0])
