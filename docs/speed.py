"""The page that shows how fast voxelsoup is, and its pictures, written from ``bench/results``.

    python docs/speed.py bench/results docs

Nothing on the page is written by hand, so that it cannot say anything else than the results do. A
benchmark that has no result yet is named, with the command that measures it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from voxelsoup.common.files import write_text
from voxelsoup.report.figures.panels import save_svg, styled
from voxelsoup.report.figures.style import BLUE, GREY, VERMILLION

OURS = "voxelsoup"
# Inches.
WIDTH, BAR_HEIGHT = 7.6, 0.24
# In bars: title and numbers of a panel.
AROUND_A_PANEL = 3.0
# The longest bar leaves so much to what is written beside it.
ROOM_FOR_LABELS = 1.5
FLOOR_SHADE = 0.15

INTRODUCTION = """\
# Speed

How long voxelsoup and other tools take for the same work, and how far each is from the floor: the
shortest time that the work could take on that machine, shaded in the pictures. The bars of
voxelsoup are blue, the others are grey; shorter is better.

`make speed-page` (`docs/speed.py`) writes this page from the files in `bench/results`, and a test
compares the two, so it says what was measured and nothing else. [Benchmarks](benchmarks.md) says
how it was measured, what else was measured, and what explains the figures.
"""


@dataclass(frozen=True)
class Panel:
    """Bars on one scale.

    Attributes:
        title: what they show, with its unit.
        lengths: whose bar -> its length; voxelsoup's begin with its name.
        floor: the least that is possible, in the same unit, if it is known; 1 where the lengths
            are in floors.
    """

    title: str
    lengths: dict[str, float]
    floor: float | None = None

    def floors(self, name: str) -> str:
        """How many times the floor a bar is."""
        return times(self.lengths[name] / self.floor) if self.floor else ""


@dataclass(frozen=True)
class Picture:
    """Panels one below the other, in a file of their own.

    Attributes:
        suffix: what tells its file from those of other pictures of the same result.
        floor: what the floor is made of.
        panels: from top to bottom.
    """

    suffix: str
    floor: str
    panels: list[Panel]


@dataclass(frozen=True)
class Aim:
    """What a figure was to be.

    Attributes:
        what: the figure.
        measured: its value; None where it could not be measured.
        bound: the value that was aimed at.
        at_most: whether less is better.
        unit: of both values.
    """

    what: str
    measured: float | None
    bound: float
    at_most: bool = False
    unit: str = ""

    def row(self) -> str:
        """Its row of the table."""
        side = "at most" if self.at_most else "at least"
        first = f"| {self.what} | {side} {number(self.bound)}{self.unit} |"
        if self.measured is None:
            return f"{first} not measured | |"
        met = self.measured <= self.bound if self.at_most else self.measured >= self.bound
        verdict = "reached" if met else "**not reached**"
        return f"{first} {number(self.measured)}{self.unit} | {verdict} |"


@dataclass(frozen=True)
class Reading:
    """What a result says.

    Attributes:
        sentence: in words.
        pictures: in bars.
        aims: beside what was aimed at; empty where nothing was.
    """

    sentence: str
    pictures: list[Picture]
    aims: list[Aim]


@dataclass(frozen=True)
class Benchmark:
    """A file of ``bench/results``, and how to read it.

    Attributes:
        name: the file's, without its ending.
        title: of its section.
        script: what measures it.
        work: what is measured.
        read: from its figures to what they say.
        on_gpu: whether measuring it needs a GPU.
    """

    name: str
    title: str
    script: str
    work: str
    read: Callable[[dict[str, Any]], Reading]
    on_gpu: bool = False


def number(value: float) -> str:
    """Three digits, which is more than such measurements are repeatable to."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(ratio: float) -> str:
    """A ratio, as it stands before `times`."""
    return f"{ratio:.1f}"


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence, with a comma between them and an `and` before the last."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def apart(panel: Panel) -> str:
    """How far each bar of a panel is from the floor, in words."""
    first, *others = panel.lengths
    said = [f"{first} takes {panel.floors(first)} times the floor"]
    return listed(said + [f"{name} {panel.floors(name)}" for name in others])


def over(peer: str, what: str, ratio: float | None, bound: float) -> Aim:
    """An aim that is a peer's time over ours."""
    return Aim(f"time of {peer} over voxelsoup's: {what}", ratio, bound)


