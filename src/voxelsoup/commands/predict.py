"""The command `voxelsoup predict`: its options, what it prints, and its progress bar."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from voxelsoup.commands.data_set import LAYOUT
from voxelsoup.common.errors import InputError
from voxelsoup.common.text import counted, listed
from voxelsoup.study.sections.training import ALL_AXES, PrecisionName

if TYPE_CHECKING:
    from voxelsoup.data.case import Case
    from voxelsoup.prediction.batch import OutputSettings, PredictionProgress
    from voxelsoup.prediction.model_files import ModelFile
    from voxelsoup.prediction.outcomes import CaseOutcome

OVERLAP = 0.5
# On a CPU several windows at once only take memory.
WINDOWS_ON_GPU = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    """The arguments and options of the command."""
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="MODEL ... INPUT OUTPUT",
        help="one or more models (a model.safetensors, the folder of a soup or ensemble, a "
        "bundle; several are averaged), then the scans (a folder of any layout, a volume, or "
        "CHANNEL=FILE,CHANNEL=FILE,... of one case), then the folder to write to",
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="also write probabilities/CASE.nii.gz"
    )
    add_model_options(parser)
    parser.add_argument(
        "--naming",
        choices=("case", "brats"),
        default="case",
        help="brats: refuse case names that the BraTS challenges do not accept",
    )
    parser.add_argument("--overwrite", action="store_true", help="predict finished cases again")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How models are applied: the options of every command that predicts."""
    parser.add_argument(
        "--flips",
        action="store_true",
        help="average over the mirror images along the axes that the model was trained with (8 "
        "for x, y and z)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=OVERLAP,
        metavar="SHARE",
        help="of neighbouring windows (default: %(default)s)",
    )
    parser.add_argument(
        "--every-window",
        action="store_true",
        help="also predict windows outside the foreground, where all channels are 0",
    )
    parser.add_argument(
        "--postprocess",
        action="store_true",
        help="apply the post-processing of the model's fold or bundle",
    )
    parser.add_argument(
        "--label-order",
        metavar="ORDER",
        help="which value each region writes, later ones over earlier ones: WT=2,TC=1,ET=3 "
        "(default: follows from the regions)",
    )
    parser.add_argument(
        "--channels",
        metavar="NAMES",
        help="what INPUT calls the model's channels, or their numbers in it from 0, in the model's "
        "order (default: names and synonyms are matched)",
    )
    parser.add_argument("--layout", metavar="NAME", help=LAYOUT)
    parser.add_argument(
        "--missing",
        choices=("zeros",),
        help="a case without one of the channels: fill it with zeros (for models that were trained "
        "to do without; default: what their study accepts, otherwise such a case is refused)",
    )
    parser.add_argument(
        "--nan",
        choices=("background",),
        help="voxels of a scan that are NaN: read them as background (otherwise refused)",
    )
    parser.add_argument(
        "--placement",
        choices=("voxels",),
        help="files of a case of one shape that their headers place elsewhere: take them voxel by "
        "voxel, with the header of the first one (otherwise refused)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="auto: a CUDA GPU if there is one, else the CPU; mps: the GPU of an Apple computer "
        "(untested: compare the label maps with those of --device cpu)",
    )
    parser.add_argument("--precision", choices=get_args(PrecisionName), default="float32")
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads (default: the cores that this process may use)",
    )
    parser.add_argument(
        "--window-batch",
        type=int,
        metavar="N",
        help=f"windows at once (default: 1 on the CPU, {WINDOWS_ON_GPU} on a GPU)",
    )


def predict_command(asked: argparse.Namespace) -> int:
    """Run the command; returns the exit code, 1 if a case could not be predicted.

    Raises:
        InputError: if a model, an option or the input as a whole is wrong.
    """
    _check_targets(asked.targets)
    *models, given, output = asked.targets
    check_numbers(asked)
    # What takes seconds to import comes after what can be checked at once.
    from voxelsoup.prediction.batch import OutputSettings
    from voxelsoup.prediction.model_files import open_models
    from voxelsoup.prediction.scans import find_scans

    files = open_models([Path(model) for model in models])
    called = asked.channels.split(",") if asked.channels else None
    channels = files[0].description.channels
    cases = find_scans(given, channels, called, print_remark, layout=asked.layout)
    outputs = OutputSettings(Path(output), asked.probabilities, asked.naming, asked.overwrite)
    outcomes = predict_with(files, cases, outputs, asked)
    return _conclude(outcomes, outputs.folder)


