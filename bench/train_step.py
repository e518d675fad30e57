"""How fast a training step is, beside others' loops and the floor.

On a GPU: MedNeXt-S, B, M and L at the patch and batch of the published study (2 x 4 x 128 x 160 x
112). On a CPU: the network of config.yaml and MedNeXt-S, at small patches, float32. Each way
trains the same network in a process of its own, by turns; on a CPU the fastest step counts. The
large networks take minutes each: `python bench/train_step.py S` takes the named ones alone. After
each way the figures so far are written, the most important ways first, for `bench/gpu.sh` gives it
two minutes. `python bench/train_step.py depthwise` measures the convolutions alone, and adds them
to the figures that are there.

    ours        voxelsoup's step as it is: precision auto, channels_last auto, schedule-free AdamW
    contiguous  the same with channels_last: false, where auto means true (CPU only)
    channels_last
                the same with channels_last: true, where auto means false (GPU only)
    compiled    the same through torch.compile (GPU only)
    plain       a plain loop of MONAI: float32, its DeepSupervisionLoss, AdamW, loss.item() per step
    published   the published settings: float32, gradient checkpointing outside each block; beside
                the step alone also with MONAI's augmentation on the CPU
    nnunet      the loop of nnU-Net v2's trainer: float16 and a scaler on a GPU, cuDNN's choice by
                trial, SGD with Nesterov momentum, targets brought down beforehand, clipping, the
                loss fetched each step

The last line is one JSON object. Figures by network stand in `networks`; those at the top are of
the first one.

    device
    vs_published    published loop's time per step, input and all, over ours (3 is the aim on a GPU)
    vs_plain        plain loop's time per step over ours, without input (1.3 is the aim on a CPU)
    vs_nnunet       nnU-Net's likewise
    share_of_peak   floating-point operations per second of ours over the peak: bfloat16 of known
                    GPUs, else what a large matrix product reaches here
    share_of_bandwidth
                    bytes that ours' operations read and write (each by itself) over the peak
    patches_per_second, peak_mb (of the device; of the process on a CPU)
    depthwise       per size: milliseconds forward and backward, contiguous and channels last, and
                    how many times longer than moving the bytes takes
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

from bench.input import REGIONS, monai, write_case  # noqa: E402
from bench.machine import RESULTS, TINY, device_kind, keep_result  # noqa: E402

from voxelsoup.models import devices, networks  # noqa: E402
from voxelsoup.models.losses import DiceBCELoss  # noqa: E402
from voxelsoup.study.loading import load  # noqa: E402
from voxelsoup.study.sections.training import Network  # noqa: E402
from voxelsoup.training import train  # noqa: E402
from voxelsoup.training.patches import batches  # noqa: E402
from voxelsoup.training.run import Run  # noqa: E402

CORES = 2
BATCH, CHANNELS = 2, 4
DEVICE = torch.device(device_kind())
GPU = DEVICE.type == "cuda"
NAME = "train_step_gpu" if GPU else "train_step_cpu"
DEMO = {
    "size": "free",
    "arguments": {
        "init_filters": 8, "blocks_down": [0, 1], "blocks_bottleneck": 1, "blocks_up": [1, 0],
        "encoder_expansion_ratio": 2, "decoder_expansion_ratio": [2, 1],
        "bottleneck_expansion_ratio": 2,
    },
}  # fmt: skip
SIZES = {size: {"size": size, "kernel_size": 3, "deep_supervision": True} for size in "SBML"}
NETWORKS: dict[str, dict[str, Any]] = SIZES if GPU else {"demo": DEMO, "S": SIZES["S"]}
PATCH = [128, 160, 112] if GPU else [16, 16, 16] if TINY else [32, 32, 32]
VARIANTS = ("channels_last", "compiled") if GPU else ("contiguous",)
# The ways that the aims are about first.
WAYS = ("ours", "published", "nnunet", *(() if TINY else (*VARIANTS, "plain")))
WARM_UP, STEPS, ROUNDS = (1, 1, 1) if TINY else (3, 10, 1) if GPU else (1, 5, 2)
# Of the data sheets: bfloat16 without sparsity, and memory, per second.
PEAKS = {"H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 2.04e12)}


def study_of(network: str, way: str) -> Any:
    """The study whose step a way of ours takes."""
    steps = {"patch": PATCH, "batch_size": BATCH, "augmentation": "full", "precision": "auto"}
    layouts = {"contiguous": False, "channels_last": True}
    steps |= {"channels_last": layouts.get(way, "auto"), "compile": way == "compiled"}
    content = {
        "dataset": {"channels": ["t1n", "t1c", "t2w", "t2f"]},
        "regions": REGIONS,
        "network": NETWORKS[network],
        "training": steps | {"workers": 8 if GPU else 0},
    }
    return load(content)


def wait() -> None:
    """Wait until the device has done its work."""
    if GPU:
        torch.cuda.synchronize()


def seconds_per_step(step: Callable[[], None], warm_up: int = WARM_UP) -> float:
    """The fastest step, which other work disturbs least; on a GPU, where no step must be waited
    for, the mean."""
    for _ in range(warm_up):
        step()
    wait()
    times = []
    start = time.perf_counter()
    for _ in range(STEPS):
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    wait()
    return (time.perf_counter() - start) / STEPS if GPU else min(times)


def fixed_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """A batch on the device."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, CHANNELS, *PATCH, generator=generator)
    regions = (torch.rand(BATCH, len(REGIONS), *PATCH, generator=generator) < 0.2).float()
    return images.to(DEVICE), regions.to(DEVICE)


