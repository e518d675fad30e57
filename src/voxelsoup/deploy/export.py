"""A model for runtimes that know nothing of MONAI: TorchScript and ONNX, of one patch each.

Both take a normalised patch (batch, channel, x, y, z) of the study's patch size and any batch, and
give its logits (batch, region, x, y, z); sliding windows and sigmoid are left to the runtime. A
channel that is normalised by `ct` is taken as it is, in the scanner's intensities: the constants of
the model's fold are part of the export.
voxelsoup itself never loads such a file again: a TorchScript archive holds a program, and running
it means trusting it.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import nn

from voxelsoup.common.errors import InputError
from voxelsoup.common.files import atomic_write
from voxelsoup.models.networks import seeded
from voxelsoup.prediction.model_files import ModelFile
from voxelsoup.study.sections.data import Intensities

log = logging.getLogger(__name__)

# Largest difference to the model's own logits that an export may have on random windows.
TOLERANCE = 1e-4
INPUT, OUTPUT = "image", "logits"
CPU = torch.device("cpu")


def export(model: ModelFile, path: Path) -> None:
    """Write a model as TorchScript (``.ts``) or ONNX (``.onnx``), by the ending of the file.

    Raises:
        InputError: if the ending is another one, a package is missing, the network cannot be
            exported, or the export gives other logits.
    """
    writers = {".ts": write_torchscript, ".onnx": write_onnx}
    if path.suffix not in writers:
        raise InputError(
            path,
            f"ends in `{path.suffix}`",
            "a file that ends in .ts (TorchScript) or .onnx (ONNX)",
            "correct the ending",
        )
    description, network = model.description, model.build(CPU)
    constants = description.preprocess.constants(description.channels)
    if any(constants):
        network = nn.Sequential(Rescale(constants), network).eval()
    writers[path.suffix](network, len(description.channels), description.patch, path)


class Rescale(nn.Module):
    """The normalisation that depends on a model's fold, of images (batch, channel, x, y, z)."""

    def __init__(self, constants: Sequence[Intensities | None]) -> None:
        super().__init__()
        keep = {"lower": -math.inf, "upper": math.inf, "mean": 0.0, "deviation": 1.0}
        own = [keep if one is None else one.model_dump() for one in constants]
        for name in keep:
            values = torch.tensor([one[name] for one in own], dtype=torch.float32)
            self.register_buffer(name, values.reshape(1, -1, 1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images as the network was trained on them."""
        lower, upper = self.get_buffer("lower"), self.get_buffer("upper")
        clipped = torch.minimum(torch.maximum(images, lower), upper)
        return (clipped - self.get_buffer("mean")) / self.get_buffer("deviation")


def write_torchscript(model: nn.Module, channels: int, patch: list[int], path: Path) -> None:
    """Write a model (in evaluation mode, on the CPU) as a traced TorchScript archive.

    Raises InputError if the network cannot be traced, or the trace gives other logits.
    """
    # On a CPU, a patch of 128 x 128 x 128 takes a MedNeXt minutes, and 32 x 32 x 32 seconds.
    small = _small_window(patch)
    if small != patch:
        try:
            _trace(model, channels, small, [2 * side for side in small], path)
            return
        except InputError as error:
            log.info("%s: its shapes are fixed, traced with a full patch (%s)", path, error.found)
    _trace(model, channels, patch, patch, path)


def _small_window(patch: list[int]) -> list[int]:
    """The patch, halved while its sides stay multiples of 16 and no less than 32."""
    window = list(patch)
    while all(side % 32 == 0 and side >= 64 for side in window):
        window = [side // 2 for side in window]
    return window


def _trace(
    model: nn.Module, channels: int, window: list[int], checked: list[int], path: Path
) -> None:
    """Trace with one window, and check with two of another size at once."""
    with atomic_write(path) as temporary:
        # Traced, not scripted: scripting refuses MONAI's MedNeXt (1.6.1), whose blocks name
        # weights that they only have with global response normalisation.
        with _exporting(path, "TorchScript"), torch.no_grad():
            traced = torch.jit.trace(model, _windows(1, channels, window), check_trace=False)
            torch.jit.save(traced, str(temporary))

        def run(images: torch.Tensor) -> np.ndarray:
            with _exporting(path, "run as TorchScript"):
                return traced(images).detach().numpy()

        _check(model, run, _windows(2, channels, checked), path)


def write_onnx(model: nn.Module, channels: int, patch: list[int], path: Path) -> None:
    """Write a model as ONNX, and make sure that onnxruntime gives the same logits.

    Args and raises: as ``write_torchscript``; also if ``onnx`` or ``onnxruntime`` is missing.
    """
    runtime = _onnx_packages(path)
    with atomic_write(path) as temporary:
        with _exporting(path, "ONNX"), torch.no_grad():
            # The exporter by tracing: the other one needs onnxscript, and fixes the batch size.
            torch.onnx.export(
                model,
                (_windows(1, channels, patch),),
                str(temporary),
                dynamo=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        session = runtime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        # Two, which a batch size taken for a constant would fail on.
        two = _windows(2, channels, patch)
        _check(model, lambda i: session.run(None, {INPUT: i.numpy()})[0], two, path)


def _onnx_packages(path: Path) -> ModuleType:
    try:
        import_module("onnx")
        return import_module("onnxruntime")
    except ImportError as error:
        raise InputError(
            path,
            f"cannot be written without the package `{error.name}`",
            "the packages onnx and onnxruntime",
            "pip install 'voxelsoup[onnx]'",
        ) from error


def _windows(count: int, channels: int, window: list[int]) -> torch.Tensor:
    """Random windows (count, channel, x, y, z), of unit variance as z-scores are."""
    with seeded(0):
        return torch.randn(count, channels, *window)


@contextmanager
def _exporting(path: Path, form: str) -> Iterator[None]:
    """Failures of an exporter within the block become messages; its warnings are left out."""
    try:
        with warnings.catch_warnings():
            # Tracing warns of every comparison of shapes; what came of it is checked afterwards.
            warnings.simplefilter("ignore")
            yield
    except OSError:
        raise
    # Exporters fail in as many ways as networks have parts.
    except Exception as error:
        raise _not_exported(path, f"cannot be {form}: {error}") from error


def _check(
    model: nn.Module,
    exported: Callable[[torch.Tensor], np.ndarray],
    images: torch.Tensor,
    path: Path,
) -> None:
    with torch.inference_mode():
        expected, found = model(images).numpy(), exported(images)
    difference = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
    # Written so that NaN is refused too.
    if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise _not_exported(path, f"gives logits that differ from the model's by {difference:g}")


def _not_exported(path: Path, found: str) -> InputError:
    return InputError(
        path,
        found.splitlines()[0],
        f"an export whose logits agree with the model's to {TOLERANCE:g}",
        "use the model's safetensors file, or a network that can be traced",
    )
