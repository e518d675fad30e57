"""How fast patches come: read and augmented, beside MONAI's and nnU-Net's transforms.

Patches of 4 x 128^3 voxels, in batches of two, from a case of full size, with everything of the
preset `full` at its probabilities. Each way has two cores: ours one process of two threads, the
others two workers of torch's loader of one thread each, which is what their users run. They get
their volumes in memory and their foreground found beforehand; ours reads its memory map. Each way
runs in a process of its own, by turns; the median of the rounds counts.

    ours             voxelsoup.training.patches, as training reads them
    crops            the same without augmentation: what the CPU does where a GPU trains
    monai            dictionary transforms with the same ranges and probabilities (it has no
                     contrast transform that keeps the mean; it is left out there)
    batchgenerators  batchgeneratorsv2, nnU-Net's, the same, with its own way to sample labels

batchgeneratorsv2 comes from PyPI into a folder that is thrown away. The last line is one JSON
object:

    vs_monai, vs_batchgenerators    our patches per second over theirs (5 and 1 are the aims); null
                                    where batchgeneratorsv2 could not be had
    cpu_vs_monai, cpu_vs_batchgenerators
                                    their CPU seconds per patch over ours, which other work on the
                                    machine does not change
    patches_per_second, cpu_seconds_per_patch
                                    of each way
    floor_cpu_seconds               of copying a patch and its labels once, one thread: whatever
                                    changes them reads and writes them at least once
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from bench.machine import keep_result  # noqa: E402

from voxelsoup.data.preprocessing.store import load_case  # noqa: E402
from voxelsoup.models import devices  # noqa: E402
from voxelsoup.study.sections.training import Training  # noqa: E402
from voxelsoup.training.augment import (  # noqa: E402
    BLUR_SIGMA,
    CONTRAST,
    GAMMA,
    INTENSITY_SCALE,
    INTENSITY_SHIFT,
    LOW_RESOLUTION,
    NOISE_DEVIATION,
    PRESETS,
    ROTATION,
    ZOOM,
)
from voxelsoup.training.patches import PatchSource, batches  # noqa: E402

CORES = 2
SIDE = 128
SHAPE = (4, 150, 180, 145)
REGIONS = {"TC": [1, 3], "WT": [1, 2, 3], "ET": [3]}
# The last two are imported by it, and not used.
PEER = [
    "batchgeneratorsv2==0.3.6",
    "batchgenerators==0.25.5",
    "scikit-image==0.26.0",
    "lazy-loader==0.4",
]
BATCH = 2
WARM_UP, ROUNDS = 4, 3
# Steps per round: enough for each transform to be drawn, few enough for five minutes.
STEPS = {"ours": 60, "crops": 60, "monai": 30, "batchgenerators": 24}
FULL = PRESETS["full"]


def write_case(folder: Path) -> None:
    """A preprocessed case of full size: what is in it does not change the work."""
    random = np.random.default_rng(0)
    image = random.normal(size=SHAPE).astype(np.float32)
    label = np.zeros(SHAPE[1:], np.uint8)
    for value, size in ((2, 40), (1, 25), (3, 15)):
        label[60 : 60 + size, 70 : 70 + size, 50 : 50 + size] = value
    places = np.argwhere(label)
    places = places[:: max(1, len(places) // 10_000)]
    foreground = np.concatenate([label[tuple(places.T)][:, None], places], axis=1)
    np.save(folder / "case.image.npy", image)
    np.save(folder / "case.label.npy", label)
    np.save(folder / "case.foreground.npy", foreground.astype(np.int32))
    (folder / "case.json").write_text("{}")


def ours(folder: Path, steps: int, augmentation: str = "full") -> Iterator[Any]:
    """Batches as training on CPUs reads them."""
    devices.prepare("cpu", CORES)
    training = Training.model_validate(
        {"patch": [SIDE] * 3, "batch_size": BATCH, "augmentation": augmentation}
    )
    patches = PatchSource(folder, ["case"], REGIONS, training, (0,))
    return batches(patches, 0, steps, torch.device("cpu"))


def crops(folder: Path, steps: int) -> Iterator[Any]:
    """Batches that a GPU would augment."""
    return ours(folder, steps, "none")


def monai(
    folder: Path, steps: int, patch: Sequence[int] = (SIDE,) * 3, workers: int = CORES
) -> Iterator[Any]:
    """MONAI's dictionary transforms over a case in memory."""
    from monai import transforms as t
    from monai.data import DataLoader, Dataset

    case, both = load_case(folder, "case"), ["image", "label"]
    label = torch.from_numpy(np.array(case.label))[None]
    inside = np.flatnonzero(case.label)
    ready = {
        "image": torch.from_numpy(np.array(case.image)),
        "label": torch.cat([torch.isin(label, torch.tensor(v)) for v in REGIONS.values()]).float(),
        "inside": inside,
        "outside": np.flatnonzero(np.asarray(case.label) == 0),
    }
    zooms = (1 / ZOOM[1] - 1, 1 / ZOOM[0] - 1)
    crop = t.RandCropByPosNegLabeld(
        both, "label", patch, 1, 2, 1, fg_indices_key="inside", bg_indices_key="outside"
    )
    affine = t.RandAffined(
        both, prob=FULL.affine, rotate_range=(ROTATION,) * 3, scale_range=(zooms,) * 3,
        mode=("bilinear", "nearest"), padding_mode="zeros",
    )  # fmt: skip
    pipeline = t.Compose(
        [
            crop,
            affine,
            *(t.RandFlipd(both, FULL.flip, spatial_axis=axis) for axis in range(3)),
            t.RandGaussianNoised("image", prob=FULL.noise, std=NOISE_DEVIATION[1]),
            t.RandGaussianSmoothd("image", *(BLUR_SIGMA,) * 3, prob=FULL.blur),
            t.RandScaleIntensityd(
                "image", INTENSITY_SCALE[1] - 1, prob=FULL.intensity, channel_wise=True
            ),
            t.RandShiftIntensityd("image", INTENSITY_SHIFT[1], prob=FULL.intensity),
            t.RandSimulateLowResolutiond(
                "image", prob=FULL.low_resolution, zoom_range=LOW_RESOLUTION
            ),
            t.RandAdjustContrastd("image", prob=FULL.gamma, gamma=GAMMA, retain_stats=True),
        ]
    )
    pipeline.set_random_state(0)
    data = Dataset([ready] * (BATCH * steps), pipeline)
    return iter(DataLoader(data, batch_size=BATCH, num_workers=workers))


