"""Small scans of noise in any orientation, for tests that predict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from voxelsoup.data.case import Source

CHANNELS = ["t1n", "t1c", "t2w", "t2f"]


def affine_of(codes: str, spacing: tuple[float, ...]) -> np.ndarray:
    """An affine with axes such as "LPS" and voxels of such a size in mm."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (target, flip) in enumerate(nib.orientations.axcodes2ornt(codes)):
        affine[int(target), axis] = flip * spacing[axis]
    affine[:3, 3] = [-11.5, 20, 3.25]
    return affine


def write_scan(
    folder: Path,
    shape: tuple[int, ...] = (30, 24, 20),
    affine: np.ndarray | None = None,
    margin: int = 3,
    channels: list[str] = CHANNELS,
    seed: int = 0,
) -> dict[str, Source]:
    """Noise with 0 in the margin."""
    folder.mkdir(parents=True, exist_ok=True)
    random, sources = np.random.default_rng(seed), {}
    inner = tuple(slice(margin, side - margin) for side in shape)
    for channel in channels:
        data = np.zeros(shape, np.float32)
        data[inner] = random.normal(100, 20, data[inner].shape)
        file = folder / f"{folder.name}-{channel}.nii.gz"
        nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), file)
        sources[channel] = Source(file)
    return sources


def voxels(path: Path) -> np.ndarray:
    """The voxels of a NIfTI file."""
    return np.asarray(nib.load(path).dataobj)


def label_with(values: Sequence[int]) -> np.ndarray:
    """A label map of 16 x 16 x 16 voxels with a small block of each value."""
    label = np.zeros((16, 16, 16), np.uint8)
    for number, value in enumerate(values, 1):
        label[4 * number : 4 * number + 2, 6:9, 6:9] = value
    return label


def write_nnunet(
    root: Path,
    labels: dict[str, Any],
    label: np.ndarray,
    channel: str = "T1",
    images: Sequence[np.ndarray] = (),
) -> None:
    """An nnU-Net raw data set of six cases, or one for each image, all with one label map."""
    random = np.random.default_rng(0)
    images = images or [random.normal(100, 10, label.shape).astype(np.int16) for _ in range(6)]
    for case, image in enumerate(images):
        for name, data in ((f"imagesTr/c{case}_0000", image), (f"labelsTr/c{case}", label)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(data, np.eye(4)), root / f"{name}.nii.gz")
    description = {"channel_names": {"0": channel}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
