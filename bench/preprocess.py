"""What preprocessing a full BraTS case takes, beside the published method and the floor.

The case has four int16 channels of 240 x 240 x 155 voxels and a label map: the real one in
../shared/data where it is at hand, else one made from a phantom. Each way runs in a process of its
own, several times by turns, files in the cache; the best time counts. Reading and writing are
included, the flush to the disk as well.

The published way, written from its description: nibabel reads each volume as float64, the four
are stacked, cast, cropped to their foreground, z-scored where not 0 and padded with MONAI, and
saved. The floor is unpacking the same four files with the standard gzip, and nothing else. The
last line is one JSON object, kept in `bench/results/preprocess.json`:

    vs_published        the published way's time over ours (6 is the aim)
    vs_gunzip           our time over the floor's (below 3 is the aim)
    peak_mb             memory of the process that preprocesses, the program included (below 700)
    patch_ms            reading a random 4 x 128^3 patch into a batch, warm, float32 (below 5)
    patch_ms_float16    the same of images that are stored as float16
    seconds             ours
    seconds_published, seconds_gunzip, seconds_unpacking (by libdeflate, which we use)
    seconds_writing     writing and flushing again what ours stored: with the unpacking, the least
                        that one core needs
    stored_mb           size of the image at rest, float32
    packed_mb           size of the smallest alternative: chunks of 32^3 voxels, bytes shuffled,
                        deflate
    packed_patch_ms     reading a patch from such chunks
    published_peak_mb   memory of the published way's process
    difference          greatest difference between the voxels of both ways
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from printing import print_figures

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY)]

REAL = REPOSITORY.parent / "shared" / "data" / "brats" / "TCGA-DU-7294"
SHAPE = (240, 240, 155)
CHANNELS = ["t1n", "t1c", "t2w", "t2f"]
PATCH = [128, 128, 128]
ROUNDS = 5
PATCHES = 100
CHUNK = 32


def scans(folder: Path) -> Path:
    """The folder of one full case: the real one, or a phantom made for it."""
    if REAL.is_dir():
        return REAL
    from voxelsoup.data.layouts.phantom import AFFINE, make_case
    from voxelsoup.data.volumes.volume import write_volume

    channels, label = make_case(np.random.default_rng(0), [150, 180, 145])
    case = folder / "Phantom-0000-000"
    for name, volume in (*channels.items(), ("seg", label)):
        around = [(0, want - have) for want, have in zip(SHAPE, volume.shape, strict=True)]
        write_volume(case / f"{case.name}-{name}.nii.gz", np.pad(volume, around), AFFINE)
    return case


def files_of(case: Path) -> list[Path]:
    """The channels' files."""
    return [case / f"{case.name}-{channel}.nii.gz" for channel in CHANNELS]


def ours(case: Path, out: Path, storage: str = "float32") -> None:
    """What the rule `preprocess` does to a case."""
    from voxelsoup.data.case import Source
    from voxelsoup.data.index.index import IndexedCase
    from voxelsoup.data.preprocessing.preprocess import preprocess_case
    from voxelsoup.study.sections.data import Preprocess

    channels = {c: Source(Path(f.name)) for c, f in zip(CHANNELS, files_of(case), strict=True)}
    label = Source(Path(f"{case.name}-seg.nii.gz"))
    one = IndexedCase(case.name, case.name, channels, label, SHAPE, (1, 1, 1), [], "")
    settings = Preprocess.model_validate({"storage": storage})
    preprocess_case(one, case, settings, PATCH, out, len(os.sched_getaffinity(0)))


def published(case: Path, out: Path) -> None:
    """The published way, without the label map."""
    import nibabel as nib
    from monai.transforms import CropForeground, NormalizeIntensity, SpatialPad

    volumes = [nib.load(file).get_fdata() for file in files_of(case)]
    image = np.stack(volumes).astype(np.float32)
    image = CropForeground()(image)
    image = NormalizeIntensity(nonzero=True, channel_wise=True)(image)
    image = SpatialPad(PATCH)(image)
    np.save(out / "published.npy", np.asarray(image))


def gunzip(case: Path, out: Path) -> None:
    """The floor: the four files unpacked with the standard gzip."""
    for file in files_of(case):
        gzip.decompress(file.read_bytes())


def unpacking(case: Path, out: Path) -> None:
    """The four files unpacked with libdeflate."""
    import deflate

    for file in files_of(case):
        deflate.gzip_decompress(file.read_bytes())


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "ours": ours,
    "published": published,
    "gunzip": gunzip,
    "unpacking": unpacking,
}


def writing(folder: Path, name: str) -> float:
    """Seconds of writing what ours stored, and of flushing it to the disk; the best time."""
    stored = [file.read_bytes() for file in sorted(folder.glob(f"{name}.*"))]
    times = []
    for turn in range(ROUNDS):
        start = time.perf_counter()
        for number, content in enumerate(stored):
            with (folder / f"again-{turn}-{number}").open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        times.append(time.perf_counter() - start)
    return min(times)


