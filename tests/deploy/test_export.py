"""A model outside of MONAI: ONNX and TorchScript give its logits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from support.bundled_studies import NETWORK, write_model
from support.model_files import save_model
from voxelsoup.commands.cli import main
from voxelsoup.common.errors import InputError
from voxelsoup.deploy.export import export, write_torchscript
from voxelsoup.planning.topology import plan_topology
from voxelsoup.prediction.model_files import open_models
from voxelsoup.study.loading import load

STUDY = load(
    {
        "dataset": {"layout": "phantom", "channels": ["t1n", "t2w"]},
        "regions": {"TC": [1], "WT": [1, 2], "ET": [3]},
        # In evaluation mode only the finest of its outputs is left.
        "network": {**NETWORK, "deep_supervision": True},
        "training": {"patch": [16, 24, 32]},
    }
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder, STUDY, seed=3)
    return folder


def logits_of(model: Path, image: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return open_models([model])[0].build(torch.device("cpu"))(image).numpy()


def test_onnxruntime_gives_the_models_logits(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    assert main(["export", str(model), str(file)]) == 0
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    # Any number of patches at once, of the study's size.
    for batch in (1, 3):
        image = torch.randn(batch, 2, 16, 24, 32)
        (found,) = session.run(["logits"], {"image": image.numpy()})
        assert found.shape == (batch, 3, 16, 24, 32)
        np.testing.assert_allclose(found, logits_of(model, image), atol=1e-4, rtol=0)


def test_torchscript_gives_the_models_logits(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.ts"
    assert main(["export", str(model / "model.safetensors"), str(file)]) == 0
    image = torch.randn(2, 2, 16, 24, 32)
    with torch.inference_mode():
        found = torch.jit.load(str(file))(image).numpy()
    np.testing.assert_allclose(found, logits_of(model, image), atol=1e-4, rtol=0)


TWO_STAGES = {"init_filters": 4, "blocks_down": [1, 1], "blocks_up": [1, 1]}


@pytest.mark.parametrize(
    "network",
    [
        {"name": "UNet", "arguments": {"channels": [4, 8], "strides": [2]}},
        {
            "name": "SegResNet",
            "arguments": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]},
        },
        {
            "name": "DynUNet",
            "arguments": plan_topology((6, 1, 1), (16, 24, 32)).as_dynunet()
            | {"filters": 4 * [4], "deep_supervision": True},
        },
        {"size": "free", "arguments": TWO_STAGES, "strides": [[1, 2, 2], [2, 2, 2]]},
    ],
)
def test_other_networks_can_be_exported(network: dict, tmp_path: Path) -> None:
    study = STUDY.model_dump(mode="json") | {"network": network}
    write_model(tmp_path, load(study), seed=0)
    (opened,) = open_models([tmp_path])
    for name in ("model.ts", "model.onnx"):
        export(opened, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000


def test_a_network_traced_on_a_small_input_serves_the_full_patch(tmp_path: Path) -> None:
    study = load(STUDY.model_dump(mode="json") | {"training": {"patch": [64, 64, 64]}})
    write_model(tmp_path, study, seed=1)
    export(open_models([tmp_path])[0], tmp_path / "model.ts")
    image = torch.randn(1, 2, 64, 64, 64)
    with torch.inference_mode():
        found = torch.jit.load(str(tmp_path / "model.ts"))(image).numpy()
    np.testing.assert_allclose(found, logits_of(tmp_path, image), atol=1e-4, rtol=0)


class Fixed(torch.nn.Module):
    """Takes the size of its first patch for a constant when it is traced."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * torch.arange(image.shape[2]).view(-1, 1, 1).tolist()[-1][0][0]


def test_a_network_of_fixed_shapes_is_traced_with_the_full_patch(tmp_path: Path) -> None:
    write_torchscript(Fixed(), 1, [64, 64, 64], tmp_path / "model.ts")
    image = torch.ones(2, 1, 64, 64, 64)
    with torch.inference_mode():
        found = torch.jit.load(str(tmp_path / "model.ts"))(image)
    torch.testing.assert_close(found, 63 * image)


def test_export_refuses_another_ending(model: Path, tmp_path: Path, capsys) -> None:
    assert main(["export", str(model), str(tmp_path / "model.pt")]) == 1
    printed = capsys.readouterr().err
    assert "ends in `.pt`" in printed
    assert ".onnx" in printed
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file_is_reported(model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "model.ts").mkdir()
    assert main(["export", str(model), str(tmp_path / "model.ts")]) == 1
    assert "cannot be written: Is a directory" in capsys.readouterr().err


def test_a_missing_package_is_named_before_anything_is_computed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own way of saying that a module is not there.
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'voxelsoup\[onnx\]'"):
        export(open_models([model])[0], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_network_that_cannot_be_traced_leaves_nothing_behind(tmp_path: Path) -> None:
    class Moody(torch.nn.Module):
        """Does another thing when there are several."""

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if len(image) == 1 else 2 * image

    with pytest.raises(InputError, match="gives logits that differ from the model"):
        write_torchscript(Moody(), 1, [8, 8, 8], tmp_path / "model.ts")

    class Failing(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such kernel")

    with pytest.raises(InputError, match="no such kernel"):
        write_torchscript(Failing(), 1, [8, 8, 8], tmp_path / "model.ts")
    assert not list(tmp_path.iterdir())


def test_an_export_of_a_ct_model_takes_the_intensities_of_the_scanner(tmp_path: Path) -> None:
    own = {"lower": -10.0, "upper": 200.0, "mean": 40.0, "deviation": 80.0}
    preprocess = {"normalisation": {"t1n": "ct", "t1c": "none", "t2w": "none", "t2f": "none"}}
    stated = preprocess | {"intensities": {"t1n": own}}
    (model,) = open_models([save_model(tmp_path / "m.safetensors", preprocess=stated)])
    export(model, tmp_path / "m.ts")
    images = 100 * torch.randn(2, 4, *model.description.patch)
    rescaled = images.clone()
    rescaled[:, 0] = (images[:, 0].clamp(-10, 200) - 40) / 80
    with torch.inference_mode():
        found = torch.jit.load(str(tmp_path / "m.ts"))(images)
        expected = model.build(torch.device("cpu"))(rescaled)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
