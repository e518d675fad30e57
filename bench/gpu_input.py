"""How fast batches come to a GPU that augments them itself, and what the augmentation takes there.

Patches of 4 x 128^3 voxels in batches of two, from a case of full size, preset `full`, as a
training on a GPU reads and augments them. The last line is one JSON object, kept in
`bench/results/gpu_input.json`:

    patches_per_second      batches on the device, augmented, as training takes them
    crops_per_second        the same without augmentation: what CPU and copy to the device do
    augmentation_seconds    of a batch that is on the device already, mean
    memory_passes           that time over one pass of reading and writing the batch there
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

import torch  # noqa: E402
from bench.input import BATCH, REGIONS, SIDE, write_case  # noqa: E402
from bench.machine import TINY, device_kind, keep_result  # noqa: E402

from voxelsoup.models import devices  # noqa: E402
from voxelsoup.study.sections.training import Training  # noqa: E402
from voxelsoup.training.augment import augment  # noqa: E402
from voxelsoup.training.patches import PatchSource, batches  # noqa: E402

PATCH = [16] * 3 if TINY else [SIDE] * 3
WARM_UP, STEPS = (1, 2) if TINY else (4, 40)
WORKERS = 0 if TINY else 8


def wait(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def stream_rate(folder: Path, augmentation: str, device: torch.device) -> float:
    """Patches per second that reach the device."""
    settings = {"patch": PATCH, "batch_size": BATCH, "augmentation": augmentation}
    training = Training.model_validate(settings | {"workers": WORKERS})
    source = PatchSource(folder, ["case"], REGIONS, training, (0,))
    stream = batches(source, 0, WARM_UP + STEPS, device)
    for _ in range(WARM_UP):
        next(stream)
    wait(device)
    start = time.perf_counter()
    count = sum(1 for _ in stream)
    wait(device)
    return BATCH * count / (time.perf_counter() - start)


def augmentation_seconds(device: torch.device) -> float:
    """Of a batch on the device, mean of many: each draws other changes."""
    images = torch.randn(BATCH, 4, *PATCH, device=device)
    labels = torch.zeros(BATCH, 1, *PATCH, device=device, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for _ in range(WARM_UP):
        augment(images, labels, "full", generator)
    wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        augment(images, labels, "full", generator)
    wait(device)
    return (time.perf_counter() - start) / STEPS


def pass_seconds(device: torch.device) -> float:
    """Of reading and writing a batch once."""
    images = torch.randn(BATCH, 4, *PATCH, device=device)
    target = torch.empty_like(images)
    for _ in range(WARM_UP):
        target.copy_(images)
    wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        target.copy_(images)
    wait(device)
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    """Measure, keep and print."""
    device = devices.prepare(device_kind(), 2, gpu=0)
    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder))
        rates = {name: stream_rate(Path(folder), name, device) for name in ("full", "none")}
    seconds = augmentation_seconds(device)
    figures = {
        "device": devices.name(device),
        "patches_per_second": round(rates["full"], 2),
        "crops_per_second": round(rates["none"], 2),
        "augmentation_seconds": round(seconds, 5),
        "memory_passes": round(seconds / pass_seconds(device), 1),
    }
    keep_result("gpu_input", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
