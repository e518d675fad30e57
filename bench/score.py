"""What scoring a full BraTS case takes, beside the plain packages on the uncropped volumes.

The case is a phantom of 240 x 240 x 155 voxels with three regions: a lobed tumour of 120 x 110 x
90 voxels with a core and a ring, four satellites, and a prediction with errors of all kinds. The
real case in ../shared/data, which has no enhancing tumour, is scored besides where it is at hand,
with a perturbed truth for the prediction. The packages: MONAI for Dice and the counts,
surface-distance for distances, and the lesion-wise definition written out with scipy, cc3d and
surface-distance, each lesion on the whole volume as in the challenge's own code. The last line is
one JSON object:

    seconds_per_case      all metrics, three regions, two threads (below 3 is the aim)
    seconds_one_thread    the same on one thread
    seconds_real          the real case on two threads (null where it is not at hand)
    peak_mb               memory of a process that scores the phantom, its arrays and the program
                          included (below 2000 is the aim)
    peak_mb_before        of the same process before it scores
    seconds_packages      the plain packages for all metrics, on one thread
    packages_vs_ours      seconds_packages over seconds_one_thread
    seconds_transforms    one distance transform (scipy) of each surface of each region, cropped:
                          what the distances alone cost without looking nearby first
    transforms_vs_ours    seconds_transforms over the time of hd95 and nsd on one thread
    agreement             greatest difference of any score from that of the packages
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

REAL = REPOSITORY.parent / "shared" / "data" / "brats" / "TCGA-DU-7294"
SHAPE = (240, 240, 155)
SPACING = (1.0, 1.0, 1.0)
TOLERANCE = 1.0
REPEATS = 5
Mask = NDArray[np.bool_]
Pair = tuple[Mask, Mask]

GROUPS = {
    "Dice": ("dice",),
    "sensitivity, precision": ("sensitivity", "precision"),
    "HD95, surface Dice": ("hd95", "nsd"),
    "lesion-wise Dice, HD95": ("lesion_dice", "lesion_hd95"),
}


def field(chance: np.random.Generator, width: float) -> NDArray[np.float64]:
    """Smooth noise (x, y, z) of deviation 1 with bumps of a width in voxels."""
    coarse = chance.standard_normal([-(-side // 4) for side in SHAPE])
    coarse = ndimage.gaussian_filter(coarse, width / 4, mode="wrap")
    fine = ndimage.zoom(coarse / coarse.std(), 4, order=1)
    return fine[tuple(slice(side) for side in SHAPE)]


def away(centre: Any, radii: tuple[float, float, float]) -> NDArray[np.float64]:
    """Distance (x, y, z) from a centre, 1 on an ellipsoid."""
    axes = np.ogrid[tuple(slice(side) for side in SHAPE)]
    return np.sqrt(sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)))


def phantom() -> Pair:
    """Prediction and truth, booleans (region, x, y, z): whole tumour, core, ring."""
    chance = np.random.default_rng(0)
    lobes, coarse, fine = field(chance, 12), field(chance, 8), field(chance, 4)
    whole = away((100, 130, 75), (58, 53, 44)) + 0.18 * lobes
    core = away((95, 125, 75), (34, 30, 26)) + 0.09 * lobes
    satellites, wrong = np.zeros((2, *SHAPE), dtype=bool)
    for number in range(4):
        centre = (chance.integers(155, 185), 60 + 40 * number, chance.integers(40, 80))
        satellites |= away(centre, (4 + number, 5, 4)) < 1
        wrong |= away(chance.integers((40, 40, 30), (200, 200, 125)), (3, 3, 3)) < 1

    def regions(whole: Any, core: Any, satellites: Mask) -> Mask:
        inside = core < 1
        ring = inside & (core > 0.75)
        return np.stack([(whole < 1) | inside | satellites, inside | satellites, ring | satellites])

    truth = regions(whole, core, satellites)
    whole, core = whole + 0.05 * coarse + 0.03 * fine, core + 0.08 * coarse + 0.05 * fine
    return regions(whole, core, np.roll(satellites, (1, 1), (0, 1)) | wrong), truth


def real() -> Pair | None:
    """The real case's truth, and the same shifted, with holes and a false positive."""
    if not REAL.is_dir():
        return None
    import nibabel

    label = np.asarray(nibabel.load(REAL / f"{REAL.name}-seg.nii.gz").dataobj)
    truth = np.stack([label > 0, np.isin(label, (1, 3)), label == 3])
    prediction = np.roll(truth, (1, 2), (1, 2))
    prediction &= field(np.random.default_rng(0), 8) < 2
    prediction[:, 200:203, 30:33, 70:72] = True
    return prediction, truth