class NnunetPatches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Patches as nnU-Net's loader cuts and changes them, at our ranges and probabilities."""

    def __init__(self, folder: Path, count: int) -> None:
        from batchgeneratorsv2.transforms.intensity.brightness import (
            BrightnessAdditiveTransform,
            MultiplicativeBrightnessTransform,
        )
        from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
        from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
        from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
        from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
        from batchgeneratorsv2.transforms.spatial.low_resolution import (
            SimulateLowResolutionTransform,
        )
        from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
        from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
        from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
        from batchgeneratorsv2.transforms.utils.random import RandomTransform
        from batchgeneratorsv2.transforms.utils.seg_to_regions import (
            ConvertSegmentationToRegionsTransform,
        )

        case = load_case(folder, "case")
        self.image = torch.from_numpy(np.array(case.image))
        self.label = torch.from_numpy(np.array(case.label)).to(torch.int16)[None]
        self.foreground, self.count = case.foreground, count
        each = {"synchronize_channels": False, "p_per_channel": 1}
        together = {"synchronize_channels": True, "p_per_channel": 1}
        # Their factor of the grid is the inverse of the zoom.
        spatial = SpatialTransform(
            (SIDE,) * 3, 0, False, p_rotation=1, rotation=(-ROTATION, ROTATION), p_scaling=1,
            scaling=(1 / ZOOM[1], 1 / ZOOM[0]), p_synchronize_scaling_across_axes=1,
        )  # fmt: skip
        noise = GaussianNoiseTransform(noise_variance=NOISE_DEVIATION, **together)
        blur = GaussianBlurTransform(BLUR_SIGMA, synchronize_axes=True, benchmark=True, **together)
        coarse = SimulateLowResolutionTransform(
            LOW_RESOLUTION, synchronize_axes=True, ignore_axes=(), **together
        )
        self.pipeline = ComposeTransforms(
            [
                RandomTransform(spatial, FULL.affine),
                MirrorTransform((0, 1, 2)),
                RandomTransform(noise, FULL.noise),
                RandomTransform(blur, FULL.blur),
                MultiplicativeBrightnessTransform(INTENSITY_SCALE, **each),
                BrightnessAdditiveTransform(0, INTENSITY_SHIFT[1], **each),
                RandomTransform(ContrastTransform(CONTRAST, True, **each), FULL.contrast),
                RandomTransform(coarse, FULL.low_resolution),
                RandomTransform(GammaTransform(GAMMA, 0, p_retain_stats=1, **each), FULL.gamma),
                ConvertSegmentationToRegionsTransform(list(REGIONS.values())),
            ]
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        random = np.random.default_rng(number)
        room = np.array(self.label.shape[1:]) - SIDE
        start = random.integers(0, room + 1)
        if random.random() < 0.33:
            start = np.clip(random.choice(self.foreground)[1:] - SIDE // 2, 0, room)
        window = (slice(None), *(slice(int(a), int(a) + SIDE) for a in start))
        changed: dict[str, torch.Tensor] = self.pipeline(
            image=self.image[window].clone(), segmentation=self.label[window].clone()
        )
        return changed


def seed_numpy(worker: int) -> None:
    """The peer draws from numpy's global state, which workers share."""
    np.random.seed(worker)


def batchgenerators(folder: Path, steps: int) -> Iterator[Any]:
    """nnU-Net's transforms."""
    from torch.utils.data import DataLoader

    patches = NnunetPatches(folder, BATCH * steps)
    return iter(DataLoader(patches, BATCH, num_workers=CORES, worker_init_fn=seed_numpy))


WAYS: dict[str, Callable[[Path, int], Iterator[Any]]] = {
    "ours": ours,
    "crops": crops,
    "monai": monai,
    "batchgenerators": batchgenerators,
}


def cpu_seconds() -> float:
    """Of this process and of the workers that have ended."""
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def run_one(way: str, folder: Path) -> None:
    """One way in this process."""
    steps = STEPS[way]
    stream = WAYS[way](folder, WARM_UP + steps)
    # CPU time of workers is known when they have ended: all of it counts, their start left out by
    # what an empty pass of as many steps would not show. It is small beside the patches.
    start_cpu = cpu_seconds()
    for _ in range(WARM_UP):
        next(stream)
    start = time.perf_counter()
    count = sum(1 for _ in stream)
    seconds = time.perf_counter() - start
    del stream
    cpu = cpu_seconds() - start_cpu
    patches = BATCH * count
    print(
        json.dumps(
            {
                "patches_per_second": patches / seconds,
                "cpu_seconds_per_patch": cpu / (patches + BATCH * WARM_UP),
            }
        )
    )


def time_of(way: str, folder: Path, peers: Path) -> dict[str, float]:
    """Figures of one way, from a process of its own."""
    # As voxelsoup sets it where it is imported before torch.
    passive = {"OMP_WAIT_POLICY": "passive"} if way in ("ours", "crops") else {}
    done = subprocess.run(
        [sys.executable, __file__, "--one", way, str(folder), str(peers)],
        capture_output=True, text=True, check=False, env=os.environ | passive,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-3000:]}")
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def install_peer(folder: Path) -> bool:
    """Get batchgeneratorsv2 into a folder of its own, without what it would drag in."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    got = subprocess.run(
        [*command, str(folder), *PEER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return got.returncode == 0


def floor() -> float:
    """CPU seconds of copying a patch and its labels once, on one thread."""
    torch.set_num_threads(1)
    image, label = torch.randn(SHAPE[0], *[SIDE] * 3), torch.zeros(1, *[SIDE] * 3)
    image_copy, label_copy = image.clone(), label.clone()
    times = []
    for _ in range(10):
        start = time.process_time()
        image_copy.copy_(image)
        label_copy.copy_(label)
        times.append(time.process_time() - start)
    return min(times)


def measure(folder: Path) -> dict[str, Any]:
    """All figures."""
    write_case(folder)
    peers = folder / "peers"
    ways = [way for way in WAYS if way != "batchgenerators" or install_peer(peers)]
    rounds = [{way: time_of(way, folder, peers) for way in ways} for _ in range(ROUNDS)]

    def middle(key: str) -> dict[str, float]:
        return {way: round(median(turn[way][key] for turn in rounds), 4) for way in ways}

    speed, cpu = middle("patches_per_second"), middle("cpu_seconds_per_patch")
    result: dict[str, Any] = {}
    for peer in ("monai", "batchgenerators"):
        had = peer in ways
        result[f"vs_{peer}"] = round(speed["ours"] / speed[peer], 2) if had else None
        result[f"cpu_vs_{peer}"] = round(cpu[peer] / cpu["ours"], 2) if had else None
    return result | {
        "patches_per_second": speed,
        "cpu_seconds_per_patch": cpu,
        "floor_cpu_seconds": round(floor(), 4),
    }


def show(result: dict[str, Any]) -> None:
    """The ways as a table."""
    table = Table(title=f"Patches of {SHAPE[0]} x {SIDE}^3 on {CORES} cores")
    for column in ("way", "patches per second", "CPU seconds per patch"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way, speed in result["patches_per_second"].items():
        table.add_row(way, f"{speed:.2f}", f"{result['cpu_seconds_per_patch'][way]:.3f}")
    table.add_row("floor: a copy", "", f"{result['floor_cpu_seconds']:.3f}")
    Console().print(table)


def main() -> None:
    """Measure in a folder of its own, and print."""
    if sys.argv[1:2] == ["--one"]:
        sys.path.insert(0, sys.argv[4])
        torch.set_num_threads(1)
        run_one(sys.argv[2], Path(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name))
    show(result)
    keep_result("input", result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