def model_of(network: str) -> nn.Module:
    """The network on the device, training."""
    with networks.seeded(0):
        model = networks.build(Network.model_validate(NETWORKS[network]), CHANNELS, len(REGIONS))
    return model.to(DEVICE).train()


def our_step(network: str, way: str, folder: Path) -> dict[str, float]:
    """Voxelsoup's step alone, and with its input."""
    if not GPU:
        devices.prepare("cpu", CORES)
    study = study_of(network, way)
    run = Run(study, study.optimizer, 1, (0,), ["case"], folder, None)
    session = train.Trainer(run, DEVICE)
    images, regions = fixed_batch()
    alone = seconds_per_step(lambda: session.take_step(images, regions))
    stream = batches(train.patch_source(run), 0, WARM_UP + STEPS, DEVICE)
    loop = seconds_per_step(lambda: session.take_step(*next(stream)))
    figures = {"step": alone, "loop": loop}
    if way == "ours":
        with FlopCounterMode(display=False) as flops, BytesMoved() as moved:
            session.take_step(images, regions)
        figures |= {"flops": flops.get_total_flops(), "bytes": moved.total}
    return figures


class BytesMoved(TorchDispatchMode):
    """Sums up what operations read and write, each by itself; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not any(alias is not None and not alias.is_write for alias in _aliases(func)):
            self.total += _bytes(args) + _bytes(result)
        return result


def _aliases(func: Any) -> list[Any]:
    return [value.alias_info for value in func._schema.returns]


def _bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def plain_step(network: str, way: str, folder: Path) -> dict[str, float]:
    """MONAI's plain loop; with checkpointing and CPU augmentation as published."""
    from monai.losses import DeepSupervisionLoss

    torch.set_num_threads(CORES)
    model = model_of(network)
    if way == "published":
        networks.checkpoint_gradients(model)
    loss_function = DeepSupervisionLoss(DiceBCELoss(batch=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0027)

    def step(images: torch.Tensor, regions: torch.Tensor) -> None:
        optimizer.zero_grad()
        outputs = model(images.to(DEVICE))
        outputs = list(outputs) if isinstance(outputs, tuple) else outputs
        loss = loss_function(outputs, regions.to(DEVICE))
        loss.backward()
        optimizer.step()
        loss.item()

    images, regions = fixed_batch()
    figures = {"step": seconds_per_step(lambda: step(images, regions))}
    if way == "published":
        stream = monai(folder, WARM_UP + STEPS, PATCH, workers=8 if GPU else 0)
        pairs = ((batch["image"].as_tensor(), batch["label"].as_tensor()) for batch in stream)
        figures["loop"] = seconds_per_step(lambda: step(*next(pairs)))
    return figures


def nnunet_step(network: str, way: str, folder: Path) -> dict[str, float]:
    """nnUNetTrainer.train_step, of nnU-Net v2."""
    torch.set_num_threads(CORES)
    torch.backends.cudnn.benchmark = True
    model, single = model_of(network), DiceBCELoss(batch=True)
    optimizer = torch.optim.SGD(
        model.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5
    )
    scaler = torch.amp.GradScaler("cuda") if GPU else None
    images, regions = fixed_batch()
    with torch.no_grad():
        outputs = model(images)
    shapes = [o.shape[2:] for o in (outputs if isinstance(outputs, tuple) else [outputs])]
    targets = [nn.functional.interpolate(regions, shape, mode="nearest-exact") for shape in shapes]
    weights = [1 / 2**level for level in range(len(targets))]
    if len(weights) > 1:
        # The coarsest output does not count there.
        weights = [weight / sum(weights[:-1]) for weight in weights[:-1]] + [0.0]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, enabled=GPU):
            found = model(images)
            found = found if isinstance(found, tuple) else (found,)
            parts = [
                weight * single(output, target)
                for weight, output, target in zip(weights, found, targets, strict=True)
                if weight
            ]
            loss = sum(parts[1:], parts[0])
        if scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 12)
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 12)
            scaler.step(optimizer)
            scaler.update()
        loss.detach().cpu().numpy()

    return {"step": seconds_per_step(step)}