def ours(pair: Pair, metrics: tuple[str, ...], threads: int) -> list[dict[str, float]]:
    """What the workflow calls."""
    from voxelsoup.evaluation.metrics import Scoring, score_regions

    return score_regions(*pair, SPACING, Scoring(metrics, TOLERANCE), threads)


def packages_dice(pair: Pair) -> list[tuple[float, ...]]:
    """Dice by MONAI."""
    import torch
    from monai.metrics import compute_dice

    prediction, truth = (torch.from_numpy(mask)[None] for mask in pair)
    return [(value,) for value in compute_dice(prediction, truth, ignore_empty=False)[0].tolist()]


def packages_counts(pair: Pair) -> list[tuple[float, ...]]:
    """Sensitivity and precision by MONAI."""
    import torch
    from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix

    # Booleans give no true positives there, and no error.
    prediction, truth = (torch.from_numpy(mask)[None].float() for mask in pair)
    matrix = get_confusion_matrix(prediction, truth)
    names = ("sensitivity", "precision")
    columns = (compute_confusion_matrix_metric(name, matrix)[0].tolist() for name in names)
    return list(zip(*columns, strict=True))


def packages_distances(pair: Pair) -> list[tuple[float, ...]]:
    """HD95 and surface Dice by surface-distance."""
    import surface_distance as package

    found = []
    for prediction, truth in zip(*pair, strict=True):
        surfaces = package.compute_surface_distances(truth, prediction, SPACING)
        nsd = package.compute_surface_dice_at_tolerance(surfaces, TOLERANCE)
        found.append((package.compute_robust_hausdorff(surfaces, 95), nsd))
    return found


def packages_lesions(pair: Pair) -> list[tuple[float, ...]]:
    """Lesion-wise scores, lesion after lesion on the whole volume."""
    return [whole_volume_lesions(*masks) for masks in zip(*pair, strict=True)]


def whole_volume_lesions(prediction: Mask, truth: Mask) -> tuple[float, float]:
    """Lesion-wise Dice and HD95 of one region by the definition."""
    import cc3d
    import surface_distance as package

    edges = ndimage.generate_binary_structure(3, 2)
    dilated = ndimage.binary_dilation(truth, edges, iterations=3)
    lesions, lesion_count = cc3d.connected_components(dilated, return_N=True)
    components, count = cc3d.connected_components(prediction, return_N=True)
    dice_scores, distances, met = [], [], set()
    for number in range(1, lesion_count + 1):
        lesion = truth & (lesions == number)
        near = ndimage.binary_dilation(lesion, edges, iterations=3)
        belonging = np.setdiff1d(components[near], [0])
        met |= set(belonging.tolist())
        if lesion.sum() <= 50:
            continue
        predicted = np.isin(components, belonging)
        dice_scores.append(2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum()))
        distances.append(374.0)
        if belonging.size:
            surfaces = package.compute_surface_distances(lesion, predicted, SPACING)
            distances[-1] = package.compute_robust_hausdorff(surfaces, 95)
    false = count - len(met)
    total = len(dice_scores) + false
    return float(sum(dice_scores) / total), float((sum(distances) + 374 * false) / total)