def read_input(figures: dict[str, Any]) -> Reading:
    """Patches that are read and augmented."""
    names = {"ours": OURS, "monai": "MONAI", "batchgenerators": "batchgeneratorsv2"}
    seconds = figures["cpu_seconds_per_patch"]
    panel = Panel(
        "CPU seconds per patch",
        {name: seconds[way] for way, name in names.items() if way in seconds},
        figures["floor_cpu_seconds"],
    )
    floor = "copying a patch and its labels once"
    speed = "voxelsoup's patches per second over those of"
    return Reading(
        f"In CPU time, {apart(panel)}; without augmentation, which is the CPU's part if a GPU "
        f"trains, a patch costs voxelsoup {number(seconds['crops'])} CPU seconds.",
        [Picture("", floor, [panel])],
        [
            Aim(f"{speed} MONAI", figures["vs_monai"], 5),
            Aim(f"{speed} batchgeneratorsv2", figures["vs_batchgenerators"], 1),
        ],
    )


STEP_NAMES = {
    "ours": OURS,
    "contiguous": f"{OURS}, contiguous",
    "channels_last": f"{OURS}, channels last",
    "compiled": f"{OURS}, compiled",
    "plain": "MONAI's plain loop",
    "published": "published settings",
    "nnunet": "nnU-Net's loop",
}


def network_name(network: str) -> str:
    """A network of the training step's benchmark, as its users know it."""
    return "MedNeXt of config.yaml" if network == "demo" else f"MedNeXt-{network}"


def read_train_step(figures: dict[str, Any]) -> Reading:
    """Training steps of several networks, and the convolutions that they rest on."""
    steps = {
        network: Panel(
            f"{network_name(network)}: seconds per step",
            {STEP_NAMES[way]: seconds for way, seconds in found["step_seconds"].items()},
            found["floor_seconds"],
        )
        for network, found in figures["networks"].items()
    }
    said = listed(nearest(network_name(network), panel) for network, panel in steps.items())
    patches = f"{figures['batch']} patches of {' × '.join(map(str, figures['patch']))}"
    floor = "arithmetic at the machine's peak, or memory traffic at its bandwidth if that is more"
    sentence = f"A step on {patches} voxels takes voxelsoup {said}"
    pictures = [Picture("", floor, list(steps.values()))]
    rows = figures["depthwise"]
    # They have a time limit of their own in bench/gpu.sh.
    if rows:
        moved = "moving the bytes once at the memory's bandwidth"
        panels = [depthwise_panel(rows, direction) for direction in ("forward", "backward")]
        pictures.append(Picture("depthwise", moved, panels))
        sentence += (
            f"; depthwise convolutions take {farthest(rows, 'channels_last')} in channels last, "
            f"and {farthest(rows, 'contiguous')} contiguous"
        )
    return Reading(f"{sentence}.", pictures, step_aims(figures))


def nearest(network: str, panel: Panel) -> str:
    """How far voxelsoup's first bar is from the floor, beside the shortest of the others."""
    ours = next(iter(panel.lengths))
    said = f"{panel.floors(ours)} times the floor with {network}"
    others = {name: value for name, value in panel.lengths.items() if not name.startswith(OURS)}
    # Others' loops can need more memory than a GPU has.
    if not others:
        return said
    peer = min(others, key=lambda name: others[name])
    return f"{said} (the fastest of the others, {peer}: {panel.floors(peer)})"


def farthest(rows: list[dict[str, Any]], layout: str) -> str:
    """The depthwise convolutions of a layout that are farthest from the floor."""
    forward, backward = (
        times(max(row[layout][f"{direction}_vs_floor"] for row in rows))
        for direction in ("forward", "backward")
    )
    return f"up to {forward} times their floor forwards and {backward} times backwards"


def depthwise_panel(rows: list[dict[str, Any]], direction: str) -> Panel:
    """Depthwise convolutions of each size and layout, in floors."""
    lengths = {}
    for row in rows:
        size = f"{row['channels']} channels of {' × '.join(map(str, row['sides']))}"
        for layout in ("channels_last", "contiguous"):
            name = f"{OURS}, {layout.replace('_', ' ')}: {size}"
            lengths[name] = row[layout][f"{direction}_vs_floor"]
    return Panel(f"Depthwise convolutions, {direction}: times the floor", lengths, 1)


def step_aims(figures: dict[str, Any]) -> list[Aim]:
    """The aim of the device that was measured, for each network."""
    on_gpu = figures["device"] != "cpu"
    key, bound = ("vs_published", 3) if on_gpu else ("vs_plain", 1.3)
    peer = "the published settings, input and all," if on_gpu else "MONAI's plain loop"
    return [
        over(peer, network_name(network), found[key], bound)
        for network, found in figures["networks"].items()
    ]