STEPS_OF: dict[str, Callable[[str, str, Path], dict[str, float]]] = {
    "ours": our_step, "contiguous": our_step, "channels_last": our_step, "compiled": our_step,
    "plain": plain_step, "published": plain_step, "nnunet": nnunet_step,
}  # fmt: skip


def run_one(way: str, network: str, folder: Path) -> None:
    """One way in this process."""
    figures = STEPS_OF[way](network, way, folder)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    figures["peak_mb"] = torch.cuda.max_memory_allocated() / 1e6 if GPU else memory
    print(json.dumps(figures))


def figures_of(way: str, network: str, folder: Path) -> dict[str, float] | None:
    """From a process of its own; None where the device's memory does not suffice."""
    # As voxelsoup sets it where it is imported before torch.
    passive = {"OMP_WAIT_POLICY": "passive"} if STEPS_OF[way] is our_step else {}
    done = subprocess.run(
        [sys.executable, __file__, "--one", way, network, str(folder)],
        capture_output=True, text=True, check=False, env=os.environ | passive,
    )  # fmt: skip
    if done.returncode and "OutOfMemoryError" in done.stderr:
        return None
    if done.returncode:
        raise RuntimeError(f"{way} failed on {network}:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def peaks() -> tuple[float, float]:
    """Floating-point operations and bytes per second: of the data sheet, else as reached here."""
    name = torch.cuda.get_device_name() if GPU else ""
    for known, peak in PEAKS.items():
        if known in name:
            return peak
    torch.set_num_threads(CORES)
    kind = torch.bfloat16 if GPU else torch.float32
    square = torch.randn(2048, 2048, device=DEVICE, dtype=kind)
    source = torch.randn(2**26, device=DEVICE)
    target = torch.empty_like(source)
    product = fastest(lambda: square @ square)
    copy = fastest(lambda: target.copy_(source))
    return 2 * 2048**3 / product, 2 * source.numel() * 4 / copy


def fastest(work: Callable[[], Any], times: int = 7) -> float:
    """Shortest time of several."""
    taken = []
    for _ in range(times):
        wait()
        start = time.perf_counter()
        work()
        wait()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def depthwise_sizes() -> Iterator[tuple[int, list[int]]]:
    """Channels and sides of MedNeXt's stages at the patch."""
    for level in range(5 if GPU else 1 if TINY else 3):
        yield 32 * 2**level, [side // 2**level for side in PATCH]


def depthwise(bandwidth: float) -> list[dict[str, Any]]:
    """Depthwise convolutions of MedNeXt's sizes beside moving their bytes once."""
    kind = torch.bfloat16 if GPU else torch.float32
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
    rows = []
    for channels, sides in depthwise_sizes():
        layer = nn.Conv3d(channels, channels, 3, padding=1, groups=channels)
        layer = layer.to(DEVICE, kind)
        row: dict[str, Any] = {"channels": channels, "sides": sides}
        for name, memory_format in formats.items():
            image = torch.randn(BATCH, channels, *sides, device=DEVICE, dtype=kind)
            image = image.contiguous(memory_format=memory_format).requires_grad_()
            size = image.numel() * image.element_size()
            output = layer(image)
            gradient = torch.randn_like(output)
            inputs = [image, *layer.parameters()]
            forward = fastest(lambda f=layer, i=image: f(i))
            both = fastest(
                lambda o=output, w=inputs, g=gradient: torch.autograd.grad(
                    o, w, g, retain_graph=True
                )
            )
            # Forward: the image is read, the output written. Backward: image and gradient are
            # read, the image's gradient written.
            row[name] = {
                "forward_ms": round(1000 * forward, 3),
                "backward_ms": round(1000 * both, 3),
                "forward_vs_floor": round(forward * bandwidth / (2 * size), 1),
                "backward_vs_floor": round(both * bandwidth / (3 * size), 1),
            }
        rows.append(row)
    return rows


Rounds = dict[str, dict[str, list[dict[str, float]]]]


def of_network(found: dict[str, list[dict[str, float]]], peak: tuple[float, float]) -> Any:
    """All figures of a network, of the ways that were measured."""
    seconds = {
        way: {key: min(one[key] for one in turns if one) for key in turns[0] or {}}
        for way, turns in found.items()
        if any(turns)
    }
    ours = seconds["ours"]

    def over(way: str, key: str) -> float | None:
        return round(seconds[way][key] / ours[key], 2) if way in seconds else None

    return {
        "vs_published": over("published", "loop"),
        "vs_plain": over("plain", "step"),
        "vs_nnunet": over("nnunet", "step"),
        "share_of_peak": round(ours["flops"] / ours["step"] / peak[0], 4),
        "share_of_bandwidth": round(ours["bytes"] / ours["step"] / peak[1], 3),
        "gflop": round(ours["flops"] / 1e9, 2),
        "gigabytes": round(ours["bytes"] / 1e9, 3),
        "floor_seconds": round(max(ours["flops"] / peak[0], ours["bytes"] / peak[1]), 5),
        "step_seconds": {way: round(one["step"], 4) for way, one in seconds.items()},
        "patches_per_second": {way: round(BATCH / one["step"], 2) for way, one in seconds.items()},
        "peak_mb": {way: round(one["peak_mb"]) for way, one in seconds.items()},
    }


def figures_so_far(found: Rounds, peak: tuple[float, float]) -> dict[str, Any]:
    """All figures; those of the first network at the top."""
    networks_found = {name: of_network(ways, peak) for name, ways in found.items()}
    first = next(iter(networks_found.values()))
    keys = ("vs_published", "vs_plain", "vs_nnunet", "share_of_peak", "share_of_bandwidth")
    return {
        "device": devices.name(DEVICE),
        **{key: first[key] for key in keys},
        "patch": PATCH,
        "batch": BATCH,
        "peak_tflops": round(peak[0] / 1e12, 3),
        "peak_gb_per_second": round(peak[1] / 1e9, 1),
        "networks": networks_found,
        "depthwise": [],
    }


def measure(folder: Path, chosen: Sequence[str]) -> dict[str, Any]:
    """All figures but those of the depthwise convolutions, kept after each way."""
    write_case(folder)
    peak, result = peaks(), {}
    found: Rounds = {}
    for turn, network in itertools.product(range(ROUNDS), chosen):
        for way in WAYS:
            figures = figures_of(way, network, folder)
            if turn == 0:
                found.setdefault(network, {})[way] = []
            found[network][way] += [figures] if figures else []
            result = figures_so_far(found, peak)
            keep_result(NAME, result)
    return result


def measure_depthwise() -> dict[str, Any]:
    """The figures that are there, with the depthwise convolutions."""
    kept = RESULTS / f"{NAME}.json"
    before = json.loads(kept.read_text())["figures"] if kept.exists() else {}
    result = {"device": devices.name(DEVICE), "networks": {}, **before}
    result["depthwise"] = depthwise(peaks()[1])
    keep_result(NAME, result)
    return result


def show(result: dict[str, Any]) -> None:
    """The ways, and the depthwise convolutions, as tables."""
    table = Table(title=f"{result['device']}: {BATCH} patches of {CHANNELS} x {PATCH}")
    for column in ("network", "way", "seconds per step", "patches per second", "peak MB"):
        table.add_column(column, justify="left" if column in ("network", "way") else "right")
    for network, figures in result["networks"].items():
        for way, seconds in figures["step_seconds"].items():
            speed, memory = figures["patches_per_second"][way], figures["peak_mb"][way]
            table.add_row(network, way, f"{seconds:.4f}", f"{speed:.2f}", str(memory))
        table.add_row(network, "floor", f"{figures['floor_seconds']:.4f}", "", "")
    Console().print(table)
    table = Table(title="Depthwise convolutions: ms, and times the floor of moving their bytes")
    for column in ("channels", "sides", "layout", "forward", "floors", "backward", "floors"):
        table.add_column(column, justify="right")
    for row in result["depthwise"]:
        for layout in ("contiguous", "channels_last"):
            one = [str(value) for value in row[layout].values()]
            sides = " x ".join(map(str, row["sides"]))
            table.add_row(str(row["channels"]), sides, layout, one[0], one[2], one[1], one[3])
    Console().print(table)


def main() -> None:
    """Measure in a folder of its own, and print."""
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        return
    chosen = sys.argv[1:] or [*NETWORKS, "depthwise"]
    networks_chosen = [name for name in chosen if name != "depthwise"]
    result: dict[str, Any] = {}
    if networks_chosen:
        with tempfile.TemporaryDirectory() as name:
            result = measure(Path(name), networks_chosen)
    if "depthwise" in chosen:
        result = measure_depthwise()
    show(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
