"""The phantom: a made-up data set that looks like BraTS, to try the workflow on.

Skull-stripped brain-like volumes in four channels with nested lesions (ET in TC in WT), noise
and a bias field, written with the names, labels and orientation of BraTS 2023.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from voxelsoup.common.errors import InputError
from voxelsoup.data.volumes.volume import shape_text, write_volume
from voxelsoup.study.sections.data import Phantom

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3

# Mean intensity of each tissue in each channel, after the look of the real contrasts.
INTENSITIES = {
    "t1n": {"grey": 500, "white": 700, "fluid": 220, NECROSIS: 360, OEDEMA: 450, ENHANCING: 480},
    "t1c": {"grey": 510, "white": 690, "fluid": 230, NECROSIS: 350, OEDEMA: 470, ENHANCING: 860},
    "t2w": {"grey": 520, "white": 400, "fluid": 900, NECROSIS: 760, OEDEMA: 680, ENHANCING: 610},
    "t2f": {"grey": 520, "white": 440, "fluid": 180, NECROSIS: 470, OEDEMA: 730, ENHANCING: 640},
}
NOISE = 110
BIAS = 0.25
SMALLEST_SIDE = 0.85
SHARE_WITHOUT_ENHANCEMENT = 0.15
EVERY_SECOND_VISIT = 4

# BraTS files are stored with x to the left and y to the back.
AFFINE = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)


def write_phantom(folder: Path, settings: Phantom) -> None:
    """Write the data set into a folder; one seed gives one set of bytes.

    Every fourth patient has a second visit, with its own lesions. Raises InputError if the shape
    is too small to hold a brain with a lesion.
    """
    for number, name in enumerate(case_names(settings.cases)):
        random = np.random.default_rng([settings.seed, number])
        channels, label = make_case(random, settings.shape)
        for channel, volume in channels.items():
            write_volume(folder / name / f"{name}-{channel}.nii.gz", volume, AFFINE)
        write_volume(folder / name / f"{name}-seg.nii.gz", label, AFFINE)


def case_names(count: int) -> list[str]:
    """Names of ``count`` cases, such as Phantom-0003-001 for a second visit."""
    names: list[str] = []
    patient = 0
    while len(names) < count:
        visits = 2 if patient % EVERY_SECOND_VISIT == EVERY_SECOND_VISIT - 1 else 1
        names += [f"Phantom-{patient:04d}-{visit:03d}" for visit in range(visits)]
        patient += 1
    return names[:count]


def make_case(
    random: np.random.Generator, largest: list[int]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One case: channel name -> int16 volume, and the uint8 label map, all (x, y, z)."""
    shape = tuple(
        int(random.integers(int(np.ceil(side * SMALLEST_SIDE)), side + 1)) for side in largest
    )
    brain, depth = _brain(random, shape)
    texture = _smooth_noise(random, shape, 3.0)
    fluid = brain & (depth < 0.35) & (texture > -0.5)
    white = brain & ~fluid & (texture > 0.1)
    label = _lesions(random, brain, shape)
    channels = {}
    bias = 1 + BIAS * _smooth_noise(random, shape, min(shape) / 4) / 2
    for channel, means in INTENSITIES.items():
        volume = np.where(white, means["white"], means["grey"]).astype(float)
        volume[fluid] = means["fluid"]
        for value in (NECROSIS, OEDEMA, ENHANCING):
            # How strongly a lesion differs from its surroundings varies from case to case.
            strength = random.uniform(0.45, 1.0)
            inside = label == value
            volume[inside] += strength * (means[value] - volume[inside])
        volume = ndimage.gaussian_filter(volume, 0.6) * bias + random.normal(0, NOISE, shape)
        channels[channel] = np.where(brain, np.clip(volume, 1, 3000), 0).astype(np.int16)
    return channels, label


def _smooth_noise(random: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Smooth random field with mean 0 and standard deviation 1."""
    field = ndimage.gaussian_filter(random.normal(size=shape), sigma)
    return (field - field.mean()) / field.std()


def _ellipsoid(shape: tuple[int, ...], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance from the centre in units of the radii (1 on the surface)."""
    axes = np.indices(shape, dtype=float)
    offsets = (axes - centre[:, None, None, None]) / radii[:, None, None, None]
    return np.sqrt((offsets**2).sum(axis=0))


def _brain(random: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    sides = np.array(shape, dtype=float)
    distance = _ellipsoid(shape, (sides - 1) / 2, sides * random.uniform(0.42, 0.47, 3))
    distance = distance + 0.03 * _smooth_noise(random, shape, 4.0)
    return distance < 1, distance


def _lesions(random: np.random.Generator, brain: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Label map with one or two irregular lesions: core and rim inside of oedema."""
    label = np.zeros(shape, dtype=np.uint8)
    inner = np.argwhere(ndimage.binary_erosion(brain, iterations=5))
    if not len(inner):
        raise InputError(
            "dataset.phantom.shape",
            f"leaves no room for a lesion in a brain of {shape_text(shape)} voxels",
            "sides of at least 16 voxels",
            "make the volumes larger",
        )
    smallest = min(shape)
    for _ in range(int(random.choice([1, 1, 2]))):
        centre = inner[random.integers(len(inner))].astype(float)
        radii = smallest * random.uniform(0.16, 0.28) * random.uniform(0.8, 1.25, 3)
        distance = _ellipsoid(shape, centre, radii) + 0.15 * _smooth_noise(random, shape, 2.5)
        core, hollow = random.uniform(0.5, 0.75), random.uniform(0.2, 0.45)
        enhances = random.random() > SHARE_WITHOUT_ENHANCEMENT
        label[brain & (distance < 1) & (label == 0)] = OEDEMA
        label[brain & (distance < core)] = ENHANCING if enhances else NECROSIS
        label[brain & (distance < hollow)] = NECROSIS
    return label