def read_evaluate(figures: dict[str, Any]) -> Reading:
    """Evaluated cases of several kinds."""
    pairs = {figures["pair"]: figures, **figures["other"]}
    panels = {name: evaluate_panel(name, found) for name, found in pairs.items()}
    said = [f"{in_words(name)}: {apart(panel)}" for name, panel in panels.items()]
    floor = "the forward passes, which both have, as voxelsoup takes them"
    return Reading(
        f"For each pair of case and network: {'; '.join(said)}.",
        [Picture("", floor, list(panels.values()))],
        [over("MONAI", in_words(name), one["vs_monai"], 2) for name, one in pairs.items()],
    )


def evaluate_panel(pair: str, found: Mapping[str, Any]) -> Panel:
    """Seconds per case of both sides."""
    seconds = 60 / found["cases_per_minute"]
    lengths = {OURS: seconds, "MONAI": 60 / found["cases_per_minute_monai"]}
    return Panel(f"{in_words(pair)}: seconds per case", lengths, seconds * found["network_share"])


def in_words(pair: str) -> str:
    """Case and network of a pair of the evaluation's benchmark."""
    return f"{pair.replace('_', ', ')} network"


def read_predict(figures: dict[str, Any]) -> Reading:
    """Windows of a prediction, and the memory of a large one."""
    windows = Panel(
        "Windows of a BraTS case: CPU seconds, one thread",
        {OURS: figures["seconds_windows"], "MONAI": figures["seconds_windows_monai"]},
        figures["seconds_forward"],
    )
    memory = Panel(
        "512 × 512 × 800 voxels: peak memory in MB",
        {
            f"{OURS}, file to label map": figures["peak_mb"],
            "MONAI, inferer alone": figures["peak_mb_monai"],
        },
    )
    return Reading(
        f"For the windows, {apart(windows)}; an ensemble of five models takes "
        f"{times(figures['ensemble_vs_soup'])} times as long for a case as one soup.",
        [Picture("", "the forward passes alone", [windows, memory])],
        [
            over("MONAI", "the same windows", figures["vs_monai"], 1),
            Aim("peak memory, 512 × 512 × 800 voxels", figures["peak_mb"], 4000, True, " MB"),
        ],
    )


def read_preprocess(figures: dict[str, Any]) -> Reading:
    """A preprocessed case, and reading patches of it."""
    seconds = Panel(
        "A BraTS case: seconds",
        {
            OURS: figures["seconds"],
            "published procedure": figures["seconds_published"],
            "gzip alone": figures["seconds_gunzip"],
        },
        figures["seconds_unpacking"] + figures["seconds_writing"],
    )
    memory = Panel(
        "The same: peak memory in MB",
        {OURS: figures["peak_mb"], "published procedure": figures["published_peak_mb"]},
    )
    floor = "unpacking with libdeflate, then writing and flushing, on one core"
    return Reading(
        f"For a case, {apart(seconds)}; a patch is read from the result in "
        f"{number(figures['patch_ms'])} ms.",
        [Picture("", floor, [seconds, memory])],
        [
            over("the published procedure", "a case", figures["vs_published"], 6),
            Aim("voxelsoup's time over unpacking with gzip", figures["vs_gunzip"], 3, True),
            Aim("peak memory", figures["peak_mb"], 700, True, " MB"),
            Aim("reading a patch of 4 × 128³", figures["patch_ms"], 5, True, " ms"),
        ],
    )


def read_runs_per_gpu(figures: dict[str, Any]) -> Reading:
    """Runs that train at once on one device."""
    rates = {int(count): rate for count, rate in figures["patches_per_s"].items()}
    most = max(rates)
    on_cpu = figures["device"] == "cpu"
    device = "the CPU's cores" if on_cpu else figures["device"]
    names = {count: f"{OURS}, {count} at once" for count in rates} | {1: f"{OURS}, one run"}
    panel = Panel(
        f"Runs at once on {device}: seconds per patch, all runs together",
        {names[count]: 1 / rate for count, rate in rates.items()},
        1 / (rates[1] * most),
    )
    cores = ": this says how cores are shared and nothing about GPUs"
    return Reading(
        f"{most} runs at once train {figures['vs_alone'][str(most)]:.2f} times as many patches in "
        f"the same time as one alone; of {listed(map(str, rates))}, {figures['best']} at once "
        f"train most{cores if on_cpu else ''}.",
        [Picture("", f"{most} runs that take nothing from each other", [panel])],
        [],
    )


def read_smoke(figures: dict[str, Any]) -> Reading:
    """Which checks passed on the card, and which did not."""
    failed = [name for name, found in figures["checks"].items() if not found["passed"]]
    count = len(figures["checks"])
    said = f"failed: {listed(failed)}" if failed else "all passed"
    return Reading(f"{count} checks on {figures['device']}: {said}.", [], [])