def predict_with(
    files: Sequence[ModelFile],
    cases: Sequence[Case],
    outputs: OutputSettings,
    asked: argparse.Namespace,
) -> list[CaseOutcome]:
    """Predict cases by the options of ``add_model_options``, and show how far it is.

    Raises:
        InputError: if an option does not fit the models.
    """
    from voxelsoup.common.machine import usable_cores
    from voxelsoup.data.regions import parse_label_order
    from voxelsoup.models import devices
    from voxelsoup.prediction.batch import predict_cases
    from voxelsoup.prediction.predictor import PredictionSettings, order_of, shared_postprocessing
    from voxelsoup.study.sections.data import Accept

    regions = files[0].description.regions
    stated = parse_label_order(asked.label_order, regions) if asked.label_order else None
    device = devices.prepare(asked.device, asked.threads or usable_cores(), "--device")
    settings = PredictionSettings(
        files,
        order_of(files, stated, "--label-order"),
        overlap=asked.overlap,
        window_batch=asked.window_batch or (WINDOWS_ON_GPU if device.type == "cuda" else 1),
        flips=asked.flips,
        every_window=asked.every_window,
        precision=asked.precision,
        postprocessing=shared_postprocessing(files) if asked.postprocess else None,
        accept=Accept(
            nan=asked.nan,
            missing_channels=asked.missing or _accepted_missing(files),
            placement=asked.placement,
        ),
    )
    if asked.flips and len(settings.flip_axes) < len(ALL_AXES):
        along = listed(settings.flip_axes) or "no axis"
        print(f"--flips: along {along}, as the models were trained (`training.mirror_axes`)")
    # As Ctrl-C does: nothing half written, and no large file, is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _progress(len(cases)) as progress:
        return predict_cases(cases, settings, outputs, device, progress)


def _accepted_missing(files: Sequence[ModelFile]) -> Literal["zeros"] | None:
    """What a missing channel is read as where all of the models' studies accept one; said."""
    from voxelsoup.prediction.study_of_model import study_of

    try:
        studies = [study_of(file.path) for file in files]
    except InputError:
        # A study of another version: what it accepts has to be said.
        return None
    accepting = [one.source for one in studies if one is not None and one.missing_channels]
    if len(accepting) < len(studies):
        return None
    print_remark(f"a channel that is missing is filled with zeros, as {accepting[0]} accepts")
    return "zeros"


def print_remark(remark: str) -> None:
    """Say what was assumed, or left out."""
    print(f"voxelsoup: {remark}", file=sys.stderr, flush=True)


def _check_targets(targets: Sequence[str]) -> None:
    """Refuse too few of them, and empty ones, which would mean the working directory."""
    found = None
    if len(targets) < 3:
        found = f"has {counted(len(targets), 'argument')}"
    elif not all(targets):
        found = f"has nothing as argument {targets.index('') + 1} of {len(targets)}"
    if found:
        raise InputError(
            "voxelsoup predict",
            found,
            "MODEL [MODEL ...] INPUT OUTPUT",
            "name at least one model, then the scans, then the folder to write to",
        )


def check_numbers(asked: argparse.Namespace) -> None:
    """Refuse numbers among the options that are out of range."""
    if not 0 <= asked.overlap < 1:
        raise _out_of_range(f"--overlap {asked.overlap:g}", "at least 0 and below 1")
    for option, number in (("--threads", asked.threads), ("--window-batch", asked.window_batch)):
        if number is not None and number < 1:
            raise _out_of_range(f"{option} {number}", "at least 1")


def _out_of_range(option: str, allowed: str) -> InputError:
    return InputError(option, "is out of range", allowed, "correct the option")


@contextmanager
def _progress(cases: int) -> Iterator[PredictionProgress]:
    """A bar with the time left on stderr; elsewhere than on a terminal, a line per case."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from voxelsoup.prediction.batch import PredictionProgress

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
        TimeRemainingColumn(),
    )
    done = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        # As counted in cases; speeds are those of the last half minute and more.
        task = bar.add_task("", total=cases)

        def advanced(case: str, part: float) -> None:
            number = min(done + 1, cases)
            bar.update(task, completed=done + part, description=f"{case} ({number} of {cases})")

        def finished(one: CaseOutcome) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done)
            for note in one.notes:
                console.print(f"{one.case}: {note}", markup=False)
            if one.problem is not None:
                console.print(f"voxelsoup: {one.case} is left out: {one.problem}", markup=False)
            elif not console.is_terminal:
                word = "is done already" if one.outcome == "kept" else f"{one.seconds:.1f} s"
                console.print(f"{one.case}: {word} ({done} of {cases})", markup=False)

        yield PredictionProgress(advanced, finished)


def _conclude(outcomes: Sequence[CaseOutcome], folder: Path) -> int:
    counts = Counter(one.outcome for one in outcomes)
    kept = f", {counts['kept']} already existed" if counts["kept"] else ""
    print(f"{folder}: {counted(counts['predicted'], 'case')} predicted{kept}", flush=True)
    if not counts["bad"]:
        return 0
    print(f"\nvoxelsoup: {counted(counts['bad'], 'case')} could not be predicted", file=sys.stderr)
    for one in outcomes:
        if one.problem is not None:
            print(f"  - {one.case}: {one.problem.where}: {one.problem.found}", file=sys.stderr)
    return 1
