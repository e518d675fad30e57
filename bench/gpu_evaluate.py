"""How fast a GPU predicts a case of full size, beside MONAI's inferer on the same card.

A glioma case of 4 x 150 x 180 x 145 voxels in memory, MedNeXt-S, windows of 128 x 160 x 112 with an
overlap of one half: ours in the precision that training takes there, and in float32; MONAI's
``SlidingWindowInferer`` (Gaussian, as many windows at once) in the same precisions. The last line
is one JSON object, kept in `bench/results/gpu_evaluate.json`:

    vs_monai            its time over ours, in the precision of training
    seconds, seconds_monai
                        per case, by precision
    seconds_forward     of as many windows through the network alone, by precision: the floor
    peak_mb, peak_mb_monai
                        memory of the device, by precision (GPU only)
    difference          greatest difference of a probability between the two, by precision
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

import torch  # noqa: E402
from bench.machine import TINY, device_kind, keep_result  # noqa: E402

from voxelsoup.evaluation.sliding_window import predict_logits  # noqa: E402
from voxelsoup.models import devices, networks  # noqa: E402
from voxelsoup.study.sections.training import Network  # noqa: E402

SHAPE = [20, 20, 20] if TINY else [150, 180, 145]
PATCH = [16, 16, 16] if TINY else [128, 160, 112]
NETWORK: dict[str, Any] = {"size": "S", "kernel_size": 3}
if TINY:
    NETWORK = {
        "size": "free",
        "arguments": {"init_filters": 4, "blocks_down": [1], "blocks_up": [1]},
    }
CHANNELS, REGIONS, OVERLAP, AT_ONCE = 4, 3, 0.5, 2
WARM_UP, TIMES = (0, 1) if TINY else (1, 3)

Predict = Callable[[torch.Tensor], torch.Tensor]


def timed(predict: Predict, image: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Probabilities, the shortest time and the memory."""
    cuda = image.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    taken = []
    for _ in range(WARM_UP + TIMES):
        start = time.perf_counter()
        # On the CPU, as every user of it takes them: the device has done its work.
        found = torch.sigmoid(predict(image)).cpu()
        taken.append(time.perf_counter() - start)
    memory = {"peak_mb": torch.cuda.max_memory_allocated() / 1e6} if cuda else {}
    return found, {"seconds": min(taken[WARM_UP:]), **memory}


def forward_seconds(model: torch.nn.Module, device: torch.device) -> float:
    """Of the windows of a case through the network alone, as many at once."""
    steps = [round(side * (1 - OVERLAP)) for side in PATCH]
    rooms = [max(0, size - side) for size, side in zip(SHAPE, PATCH, strict=True)]
    windows = math.prod(-(-room // step) + 1 for room, step in zip(rooms, steps, strict=True))
    images = torch.randn(AT_ONCE, CHANNELS, *PATCH, device=device)
    taken = []
    for _ in range(WARM_UP + TIMES):
        start = time.perf_counter()
        for _ in range(-(-windows // AT_ONCE)):
            found = model(images)
        # A GPU has done its work when its result is here.
        found.flatten()[0].item()
        taken.append(time.perf_counter() - start)
    return min(taken[WARM_UP:])


def ours(model: torch.nn.Module) -> Predict:
    """What the rule `evaluate` calls."""

    def predict(image: torch.Tensor) -> torch.Tensor:
        return predict_logits(model, image, REGIONS, PATCH, OVERLAP, AT_ONCE)

    return predict


def monai(model: torch.nn.Module) -> Predict:
    """MONAI's inferer."""
    from monai.inferers import SlidingWindowInferer

    inferer = SlidingWindowInferer(PATCH, AT_ONCE, OVERLAP, mode="gaussian")

    def predict(image: torch.Tensor) -> torch.Tensor:
        return inferer(image[None], model)[0].float()

    return predict


def main() -> None:
    """Both, in each precision; kept after each."""
    device = devices.prepare(device_kind(), 2, gpu=0)
    with networks.seeded(0):
        model = networks.build(Network.model_validate(NETWORK), CHANNELS, REGIONS)
    model = model.to(device).eval()
    image = torch.randn(CHANNELS, *SHAPE, generator=torch.Generator().manual_seed(0)).to(device)
    figures: dict[str, Any] = {"device": devices.name(device), "difference": {}}
    figures |= {"seconds": {}, "seconds_monai": {}, "seconds_forward": {}}
    of_training = devices.precision_on(device, "auto")
    for precision in dict.fromkeys((of_training, "float32")):
        with torch.inference_mode(), devices.autocast(device, precision):
            first, one = timed(ours(model), image)
            second, other = timed(monai(model), image)
            forward = {"seconds": forward_seconds(model, device)}
        for ending, measured in (("", one), ("_monai", other), ("_forward", forward)):
            for key, value in measured.items():
                figures.setdefault(f"{key}{ending}", {})[precision] = round(value, 4)
        figures["difference"][precision] = float((first - second).abs().max())
        seconds = figures["seconds"], figures["seconds_monai"]
        figures["vs_monai"] = round(seconds[1][of_training] / seconds[0][of_training], 2)
        keep_result("gpu_evaluate", figures)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