def read_gpu_input(figures: dict[str, Any]) -> Reading:
    """Batches that a GPU augments."""
    cropped = 1 / figures["crops_per_second"]
    panel = Panel(
        "Seconds per patch on the device",
        {f"{OURS}, augmented there": 1 / figures["patches_per_second"]},
        cropped,
    )
    return Reading(
        f"{figures['patches_per_second']:.1f} augmented patches per second reach "
        f"{figures['device']}; augmenting a batch takes {figures['memory_passes']} passes over its "
        "memory.",
        [Picture("", "patches that are not augmented", [panel])],
        [],
    )


def read_gpu_evaluate(figures: dict[str, Any]) -> Reading:
    """A case predicted on a GPU, in each precision."""
    panels = [
        Panel(
            f"{precision}: seconds per case",
            {OURS: seconds, "MONAI": figures["seconds_monai"][precision]},
            figures["seconds_forward"][precision],
        )
        for precision, seconds in figures["seconds"].items()
    ]
    return Reading(
        f"MONAI's inferer takes {figures['vs_monai']} times as long as voxelsoup for a case on "
        f"{figures['device']}.",
        [Picture("", "the forward passes alone", panels)],
        [over("MONAI", "the same windows", figures["vs_monai"], 1)],
    )


BENCHMARKS = [
    Benchmark(
        "gpu_smoke",
        "Everything that a study does on a GPU",
        "bench/gpu_smoke.py",
        "Training in bfloat16 and float16, compiled or not; resuming, evaluation and prediction "
        "compared with an uninterrupted run and with the CPU; two runs on one card.",
        read_smoke,
        on_gpu=True,
    ),
    Benchmark(
        "input",
        "Input: patches that are read and augmented",
        "bench/input.py",
        "Patches of 4 × 128³ voxels with everything in the preset `full`, compared with MONAI's "
        "dictionary transforms and nnU-Net's batchgeneratorsv2, at the same ranges and "
        "probabilities.",
        read_input,
    ),
    Benchmark(
        "train_step_cpu",
        "Training step on a CPU",
        "bench/train_step.py",
        "The same network in float32, compared with the loops of others; voxelsoup as it is "
        "(`training.channels_last: auto`, which means true), and contiguous.",
        read_train_step,
    ),
    Benchmark(
        "train_step_gpu",
        "Training step on a GPU",
        "bench/train_step.py",
        "MedNeXt at the patch and batch of the published study, compared with the loops of others; "
        "voxelsoup as it is, with `training.channels_last`, and compiled.",
        read_train_step,
        on_gpu=True,
    ),
    Benchmark(
        "gpu_input",
        "Input and augmentation on a GPU",
        "bench/gpu_input.py",
        "Batches of two patches of 4 × 128³ voxels that the card augments, preset `full`.",
        read_gpu_input,
        on_gpu=True,
    ),
    Benchmark(
        "gpu_evaluate",
        "Predicting a case on a GPU",
        "bench/gpu_evaluate.py",
        "A BraTS case with MedNeXt-S, compared with MONAI's inferer on the same card.",
        read_gpu_evaluate,
        on_gpu=True,
    ),
    Benchmark(
        "preprocess",
        "Preprocessing a case",
        "bench/preprocess.py",
        "Four channels of 240 × 240 × 155 voxels, from their files to the flushed image, compared "
        "with the published procedure.",
        read_preprocess,
    ),
    Benchmark(
        "evaluate",
        "Evaluating a case",
        "bench/evaluate.py",
        "From the preprocessed arrays on disk to the case's scores, half selection and half test "
        "cases, compared with MONAI's inferer and metric classes.",
        read_evaluate,
    ),
    Benchmark(
        "predict",
        "Predicting a case",
        "bench/predict.py",
        "The windows of a case, and the memory of a large one, compared with MONAI's inferer.",
        read_predict,
    ),
    Benchmark(
        "runs_per_gpu_cpu",
        "Several runs that share the CPU's cores",
        "bench/runs_per_gpu.py",
        "Small runs that train at the same time, each a process with its own thread.",
        read_runs_per_gpu,
    ),
    Benchmark(
        "runs_per_gpu_gpu",
        "Several runs that share a GPU",
        "bench/runs_per_gpu.py",
        "Small runs that train at the same time on one card (`resources.runs_per_gpu`).",
        read_runs_per_gpu,
        on_gpu=True,
    ),
]