def time_of(way: str, case: Path, out: Path) -> dict[str, float]:
    """Seconds and peak memory of one way, measured by the process that runs it."""
    command = [sys.executable, __file__, "--one", way, str(case), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def run_one(way: str, case: Path, out: Path) -> None:
    """One way in this process: once to import what it needs, once to be timed."""
    with tempfile.TemporaryDirectory(dir=out) as first:
        WAYS[way](case, Path(first))
    start = time.perf_counter()
    WAYS[way](case, out)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def milliseconds(read: Callable[[tuple[slice, ...]], Any], shape: tuple[int, ...]) -> float:
    """Median time of reading a random patch."""
    random = np.random.default_rng(0)
    times = []
    for _ in range(PATCHES):
        start = [random.integers(have - side + 1) for have, side in zip(shape, PATCH, strict=True)]
        window = tuple(slice(a, a + side) for a, side in zip(start, PATCH, strict=True))
        before = time.perf_counter()
        read(window)
        times.append(time.perf_counter() - before)
    return 1000 * float(np.median(times[PATCHES // 10 :]))


def patch_ms(folder: Path, name: str) -> float:
    """Reading patches of a preprocessed case into a batch that is used again."""
    import torch

    from voxelsoup.data.preprocessing.store import load_case
    from voxelsoup.training.patches import read_patch

    torch.set_num_threads(1)
    image = load_case(folder, name).image
    batch = np.empty((len(CHANNELS), *PATCH), np.float32)

    def read(window: tuple[slice, ...]) -> None:
        read_patch(image, window, batch)

    return milliseconds(read, image.shape[1:])


def packed(image: np.ndarray) -> dict[str, float]:
    """The same image in chunks that are packed one by one: their size, and a patch's time."""
    import deflate

    shape = image.shape[1:]
    grid = [range(0, side, CHUNK) for side in shape]
    chunks = {}
    for x in grid[0]:
        for y in grid[1]:
            for z in grid[2]:
                block = np.ascontiguousarray(image[:, x : x + CHUNK, y : y + CHUNK, z : z + CHUNK])
                shuffled = block.view(np.uint8).reshape(-1, block.itemsize).T.tobytes()
                chunks[x, y, z] = block.shape, deflate.zlib_compress(shuffled, 6), len(shuffled)
    batch = np.empty((len(CHANNELS), *(side + 2 * CHUNK for side in PATCH)), image.dtype)

    def read(window: tuple[slice, ...]) -> None:
        first = [side.start // CHUNK * CHUNK for side in window]
        for x in range(first[0], window[0].stop, CHUNK):
            for y in range(first[1], window[1].stop, CHUNK):
                for z in range(first[2], window[2].stop, CHUNK):
                    size, content, length = chunks[x, y, z]
                    block = np.frombuffer(deflate.zlib_decompress(content, length), np.uint8)
                    voxels = block.reshape(image.itemsize, -1).T.copy().view(image.dtype)
                    at = [a - b for a, b in zip((x, y, z), first, strict=True)]
                    inner = tuple(slice(a, a + n) for a, n in zip(at, size[1:], strict=True))
                    batch[(slice(None), *inner)] = voxels.reshape(size)

    megabytes = sum(len(content) for _, content, _ in chunks.values()) / 1e6
    return {"packed_mb": megabytes, "packed_patch_ms": milliseconds(read, shape)}


def measure(folder: Path) -> dict[str, Any]:
    """All figures."""
    from voxelsoup.data.preprocessing.store import load_case

    case = scans(folder)
    rounds = []
    for _ in range(ROUNDS):
        # No file of the round before is there to be replaced: freeing it takes time as well.
        for file in folder.glob("*.npy"):
            file.unlink()
        rounds.append({way: time_of(way, case, folder) for way in WAYS})
    seconds = {way: min(turn[way]["seconds"] for turn in rounds) for way in WAYS}
    image = load_case(folder, case.name).image
    turned = np.load(folder / "published.npy")[:, ::-1, ::-1]
    result = {
        "vs_published": seconds["published"] / seconds["ours"],
        "vs_gunzip": seconds["ours"] / seconds["gunzip"],
        "peak_mb": max(turn["ours"]["peak_mb"] for turn in rounds),
        "patch_ms": patch_ms(folder, case.name),
        "seconds": seconds["ours"],
        "seconds_published": seconds["published"],
        "seconds_gunzip": seconds["gunzip"],
        "seconds_unpacking": seconds["unpacking"],
        "seconds_writing": writing(folder, case.name),
        "stored_mb": image.nbytes / 1e6,
        "published_peak_mb": max(turn["published"]["peak_mb"] for turn in rounds),
        "difference": difference(np.asarray(image), turned),
    }
    result |= packed(np.asarray(image))
    ours(case, folder / "float16", "float16")
    result["patch_ms_float16"] = patch_ms(folder / "float16", case.name)
    return {
        key: round(float(value), 7 if key == "difference" else 3) for key, value in result.items()
    }


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Greatest difference between the voxels of two images that lie within zeros."""

    def inner(image: np.ndarray) -> np.ndarray:
        sides = [np.flatnonzero(image.any(axis=tuple({0, 1, 2, 3} - {axis}))) for axis in (1, 2, 3)]
        return image[(slice(None), *(slice(side[0], side[-1] + 1) for side in sides))]

    return float(np.abs(inner(one) - inner(other)).max())


def main() -> None:
    """Measure in a folder of its own, keep and print."""
    if sys.argv[1:2] == ["--one"]:
        run_one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
        return
    print("A real BraTS case" if REAL.is_dir() else "A phantom: no real scans are at hand")
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name))
    # It imports torch, which would count as memory of the processes that are measured.
    from bench.machine import keep_result

    keep_result("preprocess", result)
    print_figures("Preprocessing a case", result)


if __name__ == "__main__":
    main()