PACKAGES: dict[str, Callable[[Pair], list[tuple[float, ...]]]] = dict(
    zip(
        GROUPS,
        (packages_dice, packages_counts, packages_distances, packages_lesions),
        strict=True,
    )
)


def transforms(pair: Pair) -> None:
    """One distance transform of each surface of each region, cut to what is not empty."""
    for masks in zip(*pair, strict=True):
        (box,) = ndimage.find_objects((masks[0] | masks[1]).view(np.uint8), 1)
        for mask in masks:
            surface = mask[box] ^ ndimage.binary_erosion(mask[box])
            ndimage.distance_transform_edt(~surface, sampling=SPACING)


def seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """The least time of some: what the machine does besides is not to count."""
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def peak(path: Path) -> tuple[float, float]:
    """MB of a process that scores a stored case, before it does and at the most."""
    command = [sys.executable, __file__, "--peak", str(path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    before, most = map(float, run.stdout.split())
    return before, most


def measure_peak(path: Path) -> None:
    """In a process of its own: score once, and print the memory in MB."""
    from voxelsoup.evaluation.metrics import METRICS

    stored = np.load(path)
    pair = stored["prediction"], stored["truth"]
    before = peak_mb()
    ours(pair, tuple(METRICS), 2)
    print(before, peak_mb())


def peak_mb() -> float:
    """The most memory this process has had; getrusage would count its parent's at the start."""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def compare(pair: Pair, table: Table) -> tuple[float, float, float]:
    """Fill a table; returns both times for all groups and the greatest difference."""
    theirs_total = difference = 0.0
    for title, metrics in GROUPS.items():
        work = PACKAGES[title]
        found = np.array([[row[name] for name in metrics] for row in ours(pair, metrics, 1)])
        mine = seconds(lambda metrics=metrics: ours(pair, metrics, 1))
        expected = np.array(work(pair))
        theirs = seconds(lambda work=work: work(pair), 1)
        theirs_total += theirs
        difference = max(difference, float(np.abs(found - expected).max()))
        table.add_row(title, f"{mine:.3f}", f"{theirs:.2f}", f"{theirs / mine:.0f}")
    everything = tuple(name for metrics in GROUPS.values() for name in metrics)
    mine = seconds(lambda: ours(pair, everything, 1))
    ratio = f"{theirs_total / mine:.0f}"
    table.add_row("all", f"{mine:.3f}", f"{theirs_total:.2f}", ratio, style="bold")
    return mine, theirs_total, difference


def main() -> None:
    """Measure, and print."""
    from voxelsoup.evaluation.metrics import METRICS

    everything = tuple(METRICS)
    pair, real_pair = phantom(), real()
    table = Table(title="Seconds for a case of 240 x 240 x 155, three regions, one thread")
    for column in ("what", "voxelsoup", "packages", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    one, packages, difference = compare(pair, table)
    two = seconds(lambda: ours(pair, everything, 2))
    distances = seconds(lambda: ours(pair, GROUPS["HD95, surface Dice"], 1))
    floor = seconds(lambda: transforms(pair), 2)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "case.npz"
        np.savez(path, prediction=pair[0], truth=pair[1])
        before, most = peak(path)
    Console().print(table)
    result = {
        "seconds_per_case": round(two, 3),
        "seconds_one_thread": round(one, 3),
        "seconds_real": round(seconds(lambda: ours(real_pair, everything, 2)), 3)
        if real_pair
        else None,
        "peak_mb": round(most),
        "peak_mb_before": round(before),
        "seconds_packages": round(packages, 1),
        "packages_vs_ours": round(packages / one, 1),
        "seconds_transforms": round(floor, 2),
        "transforms_vs_ours": round(floor / distances, 1),
        "agreement": difference,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        measure_peak(Path(sys.argv[2]))
    else:
        main()