def main(results: Path, documents: Path) -> None:
    """Write the page and its pictures.

    Args:
        results: folder of the benchmarks' results.
        documents: folder of the page; pictures go to ``images`` in it.
    """
    images = documents / "images"
    for old in images.glob("speed-*.svg"):
        old.unlink()
    sections = [section(benchmark, results, images) for benchmark in BENCHMARKS]
    write_text(documents / "speed.md", "\n".join([INTRODUCTION, *sections]))


def section(benchmark: Benchmark, results: Path, images: Path) -> str:
    """What the page says of a benchmark; its pictures are written."""
    head = f"## {benchmark.title}\n\n{benchmark.work}\n"
    file = results / f"{benchmark.name}.json"
    if not file.is_file():
        return f"{head}\n{missing(benchmark)}"
    result = json.loads(file.read_text(encoding="utf-8"))
    reading = benchmark.read(result["figures"])
    shown = [show(picture, benchmark, images) for picture in reading.pictures]
    source = f"`bench/results/{file.name}`, by `python {benchmark.script}`:"
    where = ran_on(result["machine"])
    return "\n".join(
        [head, *shown, f"{reading.sentence}\n", aims_table(reading.aims), f"{source} {where}\n"]
    )


def missing(benchmark: Benchmark) -> str:
    """How to measure what was not."""
    why = "Not measured: no GPU was available." if benchmark.on_gpu else "Not measured yet."
    where = " on a machine with a GPU" if benchmark.on_gpu else ""
    file = f"bench/results/{benchmark.name}.json"
    return (
        f"**{why}** `python {benchmark.script}`{where} writes `{file}`, "
        "and `make speed-page` then shows it here.\n"
    )


def ran_on(machine: dict[str, Any]) -> str:
    """Machine, versions and date."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f"{machine['gpu']}, " if machine["gpu"] else ""
    where = f"{gpu}{machine['processor']}, {machine['cores']} cores (load {machine['load']})"
    return f"{where}; {versions}; {machine['date']}."


def aims_table(aims: list[Aim]) -> str:
    """The aims, beside what was measured."""
    if not aims:
        return "No aim was set.\n"
    head = "| figure | aim | measured | |\n|---|---|---|---|"
    return "\n".join([head, *(aim.row() for aim in aims)]) + "\n"


def show(picture: Picture, benchmark: Benchmark, images: Path) -> str:
    """Write a picture; returns how the page shows it."""
    name = "-".join(filter(None, ["speed", benchmark.name.replace("_", "-"), picture.suffix]))
    images.mkdir(parents=True, exist_ok=True)
    draw(picture, images / f"{name}.svg")
    what = "; ".join(panel.title for panel in picture.panels)
    return f"![{what}](images/{name}.svg)\n"


def draw(picture: Picture, path: Path) -> None:
    """Write a picture as SVG, on white, so that it can be read on a dark page too."""
    rows = [len(panel.lengths) + AROUND_A_PANEL for panel in picture.panels]
    # Letters as letters can be searched, and read aloud.
    with styled(svg_fonttype="none"):
        figure = Figure(figsize=(WIDTH, BAR_HEIGHT * (sum(rows) + 1)), layout="constrained")
        grid = figure.subplots(len(rows), 1, squeeze=False, height_ratios=rows)
        for axes, panel in zip(grid[:, 0], picture.panels, strict=True):
            draw_panel(axes, panel)
        shade = Patch(
            facecolor=(VERMILLION, FLOOR_SHADE),
            edgecolor=VERMILLION,
            label=f"floor: {picture.floor}",
        )
        figure.legend(handles=[shade], loc="outside lower left", fontsize=8)
        save_svg(figure, path)


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Bars, what each is in floors, and the floor."""
    names, lengths = list(panel.lengths), list(panel.lengths.values())
    colours = [BLUE if name.startswith(OURS) else GREY for name in names]
    bars = axes.barh(names, lengths, height=0.7, color=colours)
    axes.bar_label(bars, [label(panel, name) for name in names], padding=4, fontsize=8)
    if panel.floor is not None:
        # Behind the bars, so that they keep their colours.
        axes.axvspan(0, panel.floor, color=VERMILLION, alpha=FLOOR_SHADE, linewidth=0, zorder=0)
        axes.axvline(panel.floor, color=VERMILLION, linewidth=1.2)
    axes.set_title(panel.title, loc="left")
    axes.set_xlim(0, ROOM_FOR_LABELS * max(*lengths, panel.floor or 0))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def label(panel: Panel, name: str) -> str:
    """A bar's length, and how many times the floor that is."""
    length = number(panel.lengths[name])
    # Lengths in floors say it themselves.
    if panel.floor in (None, 1):
        return length
    return f"{length} ({panel.floors(name)} times the floor)"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
